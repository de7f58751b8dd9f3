"""evamqp: AMQP 0-9-1 for Python programs that live on an event loop.

Public names and ``connect``.  No event loop is imported here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from evamqp.builds import implementation  # first: it chooses what the others are
from evamqp.codec.properties import Properties
from evamqp.core.channel import Channel, Message
from evamqp.core.connection import Connection
from evamqp.core.deaths import Death
from evamqp.core.handler import CallbackContext, Handler, with_functions
from evamqp.core.message import Returned
from evamqp.core.request import ConsumerTag, Request
from evamqp.credentials import Credentials
from evamqp.driver import chosen_adapter, start
from evamqp.errors import (
    AlreadySettled,
    AmqpError,
    AuthenticationFailed,
    BadArgument,
    BadType,
    BatchFailed,
    BlockedTimeout,
    ChannelClosed,
    Closed,
    ConnectFailed,
    ConnectionClosed,
    ConsumerCancelled,
    HandshakeTimeout,
    HeartbeatTimeout,
    MalformedData,
    NotExecuted,
    NotReady,
    OutputFull,
    ProtocolError,
    ProtocolMismatch,
    PublishFailed,
    PublishNacked,
    PublishReturned,
    RequestCancelled,
    RequestTimeout,
    RpcError,
    StoreFailed,
    StoreLocked,
    TopologyFailed,
    UsageError,
    VhostRefused,
    WrongState,
    WrongThread,
)
from evamqp.parameters import Parameters, parse_targets
from evamqp.types import DeclareOk, DeliveryMode
from evamqp.version import VERSION as __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from evamqp.abc import Adapter
    from evamqp.consumer import Consumer
    from evamqp.core.handler import Callbacks
    from evamqp.outbox import DeadMessage, SqliteStore
    from evamqp.publisher import Publisher
    from evamqp.recovery.backoff import Backoff
    from evamqp.recovery.health import ConsumerStats, Health, PublisherStats, ReconnectorStats
    from evamqp.recovery.ledger import Outcome, Publication
    from evamqp.recovery.reconnector import Reconnector
    from evamqp.recovery.retry import Retry
    from evamqp.recovery.store import Store, StoredMessage, StoredOutcome
    from evamqp.recovery.stream import StreamOffset
    from evamqp.recovery.topology import Topology
    from evamqp.rpc import RpcClient, RpcReply, RpcServer

__all__ = [
    "AlreadySettled",
    "AmqpError",
    "AuthenticationFailed",
    "Backoff",
    "BadArgument",
    "BadType",
    "BatchFailed",
    "BlockedTimeout",
    "CallbackContext",
    "Channel",
    "ChannelClosed",
    "Closed",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "Consumer",
    "ConsumerCancelled",
    "ConsumerStats",
    "ConsumerTag",
    "Credentials",
    "DeadMessage",
    "Death",
    "DeclareOk",
    "DeliveryMode",
    "Handler",
    "HandshakeTimeout",
    "Health",
    "HeartbeatTimeout",
    "MalformedData",
    "Message",
    "NotExecuted",
    "NotReady",
    "Outcome",
    "OutputFull",
    "Parameters",
    "Properties",
    "ProtocolError",
    "ProtocolMismatch",
    "Publication",
    "PublishFailed",
    "PublishNacked",
    "PublishReturned",
    "Publisher",
    "PublisherStats",
    "Reconnector",
    "ReconnectorStats",
    "Request",
    "RequestCancelled",
    "RequestTimeout",
    "Retry",
    "Returned",
    "RpcClient",
    "RpcError",
    "RpcReply",
    "RpcServer",
    "SqliteStore",
    "Store",
    "StoreFailed",
    "StoreLocked",
    "StoredMessage",
    "StoredOutcome",
    "StreamOffset",
    "Topology",
    "TopologyFailed",
    "UsageError",
    "VhostRefused",
    "WrongState",
    "WrongThread",
    "__version__",
    "connect",
    "implementation",
]


# Names that only reconnecting programs need: their modules are imported on first access.
_LAZY = {
    "Backoff": "evamqp.recovery.backoff",
    "Consumer": "evamqp.consumer",
    "ConsumerStats": "evamqp.recovery.health",
    "DeadMessage": "evamqp.outbox",
    "Health": "evamqp.recovery.health",
    "Outcome": "evamqp.recovery.ledger",
    "Publication": "evamqp.recovery.ledger",
    "Publisher": "evamqp.publisher",
    "PublisherStats": "evamqp.recovery.health",
    "Reconnector": "evamqp.recovery.reconnector",
    "ReconnectorStats": "evamqp.recovery.health",
    "Retry": "evamqp.recovery.retry",
    "SqliteStore": "evamqp.outbox",
    "Store": "evamqp.recovery.store",
    "StoredMessage": "evamqp.recovery.store",
    "StoredOutcome": "evamqp.recovery.store",
    "StreamOffset": "evamqp.recovery.stream",
    "RpcClient": "evamqp.rpc",
    "RpcReply": "evamqp.rpc",
    "RpcServer": "evamqp.rpc",
    "Topology": "evamqp.recovery.topology",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'evamqp' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def connect(
    target: str | Parameters | Sequence[str | Parameters],
    handler: Handler | None = None,
    *,
    adapter: Adapter | None = None,
    **callbacks: Unpack[Callbacks],
) -> Connection:
    """Begin to connect, and return at once.

    Args:
        target: A URL, Parameters, or a list of them.  A list is tried in order while name, TCP
            or TLS fail; a failed AMQP handshake ends this connection.
        handler: Gets the callbacks; see ``Handler`` for their rules.
        adapter: The loop.  None means the running asyncio loop.
        callbacks: Functions by the names of Handler's methods; they take precedence over
            ``handler``.

    Returns:
        The connection, for ``wait_open()`` and ``close()``.  ``on_open_error`` reports failures
        from here on.

    Raises:
        BadArgument: A URL is malformed, or a callback unknown.
        BadType: A target or the adapter is none.
        WrongState: No adapter was given and no asyncio loop is running.
    """
    targets = parse_targets(target)
    chosen = with_functions(handler, callbacks)
    return start(targets, chosen, chosen_adapter(adapter))
