"""The parts of hot frames that stay the same, made once per channel, route or consumer.

Whoever keeps them joins them with what varies; when a frame may be sent is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from evamqp.codec.methods import pack_publish

#: Bytes of a frame of basic.ack, basic.nack or basic.reject, sent or received.
SETTLE_SIZE = 21
#: The method ids that follow a settle head.
ACK_METHOD = b"\x00\x3c\x00\x50"
REJECT_METHOD = b"\x00\x3c\x00\x5a"
NACK_METHOD = b"\x00\x3c\x00\x78"
#: Their flags: nothing set, and requeue.
NO_FLAGS = b"\x00"
NACK_REQUEUE = b"\x02"
REJECT_REQUEUE = b"\x01"
#: What ends basic.ack of one message behind its tag.
ACK_END = b"\x00\xce"
FRAME_END = b"\xce"

#: From the end of a delivery's arguments to its properties: a frame end, the seven bytes that
#: begin the header frame, class, weight and body size.
HEADER_GAP = 1 + 7 + 12

#: The flags of a content header that has no properties.
NO_PROPERTIES = b"\x00\x00"
#: Class basic and weight 0, as a content header has them.
CLASS_BASIC = 60 << 16

#: A content header between its channel and its properties: size of the frame, CLASS_BASIC, size of
#: the body.
pack_header: Callable[..., bytes] = Struct(">IIQ").pack
#: The size of a body frame.
pack_size: Callable[..., bytes] = Struct(">I").pack


def settle_head(number: int) -> bytes:
    """A frame of basic.ack on channel ``number``, up to the delivery tag."""
    return b"\x01%b\x00\x00\x00\x0d%b" % (number.to_bytes(2, "big"), ACK_METHOD)


def settle_frame(number: int, method: bytes, tag: bytes, flags: bytes) -> bytes:
    """A whole frame of basic.ack, nack or reject; ``tag`` is eight bytes."""
    return b"\x01%b\x00\x00\x00\x0d%b%b%b\xce" % (number.to_bytes(2, "big"), method, tag, flags)


def confirm_key(number: int) -> bytes:
    """What a confirm begins with, by which the parser knows it.

    It reaches into the tag, whose first byte is zero for the first 2**56 publishes.
    """
    return settle_head(number) + b"\x00"


def publish_prefix(number: int, exchange: str, key_size: int) -> bytes:
    """A frame of basic.publish up to a routing key of ``key_size`` bytes.

    Errors as for ``encode_method``.
    """
    return pack_publish(number, exchange, "k" * key_size, False)[: -key_size - 2]


def publish_ends(number: int) -> dict[bool, bytes]:
    """What follows the routing key, by ``mandatory``: it ends with the next frame's beginning."""
    header = header_prefix(number).to_bytes(4, "big")
    return {False: b"\x00" + header, True: b"\x01" + header}


def publish_head(number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """A frame of basic.publish made from scratch, and the beginning of the next frame.

    Errors as for ``encode_method``.
    """
    frame = pack_publish(number, exchange, routing_key, mandatory)
    return frame[:-1] + header_prefix(number).to_bytes(4, "big")


def without_header(head: bytes) -> bytes:
    """The frame of basic.publish alone, of a head that ends with the next frame's beginning."""
    return head[:-3]


def header_prefix(number: int) -> int:
    """A frame end, and type and channel of a content header frame."""
    return 0xCE020000 | number


def body_prefix(number: int) -> int:
    """A frame end, and type and channel of a body frame."""
    return 0xCE030000 | number


def delivery_head(number: int, payload_size: int, tag: bytes) -> bytes:
    """A frame of basic.deliver up to the delivery tag.

    Args:
        payload_size: Bytes of its arguments.
        tag: The consumer tag as a short string.
    """
    size = (4 + payload_size).to_bytes(4, "big")
    return b"\x01%b%b\x00\x3c\x00\x3c%b" % (number.to_bytes(2, "big"), size, tag)


def raw_delivery(arguments: bytes, properties: bytes) -> bytes:
    """What a Message reads: arguments from the tag on, a gap as on the wire, properties."""
    return b"%b%b%b" % (arguments, bytes(HEADER_GAP), properties)
