"""The channels of one connection by number, and what to do with frames for unknown numbers.

Frames are found a channel here, and handled there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from evamqp.core.numbers import ChannelNumbers
from evamqp.core.stats import Stats
from evamqp.errors import CHANNEL_ERROR, MalformedData


class Entry(Protocol):
    """What the table knows of a channel."""

    @property
    def number(self) -> int: ...
    @property
    def published(self) -> int:
        """Publishes that were accepted so far."""

    def disown(self) -> object:
        """Let no thread use the channel any more."""


C = TypeVar("C", bound=Entry)


class ChannelTable(Generic[C]):
    """Maps numbers to channels.

    Args:
        stats: Counts late frames, and the publishes of channels that are gone.
        time: Returns the current time in seconds.

    Attributes:
        consumers_named: Consumer tags made by the client so far.
    """

    __slots__ = ("_stats", "_time", "by_number", "consumers_named", "numbers")

    def __init__(self, stats: Stats, time: Callable[[], float]) -> None:
        self._stats = stats
        self._time = time
        self.by_number: dict[int, C] = {}
        self.numbers: ChannelNumbers = ChannelNumbers()
        self.consumers_named: int = 0

    def choose(self, number: int | None, limit: int) -> int:
        """The number of the next channel; nothing is taken yet.  Raises as ChannelNumbers does."""
        if number is None:
            return self.numbers.choose(limit, self._time())
        self.numbers.check(number, limit)
        return number

    def add(self, channel: C) -> None:
        self.numbers.take(channel.number)
        self.by_number[channel.number] = channel

    def find(self, number: int) -> C | None:
        """The channel of this number; None if its frames are to be discarded.

        Raises:
            MalformedData: No channel ever had the number (504).
        """
        channel = self.by_number.get(number)
        if channel is None:
            if not self.numbers.was_used(number):
                raise MalformedData(f"a frame on channel {number}, not open", CHANNEL_ERROR)
            self._stats.late_frames += 1
            self.numbers.came_late(number, self._time())
        return channel

    def closed_by_broker(self, number: int) -> None:
        """Reserve the number for a while: late frames may follow the broker's close."""
        self.numbers.rest(number, self._time())

    def remove(self, channel: C) -> None:
        """The channel is over."""
        self.by_number.pop(channel.number, None)
        self._stats.messages_published += channel.published

    def disown(self) -> None:
        """Let no thread use any channel any more."""
        for channel in self.by_number.values():
            channel.disown()

    @property
    def published(self) -> int:
        """Publishes that the channels accepted so far."""
        return sum(channel.published for channel in self.by_number.values())

    def all(self) -> list[C]:
        """The channels as they are now."""
        return list(self.by_number.values())
