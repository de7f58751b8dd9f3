"""Every accepted publish until its one outcome: what waits, what is under way, how much of both.

No channel and no timer: the publisher sends what ``next_unsent`` gives, and tells what came of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING

from evamqp.core.request import Host, Request
from evamqp.errors import OutputFull

if TYPE_CHECKING:
    from evamqp.codec.properties import Properties
    from evamqp.core.message import Returned
    from evamqp.errors import AmqpError
    from evamqp.types import Tags


class Outcome(Enum):
    """What became of a publish.  Each accepted one ends in exactly one of these."""

    #: The broker took responsibility.
    CONFIRMED = "CONFIRMED"
    #: The broker refused it, also after the configured number of resends.
    NACKED = "NACKED"
    #: No queue took it.
    RETURNED = "RETURNED"
    #: Its deadline passed first; whether the broker has it is unknown.
    EXPIRED = "EXPIRED"
    #: The broker closed the channel because of it.
    REFUSED = "REFUSED"
    #: close() ran out of time first; whether the broker has it is unknown.
    ABANDONED = "ABANDONED"


class Publication(Request[Outcome]):
    """One publish of a Publisher.  ``await`` it for its Outcome; it never raises.

    Attributes:
        number: Its place in the order of publishing, from 1.
        exchange: As published.
        routing_key: As published.
        body: As published.
        properties: As sent.
        mandatory: As published.
        outcome: None while it has none.
        detail: For RETURNED the Returned; for REFUSED the reason that the channel was closed
            with; for ABANDONED why the reconnector gave up, if it did; else None.
    """

    __slots__ = (
        "_deadline",
        "_is_returned",
        "_resends",
        "body",
        "detail",
        "exchange",
        "mandatory",
        "number",
        "properties",
        "routing_key",
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
        self.number = number
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.properties = properties
        self.mandatory = mandatory
        self.detail: Returned | AmqpError | None = None
        self._is_returned = False
        self._resends = 0
        self._deadline: float | None = None

    def __repr__(self) -> str:
        outcome = self.outcome.name if self.outcome else "pending"
        return (
            f"<Publication {outcome} of {len(self.body)} bytes, exchange={self.exchange!r}, "
            f"routing_key={self.routing_key!r}>"
        )

    def cancel(self) -> None:
        """Call nobody back.  A publish itself cannot be recalled: it still gets its outcome."""
        self._callback = None

    @property
    def outcome(self) -> Outcome | None:
        return self._value if self._is_done and self._error is None else None

    @property
    def size(self) -> int:
        """Bytes that it is counted as: body, names and properties."""
        return len(self.body) + len(self.routing_key) + len(self.properties.raw)

    def _matches(self, returned: Returned) -> bool:
        return (
            self.mandatory
            and not self._is_returned
            and self.routing_key == returned.routing_key
            and self.exchange == returned.exchange
            and self.body == returned.body
            and self.properties.raw == returned.properties.raw
        )


class Ledger:
    """Publishes without an outcome, in publish order.

    Args:
        max_messages: How many it takes.
        max_bytes: How many bytes it takes; one message is always taken by an empty ledger.
    """

    __slots__ = ("_max_bytes", "_max_messages", "_sent", "_unsent", "count", "size")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._unsent: deque[Publication] = deque()
        self._sent: dict[int, Publication] = {}  # by delivery tag, ascending
        self.count = 0  # including those that wait to be resent
        self.size = 0

    def __iter__(self) -> Iterator[Publication]:
        """All without an outcome that are sent or wait to be sent, in order."""
        yield from list(self._sent.values())
        yield from [entry for entry in self._unsent if not entry.is_done]

    @property
    def has_room(self) -> bool:
        return self.count < self._max_messages and self.size < self._max_bytes

    @property
    def under_way(self) -> int:
        """How many are sent and without an outcome."""
        return len(self._sent)

    @property
    def sent_tags(self) -> list[int]:
        """The tags of those that are under way, ascending."""
        return list(self._sent)

    def accept(self, entry: Publication) -> None:
        """Take in a publish.

        Raises:
            OutputFull: It is full; nothing changed.
        """
        size = entry.size
        if self.count and (self.count >= self._max_messages or self.size + size > self._max_bytes):
            raise OutputFull(
                f"{self.count} messages of {self.size} bytes wait for their confirms;"
                f" the limits are {self._max_messages} and {self._max_bytes}"
            )
        self.count += 1
        self.size += size
        self._unsent.append(entry)

    def settle(self, entry: Publication, outcome: Outcome) -> None:
        """Give a publish its outcome."""
        self.count -= 1
        self.size -= entry.size
        entry.resolve(outcome)

    # On the way

    def next_unsent(self) -> Publication | None:
        """The next to send; None if there is none.  ``mark_sent`` or ``put_back`` must follow."""
        unsent = self._unsent
        while unsent:
            entry = unsent.popleft()
            if not entry.is_done:
                return entry
        return None

    def put_back(self, entry: Publication) -> None:
        """It could not be sent after all."""
        self._unsent.appendleft(entry)

    def put_last(self, entry: Publication) -> None:
        """It is to be sent again, behind the others."""
        self._unsent.append(entry)

    def mark_sent(self, entry: Publication, tag: int) -> None:
        self._sent[tag] = entry

    def take_confirmed(self, tags: Tags) -> list[Publication]:
        """Those that were sent with these tags, and wait for their outcome no more."""
        sent = self._sent
        entries = [sent.pop(tag, None) for tag in tags]
        return [entry for entry in entries if entry is not None and not entry.is_done]

    def match_return(self, returned: Returned) -> Publication | None:
        """Whose return this is: the first, in publish order, that looks like it."""
        for entry in self._sent.values():
            if entry._matches(returned):
                entry._is_returned = True
                return entry
        return None

    def take_back(self) -> None:
        """The channel is gone: all that was sent has to be sent again, in order, first."""
        again = [entry for entry in self._sent.values() if not entry.is_done]
        for entry in again:
            entry._is_returned = False
            entry.detail = None
        self._unsent.extendleft(reversed(again))
        self._sent.clear()
