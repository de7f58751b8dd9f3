"""One asyncio connection as a Transport; asyncio.py opens and accepts it.

Bytes only; no AMQP and no TLS.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import cast

from evamqp.abc import Stream
from evamqp.adapters._flow import HIGH_WATER, LOW_WATER, RECV_MUCH, WriteFlow, deliver_much
from evamqp.adapters._tcp import RECV_SIZE, discard_input, read_rest, set_options, shut_down


class _ReadBuffer(threading.local):
    """What all connections of a thread read into: each read is copied out before the next."""

    def __init__(self) -> None:
        self.much = memoryview(bytearray(RECV_MUCH))
        self.usual = self.much[:RECV_SIZE]


_shared = _ReadBuffer()


class AsyncioTransport(asyncio.BufferedProtocol):
    """A Transport for a stream, on top of an asyncio transport.

    asyncio's own cannot serve a stream directly: it calls ``pause_writing`` inside ``write``, takes
    writes after ``close``, and at end of file flushes to a peer that may not read any more.

    Args:
        loop: The loop.
        made: Called with this object when asyncio has the connection.
    """

    __slots__ = (
        "_accepting",
        "_flow",
        "_is_closing",
        "_loop",
        "_made",
        "_own",
        "_room",
        "_stream",
        "_transport",
        "_view",
        "is_lost",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, made: Callable[[AsyncioTransport], object]
    ) -> None:
        self._loop = loop
        self._made = made
        self._transport: asyncio.Transport
        self._stream: Stream | None = None
        self._flow: WriteFlow
        self._accepting = True  # until close(), abort() or the end
        self._is_closing = False  # from close() on, unless abort() follows
        # On Windows asyncio asks for the buffer long before it has something to read.
        self._own = memoryview(bytearray(RECV_SIZE)) if sys.platform == "win32" else None
        self._room = RECV_SIZE  # bytes to read next
        self._view = memoryview(b"")  # of the read that is under way
        self.is_lost = False

    def serve(self, stream: Stream) -> None:
        """Deliver what comes to ``stream``, from ``connection_made`` on."""
        self._stream = stream
        self._flow = WriteFlow(self._loop.call_soon, stream)
        stream.connection_made(self)

    def set_options(self) -> None:
        """Set the options of an accepted socket; asyncio sets only some of them."""
        set_options(self._transport.get_extra_info("socket"))

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is in the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        self._made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next read goes."""
        view = self._own
        if view is None:
            view = _shared.usual if self._room == RECV_SIZE else _shared.much
        self._view = view
        return view

    def buffer_updated(self, nbytes: int) -> None:
        """Deliver the ``nbytes`` bytes that were read."""
        if self._accepting and self._stream is not None:
            data = self._view[:nbytes].tobytes()
            if nbytes < RECV_SIZE:
                self._room = RECV_SIZE
                self._stream.data_received(data)
            else:
                self._room = deliver_much(self._stream, data)

    def eof_received(self) -> None:
        """Close at once: AMQP peers never half-close, so the peer reads nothing more."""
        self._transport.abort()

    def pause_writing(self) -> None:
        """Too much is unsent.  asyncio calls this inside write()."""
        self._flow.fill()

    def resume_writing(self) -> None:
        """There is room again."""
        self._flow.drain()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The last call from asyncio."""
        self.is_lost = True
        stream = self._stream
        if stream is None:
            self._on_copy_of_socket(shut_down)
            return
        if exc is None and self._is_closing:
            self._on_copy_of_socket(discard_input)
        elif isinstance(exc, OSError) and self._accepting:
            self._on_copy_of_socket(lambda copy: read_rest(copy, self._receive))
        self._on_copy_of_socket(shut_down)
        self._stop_accepting()
        self._stream = None
        stream.connection_lost(exc)

    # Transport: called by the stream.

    def write(self, data: bytes) -> None:
        """Send, or keep for later."""
        if self._accepting:
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Deliver nothing more until resume_reading()."""
        if self._accepting:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again."""
        if self._accepting:
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is kept, then close."""
        if self._accepting:
            self._stop_accepting()
            self._is_closing = True
            self._transport.close()

    def abort(self) -> None:
        """Drop what is kept and close now."""
        self._stop_accepting()
        self._is_closing = False
        self._transport.abort()

    def _stop_accepting(self) -> None:
        self._accepting = False
        if self._stream is not None:
            self._flow.stop()

    def _on_copy_of_socket(self, action: Callable[[socket.socket], object]) -> None:
        # In connection_lost the socket is still open, but asyncio and uvloop no longer read it, and
        # their socket objects have no recv().  A duplicate of our own has.
        fd = self._transport.get_extra_info("socket").fileno()
        if fd >= 0:
            with socket.socket(fileno=os.dup(fd)) as copy:
                copy.setblocking(False)
                action(copy)

    def _receive(self, data: bytes) -> bool:
        if self._accepting and self._stream is not None:
            self._stream.data_received(data)
        return self._accepting
