"""What the deliveries of one consumer have in common, by which the parser reads them at once.

No bytes are parsed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evamqp.codec.templates import HEADER_GAP, body_prefix, confirm_key, header_prefix

if TYPE_CHECKING:
    from collections.abc import Callable

    from evamqp.core.outlet import Outlet


class DeliveryTemplate:
    """What all deliveries of one consumer share, when their method frames have one length.

    Attributes:
        target: Settles the messages, and takes deliveries and confirms.
        channel: The user's Channel.
        consumer_tag: The consumer's tag; "" for basic_get.
        on_message: The consumer's callback.
        auto_ack: Whether such a message needs no acknowledgement.
        length: Bytes of the whole basic.deliver frame; 0 marks a template that is not a delivery.
        tag_at: Offset of the delivery tag in that frame.
        head: The bytes of that frame up to there, by which the template is found; "" if it
            never is.
        properties_at: Offset of the properties behind the delivery tag.
        header_prefix: Frame end, type and channel of the content header, as one integer.
        body_prefix: The same of a body frame.
        is_stream: Whether the consumer's queue is a stream, as far as its arguments show.
    """

    __slots__ = (
        "__weakref__",
        "auto_ack",
        "body_prefix",
        "channel",
        "consumer_tag",
        "head",
        "header_prefix",
        "is_stream",
        "length",
        "on_message",
        "properties_at",
        "tag_at",
        "target",
    )

    def __init__(
        self,
        target: Outlet,
        consumer_tag: str,
        on_message: Callable[[Any], object],
        auto_ack: bool,
        length: int,
        tag_at: int,
        head: bytes = b"",
        is_stream: bool = False,
    ) -> None:
        self.target: Outlet = target
        self.channel: Any = target.channel
        self.consumer_tag: str = consumer_tag
        self.on_message: Callable[[Any], object] = on_message
        self.auto_ack: bool = auto_ack
        self.length: int = length
        self.tag_at: int = tag_at
        self.head: bytes = head
        self.is_stream: bool = is_stream
        self.properties_at: int = length - 1 - tag_at + HEADER_GAP
        self.header_prefix: int = header_prefix(target.number)
        self.body_prefix: int = body_prefix(target.number)


def confirm_template(target: Outlet) -> DeliveryTemplate:
    """The template of a channel's confirms, which are no deliveries."""
    head = confirm_key(target.number)
    return DeliveryTemplate(target, "", no_message, False, 0, 0, head)


def no_message(message: object) -> None:
    """The on_message of a template whose messages are not called back with."""
