"""Connection and ``connect``: one connection of evamqp, for the life of one transport.

What comes back after a loss is ``robust_connection.py``'s business.
"""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, Literal, TypeVar

import evamqp
from evamqp.compat.aio_pika.channel import Channel
from evamqp.compat.aio_pika.exceptions import ChannelInvalidStateError, of_connection, of_error
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.pamqp import commands
from evamqp.compat.aio_pika.tools import CallbackCollection, within
from evamqp.compat.aio_pika.url import URL, make_url, parameters_of

log: logging.Logger = get_logger(__name__)

C = TypeVar("C", bound="Connection")


class Connection:
    """A connection; ``connect`` makes it.

    Args:
        url: Where to; the query holds options.
        loop: Means nothing but the loop that runs.
        ssl_context: For TLS; None has one made of the URL's options.
        client_properties: Further entries for what the broker shows of us.
        kwargs: Options that win over those of the URL.

    Attributes:
        close_callbacks: Called with this and the reason, None if it was asked for.
        connected: Set while it is open.
        transport: evamqp's own connection; None while there is none.
    """

    CHANNEL_CLASS: type[Channel] = Channel

    def __init__(
        self,
        url: object,
        loop: asyncio.AbstractEventLoop | None = None,
        ssl_context: ssl_module.SSLContext | None = None,
        client_properties: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop or asyncio.get_running_loop()
        self.url: URL = make_url(url)
        self.kwargs: dict[str, Any] = {
            **self.url.query,
            **{name: value for name, value in kwargs.items() if value is not None},
        }
        self._ssl_context = ssl_context
        self._client_properties = dict(client_properties or {})
        self._closed: asyncio.Future[Literal[True]] = self.loop.create_future()
        self._close_called = False
        self._channels: set[Channel] = set()  # those that are open, or come back
        self.transport: evamqp.Connection | None = None
        self.connected: asyncio.Event = asyncio.Event()
        self.close_callbacks: CallbackCollection[Connection] = CallbackCollection(self)

    def __str__(self) -> str:
        return str(self.url if not self.url.password else self.url.with_password("******"))

    def __repr__(self) -> str:
        return f'<{type(self).__name__}: "{self}">'

    @property
    def is_closed(self) -> bool:
        """Whether it has ended for good."""
        return self._closed.done()

    @property
    def close_called(self) -> bool:
        """Whether ``close()`` was called."""
        return self._close_called

    def closed(self) -> Awaitable[Literal[True]]:
        """Wait until it has ended for good."""
        return asyncio.shield(self._closed)

    async def ready(self) -> None:
        """Wait until it is open.

        Raises:
            ChannelInvalidStateError: It is closed for good.
        """
        await self.race(self.connected.wait())

    def _parameters(self, timeout: float | None) -> evamqp.Parameters:
        return parameters_of(
            self.url.with_query(self.kwargs),
            ssl_context=self._ssl_context,
            client_properties=self._client_properties,
            timeout=timeout,
        )

    async def connect(self, timeout: float | None = None) -> None:
        """Open it; ``aio_pika.connect`` calls this.

        Args:
            timeout: Seconds; None means evamqp's, 10 for TCP and TLS and 10 for the handshake.

        Raises:
            AMQPConnectionError: It cannot be opened.
            asyncio.TimeoutError: It took longer.
        """
        connection = evamqp.connect(self._parameters(timeout), on_close=self._has_closed)
        try:
            await within(timeout, connection.wait_open())
        except evamqp.AmqpError as error:
            raise of_error(error) from error
        except BaseException:
            connection.close()
            raise
        self.transport = connection
        self.connected.set()

    def _has_closed(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        if self.transport is None:  # it never was open, and connect() raises why
            return
        self.transport = None
        self.connected.clear()
        if not self._closed.done():
            self._closed.set_result(True)
        if reason.by != "client":
            log.warning("%r was lost: %s", self, reason)
        self.close_callbacks(None if reason.by == "client" else of_connection(reason))

    def usable(self) -> evamqp.Connection:
        """evamqp's connection, when a channel may be opened on it.

        Raises:
            RuntimeError: It is not open.
        """
        if self.transport is None:
            raise RuntimeError("Connection was not opened")
        return self.transport

    def channel(
        self,
        channel_number: int | None = None,
        publisher_confirms: bool = True,
        on_return_raises: bool = False,
    ) -> Channel:
        """A channel: ``await`` it, or enter it by ``async with``.

        Args:
            channel_number: None has evamqp choose.
            publisher_confirms: Have the broker confirm each publish.
            on_return_raises: Have ``publish`` raise for a message that no queue takes.

        Raises:
            RuntimeError: The connection is not open.
        """
        if self._close_called or self.is_closed or not self._is_begun():
            raise RuntimeError("Connection was not opened")
        return self.CHANNEL_CLASS(self, channel_number, publisher_confirms, on_return_raises)

    def _is_begun(self) -> bool:
        return self.transport is not None

    async def close(self, exc: BaseException | type[BaseException] | None = None) -> None:
        """Close it and its channels.  Idempotent."""
        self._close_called = True
        connection = self.transport
        for channel in self._channels:
            channel.cancel_handlers()
        if connection is not None:
            await connection.close()
        if not self._closed.done():
            self._closed.set_result(True)

    # For channels

    def add(self, channel: Channel) -> None:
        """It is about to be opened."""
        self._channels.add(channel)

    def discard(self, channel: Channel) -> None:
        """It is closed for good."""
        self._channels.discard(channel)

    async def race(self, awaitable: Awaitable[Any]) -> None:
        """Wait for something, or for the end of the connection.

        Raises:
            ChannelInvalidStateError: The connection is closed.
        """
        waiting: asyncio.Future[Any] = asyncio.ensure_future(awaitable)
        try:
            both: set[asyncio.Future[Any]] = {waiting, self._closed}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._closed.done():
            raise ChannelInvalidStateError(f"{self!r} closed")

    async def update_secret(
        self, new_secret: str, *, reason: str = "", timeout: float | None = None
    ) -> commands.Connection.UpdateSecretOk:
        """Replace the credential of a live connection."""
        try:
            await within(timeout, self.usable().update_secret(new_secret, reason))
        except evamqp.AmqpError as error:
            raise of_error(error) from error
        self.url = self.url.with_password(new_secret)
        return commands.Connection.UpdateSecretOk()

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def connect(
    url: object = None,
    *,
    host: str = "localhost",
    port: int = 5672,
    login: str = "guest",
    password: str = "guest",
    virtualhost: str = "/",
    ssl: bool = False,
    loop: asyncio.AbstractEventLoop | None = None,
    ssl_options: Mapping[str, Any] | None = None,
    ssl_context: ssl_module.SSLContext | None = None,
    timeout: float | None = None,
    client_properties: Mapping[str, Any] | None = None,
    connection_class: type[Any] = Connection,
    **kwargs: Any,
) -> Any:
    """Connect to a broker.

    Args:
        url: ``amqp[s]://user:password@host:port/vhost?name=...``; None takes the keywords instead.
        host: Name or address.
        port: Port.
        login: User.
        password: Password.
        virtualhost: Virtual host.
        ssl: Speak TLS.
        loop: Means nothing but the loop that runs.
        ssl_options: ``cafile``, ``certfile``, ``keyfile``, ``no_verify_ssl`` ...
        ssl_context: A ready context instead.
        timeout: Seconds.
        client_properties: Further entries for what the broker shows of us.
        connection_class: A subclass of Connection.
        kwargs: Options, as in the query of a URL: ``heartbeat``, ``channel_max`` ...

    Raises:
        AMQPConnectionError: The broker cannot be reached, or refuses us.
        asyncio.TimeoutError: It took longer.
    """
    target = make_url(
        url,
        host=host,
        port=port,
        login=login,
        password=password,
        virtualhost=virtualhost,
        ssl=ssl,
        ssl_options=ssl_options,
        **{name: value for name, value in kwargs.items() if not callable(value)},
    )
    connection = connection_class(
        target,
        loop=loop,
        ssl_context=ssl_context,
        client_properties=client_properties,
        **kwargs,
    )
    await connection.connect(timeout=timeout)
    return connection


async def connect_url(url: object, loop: asyncio.AbstractEventLoop | None = None) -> Any:
    """What ``connect`` was called for a URL in old programs."""
    return await connect(url, loop=loop)


__all__ = ["URL", "Connection", "connect", "connect_url", "make_url"]
