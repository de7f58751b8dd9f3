"""Deliveries and returned messages, decoded when they are read.

No state machine and no I/O lives here; settling is a call of the channel's machine.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import evamqp.codec.native as native
import evamqp.codec.properties as properties_of
from evamqp.codec.properties import Properties
from evamqp.codec.templates import (
    ACK_END,
    ACK_METHOD,
    NACK_METHOD,
    NACK_REQUEUE,
    NO_FLAGS,
    REJECT_METHOD,
    REJECT_REQUEUE,
    SETTLE_SIZE,
)
from evamqp.core import deaths
from evamqp.core.coroutines import is_interruption
from evamqp.core.deaths import Death
from evamqp.errors import AlreadySettled, BadType, PublishReturned

if TYPE_CHECKING:
    from types import TracebackType

    from evamqp.core.delivery_template import DeliveryTemplate

#: The argument that says where a consumer of a stream begins, and the header of its messages.
STREAM_OFFSET = "x-stream-offset"

_unpack_tag = Struct(">Q").unpack_from
_unpack_count = Struct(">I").unpack_from
_COMPILED = native.COMPILED
_get_ident = native.get_ident()


D = TypeVar("D", bound="Delivery")


class Delivery:
    """A message without its channel: ``Message`` is this and the channel it came on.

    Attributes:
        body: The payload.
    """

    __slots__ = ("_properties", "_raw", "_settled", "_template", "body")

    def __init__(self, template: DeliveryTemplate, raw: bytes, body: bytes) -> None:
        self._template = template
        self._raw = raw
        self.body: bytes = body
        self._settled = template.auto_ack
        self._properties: Properties | None = None

    def __repr__(self) -> str:
        return (
            f"<Message {self.delivery_tag} of {len(self.body)} bytes, "
            f"exchange={self.exchange!r}, routing_key={self.routing_key!r}>"
        )

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
        """Whether the broker has delivered it before; an earlier consumer may have seen it."""
        return self._raw[8] != 0

    @property
    def delivery_count(self) -> int:
        """How often the broker delivered it before, as far as the broker says.

        Quorum queues count; elsewhere it is 1 for a redelivered message, else 0.

        Raises:
            MalformedData: The properties are broken.
        """
        return deaths.delivery_count(self.properties.headers, self.redelivered)

    @property
    def deaths(self) -> tuple[Death, ...]:
        """How often it was dead-lettered, where and why (``x-death``); the latest first.

        Raises:
            MalformedData: The properties are broken.
        """
        return deaths.deaths(self.properties.headers)

    @property
    def stream_offset(self) -> int | None:
        """Its offset in the stream that it came from (``x-stream-offset``); None elsewhere.

        Raises:
            MalformedData: The properties are broken.
        """
        headers = self.properties.headers
        offset = headers.get(STREAM_OFFSET) if headers else None
        return offset if isinstance(offset, int) else None

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
            properties = self._properties = properties_of.wrap(raw)
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
        # The hot path, which spares two calls; _settle does the same and all the rest.
        target = self._template.target
        output = target.output
        size = output.size + SETTLE_SIZE
        if target.owner == _get_ident() and size <= output.threshold:
            if _COMPILED:
                frame = native.pack_ack(target.settle_head, self._raw)
            else:  # the same without a call
                frame = target.settle_head + self._raw[:8] + ACK_END
            output.pieces.append(frame)
            output.size = size
            self._settled = True
            return True
        return self._settle(ACK_METHOD, NO_FLAGS)

    def nack(self, requeue: bool = True) -> bool:
        """Refuse this message.  Returns and raises as ack() does.

        A stream keeps its messages: with a consumer that gave ``x-stream-offset``, nack() and
        reject() acknowledge, as RabbitMQ does from 4.0 on; older ones would close the connection.

        Args:
            requeue: False lets the queue drop or dead-letter it.

        Spec: basic.nack (60, 120), a RabbitMQ extension.
        """
        return self._settle(NACK_METHOD, NACK_REQUEUE if _is_set(requeue) else NO_FLAGS)

    def reject(self, requeue: bool = True) -> bool:
        """Refuse this message.  Returns and raises as ack() does.

        Args:
            requeue: False lets the queue drop or dead-letter it.

        Spec: basic.reject (60, 90).
        """
        return self._settle(REJECT_METHOD, REJECT_REQUEUE if _is_set(requeue) else NO_FLAGS)

    async def __aenter__(self: D) -> D:
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
        if self._template.is_stream:
            method, flags = ACK_METHOD, NO_FLAGS
        sent = self._template.target.settle(method, self._raw[:8], flags)
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

    def as_error(self) -> PublishReturned:
        """The error that this return is for whoever published."""
        return PublishReturned(self.code, self.text, self.exchange, self.routing_key)
