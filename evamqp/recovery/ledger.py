"""Every accepted publish until its one outcome: what waits, what was sent, how much of both.

No channel and no timer: the publisher sends what ``next_unsent`` returns, and reports the outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any

from evamqp.core.request import Host, Request
from evamqp.errors import OutputFull, WrongState
from evamqp.recovery.returns import Returns

if TYPE_CHECKING:
    from evamqp.codec.properties import Properties
    from evamqp.core.message import Returned
    from evamqp.errors import AmqpError
    from evamqp.types import Tags


# Publishes that expired unsent and may stay in the queue before it is swept.
ENDED_KEPT = 1000


# Gets the first publish that is awaited in this context and not confirmed.
_failures: ContextVar[list[Publication] | None] = ContextVar("failures", default=None)


def observe_failures(failed: list[Publication]) -> None:
    """Record in ``failed`` the first publish that this context awaits and that is not CONFIRMED."""
    _failures.set(failed)


class Outcome(Enum):
    """What became of a publish.  Each accepted one ends in exactly one of these."""

    #: The broker took responsibility for it.
    CONFIRMED = "CONFIRMED"
    #: The broker nacked it, and each of the configured resends.
    NACKED = "NACKED"
    #: No queue took it.
    RETURNED = "RETURNED"
    #: Its deadline came first; the broker may or may not have it.
    EXPIRED = "EXPIRED"
    #: The broker closed the channel or connection because of it, or it cannot be sent at all.
    REFUSED = "REFUSED"
    #: The timeout of close() came first; the broker may or may not have it.  If it is in a store,
    #: the next Publisher with that store publishes it.
    ABANDONED = "ABANDONED"


class Publication(Request[Outcome]):
    """One publish of a Publisher.  ``await`` it for its Outcome; it never raises.

    Attributes:
        number: Its position in publish order, from 1.
        exchange: As published.
        routing_key: As published.
        body: As published.
        properties: As sent.
        mandatory: As published.
        size: Bytes that count against ``max_bytes``: body, routing key and properties.
        outcome: None while it is pending.
        detail: For RETURNED the Returned; for REFUSED the reason of the channel's end, or the
            UsageError that says why it cannot be sent; for EXPIRED and ABANDONED why it had no
            outcome: NotReady (its ``__cause__`` is what was last in the way of a connection), an
            unconfirmed publish's RequestTimeout, PublishNacked, or the reason of the reconnector's
            end; else None.
    """

    __slots__ = (
        "_resends",
        "_returned",
        "_tag",
        "body",
        "detail",
        "exchange",
        "mandatory",
        "number",
        "properties",
        "routing_key",
        "size",
    )

    def __init__(
        self,
        host: Host,
        number: int,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties,
        mandatory: bool,
        callback: Callable[[Publication], object] | None,
    ) -> None:
        super().__init__(host, "publish")
        if callback is not None:
            self._callback = lambda outcome: callback(self)
        self.number: int = number
        self.exchange: str = exchange
        self.routing_key: str = routing_key
        self.body: bytes = body
        self.properties: Properties = properties
        self.mandatory: bool = mandatory
        self.detail: Returned | AmqpError | None = None
        self.size: int = len(body) + len(routing_key) + len(properties.raw)
        self._resends = 0
        self._returned: Returned | None = None  # until the ack that follows
        self._tag = 0  # its delivery tag; 0 unless sent

    def __repr__(self) -> str:
        outcome = self.outcome.name if self.outcome else "pending"
        return (
            f"<Publication {outcome} of {len(self.body)} bytes, exchange={self.exchange!r}, "
            f"routing_key={self.routing_key!r}>"
        )

    def __await__(self) -> Generator[Any, Any, Outcome]:
        outcome = yield from super().__await__()
        self._note_failure(outcome)
        return outcome

    def send(self, value: object) -> Any:
        try:
            return super().send(value)
        except StopIteration as stop:
            self._note_failure(stop.value)
            raise

    def _note_failure(self, outcome: Outcome) -> None:
        if outcome is not Outcome.CONFIRMED:
            failed = _failures.get()
            if failed is not None and not failed:
                failed.append(self)

    def cancel(self) -> None:
        """Drop the callback.  The publish itself cannot be recalled: it still gets its outcome."""
        self._callback = None

    @property
    def is_sent(self) -> bool:
        """Whether it is published on the channel that there is now, and has no outcome."""
        return self._tag != 0

    @property
    def outcome(self) -> Outcome | None:
        return self._value if self._is_done and self._error is None else None

    @property
    def stored(self) -> Request[None]:
        """Done once the message is in the Publisher's store; fails with StoreFailed.

        Raises:
            WrongState: The Publisher has no store.
        """
        raise WrongState("stored: the Publisher has no store")


class StoredPublication(Publication):
    """One publish of a Publisher that has a store.

    Attributes:
        expires: When it ends as EXPIRED, in seconds of Unix time; None means never.
        key: The store's key; None until the store has it.
    """

    __slots__ = ("_stored", "expires", "key")

    def __init__(self, host: Host, *arguments: Any) -> None:
        super().__init__(host, *arguments)
        self.expires: float | None = None
        self.key: int | None = None
        self._stored: Request[None] = Request(host, "store")

    def keep(self, key: int) -> None:
        """The store has it, under this key."""
        self.key = key
        self._stored.resolve(None)

    @property
    def stored(self) -> Request[None]:
        return self._stored


class Ledger:
    """Publishes without an outcome, in publish order.

    Args:
        max_messages: Messages that it accepts.
        max_bytes: Their bytes; an empty ledger accepts any one message.
        is_holding: Hold each publish that it accepts, unsent, until ``release``.

    Attributes:
        last_tag: The last delivery tag on this channel; 0 before the first.
        count: Publishes without an outcome, including those that wait for a resend.
        held: Publishes that are not to be sent yet, in publish order.
        size: Their bytes.
        repeats: Times that a publish was queued to be sent again.
    """

    __slots__ = (
        "_is_holding",
        "_max_bytes",
        "_max_messages",
        "_returns",
        "_sent",
        "_unsent",
        "_wanted",
        "count",
        "held",
        "last_tag",
        "repeats",
        "size",
    )

    def __init__(self, max_messages: int, max_bytes: int, *, is_holding: bool = False) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._is_holding = is_holding
        self.held: dict[Publication, None] = {}
        self._unsent: deque[Publication] = deque()  # some may have their outcome
        self._sent: dict[int, Publication] = {}  # by delivery tag, ascending
        self._returns = Returns(self._sent)
        self.last_tag: int = 0
        self._wanted = 1  # bytes of the last message rejected for lack of room
        self.count: int = 0
        self.size: int = 0
        self.repeats: int = 0

    def __iter__(self) -> Iterator[Publication]:
        """Every publish without an outcome: sent, unsent, held; each in order.  Not resends."""
        yield from self.under_way
        yield from [entry for entry in self._unsent if not entry.is_done]
        yield from list(self.held)

    @property
    def under_way(self) -> list[Publication]:
        """Publishes sent and without an outcome, in the order of sending."""
        return list(self._sent.values())

    @property
    def is_idle(self) -> bool:
        """Whether no publish is sent and without an outcome."""
        return not self._sent

    @property
    def has_room(self) -> bool:
        """Whether it would accept what it last rejected; one byte if it rejected nothing."""
        if not self.count:
            return True
        return self.count < self._max_messages and self.size + self._wanted <= self._max_bytes

    def accept(self, entry: Publication) -> None:
        """Accept a publish.

        Raises:
            OutputFull: The ledger is full; only ``has_room`` changed.
        """
        size = entry.size
        if self.count and (self.count >= self._max_messages or self.size + size > self._max_bytes):
            self._wanted = max(size, 1)
            raise OutputFull(
                f"{self.count} messages of {self.size} bytes wait for their confirms;"
                f" max_messages is {self._max_messages}, max_bytes {self._max_bytes}"
            )
        self._wanted = 1
        self.count += 1
        self.size += size
        if self._is_holding:
            self.held[entry] = None
        else:
            self._unsent.append(entry)

    def adopt(self, entry: Publication) -> None:
        """Accept a publish that an earlier process accepted, whatever the limits."""
        self.count += 1
        self.size += entry.size
        self._unsent.append(entry)

    def release(self, entry: Publication) -> None:
        """Let a publish be sent that was held; nothing if it has its outcome."""
        if not entry.is_done:
            del self.held[entry]
            self._unsent.append(entry)

    def settle(self, entry: Publication, outcome: Outcome) -> None:
        """Give a publish its outcome."""
        self.count -= 1
        self.size -= entry.size
        if entry._tag:
            del self._sent[entry._tag]
            self._returns.expire(entry._tag, entry)
            entry._tag = 0
        elif self.held:
            self.held.pop(entry, None)
        entry.resolve(outcome)
        if len(self._unsent) > 2 * self.count + ENDED_KEPT:
            self._unsent = deque(entry for entry in self._unsent if not entry.is_done)

    # Sending

    def next_unsent(self) -> Publication | None:
        """The next to send; None if there is none.  Call ``mark_sent`` or ``put_back`` next."""
        unsent = self._unsent
        while unsent:
            entry = unsent.popleft()
            if not entry.is_done:
                return entry
        return None

    def put_back(self, entry: Publication) -> None:
        """Put back a publish that could not be sent."""
        self._unsent.appendleft(entry)

    def put_last(self, entry: Publication) -> None:
        """Queue a publish to be sent again, after all others."""
        self._unsent.append(entry)
        self.repeats += 1

    def mark_sent(self, entry: Publication, tag: int) -> None:
        """Note the tag of a publish that was sent; on one channel, tags ascend."""
        entry._tag = self.last_tag = tag
        self._sent[tag] = entry

    def take_confirmed(self, tags: Tags) -> list[Publication]:
        """Remove and return the publishes with these tags that have no outcome."""
        take = self._sent.pop
        entries = [entry for tag in tags if (entry := take(tag, None)) is not None]
        for entry in entries:
            entry._tag = 0
        if self._returns.expired:
            self._returns.confirm(tags)
        return entries

    def match_return(self, returned: Returned) -> bool:
        """Attach a return to its publish; False if it cannot be determined which that is."""
        tag = self._returns.match(returned, self.last_tag)
        entry = self._sent.get(tag)
        if entry is not None:
            entry._returned = returned
        return tag > 0

    @property
    def may_be_returned(self) -> bool:
        """Whether a return could belong to a publish in this ledger."""
        return self._returns.are_possible

    def take_back(self, *, last: bool = False) -> None:
        """The channel is gone: queue all that was sent, in order, before or after the rest."""
        again = self.under_way
        self.repeats += len(again)
        for entry in again:
            entry._returned = None
            entry._tag = 0
        if last:
            self._unsent.extend(again)
        else:
            self._unsent.extendleft(reversed(again))
        self._sent.clear()
        self._returns.clear()
        self.last_tag = 0

    def clear(self) -> None:
        """Drop everything; all have their outcome."""
        self.held.clear()
        self._unsent.clear()
        self._sent.clear()
        self._returns.clear()
