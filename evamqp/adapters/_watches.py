"""File descriptors of the program's own on the built-in loop, in asyncio's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from evamqp.adapters._selector import READ, WRITE, LoopSelector
from evamqp.errors import BadArgument, BadType


class Watch:
    """What to call for one descriptor: the ``data`` of its selector key."""

    __slots__ = ("callbacks",)

    def __init__(self) -> None:
        self.callbacks: dict[int, Callable[[], object]] = {}

    def __call__(self, events: int) -> None:
        for event in (READ, WRITE):
            # The first callback may have removed the second.
            callback = self.callbacks.get(event) if events & event else None
            if callback is not None:
                callback()

    @property
    def events(self) -> int:
        """What to wait for."""
        return sum(self.callbacks)


class _Loop(Protocol):
    @property
    def _selector(self) -> LoopSelector: ...


class FileWatcher:
    """``add_reader`` and its siblings; ``_selector`` is the loop's."""

    __slots__ = ()

    def add_reader(self: _Loop, fd: int, callback: Callable[[], object]) -> None:
        """Call back on each turn on which a descriptor can be read; replaces an earlier callback.

        Args:
            fd: Stays yours: remove it before you close it.
            callback: What it raises leaves the loop, as with call_soon().

        Raises:
            BadType: Not a number, or not callable.
            BadArgument: The descriptor is closed, a plain file, or the loop's own.
        """
        _add(self._selector, fd, READ, callback)

    def remove_reader(self: _Loop, fd: int) -> bool:
        """Undo add_reader(); False if there was none."""
        return _remove(self._selector, fd, READ)

    def add_writer(self: _Loop, fd: int, callback: Callable[[], object]) -> None:
        """Call back on each turn on which a descriptor can be written; as add_reader() else."""
        _add(self._selector, fd, WRITE, callback)

    def remove_writer(self: _Loop, fd: int) -> bool:
        """Undo add_writer(); False if there was none."""
        return _remove(self._selector, fd, WRITE)


def _add(selector: LoopSelector, fd: int, event: int, callback: Callable[[], object]) -> None:
    if isinstance(fd, bool) or not isinstance(fd, int):
        raise BadType(f"fd must be int, not {type(fd).__name__}")
    if not callable(callback):
        raise BadType(f"callback must be callable, not {callback!r}")
    watch = _watch(selector, fd)
    if watch is not None:
        watch.callbacks[event] = callback
        selector.modify(fd, watch.events, watch)
        return
    watch = Watch()
    watch.callbacks[event] = callback
    try:
        selector.register(fd, event, watch)
    except (OSError, ValueError) as error:
        raise BadArgument(f"descriptor {fd} cannot be watched: {error}") from error


def _remove(selector: LoopSelector, fd: int, event: int) -> bool:
    watch = _watch(selector, fd)
    if watch is None or watch.callbacks.pop(event, None) is None:
        return False
    if watch.callbacks:
        selector.modify(fd, watch.events, watch)
    else:
        selector.unregister(fd)
    return True


def _watch(selector: LoopSelector, fd: int) -> Watch | None:
    try:
        data = selector.get_key(fd).data
    except KeyError:
        return None
    if not isinstance(data, Watch):
        raise BadArgument(f"descriptor {fd} is the loop's own")
    return data
