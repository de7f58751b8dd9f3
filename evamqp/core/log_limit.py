"""How many lines a log takes of one kind: a burst, then one per interval, with the count left out.

Nothing is written here, and no clock is read.
"""

from __future__ import annotations


class LogLimit:
    """Says which lines to write.

    Args:
        burst: Lines that may follow one another at once.
        interval: Seconds after which one more may be written.

    Attributes:
        left_out: Lines left out since the last that was written.
    """

    __slots__ = ("_burst", "_interval", "_spent", "_updated", "left_out")

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._spent = 0.0  # lines that were written and not yet paid for by time
        self._updated = 0.0
        self.left_out: int = 0

    def wait(self, now: float) -> float:
        """Seconds until a line may be written; 0 means now."""
        self._spent = max(0.0, self._spent - (now - self._updated) / self._interval)
        self._updated = now
        return max(0.0, (self._spent - (self._burst - 1)) * self._interval)

    def admits(self, now: float) -> bool:
        """Whether to write a line now; if not, it counts as left out.

        The writer sets ``left_out`` back to 0 once it has reported it.
        """
        if self.wait(now) > 1e-6:
            self.left_out += 1
            return False
        self._spent += 1
        return True

    def suffix(self) -> str:
        """How many lines were left out before this one, as a suffix; resets the count."""
        left_out, self.left_out = self.left_out, 0
        return f" (and {left_out} more of the kind before)" if left_out else ""
