"""Field tables as pika writes and reads them: into a list of pieces, from bytes at an offset.

The codec is evamqp's; only the calling conventions and the exceptions are pika's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from evamqp import BadArgument, BadType, MalformedData
from evamqp.codec import fields

from .exceptions import (
    InvalidFieldTypeException,
    ShortStringTooLong,
    UnencodableDecimalError,
    UnencodableLongError,
    UnencodableTimestampError,
    UnsupportedAMQPFieldException,
)

_OUT_OF_RANGE = {
    int: UnencodableLongError,
    Decimal: UnencodableDecimalError,
    datetime: UnencodableTimestampError,
}
# A table of one value with an empty key: its size, and the key's length.
_BEFORE_VALUE = 5


def encode_short_string(pieces: list[bytes], value: str | bytes) -> int:
    """Append a text of up to 255 bytes; return how many bytes were appended.

    Raises:
        ShortStringTooLong: It has more.
    """
    encoded = value if isinstance(value, bytes) else value.encode("utf-8")
    if len(encoded) > 255:
        raise ShortStringTooLong(encoded)
    pieces.append(bytes((len(encoded),)))
    pieces.append(encoded)
    return 1 + len(encoded)


def decode_short_string(encoded: bytes, offset: int) -> tuple[str, int]:
    """The text at ``offset``, and where it ends."""
    text, offset = fields.decode_shortstr(encoded, offset)
    return text, offset


def encode_table(pieces: list[bytes], table: Mapping[str, Any] | None) -> int:
    """Append a table; return how many bytes were appended.

    Raises:
        UnsupportedAMQPFieldException: A value of a type that no table holds.
        ShortStringTooLong: A key of more than 255 bytes.
    """
    encoded = _encode(pieces, table or {})
    pieces.append(encoded)
    return len(encoded)


def decode_table(encoded: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """The table at ``offset``, and where it ends.

    Raises:
        InvalidFieldTypeException: It holds a value of an unknown kind.
    """
    try:
        table, end = fields.decode_table(encoded, offset)
    except MalformedData as error:
        raise InvalidFieldTypeException(str(error)) from error
    return dict(table), end


def encode_value(pieces: list[bytes], value: Any) -> int:
    """Append one value with its kind; return how many bytes were appended."""
    encoded = _encode(pieces, {"": value})[_BEFORE_VALUE:]
    pieces.append(encoded)
    return len(encoded)


def decode_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """The value at ``offset``, and where it ends."""
    # How long it is only its end tells: so the rest is read as a table of this entry alone, which
    # says where it stopped.
    kind = encoded[offset : offset + 1]
    size = _size_of(encoded, offset)
    entry = b"\0" + encoded[offset : offset + size]
    try:
        table, _ = fields.decode_table(struct.pack(">I", len(entry)) + entry)
    except MalformedData:
        raise InvalidFieldTypeException(kind) from None
    return table[""], offset + size


_FIXED = {"t": 1, "b": 1, "B": 1, "s": 2, "U": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 4,
          "d": 8, "D": 5, "T": 8, "V": 0}  # fmt: skip


def _size_of(encoded: bytes, offset: int) -> int:
    """Bytes of the value at ``offset``, its kind included."""
    kind = chr(encoded[offset])
    if kind in _FIXED:
        return 1 + _FIXED[kind]
    if kind not in "SxFA":
        raise InvalidFieldTypeException(encoded[offset : offset + 1])
    size: int = struct.unpack_from(">I", encoded, offset + 1)[0]
    return 5 + size


def _encode(pieces: list[bytes], table: Mapping[str, Any]) -> bytes:
    try:
        return fields.encode_table({key: with_zone(value) for key, value in table.items()})
    except (BadType, BadArgument) as error:
        raise _refusal(pieces, table, error) from error


def with_zone(value: Any) -> Any:
    """The value, with every naive datetime in it taken for UTC, as pika does."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
    if isinstance(value, Mapping):
        return {key: with_zone(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_zone(entry) for entry in value]
    return value


def _refusal(pieces: list[bytes], table: Mapping[str, Any], error: Exception) -> Exception:
    """pika's exception for what evamqp refused."""
    for key, value in table.items():
        if isinstance(key, str) and len(key.encode("utf-8", "surrogatepass")) > 255:
            return ShortStringTooLong(key.encode("utf-8", "surrogatepass"))
        try:
            fields.encode_table({"": with_zone(value)})
        except (BadArgument, BadType) as refusal:
            if isinstance(value, Mapping):
                return _refusal(pieces, value, error)
            if isinstance(value, (list, tuple)):
                return _refusal(pieces, {str(i): entry for i, entry in enumerate(value)}, error)
            if isinstance(refusal, BadArgument):
                return _out_of_range(value, error)
            return UnsupportedAMQPFieldException(pieces, value)
    return UnsupportedAMQPFieldException(pieces, table)


def _out_of_range(value: Any, error: Exception) -> Exception:
    for kind, refusal in _OUT_OF_RANGE.items():
        if isinstance(value, kind):
            return refusal(value)
    return struct.error(str(error))
