"""Bytes waiting for the transport: one list, one size, and the threshold of the buffer's mode.

It builds no frames and knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable

from evamqp.errors import OutputFull

# Bytes: beyond this the driver writes at once rather than at the end of the loop's turn.
FLUSH_AT = 64 * 1024
# The threshold of IDLE: any append passes it.
IDLE = 0
# Bytes taken at once.  More at the end of a long pause would only move the whole buffer into the
# transport's, and let this one fill again beside it; and memory of more than that is mapped and
# unmapped by the C library for each piece, which costs more than the rest of the way.
TAKE_AT_MOST = 128 * 1024
# Bytes that acks, heartbeats and replies may take above the cap, before the peer that reads none
# of them is given up: some 200,000 acks.
UNCAPPED_ROOM = 4 * 1024 * 1024
# Bytes after which the pieces that have come are looked at, and how many of them are worth joining:
# each costs some sixty bytes besides its own, and an ack has 21 of its own.
COALESCE_AFTER = 512 * 1024
COALESCE_PIECES = 1024
SMALL_PIECE = 1024
# Bytes: pieces that are on average this big are taken as they are; others are joined.
BIG_PIECE = 8 * 1024


class Output:
    """The output buffer of one connection.

    Append by hand, because this is the hot path: compare ``size`` with ``threshold``, call
    ``admit`` if it would be passed, then append to ``pieces`` and set ``size``.

    The mode decides where the threshold lies, and passing the threshold chooses the next mode:

    - IDLE: nothing waits that the driver does not know of.  The next append wakes it.
    - This turn: the driver was woken and writes at the end of the turn, or at FLUSH_AT.
    - Backlog: the transport is paused, or the turn has written its share.  The buffer grows to the
      high water mark, and small pieces are joined on the way.
    - Full: above the high water mark; ``is_full`` is reported.  At the cap, ``admit`` raises.

    Args:
        ready: Called when there is something to write, and again above FLUSH_AT, with the bytes
            that wait already.

    Attributes:
        on_pressure: Called when ``is_full`` changes.
        on_overrun: Called when uncapped frames pile up, since the peer reads none of them.
    """

    __slots__ = (
        "_cap",
        "_coalesced",
        "_coalesced_size",
        "_high_water",
        "_ready",
        "_turn_threshold",
        "is_full",
        "on_overrun",
        "on_pressure",
        "paused",
        "pieces",
        "size",
        "threshold",
    )

    def __init__(self, ready: Callable[[int], object]) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.size: int = 0
        self.threshold: int = IDLE
        self.is_full: bool = False
        self.paused: bool = False
        self._high_water = self._cap = self._turn_threshold = 0
        self._coalesced = self._coalesced_size = 0  # pieces that were looked at, and their bytes
        self._ready = ready
        self.on_pressure: Callable[[], object] = _ignore
        self.on_overrun: Callable[[], object] = _ignore

    def set_limits(self, high_water: int, cap: int) -> None:
        """Bytes above which ``is_full`` holds, and above which publishing is refused."""
        self._high_water = high_water
        self._cap = cap
        self._turn_threshold = min(FLUSH_AT, high_water)

    def detach(self) -> None:
        """Call nothing any more, so that no reference cycle is left."""
        self._ready = self.on_pressure = self.on_overrun = _ignore

    def admit(self, count: int) -> int:
        """Make room for ``count`` bytes that are about to be appended, and return the size then.

        Raises:
            OutputFull: The cap would be passed; nothing changed.  An empty buffer takes anything.
        """
        if self.size and self.size + count > self._cap:
            raise OutputFull(f"{self.size} bytes of output wait already; output_max is {self._cap}")
        return self._grow(count)

    def append(self, frame: bytes) -> None:
        """Append a frame that counts against the cap.  Raises as ``admit`` does."""
        size = self.size + len(frame)
        if size > self.threshold:
            size = self.admit(len(frame))
        self.pieces.append(frame)
        self.size = size

    def append_uncapped(self, frame: bytes) -> None:
        """Append an ack, a heartbeat, a close or a reply."""
        size = self.size + len(frame)
        if size > self.threshold:
            size = self._grow(len(frame))
        self.pieces.append(frame)
        self.size = size
        if size > self._cap + UNCAPPED_ROOM:
            self.on_overrun()

    def hold(self) -> Output:
        """Make a buffer of the same limits that waits for ``extend``, and wakes nobody."""
        held = Output(_ignore)
        held.set_limits(self._high_water, self._cap)
        held.paused = True
        return held

    def extend(self, held: Output) -> None:
        """Append all that was held."""
        if held.size:
            size = self.size + held.size
            if size > self.threshold:
                size = self._grow(held.size)
            self.pieces += held.pieces
            self.size = size

    def _grow(self, count: int) -> int:
        """Wake the driver, choose the mode, and return the size with ``count`` bytes more."""
        if not self.size and not self.paused and count <= self._turn_threshold:
            # The first append of a turn, and mostly the only one.
            self._ready(0)
            self.threshold = self._turn_threshold
            return count
        if not self.paused:
            self._ready(self.size)
        self._coalesce()
        size = self.size + count
        if size > self._high_water:
            self._enter_full(size)
        elif self.size > FLUSH_AT or self.paused:
            self._enter_backlog(size)
        else:
            self.threshold = self._turn_threshold
        return size

    def _enter_full(self, size: int) -> None:
        self.threshold = min(self._cap, size + COALESCE_AFTER)
        if not self.is_full:
            self.is_full = True
            self.on_pressure()

    def _enter_backlog(self, size: int) -> None:
        self.threshold = min(self._high_water, size + COALESCE_AFTER)

    def _enter_idle(self) -> None:
        self.threshold = IDLE
        self._coalesced = self._coalesced_size = 0

    def _coalesce(self) -> None:
        """Join small pieces, so that the buffer costs what its bytes cost."""
        pieces, start = self.pieces, self._coalesced
        count = len(pieces) - start
        if count >= COALESCE_PIECES:
            if self.size - self._coalesced_size < count * SMALL_PIECE:
                pieces[start:] = [b"".join(pieces[start:])]
            self._coalesced, self._coalesced_size = len(pieces), self.size

    def take(self) -> list[bytes | memoryview]:
        """Take the oldest pieces, about TAKE_AT_MOST bytes; mostly that is all.

        Small pieces are joined into one; big ones, which are bodies, are not copied.
        """
        pieces = self.pieces
        size = self.size
        if not size:
            return []
        if size > TAKE_AT_MOST:
            pieces = self._oldest()
            del self.pieces[: len(pieces)]
            size = size_of(pieces)
        else:
            self.pieces = []
        self.size -= size
        self._enter_idle()
        if self.is_full and self.size <= self._high_water:
            self.is_full = False
            self.on_pressure()
        return pieces if size >= len(pieces) * BIG_PIECE > BIG_PIECE else [b"".join(pieces)]

    def _oldest(self) -> list[bytes | memoryview]:
        size = count = 0
        for piece in self.pieces:
            size += len(piece)
            count += 1
            if size >= TAKE_AT_MOST:
                break
        return self.pieces[:count]

    def clear(self) -> None:
        """Drop all output."""
        self.pieces = []
        self.size = 0
        self._enter_idle()


def size_of(pieces: list[bytes | memoryview]) -> int:
    """The bytes of all pieces."""
    size = 0
    for piece in pieces:
        size += len(piece)
    return size


def _ignore(size: int = 0) -> None:
    """What a detached buffer calls."""
