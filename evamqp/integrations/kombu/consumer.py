"""A consumer of kombu's, under one tag for as long as it lives, whatever its prefetch limit.

How its messages reach a thread is ``connection.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import evamqp
from evamqp.integrations.kombu.message import Message

if TYPE_CHECKING:
    from evamqp.integrations.kombu.channel import Channel


class Consumer:
    """One basic.consume, and those that take its place when its limit changes.

    Attributes:
        tag: The tag that kombu knows.
        wire_tag: The tag that the broker knows.
        on_cancel: Called with the tag if the broker cancels it, or None.
    """

    __slots__ = (
        "_arguments",
        "_callback",
        "_channel",
        "_exclusive",
        "_is_stopped",
        "_no_ack",
        "_prefetch",
        "_queue",
        "on_cancel",
        "tag",
        "wire_tag",
    )

    def __init__(
        self,
        channel: Channel,
        queue: str,
        tag: str,
        no_ack: bool,
        exclusive: bool,
        callback: Callable[[Message], object] | None,
        arguments: Mapping[str, object] | None,
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._no_ack = no_ack
        self._exclusive = exclusive
        self._callback = callback
        self._arguments = arguments
        self._prefetch = 0
        self._is_stopped = False
        self.tag: str = tag
        self.wire_tag: str = tag
        self.on_cancel: Callable[[str], object] | None = None

    def start(self, prefetch: int, nowait: bool = False) -> None:
        """Begin to consume.

        Args:
            prefetch: The limit that the channel gives to new consumers.
            nowait: Do not wait for the broker's answer.
        """
        channel, done = self._channel, _Outcome()
        consume = partial(
            channel.core.basic_consume,
            self._queue, self._receive, self._no_ack, self._exclusive, self.wire_tag,
            self._arguments, callback=done.set, on_error=done.set,
        )  # fmt: skip
        self._prefetch = prefetch
        connection = channel._connection
        self.wire_tag = connection.begin(consume, None if nowait else done.is_set)
        self.tag = self.tag or self.wire_tag
        if isinstance(done.value, evamqp.AmqpError):
            channel.is_reported = True
            raise connection.translate(done.value) from done.value

    def stop(self, nowait: bool = False) -> None:
        """Consume no more; what nobody has got goes back to the queue."""
        self._is_stopped = True
        core = self._channel.core
        connection = self._channel._connection
        if nowait:
            connection.send(core.basic_cancel, self.wire_tag)
        else:
            connection.ask(core.basic_cancel, self.wire_tag)

    def limit(self, prefetch: int) -> None:
        """Take a new limit, which the broker gives to new consumers only."""
        if self._no_ack or prefetch == self._prefetch:
            return
        old = self.wire_tag
        self.wire_tag = ""
        connection, core = self._channel._connection, self._channel.core
        if self._exclusive:
            connection.ask(core.basic_cancel, old)
            self.start(prefetch)
        else:
            # The new one first, so that the queue is never without a consumer.
            self.start(prefetch)
            connection.ask(core.basic_cancel, old)

    def _receive(self, raw: evamqp.Message) -> None:
        self._channel._connection.push(self._deliver, raw)

    def _deliver(self, raw: evamqp.Message) -> None:
        channel = self._channel
        if not raw.is_settled:
            if not channel.is_open:
                return  # the broker has it again, and whoever handled this one could not ack it
            if self._is_stopped:
                channel._connection.send(raw.nack)
                return
        if self._callback is not None:
            self._callback(Message(raw, channel, self.tag))


class _Outcome:
    """What a request came to: its value, or an exception."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None

    def set(self, value: object) -> None:
        self.value = value

    def is_set(self) -> bool:
        return self.value is not None
