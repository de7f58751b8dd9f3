"""What a Publisher keeps its messages in, so that they outlive the process: the contract.

``evamqp.SqliteStore`` implements it; so may a program, over a database of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from evamqp.recovery.ledger import Outcome


class StoredMessage(NamedTuple):
    """A message as a Store keeps it.

    Attributes:
        exchange: Name; "" is the default exchange.
        routing_key: Up to 255 bytes of UTF-8.
        body: Its bytes.
        properties: Encoded as in a content header; ``Properties.from_raw`` decodes them.
        mandatory: Whether the broker is to return it when no queue takes it.
        expires: When it ends as EXPIRED, in seconds of Unix time; None means never.
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: bytes
    mandatory: bool
    expires: float | None = None


class StoredOutcome(NamedTuple):
    """What became of a message in a Store.

    Attributes:
        key: The key that the Store gave it.
        outcome: CONFIRMED: the Store forgets it.  Anything else: it is not published again; keep it
            for a person to look at, or forget it.
        detail: Why, in words; "" for CONFIRMED.
    """

    key: int
    outcome: Outcome
    detail: str


class Store(Protocol):
    """Where a Publisher writes what it accepts.

    One thread at a time calls it: ``open`` the one that makes the Publisher, and from then on a
    thread of the Publisher's own, so that a slow disk never holds up the loop.  Any exception means
    failure.
    """

    def open(self) -> Iterable[tuple[int, StoredMessage]]:
        """Become the one user of what is stored.

        Returns:
            The messages without an outcome with their keys, in the order of their commits.

        Raises:
            StoreLocked: Another Publisher uses it.
            StoreFailed: It cannot be opened.
        """

    def commit(
        self, added: Sequence[StoredMessage], ended: Sequence[StoredOutcome]
    ) -> Sequence[int]:
        """Store messages and outcomes in one transaction; return once it is durable.

        Returns:
            A key for each message added, in their order.  Nothing changes if it raises.
        """

    def close(self) -> None:
        """Let another Publisher open it."""
