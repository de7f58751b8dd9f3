"""pika's Parameters as evamqp's: what a connection asks of a broker, and how long it waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import evamqp

from . import spec
from .credentials import ExternalCredentials, PlainCredentials

if TYPE_CHECKING:
    from ._parameters import Parameters

# pika waits for ever for these; evamqp's clocks end after eleven days.
FOR_EVER = 1_000_000
# What RabbitMQ itself holds for the largest message that anybody may configure.
BODY_MAX = 512 * 1024 * 1024
# pika never refuses to queue what a program publishes.
OUTPUT_MAX = 2**63 - 1


def to_target(parameters: Parameters, connection: Any = None) -> evamqp.Parameters:
    """What ``evamqp.connect`` takes for pika's parameters.

    Args:
        connection: Handed to a ``heartbeat`` that is a function.

    Raises:
        evamqp.BadArgument: The host is no host.
    """
    options = parameters.ssl_options
    stack_timeout = parameters.stack_timeout or FOR_EVER
    return evamqp.Parameters(
        parameters.host,
        parameters.port,
        parameters.virtual_host,
        _credentials(parameters),
        mechanisms=[_mechanism(parameters)],
        tls=options is not None,
        ssl_context=options.context if options else None,
        server_hostname=options.server_hostname if options else None,
        heartbeat=_heartbeat(parameters.heartbeat, connection),
        channel_max=parameters.channel_max,
        frame_max=parameters.frame_max,
        client_properties=parameters.client_properties or {},
        connect_timeout=min(stack_timeout, FOR_EVER),
        address_timeout=min(parameters.socket_timeout or FOR_EVER, FOR_EVER),
        handshake_timeout=min(stack_timeout, FOR_EVER),
        request_timeout=FOR_EVER,
        blocked_timeout=parameters.blocked_connection_timeout or None,
        output_max=OUTPUT_MAX,
        body_max=BODY_MAX,
    )


def _heartbeat(wanted: Any, connection: Any) -> int | Callable[[int], int]:
    """pika's number decides, whatever the broker wishes; None takes the broker's."""
    if wanted is None:
        return 0
    if callable(wanted):
        return lambda offered: int(wanted(connection, offered))
    return lambda offered: int(wanted)


def _credentials(parameters: Parameters) -> Callable[[], evamqp.Credentials]:
    """Asked for at each attempt, since a program may change the object."""

    def ask() -> evamqp.Credentials:
        credentials = parameters.credentials
        if isinstance(credentials, PlainCredentials):
            return evamqp.Credentials(_text(credentials.username), _text(credentials.password))
        return evamqp.Credentials("", "")

    return ask


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value or ""


def _mechanism(parameters: Parameters) -> str | _Foreign:
    credentials = parameters.credentials
    if isinstance(credentials, (PlainCredentials, ExternalCredentials)):
        return credentials.TYPE
    return _Foreign(credentials)


class _Foreign:
    """Credentials of a program's own kind, as a mechanism of evamqp's."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self.name: str = credentials.TYPE

    def start(self, credentials: evamqp.Credentials) -> bytes:
        start = spec.Connection.Start(mechanisms=self.name)
        response = self._credentials.response_for(start)[1]
        return response.encode() if isinstance(response, str) else response or b""

    def respond(self, challenge: bytes) -> bytes:
        return b""
