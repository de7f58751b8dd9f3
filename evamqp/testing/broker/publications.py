"""The publishes that a test may look at: the last of them, bounded in number and in bytes.

What a publish is, ``inspection`` says; who looks is the broker's.
"""

from __future__ import annotations

from collections import deque

from evamqp.testing.broker.inspection import Published

#: Bytes of bodies and properties that are kept; the publish that came last is kept at any size.
BYTES_MAX = 64 * 1024 * 1024


class Publications:
    """The last publishes.

    Args:
        count_max: How many are kept; 0 keeps none.
        bytes_max: How many bytes of bodies and properties they may have together.
    """

    __slots__ = ("_all", "_bytes", "_bytes_max", "_count_max")

    def __init__(self, count_max: int, bytes_max: int = BYTES_MAX) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._all: deque[Published] = deque()

    @property
    def are_kept(self) -> bool:
        return self._count_max > 0

    def add(self, published: Published) -> None:
        """Note one, and forget the eldest beyond the bounds."""
        self._all.append(published)
        self._bytes += _size_of(published)
        while len(self._all) > self._count_max or (
            self._bytes > self._bytes_max and len(self._all) > 1
        ):
            self._bytes -= _size_of(self._all.popleft())

    def all(self) -> list[Published]:
        """What is kept, in order."""
        return list(self._all)

    def clear(self) -> None:
        self._all.clear()
        self._bytes = 0


def _size_of(published: Published) -> int:
    return len(published.body) + len(published.properties.raw)
