"""Warnings about clients that a program loses before it closes them.

Who is unclosed, and what is lost with it, the clients say themselves.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
import weakref

log: logging.Logger = logging.getLogger(__name__)


class Closable:
    """An object that a program should close before it loses it.

    Attributes:
        _must_close: Whether it is to be reported unless it is closed.
    """

    __slots__ = ("__weakref__", "_must_close")

    def __init__(self) -> None:
        self._must_close = False
        _living.add(self)

    def __del__(self) -> None:
        if getattr(self, "_must_close", False):  # False where the constructor raised
            self._report_unclosed()

    def _loop_closed(self) -> None:
        """Its loop has ended."""
        self._report_unclosed()

    def _report_unclosed(self) -> None:
        """The program is about to lose the object; warn if it had to be closed."""


_living: weakref.WeakSet[Closable] = weakref.WeakSet()


def report(client: Closable, lost: int, what: str) -> None:
    """Warn once that a client was collected, or that the program ends, before its close.

    Args:
        client: Shown as its repr.
        lost: How many messages have no outcome.
        what: These messages in words.
    """
    if not client._must_close:
        return
    client._must_close = False
    if lost:
        log.error("%r was not closed: %d %s", client, lost, what)
    warnings.warn(f"unclosed {client!r}", ResourceWarning, source=client, stacklevel=3)


def watch_loop(adapter: object) -> None:
    """Report what is unclosed on this loop when it ends, if the adapter can tell."""
    when_closed = getattr(adapter, "when_closed", None)
    if when_closed is not None:
        when_closed(_loop_closed)


def _loop_closed(adapter: object) -> None:
    for client in list(_living):
        if getattr(client, "adapter", None) is adapter:
            client._loop_closed()


def _report_living() -> None:
    """The program ends; what is still open never gets to its close."""
    for client in list(_living):
        client._report_unclosed()
        client._must_close = False  # later the modules that it would need are gone


def _disown_living() -> None:
    """A forked child closes nothing of its parent's."""
    for client in list(_living):
        client._must_close = False


atexit.register(_report_living)
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_disown_living)
