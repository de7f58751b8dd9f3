"""What the broker hands over: Message and Returned, decoded as far as they are read.

No state machine and no I/O lives here; settling a message is a call of its channel.
"""

from __future__ import annotations

from struct import Struct
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple

from evamqp.codec.properties import Properties
from evamqp.core.coroutines import is_interruption
from evamqp.errors import AlreadySettled, BadType

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from evamqp.core.channel import Channel

_unpack_tag = Struct(">Q").unpack_from
_unpack_count = Struct(">I").unpack_from

# Bytes of a frame of basic.ack, basic.nack or basic.reject.
SETTLE_SIZE = 21
# From the end of the method's arguments to the properties: a frame end, the header frame's own
# seven bytes, class, weight and body size.
HEADER_GAP = 1 + 7 + 12


class DeliveryTemplate:
    """What all deliveries of one consumer share, when their method frames have one length.

    Attributes:
        channel: The channel they come on.
        consumer_tag: The consumer's tag; "" for basic_get.
        on_message: The consumer's callback.
        auto_ack: Whether such a message needs no acknowledgement.
        length: Bytes of the whole basic.deliver frame; 0 marks a template that is not a delivery.
        tag_at: Offset of the delivery tag in that frame.
        head: The bytes of that frame up to there, by which the template is found.
        properties_at: Offset of the properties behind the delivery tag.
        header_prefix: Frame end, type and channel of the content header, as one integer.
        body_prefix: The same of a body frame.
    """

    __slots__ = (
        "auto_ack",
        "body_prefix",
        "channel",
        "consumer_tag",
        "head",
        "header_prefix",
        "length",
        "on_message",
        "properties_at",
        "tag_at",
    )

    def __init__(
        self,
        channel: Channel,
        consumer_tag: str,
        on_message: Callable[[Message], object],
        auto_ack: bool,
        length: int,
        tag_at: int,
        head: bytes = b"",
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.on_message = on_message
        self.auto_ack = auto_ack
        self.length = length
        self.tag_at = tag_at
        self.head = head
        self.properties_at = length - 1 - tag_at + HEADER_GAP
        self.header_prefix = 0xCE020000 | channel.number
        self.body_prefix = 0xCE030000 | channel.number


class Message:
    """A message from basic_consume or basic_get.

    Attributes:
        body: The payload.
    """

    __slots__ = ("_properties", "_raw", "_settled", "_template", "body")

    def __init__(self, template: DeliveryTemplate, raw: bytes, body: bytes) -> None:
        self._template = template
        self._raw = raw
        self.body = body
        self._settled = template.auto_ack
        self._properties: Properties | None = None

    def __repr__(self) -> str:
        return (
            f"<Message {self.delivery_tag} of {len(self.body)} bytes, "
            f"exchange={self.exchange!r}, routing_key={self.routing_key!r}>"
        )

    @property
    def channel(self) -> Channel:
        return self._template.channel

    @property
    def consumer_tag(self) -> str:
        """The tag of the consumer it came to; "" for a message from basic_get."""
        return self._template.consumer_tag

    @property
    def delivery_tag(self) -> int:
        tag: int = _unpack_tag(self._raw)[0]
        return tag

    @property
    def redelivered(self) -> bool:
        """Whether the broker has handed it out before; the earlier receiver may have seen it."""
        return self._raw[8] != 0

    @property
    def exchange(self) -> str:
        raw = self._raw
        return raw[10 : 10 + raw[9]].decode("utf-8", "surrogateescape")

    @property
    def routing_key(self) -> str:
        raw = self._raw
        at = 10 + raw[9]
        return raw[at + 1 : at + 1 + raw[at]].decode("utf-8", "surrogateescape")

    @property
    def message_count(self) -> int | None:
        """How many messages stood behind it in the queue; None unless it is from basic_get."""
        if self._template.consumer_tag:
            return None
        raw = self._raw
        at = 10 + raw[9]
        count: int = _unpack_count(raw, at + 1 + raw[at])[0]
        return count

    @property
    def properties(self) -> Properties:
        """The properties; a malformed one raises MalformedData when it is read, not before."""
        properties = self._properties
        if properties is None:
            raw = self._raw[self._template.properties_at :]
            properties = self._properties = Properties.from_raw(raw)
        return properties

    @property
    def is_settled(self) -> bool:
        """Whether it was acked, nacked or rejected, or needs none of these (``auto_ack``)."""
        return self._settled

    def ack(self) -> bool:
        """Acknowledge this message.

        Returns:
            True if sent; False if the channel is gone, in which case the broker requeues it.

        Raises:
            AlreadySettled: It was settled before, or its consumer is ``auto_ack``; nothing is sent.
            WrongThread: Not the thread that owns the connection; nothing is sent.

        Spec: basic.ack (60, 80).
        """
        if self._settled:
            raise AlreadySettled(f"{self!r} was settled before")
        # The hot path, which spares two calls; the plain one does the same and all the rest.
        channel = self._template.channel
        output = channel._output
        size = output.size + SETTLE_SIZE
        if channel._owner == get_ident() and size <= output.threshold:
            output.pieces.append(channel._ack_head + self._raw[:8] + b"\x00\xce")
            output.size = size
            self._settled = True
            return True
        return self._settle(b"\x00\x3c\x00\x50", b"\x00")

    def nack(self, requeue: bool = True) -> bool:
        """Refuse this message.  Returns and raises as ack() does.

        Args:
            requeue: False lets the queue drop or dead-letter it.

        Spec: basic.nack (60, 120), a RabbitMQ extension.
        """
        return self._settle(b"\x00\x3c\x00\x78", b"\x02" if _is_set(requeue) else b"\x00")

    def reject(self, requeue: bool = True) -> bool:
        """Refuse this message.  Returns and raises as ack() does.

        Args:
            requeue: False lets the queue drop or dead-letter it.

        Spec: basic.reject (60, 90).
        """
        return self._settle(b"\x00\x3c\x00\x5a", b"\x01" if _is_set(requeue) else b"\x00")

    async def __aenter__(self) -> Message:
        """``async with message:`` acks it at the end of the block, unless you have settled it.

        If the block raises, the message is rejected, so that its queue drops or dead-letters it;
        if the block is cancelled, the message goes back to its queue.
        """
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._settled:
            return
        if error is None:
            self.ack()
        elif is_interruption(error):
            self.nack()
        else:
            self.reject(requeue=False)

    def _settle(self, method: bytes, flags: bytes) -> bool:
        if self._settled:
            raise AlreadySettled(f"{self!r} was settled before")
        sent = self._template.channel._settle_message(method, self._raw[:8], flags)
        self._settled = True
        return sent


def _is_set(requeue: object) -> bool:
    # Its truth would make a message return for ever for requeue="false".
    if not isinstance(requeue, bool):
        raise BadType(f"requeue must be bool, not {type(requeue).__name__}")
    return requeue


class Returned(NamedTuple):
    """A mandatory message that could not be routed.

    Attributes:
        code: AMQP reply code: 312 NO_ROUTE.
        text: The broker's words.
        exchange: As published.
        routing_key: As published.
        properties: As the broker has them: RabbitMQ strips the header ``BCC``, 4.x sorts headers.
        body: As published.
    """

    code: int
    text: str
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
