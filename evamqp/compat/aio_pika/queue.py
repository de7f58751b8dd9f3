"""Queue: consumes, gets, binds; and QueueIterator, its messages for ``async for``.

The iterator is a deque and who waits for it: no task belongs to a message.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import evamqp
from evamqp.compat.aio_pika.exceptions import QueueEmpty
from evamqp.compat.aio_pika.exchange import ExchangeParamType, get_exchange_name
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.message import IncomingMessage, incoming
from evamqp.compat.aio_pika.pamqp import commands
from evamqp.compat.aio_pika.tools import CallbackCollection, within

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.channel import Channel

log: logging.Logger = get_logger(__name__)

ConsumerTag: TypeAlias = str


class Queue:
    """A queue of a channel; ``channel.declare_queue`` makes it.

    Attributes:
        declaration_result: The broker's words: name, messages, consumers.
        close_callbacks: Called with this and the reason when its channel closes.
    """

    def __init__(
        self,
        channel: Channel,
        name: str | None,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        passive: bool = False,
    ) -> None:
        self.channel = channel
        self.name: str = name or ""
        self.durable = durable
        self.exclusive = exclusive
        self.auto_delete = auto_delete
        self.arguments = arguments
        self.passive = passive
        self.declaration_result: commands.Queue.DeclareOk
        self.close_callbacks: CallbackCollection[Queue] = CallbackCollection(self)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}({self}): auto_delete={self.auto_delete}, "
            f"durable={self.durable}, exclusive={self.exclusive}, arguments={self.arguments!r}>"
        )

    async def declare(self, timeout: float | None = None) -> commands.Queue.DeclareOk:
        """Create it, or (``passive``) check that it exists."""
        declared = await self.channel.ask(
            lambda core: core.queue_declare(
                self.name, self.passive, self.durable, self.exclusive, self.auto_delete,
                self.arguments,
            ),
            timeout,
        )  # fmt: skip
        assert declared is not None
        self.name = declared.queue
        self.declaration_result = commands.Queue.DeclareOk(*declared)
        return self.declaration_result

    async def bind(
        self,
        exchange: ExchangeParamType,
        routing_key: str | None = None,
        *,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> commands.Queue.BindOk:
        """Have it get messages of an exchange.

        Args:
            exchange: An Exchange, or its name.
            routing_key: None means the queue's name.
        """
        source, key = get_exchange_name(exchange), self._key(routing_key)
        await self.channel.ask(
            lambda core: core.queue_bind(self.name, source, key, arguments), timeout
        )
        return commands.Queue.BindOk()

    async def unbind(
        self,
        exchange: ExchangeParamType,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> commands.Queue.UnbindOk:
        """Undo ``bind``."""
        source, key = get_exchange_name(exchange), self._key(routing_key)
        await self.channel.ask(
            lambda core: core.queue_unbind(self.name, source, key, arguments), timeout
        )
        return commands.Queue.UnbindOk()

    def _key(self, routing_key: str | None) -> str:
        return self.name if routing_key is None else routing_key

    async def consume(
        self,
        callback: Callable[[IncomingMessage], Any],
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        consumer_tag: str | None = None,
        timeout: float | None = None,
    ) -> ConsumerTag:
        """Start a consumer.

        Args:
            callback: Called with each IncomingMessage: a coroutine function, whose calls run side
                by side, or a plain function.  What it raises is logged.
            no_ack: Messages need no ack.
            exclusive: Refuse if the queue has consumers, and keep others away.
            arguments: For instance ``x-priority``.
            consumer_tag: None has one made.
            timeout: Seconds to wait for the broker.

        Returns:
            The consumer tag, for ``cancel``.
        """
        take = self.channel._handlers.taker(self.channel, callback)
        return await self.start(take, no_ack, exclusive, arguments, consumer_tag, timeout)

    async def start(
        self,
        take: Callable[[evamqp.Message], object],
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        consumer_tag: str | None = None,
        timeout: float | None = None,
    ) -> ConsumerTag:
        """Start a consumer whose messages, as evamqp has them, go to ``take``."""
        return await self.channel.consume(
            self.name, take, no_ack, exclusive, arguments, consumer_tag, timeout
        )

    async def cancel(
        self, consumer_tag: ConsumerTag, timeout: float | None = None, nowait: bool = False
    ) -> commands.Basic.CancelOk | None:
        """Stop a consumer.  Messages that it got are still to be settled."""
        if nowait:
            self.channel.forget_consumer(consumer_tag)
            return None
        await self.channel.ask(lambda core: core.basic_cancel(consumer_tag), timeout)
        return commands.Basic.CancelOk(consumer_tag)

    @overload
    async def get(
        self, *, no_ack: bool = ..., fail: Literal[True] = ..., timeout: float | None = ...
    ) -> IncomingMessage: ...

    @overload
    async def get(
        self, *, no_ack: bool = ..., fail: bool = ..., timeout: float | None = ...
    ) -> IncomingMessage | None: ...

    async def get(
        self, *, no_ack: bool = False, fail: bool = True, timeout: float | None = 5
    ) -> IncomingMessage | None:
        """Take one message.

        Args:
            no_ack: It needs no ack.
            fail: Raise if there is none, rather than return None.
            timeout: Seconds to wait for the broker.

        Raises:
            QueueEmpty: There is none.
        """
        requests: list[evamqp.Request[evamqp.Message | None]] = []

        def send(core: evamqp.Channel) -> evamqp.Request[evamqp.Message | None]:
            requests.append(core.basic_get(self.name, no_ack))
            return requests[0]

        try:
            message = await self.channel.ask(send, timeout)
        except (asyncio.CancelledError, asyncio.TimeoutError):
            if requests:
                _give_back(requests[0])
            raise
        if message is not None:
            return incoming(message, self.channel)
        if fail:
            raise QueueEmpty
        return None

    async def purge(
        self, no_wait: bool = False, timeout: float | None = None
    ) -> commands.Queue.PurgeOk | None:
        """Drop the messages that are ready."""
        count = await self.channel.ask(
            lambda core: core.queue_purge(self.name, nowait=no_wait), timeout
        )
        return None if no_wait else commands.Queue.PurgeOk(count)

    async def delete(
        self, *, if_unused: bool = True, if_empty: bool = True, timeout: float | None = None
    ) -> commands.Queue.DeleteOk | None:
        """Delete it.

        Args:
            if_unused: Only without consumers, else the channel is closed.
            if_empty: Only without messages, else the channel is closed.
            timeout: Seconds to wait for the broker.
        """
        return await self.channel.queue_delete(self.name, timeout, if_unused, if_empty)

    def iterator(self, **kwargs: Any) -> QueueIterator:
        """Its messages, for ``async with`` and ``async for``.

        Args:
            kwargs: As for ``consume``; and ``timeout``, seconds to wait for a message.
        """
        return QueueIterator(self, **kwargs)

    def __aiter__(self) -> QueueIterator:
        return self.iterator()


def _give_back(request: evamqp.Request[evamqp.Message | None]) -> None:
    """Nobody will see what a get brings, or has brought already."""
    if not request.is_done:
        request.cancel()
        return
    future = request.future
    message = None if future.exception() is not None else future.result()
    if message is not None and not message.is_settled:
        message.nack()


class QueueIterator:
    """The messages of a consumer; leaving its ``async with`` stops the consumer.

    It ends when the consumer does, by ``close()``, the broker, or the loss of its channel.
    """

    def __init__(self, queue: Queue, **kwargs: Any) -> None:
        self._amqp_queue = queue
        self._timeout: float | None = kwargs.get("timeout")
        self._consume_kwargs = kwargs
        self._messages: deque[evamqp.Message] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_ended = False
        self.consumer_tag: ConsumerTag | None = None

    def __str__(self) -> str:
        return f"queue[{self._amqp_queue}](...)"

    def __repr__(self) -> str:
        name = self._amqp_queue.name
        return f"<{type(self).__name__}: queue={name!r} ctag={self.consumer_tag!r}>"

    async def consume(self) -> None:
        """Start the consumer; entering the block, or asking for a message, does this."""
        queue = self._amqp_queue
        queue.channel._handlers.add_iterator(self)
        self.consumer_tag = await queue.start(self._take, **self._consume_kwargs)

    def _take(self, message: evamqp.Message) -> None:
        self._messages.append(message)
        waiter = self._waiter
        if waiter is not None:
            self._wake(waiter)

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = None
        if not waiter.done():
            waiter.set_result(None)

    def end(self) -> None:
        """There will be nothing more; what waits here and can be settled is still given out."""
        self._is_ended = True
        self.drop_lost()
        self._amqp_queue.channel._handlers.discard_iterator(self)
        if self._waiter is not None:
            self._wake(self._waiter)

    def drop_lost(self) -> None:
        """Forget messages of a channel that is gone: the broker delivers them again."""
        kept = [m for m in self._messages if m.is_settled or m.channel.reason is None]
        self._messages = deque(kept)

    async def close(self) -> None:
        """Stop the consumer, and give back what nobody took."""
        if self._is_ended:
            return
        request = self._stop()
        if request is not None:
            try:
                await request
            except evamqp.AmqpError as error:
                log.debug("%r: its channel ended first: %s", self, error)

    def _stop(self) -> evamqp.Request[str] | None:
        """Stop the consumer without waiting."""
        tag, self.consumer_tag = self.consumer_tag, None
        request = None if tag is None else self._amqp_queue.channel.forget_consumer(tag)
        messages, self._messages = self._messages, deque()
        for message in messages:
            if message.is_settled:
                log.warning("%r: a message that needs no ack is lost", self)
            else:
                message.nack()
        self.end()
        return request

    def __aiter__(self) -> QueueIterator:
        return self

    async def __aenter__(self) -> QueueIterator:
        if self.consumer_tag is None and not self._is_ended:
            await self.consume()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def __anext__(self) -> IncomingMessage:
        if self.consumer_tag is None and not self._is_ended:
            await self.consume()
        while not self._messages:
            if self._is_ended:
                raise StopAsyncIteration
            try:
                await self._wait()
            except (asyncio.TimeoutError, asyncio.CancelledError):
                self._stop()
                raise
        return incoming(self._messages.popleft(), self._amqp_queue.channel)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await within(self._timeout or None, self._waiter)


__all__ = ["ConsumerTag", "Queue", "QueueIterator"]
