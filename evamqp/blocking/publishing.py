"""Publishes that wait for their confirm: one at a time, or many in a batch.

The channel reports each outcome here, and sends everything.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

import evamqp

if TYPE_CHECKING:
    from evamqp.blocking.channel import Channel
    from evamqp.types import Body

#: Seconds for which messages of a batch may wait for company.
GATHERING = 0.01


class Publication:
    """One publish until its confirm.

    Attributes:
        is_settled: Whether it has its outcome.
        error: Why the broker did not take it, or why nobody knows; None if it did.
    """

    __slots__ = ("batch", "body", "error", "exchange", "is_settled", "number", "routing_key")

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        batch: Batch | None = None,
        number: int = 0,
    ) -> None:
        self.exchange: str = exchange
        self.routing_key: str = routing_key
        self.body: Body = body
        self.batch: Batch | None = batch
        self.number: int = number
        self.is_settled: bool = False
        self.error: evamqp.AmqpError | None = None

    def has_ended(self) -> bool:
        return self.is_settled

    def is_returned(self, returned: evamqp.Returned) -> bool:
        """Whether this is what came back; headers do not count, since brokers reorder them."""
        return (
            self.error is None
            and self.routing_key == returned.routing_key
            and self.exchange == returned.exchange
            and self.body == returned.body
        )

    def settle(self, error: evamqp.AmqpError | None) -> None:
        """Its confirm came, or never will; an error that it has already stays."""
        if error is not None and self.error is None:
            self.error = error
        self.is_settled = True
        if self.batch is not None:
            self.batch._settled(self)


class Batch:
    """Publishes on one channel that wait for their confirms together: ``channel.batch()``.

    Leaving the ``with`` block waits for the last confirm.

    Attributes:
        failures: What the broker did not take so far: the place in the batch, from 0, and why.
    """

    __slots__ = (
        "_channel",
        "_count",
        "_lost",
        "_low_water",
        "_outstanding",
        "_window",
        "_written_at",
        "failures",
    )

    def __init__(self, channel: Channel, window: int) -> None:
        if window < 1:
            raise evamqp.BadArgument(f"window must be 1 or more, not {window}")
        self._channel = channel
        self._window = window
        # The window is refilled when half of it is confirmed, so that writes carry many messages.
        self._low_water = window // 2
        self._count = self._outstanding = 0
        self._written_at = monotonic()
        self._lost: evamqp.AmqpError | None = None
        self.failures: list[tuple[int, evamqp.PublishFailed]] = []

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        properties: evamqp.Properties | None = None,
        mandatory: bool = True,
        persistent: bool = True,
    ) -> int:
        """Publish a message, as ``Channel.publish``; waits only while the window is full.

        Returns:
            Its place in the batch, from 0.

        Raises:
            NotExecuted: The channel ended; what ``channel.unconfirmed`` lists has no outcome.
            UsageError: As evamqp.Channel.basic_publish; nothing was sent.
        """
        channel = self._channel
        loop = channel._loop
        with loop.lock:
            if self._outstanding >= self._window:
                loop.enter()
                self._drive(self._has_room)
                self._written_at = monotonic()
            self._check()
            number = self._count
            publication = Publication(exchange, routing_key, body, self, number)
            loop.call(channel._send, publication, properties, mandatory, persistent)
            self._count = number + 1
            self._outstanding += 1
            now = monotonic()
            if now - self._written_at > GATHERING:
                self._written_at = now
                loop.flush()
            else:
                loop.leave()
        return number

    def wait(self) -> None:
        """Wait until everything published so far has its outcome.

        Raises:
            BatchFailed: The broker did not take some of it; ``failures`` begins anew.
            NotExecuted: The channel ended; what ``channel.unconfirmed`` lists has no outcome.
        """
        loop = self._channel._loop
        with loop.lock:
            loop.enter()
            self._drive(self._is_empty)
            self._check()
        if self.failures:
            failures, self.failures = self.failures, []
            raise evamqp.BatchFailed(sorted(failures, key=lambda failure: failure[0]))

    def _drive(self, done: Callable[[], bool]) -> None:
        if not self._channel._loop.drive(done):
            self._lost = self._channel._unknown()

    def _has_room(self) -> bool:
        return self._outstanding <= self._low_water

    def _is_empty(self) -> bool:
        return not self._outstanding

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost.copy()

    def _settled(self, publication: Publication) -> None:
        self._outstanding -= 1
        error = publication.error
        if isinstance(error, evamqp.PublishFailed):
            self.failures.append((publication.number, error))
        elif error is not None:
            self._lost = error
