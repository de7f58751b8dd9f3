"""Turns of the loop that came late: counted, logged, and named where they ended a connection.

No clock is read here; the driver measures.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from evamqp.core.log_limit import LogLimit

if TYPE_CHECKING:
    from evamqp.core.stats import Stats

log: logging.Logger = logging.getLogger(__name__)

# Lines: so many at once, and one more per so many seconds.
BURST = 3
INTERVAL = 60.0
# RabbitMQ closes a connection after two to three heartbeat intervals without a byte.
FATAL_INTERVALS = 2


class Stalls:
    """The stalls of one connection's loop.

    Args:
        stats: Counts them.
    """

    __slots__ = ("_ended_at", "_limit", "_seconds", "_stats")

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._limit = LogLimit(BURST, INTERVAL)
        self._seconds = self._ended_at = 0.0

    def note(self, label: object, seconds: float, where: str, now: float) -> None:
        """The loop stood still for so many seconds until ``now``.

        Args:
            label: The connection, as it is shown.
            where: What ran meanwhile; "" if that is not known.
        """
        self._seconds, self._ended_at = seconds, now
        self._stats.stalls += 1
        self._stats.stalled_seconds += seconds
        if self._limit.admits(now):
            what = f" in {where}" if where else ""
            rest = self._limit.suffix()
            log.warning("%r: the loop stood still for %.1f s%s%s", label, seconds, what, rest)

    def cause_of_loss(self, heartbeat: int, now: float) -> str:
        """Why the broker closed the connection, if a stall just before made it; else ""."""
        if not heartbeat or self._seconds < FATAL_INTERVALS * heartbeat:
            return ""
        if now - self._ended_at > heartbeat:
            return ""
        return (
            f"the loop stood still for {self._seconds:.1f} s, so that no heartbeat was sent;"
            f" the broker closes after {FATAL_INTERVALS} to {FATAL_INTERVALS + 1} intervals"
            f" of {heartbeat} s"
        )
