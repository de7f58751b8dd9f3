"""The built-in loop's selector, and Ctrl-C between two callbacks.

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

from evamqp.adapters._wake_up import WakeUp

Event: TypeAlias = tuple[selectors.SelectorKey, int]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: The loop no longer watches the socket, whatever the other events say.
LOST = 4
# As in select.epoll; other platforms have neither.
_EPOLLIN, _EPOLLOUT = 1, 4
# Whether a select() in progress sees a change that another thread makes.
_SEES_CHANGES = issubclass(
    selectors.DefaultSelector,
    tuple(
        getattr(selectors, name)
        for name in ("EpollSelector", "KqueueSelector")
        if hasattr(selectors, name)
    ),
)
#: Seconds of sleep up to which a signal that arrives just before epoll may wait until it ends.
UNGUARDED_SLEEP = 0.1


class Lock(Protocol):
    """A lock of the threading module."""

    def acquire(self) -> object: ...
    def release(self) -> None: ...


class Selector(Protocol):
    """What calls back when a socket is ready; the methods are those of the standard library's."""

    def register(
        self, sock: socket.socket, events: int, callback: Callable[[int], object], /
    ) -> object: ...
    def modify(
        self, sock: socket.socket, events: int, callback: Callable[[int], object], /
    ) -> object: ...
    def unregister(self, sock: socket.socket, /) -> object: ...


class LoopSelector:
    """The platform's best selector; several threads may sleep in it by turns.

    Attributes:
        wake_up: Ends the sleep.
        writers: Sockets that wait to become writable.
        sleeps_until: When the sleep of another thread ends; None while none sleeps.
    """

    __slots__ = ("_keys", "_poll", "_selector", "sleeps_until", "wake_up", "writers")

    def __init__(self) -> None:
        selector = selectors.DefaultSelector()
        self.wake_up: WakeUp = WakeUp()
        self.writers: int = 0
        self.sleeps_until: float | None = None
        self._selector = selector
        self._keys: dict[int, selectors.SelectorKey] = {}
        # Whose select() turns one event into two calls and three lists.
        is_epoll = isinstance(selector, getattr(selectors, "EpollSelector", ()))
        self._poll: Callable[[float, int], list[tuple[int, int]]] | None = (
            selector._selector.poll if is_epoll else None  # type: ignore[attr-defined]
        )
        self.register(self.wake_up.reader, READ, self.wake_up.swallow)

    def select(self, timeout: float | None = None) -> list[Event]:
        """As DefaultSelector's."""
        if self._poll is None:
            return self._selector.select(timeout)
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
        """As DefaultSelector's."""
        key = self._selector.register(fileobj, events, data)
        self._keys[key.fd] = key
        self._count(0, events)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As DefaultSelector's."""
        before = self.get_key(fileobj).events
        key = self._selector.modify(fileobj, events, data)
        self._keys[key.fd] = key
        self._count(before, events)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As DefaultSelector's."""
        key = self._selector.unregister(fileobj)
        del self._keys[key.fd]
        self._count(key.events, 0)
        return key

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """As DefaultSelector's."""
        return self._selector.get_key(fileobj)

    def fileno(self) -> int | None:
        """The selector's own descriptor; None where it has none."""
        fileno: Callable[[], int] | None = getattr(self._selector, "fileno", None)
        return None if fileno is None else fileno()

    def close(self) -> None:
        """Close the selector, and all sockets that it watches.  Idempotent."""
        for key in self._keys.values():
            if isinstance(key.fileobj, socket.socket):  # a descriptor is the program's own
                key.fileobj.close()
        self._keys.clear()
        self._selector.close()
        self.wake_up.close()

    def _count(self, before: int, events: int) -> None:
        self.writers += bool(events & WRITE) - bool(before & WRITE)
        if self.sleeps_until is not None and not _SEES_CHANGES:
            self.wake_up.send()


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
