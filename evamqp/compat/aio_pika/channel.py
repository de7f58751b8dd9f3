"""Channel: declares, publishes and consumes on one channel of evamqp.

What survives the loss of a connection is ``robust_channel.py``'s business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import uuid4

import evamqp
from evamqp.compat.aio_pika.exceptions import (
    ChannelInvalidStateError,
    DuplicateConsumerTag,
    of_channel,
    of_error,
)
from evamqp.compat.aio_pika.exchange import Exchange, ExchangeType
from evamqp.compat.aio_pika.handlers import Handlers
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.message import Message
from evamqp.compat.aio_pika.pamqp import commands
from evamqp.compat.aio_pika.publishing import Confirm, Confirms, PublishResult
from evamqp.compat.aio_pika.queue import Queue
from evamqp.compat.aio_pika.tools import DONE, CallbackCollection, Waiting, within
from evamqp.compat.aio_pika.transaction import Transaction

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.connection import Connection

log: logging.Logger = get_logger(__name__)

T = TypeVar("T")
C = TypeVar("C", bound="Channel")


class Channel:
    """A channel; ``connection.channel()`` makes it, ``await`` or ``async with`` opens it.

    Args:
        connection: Its connection.
        channel_number: None has evamqp choose.
        publisher_confirms: Have the broker confirm each publish.
        on_return_raises: Have ``publish`` raise for a message that no queue takes.

    Raises:
        RuntimeError: ``on_return_raises`` without confirms.

    Attributes:
        close_callbacks: Called with this and the reason, None if it was asked for.
        return_callbacks: Called with this and each ReturnedMessage.
        default_exchange: The exchange that reaches each queue by its name.
    """

    QUEUE_CLASS: type[Queue] = Queue
    EXCHANGE_CLASS: type[Exchange] = Exchange

    def __init__(
        self,
        connection: Connection,
        channel_number: int | None = None,
        publisher_confirms: bool = True,
        on_return_raises: bool = False,
    ) -> None:
        if on_return_raises and not publisher_confirms:
            raise RuntimeError('"on_return_raises" needs "publisher_confirms"')
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[Literal[True]] = self._loop.create_future()
        self._core: evamqp.Channel | None = None
        self._number = channel_number
        self._wanted_number = channel_number
        self._opened: asyncio.Future[None] | None = None
        self._confirms = Confirms(self)
        self._handlers = Handlers()
        self.publisher_confirms = publisher_confirms
        self.on_return_raises = on_return_raises
        self.close_callbacks: CallbackCollection[Channel] = CallbackCollection(self)
        self.return_callbacks: CallbackCollection[Channel] = CallbackCollection(self)
        self.default_exchange: Exchange = self.EXCHANGE_CLASS(self, "", ExchangeType.DIRECT)

    def __str__(self) -> str:
        return str(self.number or "Not initialized channel")

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "open"
        return f"<{type(self).__name__} {self} {state}>"

    @property
    def is_initialized(self) -> bool:
        """Whether it was opened."""
        return self._opened is not None

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be done on it now."""
        core = self._core
        return core is None or core.reason is not None

    @property
    def number(self) -> int | None:
        """Its number, or its last one; None before it is open."""
        return self._number

    def closed(self) -> Awaitable[Literal[True]]:
        """Wait until it is closed for good."""
        return asyncio.shield(self._closed)

    # Opening and closing

    async def initialize(self, timeout: float | None = None) -> None:
        """Open it; awaiting the channel does this.

        Raises:
            RuntimeError: It was opened before.
        """
        if self.is_initialized:
            raise RuntimeError("Already initialized")
        await self._open(timeout)

    async def _open(self, timeout: float | None = None) -> None:
        self._start(self._connection.usable())
        self._connection.add(self)
        assert self._opened is not None
        try:
            await within(timeout, asyncio.shield(self._opened))
        except evamqp.AmqpError as error:
            raise of_error(error) from error
        except BaseException:
            if self._core is not None:
                self._core.close()
            raise

    def _start(self, connection: evamqp.Connection) -> evamqp.Channel:
        """Open a channel of evamqp; it is usable at once, since requests are pipelined."""
        self._opened = self._loop.create_future()
        try:
            core = connection.channel(_Events(self), number=self._wanted_number)
        except evamqp.WrongState as error:
            raise of_error(error) from error
        self._core = core
        self._number = core.number
        if self.publisher_confirms:
            core.confirm_select()
        return core

    async def close(self, exc: BaseException | type[BaseException] | None = None) -> None:
        """Close it.  Handlers that run are cancelled, but for one that calls this."""
        core = self._core
        self.cancel_handlers()
        if core is not None:
            await core.close()
        if not self._closed.done():
            self._closed.set_result(True)

    def cancel_handlers(self) -> None:
        """Give up the handlers that run, but for one that calls this."""
        self._handlers.cancel()

    async def reopen(self) -> None:
        """Open it again after it was closed."""
        if self._closed.done():
            self._closed = self._loop.create_future()
        await self._open()

    def __await__(self: C) -> Generator[Any, Any, C]:
        yield from self.initialize().__await__()
        return self

    async def __aenter__(self: C) -> C:
        if not self.is_initialized:
            await self.initialize()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(error)

    # Called by evamqp.

    def _is_open(self, core: evamqp.Channel) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def _has_closed(self, core: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        if core is not self._core:
            return
        self._core = None
        error = of_channel(reason)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(reason.copy())
            self._opened.exception()  # looked at, so that nobody else has to
        if reason.by == "broker":
            log.warning("%r was closed: %s", self, reason)
        self._handlers.cancel()
        self._confirms.fail(error)
        self._ended(None if reason.by == "client" else error)

    def _ended(self, error: Exception | None) -> None:
        """The evamqp channel has ended, and everyone who waited for it has the reason."""
        self._connection.discard(self)
        self._handlers.end_iterators()
        self.close_callbacks(error)
        if not self._closed.done():
            self._closed.set_result(True)

    def _consumer_cancelled(self, consumer_tag: str) -> None:
        log.warning("%r: the broker cancelled consumer %r", self, consumer_tag)
        self._handlers.end_iterators(consumer_tag)

    # Requests

    async def _usable(self) -> evamqp.Channel:
        """The channel of evamqp, when requests may be made on it.

        Raises:
            ChannelInvalidStateError: It is closed.
        """
        core = self._core
        if core is None or core.reason is not None:
            raise ChannelInvalidStateError(f"{self!r} closed")
        return core

    async def ask(
        self, send: Callable[[evamqp.Channel], evamqp.Request[T]], timeout: float | None = None
    ) -> T | None:
        """Send a request to the broker, and wait for its answer; None without one.

        Args:
            send: Calls a method of evamqp's channel.
            timeout: Seconds; None means evamqp's ``request_timeout``.
        """
        core = await self._usable()
        try:
            request: evamqp.Request[T] | None = send(core)
            return None if request is None else await within(timeout, request)
        except evamqp.AmqpError as error:
            raise of_error(error) from error

    async def get_underlay_channel(self) -> evamqp.Channel:
        """evamqp's own channel."""
        return await self._usable()

    async def declare_exchange(
        self,
        name: str,
        type: ExchangeType | str = ExchangeType.DIRECT,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        passive: bool = False,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Exchange:
        """Create an exchange, or (``passive``) check that it exists.

        Raises:
            ChannelPreconditionFailed: It exists and differs; the channel is closed.
            ChannelNotFoundEntity: It does not exist; the channel is closed.
        """
        exchange = self.EXCHANGE_CLASS(
            self,
            name,
            type,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            passive=passive,
            arguments=arguments,
        )
        await exchange.declare(timeout)
        return exchange

    async def get_exchange(self, name: str, *, ensure: bool = True) -> Exchange:
        """An exchange that exists; ``ensure`` checks that it does."""
        if ensure:
            return await self.declare_exchange(name, passive=True)
        return self.EXCHANGE_CLASS(self, name, passive=True)

    async def declare_queue(
        self,
        name: str | None = None,
        *,
        durable: bool = False,
        exclusive: bool = False,
        passive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Queue:
        """Create a queue, or (``passive``) check that it exists.

        Args:
            name: None has one made.

        Raises:
            ChannelPreconditionFailed: It exists and differs; the channel is closed.
            ChannelNotFoundEntity: It does not exist; the channel is closed.
        """
        queue = self.QUEUE_CLASS(
            self, name, durable, exclusive, auto_delete, arguments, passive=passive
        )
        await queue.declare(timeout)
        self.close_callbacks.add(queue.close_callbacks)
        return queue

    async def get_queue(self, name: str, *, ensure: bool = True) -> Queue:
        """A queue that exists; ``ensure`` checks that it does."""
        if ensure:
            return await self.declare_queue(name, passive=True)
        return self.QUEUE_CLASS(self, name, False, False, False, None, passive=True)

    async def set_qos(
        self,
        prefetch_count: int = 0,
        prefetch_size: int = 0,
        global_: bool = False,
        timeout: float | None = None,
        all_channels: bool | None = None,
    ) -> commands.Basic.QosOk:
        """Limit the messages under way to each consumer that comes after this.

        Raises:
            NotImplementedError: ``prefetch_size``, over which RabbitMQ closes the connection.
        """
        if prefetch_size:
            raise NotImplementedError("prefetch_size: RabbitMQ closes the connection over it")
        across = global_ if all_channels is None else all_channels
        await self.ask(
            lambda core: core.basic_qos(prefetch_count, across_consumers=across), timeout
        )
        return commands.Basic.QosOk()

    async def queue_delete(
        self,
        queue_name: str,
        timeout: float | None = None,
        if_unused: bool = False,
        if_empty: bool = False,
        nowait: bool = False,
    ) -> commands.Queue.DeleteOk | None:
        """Delete a queue."""
        count = await self.ask(
            lambda core: core.queue_delete(queue_name, if_unused, if_empty, nowait=nowait), timeout
        )
        return None if nowait else commands.Queue.DeleteOk(count)

    async def exchange_delete(
        self,
        exchange_name: str,
        timeout: float | None = None,
        if_unused: bool = False,
        nowait: bool = False,
    ) -> commands.Exchange.DeleteOk | None:
        """Delete an exchange."""
        await self.ask(
            lambda core: core.exchange_delete(exchange_name, if_unused, nowait=nowait), timeout
        )
        return None if nowait else commands.Exchange.DeleteOk()

    async def flow(self, active: bool = True) -> commands.Channel.FlowOk:
        """Stop or resume deliveries; RabbitMQ refuses to stop them."""
        return commands.Channel.FlowOk(await self.ask(lambda core: core.flow(active)))

    def transaction(self) -> Transaction:
        """A transaction.

        Raises:
            RuntimeError: The channel has confirms on.
        """
        if self.publisher_confirms:
            raise RuntimeError("a transaction needs a channel with publisher_confirms=False")
        return Transaction(self)

    # Publishing

    def publish(
        self,
        exchange: str,
        message: Message,
        routing_key: str,
        mandatory: bool,
        timeout: float | None,
    ) -> Coroutine[Any, Any, PublishResult]:
        """What ``Exchange.publish`` does."""
        core = self._core
        if core is None:
            raise ChannelInvalidStateError(f"{self!r} closed")
        return self._publish(core, exchange, message, routing_key, mandatory, timeout)

    def _publish(
        self,
        core: evamqp.Channel,
        exchange: str,
        message: Message,
        routing_key: str,
        mandatory: bool,
        timeout: float | None,
    ) -> Coroutine[Any, Any, PublishResult]:
        message_id, body = message.id_to_send(), message.body
        try:
            tag = core.basic_publish(
                exchange, routing_key, body, message.encode(message_id), mandatory
            )
        except evamqp.OutputFull:
            later = self._publish_when_writable(
                core, exchange, message, routing_key, mandatory, timeout
            )
            published = asyncio.ensure_future(later)
            return Waiting(lambda: published)
        except evamqp.AmqpError as error:
            raise of_error(error) from error
        if not tag:
            if core.connection.is_writable:
                return DONE
            return Waiting(partial(self._writable, core))
        confirm = Confirm(exchange, routing_key, body, message_id)
        self._confirms.add(tag, confirm)
        return confirm if timeout is None else Waiting(partial(asyncio.wait_for, confirm, timeout))

    async def _publish_when_writable(
        self, core: evamqp.Channel, exchange: str, message: Message, *how: Any
    ) -> PublishResult:
        await self._writable(core)
        return await self._publish(core, exchange, message, *how)

    async def _writable(self, core: evamqp.Channel) -> None:
        try:
            await core.connection.wait_writable()
        except evamqp.AmqpError as error:
            raise of_error(error) from error

    # Consuming

    async def consume(
        self,
        queue: str,
        take: Callable[[evamqp.Message], object],
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        consumer_tag: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Start a consumer whose messages, as evamqp has them, go to ``take``."""
        core = await self._usable()
        # A robust channel keeps its tags, so they must not be those of evamqp's next channel.
        consumer_tag = consumer_tag or f"ctag{self.number}.{uuid4().hex}"
        started: asyncio.Future[None] = self._loop.create_future()
        try:
            tag = core.basic_consume(
                queue, take, no_ack, exclusive, consumer_tag, arguments,
                callback=lambda _: _settle(started, None),
                on_error=lambda error: _settle(started, error),
            )  # fmt: skip
        except evamqp.BadArgument as error:
            raise DuplicateConsumerTag(str(error)) from error
        except evamqp.AmqpError as error:
            raise of_error(error) from error
        try:
            await within(timeout, started)
        except evamqp.AmqpError as error:
            raise of_error(error) from error
        except BaseException:
            self.forget_consumer(tag)
            raise
        return tag

    def forget_consumer(self, consumer_tag: str) -> evamqp.Request[str] | None:
        """Stop a consumer without waiting; None if there is no channel any more."""
        core = self._core
        if core is None or core.reason is not None:
            return None
        return core.basic_cancel(consumer_tag)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class _Events(evamqp.Handler):
    """What a channel hears of one of evamqp's."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self._channel._is_open(channel)

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self._channel._has_closed(channel, reason)

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: Sequence[int], acked: bool
    ) -> None:
        self._channel._confirms.confirmed(tags, acked)
        channel.connection.flush_next_turn()  # by those who waited

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        self._channel._confirms.returned(returned)

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        self._channel._consumer_cancelled(consumer_tag)

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        log.error("%s raised %r", context.callback, error, exc_info=error)


__all__ = ["Channel"]
