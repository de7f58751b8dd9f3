"""Which publish made the broker close the channel, or the whole connection.

Nothing is sent from here: the publisher reports what was sent before each end, and learns what to
send alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evamqp.errors import FIRST_ERROR, ConnectionClosed

if TYPE_CHECKING:
    from evamqp.errors import ChannelClosed
    from evamqp.recovery.ledger import Publication


class Suspects:
    """The publishes of one publisher that may be to blame.

    Attributes:
        isolated: To be sent one at a time, until the culprit is known.
        witnesses: Sent before the broker last closed the connection with an error, and still
            without an outcome.
    """

    __slots__ = ("_accused", "isolated", "witnesses")

    def __init__(self) -> None:
        self.isolated: set[Publication] = set()
        self.witnesses: set[Publication] = set()
        self._accused: Publication | None = None  # sent alone before the last such end

    def isolate(self, entries: Iterable[Publication]) -> None:
        """Suspect these: one of them is to blame."""
        self.isolated.update(entries)

    def acquit(self, entry: Publication) -> None:
        """Clear a publish: the broker accepted it, or it has its outcome."""
        self.isolated.discard(entry)
        self.witnesses.discard(entry)

    def judge_channel(self, under_way: list[Publication], unconfirmed: int) -> list[Publication]:
        """The broker closed the channel because of a publish: return the culprit if it was alone.

        Args:
            under_way: Publishes sent and without an outcome.
            unconfirmed: How many have no confirm, including those with an outcome.
        """
        if unconfirmed > 1:
            self.isolated = set(under_way)
            return []
        self.isolated.clear()
        return under_way

    def judge_connection(
        self, under_way: list[Publication], unconfirmed: int, *, is_ours: bool
    ) -> list[Publication]:
        """The broker closed the connection with an error, and blames no request of ours.

        A publish may still be the cause, if it was outstanding each time.  So a publish that was
        outstanding twice is sent alone, and one that was outstanding alone twice is the culprit.

        Args:
            under_way: As for ``judge_channel``.
            unconfirmed: As for ``judge_channel``.
            is_ours: Whether no other client shares the connection.
        """
        alone = under_way[0] if len(under_way) == unconfirmed == 1 else None
        if alone is not None and alone is self._accused:
            return [alone]
        self._accused = alone if is_ours or self.isolated else None
        self.isolated.update(self.witnesses.intersection(under_way))
        self.witnesses.update(under_way)
        return []


def is_error(reason: ChannelClosed) -> bool:
    """Whether a channel ended because the broker closed the connection with an error."""
    cause = reason.__cause__
    return (
        type(cause) is ConnectionClosed
        and cause.by == "broker"
        and (cause.code or 0) >= FIRST_ERROR
    )
