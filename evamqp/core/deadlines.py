"""The named deadlines of one connection, each with what it does when it is due.

No timer: the connection asks for the first one, and runs what is due.
"""

from __future__ import annotations

from collections.abc import Callable


class Deadlines:
    """Points in time by name, each with an action that is called with the time it is run at.

    Attributes:
        first: The first of them; None without any.
    """

    __slots__ = ("_by_name", "first")

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[float, Callable[[float], object]]] = {}
        self.first: float | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def set(self, name: str, at: float, action: Callable[[float], object]) -> None:
        """Set a deadline, or move it; its action stays until then or ``cancel``."""
        self._by_name[name] = (at, action)
        self._find_first()

    def cancel(self, *names: str) -> None:
        """Forget deadlines.  Idempotent."""
        for name in names:
            self._by_name.pop(name, None)
        self._find_first()

    def clear(self) -> None:
        self._by_name.clear()
        self.first = None

    def _find_first(self) -> None:
        # Kept, since it is read after every read of the transport, and seldom changes.
        self.first = min((at for at, _ in self._by_name.values()), default=None)

    def run(self, now: float) -> None:
        """Run what is due.  An action forgets its deadline, or sets it anew."""
        for name, (at, _) in list(self._by_name.items()):
            if at <= now and name in self._by_name:
                self._by_name[name][1](now)
