"""Numbered messages from a Publisher to a Consumer, and an account of every one of them.

What is done to the connections meanwhile is ``broker_faults.py``; nothing is broken here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import evamqp
from evamqp.adapters.base import Adapter
from evamqp.recovery.backoff import Backoff

Target = evamqp.Parameters | Sequence[evamqp.Parameters]

#: Messages without an outcome, and without an acknowledgement, at a time.
WINDOW = 500
PREFETCH = 200
# Seconds between two bursts of publishes.
INTERVAL = 0.01
# Bursts in which the messages between two faults are published.
BURSTS = 30


class Side(evamqp.Handler):
    """What one client's connections went through.

    Each recovery counts as the first: the faults of a soak come faster than a connection counts
    as stable, and what is to be seen is how one outage ends.
    """

    def __init__(self, target: Target, adapter: Adapter) -> None:
        self.losses = 0
        self.is_blocked = False
        self.blocks = 0
        self._backoff = Backoff()
        self.reconnector = evamqp.Reconnector(
            target, adapter=adapter, handler=self, backoff=self._backoff
        )

    def on_open(self, connection: evamqp.Connection) -> None:
        self._backoff.reset()

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        """An attempt in vain is not a loss."""

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.losses += 1
        self.is_blocked = False

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
        invented: Consumed and never published.
        duplicates: Consumed again.
        allowed: Duplicates that lost connections explain, and nacks: not those returned.
        disordered: First occurrences behind a later number.
        again: Publishes that came back, or were nacked to the end, and were published again.
        wrong: Outcomes that no message should have, or more than one for one message.
    """

    sent: int
    lost: int
    invented: int
    duplicates: int
    allowed: int
    disordered: int
    again: int
    wrong: int

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        broken = self.lost or self.invented or self.disordered or self.wrong
        return not broken and self.duplicates <= self.allowed

    def __str__(self) -> str:
        return (
            f"messages={self.sent} lost={self.lost} invented={self.invented}"
            f" duplicates={self.duplicates} (allowed {self.allowed})"
            f" disordered={self.disordered} again={self.again} wrong={self.wrong}"
        )


class Traffic:
    """Publishes numbers from 0 and consumes them.  All but the plain counts belongs to the loop.

    Args:
        adapter: The loop of both.
        publish_to: Where the publisher connects.
        consume_from: Where the consumer connects.
        queue: Name of the queue, which is made.
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
        # One consumer at a time: only so does the broker promise an order over reconnections.
        topology = evamqp.Topology()
        arguments = {"x-single-active-consumer": True, "x-queue-type": kind}
        topology.queue(queue, durable=True, arguments=arguments)
        self.publishing = Side(publish_to, adapter)
        self.consuming = Side(consume_from, adapter)
        self._publisher = evamqp.Publisher(
            self.publishing.reconnector, topology=topology, max_messages=WINDOW
        )
        self._consumer = evamqp.Consumer(
            self.consuming.reconnector, queue, self._take, topology=topology, prefetch=PREFETCH
        )
        adapter.call_soon(self._publish)

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
        return self.is_quiet and self.published == self.total

    def stop_at(self, total: int) -> None:
        """Publish no more than so many, or than have been published."""
        self.total = self.limit = max(total, self.published)

    def account(self) -> Account:
        """The sum of it all."""
        losses = self.publishing.losses * WINDOW + self.consuming.losses * PREFETCH
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
            wrong=self._wrong,
        )

    def close(self) -> None:
        """Close both clients; ``is_over`` tells when they are."""
        self._is_stopping = True
        self._publisher.close(10.0)
        self._consumer.close(10.0)
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
            self.published += 1

    def _send(self, number: int) -> None:
        self._publisher.publish("", self._queue, b"%d" % number, callback=self._settle)

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

    def _take(self, message: evamqp.Message) -> None:
        number = int(message.body)
        if number >= self.published:
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
