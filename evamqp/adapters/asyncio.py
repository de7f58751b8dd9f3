"""asyncio, and so uvloop: its timers and futures as they are, one protocol per connection.

Bytes and futures only; AMQP never belongs here.  TLS is _tls.py's, not the loop's: asyncio's own
waits 30 s for a silent peer when it closes, while the filter behaves the same on every loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import ref

from evamqp.abc import Endpoint, Handle, LoopCallback, Stream
from evamqp.adapters._asyncio_transport import AsyncioTransport
from evamqp.adapters._dial import Dial
from evamqp.adapters._future import Promise
from evamqp.adapters._happy_eyeballs import Address
from evamqp.adapters._tcp import open_listener, open_socket
from evamqp.errors import WrongState

T = TypeVar("T")

#: Seconds after which a cancelled attempt counts as failed.
CANCELLED_DELAY = 0.1


class AsyncioAdapter:
    """Runs on an asyncio event loop; see ``evamqp.abc.Adapter``.

    Args:
        loop: The loop; None means the running one, or a new one if none runs.  run() runs a new
            one, and close() closes it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._owns_loop = False
        if loop is None:
            loop = self._running_or_new_loop()
        self.loop: asyncio.AbstractEventLoop = loop
        self._is_stopping = False
        self._end: AsyncGenerator[None, None] | None = None
        self._when_closed: set[Callable[[AsyncioAdapter], object]] = set()
        # The loop's own functions, without a layer in between.  A class with slots for them would
        # be no Adapter to pyright, which binds what is in a slot like a method.
        self.time: Callable[[], float] = loop.time
        self.call_soon: Callable[[LoopCallback], Handle] = loop.call_soon
        self.call_later: Callable[[float, LoopCallback], Handle] = loop.call_later

    def _running_or_new_loop(self) -> asyncio.AbstractEventLoop:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            self._owns_loop = True
            return asyncio.new_event_loop()

    def runs_elsewhere(self) -> bool:
        """Whether the loop runs now, in another thread."""
        return self.loop.is_running() and asyncio._get_running_loop() is not self.loop

    def when_closed(self, callback: Callable[[AsyncioAdapter], object]) -> None:
        """Call back with this adapter when its loop ends by asyncio.run() or our close().

        A loop that is closed by itself does not say so.
        """
        if not self._when_closed:
            self.call_soon(self._await_end)
        self._when_closed.add(callback)

    def _await_end(self) -> None:
        """Begin an asynchronous generator: a loop closes those that are open before it ends."""
        self._end = _until_end(ref(self))
        with suppress(StopIteration):
            self._end.__anext__().send(None)

    def _report_end(self) -> None:
        while self._when_closed:
            self._when_closed.pop()(self)

    def call_soon_threadsafe(self, callback: LoopCallback) -> None:
        """Call back on the loop, from any thread or signal handler.

        Raises:
            RuntimeError: The loop is closed.
        """
        self.loop.call_soon_threadsafe(callback)

    def create_future(self) -> Promise[asyncio.Future[Any]]:
        """A promise whose ``future`` is an ``asyncio.Future``."""
        return Promise(self.loop.create_future())

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

    def listen(self, host: str, port: int, factory: Callable[[], Stream]) -> _Listener:
        """Accept connections, each for a new stream.

        Args:
            host: Address to bind; a name is resolved on the spot, which may block.
            port: 0 picks a free one; see the handle's ``port``.
            factory: Makes the stream of one connection.

        Raises:
            OSError: The address cannot be bound; nothing is left open.
        """
        return _Listener(self.loop, open_listener(host, port), factory)

    def run(self) -> None:
        """Run the loop until stop(), for scripts; in an application you run your own loop.

        Raises:
            RuntimeError: The loop runs already.
        """
        if not self._is_stopping:
            self.loop.run_forever()
        self._is_stopping = False

    def stop(self) -> None:
        """End run(), or the next one.  Idempotent; legal in a signal handler."""
        self._is_stopping = True
        # Wake a loop that sleeps: its own stop() does not.
        self.loop.call_soon_threadsafe(self._stop_loop)

    def _stop_loop(self) -> None:
        if self._is_stopping:
            self.loop.stop()

    # Beyond the contract.

    def run_until(self, awaited: Awaitable[T], timeout: float | None = None) -> T:
        """Run the loop until ``awaited`` has ended, and return its value.

        Args:
            awaited: A request, a future of this loop, or a coroutine.  A coroutine that a timeout,
                stop() or Ctrl-C cuts short is cancelled, and runs to its end.
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: It took too long.
            WrongState: stop() came first.
            RuntimeError: The loop runs already.
            Exception: Whatever ``awaited`` failed with.
        """
        given = getattr(awaited, "future", awaited)
        future: asyncio.Future[T] = asyncio.ensure_future(given, loop=self.loop)
        expired: list[bool] = []

        def expire() -> None:
            expired.append(True)
            self.stop()

        timer = None if timeout is None else self.call_later(timeout, expire)
        try:
            return self._run_until(future)
        except _Stopped:
            if expired:
                raise TimeoutError(f"no result within {timeout:g} s") from None
            raise WrongState("stop() was called before the result was there") from None
        finally:
            self._is_stopping = False
            if timer is not None:
                timer.cancel()
            if isinstance(future, asyncio.Task) and not future.done():
                future.cancel()
                self.loop.run_until_complete(asyncio.wait({future}))

    def _run_until(self, future: asyncio.Future[T]) -> T:
        if self._is_stopping and not future.done():
            raise _Stopped
        try:
            return self.loop.run_until_complete(future)
        except RuntimeError:
            if future.done() or self.loop.is_running():
                raise
            raise _Stopped from None

    def close(self) -> None:
        """Close the loop if this adapter made it.  Idempotent.

        Raises:
            WrongState: The loop runs.
        """
        if self._owns_loop:
            if self.loop.is_running():
                raise WrongState("the loop runs; stop it first")
            self._report_end()
            self.loop.close()


async def _until_end(adapter: ref[AsyncioAdapter]) -> AsyncGenerator[None, None]:
    """Yield once; report the end of the loop when closed."""
    try:
        yield
    finally:
        alive = adapter()
        if alive is not None:
            alive._report_end()


class _Stopped(Exception):
    """The loop was stopped before a future was done."""


class _Connector:
    """How asyncio opens a connection; ``HappyEyeballs`` decides which, and when."""

    __slots__ = ("_endpoint", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> None:
        self._loop = loop
        self._endpoint = endpoint

    def connect(
        self,
        address: Address,
        connected: Callable[[AsyncioTransport], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        """See ``Connector``."""
        sock = open_socket(address, self._endpoint)
        return _Connecting(self._loop, sock, address, connected, failed)

    def discard(self, connection: AsyncioTransport) -> None:
        """See ``Connector``."""
        connection.abort()

    def adopt(self, connection: AsyncioTransport, stream: Stream) -> None:
        """See ``Connector``."""
        connection.serve(stream)


class _Connecting:
    """A task that opens a connection."""

    __slots__ = ("_connection", "_error", "_failed", "_handed_over", "_loop", "_sock", "_task")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        address: Address,
        connected: Callable[[AsyncioTransport], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._failed = failed
        self._handed_over = False
        self._error: Exception | None = None
        self._connection = AsyncioTransport(loop, connected)
        self._task = loop.create_task(self._open(address))
        # A task cancelled before its first step never enters a ``try`` of its own, so a callback
        # cleans up.
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        # Once a transport has the socket, only the transport may close it (uvloop would close the
        # descriptor a second time).  The connection arrives, and the race discards it.
        if not self._handed_over:
            self._task.cancel()

    async def _open(self, address: Address) -> None:
        try:
            await self._loop.sock_connect(self._sock, address.sockaddr)
            self._handed_over = True
            await self._loop.create_connection(lambda: self._connection, sock=self._sock)
        except Exception as error:
            # Left to the task, asyncio would print it if the loop ends before _ended() is called.
            self._error = error.with_traceback(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._handed_over:
            self._sock.close()
        elif self._connection.is_lost:
            # It ended within connection_made, before uvloop took over the socket object, which
            # would now close its descriptor again, though another socket may have it by then.
            self._sock.detach()
        if task.cancelled():
            # Perhaps by asyncio.run(), which cancels every task when it ends: a loop that goes on
            # hears of it, and the other begins nothing new.
            error = ConnectionAbortedError("the attempt was cancelled")
            self._loop.call_later(CANCELLED_DELAY, self._failed, error)
        elif self._error is not None:
            self._failed(self._error)


class _Listener:
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
        # The socket listens already: early connections wait in its backlog.
        self._server = await self._loop.create_server(self._new_connection, sock=self._sock)

    def _started(self, task: asyncio.Task[None]) -> None:
        if self._server is None:
            self._sock.close()
        if not task.cancelled():
            task.result()

    def _new_connection(self) -> AsyncioTransport:
        return AsyncioTransport(self._loop, self._admit)

    def _admit(self, connection: AsyncioTransport) -> None:
        connection.set_options()
        connection.serve(self._factory())
