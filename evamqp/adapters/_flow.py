"""Flow: the transports' one way to pause and resume their stream, and how much they read at once.

The transport decides what counts as full.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from evamqp.abc import Handle, LoopCallback, Stream
from evamqp.adapters._tcp import RECV_SIZE

#: Bytes per read while much comes, and is taken quickly.
RECV_MUCH = 256 * 1024
#: Seconds in which a stream has to take RECV_SIZE bytes to get RECV_MUCH at once: until it has
#: taken them no timer runs and no heartbeat is sent.
QUICK = 0.01
#: Bytes of unsent output above which a stream is asked to pause, and at which to resume.
HIGH_WATER, LOW_WATER = 256 * 1024, 64 * 1024


def deliver_much(stream: Stream, data: bytes) -> int:
    """Pass on a read of RECV_SIZE or more, and return how many bytes to read next."""
    began = monotonic()
    stream.data_received(data)
    took = (monotonic() - began) * RECV_SIZE / len(data)
    return RECV_MUCH if took < QUICK else RECV_SIZE


class WriteFlow:
    """Pauses and resumes a stream, in turns, and from the loop only.

    A transport fills up inside write(), where it must not call its stream.  The pause is therefore
    reported on the next turn of the loop, unless the transport has drained by then.
    """

    __slots__ = ("_call_soon", "_is_paused", "_stream", "is_full")

    def __init__(self, call_soon: Callable[[LoopCallback], Handle], stream: Stream) -> None:
        self._call_soon = call_soon
        self._stream: Stream | None = stream
        self._is_paused = False  # what the stream was last asked to be
        self.is_full = False

    def fill(self) -> None:
        """Note that the transport is full.  Never calls the stream.  Idempotent."""
        if not self.is_full:
            self.is_full = True
            self._call_soon(self._report)

    def drain(self) -> None:
        """Note that the transport has room, and resume the stream.  Call from the loop only."""
        self.is_full = False
        self._report()

    def stop(self) -> None:
        """Report nothing more: the transport closes.  Idempotent."""
        self._stream = None

    def _report(self) -> None:
        if self._stream is None or self.is_full is self._is_paused:
            return
        self._is_paused = self.is_full
        if self.is_full:
            self._stream.pause_writing()
        else:
            self._stream.resume_writing()
