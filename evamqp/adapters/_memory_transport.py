"""A connection made of memory: its two ends, the faults it can have, and a Peer to script.

The memory adapter joins streams with it.  No clock, no loop and no AMQP belongs here: each end
takes the ``call_soon`` of the loop, and calls its stream from there only.
"""

from __future__ import annotations

from typing import cast

from evamqp.abc import Stream, Transport
from evamqp.adapters._future import CallSoon
from evamqp.errors import WrongState

# About what a Linux socket takes at once, and asyncio's thresholds.
READ_SIZE = 64 * 1024
HIGH_WATER = 64 * 1024
LOW_WATER = 16 * 1024


def join(call_soon: CallSoon, connecting: Stream, accepting: Stream) -> MemoryTransport:
    """Connect two streams, and call ``connection_made`` on both; return the accepting end."""
    here, there = MemoryTransport(call_soon, connecting), MemoryTransport(call_soon, accepting)
    here.peer, there.peer = there, here
    accepting.connection_made(there)
    connecting.connection_made(here)
    return there


class MemoryTransport:
    """One end of a connection: a Transport, and where a test injects faults.

    Attributes:
        chunk_size: Bytes that this end reads in one turn.
        peer: The other end.
    """

    __slots__ = (
        "_call_soon", "_closing", "_farewell", "_full", "_lost", "_outgoing", "_reading",
        "_remaining", "_scheduled", "_silent", "_stream", "chunk_size", "peer",
    )  # fmt: skip

    peer: MemoryTransport

    def __init__(self, call_soon: CallSoon, stream: Stream) -> None:
        self.chunk_size: int = READ_SIZE
        self._call_soon = call_soon
        self._stream = stream
        self._outgoing = bytearray()
        self._farewell: BaseException | None = None  # the peer gets it after the last byte
        self._remaining: int | None = None  # bytes that may still arrive before the wire is cut
        self._reading = True
        self._closing = self._full = self._lost = self._scheduled = self._silent = False

    def write(self, data: bytes) -> None:
        if not self._closing and not self._silent:
            self._outgoing += data
            self._schedule()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.peer._schedule()

    def close(self) -> None:
        self._closing = True
        self._schedule()

    def abort(self) -> None:
        self._outgoing.clear()
        self.reset()

    def reset(self) -> None:
        """Close; the other end gets a ConnectionResetError after what was written."""
        if not self._lost:
            self._farewell = ConnectionResetError("connection reset by the peer")
            self.close()

    def cut_after(self, count: int) -> None:
        """Break the connection for both ends once ``count`` more bytes have reached this one."""
        self._remaining = count
        self.peer._schedule()

    def silence(self) -> None:
        """From now on lose all bytes in both directions, and the end of the connection too."""
        for end in (self, self.peer):
            end._silent = True
            end._outgoing.clear()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._deliver)

    def _deliver(self) -> None:
        """Deliver one turn's bytes to the peer, or the end."""
        self._scheduled = False
        if self.peer._lost:
            self._outgoing.clear()
        if self.peer._remaining == 0:
            self._break()
        elif self._outgoing and self.peer._reading:
            self._schedule()  # first, since the stream may raise
            self.peer._stream.data_received(self._take())
        elif self._closing and not self._outgoing:
            self._finish()
        if not self._lost:
            self._watch()

    def _take(self) -> bytes:
        size, peer = self.peer.chunk_size, self.peer
        if peer._remaining is not None:
            size = min(size, peer._remaining)
            peer._remaining -= min(size, len(self._outgoing))
        data = bytes(self._outgoing[:size])
        del self._outgoing[:size]
        return data

    def _watch(self) -> None:
        if not self._full and len(self._outgoing) > HIGH_WATER:
            self._full = True
            self._stream.pause_writing()
        elif self._full and len(self._outgoing) <= LOW_WATER:
            self._full = False
            self._stream.resume_writing()

    def _finish(self) -> None:
        self._lose(None)
        if self.peer._reading and not self._silent:
            self.peer._lose(self._farewell)

    def _break(self) -> None:
        for end in (self, self.peer):
            end._lose(ConnectionResetError("the connection was cut"))

    def _lose(self, exc: BaseException | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._outgoing.clear()
            self._stream.connection_lost(exc)


class Peer:
    """A Stream that records, for the other side of a test: ``listen(host, port, lambda: peer)``.

    Attributes:
        received: The bytes that came.
        writable: False while the other side does not read what this one sends.
        is_connected: Whether a connection was made and not lost.
        reason: What connection_lost got; None for an end without error, or no end yet.
    """

    __slots__ = ("_transport", "is_connected", "reason", "received", "writable")

    def __init__(self) -> None:
        self.received: bytearray = bytearray()
        self.writable: bool = True
        self.is_connected: bool = False
        self.reason: BaseException | None = None
        self._transport: MemoryTransport | None = None

    @property
    def transport(self) -> MemoryTransport:
        """This end of the connection, and its faults; WrongState before there is one."""
        if self._transport is None:
            raise WrongState("nothing has connected to this Peer")
        return self._transport

    def send(self, data: bytes) -> None:
        """Write to the other side; a no-op once the connection is closed."""
        self.transport.write(data)

    def connection_made(self, transport: Transport) -> None:
        self._transport = cast(MemoryTransport, transport)
        self.is_connected = True

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_connected = False
        self.reason = exc
