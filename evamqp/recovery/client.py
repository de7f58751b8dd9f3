"""What Reconnector, Publisher and Consumer share: a loop, its thread, and callbacks that may raise.

No connection is known here.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING

from evamqp.errors import BadArgument, BadType, WrongThread
from evamqp.parameters import LONGEST_SECONDS

if TYPE_CHECKING:
    from evamqp.adapters.base import Adapter, Handle, Promise
    from evamqp.core.channel import Channel

log = logging.getLogger(__name__)

# What the thread of a forked child is taken for; no thread has it.
_NOBODY = -1


class Client:
    """An object of one loop.  The thread is that of the loop's first callback."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self._owner = 0
        _living.add(self)

    def _bind_owner(self) -> None:
        if not self._owner:
            self._owner = get_ident()

    def _check_caller(self, what: str) -> None:
        if self._owner not in (0, get_ident()):
            why = "in a forked child" if self._owner == _NOBODY else "wrong thread"
            raise WrongThread(f"{what}: {why}; use adapter.call_soon_threadsafe")

    def _create_future(self) -> Promise:
        return self.adapter.create_future()

    def _owe(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called on the next turn of the loop, in order."""
        self.adapter.call_soon(partial(function, *arguments))

    def _tell(
        self,
        name: str,
        channel: Channel | None,
        function: Callable[..., object],
        *arguments: object,
    ) -> None:
        """Call a function of the user's; what it raises is logged, and harms nothing."""
        try:
            function(*arguments)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            log.error("%s raised %r", name, error, exc_info=error)


def call_off(*handles: Handle | None) -> None:
    """Cancel what is set."""
    for handle in handles:
        if handle is not None:
            handle.cancel()


def checked_timeout(timeout: float | None) -> float | None:
    """A timeout in seconds; one that lies in the past has just passed.

    Raises:
        BadType: It is no number.
        BadArgument: It is NaN, or longer than timers of loops can be.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise BadType(f"timeout must be seconds, not {type(timeout).__name__}")
    if not timeout <= LONGEST_SECONDS:
        raise BadArgument(f"timeout must be at most {LONGEST_SECONDS} seconds, not {timeout}")
    return max(0.0, timeout)


# Those that a fork has to disown.
_living: weakref.WeakSet[Client] = weakref.WeakSet()


def _disown_all() -> None:
    for client in list(_living):
        client._owner = _NOBODY


os.register_at_fork(after_in_child=_disown_all)
