"""Where in a stream a consumer begins, and where it goes on after a reconnection.

A stream keeps its messages, so the broker does not remember what a consumer has settled: the
consumer does.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import ceil
from typing import Literal, TypeAlias

from evamqp.checks import integer
from evamqp.core.channel import Message
from evamqp.core.message import STREAM_OFFSET
from evamqp.errors import BadArgument, BadType, MalformedData
from evamqp.types import TableLike

#: Where to begin: at the first message, at the last chunk of messages, behind all of them; at an
#: offset; at a point in time, or so long ago, as a timedelta or in RabbitMQ's words: ``"1h"``.
StreamOffset: TypeAlias = Literal["first", "last", "next"] | int | datetime | timedelta | str

_NAMES = ("first", "last", "next")
_INTERVAL = re.compile(r"[1-9][0-9]{0,8}[YMDhms]")
_checked_number = integer(0, 2**63 - 1)
# Offsets of settled messages that may stay in the list before it is swept.
_SLACK = 64


def checked_offset(offset: object) -> str | int | datetime:
    """The value of ``x-stream-offset`` for a StreamOffset.

    Raises:
        BadType, BadArgument: It is none.
    """
    if isinstance(offset, datetime):
        if offset.tzinfo is None:
            raise BadArgument("offset: give the datetime a time zone")
        return offset
    if isinstance(offset, timedelta):
        seconds = ceil(offset.total_seconds())
        if seconds <= 0:
            raise BadArgument(f"offset: the interval must be above 0, not {offset}")
        return f"{seconds}s"
    if isinstance(offset, str):
        if offset in _NAMES or _INTERVAL.fullmatch(offset):
            return offset
        raise BadArgument('offset: must be "first", "last", "next" or an interval such as "1h"')
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise BadType(
            f"offset must be str, int, datetime or timedelta, not {type(offset).__name__}"
        )
    _checked_number("offset", offset)
    return offset


class StreamPosition:
    """The offset at which a consumer of a stream goes on: that of the first unsettled message.

    Args:
        start: Where to begin before any message came.
    """

    __slots__ = ("_next", "_start", "_sweep_at", "_unsettled")

    def __init__(self, start: StreamOffset) -> None:
        self._start = checked_offset(start)
        self._next: int | None = self._start if isinstance(self._start, int) else None
        self._unsettled: deque[tuple[int, Message]] = deque()  # some may be settled by now
        self._sweep_at = _SLACK

    def arguments(self, given: TableLike | None) -> dict[str, object]:
        """The arguments of the next basic.consume."""
        start = self._start if self._next is None else self._next
        return {**(given or {}), STREAM_OFFSET: start}

    @property
    def resume_at(self) -> int | None:
        """The offset of the first message that is not settled; None before the first message."""
        self._sweep()
        return self._unsettled[0][0] if self._unsettled else self._next

    def add(self, messages: Iterable[Message]) -> None:
        """Messages have come, in the order of the stream."""
        for message in messages:
            offset = offset_of(message)
            if offset is not None:
                self._unsettled.append((offset, message))
                self._next = offset + 1
        if len(self._unsettled) >= self._sweep_at:
            self._sweep()
            self._sweep_at = 2 * len(self._unsettled) + _SLACK

    def rewind(self) -> None:
        """A new channel begins: what is unsettled has to come again."""
        self._next = self.resume_at
        self._unsettled.clear()

    def _sweep(self) -> None:
        self._unsettled = deque(each for each in self._unsettled if not each[1].is_settled)


def offset_of(message: Message) -> int | None:
    """The offset of a message; None if it has none, or if its properties are malformed."""
    try:
        return message.stream_offset
    except MalformedData:
        return None
