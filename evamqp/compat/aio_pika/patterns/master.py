"""Master and Worker: tasks through a queue, each done once, or again when it failed."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from evamqp.compat.aio_pika.channel import Channel
from evamqp.compat.aio_pika.exchange import Exchange
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.message import DeliveryMode, IncomingMessage, Message
from evamqp.compat.aio_pika.patterns.base import Base, Proxy
from evamqp.compat.aio_pika.publishing import PublishResult
from evamqp.compat.aio_pika.queue import ConsumerTag, Queue
from evamqp.compat.aio_pika.tools import ensure_awaitable

log: logging.Logger = get_logger(__name__)


class MessageProcessingError(Exception):
    """What a worker's function raises to say what becomes of its message.

    Args:
        requeue: Have it delivered again.
    """

    def __init__(self, requeue: bool = False) -> None:
        super().__init__(requeue)
        self.requeue = requeue


class NackMessage(MessageProcessingError):
    """Nack the message."""


class RejectMessage(MessageProcessingError):
    """Reject the message."""


class Worker:
    """A consumer that does tasks."""

    __slots__ = ("consumer_tag", "loop", "queue")

    def __init__(
        self, queue: Queue, consumer_tag: ConsumerTag, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.queue: Queue = queue
        self.consumer_tag: ConsumerTag = consumer_tag
        self.loop: asyncio.AbstractEventLoop = loop

    def close(self) -> asyncio.Task[None]:
        """Stop it."""

        async def stop() -> None:
            await self.queue.cancel(self.consumer_tag)

        return self.loop.create_task(stop())


class Master(Base):
    """Gives tasks to workers, and makes workers.

    Args:
        channel: Open.
        requeue: Have a task that failed done again.
        reject_on_redelivered: But only once.
    """

    DELIVERY_MODE = DeliveryMode.PERSISTENT

    def __init__(
        self, channel: Channel, requeue: bool = True, reject_on_redelivered: bool = False
    ) -> None:
        self.channel = channel
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.proxy: Proxy = Proxy(self.create_task)
        self._requeue = requeue
        self._reject_on_redelivered = reject_on_redelivered
        channel.return_callbacks.add(self.on_message_returned)

    @property
    def exchange(self) -> Exchange:
        return self.channel.default_exchange

    @staticmethod
    def on_message_returned(channel: Channel | None, message: IncomingMessage) -> None:
        log.warning("a task came back: is there no queue %r? %r", message.routing_key, message)

    @classmethod
    async def execute(cls, func: Callable[..., Any], kwargs: Any) -> Any:
        """Do a task."""
        if not isinstance(kwargs or {}, dict):
            log.error("a task for %r has %r, which are no keywords", func, kwargs)
            raise RejectMessage(requeue=False)
        return await func(**(kwargs or {}))

    async def on_message(self, func: Callable[..., Any], message: IncomingMessage) -> None:
        """A task has come."""
        async with message.process(
            requeue=self._requeue,
            reject_on_redelivered=self._reject_on_redelivered,
            ignore_processed=True,
        ):
            try:
                await self.execute(func, self.deserialize(message.body))
            except RejectMessage as how:
                await message.reject(requeue=how.requeue)
            except NackMessage as how:
                await message.nack(requeue=how.requeue)

    async def create_queue(self, queue_name: str, **kwargs: Any) -> Queue:
        """The queue of a kind of task."""
        return await self.channel.declare_queue(queue_name, **kwargs)

    async def create_worker(
        self, queue_name: str, func: Callable[..., Any], **kwargs: Any
    ) -> Worker:
        """Make a worker.

        Args:
            queue_name: The kind of task.
            func: Called with a task's keywords; a coroutine function, or a plain one.
            kwargs: As for ``declare_queue``.
        """
        queue = await self.create_queue(queue_name, **kwargs)
        tag = await queue.consume(partial(self.on_message, ensure_awaitable(func)))
        return Worker(queue, tag, self.loop)

    async def create_task(
        self, channel_name: str, kwargs: Mapping[str, Any] | None = None, **message_kwargs: Any
    ) -> PublishResult:
        """Give a task.

        Args:
            channel_name: The kind of task: its queue.
            kwargs: The keywords of the worker's function.
            message_kwargs: As for Message.
        """
        message = Message(
            self.serialize({} if kwargs is None else kwargs),
            content_type=self.CONTENT_TYPE,
            delivery_mode=self.DELIVERY_MODE,
            **message_kwargs,
        )
        return await self.exchange.publish(message, channel_name, mandatory=True)


class JsonMaster(Master):
    """The same in JSON."""

    SERIALIZER = json
    CONTENT_TYPE = "application/json"

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data, ensure_ascii=False).encode()


class CompressedJsonMaster(Master):
    """The same in JSON, compressed."""

    SERIALIZER = json
    CONTENT_TYPE = "application/json;compression=gzip"
    COMPRESS_LEVEL = 6

    def serialize(self, data: Any) -> bytes:
        text = json.dumps(data, ensure_ascii=False).encode()
        return gzip.compress(text, self.COMPRESS_LEVEL)

    def deserialize(self, data: bytes) -> Any:
        return json.loads(gzip.decompress(data))


__all__ = [
    "CompressedJsonMaster",
    "JsonMaster",
    "Master",
    "NackMessage",
    "RejectMessage",
    "Worker",
]
