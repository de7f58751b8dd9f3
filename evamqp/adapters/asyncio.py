"""asyncio, and so uvloop: its timers and futures as they are, one protocol per connection.

Bytes and futures only; AMQP never belongs here.  TLS is _tls.py's, not the loop's: asyncio's own
waits 30 s for a silent peer when it closes, and the filter fails alike on every loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

from evamqp.abc import Callback, Endpoint, Handle, Stream
from evamqp.adapters._dial import Address, Dial
from evamqp.adapters._socket import (
    HIGH_WATER,
    LOW_WATER,
    RECV_SIZE,
    discard_input,
    open_listener,
    open_socket,
    read_rest,
    shut_down,
)


class AsyncioAdapter:
    """Runs on an asyncio event loop; see ``evamqp.abc.Adapter``.

    Args:
        loop: The loop; None means the running one, or a new one if none runs.  A new one is
            driven by run() and closed by close().
    """

    __slots__ = ("_is_stopping", "_owns_loop", "call_later", "call_soon", "loop", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._owns_loop = False
        if loop is None:
            loop = self._running_or_new_loop()
        self.loop = loop
        self._is_stopping = False
        # The loop's own functions, so that nothing stands between.
        self.time = loop.time
        self.call_soon: Callable[[Callback], Handle] = loop.call_soon
        self.call_later: Callable[[float, Callback], Handle] = loop.call_later

    def _running_or_new_loop(self) -> asyncio.AbstractEventLoop:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            self._owns_loop = True
            return asyncio.new_event_loop()

    def runs_elsewhere(self) -> bool:
        """Whether the loop runs now, in another thread."""
        return self.loop.is_running() and asyncio._get_running_loop() is not self.loop

    def call_soon_threadsafe(self, callback: Callback) -> None:
        """Call back on the loop, from any thread or signal handler.

        Raises:
            RuntimeError: The loop is closed.
        """
        self.loop.call_soon_threadsafe(callback)

    def create_future(self) -> _Promise:
        """A promise whose ``future`` is an ``asyncio.Future``."""
        return _Promise(self.loop.create_future())

    def run_awaitable(
        self, awaitable: Awaitable[Any], done: Callable[[BaseException | None], object]
    ) -> Handle:
        """Run a coroutine as a task, or wait for a future; then call ``done``."""
        future = asyncio.ensure_future(awaitable, loop=self.loop)

        def ended(future: asyncio.Future[Any]) -> None:
            done(asyncio.CancelledError() if future.cancelled() else future.exception())

        future.add_done_callback(ended)
        return future

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        """Resolve, connect and shake hands in TLS; then call ``stream.connection_made``."""
        return Dial(self, _Connector(self.loop, endpoint), endpoint, stream)

    def listen(self, host: str, port: int, factory: Callable[[], Stream]) -> _Listening:
        """Accept connections and give each to a stream of its own.

        Args:
            host: Address to bind; a name is resolved on the spot, which may block.
            port: 0 picks a free one; see the handle's ``port``.
            factory: Makes the stream of one connection.

        Raises:
            OSError: The address cannot be bound; nothing is left open.
        """
        return _Listening(self.loop, open_listener(host, port), factory)

    def run(self) -> None:
        """Run the loop until stop(); in an application the loop is yours instead.

        Raises:
            RuntimeError: The loop runs already.
        """
        if not self._is_stopping:
            self.loop.run_forever()
        self._is_stopping = False

    def stop(self) -> None:
        """End run(), or the next one.  Idempotent; legal in a signal handler."""
        self._is_stopping = True
        # A loop that sleeps does not look at stop() by itself; the callback wakes it.
        self.loop.call_soon_threadsafe(self._stop_loop)

    def _stop_loop(self) -> None:
        if self._is_stopping:
            self.loop.stop()

    def close(self) -> None:
        """Close the loop if this adapter made it.  Idempotent."""
        if self._owns_loop:
            self.loop.close()


class _Promise:
    """The writing end of an asyncio future."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def resolve(self, value: object) -> bool:
        if self.future.done():
            return False
        self.future.set_result(value)
        return True

    def reject(self, exc: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(exc)
            self.future.exception()  # looked at, so that a future nobody awaits logs nothing


class _Connection(asyncio.BufferedProtocol):
    """Between an asyncio transport and a stream, to which it is the Transport.

    asyncio's own transport is not: it calls ``pause_writing`` inside ``write``, takes writes after
    ``close``, and at the end of file first flushes to a peer that may read no more.
    """

    __slots__ = (
        "_accepting",
        "_buffer",
        "_full",
        "_is_closing",
        "_loop",
        "_made",
        "_stream",
        "_told_full",
        "_transport",
        "_view",
        "is_lost",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, made: Callable[[_Connection], object]
    ) -> None:
        self._loop = loop
        self._made = made
        self._transport: asyncio.Transport
        self._stream: Stream | None = None
        self._accepting = True  # until close(), abort() or the end
        self._is_closing = False  # from close() on, unless abort() follows
        self._full = False  # what asyncio says
        self._told_full = False  # what the stream was told
        self._buffer = bytearray(RECV_SIZE)
        self._view = memoryview(self._buffer)
        self.is_lost = False

    def serve(self, stream: Stream) -> None:
        """Give everything that comes to ``stream``."""
        self._stream = stream
        stream.connection_made(self)

    def keep_alive(self) -> None:
        """Set what asyncio leaves unset on the sockets that it accepts."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is in the loop: pass the connection on."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        self._made(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        """The one buffer, used again for each read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read into it."""
        if self._accepting and self._stream is not None:
            self._stream.data_received(self._view[:nbytes].tobytes())

    def eof_received(self) -> None:
        """Our peers never half-close, so there is nobody to flush to."""
        self._transport.abort()

    def pause_writing(self) -> None:
        """Too much is unsent.  asyncio says so inside write(), where no stream may be called."""
        self._full = True
        self._loop.call_soon(self._tell_full)

    def resume_writing(self) -> None:
        """There is room again."""
        self._full = False
        self._tell_full()

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
        self._accepting = False
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
            self._accepting = False
            self._is_closing = True
            self._transport.close()

    def abort(self) -> None:
        """Drop what is kept and close now."""
        self._accepting = False
        self._is_closing = False
        self._transport.abort()

    def _tell_full(self) -> None:
        if self._full == self._told_full or not self._accepting or self._stream is None:
            return
        self._told_full = self._full
        if self._full:
            self._stream.pause_writing()
        else:
            self._stream.resume_writing()

    def _on_copy_of_socket(self, action: Callable[[socket.socket], object]) -> None:
        # In connection_lost asyncio and uvloop read no more, but the socket is still open.  Their
        # socket objects cannot recv(); one of our own on a copy can.
        fd = self._transport.get_extra_info("socket").fileno()
        if fd >= 0:
            with socket.socket(fileno=os.dup(fd)) as copy:
                copy.setblocking(False)
                action(copy)

    def _receive(self, data: bytes) -> bool:
        if self._accepting and self._stream is not None:
            self._stream.data_received(data)
        return self._accepting


class _Connector:
    """How asyncio opens a connection; ``_dial.HappyEyeballs`` decides which, and when."""

    __slots__ = ("_endpoint", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> None:
        self._loop = loop
        self._endpoint = endpoint

    def connect(
        self,
        address: Address,
        connected: Callable[[_Connection], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        """See ``_dial.Connector``."""
        sock = open_socket(address, self._endpoint)
        return _Connecting(self._loop, sock, address, connected, failed)

    def discard(self, connection: _Connection) -> None:
        """See ``_dial.Connector``."""
        connection.abort()

    def adopt(self, connection: _Connection, stream: Stream) -> None:
        """See ``_dial.Connector``."""
        connection.serve(stream)


class _Connecting:
    """A task that opens a connection."""

    __slots__ = ("_connection", "_failed", "_handed_over", "_loop", "_sock", "_task")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        address: Address,
        connected: Callable[[_Connection], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._failed = failed
        self._handed_over = False
        self._connection = _Connection(loop, connected)
        self._task = loop.create_task(self._open(address))
        # A task cancelled before its first step never enters its own ``try``, so what has to be
        # done at its end is done from outside.
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        # Once a transport has the socket, only that may close it (uvloop would close the number
        # a second time).  The connection arrives, and is discarded.
        if not self._handed_over:
            self._task.cancel()

    async def _open(self, address: Address) -> None:
        await self._loop.sock_connect(self._sock, address.sockaddr)
        self._handed_over = True
        await self._loop.create_connection(lambda: self._connection, sock=self._sock)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._handed_over:
            self._sock.close()
        elif self._connection.is_lost:
            # It ended within connection_made, before uvloop took charge of the socket object,
            # which would now close its number again, whoever owns that by then.
            self._sock.detach()
        if task.cancelled():
            # By the application too: asyncio.run() cancels every task when it ends.
            self._failed(ConnectionAbortedError("the attempt was cancelled"))
        elif (error := task.exception()) is not None:
            self._failed(error)


class _Listening:
    """A listening socket."""

    __slots__ = ("_factory", "_loop", "_server", "_sock", "_task", "port")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[[], Stream],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._factory = factory
        self.port: int = sock.getsockname()[1]
        self._server: asyncio.AbstractServer | None = None
        self._task = loop.create_task(self._serve())
        self._task.add_done_callback(self._started)

    def cancel(self) -> None:
        """Stop accepting.  Idempotent."""
        self._task.cancel()
        if self._server is not None:
            self._server.close()

    async def _serve(self) -> None:
        # The socket listens already, so those who are early wait in its queue.
        self._server = await self._loop.create_server(self._new_connection, sock=self._sock)

    def _started(self, task: asyncio.Task[None]) -> None:
        if self._server is None:
            self._sock.close()
        if not task.cancelled():
            task.result()

    def _new_connection(self) -> _Connection:
        return _Connection(self._loop, self._admit)

    def _admit(self, connection: _Connection) -> None:
        connection.keep_alive()
        connection.serve(self._factory())
