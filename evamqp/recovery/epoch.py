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
        blocked: Called with the reason of an alarm, and with None at its end.
    """

    _answers_for_connection = True

    def __init__(
        self,
        user: Handler,
        is_current: Callable[[], bool],
        *,
        opened: Callable[[Connection], None],
        lost: Callable[[ConnectionClosed], None],
        writable: Callable[[bool], None],
        blocked: Callable[[str | None], None],
    ) -> None:
        self._user = user
        self._is_current = is_current
        self._opened = opened
        self._lost = lost
        self._writable = writable
        self._blocked = blocked
        for name in CALLBACKS:
            if name not in vars(EpochHandler):
                setattr(self, name, getattr(user, name))

    def _call_user(self, name: str, *arguments: object) -> object:
        """Call the user's own; what Handler does by default is to log, as the reconnector does."""
        own = overrides(self._user, name)
        if name == "on_open_error":  # which by default calls on_close
            own = own or overrides(self._user, "on_close")
        return getattr(self._user, name)(*arguments) if own else None

    def on_open(self, connection: Connection) -> None:
        if self._is_current():
            self._opened(connection)

    def on_open_error(self, connection: Connection, error: ConnectionClosed) -> object:
        try:
            return self._call_user("on_open_error", connection, error)
        finally:
            if self._is_current():
                self._lost(error)

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> object:
        try:
            return self._call_user("on_close", connection, reason)
        finally:
            if self._is_current():
                self._lost(reason)

    def on_blocked(self, connection: Connection, reason: str) -> object:
        try:
            return self._call_user("on_blocked", connection, reason)
        finally:
            if self._is_current():
                self._blocked(reason)

    def on_unblocked(self, connection: Connection) -> object:
        try:
            return self._call_user("on_unblocked", connection)
        finally:
            if self._is_current():
                self._blocked(None)

    def on_writable(self, connection: Connection, writable: bool) -> object:
        try:
            return self._user.on_writable(connection, writable)
        finally:
            if self._is_current():
                self._writable(writable)


def overrides(handler: Handler, name: str) -> bool:
    """Whether a callback is the user's own, and not what Handler does by default."""
    return getattr(getattr(handler, name), "__func__", None) is not vars(Handler)[name]
