"""Confirm: one publish under way, and what a channel keeps of those that are.

Nothing is sent here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import evamqp
from evamqp.compat.aio_pika.aiormq.abc import DeliveredMessage
from evamqp.compat.aio_pika.exceptions import DeliveryError, PublishError
from evamqp.compat.aio_pika.message import delivered, returned
from evamqp.compat.aio_pika.pamqp.commands import Basic
from evamqp.compat.aio_pika.tools import Act

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.channel import Channel

#: What publishing gives: the broker's ack, or what came back; None without confirms.
PublishResult: TypeAlias = Basic.Ack | DeliveredMessage | None


class Confirm(Act[PublishResult]):
    """A publish that is under way; awaiting it waits for the broker's word.

    Args:
        exchange: Where it went.
        routing_key: Where it went.
        body: As sent.
        message_id: Identifies it when it is returned: brokers rewrite other properties.
    """

    __slots__ = (
        "_error",
        "_future",
        "_is_done",
        "_value",
        "back",
        "body",
        "exchange",
        "message_id",
        "routing_key",
    )

    _value: PublishResult
    _error: Exception | None

    def __init__(self, exchange: str, routing_key: str, body: bytes, message_id: str) -> None:
        self.exchange: str = exchange
        self.routing_key: str = routing_key
        self.body: bytes = body
        self.message_id: str = message_id
        self.back: evamqp.Returned | None = None
        self._future: asyncio.Future[PublishResult] | None = None
        self._is_done = False

    def __await__(self) -> Generator[Any, Any, PublishResult]:
        if self._is_done:
            return self._invoke()
        if self._future is None or self._future.cancelled():
            self._future = asyncio.get_running_loop().create_future()
        return self._future.__await__()

    def _invoke(self) -> Generator[Any, Any, PublishResult]:
        if self._error is not None:
            raise self._error
        yield from ()
        return self._value

    def settle(self, value: PublishResult, error: Exception | None = None) -> None:
        """What came of it."""
        self._is_done = True
        self._value = value
        self._error = error
        future = self._future
        if future is not None and not future.done():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def settle_returned(self, back: evamqp.Returned, channel: Channel) -> None:
        """It came back: an error for who asked for it, else a value."""
        message = delivered(back, channel)
        if channel.on_return_raises:
            frame = Basic.Return(back.code, back.text, back.exchange, back.routing_key)
            self.settle(None, PublishError(message, frame))
        else:
            self.settle(message)

    def has_come_back(self, back: evamqp.Returned) -> bool:
        """Whether this is the message."""
        return (
            self.back is None
            and self.message_id == back.properties.message_id
            and self.routing_key == back.routing_key
            and self.exchange == back.exchange
            and self.body == back.body
        )


class Confirms:
    """The publishes of a channel that are under way, by their tags."""

    __slots__ = ("_channel", "_under_way")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._under_way: dict[int, Confirm] = {}

    def add(self, tag: int, confirm: Confirm) -> None:
        self._under_way[tag] = confirm

    def confirmed(self, tags: Sequence[int], acked: bool) -> None:
        """The broker's word for these."""
        pop = self._under_way.pop
        for tag in tags:
            confirm = pop(tag, None)
            if confirm is None:
                continue
            if not acked:
                confirm.settle(None, DeliveryError(None, Basic.Nack(tag)))
            elif confirm.back is None:
                confirm.settle(Basic.Ack(tag))
            else:
                confirm.settle_returned(confirm.back, self._channel)

    def returned(self, back: evamqp.Returned) -> None:
        """One came back; its ack follows."""
        for confirm in self._under_way.values():
            if confirm.has_come_back(back):
                confirm.back = back
                break
        self._channel.return_callbacks(returned(back, self._channel))

    def fail(self, error: Exception) -> None:
        """The channel is gone: what came of these nobody knows."""
        under_way, self._under_way = self._under_way, {}
        for confirm in under_way.values():
            confirm.settle(None, error)
