"""Numbered messages from a Publisher by a forwarding Consumer to a last one; an account of each.

What is done to the connections meanwhile is ``broker_faults.py``; nothing is broken here.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import evamqp
from evamqp.abc import Adapter
from evamqp.recovery.backoff import Backoff

Target = evamqp.Parameters | Sequence[evamqp.Parameters]

#: Messages without an outcome, and without an acknowledgement, at a time.
WINDOW = 500
PREFETCH = 200
# Seconds between two bursts of publishes.
INTERVAL = 0.01
#: Every so many numbers a twin goes along that no queue takes, and a message whose exchange is
#: missing, over which the broker closes the channel.
NOWHERE_EVERY = 7
REFUSED_EVERY = 1000
# Bursts in which the messages between two faults are published.
BURSTS = 30


class Side(evamqp.Handler):
    """What one client's connections went through.

    Each recovery counts as the first: the faults of a soak come faster than a connection counts
    as stable, and what is to be seen is how one outage ends.
    """

    def __init__(self, target: Target, adapter: Adapter) -> None:
        self.losses = 0
        self.is_open = False
        self.is_blocked = False
        self.blocks = 0
        self._backoff = Backoff()
        self.reconnector = evamqp.Reconnector(
            target, adapter=adapter, handler=self, backoff=self._backoff
        )

    def on_open(self, connection: evamqp.Connection) -> None:
        self.is_open = True
        self._backoff.reset()

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        """An attempt in vain is not a loss."""

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.losses += 1
        self.is_open = self.is_blocked = False

    def on_blocked(self, connection: evamqp.Connection, reason: str) -> None:
        self.is_blocked = True
        self.blocks += 1

    def on_unblocked(self, connection: evamqp.Connection) -> None:
        self.is_blocked = False


@dataclass(frozen=True)
class Account:
    """What became of the messages.

    Args:
        sent: Accepted by the publisher and confirmed.
        lost: Confirmed and never consumed.
        invented: Consumed and never published, or sent where no queue is.
        duplicates: Consumed again.
        allowed: Duplicates that lost connections explain, channels closed, and nacks: not those
            returned.
        disordered: First occurrences behind a later number.
        again: Publishes that came back, or were nacked to the end, and were published again.
        returned: Messages for no queue, as they should be.
        refused: Messages for a missing exchange, as they should be.
        wrong: Outcomes that no message should have, or more than one for one message.
        unmatched: Returns of which it could not be told whose they were.
    """

    sent: int
    lost: int
    invented: int
    duplicates: int
    allowed: int
    disordered: int
    again: int
    returned: int
    refused: int
    wrong: int
    unmatched: int

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        broken = self.lost or self.invented or self.disordered or self.wrong or self.unmatched
        return not broken and self.duplicates <= self.allowed

    def __str__(self) -> str:
        return (
            f"messages={self.sent} lost={self.lost} invented={self.invented}"
            f" duplicates={self.duplicates} (allowed {self.allowed})"
            f" disordered={self.disordered} again={self.again} returned={self.returned}"
            f" refused={self.refused} wrong={self.wrong} unmatched={self.unmatched}"
        )


def properties_of(number: int, run: int, *, is_routed: bool = True) -> evamqp.Properties:
    """Headers as no release leaves them, and what alone tells a message from its twin.

    Their names are not sorted, one is stripped on the way, and the values have many types.
    """
    values = (number, 2**40, -1.5, "text", b"\xff", None, [{"z": 1, "a": True}], number % 2 == 0)
    headers: dict[str, object] = {"z": values[number % len(values)], "run": run, "n": number}
    if number % 3 == 0:
        headers["BCC"] = ["nowhere"]
    headers["is-routed"] = is_routed
    headers["CC"] = ["nowhere"]
    return evamqp.Properties(headers=headers)


class Traffic:
    """Publishes numbers from 0, forwards them, and consumes them.

    All but the plain counts belongs to the loop.

    Args:
        adapter: The loop of both.
        publish_to: Where the publisher connects.
        consume_from: Where forwarder and consumer connect.
        queue: Name of the queue that is published to; it is made, and so are an exchange and the
            queue that is consumed at last.
        total: How many messages.
        kind: Of the queue: ``classic`` or ``quorum``.

    Attributes:
        limit: Publish no number from here on, until it is raised; from any thread.
        confirmed: How many have been.
        consumed: How many numbers came for the first time.
    """

    def __init__(
        self,
        adapter: Adapter,
        publish_to: Target,
        consume_from: Target,
        *,
        queue: str,
        total: int,
        kind: str = "classic",
    ) -> None:
        self.total = self.limit = total
        self.published = self.confirmed = self.consumed = 0
        self.burst = WINDOW
        self._adapter = adapter
        self._queue = queue
        self._outcomes = bytearray(total)
        self._seen = bytearray(total)
        self._highest = -1
        self._returned: deque[int] = deque()  # to be published again
        self._republished: set[int] = set()
        self._again = self._nacked = self._invented = self._duplicates = self._disordered = (
            self._wrong
        ) = 0
        self._is_stopping = self.is_over = False
        self._run = random.SystemRandom().randrange(2**31)
        self._refused = self._nowhere = 0
        self._exchange, self._last_queue = f"{queue}-headers", f"{queue}-last"
        topology = self._make_topology(kind)
        self.publishing = Side(publish_to, adapter)
        self.consuming = Side(consume_from, adapter)
        self._publisher = evamqp.Publisher(
            self.publishing.reconnector, topology=topology, max_messages=2 * WINDOW
        )
        consuming = self.consuming.reconnector
        self._forwarding = evamqp.Publisher(consuming, topology=topology, max_messages=2 * WINDOW)
        self._forwarder = evamqp.Consumer(
            consuming, queue, self._forward, topology=topology, prefetch=PREFETCH,
            on_error="requeue",
        )  # fmt: skip
        self._consumer = evamqp.Consumer(
            consuming, self._last_queue, self._take, topology=topology, prefetch=PREFETCH
        )
        adapter.call_soon(self._publish)

    def _make_topology(self, kind: str) -> evamqp.Topology:
        topology = evamqp.Topology()
        # One consumer at a time: only so does the broker promise an order over reconnections.
        arguments = {"x-single-active-consumer": True, "x-queue-type": kind}
        for queue in (self._queue, self._last_queue):
            topology.queue(queue, durable=True, arguments=arguments)
        topology.exchange(self._exchange, "headers", durable=True)
        topology.bind(self._queue, self._exchange, "", {"x-match": "all", "is-routed": True})
        return topology

    # What others ask, from any thread

    @property
    def losses(self) -> int:
        """Connections that ended so far, of both clients."""
        return self.publishing.losses + self.consuming.losses

    @property
    def is_quiet(self) -> bool:
        """Whether everything that was published has been consumed."""
        return self.confirmed == self.published == self.consumed

    @property
    def is_done(self) -> bool:
        """Whether every message that there shall be has been confirmed and consumed."""
        is_settled = not self._publisher.pending and not self._returned
        return self.is_quiet and self.published == self.total and is_settled

    def stop_at(self, total: int) -> None:
        """Publish no more than so many, or than have been published."""
        self.total = self.limit = max(total, self.published)

    def account(self) -> Account:
        """The sum of it all."""
        # A refusal closes two channels; the forwarder sends again what its own publisher may send
        # again, and behind both stands the last consumer.
        windows = self.publishing.losses + 2 * self._refused
        losses = windows * WINDOW + 3 * self.consuming.losses * PREFETCH
        return Account(
            sent=self.confirmed,
            lost=sum(
                1
                for outcome, seen in zip(self._outcomes, self._seen, strict=True)
                if outcome and not seen
            ),
            invented=self._invented,
            duplicates=self._duplicates,
            allowed=losses + self._nacked,
            disordered=self._disordered,
            again=self._again,
            returned=self._nowhere,
            refused=self._refused,
            wrong=self._wrong,
            unmatched=self._publisher.unmatched_returns + self._forwarding.unmatched_returns,
        )

    def close(self) -> None:
        """Close both clients; ``is_over`` tells when they are."""
        self._is_stopping = True
        for client in (self._publisher, self._forwarder, self._forwarding, self._consumer):
            client.close(10.0)
        for side in (self.publishing, self.consuming):
            side.reconnector.close()
        self._adapter.call_soon(self._look_for_end)

    def _look_for_end(self) -> None:
        states = {side.reconnector.state.name for side in (self.publishing, self.consuming)}
        if states == {"CLOSED"}:
            self.is_over = True
        else:
            self._adapter.call_later(INTERVAL, self._look_for_end)

    # In the loop

    def _publish(self) -> None:
        if self._is_stopping:
            return
        self._adapter.call_later(INTERVAL, self._publish)
        end = min(self.limit, self.total, self.published + self.burst)
        for _ in range(min(self.burst, len(self._returned), WINDOW - self._publisher.pending)):
            self._send(self._returned.popleft())
        while self.published < end and self._publisher.pending < WINDOW:
            self._send(self.published)
            self._send_others(self.published)
            self.published += 1

    def _send(self, number: int) -> None:
        self._publisher.publish(
            self._exchange,
            "",
            b"%d" % number,
            properties_of(number, self._run),
            callback=self._settle,
        )

    def _send_others(self, number: int) -> None:
        if number % NOWHERE_EVERY == 0:
            nowhere = properties_of(number, self._run, is_routed=False)
            self._publisher.publish(
                self._exchange, "", b"%d" % number, nowhere, callback=self._settle_nowhere
            )
        if number % REFUSED_EVERY == REFUSED_EVERY // 2:
            self._publisher.publish("missing", "", b"", callback=self._settle_refused)

    def _settle_nowhere(self, publication: evamqp.Publication) -> None:
        if publication.outcome is evamqp.Outcome.RETURNED:
            self._nowhere += 1
        else:
            self._wrong += not self._is_stopping

    def _settle_refused(self, publication: evamqp.Publication) -> None:
        if publication.outcome is evamqp.Outcome.REFUSED:
            self._refused += 1
        else:
            self._wrong += not self._is_stopping

    def _settle(self, publication: evamqp.Publication) -> None:
        number = int(publication.body)
        if publication.outcome is evamqp.Outcome.CONFIRMED:
            self._wrong += self._outcomes[number]
            self._outcomes[number] = 1
            self.confirmed += 1
        elif publication.outcome in (evamqp.Outcome.RETURNED, evamqp.Outcome.NACKED):
            # There was no queue, or it was ill: an application would try again later.
            self._again += 1
            self._nacked += publication.outcome is evamqp.Outcome.NACKED
            self._republished.add(number)
            self._returned.append(number)
        elif not self._is_stopping:
            self._wrong += 1

    def _forward(self, message: evamqp.Message) -> evamqp.Publication:
        return self._forwarding.publish(
            "", self._last_queue, message.body, message.properties, callback=self._settle_forward
        )

    def _settle_forward(self, publication: evamqp.Publication) -> None:
        if publication.outcome is not evamqp.Outcome.CONFIRMED:
            # It is delivered again, and has lost its place.
            self._republished.add(int(publication.body))
            self._nacked += publication.outcome is evamqp.Outcome.NACKED
            is_possible = publication.outcome in (evamqp.Outcome.RETURNED, evamqp.Outcome.NACKED)
            self._wrong += not (is_possible or self._is_stopping)

    def _take(self, message: evamqp.Message) -> None:
        number = int(message.body)
        headers = message.properties.headers or {}
        if headers.get("run") != self._run:
            return  # a duplicate that a former run on this broker has left
        if number >= self.published or not headers.get("is-routed"):
            self._invented += 1
        elif self._seen[number]:
            self._duplicates += 1
        else:
            self._seen[number] = 1
            self.consumed += 1
            # What was published again has lost its place.
            if number not in self._republished:
                self._disordered += number < self._highest
                self._highest = max(self._highest, number)


class Impatient(Exception):
    """What was waited for did not come."""


def wait_until(done: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Look from another thread until ``done()``.

    Raises:
        Impatient: It took longer.
    """
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Impatient(f"not within {seconds:g} s: {what}")
        time.sleep(0.002)
