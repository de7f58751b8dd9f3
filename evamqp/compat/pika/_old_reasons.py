"""What a program of the 0.x eras catches: any end of a connection is a ConnectionClosed there, and
whatever happens on a closed channel a ChannelClosed.

1.x's exceptions are these as well, so that an except of either style finds them.
"""

from __future__ import annotations

from collections.abc import Callable

from . import exceptions
from ._eras import Era, code_and_text


class StreamLostError(exceptions.StreamLostError, exceptions.ConnectionClosed):
    """The connection was lost."""


class AMQPHeartbeatTimeout(exceptions.AMQPHeartbeatTimeout, exceptions.ConnectionClosed):
    """The peer sent nothing for too long."""


class ConnectionBlockedTimeout(exceptions.ConnectionBlockedTimeout, exceptions.ConnectionClosed):
    """The broker kept the connection blocked for too long."""


class ConnectionWrongStateError(exceptions.ConnectionWrongStateError, exceptions.ConnectionClosed):
    """The connection is closed."""


class ChannelWrongStateError(exceptions.ChannelWrongStateError, exceptions.ChannelClosed):
    """The channel is closed."""


_OLD: dict[type, Callable[[int, str], BaseException]] = {
    exceptions.StreamLostError: StreamLostError,
    exceptions.AMQPHeartbeatTimeout: AMQPHeartbeatTimeout,
    exceptions.ConnectionBlockedTimeout: ConnectionBlockedTimeout,
    exceptions.ConnectionWrongStateError: ConnectionWrongStateError,
    exceptions.ChannelWrongStateError: ChannelWrongStateError,
}


def of_era(error: BaseException, era: Era) -> BaseException:
    """The exception as the program's era has it."""
    kind = _OLD.get(type(error)) if era.is_old else None
    return error if kind is None else kind(*code_and_text(error))
