"""Handlers: the calls of consumers' callbacks that a channel has under way, and its iterators.

How a message is settled is its own business.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import evamqp
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.message import IncomingMessage, incoming
from evamqp.compat.aio_pika.tools import DONE

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.channel import Channel
    from evamqp.compat.aio_pika.queue import QueueIterator

log: logging.Logger = get_logger(__name__)


class Handlers:
    """What is to end with a channel."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()
        self._iterators: WeakSet[QueueIterator] = WeakSet()

    def taker(
        self, channel: Channel, callback: Callable[[IncomingMessage], Any]
    ) -> Callable[[evamqp.Message], None]:
        """What hands each message to ``callback``: at once, or as a task if it is async."""
        loop = asyncio.get_running_loop()
        tasks = self._tasks

        if inspect.iscoroutinefunction(callback):

            def take(message: evamqp.Message) -> None:
                tasks.add(loop.create_task(_handle(callback, incoming(message, channel), tasks)))

        else:

            def take(message: evamqp.Message) -> None:
                result = callback(incoming(message, channel))
                if result is not None and result is not DONE and inspect.isawaitable(result):
                    task = asyncio.ensure_future(result)
                    tasks.add(task)
                    task.add_done_callback(partial(_ended, tasks))

        return take

    def cancel(self) -> None:
        """Give up what runs, but for who calls."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._tasks.clear()

    def add_iterator(self, iterator: QueueIterator) -> None:
        self._iterators.add(iterator)

    def discard_iterator(self, iterator: QueueIterator) -> None:
        self._iterators.discard(iterator)

    def end_iterators(self, consumer_tag: str | None = None) -> None:
        """There is nothing more for the iterator of this consumer, or for any."""
        for iterator in tuple(self._iterators):
            if consumer_tag is None or iterator.consumer_tag == consumer_tag:
                iterator.end()

    def drop_lost(self) -> None:
        """Messages that wait in iterators come again, if they were to be acknowledged."""
        for iterator in tuple(self._iterators):
            iterator.drop_lost()


async def _handle(
    callback: Callable[[IncomingMessage], Awaitable[Any]],
    message: IncomingMessage,
    tasks: set[asyncio.Future[Any]],
) -> None:
    # Called in here: a task that is cancelled before it begins leaves no coroutine unawaited.  And
    # not followed as others are: a done callback costs half a microsecond more for each message.
    try:
        await callback(message)
    except Exception:
        log.exception("a consumer's callback raised")
    finally:
        task = asyncio.current_task()
        if task is not None:
            tasks.discard(task)


def _ended(tasks: set[asyncio.Future[Any]], task: asyncio.Future[Any]) -> None:
    tasks.discard(task)
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("a consumer's callback raised", exc_info=error)
