"""Why a connection on Twisted ended, for programs that trap pika's exceptions or Twisted's.

pika reports Twisted's alone, even when the broker closed the connection; these are both.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import error

from .. import exceptions


class ConnectionClosedByBroker(exceptions.ConnectionClosedByBroker, error.ConnectionDone):
    """The broker closed the connection."""

    __str__ = Exception.__str__


class ConnectionClosedByClient(exceptions.ConnectionClosedByClient, error.ConnectionDone):
    """The client closed the connection."""

    __str__ = Exception.__str__


class StreamLostError(exceptions.StreamLostError, error.ConnectionLost):
    """The transport was lost."""

    __str__ = Exception.__str__


#: Each by what it stands for.
REASONS: dict[type, Callable[..., exceptions.AMQPConnectionError]] = {
    exceptions.ConnectionClosedByBroker: ConnectionClosedByBroker,
    exceptions.ConnectionClosedByClient: ConnectionClosedByClient,
    exceptions.StreamLostError: StreamLostError,
}
