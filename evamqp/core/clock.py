"""How long the oldest request of each channel has waited; the clock can be paused.

Its owner decides what to do about a key that has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any


class RequestClock:
    """Deadlines with one timeout, so that the oldest is always the first.

    Args:
        timeout: Seconds.
        time: Returns the current time in seconds.

    Attributes:
        started: When each wait began, in order, without the seconds lost.
    """

    __slots__ = ("_lost", "_paused_at", "started", "time", "timeout")

    def __init__(self, timeout: float, time: Callable[[], float]) -> None:
        self.timeout: float = timeout
        self.time: Callable[[], float] = time
        self.started: dict[Hashable, float] = {}
        self._lost = 0.0  # seconds paused so far
        self._paused_at: float | None = None

    def start(self, key: Hashable) -> None:
        """Begin to wait for ``key``, or begin anew."""
        self.started.pop(key, None)
        now = self.time() if self._paused_at is None else self._paused_at
        self.started[key] = now - self._lost

    def stop(self, key: Hashable) -> None:
        """Wait for ``key`` no more.  A no-op if it was not waited for."""
        self.started.pop(key, None)

    def pause(self, paused: bool) -> None:
        """Pause the clock, or let it run again.  Idempotent."""
        if paused and self._paused_at is None:
            self._paused_at = self.time()
        elif not paused and self._paused_at is not None:
            self._lost += self.time() - self._paused_at
            self._paused_at = None

    def clear(self) -> None:
        """Wait for nothing more, and let the clock run."""
        self.started.clear()
        self._lost = 0.0
        self._paused_at = None

    def deadline(self) -> float | None:
        """When the first wait ends; None if nothing is waited for, or the clock is paused."""
        if self._paused_at is not None or not self.started:
            return None
        return next(iter(self.started.values())) + self._lost + self.timeout

    def take_expired(self, now: float) -> Any:
        """Remove and return the key that has waited longest, if too long; None if none has."""
        deadline = self.deadline()
        if deadline is None or deadline > now:
            return None
        key = next(iter(self.started))
        del self.started[key]
        return key
