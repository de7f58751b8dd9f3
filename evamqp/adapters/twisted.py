"""Twisted: any reactor that watches file descriptors, its timers and its Deferreds.

The sockets are _socket.py's: Twisted's own transport copies what it sends, 128 KiB a turn, and
drops unread input when a write fails.  TLS is _tls.py's, so no pyOpenSSL is needed.  AMQP never
belongs here.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import get_ident
from typing import Any, TypeVar, cast

from twisted.internet import defer, error
from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python import threadable
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]

from evamqp.abc import Handle, LoopCallback
from evamqp.adapters._network import SelectorNetwork
from evamqp.adapters._selector import LOST, READ, WRITE
from evamqp.adapters._timers import Call
from evamqp.errors import RequestCancelled, WrongState

T = TypeVar("T")

_log = Logger()


class TwistedAdapter(SelectorNetwork):
    """Runs on a Twisted reactor; see ``evamqp.abc.Adapter``.

    Twisted logs a callback that raises, SystemExit and KeyboardInterrupt included.  A reactor that
    stops closes every connection by itself: close yours first, then call stop().

    Args:
        reactor: The reactor; None means the installed one.
    """

    def __init__(self, reactor: object | None = None) -> None:
        self.reactor: Any = cast(Any, reactor or _installed())
        self._selector = _ReactorSelector(self.reactor)
        self._soon: deque[Call] = deque()
        # Most reactors use wall-clock time, which must not decide whether a peer is dead.
        wall_clock = self.reactor.seconds is time.time
        self.time: Callable[[], float] = time.monotonic if wall_clock else self.reactor.seconds

    def runs_elsewhere(self) -> bool:
        """Whether the reactor runs now, in another thread; known of the installed one only."""
        is_installed = sys.modules.get("twisted.internet.reactor") is self.reactor
        io_thread = threadable.ioThread
        return is_installed and self.reactor.running and io_thread not in (None, get_ident())

    def call_soon(self, callback: LoopCallback) -> Handle:
        """Call back on the next turn of the reactor, in order; equal callLater()s have none."""
        if not self._soon:
            self.reactor.callLater(0, self._run_soon)
        call = Call(callback)
        self._soon.append(call)
        return call

    def call_later(self, delay: float, callback: LoopCallback) -> Handle:
        """Call back after ``delay`` seconds."""
        return _Timer(self.reactor.callLater(max(0.0, delay), callback))

    def call_soon_threadsafe(self, callback: LoopCallback) -> None:
        """Call back on the reactor, from any thread or signal handler."""
        self.reactor.callFromThread(callback)

    def create_future(self) -> _Promise:
        """A promise whose ``future`` is a Deferred that fires on the turn after it is settled."""
        return _Promise(self.call_soon)

    def run_awaitable(
        self, awaitable: Any, done: Callable[[BaseException | None], object]
    ) -> Handle:
        """Run a coroutine by ensureDeferred, or wait for a Deferred; then call ``done``."""
        deferred = defer.ensureDeferred(awaitable)

        def ended(error: BaseException | None) -> None:
            if isinstance(error, defer.CancelledError):
                error = RequestCancelled("the Deferred was cancelled")
            # A Deferred that has fired or is cancelled calls back at once.
            self.call_soon(lambda: done(error))

        deferred.addCallbacks(lambda _: ended(None), lambda failure: ended(failure.value))
        return cast(Handle, deferred)

    def run(self) -> None:
        """Run the reactor until stop(); a reactor can be run once only.

        SIGTERM stops it too, and Ctrl-C, which then raises KeyboardInterrupt as on other loops,
        unless you installed handlers of your own before.
        """
        self._run(self.stop)

    def _run(self, on_interrupt: Callable[[], object]) -> None:
        """Run the reactor; call ``on_interrupt`` at the first Ctrl-C, stop at the second."""
        main = threading.current_thread() is threading.main_thread()
        interrupts: list[int] = []

        def interrupted(number: int, frame: object) -> None:
            interrupts.append(number)
            self.reactor.callFromThread(self.stop if len(interrupts) > 1 else on_interrupt)

        for number in (signal.SIGINT, signal.SIGTERM) if main else ():
            handler = signal.getsignal(number)
            if handler is signal.default_int_handler:
                handler = interrupted
            if handler != signal.SIG_DFL:
                self.reactor.callWhenRunning(signal.signal, number, handler)
        self.reactor.run(installSignalHandlers=main)
        if interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt

    def run_until(self, awaited: Awaitable[T], timeout: float | None = None) -> T:
        """Run the reactor until ``awaited`` has ended, and return its value.  Once only, as run().

        Args:
            awaited: A request, a Deferred or a coroutine.  A coroutine that a timeout or Ctrl-C
                cuts short is cancelled; after Ctrl-C it runs to its end.
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: It took too long.
            WrongState: The reactor was stopped first: by stop() or a signal.
            Exception: Whatever ``awaited`` failed with.
        """
        ends: list[object] = []
        expired: list[bool] = []
        running: list[defer.Deferred[object]] = []  # a coroutine

        def ended(value: object) -> None:
            ends.append(value)
            self.stop()

        def begin() -> None:
            is_request = hasattr(awaited, "future")
            given: Any = awaited
            deferred = given.future if is_request else defer.ensureDeferred(given)
            if not is_request:
                running.append(deferred)
            deferred.addBoth(ended)
            if timeout is not None:
                self.reactor.callLater(timeout, expire)

        def expire() -> None:
            expired.append(True)
            self.stop()
            for deferred in running:
                deferred.cancel()

        def interrupt() -> None:
            if not running:
                self.stop()
            for deferred in running:
                deferred.cancel()

        self.reactor.callWhenRunning(begin)
        self._run(interrupt)
        if expired:
            raise TimeoutError(f"no result within {timeout:g} s")
        if not ends:
            raise WrongState("the reactor was stopped before the result was there")
        (end,) = ends
        if isinstance(end, Failure):
            end.raiseException()
        return cast(T, end)

    def stop(self) -> None:
        """End run(), or the next one.  Idempotent; legal in a signal handler or another thread."""
        self.reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        with suppress(error.ReactorNotRunning):  # it is stopping already
            self.reactor.stop()

    def close(self) -> None:
        """Do nothing: the reactor belongs to the process."""

    def _run_soon(self) -> None:
        calls, self._soon = self._soon, deque()
        try:
            while calls:
                calls.popleft().run()
        finally:
            if calls:  # one raised, which Twisted logs; run the others next
                self._soon.extendleft(reversed(calls))
                self.reactor.callLater(0, self._run_soon)


def _installed() -> object:
    from twisted.internet import reactor  # the import installs one if none is installed

    return reactor


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

    def __init__(self, call_soon: Callable[[LoopCallback], Handle]) -> None:
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
    # Twisted has no public way to ask whether a callback was added; without these names it logs
    # more.
    state = vars(deferred)
    is_touched = bool(state.get("_callbacks") or state.get("callbacks"))
    deferred.callback(outcome)  # to a Failure it is errback()
    if not is_touched and (debug_info := state.get("_debugInfo")) is not None:
        # Dropped like this, it would log "Unhandled error in Deferred".  Once its user adds a
        # callback, Twisted logs as usual.
        debug_info.failResult = None


class _ReactorSelector:
    """The methods of a selector that sockets need, on a reactor that watches file descriptors."""

    __slots__ = ("_reactor", "_watched")

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._watched: dict[socket.socket, _Watched] = {}

    def register(self, sock: socket.socket, events: int, callback: Callable[[int], object]) -> None:
        if not IReactorFDSet.providedBy(self._reactor):  # Windows' IOCP reactor does not
            raise OSError(f"{type(self._reactor).__name__} watches no file descriptors")
        self._watched[sock] = _Watched(self._reactor, sock.fileno(), callback)
        self._watched[sock].watch(events)

    def modify(self, sock: socket.socket, events: int, callback: Callable[[int], object]) -> None:
        self._watched[sock].watch(events)

    def unregister(self, sock: socket.socket) -> None:
        self._watched.pop(sock).watch(0)


@implementer(IReadWriteDescriptor)
class _Watched:
    """One socket as a reactor knows it."""

    __slots__ = ("_callback", "_events", "_fd", "_reactor")

    def __init__(self, reactor: Any, fd: int, callback: Callable[[int], object]) -> None:
        self._reactor = reactor
        self._fd = fd
        self._callback = callback
        self._events = 0

    def watch(self, events: int) -> None:
        """Watch for these events from now on."""
        changed, self._events = events ^ self._events, events
        if changed & READ:
            (self._reactor.addReader if events & READ else self._reactor.removeReader)(self)
        if changed & WRITE:
            (self._reactor.addWriter if events & WRITE else self._reactor.removeWriter)(self)

    # Called by the reactor.

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "evamqp"

    def doRead(self) -> None:
        self._call(READ)

    def doWrite(self) -> None:
        self._call(WRITE)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops, or saw the peer hang up and stopped watching; ask the socket why."""
        events, self._events = self._events, 0
        if events:
            self._call(events | LOST)

    def _call(self, events: int) -> None:
        # An exception that left here would end the connection, though it is usually a
        # KeyboardInterrupt, which Twisted otherwise only logs.
        try:
            self._callback(events)
        except BaseException:
            _log.failure("evamqp: a callback raised")
