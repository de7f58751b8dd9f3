"""AmqpProtocol: one connection, as aioamqp's programs hold and subclass it.

The connection itself is evamqp's; nothing of a channel is decided here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import evamqp
from evamqp.compat.aioamqp.channel import Channel, Events
from evamqp.compat.aioamqp.exceptions import (
    AioamqpException,
    AmqpClosedConnection,
    NoChannelAvailable,
    of_connection,
)

log: logging.Logger = logging.getLogger(__name__)

CONNECTING, OPEN, CLOSING, CLOSED = range(4)
# Bytes of messages that wait for their callbacks, above which nothing more is read.
BACKLOG = 16 * 1024 * 1024

ErrorCallback = Callable[[Exception], Any]


class ProtocolFactory(Protocol):
    """A subclass of AmqpProtocol, or what makes one."""

    def __call__(self, **kwargs: Any) -> AmqpProtocol: ...


class Transport(asyncio.BaseTransport):
    """What ``connect`` returns first: the end of a connection in one method."""

    def __init__(self, connection: evamqp.Connection) -> None:
        parameters = connection.parameters
        assert parameters is not None
        super().__init__({"peername": (parameters.host, parameters.port)})
        self._connection = connection

    def close(self) -> None:
        """Close the connection in order.  Idempotent."""
        self._connection.close()

    def abort(self) -> None:
        """The same; it is bounded in time."""
        self._connection.close()

    def is_closing(self) -> bool:
        return not self._connection.is_open


class AmqpProtocol:
    """A connection.

    Args:
        on_error: A function, or a coroutine function, that gets the reason once the connection
            has ended.
        client_properties: Further entries for what the broker shows of us.
        channel_max: Channels asked for; 0 leaves it to the broker.
        frame_max: Bytes of a frame asked for; 0 leaves it to the broker.
        heartbeat: Seconds asked for.

    Attributes:
        state: CONNECTING, OPEN, CLOSING or CLOSED.
        channels: By number.
    """

    CHANNEL_FACTORY: Callable[..., Channel] = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._on_error_callback: ErrorCallback | None = kwargs.get("on_error")
        self.client_properties: dict[str, Any] = kwargs.get("client_properties") or {}
        self.connection_tunning: dict[str, int] = {
            name: kwargs[name]
            for name in ("channel_max", "frame_max", "heartbeat")
            if name in kwargs
        }
        self.state: int = CONNECTING
        self.connection_closed: asyncio.Event = asyncio.Event()
        self.stop_now: asyncio.Event = asyncio.Event()
        self.version_major: int = 0
        self.version_minor: int = 9
        self.server_properties: dict[str, Any] | None = None
        self.server_channel_max: int | None = None
        self.server_frame_max: int | None = None
        self.server_heartbeat: int | None = None
        self.channels: dict[int, Channel] = {}
        self.transport: Transport | None = None
        self._connection: evamqp.Connection | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._backlog = 0
        self._questions = 0

    async def start_connection(
        self,
        host: str,
        port: int | None,
        login: str,
        password: str,
        virtualhost: str,
        ssl: bool | ssl_module.SSLContext | None = None,
        login_method: str = "PLAIN",
        insist: bool = False,
    ) -> None:
        """Connect, and wait until it is open; ``connect`` calls this."""
        wanted = {name: value for name, value in self.connection_tunning.items() if value}
        parameters = evamqp.Parameters(
            host,
            port or (5671 if ssl else 5672),
            virtualhost,
            evamqp.Credentials(login, password),
            mechanisms=(login_method,),
            tls=bool(ssl),
            ssl_context=ssl if isinstance(ssl, ssl_module.SSLContext) else None,
            client_properties=self.client_properties,
            **wanted,  # type: ignore[arg-type]
        )
        connection = self._connection = evamqp.connect(parameters, on_close=self._closed)
        try:
            await connection.wait_open()
        except evamqp.ConnectFailed as error:
            raise _cause_of(error) from error
        except evamqp.ConnectionClosed as error:
            raise AmqpClosedConnection(str(error)) from error
        except asyncio.CancelledError:
            connection.close()
            raise
        self.state = OPEN
        self.server_properties = dict(connection.server_properties)
        self.server_channel_max = connection.channel_max
        self.server_frame_max = connection.frame_max
        self.server_heartbeat = connection.heartbeat
        self.connection_made(Transport(connection))

    def connection_made(self, transport: Transport) -> None:
        """The connection is open.  Override it to be called, and call it."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended.  Override it to be called, and call it.

        Args:
            exc: Why; None if this side closed it.
        """
        self.state = CLOSED
        self.stop_now.set()
        self.connection_closed.set()

    def _closed(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        was_open = self.state != CONNECTING
        error = of_connection(reason)
        self.connection_lost(None if reason.by == "client" else error)
        if not was_open:
            return
        if reason.by != "client":
            log.warning("the connection was lost: %s", reason)
        if self._on_error_callback is not None:
            result = self._on_error_callback(error)
            if inspect.isawaitable(result):
                self.spawn(_finish(result))

    async def ensure_open(self) -> None:
        """Raise unless the connection is open; wait for one that closes to be closed.

        Raises:
            AmqpClosedConnection: It is closed.
            AioamqpException: It is not open yet.
        """
        if self.state == OPEN:
            return
        if self.state == CONNECTING:
            raise AioamqpException("the connection is not open yet")
        await self.wait_closed()
        raise AmqpClosedConnection

    async def close(self, no_wait: bool = False, timeout: float | None = None) -> None:
        """Close the connection and all its channels.

        Args:
            no_wait: Do not wait for the end.
            timeout: Seconds to wait for it.

        Raises:
            AmqpClosedConnection: It is closed already.
            asyncio.TimeoutError: It did not end in time; it will.
        """
        await self.ensure_open()
        assert self._connection is not None
        self.state = CLOSING
        self._connection.close()
        if not no_wait:
            await self.wait_closed(timeout)

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        await asyncio.wait_for(self.connection_closed.wait(), timeout)

    async def channel(self, **kwargs: Any) -> Channel:
        """Open a channel.

        Args:
            kwargs: ``return_callback``, or what CHANNEL_FACTORY takes.

        Raises:
            NoChannelAvailable: All numbers are in use.
            AmqpClosedConnection, ChannelClosed: It could not be opened.
        """
        await self.ensure_open()
        assert self._connection is not None
        events = Events()
        try:
            core = self._connection.channel(events)
        except evamqp.WrongState as error:
            if self._connection.is_open:
                raise NoChannelAvailable(str(error)) from error
            raise AmqpClosedConnection(str(error)) from error
        channel = self.CHANNEL_FACTORY(self, core.number, **kwargs)
        self.channels[core.number] = channel
        events.serve(channel, core)
        await channel.open()
        return channel

    def release_channel_id(self, channel_id: int) -> None:
        """A channel has ended; its number may come again."""
        self.channels.pop(channel_id, None)

    @property
    def channels_ids_count(self) -> int:
        """Channels that are open."""
        return len(self.channels)

    async def heartbeat(self) -> None:
        """Wait for the end; heartbeats are sent by evamqp."""
        await self.stop_now.wait()

    async def send_heartbeat(self) -> None:
        """Do nothing: heartbeats are sent by evamqp."""

    # For channels.

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine beside us."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def delayed(self, size: int) -> None:
        """So many bytes more (or, negative, less) wait for their callbacks."""
        self._backlog += size
        self._regulate()

    async def answer(self, request: Awaitable[Any]) -> Any:
        """Wait for the broker's answer, which has to be read whatever waits."""
        self._questions += 1
        self._regulate()
        try:
            return await request
        finally:
            self._questions -= 1
            self._regulate()

    def _regulate(self) -> None:
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        if connection.reading:
            if self._backlog > BACKLOG and not self._questions:
                connection.pause_reading()
        elif self._backlog <= BACKLOG // 2 or self._questions:
            connection.resume_reading()


def _cause_of(error: evamqp.ConnectFailed) -> BaseException:
    """What the socket, or the name's resolution, said."""
    for _, cause in reversed(error.attempts):
        if isinstance(cause, OSError):
            return cause
    return AmqpClosedConnection(str(error))


async def _finish(result: Awaitable[object]) -> None:
    try:
        await result
    except Exception:
        log.exception("on_error raised")
