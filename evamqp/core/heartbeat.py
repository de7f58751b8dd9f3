"""When to send a heartbeat, and when the peer is dead.  Its owner reports bytes and passing time.

No clock and no timer: the connection calls ``tick`` every quarter interval.
"""

from __future__ import annotations

# RabbitMQ itself closes after two to three intervals of silence.  We look every quarter interval
# and count bytes, not frames, so a slow 100 kB body is not a dead peer.
CHECKS_PER_INTERVAL = 4
DEAD_AFTER = 2 * CHECKS_PER_INTERVAL


class Heartbeat:
    """Two booleans set by traffic, a count kept by ticks.

    Args:
        interval: Seconds, as negotiated; greater than 0.
    """

    __slots__ = ("_missed", "period", "received", "sent")

    def __init__(self, interval: float) -> None:
        self.period: float = interval / CHECKS_PER_INTERVAL
        self.received: bool = False
        self.sent: bool = False
        self._missed = 0

    def tick(self, *, reading: bool) -> bool:
        """Count one quarter interval; a late tick counts once.  True says: send a heartbeat.

        Args:
            reading: False while reading is paused, when silence is our own doing.
        """
        if self.received or not reading:
            self.received = False
            self._missed = 0
        else:
            self._missed += 1
        # A quarter interval in which nothing left: the last byte is half an interval old at the
        # most, and so is a heartbeat, which counts for the quarter after it.  RabbitMQ beats as
        # often; the specification asks for half of that.
        beat = not self.sent
        self.sent = False
        return beat

    @property
    def silence(self) -> float:
        """Seconds without a byte, in whole periods."""
        return self._missed * self.period

    @property
    def is_dead(self) -> bool:
        return self._missed >= DEAD_AFTER
