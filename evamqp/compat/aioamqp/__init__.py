"""aioamqp's programs on evamqp: change the import, or run them by ``python -m evamqp.compat``.

Only ``connect`` and ``from_url`` live here; docs/migrating-from-aioamqp.md says what is better.
"""

from __future__ import annotations

import ssl as ssl_module
from typing import Any
from urllib.parse import unquote, urlsplit

from evamqp.compat.aioamqp.exceptions import (
    AioamqpException,
    AmqpClosedConnection,
    ChannelClosed,
    ConsumerCancelled,
    DuplicateConsumerTag,
    EmptyQueue,
    NoChannelAvailable,
    PublishFailed,
    SynchronizationError,
)
from evamqp.compat.aioamqp.protocol import AmqpProtocol, ProtocolFactory, Transport
from evamqp.compat.aioamqp.version import __packagename__, __version__

__all__ = [
    "AioamqpException",
    "AmqpClosedConnection",
    "AmqpProtocol",
    "ChannelClosed",
    "ConsumerCancelled",
    "DuplicateConsumerTag",
    "EmptyQueue",
    "NoChannelAvailable",
    "PublishFailed",
    "SynchronizationError",
    "__packagename__",
    "__version__",
    "connect",
    "from_url",
]


async def connect(
    host: str = "localhost",
    port: int | None = None,
    login: str = "guest",
    password: str = "guest",
    virtualhost: str = "/",
    ssl: bool | ssl_module.SSLContext | None = None,
    login_method: str = "PLAIN",
    insist: bool = False,
    protocol_factory: ProtocolFactory = AmqpProtocol,
    *,
    verify_ssl: bool = True,
    **kwargs: Any,
) -> tuple[Transport, AmqpProtocol]:
    """Connect to a broker.

    Args:
        host: Name or address.
        port: None means 5672, or 5671 with TLS.
        login: User.
        password: Password.
        virtualhost: Virtual host.
        ssl: A context, or True for the default one; None and False mean no TLS.
        login_method: SASL mechanism.
        insist: Means nothing.
        protocol_factory: Called with ``kwargs``; a subclass of AmqpProtocol.
        verify_ssl: False takes any certificate, with ``ssl=True``.
        kwargs: ``on_error``, ``client_properties``, ``channel_max``, ``frame_max``, ``heartbeat``;
            ``loop`` means nothing.

    Raises:
        OSError: The broker cannot be reached.
        AmqpClosedConnection: It can, and refused us.
    """
    if ssl is True and not verify_ssl:
        ssl = ssl_module.create_default_context()
        ssl.check_hostname = False
        ssl.verify_mode = ssl_module.CERT_NONE
    protocol = protocol_factory(**kwargs)
    await protocol.start_connection(
        host, port, login, password, virtualhost, ssl=ssl, login_method=login_method, insist=insist
    )
    assert protocol.transport is not None
    return protocol.transport, protocol


async def from_url(
    url: str,
    login_method: str = "PLAIN",
    insist: bool = False,
    protocol_factory: ProtocolFactory = AmqpProtocol,
    **kwargs: Any,
) -> tuple[Transport, AmqpProtocol]:
    """Connect to the broker of a URL: ``amqp[s]://user:password@host:port/vhost``.

    Raises:
        ValueError: The URL is of another scheme.
        OSError, AmqpClosedConnection: As for ``connect``.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError(f"invalid protocol {parts.scheme!r}: valid are amqp and amqps")
    if parts.scheme == "amqps":
        kwargs["ssl"] = kwargs.get("ssl") or True
    return await connect(
        parts.hostname or "localhost",
        parts.port,
        unquote(parts.username or "guest"),
        unquote(parts.password or "guest"),
        unquote(parts.path[1:]) or "/",
        login_method=login_method,
        insist=insist,
        protocol_factory=protocol_factory,
        **kwargs,
    )
