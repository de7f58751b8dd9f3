"""evamqp: AMQP 0-9-1 for Python programs that live on an event loop.

Public names and ``connect``.  No event loop is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from evamqp.codec.properties import Properties
from evamqp.core.channel import Channel
from evamqp.core.connection import Connection
from evamqp.core.handler import CallbackContext, Handler, with_functions
from evamqp.core.handshake import VERSION as __version__
from evamqp.core.message import Message, Returned
from evamqp.core.request import Request
from evamqp.driver import Driver
from evamqp.errors import (
    AlreadySettled,
    AmqpError,
    AuthenticationFailed,
    BadArgument,
    BadType,
    BlockedTimeout,
    ChannelClosed,
    Closed,
    ConnectFailed,
    ConnectionClosed,
    HandshakeTimeout,
    HeartbeatTimeout,
    MalformedData,
    NotExecuted,
    OutputFull,
    ProtocolError,
    ProtocolMismatch,
    RequestCancelled,
    RequestTimeout,
    UsageError,
    VhostRefused,
    WrongState,
    WrongThread,
)
from evamqp.parameters import Credentials, Parameters, parse_targets
from evamqp.types import DeclareOk, DeliveryMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evamqp.adapters.base import Adapter

__all__ = [
    "AlreadySettled",
    "AmqpError",
    "AuthenticationFailed",
    "BadArgument",
    "BadType",
    "BlockedTimeout",
    "CallbackContext",
    "Channel",
    "ChannelClosed",
    "Closed",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "Credentials",
    "DeclareOk",
    "DeliveryMode",
    "Handler",
    "HandshakeTimeout",
    "HeartbeatTimeout",
    "MalformedData",
    "Message",
    "NotExecuted",
    "OutputFull",
    "Parameters",
    "Properties",
    "ProtocolError",
    "ProtocolMismatch",
    "Request",
    "RequestCancelled",
    "RequestTimeout",
    "Returned",
    "UsageError",
    "VhostRefused",
    "WrongState",
    "WrongThread",
    "__version__",
    "connect",
]


def connect(
    target: str | Parameters | Sequence[str | Parameters],
    handler: Handler | None = None,
    *,
    adapter: Adapter | None = None,
    **callbacks: Callable[..., object],
) -> Connection:
    """Begin to connect, and return at once.

    Args:
        target: A URL, Parameters, or a list of them.  A list is tried in order while name, TCP
            or TLS fail; a failed AMQP handshake ends this connection.
        handler: Gets the callbacks; see ``Handler`` for the laws they obey.
        adapter: The loop.  None means the asyncio loop that is running.
        callbacks: Functions by the names of Handler's methods, which come before ``handler``.

    Returns:
        The connection, for ``wait_open()`` and ``close()``.  Whatever fails from here on is told
        by ``on_open_error``.

    Raises:
        BadArgument: A malformed URL or an unknown callback.
        WrongState: No adapter was given and no asyncio loop is running.
    """
    targets = parse_targets(target)
    chosen = with_functions(handler, callbacks)
    driver = Driver(adapter or _running_loop(), partial(Connection, chosen))
    driver.dial(targets)
    return driver.core


def _running_loop() -> Adapter:
    # No loop runs of a package that was never imported; so the error costs no import either.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        raise WrongState(
            "no asyncio loop is running: give adapter=SelectAdapter(), AsyncioAdapter(),"
            " TornadoAdapter() or TwistedAdapter()"
        )
    from evamqp.adapters.asyncio import AsyncioAdapter

    return AsyncioAdapter()
