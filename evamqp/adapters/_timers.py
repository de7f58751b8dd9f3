"""Callbacks that can be cancelled, and a heap of those that wait for their time.

The loops that keep their own queue share these.  No clock is read here: a loop passes the time in.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from math import inf

from evamqp.abc import LoopCallback

#: Cancelled timers that may lie in the heap before it is worth rebuilding.
CANCELLED_TIMERS = 100


class Call:
    """A callback in a loop's queue; its own handle."""

    __slots__ = ("callback",)

    def __init__(self, callback: LoopCallback) -> None:
        self.callback: LoopCallback | None = callback  # None once it has run or was cancelled

    def cancel(self) -> None:
        self.callback = None

    def run(self) -> None:
        """Call back, unless cancelled."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class Timer(Call):
    """A callback in the heap."""

    __slots__ = ("timers",)

    def __init__(self, callback: LoopCallback, timers: Timers) -> None:
        super().__init__(callback)
        self.timers: Timers | None = timers  # None once it has left the heap

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            if self.timers is not None:
                self.timers.count_cancelled()


class Timers:
    """Timers by time.  A cancelled one stays in the heap, but never more than half of them do.

    Attributes:
        due: When the first live timer fires; ``inf`` if there is none.
    """

    __slots__ = ("_cancelled", "_heap", "_order", "due")

    def __init__(self) -> None:
        self.due: float = inf
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()  # equal times fire in the order of their calls
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, callback: LoopCallback) -> Timer:
        """Add a callback that is due at ``when``."""
        timer = Timer(callback, self)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        if when < self.due:
            self.due = when
        return timer

    def count_cancelled(self) -> None:
        """Note that a timer in the heap was cancelled; rebuild the heap once most of them are."""
        self._cancelled += 1
        if self._cancelled > CANCELLED_TIMERS and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0
        self._find_due()

    def _find_due(self) -> None:
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        self.due = self._heap[0][0] if self._heap else inf

    def move_due(self, now: float, ready: deque[Call]) -> None:
        """Move every timer that is due to ``ready``."""
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.callback is None:
                self._cancelled -= 1
            else:
                timer.timers = None
                ready.append(timer)
        self._find_due()
