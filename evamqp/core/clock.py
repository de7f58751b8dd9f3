"""How long the oldest request of each channel has waited; time stands still on demand.

No clock of its own: every call is told the time.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class RequestClock(Generic[K]):
    """Deadlines that all lie the same time ahead, so that the oldest is always the first.

    Args:
        timeout: Seconds.
    """

    __slots__ = ("_frozen_at", "_lost", "_started", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._started: dict[K, float] = {}  # in order of time; without the seconds lost
        self._lost = 0.0  # seconds stood still so far
        self._frozen_at: float | None = None

    def start(self, key: K, now: float) -> None:
        """Begin to wait for ``key``, or begin anew."""
        self._started.pop(key, None)
        self._started[key] = (now if self._frozen_at is None else self._frozen_at) - self._lost

    def stop(self, key: K) -> None:
        """Wait for ``key`` no more.  A no-op if it was not waited for."""
        self._started.pop(key, None)

    def freeze(self, now: float) -> None:
        """Stand still.  Idempotent."""
        if self._frozen_at is None:
            self._frozen_at = now

    def thaw(self, now: float) -> None:
        """Go on.  Idempotent."""
        if self._frozen_at is not None:
            self._lost += now - self._frozen_at
            self._frozen_at = None

    def deadline(self) -> float | None:
        """When the first wait ends; None if nothing is waited for, or time stands still."""
        if self._frozen_at is not None or not self._started:
            return None
        return next(iter(self._started.values())) + self._lost + self.timeout

    def take_expired(self, now: float) -> K | None:
        """What has waited too long, and longest; it is waited for no more.  None if nothing has."""
        deadline = self.deadline()
        if deadline is None or deadline > now:
            return None
        key = next(iter(self._started))
        del self._started[key]
        return key
