"""What Reconnector, Publisher and Consumer share: a loop, its thread, and callbacks that may raise.

No connection belongs here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from evamqp.checks import timeout as check_timeout
from evamqp.core.coroutines import run_if_coroutine
from evamqp.core.thread_bound import ThreadBound
from evamqp.core.unclosed import Closable, watch_loop

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle, Promise

log: logging.Logger = logging.getLogger(__name__)


class LoopHost(ThreadBound):
    """The host of the requests of one loop's objects."""

    __slots__ = ("adapter",)

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter: Adapter = adapter

    def create_future(self) -> Promise:
        return self.adapter.create_future()

    def defer(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the next turn of the loop, in order."""
        self.adapter.call_soon(partial(function, *arguments))

    def invoke(self, name: str, function: Callable[..., object], *arguments: object) -> None:
        """Call a user's function; log what it raises, and go on."""
        try:
            result = function(*arguments)
            if result is not None:
                run_if_coroutine(self.adapter, result, partial(_log, name))
        except (KeyboardInterrupt, SystemExit) as interrupt:
            # On the next turn, so that our caller can finish: other outcomes, a timer.
            self.defer(_raise, interrupt)
        except BaseException as error:
            _log(name, error)


def _log(name: str, error: BaseException) -> None:
    log.error("%s raised %r", name, error, exc_info=error)


class LoopBound(Closable):
    """An object of one loop.

    Args:
        host: Its loop and thread.
    """

    def __init__(self, host: LoopHost) -> None:
        super().__init__()
        self._host = host
        self.adapter: Adapter = host.adapter
        watch_loop(host.adapter)

    def _loop_closed(self) -> None:
        super()._loop_closed()
        self._host.end_with_loop()

    def _check_caller(self, what: str) -> None:
        self._host.check_caller(what)

    def _defer(self, function: Callable[..., object], *arguments: object) -> None:
        self._host.defer(function, *arguments)

    def _invoke(self, name: str, function: Callable[..., object], *arguments: object) -> None:
        self._host.invoke(name, function, *arguments)


def _raise(interrupt: BaseException) -> None:
    raise interrupt


def cancel_all(*handles: Handle | None) -> None:
    """Cancel those that are set."""
    for handle in handles:
        if handle is not None:
            handle.cancel()


def checked_timeout(timeout: float | None) -> float | None:
    """Check a timeout in seconds; a negative one becomes 0.

    Raises:
        BadType: It is not a number.
        BadArgument: It is NaN, or longer than a loop's timers can be.
    """
    return None if timeout is None else check_timeout("timeout", timeout)
