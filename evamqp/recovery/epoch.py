"""The handler of one connection of a Reconnector.

It passes callbacks on to the user's handler, and drops what comes after the next connection began.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evamqp.core.handler import CALLBACKS, Handler

if TYPE_CHECKING:
    from evamqp.core.connection import Connection
    from evamqp.errors import ConnectionClosed


class EpochHandler(Handler):
    """Serves a reconnector and its user's handler.

    Args:
        user: Gets every callback but ``on_open``, which comes once the topology is declared.
        is_current: Returns whether this is still the reconnector's connection.
        opened: Called when the connection is open.
        lost: Called when it has ended, or could not be opened.
        writable: Called when its backpressure changes.
    """

    def __init__(
        self,
        user: Handler,
        is_current: Callable[[], bool],
        *,
        opened: Callable[[Connection], None],
        lost: Callable[[ConnectionClosed], None],
        writable: Callable[[bool], None],
    ) -> None:
        self._user = user
        self._is_current = is_current
        self._opened = opened
        self._lost = lost
        self._writable = writable
        for name in CALLBACKS:
            if name not in vars(EpochHandler):
                setattr(self, name, getattr(user, name))

    def on_open(self, connection: Connection) -> None:
        if self._is_current():
            self._opened(connection)

    def on_open_error(self, connection: Connection, error: ConnectionClosed) -> object:
        try:
            return self._user.on_open_error(connection, error)
        finally:
            if self._is_current():
                self._lost(error)

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> object:
        try:
            return self._user.on_close(connection, reason)
        finally:
            if self._is_current():
                self._lost(reason)

    def on_writable(self, connection: Connection, writable: bool) -> object:
        try:
            return self._user.on_writable(connection, writable)
        finally:
            if self._is_current():
                self._writable(writable)


class QuietHandler(Handler):
    """The handler of a user who has none: the reconnector logs each loss itself."""

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> object:
        """Do nothing: the loss is logged with the wait that follows."""
