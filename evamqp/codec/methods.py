"""Method payloads: the table of ``spec.py`` interpreted, and the hot methods packed by hand.

Each ``pack_*`` makes a whole frame and equals its slow twin byte for byte.  Who may send a method
when is the core's business.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Any

from evamqp.codec.fields import (
    decode_longstr,
    decode_shortstr,
    decode_table,
    encode_longstr,
    encode_shortstr,
    encode_table,
)
from evamqp.codec.spec import BY_NAME, Method
from evamqp.errors import BadArgument, BadType, MalformedData

_NUMBERS = {
    "octet": Struct(">B"),
    "short": Struct(">H"),
    "long": Struct(">I"),
    "longlong": Struct(">Q"),
}
_ENCODERS: dict[str, Callable[[Any, str], bytes]] = {
    "shortstr": encode_shortstr,
    "longstr": encode_longstr,
    "table": encode_table,
}
_DECODERS: dict[str, Callable[[bytes, int], tuple[object, int]]] = {
    "shortstr": decode_shortstr,
    "longstr": decode_longstr,
    "table": decode_table,
}
_RESERVED: dict[str, bytes] = {"short": b"\0\0", "shortstr": b"\0", "longstr": b"\0\0\0\0"}

_pack_ids = Struct(">HH").pack


def encode_method(name: str, *values: object) -> bytes:
    """Encode the payload of a method frame: class id, method id and arguments.

    Args:
        name: The specification's, such as ``"queue.declare"``.
        values: One for each of the method's ``arguments``, in their order.

    Raises:
        BadType: A value has the wrong type, or the number of values is wrong.
        BadArgument: A value does not fit.
    """
    method = BY_NAME[name]
    if len(values) != len(method.arguments):
        raise BadType(f"{name} takes {len(method.arguments)} arguments, not {len(values)}")
    parts = [_pack_ids(method.class_id, method.method_id)]
    given = iter(values)
    bits, bit = 0, 1
    for argument, kind in method.wire:
        if kind == "bit":
            if argument != "_" and read_flag(next(given), f"{name}: {argument}"):
                bits |= bit
            bit <<= 1
            continue
        if bit > 1:
            parts.append(bytes((bits,)))
            bits, bit = 0, 1
        if argument == "_":
            parts.append(_RESERVED[kind])
        else:
            parts.append(_encode_argument(kind, next(given), f"{name}: {argument}"))
    if bit > 1:
        parts.append(bytes((bits,)))
    return b"".join(parts)


def decode_arguments(method: Method, payload: bytes, offset: int = 4) -> tuple[Any, ...]:
    """Decode the values of ``method.arguments``, from ``offset`` to the end of the payload.

    Raises:
        MalformedData: 502: the payload ends early or late, or an argument is malformed.
    """
    values: list[object] = []
    bits, bit = 0, 0
    try:
        for argument, kind in method.wire:
            value: object
            if kind == "bit":
                if not bit:
                    bits, bit = payload[offset], 1
                    offset += 1
                value = bool(bits & bit)
                bit <<= 1
            else:
                bit = 0
                value, offset = _decode_argument(kind, payload, offset)
            if argument != "_":
                values.append(value)
    except (StructError, IndexError):
        raise MalformedData(f"{method.name} ends within its arguments") from None
    except MalformedData as error:
        raise MalformedData(f"{method.name}: {error}") from None
    if offset != len(payload):
        raise MalformedData(f"{method.name} has {len(payload) - offset} bytes too many")
    return tuple(values)


def read_flag(value: object, what: str) -> bool:
    """Accept True, False, 1 and 0; anything else is a mistake, even ``"false"``.

    Raises:
        BadType: It is something else.
    """
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise BadType(f"{what} must be bool, not {value!r:.40}")


def _encode_argument(kind: str, value: object, what: str) -> bytes:
    number = _NUMBERS.get(kind)
    if number is None:
        return _ENCODERS[kind](value, what)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadType(f"{what} must be int, not {type(value).__name__}")
    try:
        return number.pack(value)
    except StructError:
        raise BadArgument(f"{what} is {value}, not within 0..{256**number.size - 1}") from None


def _decode_argument(kind: str, payload: bytes, offset: int) -> tuple[object, int]:
    number = _NUMBERS.get(kind)
    if number is None:
        return _DECODERS[kind](payload, offset)
    return number.unpack_from(payload, offset)[0], offset + number.size


# --- the hot methods, as whole frames -------------------------------------------------------
#
# The channel number is the caller's to get right.

_METHOD_FRAME = 1
_FRAME_END = 0xCE
_PUBLISH = BY_NAME["basic.publish"].key
_ACK = BY_NAME["basic.ack"].key
_REJECT = BY_NAME["basic.reject"].key
_NACK = BY_NAME["basic.nack"].key

_PUBLISH_ENDS = {False: b"\x00\xce", True: b"\x01\xce"}
_pack_octet = Struct(">B").pack
_pack_publish_head = Struct(">BHIIHB").pack
_pack_tag_and_bits = Struct(">BHIIQBB").pack


def pack_publish(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """Encode the frame of basic.publish.  Raises as ``encode_method``."""
    try:
        source = exchange.encode("utf-8", "surrogateescape")
        key = routing_key.encode("utf-8", "surrogateescape")
        size = 9 + len(source) + len(key)
        head = _pack_publish_head(_METHOD_FRAME, channel, size, _PUBLISH, 0, len(source))
        return b"".join((head, source, _pack_octet(len(key)), key, _PUBLISH_ENDS[mandatory]))
    except (AttributeError, LookupError, TypeError, ValueError, StructError):
        encode_method("basic.publish", exchange, routing_key, mandatory, False)  # raises
        raise


def pack_ack(channel: int, delivery_tag: int, multiple: bool) -> bytes:
    """Encode the frame of basic.ack.  Raises as ``encode_method``."""
    if type(delivery_tag) is not int or type(multiple) is not bool:
        encode_method("basic.ack", delivery_tag, multiple)  # raises if a value is wrong
    try:
        bits = 1 if multiple else 0
        return _pack_tag_and_bits(_METHOD_FRAME, channel, 13, _ACK, delivery_tag, bits, _FRAME_END)
    except StructError:
        encode_method("basic.ack", delivery_tag, multiple)  # raises
        raise


def pack_nack(channel: int, delivery_tag: int, multiple: bool, requeue: bool) -> bytes:
    """Encode the frame of basic.nack.  Raises as ``encode_method``."""
    if type(delivery_tag) is not int or not type(multiple) is type(requeue) is bool:
        encode_method("basic.nack", delivery_tag, multiple, requeue)
    try:
        bits = (1 if multiple else 0) | (2 if requeue else 0)
        return _pack_tag_and_bits(_METHOD_FRAME, channel, 13, _NACK, delivery_tag, bits, _FRAME_END)
    except StructError:
        encode_method("basic.nack", delivery_tag, multiple, requeue)  # raises
        raise


def pack_reject(channel: int, delivery_tag: int, requeue: bool) -> bytes:
    """Encode the frame of basic.reject.  Raises as ``encode_method``."""
    if type(delivery_tag) is not int or type(requeue) is not bool:
        encode_method("basic.reject", delivery_tag, requeue)
    try:
        bits = 1 if requeue else 0
        return _pack_tag_and_bits(
            _METHOD_FRAME, channel, 13, _REJECT, delivery_tag, bits, _FRAME_END
        )
    except StructError:
        encode_method("basic.reject", delivery_tag, requeue)  # raises
        raise
