"""CallbackDispatcher out: callbacks that may raise, and never come inside a call of the user's.

What they are about is ``link.py`` and ``session.py``; nothing of AMQP is known here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from evamqp.core.coroutines import run_if_coroutine
from evamqp.core.handler import CallbackContext, Handler
from evamqp.core.stats import Stats
from evamqp.core.thread_bound import ThreadBound

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Promise
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection
    from evamqp.core.message import Message

log = logging.getLogger(__name__)


class Runtime(Protocol):
    """What a core is handed: a clock, futures, and a way to be called."""

    @property
    def adapter(self) -> Adapter: ...
    def time(self) -> float: ...
    def create_future(self) -> Promise: ...
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None: ...
    def output_ready(self) -> None:
        """There is something to send, or a deadline has come nearer."""


class CallbackDispatcher(ThreadBound):
    """What a connection needs to call back."""

    __slots__ = ("_counts", "_deferred", "_handler", "_runtime")

    _threadsafe_entry = "connection"

    def __init__(self, handler: Handler, runtime: Runtime) -> None:
        super().__init__()
        self._handler = handler
        self._runtime = runtime
        self._counts = Stats()
        self._deferred: deque[Callable[[], object]] = deque()

    def _create_future(self) -> Promise:
        return self._runtime.create_future()

    def _defer(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called by the loop, in order, before anything else comes in."""
        self._deferred.append(partial(function, *arguments))
        if len(self._deferred) == 1:
            self._runtime.output_ready()

    def _run_deferred(self) -> None:
        # What these owe in turn waits for the next turn of the loop.
        for _ in range(len(self._deferred)):
            if not self._deferred:  # a loop nested in one of them has run the others
                return
            self._deferred.popleft()()

    def _invoke(
        self,
        name: str,
        channel: Channel | None,
        function: Callable[..., object],
        *arguments: object,
        message: Message | None = None,
    ) -> None:
        """Call a function of the user's; what it raises goes to on_callback_error."""
        try:
            result = function(*arguments)
            if result is not None:
                self._follow(name, channel, message, result)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._callback_failed(name, channel, message, error)

    def _follow(
        self, name: str, channel: Channel | None, message: Message | None, result: object
    ) -> bool:
        """Run a coroutine that a callback has returned; False if it is none."""
        report = self._reporter(name, channel, message)
        return run_if_coroutine(self._runtime.adapter, result, report)

    def _callback_failed(
        self, name: str, channel: Channel | None, message: Message | None, error: BaseException
    ) -> None:
        self._reporter(name, channel, message)(error)

    def _reporter(
        self, name: str, channel: Channel | None, message: Message | None
    ) -> Callable[[BaseException], None]:
        """What tells today's handler that a callback raised, also when that has been let go."""
        handler = self._handler if channel is None else channel._handler
        context = CallbackContext(name, cast("Connection", self), channel, message)
        return partial(self._report, handler, context)

    def _report(self, handler: Handler, context: CallbackContext, error: BaseException) -> None:
        self._counts.callback_errors += 1
        try:
            result = handler.on_callback_error(context, error)
            if result is not None:
                run_if_coroutine(self._runtime.adapter, result, partial(_log, context))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            _log(context, failure)


def _log(context: CallbackContext, error: BaseException) -> None:
    log.error("on_callback_error raised, for %s", context.callback, exc_info=error)
