"""Channel: aioamqp's methods on a channel of evamqp.

A callback is awaited before the next message of its channel is handled, in order, as there.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import evamqp
from evamqp.compat.aioamqp.envelope import Envelope, ReturnEnvelope, envelope_of
from evamqp.compat.aioamqp.exceptions import (
    AioamqpException,
    AmqpClosedConnection,
    ChannelClosed,
    DuplicateConsumerTag,
    EmptyQueue,
    PublishFailed,
    of_channel,
    of_request,
)
from evamqp.compat.aioamqp.properties import Properties, encode, properties_of

if TYPE_CHECKING:
    from evamqp.compat.aioamqp.protocol import AmqpProtocol

log: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")
Arguments: TypeAlias = Mapping[str, Any] | None
#: ``(channel, body, envelope, properties)``, or the older ``(body, envelope, properties)``.
MessageCallback: TypeAlias = Callable[..., Any]
# What a message weighs in the backlog besides its body.
WEIGHT = 1024
# Positional arguments of the callbacks of aioamqp before 0.5.
OLDER_ARITY = 3


class Channel:
    """A channel.

    Args:
        protocol: Its connection.
        channel_id: Its number.
        return_callback: Gets ``(channel, body, envelope, properties)`` of messages returned.
    """

    # Of the instance until it is served: what a subclass does before that finds no channel.
    _channel: evamqp.Channel | None = None

    def __init__(
        self,
        protocol: AmqpProtocol,
        channel_id: int,
        return_callback: MessageCallback | None = None,
    ) -> None:
        self.protocol = protocol
        self.channel_id = channel_id
        self.return_callback = return_callback
        self.consumer_callbacks: dict[str, MessageCallback] = {}
        self.cancellation_callbacks: list[Callable[..., Any]] = []
        self.cancelled_consumers: set[str] = set()
        self.last_consumer_tag: str | None = None
        self.publisher_confirms: bool = False
        self.close_event: asyncio.Event = asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._confirms: dict[int, asyncio.Future[None]] = {}
        self._deliveries: deque[tuple[bool, MessageCallback, evamqp.Message]] = deque()
        self._is_delivering = False

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it."""
        return not self.close_event.is_set()

    async def open(self) -> bool:
        """Wait until it is open; ``protocol.channel()`` calls this."""
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            if self._channel is not None:
                self._channel.close()
            raise
        return True

    async def close(self, reply_code: int = 0, reply_text: str = "Normal Shutdown") -> bool:
        """Close it, and wait for the end.

        Raises:
            ChannelClosed: It is closed already.
            AmqpClosedConnection: The connection is.
        """
        core = await self._usable("the channel is closed already, or closing")
        self.close_event.set()
        await core.close(reply_code, reply_text)
        return True

    async def flow(self, active: bool) -> dict[str, bool]:
        """Stop or resume deliveries; RabbitMQ refuses to stop them."""
        in_force = await self._ask(lambda core: core.flow(active))
        return {"active": in_force is True}

    def connection_closed(
        self,
        server_code: int | None = None,
        server_reason: str | None = None,
        exception: Exception | None = None,
    ) -> None:
        """The channel has ended.  Override it to be called, and call it."""
        if exception is None:
            exception = ChannelClosed(server_code, server_reason)
        self.close_event.set()
        self.protocol.release_channel_id(self.channel_id)
        waiting, self._confirms = [self._opened, *self._confirms.values()], {}
        for future in waiting:
            if not future.done():
                future.set_exception(exception)
                future.exception()  # looked at, so that one that nobody awaits logs nothing

    # Exchanges

    async def exchange_declare(
        self,
        exchange_name: str,
        type_name: str,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        no_wait: bool = False,
        arguments: Arguments = None,
    ) -> bool | None:
        """Create an exchange, or check that it exists."""
        return await self._do(
            lambda core: core.exchange_declare(
                exchange_name, type_name, passive, durable, auto_delete, False, arguments,
                nowait=no_wait,
            )
        )  # fmt: skip

    async def exchange_delete(
        self, exchange_name: str, if_unused: bool = False, no_wait: bool = False
    ) -> bool | None:
        """Delete an exchange."""
        return await self._do(
            lambda core: core.exchange_delete(exchange_name, if_unused, nowait=no_wait)
        )

    async def exchange_bind(
        self,
        exchange_destination: str,
        exchange_source: str,
        routing_key: str,
        no_wait: bool = False,
        arguments: Arguments = None,
    ) -> bool | None:
        """Bind an exchange to an exchange."""
        return await self._do(
            lambda core: core.exchange_bind(
                exchange_destination, exchange_source, routing_key, arguments, nowait=no_wait
            )
        )

    async def exchange_unbind(
        self,
        exchange_destination: str,
        exchange_source: str,
        routing_key: str,
        no_wait: bool = False,
        arguments: Arguments = None,
    ) -> bool | None:
        """Undo ``exchange_bind``."""
        return await self._do(
            lambda core: core.exchange_unbind(
                exchange_destination, exchange_source, routing_key, arguments, nowait=no_wait
            )
        )

    # Queues

    async def queue_declare(
        self,
        queue_name: str | None = None,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        no_wait: bool = False,
        arguments: Arguments = None,
    ) -> dict[str, Any] | None:
        """Create a queue, or check that it exists.

        Args:
            queue_name: None lets the broker choose one.

        Returns:
            ``queue``, ``message_count`` and ``consumer_count``; None with ``no_wait``.
        """
        declared = await self._ask(
            lambda core: core.queue_declare(
                queue_name or "", passive, durable, exclusive, auto_delete, arguments,
                nowait=no_wait,
            )
        )  # fmt: skip
        return None if declared is None else declared._asdict()

    async def queue_delete(
        self,
        queue_name: str,
        if_unused: bool = False,
        if_empty: bool = False,
        no_wait: bool = False,
    ) -> bool | None:
        """Delete a queue."""
        return await self._do(
            lambda core: core.queue_delete(queue_name, if_unused, if_empty, nowait=no_wait)
        )

    async def queue_bind(
        self,
        queue_name: str,
        exchange_name: str,
        routing_key: str,
        no_wait: bool = False,
        arguments: Arguments = None,
    ) -> bool | None:
        """Bind a queue to an exchange."""
        return await self._do(
            lambda core: core.queue_bind(
                queue_name, exchange_name, routing_key, arguments, nowait=no_wait
            )
        )

    async def queue_unbind(
        self,
        queue_name: str,
        exchange_name: str,
        routing_key: str,
        arguments: Arguments = None,
    ) -> bool | None:
        """Undo ``queue_bind``."""
        return await self._do(
            lambda core: core.queue_unbind(queue_name, exchange_name, routing_key, arguments)
        )

    async def queue_purge(self, queue_name: str, no_wait: bool = False) -> dict[str, int] | None:
        """Drop the messages that are ready, and return how many there were."""
        count = await self._ask(lambda core: core.queue_purge(queue_name, nowait=no_wait))
        return None if count is None else {"message_count": count}

    # Publishing

    async def basic_publish(
        self,
        payload: bytes | bytearray | memoryview | str,
        exchange_name: str,
        routing_key: str,
        properties: Mapping[str, Any] | None = None,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        """Publish a message; after ``confirm_select``, wait for its confirm.

        Raises:
            PublishFailed: The broker refused it.
            ValueError: The payload is neither bytes nor str.
            ChannelClosed, AmqpClosedConnection: It was not sent, or nobody knows.
        """
        if type(payload) is not bytes:
            payload = _payload(payload)
        if immediate:
            raise AioamqpException("immediate: no broker implements it")
        encoded = encode(properties)
        core = self._channel
        try:
            if core is None:
                raise evamqp.WrongState("the channel is not open")
            tag = core.basic_publish(exchange_name, routing_key, payload, encoded, bool(mandatory))
            if not tag and core.connection.is_writable:
                return
        except (evamqp.WrongState, evamqp.OutputFull):
            core = await self._usable()
            tag = await self._publish_when_writable(
                core, exchange_name, routing_key, payload, encoded, bool(mandatory)
            )
        if tag:
            confirm = asyncio.get_running_loop().create_future()
            self._confirms[tag] = confirm
            await confirm
        else:
            await self._writable(core)

    publish = basic_publish

    async def _publish_when_writable(self, core: evamqp.Channel, *arguments: Any) -> int:
        while True:
            await self._writable(core)
            try:
                return core.basic_publish(*arguments)
            except evamqp.OutputFull:
                continue
            except evamqp.WrongState:
                await self._usable()
                raise

    async def _writable(self, core: evamqp.Channel) -> None:
        try:
            await core.connection.wait_writable()
        except evamqp.AmqpError as error:
            raise of_request(error) from error

    async def confirm_select(self, *, no_wait: bool = False) -> bool | None:
        """Have the broker confirm each publish from here on.

        Raises:
            ValueError: It does already.
        """
        if self.publisher_confirms:
            raise ValueError("publisher confirms already enabled")
        done = await self._do(lambda core: core.confirm_select(nowait=no_wait))
        self.publisher_confirms = True
        return done

    def _confirmed(self, tags: Any, acked: bool) -> None:
        confirms = self._confirms
        for tag in tags:
            confirm = confirms.pop(tag, None)
            if confirm is None or confirm.done():
                continue
            if acked:
                confirm.set_result(None)
            else:
                confirm.set_exception(PublishFailed(tag))
        if self._channel is not None:
            self._channel.connection.flush_next_turn()  # by those who waited

    def _returned(self, returned: evamqp.Returned) -> None:
        if self.return_callback is None:
            log.warning("channel %d: a message came back and nobody asked for it: %d %s",
                        self.channel_id, returned.code, returned.text)  # fmt: skip
            return
        envelope = ReturnEnvelope(
            returned.code, returned.text, returned.exchange, returned.routing_key
        )
        properties = properties_of(returned.properties)
        self.protocol.spawn(
            self._call(self.return_callback, self, returned.body, envelope, properties)
        )

    # Consuming

    async def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, connection_global: bool = False
    ) -> bool | None:
        """Limit the messages under way."""
        if prefetch_size:
            raise AioamqpException("prefetch_size: RabbitMQ closes the connection over it")
        return await self._do(
            lambda core: core.basic_qos(prefetch_count, across_consumers=connection_global)
        )

    async def basic_consume(
        self,
        callback: MessageCallback,
        queue_name: str = "",
        consumer_tag: str = "",
        no_local: bool = False,
        no_ack: bool = False,
        exclusive: bool = False,
        no_wait: bool = False,
        arguments: Arguments = None,
    ) -> dict[str, str]:
        """Start a consumer.

        Args:
            callback: A coroutine function, or a plain one.

        Returns:
            ``consumer_tag``.

        Raises:
            DuplicateConsumerTag: The channel has it already.
        """
        core = await self._usable()
        started = asyncio.get_running_loop().create_future()
        is_older = _takes(callback, OLDER_ARITY)

        def take(message: evamqp.Message) -> None:
            self._deliveries.append((is_older, callback, message))
            self.protocol.delayed(len(message.body) + WEIGHT)
            if not self._is_delivering:
                self._is_delivering = True
                self.protocol.spawn(self._deliver())

        try:
            tag = core.basic_consume(
                queue_name, take, no_ack, exclusive, consumer_tag, arguments,
                callback=lambda tag: _settle(started, None),
                on_error=lambda error: _settle(started, error),
            )  # fmt: skip
        except evamqp.BadArgument as error:
            raise DuplicateConsumerTag(consumer_tag) from error
        self.consumer_callbacks[tag] = callback
        self.last_consumer_tag = tag
        if not no_wait:
            try:
                await self._answer(started)
            except asyncio.CancelledError:
                if core.is_open:
                    core.basic_cancel(tag)
                raise
        return {"consumer_tag": tag}

    async def _deliver(self) -> None:
        """Hand over what has come, one after the other."""
        deliveries = self._deliveries
        try:
            while deliveries:
                is_older, callback, message = deliveries.popleft()
                self.protocol.delayed(-len(message.body) - WEIGHT)
                if self._channel is None and not message.is_settled:
                    continue  # the broker has it again
                envelope, properties = envelope_of(message), properties_of(message.properties)
                try:
                    if is_older:
                        result = callback(message.body, envelope, properties)
                    else:
                        result = callback(self, message.body, envelope, properties)
                    if result is not None:
                        await result
                except Exception:
                    log.exception("a consumer's callback raised")
        finally:
            self._is_delivering = False

    async def basic_cancel(self, consumer_tag: str, no_wait: bool = False) -> dict[str, str] | None:
        """Stop a consumer."""
        core = await self._usable()
        self.consumer_callbacks.pop(consumer_tag, None)
        request = core.basic_cancel(consumer_tag)
        if no_wait:
            return None
        return {"consumer_tag": await self._answer(request)}

    async def basic_get(self, queue_name: str = "", no_ack: bool = False) -> dict[str, Any]:
        """Take one message.

        Returns:
            ``message`` (the body), ``properties``, ``delivery_tag``, ``redelivered``,
            ``exchange_name``, ``routing_key`` and ``message_count``, how many are left.

        Raises:
            EmptyQueue: There is none.
        """
        requests: list[evamqp.Request[evamqp.Message | None]] = []

        def send(core: evamqp.Channel) -> evamqp.Request[evamqp.Message | None]:
            requests.append(core.basic_get(queue_name, no_ack))
            return requests[0]

        try:
            message = await self._ask(send)
        except asyncio.CancelledError:
            if requests:
                _give_back(requests[0])
            raise
        if message is None:
            raise EmptyQueue
        return {
            "delivery_tag": message.delivery_tag,
            "redelivered": message.redelivered,
            "exchange_name": message.exchange,
            "routing_key": message.routing_key,
            "message_count": message.message_count,
            "message": message.body,
            "properties": properties_of(message.properties),
        }

    async def basic_client_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge a message."""
        core = self._channel
        if core is None or not core.is_open:
            core = await self._usable()
        core.basic_ack(delivery_tag, multiple)

    async def basic_client_nack(
        self, delivery_tag: int, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse a message."""
        (await self._usable()).basic_nack(delivery_tag, multiple, requeue)

    async def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Refuse a message."""
        (await self._usable()).basic_reject(delivery_tag, requeue)

    async def basic_recover(self, requeue: bool = True) -> bool | None:
        """Have what is not acknowledged delivered again."""
        return await self._do(lambda core: core.basic_recover(requeue))

    async def basic_recover_async(self, requeue: bool = True) -> None:
        """The same without waiting."""
        (await self._usable()).basic_recover(requeue)

    def add_cancellation_callback(self, callback: Callable[..., Any]) -> None:
        """Have ``callback(channel, consumer_tag)`` called when the broker cancels a consumer."""
        self.cancellation_callbacks.append(callback)

    def _consumer_cancelled(self, consumer_tag: str) -> None:
        self.cancelled_consumers.add(consumer_tag)
        self.consumer_callbacks.pop(consumer_tag, None)
        for callback in self.cancellation_callbacks:
            self.protocol.spawn(self._call(callback, self, consumer_tag))

    # The aliases of old programs.
    queue = queue_declare
    exchange = exchange_declare

    # How a request is made.

    async def _usable(self, closed: str = "Channel is closed") -> evamqp.Channel:
        """The channel of evamqp, if requests may be made on it."""
        await self.protocol.ensure_open()
        core = self._channel
        if core is None or core.reason is not None:
            raise ChannelClosed(0, closed)
        return core

    async def _ask(self, send: Callable[[evamqp.Channel], evamqp.Request[T]]) -> T | None:
        """Send a request, and wait for its answer; None without one."""
        core = await self._usable()
        try:
            request: evamqp.Request[T] | None = send(core)
        except evamqp.WrongState as error:
            raise AmqpClosedConnection(str(error)) from error
        if request is None:
            return None
        return await self._answer(request)  # type: ignore[no-any-return]

    async def _do(self, send: Callable[[evamqp.Channel], evamqp.Request[Any]]) -> bool | None:
        """Send a request whose answer says only that it was done."""
        requests: list[object] = []

        def send_noted(core: evamqp.Channel) -> evamqp.Request[Any]:
            requests.append(request := send(core))
            return request

        await self._ask(send_noted)
        return None if requests == [None] else True

    async def _answer(self, request: Any) -> Any:
        try:
            return await self.protocol.answer(request)
        except evamqp.AmqpError as error:
            raise of_request(error) from error

    async def _call(self, function: Callable[..., Any], *arguments: object) -> None:
        """Call a function of the user's, plain or not."""
        try:
            result = function(*arguments)
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("%r raised", function)


class Events(evamqp.Handler):
    """What a channel hears of its channel of evamqp."""

    _channel: Channel

    def serve(self, channel: Channel, core: evamqp.Channel) -> None:
        self._channel = channel
        channel._channel = core

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        if not self._channel._opened.done():
            self._channel._opened.set_result(None)

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        mine = self._channel
        mine._channel = None
        if reason.by == "broker":
            log.warning("channel %d was closed: %s", mine.channel_id, reason)
            mine.connection_closed(reason.code, reason.text)
        else:
            mine.connection_closed(exception=of_channel(reason))

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Any, acked: bool) -> None:
        self._channel._confirmed(tags, acked)

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        self._channel._returned(returned)

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        self._channel._consumer_cancelled(consumer_tag)


def _give_back(request: evamqp.Request[evamqp.Message | None]) -> None:
    """Nobody will see what a get brings, or has brought already."""
    if not request.is_done:
        request.cancel()
        return
    future = request.future
    message = None if future.exception() is not None else future.result()
    if message is not None and not message.is_settled:
        message.nack()


def _payload(payload: object) -> bytes:
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    raise ValueError("payload must be bytes type")


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function takes so many positional arguments, and no more."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variable = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return len(positional) == count and not variable


__all__ = ["Channel", "Envelope", "Properties", "ReturnEnvelope"]
