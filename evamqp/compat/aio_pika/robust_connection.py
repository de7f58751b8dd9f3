"""RobustConnection and ``connect_robust``: evamqp's Reconnector under aio-pika's names."""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
from collections.abc import Mapping
from typing import Any

import evamqp
from evamqp.compat.aio_pika.channel import Channel
from evamqp.compat.aio_pika.connection import Connection, connect
from evamqp.compat.aio_pika.exceptions import of_connection
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.robust_channel import RobustChannel
from evamqp.compat.aio_pika.tools import CallbackCollection, within
from evamqp.compat.aio_pika.url import credentials_of, is_true

log: logging.Logger = get_logger(__name__)


class RobustConnection(Connection):
    """A connection that comes back; ``connect_robust`` makes it.

    Args:
        url: Where to; the query holds options.
        loop: Means nothing but the loop that runs.
        kwargs: Options that win over those of the URL: ``reconnect_interval``, the longest wait
            between two attempts in seconds; ``fail_fast``, whether ``connect`` raises when the
            first attempt fails; ``republish_unconfirmed``, evamqp's own, see the attribute.

    Attributes:
        reconnect_callbacks: Called with this each time it is open again.
        republish_unconfirmed: Whether what a loss left unconfirmed is published again; aio-pika
            lets the caller know instead, who then has to.
        reconnector: evamqp's, which does the work.
    """

    CHANNEL_CLASS: type[Channel] = RobustChannel
    reconnector: evamqp.Reconnector

    def __init__(
        self, url: object, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any
    ) -> None:
        super().__init__(url, loop, **kwargs)
        self.reconnect_interval: float = float(self.kwargs.pop("reconnect_interval", 5))
        self.fail_fast: bool = is_true(self.kwargs.pop("fail_fast", True))
        self.republish_unconfirmed: bool = is_true(self.kwargs.pop("republish_unconfirmed", True))
        self.connection_attempt: int = 0
        self.reconnect_callbacks: CallbackCollection[RobustConnection] = CallbackCollection(self)
        self._first: asyncio.Future[None] | None = None

    @property
    def reconnecting(self) -> bool:
        """Whether it is lost, and being opened again."""
        return self._first is not None and not self.connected.is_set() and not self.is_closed

    async def connect(self, timeout: float | None = None) -> None:
        """Open it; ``connect_robust`` calls this.

        Raises:
            AMQPConnectionError: The first attempt failed, and ``fail_fast`` is set.
            RuntimeError: It is closed, or was opened before.
        """
        if self.is_closed or self._first is not None:
            raise RuntimeError(f"{self!r} is closed, or was opened before")
        self._first = self.loop.create_future()
        self.reconnector = evamqp.Reconnector(
            self._parameters(timeout),
            handler=_Events(self),
            backoff=_Interval(self.reconnect_interval),
        )
        try:
            await within(timeout if self.fail_fast else None, asyncio.shield(self._first))
        except BaseException:
            await self.close()
            raise

    def _parameters(self, timeout: float | None) -> evamqp.Parameters:
        # Asked for at every attempt, so that update_secret() lasts.
        first = super()._parameters(timeout)
        return first.replace(credentials=lambda: credentials_of(self.url))

    async def reconnect(self) -> None:
        """Leave the connection for a new one, and wait for it."""
        connection = self.transport
        if connection is not None:
            self.connected.clear()
            connection.close()
        await self.race(self.connected.wait())

    # Called by the reconnector.

    def opened(self, connection: evamqp.Connection) -> None:
        """A connection is ready, its topology declared."""
        self.transport = connection
        is_first = not self.connection_attempt
        self.connection_attempt += 1
        self.connected.set()
        for channel in tuple(self._channels):
            assert isinstance(channel, RobustChannel)
            channel.connected(connection)
        if not is_first:
            self.reconnect_callbacks()
        elif self._first is not None and not self._first.done():
            self._first.set_result(None)

    def failed(self, reason: evamqp.ConnectionClosed) -> None:
        """An attempt failed."""
        first = self._first
        if self.fail_fast and first is not None and not first.done():
            first.set_exception(of_connection(reason))
            first.exception()  # looked at: connect() may have been cancelled

    def lost(self, reason: evamqp.ConnectionClosed) -> None:
        """The connection has ended."""
        self.transport = None
        self.connected.clear()
        if not self._close_called:
            log.warning("%r was lost: %s", self, reason)
        self.close_callbacks(None if self._close_called else of_connection(reason))

    def _is_begun(self) -> bool:
        return self._first is not None

    async def close(self, exc: BaseException | type[BaseException] | None = None) -> None:
        """Close it for good, and its channels.  Idempotent."""
        self._close_called = True
        if self._first is not None:
            for channel in tuple(self._channels):
                await channel.close()
            await self.reconnector.close()
        if not self._closed.done():
            self._closed.set_result(True)


class _Interval(evamqp.Backoff):
    """At once, then after a random and growing wait, up to an interval."""

    __slots__ = ("_interval",)

    def __init__(self, interval: float) -> None:
        super().__init__()
        self._interval = interval

    def next(self, retry: Any = "soon") -> float:
        return min(super().next(retry), self._interval)


class _Events(evamqp.Handler):
    """What a robust connection hears of each of evamqp's."""

    def __init__(self, connection: RobustConnection) -> None:
        self._connection = connection

    def on_open(self, connection: evamqp.Connection) -> None:
        self._connection.opened(connection)

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self._connection.failed(error)

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self._connection.lost(reason)


async def connect_robust(
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
    connection_class: type[Any] = RobustConnection,
    **kwargs: Any,
) -> Any:
    """Connect to a broker, and connect again whenever that is lost.

    Args:
        kwargs: ``reconnect_interval``, ``fail_fast`` and ``republish_unconfirmed``, see
            RobustConnection.  All else is as for ``connect``.

    Raises:
        AMQPConnectionError: The first attempt failed, and ``fail_fast`` is set.
        asyncio.TimeoutError: It took longer.
    """
    return await connect(
        url,
        host=host,
        port=port,
        login=login,
        password=password,
        virtualhost=virtualhost,
        ssl=ssl,
        loop=loop,
        ssl_options=ssl_options,
        ssl_context=ssl_context,
        timeout=timeout,
        client_properties=client_properties,
        connection_class=connection_class,
        **kwargs,
    )


__all__ = ["RobustConnection", "connect_robust"]
