"""A message as blocking programs get it: the core's, settled under the connection's lock.

Nothing is decoded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import evamqp

if TYPE_CHECKING:
    from evamqp.blocking.channel import Channel


class Message:
    """A message from consume(), basic_consume() or basic_get(); see evamqp.Message.

    Any thread may settle it.

    Attributes:
        channel: The channel it came on.
    """

    __slots__ = ("_core", "channel")

    def __init__(self, channel: Channel, core: evamqp.Message) -> None:
        self.channel: Channel = channel
        self._core = core

    def __repr__(self) -> str:
        return repr(self._core)

    @property
    def body(self) -> bytes:
        """The payload."""
        return self._core.body

    @property
    def properties(self) -> evamqp.Properties:
        """The properties; a malformed one raises MalformedData when it is read, not before."""
        return self._core.properties

    @property
    def consumer_tag(self) -> str:
        """The tag of the consumer it came to; "" for a message from basic_get."""
        return self._core.consumer_tag

    @property
    def delivery_tag(self) -> int:
        return self._core.delivery_tag

    @property
    def redelivered(self) -> bool:
        """Whether the broker has delivered it before; an earlier consumer may have seen it."""
        return self._core.redelivered

    @property
    def exchange(self) -> str:
        return self._core.exchange

    @property
    def routing_key(self) -> str:
        return self._core.routing_key

    @property
    def message_count(self) -> int | None:
        """Messages that basic_get left in the queue; None for a message that came to a consumer."""
        return self._core.message_count

    @property
    def is_settled(self) -> bool:
        """Whether it was acked, nacked or rejected, or needs none of these (``auto_ack``)."""
        return self._core.is_settled

    def ack(self) -> bool:
        """Acknowledge this message; the kernel has it when this returns.

        Returns:
            True if sent; False if the channel is gone, in which case the broker requeues it.

        Raises:
            AlreadySettled: It was settled before, or its consumer is ``auto_ack``; nothing is sent.

        Spec: basic.ack (60, 80).
        """
        loop = self.channel._loop
        with loop.lock:
            sent = loop.perform(self._core.ack)
            loop.flush()
        return sent

    def nack(self, requeue: bool = True) -> bool:
        """Refuse this message.  Returns and raises as ack() does.

        Args:
            requeue: False lets the queue drop or dead-letter it.

        Spec: basic.nack (60, 120), a RabbitMQ extension.
        """
        loop = self.channel._loop
        with loop.lock:
            sent = loop.perform(self._core.nack, requeue)
            loop.flush()
        return sent

    def reject(self, requeue: bool = True) -> bool:
        """Refuse this message.  Returns and raises as ack() does.

        Args:
            requeue: False lets the queue drop or dead-letter it.

        Spec: basic.reject (60, 90).
        """
        loop = self.channel._loop
        with loop.lock:
            sent = loop.perform(self._core.reject, requeue)
            loop.flush()
        return sent
