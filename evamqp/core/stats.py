"""Counters of one connection.  They only count; no decision depends on them."""

from __future__ import annotations


class Stats:
    """A connection's counters, from its beginning.

    Attributes:
        bytes_received: Bytes from the transport.
        bytes_sent: Bytes handed to the transport.
        frames_received: Frames parsed.
        messages_received: Messages whose body came whole: deliveries, returns and gets.
        messages_published: Calls of basic_publish that were accepted.
        blocked_seconds: Seconds that the broker kept us blocked, up to the last unblocking.
        callback_errors: Exceptions that callbacks raised.
        stalls: Times that the loop stood still for longer than ``stall_warning``.
        stalled_seconds: How long that was in all.
        stale_acks: Messages settled after their channel was gone.
        unknown_confirms: Confirms for tags that were not outstanding.
        unknown_deliveries: Deliveries for consumers that do not exist.  Those of one that is gone
            were requeued; those that no consumer of the channel can have meant were dropped.
        late_frames: Frames for channels that were closed before.
        late_calls: Functions that call_soon_threadsafe brought after the end, and were dropped.
    """

    __slots__ = (
        "blocked_seconds",
        "bytes_received",
        "bytes_sent",
        "callback_errors",
        "frames_received",
        "late_calls",
        "late_frames",
        "messages_published",
        "messages_received",
        "stale_acks",
        "stalled_seconds",
        "stalls",
        "unknown_confirms",
        "unknown_deliveries",
    )

    def __init__(self) -> None:
        self.blocked_seconds: float = 0.0
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        self.callback_errors: int = 0
        self.frames_received: int = 0
        self.late_calls: int = 0
        self.late_frames: int = 0
        self.messages_published: int = 0
        self.messages_received: int = 0
        self.stale_acks: int = 0
        self.stalled_seconds: float = 0.0
        self.stalls: int = 0
        self.unknown_confirms: int = 0
        self.unknown_deliveries: int = 0

    def __repr__(self) -> str:
        return f"<Stats {self.as_dict()}>"

    def copy(self) -> Stats:
        """The same counts, which do not change any more."""
        twin = Stats()
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def add(self, other: Stats) -> None:
        """Add the counts of another connection."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, float]:
        """All counters by name."""
        return {name: getattr(self, name) for name in self.__slots__}
