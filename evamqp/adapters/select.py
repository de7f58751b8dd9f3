"""The built-in event loop: ``selectors``, a heap of timers and a wake-up socket.

It knows readiness and time.  AMQP never belongs here; sockets are in _socket.py, and what
run_until() waits for is in _result.py.
"""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, TypeAlias, TypeVar

from evamqp.abc import Callback, Endpoint, Handle, Stream
from evamqp.adapters._dial import Dial
from evamqp.adapters._future import CoroutineRunner, Promise, Result, result_of, run_awaitable
from evamqp.adapters._socket import READ, WRITE, SocketConnector, SocketListener, open_listener
from evamqp.errors import WrongState

__all__ = ["Result", "SelectAdapter"]

T = TypeVar("T")
_Event: TypeAlias = tuple[selectors.SelectorKey, int]

#: Seconds of one sleep at most: epoll takes milliseconds in a C int, so it cannot sleep for ever.
LONGEST_SLEEP = 24 * 3600.0
#: Seconds of sleep for which the gap before epoll, in which a signal may arrive, is left open.
UNGUARDED_SLEEP = 0.1
#: Cancelled timers that may lie in the heap before it is worth rebuilding.
CANCELLED_TIMERS = 100


class _Call:
    """A callback that is due; its own handle."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class _Timer(_Call):
    """A callback that waits in the heap."""

    __slots__ = ("timers",)

    def __init__(self, callback: Callback, timers: _Timers) -> None:
        super().__init__(callback)
        self.timers: _Timers | None = timers  # None once it left the heap

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            if self.timers is not None:
                self.timers.count_cancelled()


class _Timers:
    """Timers by time.  A cancelled one stays in the heap, but never more than half of them do."""

    __slots__ = ("_cancelled", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()  # equal times fire in the order of their calls
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, callback: Callback) -> _Timer:
        timer = _Timer(callback, self)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def count_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > CANCELLED_TIMERS and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_time(self) -> float | None:
        """When the first live timer fires; None if there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def move_due(self, now: float, ready: deque[_Call]) -> None:
        """Move every timer whose time has come to ``ready``."""
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.callback is None:
                self._cancelled -= 1
            else:
                timer.timers = None
                ready.append(timer)


class Lock(Protocol):
    """A lock of the threading module."""

    def acquire(self) -> object: ...
    def release(self) -> None: ...


class _Selector(selectors.DefaultSelector):
    """The platform's best selector, which also counts the sockets that wait to be written to."""

    #: Whether a change made by another thread counts for a select() that is under way.
    sees_changes = issubclass(
        selectors.DefaultSelector,
        tuple(
            getattr(selectors, name)
            for name in ("EpollSelector", "KqueueSelector")
            if hasattr(selectors, name)
        ),
    )

    def __init__(self, changed: Callback) -> None:
        super().__init__()
        self.writers = 0
        self._changed = changed

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self._count(0, events)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        before = self.get_key(fileobj).events
        key = super().modify(fileobj, events, data)
        self._count(before, events)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._count(key.events, 0)
        return key

    def _count(self, before: int, events: int) -> None:
        self.writers += bool(events & WRITE) - bool(before & WRITE)
        self._changed()


class SelectAdapter:
    """An event loop that needs nothing but the standard library; see ``evamqp.abc.Adapter``.

    Everything but call_soon_threadsafe() and stop() belongs to the thread that runs the loop.
    An exception from a callback leaves run() at once; the loop stays whole, nothing else that was
    due is lost, and run() may be called again.  The same holds for a Ctrl-C, unless you handle
    SIGINT yourself: KeyboardInterrupt is raised between two callbacks, and a second Ctrl-C that
    comes before raises it at once, wherever the program is.
    """

    __slots__ = (
        "_is_interrupted",
        "_is_running",
        "_is_stopping",
        "_is_woken",
        "_ready",
        "_selector",
        "_sleeps_until",
        "_thread",
        "_timers",
        "_wake_reader",
        "_wake_writer",
    )

    def __init__(self) -> None:
        # Until when another thread sleeps in turn(); None while nobody does.
        self._sleeps_until: float | None = None
        self._selector = _Selector(self._interest_changed)
        self._ready: deque[_Call] = deque()
        self._timers = _Timers()
        self._is_running = False
        self._thread = 0  # in which run() or run_until() is under way
        self._is_stopping = False
        self._is_interrupted = False  # by a Ctrl-C that is to be raised between two callbacks
        # True while a byte is in the wake-up socket, as far as anybody knows.  Without it a
        # thread that calls often would fill the socket and pay for a system call each time.
        self._is_woken = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, READ, self._swallow_wake_ups)

    # The contract.

    #: Monotonic seconds.
    time = staticmethod(time.monotonic)

    def runs_elsewhere(self) -> bool:
        """Whether run() or run_until() is under way in another thread."""
        return self._thread not in (0, threading.get_ident())

    def call_soon(self, callback: Callback) -> Handle:
        """Call back on the next turn of the loop."""
        call = _Call(callback)
        self._ready.append(call)
        return call

    def call_later(self, delay: float, callback: Callback) -> Handle:
        """Call back after ``delay`` seconds."""
        when = self.time() + delay
        if self._sleeps_until is not None and when < self._sleeps_until:
            self._wake_up()
        return self._timers.add(when, callback)

    def call_soon_threadsafe(self, callback: Callback) -> None:
        """Call back on the loop, from any thread or signal handler.  Never blocks."""
        self._ready.append(_Call(callback))
        self._wake_up()

    def create_future(self) -> Promise:
        """A promise whose ``future`` is a Result."""
        return Promise(self.call_soon)

    def run_awaitable(
        self, awaitable: Any, done: Callable[[BaseException | None], object]
    ) -> Handle:
        """Run a coroutine, or wait for a Result or Request; then call ``done``."""
        return run_awaitable(awaitable, done, self.call_soon)

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        """Resolve, connect and shake hands in TLS; then call ``stream.connection_made``."""
        connector = SocketConnector(self._selector, self.call_soon, endpoint)
        return Dial(self, connector, endpoint, stream)

    def listen(self, host: str, port: int, factory: Callable[[], Stream]) -> SocketListener:
        """Accept connections and give each to a stream of its own.

        Args:
            host: Address to bind; a name is resolved on the spot, which may block.
            port: 0 picks a free one; see the handle's ``port``.
            factory: Makes the stream of one connection.

        Raises:
            OSError: The address cannot be bound; nothing is left open.
        """
        sock = open_listener(host, port)
        return SocketListener(self._selector, self.call_soon, self.call_later, sock, factory)

    def run(self) -> None:
        """Run the loop until stop().

        Raises:
            WrongState: The loop runs already.
        """
        with self._turning():
            while not self._is_stopping:
                self._turn()
            self._is_stopping = False

    def stop(self) -> None:
        """End run(), or the next one.  Idempotent; legal in a signal handler or another thread."""
        self._is_stopping = True
        self._wake_up()

    # Beyond the contract.

    def run_until(self, awaited: Awaitable[T], timeout: float | None = None) -> T:
        """Run the loop until ``awaited`` has ended, and return its value.

        Args:
            awaited: A request, a Result, or a coroutine that awaits those.
            timeout: Seconds; None waits for ever.  A coroutine is closed when they are over,
                a request is left as it is.

        Raises:
            TimeoutError: It took too long.
            WrongState: Called from inside a callback, or stop() came first.
            BadType: ``awaited`` is of another loop.
            Exception: Whatever ``awaited`` failed with.
        """
        with self._turning():
            if not isinstance(awaited, Coroutine):
                result: Result[T] = result_of(awaited)
                return self._turn_until(result, timeout)
            drive: CoroutineRunner[T] = CoroutineRunner(awaited, self.call_soon)
            try:
                return self._turn_until(drive.result, timeout)
            finally:
                drive.close()

    def run_nested(self) -> None:
        """Inside a callback: run a loop of its own until stop(), after which the outer one goes on.

        A connection whose callback calls this reads nothing until the callback has returned; all
        others are served.

        Raises:
            WrongState: The loop does not run.
        """
        if not self._is_running:
            raise WrongState("the loop does not run; run_nested() is for its callbacks")
        outer, self._is_stopping = self._is_stopping, False
        try:
            while not self._is_stopping:
                self._turn()
        finally:
            self._is_stopping = outer

    @property
    def is_sending(self) -> bool:
        """Whether a socket has output that the kernel has not taken yet."""
        return self._selector.writers > 0

    def run_ready(self) -> None:
        """Run what is due now, and look at no socket and no timer.

        Raises:
            WrongState: Called from inside a callback.
        """
        if self._is_running:
            raise WrongState("the loop runs already")
        if self._ready:
            try:
                self._is_running = True
                self._run_ready(self._ready)
            finally:
                self._is_running = False

    def turn(
        self,
        timeout: float | None = None,
        *,
        lock: Lock | None = None,
        on_wake: Callable[[], bool] | None = None,
    ) -> None:
        """Run one turn: sleep until something is due, then run it.

        Threads that share a loop drive it by this, each under the same lock.  While one sleeps
        here the others may call everything but run() and run_until().

        Args:
            timeout: Seconds of sleep at most; None sleeps until something is due.
            lock: Held by the caller, and free during the sleep; None where no other thread comes.
            on_wake: Called after the sleep, before anything else; False ends the turn there.

        Raises:
            WrongState: Called from inside a callback.
        """
        if self._is_running:
            raise WrongState("the loop runs already; turn() does not work inside a callback")
        self._is_woken = False
        delay = self._patience()
        if timeout is not None and (delay is None or timeout < delay):
            delay = max(timeout, 0.0)
        events = self._select(delay) if lock is None else self._sleep(delay, lock)
        if on_wake is not None and not on_wake():
            return
        try:
            self._is_running = True
            for key, ready in events:
                key.data(ready)
            self._timers.move_due(self.time(), self._ready)
            if self._ready:
                self._run_ready(self._ready)
        finally:
            self._is_running = False

    def close(self) -> None:
        """Release the selector and all sockets.  Idempotent; connections are not told.

        Raises:
            WrongState: The loop runs.
        """
        if self._is_running:
            raise WrongState("the loop runs; stop() it first")
        for key in list((self._selector.get_map() or {}).values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()
        self._wake_writer.close()

    # The loop.

    def _sleep(self, delay: float | None, lock: Lock) -> list[_Event]:
        before = self._sleeps_until
        self._sleeps_until = math.inf if delay is None else self.time() + delay
        try:
            # A signal handler that raises does so between two calls.  So no function of ours may
            # stand between these, else the lock could be left free.
            lock.release()
            return self._select(delay)
        finally:
            lock.acquire()
            self._sleeps_until = before

    def _select(self, delay: float | None) -> list[_Event]:
        """Sleep; for long only where a signal is sure to end it."""
        if delay is not None and delay <= UNGUARDED_SLEEP:
            return self._selector.select(delay)
        events = self._selector.select(UNGUARDED_SLEEP)
        if events:
            return events
        restore_signals = self._wake_on_signals()
        try:
            return self._selector.select(None if delay is None else delay - UNGUARDED_SLEEP)
        finally:
            restore_signals()

    def _interest_changed(self) -> None:
        if self._sleeps_until is not None and not self._selector.sees_changes:
            self._wake_up()

    @contextmanager
    def _turning(self) -> Iterator[None]:
        if self._is_running:
            raise WrongState("the loop runs already; run_until() does not work inside a callback")
        restore_signals = self._take_signals()
        try:
            self._is_running = True
            self._thread = threading.get_ident()
            yield
        finally:
            self._is_running = False
            self._thread = 0
            restore_signals()
            self._raise_interrupt()

    def _take_signals(self) -> Callable[[], object]:
        """See to signals until the function that this returns is called."""
        # Python raises KeyboardInterrupt between any two instructions, such as those that read
        # bytes and hand them on.
        is_ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if is_ours:
            signal.signal(signal.SIGINT, self._on_interrupt)
        sleep_again = self._wake_on_signals()

        def restore() -> None:
            sleep_again()
            if is_ours and signal.getsignal(signal.SIGINT) == self._on_interrupt:
                signal.signal(signal.SIGINT, signal.default_int_handler)

        return restore

    def _wake_on_signals(self) -> Callable[[], object]:
        # A signal that arrives just before epoll goes to sleep would be handled when it wakes.
        # The interpreter's own wake-up byte closes that gap.
        try:
            before = signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        except ValueError:  # signals belong to the main thread, and this is another
            return lambda: None
        return lambda: signal.set_wakeup_fd(before)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_interrupted:
            self._raise_interrupt()
        self._is_interrupted = True

    def _raise_interrupt(self) -> None:
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt

    def _turn_until(self, result: Result[T], timeout: float | None) -> T:
        deadline = None if timeout is None else self.time() + timeout
        waker = None if timeout is None else self.call_later(timeout, lambda: None)
        try:
            while not result.done():
                if self._is_stopping:
                    self._is_stopping = False
                    raise WrongState("stop() was called before the result was there")
                if deadline is not None and self.time() >= deadline:
                    raise TimeoutError(f"no result within {timeout:g} s")
                self._turn()
        finally:
            if waker is not None:
                waker.cancel()
        return result.result()

    def _turn(self) -> None:
        # Cleared here, before _ready is looked at: whoever appends later sees False, and wakes us.
        self._is_woken = False
        for key, events in self._selector.select(self._patience()):
            key.data(events)
            if self._is_interrupted:
                self._raise_interrupt()
        ready = self._ready
        self._timers.move_due(self.time(), ready)
        if ready:
            self._run_ready(ready)

    def _run_ready(self, ready: deque[_Call]) -> None:
        # Only what is due now: a callback that calls call_soon() must not starve the sockets.
        for _ in range(len(ready)):
            if not ready:  # a nested loop has run them
                return
            if self._is_interrupted:
                self._raise_interrupt()
            call = ready.popleft()
            callback, call.callback = call.callback, None
            if callback is not None:
                callback()

    def _patience(self) -> float | None:
        if self._ready or self._is_stopping:
            return 0
        when = self._timers.next_time()
        if when is None:
            return None
        delay = when - self.time()
        return 0.0 if delay <= 0.0 else min(delay, LONGEST_SLEEP)

    def _wake_up(self) -> None:
        if self._is_woken:
            return
        self._is_woken = True
        try:
            self._wake_writer.send(b"\0")
        except OSError:
            # Full: then the loop wakes anyway.  Closed: then there is no loop to wake.
            return

    def _swallow_wake_ups(self, _: int) -> None:
        try:
            self._wake_reader.recv(4096)
        except BlockingIOError:
            # Somebody else read it: a forked child shares the socket.
            return
