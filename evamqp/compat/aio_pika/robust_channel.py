"""RobustChannel: a channel on one connection after another.

Exchanges, queues and bindings come back with evamqp's Topology, publishes with its Publisher; the
channel itself starts its qos and consumers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import evamqp
from evamqp.compat.aio_pika.channel import Channel
from evamqp.compat.aio_pika.exceptions import (
    AMQPConnectionError,
    ChannelInvalidStateError,
    DeliveryError,
    of_channel,
)
from evamqp.compat.aio_pika.exchange import Exchange, ExchangeType
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.message import Message, returned
from evamqp.compat.aio_pika.pamqp import commands
from evamqp.compat.aio_pika.publishing import Confirm, PublishResult
from evamqp.compat.aio_pika.queue import Queue
from evamqp.compat.aio_pika.robust_exchange import RobustExchange
from evamqp.compat.aio_pika.robust_queue import RobustQueue
from evamqp.compat.aio_pika.tools import CallbackCollection, Waiting

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.robust_connection import RobustConnection

log: logging.Logger = get_logger(__name__)

# Answers come to the very channel that asked, so such a question cannot go by another.
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
# Messages that may wait for the broker's word; each has somebody who awaits it, or did not care.
MOST_WAITING = 1_000_000_000
# Seconds for what was published and not awaited, when the channel closes.
LAST_WORDS = 5.0
# Seconds that a channel must have lasted for the next wait to be the shortest again.
STABLE_AFTER = 10.0
_O = evamqp.Outcome


class _Consumer(NamedTuple):
    """How a consumer is started again."""

    queue: str
    take: Callable[[evamqp.Message], object]
    no_ack: bool
    exclusive: bool
    arguments: dict[str, Any] | None


class RobustChannel(Channel):
    """A channel that comes back; ``connection.channel()`` of a RobustConnection makes it.

    Attributes:
        reopen_callbacks: Called with this each time it is open again.
    """

    QUEUE_CLASS: type[Queue] = RobustQueue
    EXCHANGE_CLASS: type[Exchange] = RobustExchange
    _connection: RobustConnection

    def __init__(
        self,
        connection: RobustConnection,
        channel_number: int | None = None,
        publisher_confirms: bool = True,
        on_return_raises: bool = False,
    ) -> None:
        super().__init__(connection, channel_number, publisher_confirms, on_return_raises)
        self.reopen_callbacks: CallbackCollection[RobustChannel] = CallbackCollection(self)
        self._up = asyncio.Event()
        self._close_called = False
        self._is_back = False  # whether the next opening is not the first
        self._qos: tuple[int, bool] | None = None
        self._consumers: dict[str, _Consumer] = {}
        self._publisher: evamqp.Publisher | None = None
        self._waiting: set[asyncio.Future[Any]] = set()  # publishes that wait for a channel
        self._retry: asyncio.TimerHandle | None = None
        self._backoff = evamqp.Backoff()
        self._since = 0.0

    @property
    def topology(self) -> evamqp.Topology:
        """What is declared again on each new connection."""
        return self._connection.reconnector.topology

    async def ready(self) -> None:
        """Wait until it is open.

        Raises:
            ChannelInvalidStateError: Its connection is closed for good.
        """
        await self._connection.race(self._up.wait())

    async def restore(self, channel: Any = None) -> None:
        """Wait until it is open again; it comes back by itself."""
        await self.ready()

    async def reopen(self) -> None:
        """Open it again after it was closed."""
        self._close_called = False
        if self._core is None:
            await super().reopen()

    # The life of one channel of evamqp after another

    async def _open(self, timeout: float | None = None) -> None:
        await self._connection.ready()
        await super()._open(timeout)

    def _start(self, connection: evamqp.Connection) -> evamqp.Channel:
        core = super()._start(connection)
        if self._qos is not None:
            count, across = self._qos
            core.basic_qos(count, across_consumers=across)
        for tag, consumer in list(self._consumers.items()):
            self._start_consumer(core, tag, consumer)
        self._up.set()
        self._since = self._loop.time()
        return core

    def _start_consumer(self, core: evamqp.Channel, tag: str, consumer: _Consumer) -> None:
        queue, take, no_ack, exclusive, arguments = consumer
        core.basic_consume(queue, take, no_ack, exclusive, tag, arguments)

    def connected(self, connection: evamqp.Connection) -> None:
        """There is a new connection, its topology declared."""
        if self._close_called or self._core is not None:
            return
        try:
            self._start(connection)
        except (ChannelInvalidStateError, evamqp.AmqpError) as error:
            log.warning("%r cannot be opened: %s", self, error)
            self._retry_later()

    def _retry_later(self) -> None:
        self._stop_retry()
        self._retry = self._loop.call_later(self._backoff.next(), self._try_again)

    def _stop_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _try_again(self) -> None:
        self._retry = None
        reconnector = self._connection.reconnector
        if reconnector.is_ready and reconnector.connection is not None:
            self.connected(reconnector.connection)

    def _is_open(self, core: evamqp.Channel) -> None:
        super()._is_open(core)
        if self._is_back:
            self.reopen_callbacks()
        self._is_back = True

    def _ended(self, error: Exception | None) -> None:
        self._up.clear()
        if self._close_called or self._connection.close_called:
            super()._ended(error)
            return
        if self._loop.time() - self._since > STABLE_AFTER:
            self._backoff.reset()
        self._handlers.drop_lost()
        self.close_callbacks(error)
        self._retry_later()

    def _consumer_cancelled(self, consumer_tag: str) -> None:
        consumer = self._consumers.get(consumer_tag)
        if consumer is None:
            super()._consumer_cancelled(consumer_tag)
            return
        log.warning("%r: the broker cancelled consumer %r; it is started again", self, consumer_tag)
        delay = self._backoff.next()
        self._loop.call_later(delay, self._revive, consumer_tag, consumer, self._core)

    def _revive(self, tag: str, consumer: _Consumer, core: evamqp.Channel | None) -> None:
        """Declare a queue again that was deleted, and consume."""
        if core is None or core is not self._core or self._consumers.get(tag) is not consumer:
            return
        if core.reason is not None:
            return
        for entity in self.topology:
            if consumer.queue in (getattr(entity, "destination", None), entity[0]):
                entity.declare(core)
        self._start_consumer(core, tag, consumer)

    async def close(self, exc: BaseException | type[BaseException] | None = None) -> None:
        """Close it for good; what was published gets its outcome first, if the broker answers."""
        self._close_called = True
        self._stop_retry()
        self._connection.discard(self)
        for waiting in self._waiting:
            waiting.cancel()
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.close(LAST_WORDS if self._connection.reconnector.is_ready else 0)
        self._handlers.end_iterators()
        self._consumers.clear()
        await super().close(exc)

    # Requests wait for a channel

    async def _usable(self) -> evamqp.Channel:
        while self._core is None or self._core.reason is not None:
            if self._close_called or self._connection.close_called or self._opened is None:
                raise ChannelInvalidStateError(f"{self!r} closed")
            await self._wait_up()
        return self._core

    async def _wait_up(self) -> None:
        """Wait for the next channel, or for the end of this one or of the connection."""
        core = self._core
        await self._connection.race(self._up.wait() if core is None else core.wait_closed())

    async def declare_exchange(
        self,
        name: str,
        type: ExchangeType | str = ExchangeType.DIRECT,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        passive: bool = False,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
        robust: bool = True,
    ) -> Exchange:
        """Create an exchange, or check that it exists.

        Args:
            robust: Declare it again on each new connection.
        """
        exchange = await super().declare_exchange(
            name,
            type,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            passive=passive,
            arguments=arguments,
            timeout=timeout,
        )
        if not robust:
            self.topology.remove_exchange(name)
        return exchange

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
        robust: bool = True,
    ) -> Queue:
        """Create a queue, or check that it exists.

        Args:
            robust: Declare it again on each new connection.
        """
        queue = await super().declare_queue(
            name,
            durable=durable,
            exclusive=exclusive,
            passive=passive,
            auto_delete=auto_delete,
            arguments=arguments,
            timeout=timeout,
        )
        if not robust:
            self.topology.remove_queue(queue.name)
        return queue

    async def queue_delete(
        self,
        queue_name: str,
        timeout: float | None = None,
        if_unused: bool = False,
        if_empty: bool = False,
        nowait: bool = False,
    ) -> commands.Queue.DeleteOk | None:
        """Delete a queue; its consumers do not come back."""
        gone = [tag for tag, consumer in self._consumers.items() if consumer.queue == queue_name]
        for tag in gone:
            self.forget_robust(tag)
        if nowait:
            self.topology.remove_queue(queue_name)
        return await super().queue_delete(queue_name, timeout, if_unused, if_empty, nowait)

    async def set_qos(
        self,
        prefetch_count: int = 0,
        prefetch_size: int = 0,
        global_: bool = False,
        timeout: float | None = None,
        all_channels: bool | None = None,
    ) -> commands.Basic.QosOk:
        """Limit the messages under way, on this connection and on those that follow."""
        done = await super().set_qos(prefetch_count, prefetch_size, global_, timeout, all_channels)
        self._qos = (prefetch_count, global_ if all_channels is None else all_channels)
        return done

    # Consumers

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
        tag = await super().consume(
            queue, take, no_ack, exclusive, arguments, consumer_tag, timeout
        )
        self._consumers[tag] = _Consumer(queue, take, no_ack, exclusive, arguments)
        return tag

    def forget_robust(self, consumer_tag: str) -> None:
        """Do not start this consumer again."""
        self._consumers.pop(consumer_tag, None)

    def forget_consumer(self, consumer_tag: str) -> evamqp.Request[str] | None:
        self.forget_robust(consumer_tag)
        return super().forget_consumer(consumer_tag)

    # Publishing

    def publish(
        self,
        exchange: str,
        message: Message,
        routing_key: str,
        mandatory: bool,
        timeout: float | None,
    ) -> Coroutine[Any, Any, PublishResult]:
        """What ``Exchange.publish`` does: at the call, or as soon as there is a connection."""
        if self._close_called or self._opened is None:
            raise ChannelInvalidStateError(f"{self!r} closed")
        is_kept = self.publisher_confirms and self._connection.republish_unconfirmed
        if is_kept and message.reply_to != DIRECT_REPLY_TO:
            return self._publish_kept(exchange, message, routing_key, mandatory, timeout)
        core = self._core
        if core is not None and core.reason is None:
            return self._publish(core, exchange, message, routing_key, mandatory, timeout)
        later = self._publish_later(exchange, message, routing_key, mandatory, timeout)
        waiting = asyncio.ensure_future(later)
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        return Waiting(lambda: waiting)

    async def _publish_later(self, exchange: str, message: Message, *how: Any) -> PublishResult:
        core = await self._usable()
        return await self._publish(core, exchange, message, *how)

    def _publish_kept(
        self,
        exchange: str,
        message: Message,
        routing_key: str,
        mandatory: bool,
        timeout: float | None,
    ) -> Coroutine[Any, Any, PublishResult]:
        """By evamqp's Publisher, which publishes again what a loss left unconfirmed."""
        publisher = self._publisher
        if publisher is None:
            publisher = self._publisher = evamqp.Publisher(
                self._connection.reconnector,
                max_messages=MOST_WAITING,
                max_bytes=1 << 62,
                persistent=False,
                resends=0,
            )
        message_id, body = message.id_to_send(), message.body
        confirm = Confirm(exchange, routing_key, body, message_id)
        publisher.publish(
            exchange,
            routing_key,
            body,
            message.encode(message_id),
            mandatory=mandatory,
            timeout=timeout,
            callback=partial(self._published, confirm),
        )
        return confirm

    def _published(self, confirm: Confirm, publication: evamqp.Publication) -> None:
        outcome, detail = publication.outcome, publication.detail
        if outcome is _O.CONFIRMED:
            confirm.settle(commands.Basic.Ack(publication.number))
            if self._core is not None:
                self._core.connection.flush_next_turn()  # by who waited
        elif isinstance(detail, evamqp.Returned):
            self.return_callbacks(returned(detail, self))
            confirm.settle_returned(detail, self)
        elif outcome is _O.NACKED:
            frame = commands.Basic.Nack(publication.number)
            confirm.settle(None, DeliveryError(None, frame))
        elif outcome is _O.EXPIRED:
            confirm.settle(None, asyncio.TimeoutError())
        elif isinstance(detail, evamqp.Closed):
            confirm.settle(None, of_channel(detail))
        else:
            confirm.settle(None, AMQPConnectionError("closed before the broker confirmed it"))


__all__ = ["RobustChannel"]
