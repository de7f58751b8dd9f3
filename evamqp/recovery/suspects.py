"""Which publish it was over which the broker closed the channel, or the whole connection.

Nothing is sent from here: it is told what was under way at each end, and tells whom to send alone.
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
        isolated: To be sent one at a time, until it is known.
        witnesses: Under way when the broker last closed the connection for an error, without an
            outcome since.
    """

    __slots__ = ("_accused", "isolated", "witnesses")

    def __init__(self) -> None:
        self.isolated: set[Publication] = set()
        self.witnesses: set[Publication] = set()
        self._accused: Publication | None = None  # alone under way at the last such end

    def isolate(self, entries: Iterable[Publication]) -> None:
        """One of these it is."""
        self.isolated.update(entries)

    def acquit(self, entry: Publication) -> None:
        """The broker took it, or it has its outcome."""
        self.isolated.discard(entry)
        self.witnesses.discard(entry)

    def judge_channel(self, under_way: list[Publication], unconfirmed: int) -> list[Publication]:
        """The broker closed the channel over a publish: the culprit, if it was alone.

        Args:
            under_way: Those without an outcome.
            unconfirmed: How many have no confirm, those with an outcome included.
        """
        if unconfirmed > 1:
            self.isolated = set(under_way)
            return []
        self.isolated.clear()
        return under_way

    def judge_connection(
        self, under_way: list[Publication], unconfirmed: int, *, is_ours: bool
    ) -> list[Publication]:
        """The broker closed the connection for an error, and blames nothing of ours.

        It may be the doing of a publish all the same: of one that was under way each time.  So
        what was under way twice is sent alone, and what was so twice alone is the culprit.

        Args:
            under_way: As for ``judge_channel``.
            unconfirmed: As for ``judge_channel``.
            is_ours: Whether nobody shares the connection.
        """
        alone = under_way[0] if len(under_way) == unconfirmed == 1 else None
        if alone is not None and alone is self._accused:
            return [alone]
        self._accused = alone if is_ours or self.isolated else None
        self.isolated.update(self.witnesses.intersection(under_way))
        self.witnesses.update(under_way)
        return []


def is_error(reason: ChannelClosed) -> bool:
    """Whether the broker closed the connection under a channel, and for an error."""
    cause = reason.__cause__
    return (
        type(cause) is ConnectionClosed
        and cause.by == "broker"
        and (cause.code or 0) >= FIRST_ERROR
    )
