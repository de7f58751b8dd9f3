"""pika's own loop, which is evamqp's SelectAdapter behind pika's names, and connections on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import local
from typing import Any

import evamqp
from evamqp.adapters.select import SelectAdapter

from ..connection import Parameters
from .base_connection import BaseConnection

LOGGER = logging.getLogger(__name__)

SELECT_TYPE: str | None = None


class PollEvents:
    """What a handler waits for."""

    READ = 0x0001
    WRITE = 0x0004
    ERROR = 0x0008
    HANGUP = 0x0010


class _Running(local):
    """The loops that run in this thread, the innermost last."""

    def __init__(self) -> None:
        self.loops: list[IOLoop] = []


_running = _Running()


class IOLoop:
    """A loop.  start() may be called again after it has ended, and inside a callback as well."""

    READ = PollEvents.READ
    WRITE = PollEvents.WRITE
    ERROR = PollEvents.ERROR

    def __init__(self) -> None:
        self._adapter = SelectAdapter()
        self._users: set[int] = set()
        self._handlers: dict[int, Callable[[int, int], object]] = {}

    def __del__(self) -> None:
        # Programs make one for each connection, and close none.
        adapter = getattr(self, "_adapter", None)
        if adapter is not None:
            with suppress(evamqp.WrongState):
                adapter.close()

    def start(self) -> None:
        """Run until stop()."""
        run = self._adapter.run_nested if self in _running.loops else self._adapter.run
        _running.loops.append(self)
        try:
            run()
        finally:
            _running.loops.pop()

    def stop(self) -> None:
        """End start(), or the next one.  Legal in a signal handler."""
        self._adapter.stop()

    def close(self) -> None:
        """Release what the loop holds."""
        self._adapter.close()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        """Call back after so many seconds; returns what remove_timeout() takes."""
        if delay < 0:
            raise ValueError(f"call_later: delay must be non-negative, but got {delay!r}")
        _require_callback(callback)
        return self._adapter.call_later(delay, callback)

    def add_timeout(self, deadline: float, callback_method: Callable[[], object]) -> Any:
        """0.x: the same."""
        return self.call_later(max(0.0, deadline), callback_method)

    def remove_timeout(self, timeout_handle: Any) -> None:
        """Undo call_later(); idempotent."""
        timeout_handle.cancel()

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Call back on the next turn."""
        _require_callback(callback)
        self._adapter.call_soon(callback)

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        """The same, from any thread."""
        _require_callback(callback)
        self._adapter.call_soon_threadsafe(callback)

    def add_handler(self, fd: Any, handler: Callable[[int, int], object], events: int) -> None:
        """Call ``handler(fd, event)`` while a descriptor is ready; ``events`` are READ and WRITE.

        Where both are ready it is called for each.

        Raises:
            ValueError: The descriptor is watched already, or cannot be.
        """
        fd = _number(fd)
        if fd in self._handlers:
            raise ValueError(f"descriptor {fd} has a handler already")
        _require_callback(handler)
        self._handlers[fd] = handler
        try:
            self.update_handler(fd, events)
        except evamqp.BadArgument as error:
            del self._handlers[fd]
            raise ValueError(str(error)) from error

    def update_handler(self, fd: Any, events: int) -> None:
        """Wait for other events from now on.

        Raises:
            KeyError: The descriptor has no handler.
        """
        fd = _number(fd)
        handler, adapter = self._handlers[fd], self._adapter
        if events & self.READ:
            adapter.add_reader(fd, partial(handler, fd, self.READ))
        else:
            adapter.remove_reader(fd)
        if events & self.WRITE:
            adapter.add_writer(fd, partial(handler, fd, self.WRITE))
        else:
            adapter.remove_writer(fd)

    def remove_handler(self, fd: Any) -> None:
        """Watch a descriptor no more.

        Raises:
            KeyError: The descriptor has no handler.
        """
        fd = _number(fd)
        del self._handlers[fd]
        self._adapter.remove_reader(fd)
        self._adapter.remove_writer(fd)

    def poll(self) -> None:
        """One turn: wait until something is ready, then handle it."""
        self._adapter.turn()

    def process_timeouts(self) -> None:
        """Nothing: start() does it."""

    def activate_poller(self) -> None:
        """Nothing: start() does it."""

    def deactivate_poller(self) -> None:
        """Nothing: start() does it."""


def _number(fd: Any) -> int:
    """A descriptor, given as such or as what has one."""
    return fd if isinstance(fd, int) else int(fd.fileno())


def _require_callback(callback: Any) -> None:
    if not callable(callback):
        raise TypeError(f"callback must be a callable, but got {callback!r}")


class SelectConnection(BaseConnection):
    """A connection on pika's own loop.

    Made inside a callback of such a loop it lives on that one, so that it is served whether its
    ``ioloop`` is started or not.

    Args:
        parameters: The broker; None means a local one.
        on_open_callback: ``(connection)``.
        on_open_error_callback: ``(connection, exception)``.
        on_close_callback: ``(connection, exception)``, or as 0.x had it.
        custom_ioloop: An IOLoop; None means the running or a new one.
        internal_connection_workflow: Connect at once.
        stop_ioloop_on_close: 0.x: stop the loop when the connection has ended.  Not said, it is
            True for a program of that era.
    """

    def __init__(
        self,
        parameters: Parameters | None = None,
        on_open_callback: Callable[[Any], object] | None = None,
        on_open_error_callback: Callable[[Any, BaseException], object] | None = None,
        on_close_callback: Callable[..., object] | None = None,
        custom_ioloop: Any = None,
        internal_connection_workflow: Any = True,
        stop_ioloop_on_close: bool | None = None,
    ) -> None:
        is_old = stop_ioloop_on_close is not None
        if isinstance(custom_ioloop, bool):  # 0.x's fifth argument
            stop_ioloop_on_close, custom_ioloop, is_old = custom_ioloop, None, True
            if isinstance(internal_connection_workflow, IOLoop):  # and its sixth
                custom_ioloop, internal_connection_workflow = internal_connection_workflow, True
        if custom_ioloop is None:
            custom_ioloop = _running.loops[-1] if _running.loops else IOLoop()
        self._ioloop: IOLoop = custom_ioloop
        self._stop_on_close = stop_ioloop_on_close
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            custom_ioloop._adapter,
            internal_connection_workflow,
        )
        if is_old:
            self._era.saw_old()
        if internal_connection_workflow:
            self._ioloop._users.add(id(self))

    @property
    def ioloop(self) -> IOLoop:
        """The loop."""
        return self._ioloop

    def _after_end(self) -> None:
        self._ioloop._users.discard(id(self))
        wanted = self._era.is_old if self._stop_on_close is None else self._stop_on_close
        # A connection that its close callback has made goes on with the loop.
        if wanted and not self._ioloop._users:
            self._ioloop.stop()
