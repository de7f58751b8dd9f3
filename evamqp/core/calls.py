"""Calls in and calls out: whose thread it is, and callbacks that may raise and never come inside.

What the calls are about is ``link.py`` and ``session.py``; nothing of AMQP is known here.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, cast

from evamqp.core.handler import CallbackContext, Handler
from evamqp.core.stats import Stats
from evamqp.errors import WrongThread

if TYPE_CHECKING:
    from evamqp.adapters.base import Promise
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection
    from evamqp.core.message import Message

log = logging.getLogger(__name__)


class Runtime(Protocol):
    """What a core is handed: a clock, futures, and a way to be called."""

    @property
    def adapter(self) -> Any: ...
    def time(self) -> float: ...
    def create_future(self) -> Promise: ...
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None: ...
    def output_ready(self) -> None:
        """There is something to send, or a deadline has come nearer."""


class Calls:
    """What a connection needs to be called, and to call back."""

    __slots__ = (
        "__weakref__",
        "_counts",
        "_handler",
        "_is_forked",
        "_owed",
        "_owner",
        "_runtime",
    )

    def __init__(self, handler: Handler, runtime: Runtime) -> None:
        self._handler = handler
        self._runtime = runtime
        self._counts = Stats()
        # The thread that the loop runs in, from the first callback on; 0 before and in a fork.
        self._owner = 0
        self._is_forked = False
        self._owed: deque[Callable[[], object]] = deque()
        _living.add(self)

    # In

    def _foreign_caller(self, what: str) -> WrongThread | None:
        """Why the calling thread may not touch the connection; None if it may."""
        if self._is_forked:
            return WrongThread(f"{what}: in a forked child; open a connection of its own there")
        if self._owner not in (0, get_ident()):
            return WrongThread(f"{what}: wrong thread; use connection.call_soon_threadsafe")
        return None

    def _check_caller(self, what: str) -> None:
        foreign = self._foreign_caller(what)
        if foreign is not None:
            raise foreign

    def _bind_owner(self) -> None:
        if not self._owner and not self._is_forked:
            self._owner = get_ident()

    def _disown(self) -> None:
        """After a fork, in the child: nothing here may be used or may touch the loop."""
        self._is_forked = True
        self._owner = 0

    # Out

    def _create_future(self) -> Promise:
        return self._runtime.create_future()

    def _owe(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called by the loop, in order, before anything else comes in."""
        self._owed.append(partial(function, *arguments))
        if len(self._owed) == 1:
            self._runtime.output_ready()

    def _run_owed(self) -> None:
        # What these owe in turn waits for the next turn of the loop.
        for _ in range(len(self._owed)):
            self._owed.popleft()()

    def _tell(
        self,
        name: str,
        channel: Channel | None,
        function: Callable[..., object],
        *arguments: object,
        message: Message | None = None,
    ) -> None:
        """Call a function of the user's; what it raises goes to on_callback_error."""
        try:
            function(*arguments)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._callback_failed(name, channel, message, error)

    def _callback_failed(
        self, name: str, channel: Channel | None, message: Message | None, error: BaseException
    ) -> None:
        self._counts.callback_errors += 1
        handler = self._handler if channel is None else channel._handler
        context = CallbackContext(name, cast("Connection", self), channel, message)
        try:
            handler.on_callback_error(context, error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            log.exception("on_callback_error raised, for %s", name)


# Those that a fork has to disown.
_living: weakref.WeakSet[Calls] = weakref.WeakSet()


def _disown_all() -> None:
    for connection in list(_living):
        connection._disown()


os.register_at_fork(after_in_child=_disown_all)
