"""The transport: kombu's settings become evamqp's Parameters, and its calls the connection's.

What a connection does is ``connection.py``.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kombu.transport import base

import evamqp
from evamqp.integrations.kombu import errors
from evamqp.integrations.kombu.channel import Channel
from evamqp.integrations.kombu.connection import Connection

#: Fields of Parameters that ``transport_options`` may set; the others have a place in kombu.
OPTIONS = frozenset(entry.name for entry in fields(evamqp.Parameters)) - {
    "host", "port", "virtual_host", "credentials", "mechanisms", "tls",
}  # fmt: skip
#: kombu's names of TLS options, which are those of ``ssl.wrap_socket``, and evamqp's.
TLS_OPTIONS = {
    "ca_certs": "cacertfile",
    "certfile": "certfile",
    "keyfile": "keyfile",
    "password": "keyfile_password",
    "server_hostname": "server_hostname",
    "context": "ssl_context",
}


class Transport(base.Transport):  # type: ignore[misc]
    """kombu's transport ``evamqp://``; see docs/celery.md."""

    default_port = 5672
    default_ssl_port = 5671

    connection_errors: errors.Errors = errors.connection_errors
    channel_errors: errors.Errors = errors.channel_errors
    recoverable_connection_errors: errors.Errors = errors.recoverable_connection_errors
    recoverable_channel_errors: errors.Errors = errors.recoverable_channel_errors

    driver_name = "evamqp"
    driver_type = "amqp"

    implements: Any = base.Transport.implements.extend(asynchronous=True, heartbeats=True)

    def driver_version(self) -> str:
        """evamqp's."""
        return evamqp.__version__

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """What is not in the URL."""
        return {
            "userid": "guest",
            "password": "guest",
            "port": self.default_ssl_port if self.client.ssl else self.default_port,
            "hostname": "localhost",
            "login_method": "PLAIN",
        }

    def establish_connection(self) -> Connection:
        """Connect, and wait until the connection is open.

        Raises:
            OSError: The broker cannot be reached.
            AccessRefused: User or password are wrong.
            NotAllowed: The virtual host is missing or barred.
        """
        client = self.client
        for name, value in self.default_connection_params.items():
            if not getattr(client, name, None):
                setattr(client, name, value)
        options = client.transport_options or {}
        return Connection(
            make_parameters(client),
            client,
            confirm_publish=options.get("confirm_publish", True),
            on_blocked=options.get("on_blocked"),
            on_unblocked=options.get("on_unblocked"),
        )

    def close_connection(self, connection: Connection) -> None:
        """Close it, and wait for its end."""
        connection.client = None
        connection.close()

    def create_channel(self, connection: Connection) -> Channel:
        """Open a channel."""
        return connection.channel()

    def close_channel(self, channel: Channel) -> None:
        """Close a channel."""
        channel.close()

    def drain_events(self, connection: Connection, timeout: float | None = None) -> None:
        """Wait for one event; see Connection.drain_events."""
        connection.drain_events(timeout=timeout)

    def verify_connection(self, connection: Connection) -> bool:
        """Whether it can be used."""
        return connection.connected

    def _collect(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.collect()

    # Heartbeats and the Hub

    def get_heartbeat_interval(self, connection: Connection) -> int:
        """Seconds agreed on; 0 means none."""
        return connection.heartbeat

    def heartbeat_check(self, connection: Connection, rate: float = 2) -> None:
        """Send what is due; raises if the connection has ended."""
        connection.heartbeat_tick(rate=rate)

    def register_with_event_loop(self, connection: Connection, loop: Any) -> None:
        """Have kombu's Hub read."""
        connection.watch(loop)

    def unregister_from_event_loop(self, connection: Connection, loop: Any) -> None:
        """Undo register_with_event_loop()."""
        connection.unwatch()

    # What the broker is

    def qos_semantics_matches_spec(self, connection: Connection) -> bool:
        """Whether a limit is to be each consumer's own, as RabbitMQ 4 wants it.

        False on 3.3 to 3.13, where a limit of the channel can be changed at any time.
        """
        properties = connection.server_properties
        if properties.get("product") != "RabbitMQ":
            return True
        version = _version(str(properties.get("version", "")))
        return not (3, 3) <= version < (4, 0)

    def get_manager(self, *arguments: object, **options: object) -> Any:
        """Refused: this transport speaks AMQP only.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "evamqp has no client of RabbitMQ's management API; use its HTTP interface"
        )


class TlsTransport(Transport):
    """kombu's transport ``evamqps://``."""

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        if not client.ssl:
            client.ssl = True


def make_parameters(client: Any) -> evamqp.Parameters:
    """What a kombu.Connection asks for.

    Raises:
        BadArgument, BadType: A setting that evamqp cannot use; the text names it.
    """
    password = client.password() if callable(client.password) else client.password
    options = {
        name: value for name, value in (client.transport_options or {}).items() if name in OPTIONS
    }
    if client.connect_timeout:
        options.setdefault("connect_timeout", float(client.connect_timeout))  # a str from a URL
    options.setdefault("heartbeat", round(client.heartbeat) if client.heartbeat else _no_heartbeat)
    # The loop turns when kombu drains events, and rests meanwhile.
    options.setdefault("stall_warning", None)
    return evamqp.Parameters(
        host=client.hostname,
        port=int(client.port),
        virtual_host=client.virtual_host,
        credentials=evamqp.Credentials(client.userid, password),
        mechanisms=(client.login_method,),
        **(_tls(client.ssl) if client.ssl else {}),
        **options,
    )


def _tls(setting: object) -> dict[str, Any]:
    """What ``ssl=True``, ``broker_use_ssl`` and their like say."""
    if isinstance(setting, ssl.SSLContext):
        return {"tls": True, "ssl_context": setting}
    found: dict[str, Any] = {"tls": True}
    for key, value in (setting if isinstance(setting, Mapping) else {}).items():
        name = key.removeprefix("ssl_")  # as kombu finds it in the query of a URL
        if name == "cert_reqs":
            found["verify"] = value not in (None, ssl.CERT_NONE)
        elif name in TLS_OPTIONS:
            found[TLS_OPTIONS[name]] = value
        else:
            known = ", ".join((*TLS_OPTIONS, "cert_reqs"))
            raise evamqp.BadArgument(f"ssl: {key} is none of {known}")
    return found


def _no_heartbeat(proposed: int) -> int:
    """kombu's 0 means none; evamqp has the kernel look for dead peers then."""
    return 0


def _version(text: str) -> tuple[int, ...]:
    numbers = (part for part in text.split("-")[0].split("+")[0].split(".") if part.isdigit())
    return tuple(map(int, numbers))
