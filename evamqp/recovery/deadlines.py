"""The deadlines of publishes, and one timer for the first of them.

What becomes of a publish whose deadline has passed is the publisher's business.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from evamqp.recovery.loop_bound import cancel_all

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.recovery.ledger import Publication

# Deadlines of messages that have their outcome already, kept before they are swept.
DEADLINES_KEPT = 1000


class Deadlines:
    """When publishes expire.

    Args:
        adapter: The loop.
        on_due: Called when the first deadline has passed; ``take_due`` must follow, to its end.
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
        """Let a publish expire in so many seconds."""
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
        """Those whose deadline has passed, in its order; each waits no more once it is taken."""
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
        """Let nothing expire any more."""
        cancel_all(self._timer)
        self._timer = None
        self._heap.clear()
        self._on_due = _nobody  # else no end would free the publisher


def _nobody() -> None:
    """Whom deadlines call that are no more."""
