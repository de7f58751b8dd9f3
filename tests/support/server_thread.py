"""A port of 127.0.0.1 whose connections are served in a thread of its own, plain or in TLS.

What is said on a connection is the Stream's that ``accept`` makes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

from evamqp.abc import Stream

T = TypeVar("T")

HOST = "127.0.0.1"
_NO_LINGER = struct.pack("ii", 1, 0)


class ServerThread:
    """Accepts connections and gives each to a Stream of its own.

    Args:
        accept: Makes the Stream of a connection.
        context: For TLS; None means plain TCP.
        receive_buffer: Bytes of each socket's, so that a pause in reading is soon felt; None
            leaves it to the system.

    Attributes:
        port: Where it listens.
    """

    def __init__(
        self,
        accept: Callable[[], Stream],
        context: ssl.SSLContext | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> None:
        self._accept = accept
        self.transports: set[asyncio.Transport] = set()
        self.is_reading = True
        listener = socket.create_server((HOST, 0), backlog=1024)
        if receive_buffer is not None:  # accepted sockets inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port: int = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        # What clients do to their connections here is not worth a line of log.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._server = self._loop.run_until_complete(
            self._loop.create_server(
                lambda: _Protocol(self, self._accept()), sock=listener, ssl=context, backlog=1024
            )
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the thread, where the streams live; returns what it returned."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def pause_reading(self) -> None:
        """Read no more from any connection until resume_reading()."""
        self.call(lambda: self._set_reading(False))

    def resume_reading(self) -> None:
        self.call(lambda: self._set_reading(True))

    def _set_reading(self, is_reading: bool) -> None:
        self.is_reading = is_reading
        for transport in self.transports:
            if is_reading:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def close(self) -> None:
        """End everything.  Idempotent."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for transport in list(self.transports):
            transport.abort()
        while self.transports:
            await asyncio.sleep(0)


class _Protocol(asyncio.Protocol):
    """Puts a Stream at the end of a socket."""

    def __init__(self, server: ServerThread, stream: Stream) -> None:
        self._server = server
        self._stream = stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.transports.add(transport)
        if not self._server.is_reading:
            transport.pause_reading()
        self._stream.connection_made(_Transport(transport))

    def data_received(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._stream.data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.transports.discard(self._transport)
        self._stream.connection_lost(exc)


class _Transport:
    """asyncio's transport, whose abort() is an RST."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write = transport.write
        self.close = transport.close
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def abort(self) -> None:
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()
