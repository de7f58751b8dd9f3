"""The built-in event loop: ``selectors``, timers and a wake-up socket.

It knows readiness and time.  AMQP never belongs here; sockets are in _socket.py, signals and
the sleep in _selector.py, and futures in _future.py.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, TypeVar

from evamqp.abc import Handle, LoopCallback
from evamqp.adapters._future import Promise, Result, run_awaitable, started
from evamqp.adapters._network import SelectorNetwork
from evamqp.adapters._selector import Interrupt, Lock, LoopSelector
from evamqp.adapters._timers import Call, Timers
from evamqp.adapters._watches import FileWatcher
from evamqp.errors import WrongState

__all__ = ["Result", "SelectAdapter"]

T = TypeVar("T")

#: Seconds of one sleep at most: epoll takes milliseconds in a C int, so it cannot sleep for ever.
LONGEST_SLEEP = 24 * 3600.0


class SelectAdapter(SelectorNetwork, FileWatcher):
    """An event loop that needs nothing but the standard library; see ``evamqp.abc.Adapter``.

    Call everything but call_soon_threadsafe() and stop() from the thread that runs the loop.
    An exception from a callback leaves run() at once; the loop stays intact, nothing else that was
    due is lost, and you may call run() again.  So does a Ctrl-C, unless you handle SIGINT
    yourself: KeyboardInterrupt is raised between two callbacks, and a second Ctrl-C raises it at
    once, wherever the program is.
    """

    __slots__ = (
        "_interrupt",
        "_is_running",
        "_is_stopping",
        "_ready",
        "_selector",
        "_thread",
        "_timers",
        "_when_closed",
    )

    def __init__(self) -> None:
        self._selector = LoopSelector()
        self._ready: deque[Call] = deque()
        self._timers = Timers()
        self._is_running = False
        self._thread = 0  # the one in run() or run_until()
        self._is_stopping = False
        self._interrupt = Interrupt()
        self._when_closed: set[Callable[[SelectAdapter], object]] = set()

    # The contract.

    #: Monotonic seconds.
    time: staticmethod[[], float] = staticmethod(monotonic)

    def runs_elsewhere(self) -> bool:
        """Whether another thread is in run() or run_until()."""
        return self._thread not in (0, threading.get_ident())

    def when_closed(self, callback: Callable[[SelectAdapter], object]) -> None:
        """Call back with this adapter when it is closed."""
        self._when_closed.add(callback)

    def call_soon(self, callback: LoopCallback) -> Handle:
        """Call back on the next turn of the loop."""
        call = Call(callback)
        self._ready.append(call)
        return call

    def call_later(self, delay: float, callback: LoopCallback) -> Handle:
        """Call back after ``delay`` seconds."""
        when = self.time() + delay
        sleeps_until = self._selector.sleeps_until
        if sleeps_until is not None and when < sleeps_until:
            self._selector.wake_up.send()
        return self._timers.add(when, callback)

    def call_soon_threadsafe(self, callback: LoopCallback) -> None:
        """Call back on the loop, from any thread or signal handler.  Never blocks."""
        self._ready.append(Call(callback))
        self._selector.wake_up.send()

    def create_future(self) -> Promise[Result[Any]]:
        """A promise whose ``future`` is a Result."""
        return Promise(Result(self.call_soon))

    def run_awaitable(
        self, awaitable: Any, done: Callable[[BaseException | None], object]
    ) -> Handle:
        """Run a coroutine, or wait for a Result or Request; then call ``done``."""
        return run_awaitable(awaitable, done, self.call_soon)

    def run(self) -> None:
        """Run the loop until stop().

        Raises:
            WrongState: The loop runs already.
        """
        with self._turning():
            try:
                while not self._is_stopping:
                    self._turn()
            finally:
                self._is_stopping = False

    def stop(self) -> None:
        """End run(), or the next one.  Idempotent; legal in a signal handler or another thread."""
        self._is_stopping = True
        self._selector.wake_up.send()

    # Beyond the contract.

    def run_until(self, awaited: Awaitable[T], timeout: float | None = None) -> T:
        """Run the loop until ``awaited`` has ended, and return its value.

        Args:
            awaited: A request, a Result, or a coroutine that awaits those.
            timeout: Seconds; None waits for ever.  On timeout a coroutine is closed, a request is
                left as it is.  On Ctrl-C a coroutine gets KeyboardInterrupt where it waits, and
                runs to its end.

        Raises:
            TimeoutError: It took too long.
            WrongState: Called from inside a callback, or stop() came first.
            BadType: ``awaited`` belongs to another loop.
            Exception: Whatever ``awaited`` failed with.
        """
        with self._turning(), started(awaited, self.call_soon, self._turn_until) as result:
            return self._turn_until(result, timeout)

    def run_nested(self) -> None:
        """Run a nested loop inside a callback, until stop(); then the outer loop goes on.

        The connection whose callback calls this reads nothing until the callback returns; all
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
        """Run what call_soon() has queued; look at no socket and no timer.

        Raises:
            WrongState: Called from inside a callback.
        """
        if self._is_running:
            raise WrongState("the loop runs already")
        if self._ready:
            try:
                self._is_running = True
                self._run_ready()
            finally:
                self._is_running = False

    def fileno(self) -> int:
        """The descriptor for another loop to watch: readable while a socket wants a turn.

        Timers do not count; see time_until_due().

        Raises:
            WrongState: This platform's selector has no descriptor (it has on Linux and BSD).
        """
        fileno = self._selector.fileno()
        if fileno is None:
            raise WrongState("the selector of this platform has no descriptor to watch")
        return fileno

    def time_until_due(self) -> float | None:
        """Seconds until a turn has something to do beside sockets; 0 if now, None if never."""
        return self._longest_sleep()

    def turn(
        self,
        timeout: float | None = None,
        lock: Lock | None = None,
        on_wake: Callable[[], bool] | None = None,
    ) -> None:
        """Run one turn: sleep until something is due, then run it.

        For threads that share a loop: each calls this under the same lock.  While one sleeps here,
        the others may call everything but run() and run_until().

        Args:
            timeout: Seconds of sleep at most; None sleeps until something is due.
            lock: Held by the caller, released during the sleep; None if the loop is not shared.
            on_wake: Called after the sleep, before anything else; False ends the turn there.

        Raises:
            WrongState: Called from inside a callback.
        """
        if self._is_running:
            raise WrongState("the loop runs already; turn() does not work inside a callback")
        self._selector.wake_up.is_pending = False
        delay = self._longest_sleep()
        if timeout is not None and (delay is None or timeout < delay):
            delay = max(timeout, 0.0)
        events = self._selector.sleep(delay, lock)
        if on_wake is not None and not on_wake():
            return
        try:
            self._is_running = True
            for key, ready in events:
                key.data(ready)
            now = self.time()
            if self._timers.due <= now:
                self._timers.move_due(now, self._ready)
            if self._ready:
                self._run_ready()
        finally:
            self._is_running = False

    def close(self) -> None:
        """Release the selector and all sockets.  Idempotent; no connection_lost is called.

        Raises:
            WrongState: The loop runs.
        """
        if self._is_running:
            raise WrongState("the loop runs; stop() it first")
        while self._when_closed:
            self._when_closed.pop()(self)
        self._selector.close()

    # The loop.

    @contextmanager
    def _turning(self) -> Iterator[None]:
        if self._is_running:
            raise WrongState("the loop runs already; run_until() does not work inside a callback")
        restore_interrupt = self._interrupt.defer()
        restore_signals = self._selector.wake_up.on_signals()
        try:
            self._is_running = True
            self._thread = threading.get_ident()
            yield
        finally:
            self._is_running = False
            self._thread = 0
            restore_signals()
            restore_interrupt()
            self._interrupt.raise_pending()

    def _turn_until(self, result: Result[T], timeout: float | None = None) -> T:
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
        self._selector.wake_up.is_pending = False
        interrupt = self._interrupt
        for key, events in self._selector.select(self._longest_sleep()):
            key.data(events)
            if interrupt.is_pending:
                interrupt.raise_pending()
        now = self.time()
        if self._timers.due <= now:
            self._timers.move_due(now, self._ready)
        if self._ready:
            self._run_ready()

    def _run_ready(self) -> None:
        # Only what is due now: a callback that calls call_soon() must not starve the sockets.
        ready, interrupt = self._ready, self._interrupt
        for _ in range(len(ready)):
            if not ready:  # a nested loop has run them
                return
            if interrupt.is_pending:
                interrupt.raise_pending()
            call = ready.popleft()
            callback, call.callback = call.callback, None
            if callback is not None:
                callback()

    def _longest_sleep(self) -> float | None:
        if self._ready or self._is_stopping:
            return 0
        due = self._timers.due
        if due == inf:
            return None
        delay = due - self.time()
        return 0.0 if delay <= 0.0 else min(delay, LONGEST_SLEEP)
