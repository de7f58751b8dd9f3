"""Calls of the user's functions: they may raise, and never run inside a call that the user makes.

Nothing here knows AMQP: what a callback means is up to the connection and the channel.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from evamqp.core.coroutines import run_if_coroutine
from evamqp.core.stats import Stats
from evamqp.core.thread_bound import ThreadBound

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Promise
    from evamqp.types import T

log: logging.Logger = logging.getLogger(__name__)


class Perform(Protocol):
    """Calls a function with arguments."""

    def __call__(self, action: Callable[..., T], *arguments: object) -> T: ...


class Runtime(Protocol):
    """What a core needs from outside: a clock, futures, and a way to be called."""

    @property
    def adapter(self) -> Adapter: ...
    def time(self) -> float: ...
    def create_future(self) -> Promise: ...
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None: ...
    def output_ready(self, waiting: int = 0) -> None:
        """There is something to send, or a deadline has come nearer.

        Args:
            waiting: Bytes that wait already.  From FLUSH_AT on they go at once.
        """

    def flush_next_turn(self) -> None:
        """What the next turn queues is to be sent within it."""

    def perform(self, action: Callable[..., T], *arguments: object) -> T:
        """Call ``action``, and send at once what it queues."""


class CallbackSource(Protocol):
    """Where a callback comes from: a connection or a channel."""

    def reporter(self, name: str, message: Any) -> Callable[[BaseException], object]:
        """Return what reports an exception to the present handler, also after its end."""


class CallbackDispatcher(ThreadBound):
    """What a connection and its channels call back with, in the thread that owns them.

    Args:
        runtime: Asked for futures, and woken when something is deferred.

    Attributes:
        deferred: Functions that the loop calls next, in order.
        last: The name of the callback made last, apart from on_message on the fast path.
        on_fork: Called in a forked child.
    """

    __slots__ = ("_runtime", "deferred", "last", "on_fork", "stats")

    threadsafe_entry = "connection"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime
        self.stats: Stats = Stats()
        self.deferred: deque[Callable[[], object]] = deque()
        self.last: str = ""
        self.on_fork: tuple[Callable[[], object], ...] = ()

    @property
    def adapter(self) -> Adapter:
        """The adapter of the loop."""
        return self._runtime.adapter

    def invalidate_after_fork(self) -> None:
        super().invalidate_after_fork()
        for function in self.on_fork:
            function()

    def create_future(self) -> Promise:
        return self._runtime.create_future()

    def defer(self, function: Callable[..., object], *arguments: object) -> None:
        """Let the loop call a function, in order, before it reads anything more."""
        self.deferred.append(partial(function, *arguments))
        if len(self.deferred) == 1:
            self._runtime.output_ready()

    def run_deferred(self) -> None:
        # What these defer in turn waits for the next turn of the loop.
        for _ in range(len(self.deferred)):
            if not self.deferred:  # a loop nested in one of them has run the others
                return
            self.deferred.popleft()()

    def invoke(
        self,
        name: str,
        source: CallbackSource,
        function: Callable[..., object],
        *arguments: object,
        message: Any = None,
    ) -> None:
        """Call a function of the user's; what it raises goes to on_callback_error.

        Args:
            name: The callback's, as the user knows it.
            source: Where it comes from.
            function: The user's function.
            message: The message that is being handled, if any.
        """
        self.last = name
        try:
            result = function(*arguments)
            if result is not None:
                self.follow(name, source, message, result)
        except BaseException as error:
            self.failed(name, source, message, error)

    def follow(self, name: str, source: CallbackSource, message: Any, result: object) -> bool:
        """Run a coroutine that a callback has returned; False if it is none."""
        return run_if_coroutine(self.adapter, result, source.reporter(name, message))

    def failed(self, name: str, source: CallbackSource, message: Any, error: BaseException) -> None:
        """Report what a function of the user's raised.

        KeyboardInterrupt and SystemExit go on, out of the loop.
        """
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        source.reporter(name, message)(error)

    def report(self, handler: Any, context: Any, error: BaseException) -> None:
        """Call a handler's on_callback_error, with a CallbackContext."""
        self.stats.callback_errors += 1
        try:
            result = handler.on_callback_error(context, error)
            if result is not None:
                run_if_coroutine(self.adapter, result, partial(_log, context))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            _log(context, failure)


def _log(context: Any, error: BaseException) -> None:
    log.error("on_callback_error raised, for %s", context.callback, exc_info=error)
