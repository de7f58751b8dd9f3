"""The built-in loop's selector, and what ends its sleep: a wake-up socket and signals.

Readiness only: what is done about it is the loop's business.
"""

from __future__ import annotations

import math
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol, TypeAlias

from evamqp.adapters._socket import READ, WRITE

Event: TypeAlias = tuple[selectors.SelectorKey, int]

# As in select.epoll; other platforms have neither.
_EPOLLIN, _EPOLLOUT = 1, 4
#: Seconds of sleep up to which a signal that arrives just before epoll may wait until it ends.
UNGUARDED_SLEEP = 0.1


class Lock(Protocol):
    """A lock of the threading module."""

    def acquire(self) -> object: ...
    def release(self) -> None: ...


class LoopSelector(selectors.DefaultSelector):
    """The platform's best selector; several threads may sleep in it by turns.

    Attributes:
        wake_up: Ends the sleep.
        writers: Sockets that wait to become writable.
        sleeps_until: When the sleep of another thread ends; None while none sleeps.
    """

    #: Whether a select() in progress sees a change that another thread makes.
    sees_changes = issubclass(
        selectors.DefaultSelector,
        tuple(
            getattr(selectors, name)
            for name in ("EpollSelector", "KqueueSelector")
            if hasattr(selectors, name)
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.wake_up = WakeUp()
        self.writers = 0
        self.sleeps_until: float | None = None
        self._keys: dict[int, selectors.SelectorKey] = {}
        # Whose select() turns one event into two calls and three lists.
        is_epoll = isinstance(self, getattr(selectors, "EpollSelector", ()))
        self._poll: Callable[[float, int], list[tuple[int, int]]] | None = (
            self._selector.poll if is_epoll else None  # type: ignore[attr-defined]
        )
        self.register(self.wake_up.reader, READ, self.wake_up.swallow)

    def select(self, timeout: float | None = None) -> list[Event]:
        """As DefaultSelector's."""
        if self._poll is None:
            return super().select(timeout)
        keys = self._keys
        ready: list[Event] = []
        for fd, event in self._poll(-1 if timeout is None else max(timeout, 0), len(keys)):
            key = keys.get(fd)
            if key is not None:
                # Errors and hang-ups are for whoever waits for anything.
                events = (READ if event & ~_EPOLLOUT else 0) | (WRITE if event & ~_EPOLLIN else 0)
                ready.append((key, events & key.events))
        return ready

    def sleep(self, delay: float | None, lock: Lock | None = None) -> list[Event]:
        """Sleep until a socket is ready; if for long, make sure that a signal ends the sleep.

        Args:
            delay: Seconds at most; None sleeps until a socket is ready.
            lock: Held by the caller, released during the sleep; None if there is none.
        """
        before = self.sleeps_until
        if lock is not None:
            self.sleeps_until = math.inf if delay is None else time.monotonic() + delay
        try:
            # A signal handler that raises does so between two calls.  Call no function of ours
            # between these, or the lock might stay released; and none before the first of them,
            # or it would be taken twice.
            if lock is not None:
                lock.release()
            if delay is not None and delay <= UNGUARDED_SLEEP:
                return self.select(delay)
            return self.select(UNGUARDED_SLEEP) or self._sleep_on(delay)
        finally:
            if lock is not None:
                lock.acquire()
                self.sleeps_until = before

    def _sleep_on(self, delay: float | None) -> list[Event]:
        restore_signals = self.wake_up.on_signals()
        try:
            return self.select(None if delay is None else delay - UNGUARDED_SLEEP)
        finally:
            restore_signals()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self._keys[key.fd] = key
        self._count(0, events)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        before = self.get_key(fileobj).events
        key = super().modify(fileobj, events, data)
        self._keys[key.fd] = key
        self._count(before, events)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        del self._keys[key.fd]
        self._count(key.events, 0)
        return key

    def _count(self, before: int, events: int) -> None:
        self.writers += bool(events & WRITE) - bool(before & WRITE)
        if self.sleeps_until is not None and not self.sees_changes:
            self.wake_up.send()


class WakeUp:
    """A socket pair that ends a sleep, from any thread or signal handler.

    Attributes:
        is_pending: A byte is in the socket, as far as we know.  Clear it before you look at what
            other threads append: a later append then sees False, and sends a byte.
        reader: The end to watch.
    """

    __slots__ = ("_writer", "is_pending", "reader")

    def __init__(self) -> None:
        self.is_pending = False
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def send(self) -> None:
        """End the sleep.  Never blocks."""
        # Without the flag a thread that calls often would fill the socket, with a system call each.
        if self.is_pending:
            return
        self.is_pending = True
        try:
            self._writer.send(b"\0")
        except OSError:
            # Full: the loop wakes anyway.  Closed: there is no loop to wake.
            return

    def swallow(self, _: int) -> None:
        """Read the bytes: the callback of ``reader``."""
        try:
            self.reader.recv(4096)
        except BlockingIOError:
            # Another process read it: a forked child shares the socket.
            return

    def on_signals(self) -> Callable[[], object]:
        """Let signals send a byte too, until you call the function that this returns."""
        # A signal that arrives just before epoll goes to sleep would otherwise be handled only
        # when epoll wakes.
        try:
            before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        except ValueError:  # signals belong to the main thread, and this is another
            return lambda: None
        return lambda: signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close the sending end; the loop closes the one that it watches."""
        self._writer.close()


class Interrupt:
    """Defers Ctrl-C to a place between two callbacks.

    Python raises KeyboardInterrupt between any two instructions, such as those that read bytes
    and those that pass them on.

    Attributes:
        is_pending: Whether to call ``raise_pending`` at the next such place.
    """

    __slots__ = ("is_pending",)

    def __init__(self) -> None:
        self.is_pending = False

    def defer(self) -> Callable[[], object]:
        """Take SIGINT, unless you handle it yourself, until you call what this returns."""
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            return lambda: None
        signal.signal(signal.SIGINT, self._on_signal)
        return self._restore

    def raise_pending(self) -> None:
        """Raise the KeyboardInterrupt that was deferred, if any."""
        if self.is_pending:
            self.is_pending = False
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.raise_pending()  # the second one does not wait
        self.is_pending = True

    def _restore(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, signal.default_int_handler)
