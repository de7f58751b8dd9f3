"""The deadlines of publishes, and one timer for the first of them.

The publisher decides what happens to a publish that expires.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from evamqp.recovery.loop_bound import cancel_all

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.recovery.ledger import Publication

# Deadlines of publishes with an outcome that may stay in the heap before it is swept.
DEADLINES_KEPT = 1000


class Deadlines:
    """When publishes expire.

    Args:
        adapter: The loop.
        on_due: Called when the first deadline has passed; exhaust ``take_due`` then.
    """

    __slots__ = ("_adapter", "_heap", "_on_due", "_timer", "waiting")

    def __init__(self, adapter: Adapter, on_due: Callable[[], object]) -> None:
        self._adapter = adapter
        self._on_due = on_due
        self._heap: list[tuple[float, int]] = []  # seconds, and numbers of publishes
        self._timer: Handle | None = None
        self.waiting: dict[int, Publication] = {}  # by number

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, entry: Publication, timeout: float) -> None:
        """Let a publish expire in ``timeout`` seconds."""
        heap = self._heap
        self.waiting[entry.number] = entry
        if len(heap) > 2 * len(self.waiting) + DEADLINES_KEPT:
            heap[:] = [due for due in heap if due[1] in self.waiting]
            heapq.heapify(heap)
        due = (self._adapter.time() + timeout, entry.number)
        heapq.heappush(heap, due)
        if heap[0] is due:
            self._arm()

    def _arm(self) -> None:
        cancel_all(self._timer)
        delay = max(0.0, self._heap[0][0] - self._adapter.time())
        self._timer = self._adapter.call_later(delay, self._on_due)

    def take_due(self) -> Iterator[Publication]:
        """Yield and remove the publishes whose deadline has passed, in order."""
        self._timer = None
        now = self._adapter.time()
        heap, waiting = self._heap, self.waiting
        try:
            while heap and (heap[0][0] <= now or heap[0][1] not in waiting):
                entry = waiting.pop(heapq.heappop(heap)[1], None)
                if entry is not None:
                    yield entry
        finally:  # also when it was interrupted
            if heap and self._timer is None:
                self._arm()

    def end(self) -> None:
        """Stop; nothing expires any more."""
        cancel_all(self._timer)
        self._timer = None
        self._heap.clear()
        self._on_due = _ignore  # or this reference would keep the publisher alive


def _ignore() -> None:
    """The callback after end()."""
