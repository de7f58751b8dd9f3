"""RobustQueue: a queue that is declared again on each new connection, with its consumers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evamqp.compat.aio_pika.exchange import ExchangeParamType, get_exchange_name
from evamqp.compat.aio_pika.message import IncomingMessage
from evamqp.compat.aio_pika.pamqp import commands
from evamqp.compat.aio_pika.queue import ConsumerTag, Queue, QueueIterator

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.robust_channel import RobustChannel


class RobustQueue(Queue):
    """A queue that comes back, with its bindings and consumers."""

    channel: RobustChannel

    async def bind(
        self,
        exchange: ExchangeParamType,
        routing_key: str | None = None,
        *,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
        robust: bool = True,
    ) -> commands.Queue.BindOk:
        """Have it get messages of an exchange.

        Args:
            exchange: An Exchange, or its name.
            routing_key: None means the queue's name.
            robust: Bind it again on each new connection.
        """
        bound = await super().bind(exchange, routing_key, arguments=arguments, timeout=timeout)
        if not robust:
            source, key = get_exchange_name(exchange), self._key(routing_key)
            self.channel.topology.unbind("queue", self.name, source, key, arguments)
        return bound

    async def consume(
        self,
        callback: Callable[[IncomingMessage], Any],
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        consumer_tag: ConsumerTag | None = None,
        timeout: float | None = None,
        robust: bool = True,
    ) -> ConsumerTag:
        """Start a consumer.

        Args:
            callback: Called with each IncomingMessage.
            robust: Start it again on each new connection.
        """
        tag = await super().consume(callback, no_ack, exclusive, arguments, consumer_tag, timeout)
        if not robust:
            self.channel.forget_robust(tag)
        return tag

    async def cancel(
        self, consumer_tag: ConsumerTag, timeout: float | None = None, nowait: bool = False
    ) -> commands.Basic.CancelOk | None:
        """Stop a consumer, for good."""
        self.channel.forget_robust(consumer_tag)
        return await super().cancel(consumer_tag, timeout, nowait)

    async def restore(self, channel: Any = None) -> None:
        """Declare it now."""
        await self.declare()


RobustQueueIterator = QueueIterator

__all__ = ["RobustQueue", "RobustQueueIterator"]
