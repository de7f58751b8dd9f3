"""What a test may look at: the broker's state as plain values, copied when they are asked for.

Nothing here acts.
"""

from __future__ import annotations

from typing import NamedTuple

from evamqp.codec.properties import Properties
from evamqp.types import Table


class Published(NamedTuple):
    """One basic.publish that came.

    Attributes:
        queues: Names of the queues that took it; empty if none did.
        connection: Number of the connection, counted from 1.
        channel: Number of the channel.
    """

    vhost: str
    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    mandatory: bool
    queues: tuple[str, ...]
    connection: int
    channel: int


class QueueInfo(NamedTuple):
    """A queue as it is now.

    Attributes:
        ready: Messages that wait.
        unacked: Messages that consumers hold.
        bodies: The payloads of what waits, in order.
    """

    name: str
    ready: int
    unacked: int
    consumers: int
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Table
    bodies: tuple[bytes, ...]


class ExchangeInfo(NamedTuple):
    """An exchange as it is now."""

    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: Table


class BindingInfo(NamedTuple):
    """A binding; ``kind`` says whether ``destination`` is a ``"queue"`` or an ``"exchange"``."""

    source: str
    kind: str
    destination: str
    routing_key: str
    arguments: Table


class ConsumerInfo(NamedTuple):
    """A consumer as it is now; ``unacked`` is how many messages it holds."""

    queue: str
    tag: str
    connection: int
    channel: int
    prefetch: int
    unacked: int
    auto_ack: bool
    exclusive: bool
    priority: int


class ConnectionInfo(NamedTuple):
    """A connection as it is now.

    Attributes:
        number: Counted from 1 in the order in which they came.
        name: Its own name in the client properties; "" without one.
        channels: Numbers of its open channels.
        blocked: Whether it was sent connection.blocked.
    """

    number: int
    name: str
    user: str
    vhost: str
    channels: tuple[int, ...]
    blocked: bool
    client_properties: Table
