"""Twisted: any reactor, its Deferreds, its transports and their push producers.

Bytes, timers and Deferreds only; AMQP never belongs here.  TLS is _tls.py's, so no pyOpenSSL is
needed.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from twisted.internet import defer, error, protocol
from twisted.python.failure import Failure

from evamqp.adapters._dial import Address, Dial
from evamqp.adapters._socket import read_rest, set_options
from evamqp.adapters.base import Callback, Endpoint, Handle, Stream
from evamqp.errors import RequestCancelled

#: Reads before a connection that ends is closed: more than a receive buffer holds, and an end
#: where the peer goes on sending.
LAST_READS = 128


class TwistedAdapter:
    """Runs on a Twisted reactor; see ``adapters.base.Adapter``.

    A callback that raises is logged by Twisted, SystemExit and KeyboardInterrupt included.
    A reactor that stops closes every connection by itself: close yours first, then call stop().

    Args:
        reactor: The reactor; None means the installed one.
    """

    def __init__(self, reactor: object | None = None) -> None:
        self.reactor = cast(Any, reactor or _installed())
        self._soon: deque[_Call] = deque()
        # Most reactors count in wall-clock time, by which no peer may be judged dead.
        wall_clock = self.reactor.seconds is time.time
        self.time: Callable[[], float] = time.monotonic if wall_clock else self.reactor.seconds

    def call_soon(self, callback: Callback) -> Handle:
        """Call back on the next turn of the reactor.  Equal callLater()s would have no order."""
        if not self._soon:
            self.reactor.callLater(0, self._run_soon)
        call = _Call(callback)
        self._soon.append(call)
        return call

    def call_later(self, delay: float, callback: Callback) -> Handle:
        """Call back after ``delay`` seconds."""
        return _Timer(self.reactor.callLater(max(0.0, delay), callback))

    def call_soon_threadsafe(self, callback: Callback) -> None:
        """Call back on the reactor, from any thread or signal handler."""
        self.reactor.callFromThread(callback)

    def create_future(self) -> _Promise:
        """A promise whose ``future`` is a Deferred; it fires on the turn after it is settled."""
        return _Promise(self.call_soon)

    def follow(self, awaitable: Any, done: Callable[[BaseException | None], object]) -> Handle:
        """Run a coroutine by ensureDeferred, or wait for a Deferred; then call ``done``."""
        deferred = defer.ensureDeferred(awaitable)

        def ended(error: BaseException | None) -> None:
            if isinstance(error, defer.CancelledError):
                error = RequestCancelled("the Deferred was cancelled")
            # A Deferred that has fired, or is cancelled, would call from inside.
            self.call_soon(lambda: done(error))

        deferred.addCallbacks(lambda _: ended(None), lambda failure: ended(failure.value))
        return cast(Handle, deferred)

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        """Resolve, connect and shake hands in TLS; then call ``stream.connection_made``."""
        return Dial(self, _Connector(self, endpoint), endpoint, stream)

    def run(self) -> None:
        """Run the reactor until stop(); a reactor can be run once only.

        SIGINT and SIGTERM stop it too, unless you installed handlers of your own before.
        """
        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM) if main else ():
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_DFL, signal.default_int_handler):
                self.reactor.callWhenRunning(signal.signal, number, handler)
        self.reactor.run(installSignalHandlers=main)

    def stop(self) -> None:
        """End run(), or the next one.  Idempotent; legal in a signal handler or another thread."""
        self.reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        with suppress(error.ReactorNotRunning):  # it is stopping already
            self.reactor.stop()

    def close(self) -> None:
        """The reactor is the process's own, and is never closed."""

    def _run_soon(self) -> None:
        calls, self._soon = self._soon, deque()
        try:
            while calls:
                calls.popleft().run()
        finally:
            if calls:  # one raised, which Twisted logs; the others still have their turn
                self._soon.extendleft(reversed(calls))
                self.reactor.callLater(0, self._run_soon)


def _installed() -> object:
    from twisted.internet import reactor  # the import installs one, unless there is one

    return reactor


class _Call:
    """A callback that can be called off."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    def run(self) -> None:
        if self._callback is not None:
            self._callback()


class _Timer:
    """A DelayedCall, whose own cancel() raises when it is too late."""

    __slots__ = ("_delayed",)

    def __init__(self, delayed: Any) -> None:
        self._delayed = delayed

    def cancel(self) -> None:
        if self._delayed.active():
            self._delayed.cancel()


class _Promise:
    """The writing end of a Deferred, whose callbacks never run inside resolve() or reject()."""

    __slots__ = ("_call_soon", "_is_settled", "future")

    def __init__(self, call_soon: Callable[[Callback], Handle]) -> None:
        self.future: defer.Deferred[Any] = defer.Deferred(_cancel)
        self._call_soon = call_soon
        self._is_settled = False

    def resolve(self, value: object) -> bool:
        if self._is_settled or self.future.called:
            return False
        self._is_settled = True
        self._call_soon(lambda: _fire(self.future, value))
        return True

    def reject(self, exc: BaseException) -> None:
        self.resolve(_failure(exc))


def _cancel(deferred: defer.Deferred[Any]) -> None:
    _fire(deferred, _failure(defer.CancelledError()))


def _failure(exc: BaseException) -> Failure:
    return Failure(exc)  # type: ignore[no-untyped-call]


def _fire(deferred: defer.Deferred[Any], outcome: object) -> None:
    if deferred.called:  # cancelled by its user
        return
    # Twisted has no public way to ask whether anybody cares; without these names it logs more.
    state = vars(deferred)
    is_touched = bool(state.get("_callbacks") or state.get("callbacks"))
    deferred.callback(outcome)  # to a Failure it is errback()
    if not is_touched and (debug_info := state.get("_debugInfo")) is not None:
        # Dropped as it is, it would log "Unhandled error in Deferred".  Once its user adds a
        # callback, Twisted warns as ever.
        debug_info.failResult = None


class _Connection(protocol.Protocol):
    """To Twisted a protocol and its push producer, to the stream its Transport."""

    transport: Any
    write: Callable[[bytes], None]
    pause_reading: Callable[[], None]
    resume_reading: Callable[[], None]

    def __init__(self, adapter: TwistedAdapter, made: Callable[[_Connection], object]) -> None:
        self._adapter = adapter
        self._made: Callable[[_Connection], object] | None = made
        self._stream: Stream | None = None
        self._full = False  # what Twisted says
        self._told_full = False  # what the stream was told
        self._closing = False  # by close() or abort()
        self._aborted = False

    def serve(self, stream: Stream) -> None:
        """Give everything that comes to ``stream``."""
        self._stream = stream
        self.dataReceived = stream.data_received  # type: ignore[method-assign]
        self.transport.registerProducer(self, True)
        self.transport.connectionLost = self._read_rest
        stream.connection_made(self)

    # Called by Twisted.

    def connectionMade(self) -> None:
        self.write = self.transport.write
        self.pause_reading = self.transport.pauseProducing
        self.resume_reading = self.transport.resumeProducing
        made, self._made = self._made, None
        assert made is not None
        made(self)

    def pauseProducing(self) -> None:
        """Too much is unsent.  Twisted says so inside write(), at every write()."""
        if not self._full:
            self._full = True
            self._adapter.call_soon(self._tell_full)

    def resumeProducing(self) -> None:
        """Everything is sent."""
        self._full = False
        self._tell_full()

    def stopProducing(self) -> None:
        """The connection is lost, which connectionLost() tells."""

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            clean = self._aborted or isinstance(reason.value, error.ConnectionDone)
            stream.connection_lost(None if clean else _os_error(reason.value))

    def _tell_full(self) -> None:
        if self._full != self._told_full and self._stream is not None:
            self._told_full = self._full
            tell = self._stream.pause_writing if self._full else self._stream.resume_writing
            tell()

    def _read_rest(self, reason: Failure) -> None:
        # In the place of the transport's connectionLost(), which drops what is unread when a
        # write fails, and when the peer resets while reading is paused.  After our own close()
        # unread input would make the kernel send a reset, which may overtake what we sent.
        del self.transport.connectionLost
        wanted = isinstance(reason.value, error.ConnectionLost)
        reads = iter(range(LAST_READS))

        def receive(data: bytes) -> bool:
            if wanted and not self._closing and self._stream is not None:
                self._stream.data_received(data)
            return not self._aborted and next(reads, None) is not None

        if not self._aborted:
            read_rest(self.transport.getHandle(), receive)
        self.transport.connectionLost(reason)

    # Transport: called by the stream.

    def close(self) -> None:
        """Send what is kept, then close."""
        self._closing = True
        self.write = _ignore
        self.transport.unregisterProducer()  # else Twisted waits for us to finish producing
        self.transport.loseConnection()

    def abort(self) -> None:
        """Drop what is kept and reset the connection, so that nothing lingers."""
        self._closing = self._aborted = True
        self.write = _ignore
        self.transport.abortConnection()


def _ignore(data: bytes) -> None:
    """What write() is after close() or abort()."""


class _Connector:
    """How Twisted opens a connection; ``_dial.Race`` decides which, and when."""

    __slots__ = ("_adapter", "_endpoint")

    def __init__(self, adapter: TwistedAdapter, endpoint: Endpoint) -> None:
        self._adapter = adapter
        self._endpoint = endpoint

    def connect(
        self,
        address: Address,
        connected: Callable[[_Connection], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        """See ``_dial.Connector``."""
        connecting = _Connecting(_Connection(self._adapter, connected), failed)
        host, port, *scope = address.sockaddr
        if scope and scope[-1]:
            host = f"{host}%{scope[-1]}"
        connecting.connector = self._adapter.reactor.connectTCP(
            host, port, connecting, timeout=None
        )
        return connecting

    def discard(self, connection: _Connection) -> None:
        """See ``_dial.Connector``."""
        connection.abort()

    def adopt(self, connection: _Connection, stream: Stream) -> None:
        """See ``_dial.Connector``."""
        sock: socket.socket = connection.transport.getHandle()
        with suppress(OSError):  # the peer is gone already, which reading will tell
            set_options(sock)
            if self._endpoint.user_timeout is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
                milliseconds = max(1, round(self._endpoint.user_timeout * 1000))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        connection.serve(stream)


class _Connecting(protocol.ClientFactory[_Connection]):
    """The factory of one connection."""

    noisy = False
    connector: Any

    def __init__(self, connection: _Connection, failed: Callable[[BaseException], object]) -> None:
        self._connection: _Connection | None = connection
        self._failed: Callable[[BaseException], object] | None = failed

    def buildProtocol(self, addr: object) -> _Connection | None:
        # Twisted's transport, connector and factory are a reference cycle, and stay garbage until
        # collected: nothing of ours may hang on it.
        connection, self._connection, self._failed = self._connection, None, None
        return connection

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(_os_error(reason.value) or ConnectionError(str(reason)))

    def cancel(self) -> None:
        self._failed = None  # which Twisted would call inside disconnect()
        self.connector.disconnect()


def _os_error(exc: BaseException | None) -> BaseException | None:
    """What every other loop would say: an OSError.  Twisted's own exception is its cause."""
    if not isinstance(exc, (error.ConnectError, error.ConnectionClosed)):
        return exc
    number: object = getattr(exc, "osError", None)
    native: OSError = ConnectionError(str(exc))
    if isinstance(number, int):
        native = OSError(number, os.strerror(number))
    native.__cause__ = exc
    return native
