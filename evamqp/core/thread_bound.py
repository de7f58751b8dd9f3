"""Which thread owns an object, and that a forked child may not use what its parent made.

It does not know what the object is for.
"""

from __future__ import annotations

import os
import weakref
from threading import get_ident

from evamqp.errors import WrongState, WrongThread


def runs_elsewhere(adapter: object) -> bool:
    """Whether the adapter's loop runs in another thread at this moment, as far as is known."""
    ask = getattr(adapter, "runs_elsewhere", None)
    return ask is not None and bool(ask())


class ThreadBound:
    """An object of the thread that its loop runs in, from the loop's first callback on.

    Attributes:
        owner: That thread; 0 before, and in a forked child, where no thread may use it.
        is_forked: Whether this is a forked child, which may not use what its parent made.
        is_loop_closed: Whether the loop has ended, so that nothing can be done any more.
        threadsafe_entry: What has the ``call_soon_threadsafe`` that other threads may call.
    """

    __slots__ = ("__weakref__", "is_forked", "is_loop_closed", "owner")

    threadsafe_entry = "adapter"

    def __init__(self) -> None:
        self.owner: int = 0
        self.is_forked: bool = False
        self.is_loop_closed: bool = False
        _living.add(self)

    def bind_owner(self) -> None:
        if not (self.owner or self.is_forked or self.is_loop_closed):
            self.owner = get_ident()

    def foreign_caller(self, what: str) -> WrongState | None:
        """Why the calling thread may not use the object; None if it may."""
        if self.is_loop_closed:
            return WrongState(f"{what}: its loop is closed")
        if self.is_forked:
            return WrongThread(f"{what}: in a forked child; open a connection of its own there")
        # Before the loop's first callback only the loop can tell.
        owner = self.owner
        if owner != get_ident() if owner else runs_elsewhere(getattr(self, "adapter", None)):
            return WrongThread(
                f"{what}: wrong thread; use {self.threadsafe_entry}.call_soon_threadsafe"
            )
        return None

    def check_caller(self, what: str) -> None:
        foreign = self.foreign_caller(what)
        if foreign is not None:
            raise foreign

    def end_with_loop(self) -> None:
        """The loop has ended."""
        self.is_loop_closed = True
        self.owner = 0

    def invalidate_after_fork(self) -> None:
        """After a fork, in the child: nothing here may be used or may touch the loop."""
        self.is_forked = True
        self.owner = 0


# What a fork invalidates.  Comparing process ids at each call would cost more than the call.
_living: weakref.WeakSet[ThreadBound] = weakref.WeakSet()


def _invalidate_all_after_fork() -> None:
    for owned in list(_living):
        owned.invalidate_after_fork()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_invalidate_all_after_fork)
