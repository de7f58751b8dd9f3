"""Field tables, arrays and strings: Python values to bytes and back.

Everything here is a function of its arguments.  Methods, properties and frames are built from it
elsewhere; nothing here knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from math import isfinite
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any, cast

import evamqp.codec.native as native
from evamqp.errors import BadArgument, BadType, MalformedData, UsageError
from evamqp.types import FieldValue, Table

if TYPE_CHECKING:
    # Key, kind of the value, and for a plain number how to unpack it and its size (else 0).
    _Entry = tuple[str, int, Callable[[bytes, int], tuple[Any, ...]], int]
    _Container = dict[str, FieldValue] | list[FieldValue]

# Enough for any sensible header, and a peer cannot exhaust our stack or memory.
DEPTH_MAX = 100

#: What a longstr, a table or an array can hold, in bytes.
LONG_MAX = 0xFFFFFFFF

# Names of table entries recur, so both directions cache them: a bounded number, each of bounded
# size, since the wire allows 255 bytes.  A full cache stays as it is: with more names in use,
# clearing and refilling it would cost more than it saves.
_MEMORY_MAX = 1024
_known_keys: dict[str, bytes] = {}
_known_entries: dict[bytes, _Entry] = {}
# The names alone, where a compiled build looks first.
_known_names: list[str | None] = [None] * 256

_COMPILED = native.COMPILED

_UTC = timezone.utc
_EPOCH = datetime(1970, 1, 1, tzinfo=_UTC)
_from_timestamp = datetime.fromtimestamp

_LONGSTR, _BYTES, _TABLE, _ARRAY = b"SxFA"
_INT32, _INT64, _DOUBLE = b"Ild"
_BOOL, _TIMESTAMP, _DECIMAL, _VOID = b"tTDV"
_STRINGS = b"Sx"
_FLOATS = b"fd"
_NESTED = b"FA"

# The plain numbers, signed as in RabbitMQ, which differs a little from the specification.
_NUMBERS = {
    ord("b"): Struct(">b"),
    ord("B"): Struct(">B"),
    ord("s"): Struct(">h"),
    ord("u"): Struct(">H"),
    ord("I"): Struct(">i"),
    ord("i"): Struct(">I"),
    ord("l"): Struct(">q"),
    ord("L"): Struct(">q"),
    ord("f"): Struct(">f"),
    ord("d"): Struct(">d"),
}
_UNPACKERS = {kind: (number.unpack_from, number.size) for kind, number in _NUMBERS.items()}
_NO_UNPACKER = Struct("").unpack_from, 0

_OCTETS = tuple(bytes((octet,)) for octet in range(256))

_pack_long = Struct(">I").pack
_pack_uint64 = Struct(">Q").pack
_pack_head = Struct(">BI").pack
_STRING_HEADS = tuple(_pack_head(_LONGSTR, size) for size in range(256))
_pack_int32 = Struct(">Bi").pack
_pack_int64 = Struct(">Bq").pack
_pack_double = Struct(">Bd").pack
_pack_timestamp = Struct(">BQ").pack
_pack_decimal = Struct(">BBi").pack

_unpack_long = Struct(">I").unpack_from
_unpack_uint64 = Struct(">Q").unpack_from
_unpack_decimal = Struct(">Bi").unpack_from


# --- strings --------------------------------------------------------------------------------


def encode_shortstr(value: str, what: str) -> bytes:
    """Encode a length octet and UTF-8; a decoder's surrogates become their original bytes.

    Args:
        what: Names the value in errors.

    Raises:
        BadType: Not a str.
        BadArgument: More than 255 bytes, or no UTF-8 exists for it.
    """
    try:
        raw = str.encode(value, "utf-8", "surrogateescape")
        return _OCTETS[len(raw)] + raw
    except IndexError:
        raise BadArgument(f"{what} has {len(raw)} bytes; at most 255 fit") from None
    except TypeError:
        raise BadType(f"{what} must be str, not {type(value).__name__}") from None
    except UnicodeEncodeError as error:
        raise BadArgument(f"{what} has no UTF-8 form: {error}") from None


def encode_longstr(value: str | bytes, what: str) -> bytes:
    """Encode a four-byte length and the bytes; a str as UTF-8.  Raises as ``encode_shortstr``."""
    if isinstance(value, str):
        value = _encode_text(value, what)
    elif not isinstance(value, (bytes, bytearray)):
        raise BadType(f"{what} must be str or bytes, not {type(value).__name__}")
    if len(value) > LONG_MAX:
        raise BadArgument(f"{what} has {len(value)} bytes; at most {LONG_MAX} fit")
    return _pack_long(len(value)) + value


def _encode_text(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        problem = str(error)
    # Raised outside the handler: the UnicodeEncodeError holds the text, which may be a secret.
    raise BadArgument(f"{what} has no UTF-8 form: {problem}")


def decode_shortstr(data: bytes, offset: int) -> tuple[str, int]:
    """Decode a string; return it and the offset after it.  Bytes that are not UTF-8 become
    surrogates.

    Raises:
        MalformedData: The data ends within it.
    """
    start = offset + 1
    end = start + data[offset] if offset < len(data) else start
    if end > len(data):
        raise MalformedData(f"short string at byte {offset} ends beyond the data")
    return data[start:end].decode("utf-8", "surrogateescape"), end


def decode_longstr(data: bytes, offset: int) -> tuple[bytes, int]:
    """Decode bytes; return them and the offset after them.  Raises as ``decode_shortstr``."""
    start, end = _open(data, offset, len(data), "long string")
    return data[start:end], end


# --- decoding -------------------------------------------------------------------------------


def decode_table(data: bytes, offset: int = 0) -> tuple[Table, int]:
    """Decode the table at ``offset``; return it and the offset after it.

    If a key occurs twice, the last value counts.

    Raises:
        MalformedData: Not a table, whatever is wrong with it.
    """
    table: Table = {}
    try:
        start = offset + 4
        end: int = start + _unpack_long(data, offset)[0]
        if end > len(data):
            raise _ends_early("table", offset)
        position, inner = _fill_table(table, data, start, end)
        if inner is not None:
            _fill_nested(table, inner, data, position, end)
    except (StructError, IndexError):
        raise _ends_early("table", offset) from None
    return table, end


def skip_table(data: bytes, offset: int) -> int:
    """Return the offset after the table at ``offset``.

    Tables may be nested to any depth, since brokers accept that.

    Raises:
        MalformedData: Not a table, or one with a float that is not finite, over which RabbitMQ
            closes the connection.
    """
    outer: list[tuple[int, bool]] = []  # where each container ends, and whether it has names
    try:
        position, end = _open(data, offset, len(data), "table")
        has_names = True
        while position != end or outer:
            if position == end:
                end, has_names = outer.pop()
                continue
            if has_names:
                position += 1 + data[position]
            kind = data[position]
            position += 1
            if kind in _NESTED:
                outer.append((end, has_names))
                position, end = _open(data, position, end, "nested value")
                has_names = kind == _TABLE
            else:
                value, position = _decode_value(kind, data, position)
                if kind in _FLOATS and not isfinite(cast(float, value)):
                    raise MalformedData(f"a float within the table at {offset} is not finite")
            if position > end:
                raise _ends_early("table", offset)
    except (StructError, IndexError):
        raise _ends_early("table", offset) from None
    return end


def _fill_nested(
    container: _Container, inner: _Container | None, data: bytes, position: int, end: int
) -> None:
    """Decode ``inner``, found in ``container``, and then everything after it.

    A list holds the open containers, not the call stack, which deep nesting would exhaust.
    """
    outer: list[tuple[_Container, int]] = []
    while True:
        if inner is not None:
            outer.append((container, end))
            if len(outer) >= DEPTH_MAX:
                raise MalformedData(f"table nested more than {DEPTH_MAX} deep")
            position, end = _open(data, position, end, "nested value")
            container = inner
        elif outer:
            container, end = outer.pop()
        else:
            return
        if isinstance(container, dict):
            position, inner = _fill_table(container, data, position, end)
        else:
            position, inner = _fill_array(container, data, position, end)


def _fill_table(
    table: Table, data: bytes, position: int, end: int
) -> tuple[int, _Container | None]:
    """Read entries up to ``end``, or up to one that holds a container; return that, still empty.

    A value may be read past ``end``, even past the data: slices and structs stay within the data,
    and the position is compared with ``end`` before anything comes of it.
    """
    if _COMPILED:
        position = native.fill_plain(table, data, position, end, _known_names)
    known = _known_entries
    while position < end:
        start = position + data[position] + 2
        try:
            key, kind, unpack, size = known[data[position:start]]
        except KeyError:
            key, kind, unpack, size = _decode_entry(data[position:start])
        if kind == _LONGSTR:
            start += 4
            position = start + _unpack_long(data, start - 4)[0]
            try:
                table[key] = data[start:position].decode()  # naming a codec takes thrice the time
            except UnicodeDecodeError:
                table[key] = data[start:position].decode("utf-8", "surrogateescape")
        elif size:
            (table[key],) = unpack(data, start)
            position = start + size
        elif kind == _BOOL:
            table[key] = data[start] != 0
            position = start + 1
        elif kind == _TIMESTAMP:
            table[key] = decode_timestamp(_unpack_uint64(data, start)[0])
            position = start + 8
        elif kind in _NESTED:
            inner: _Container = {} if kind == _TABLE else []
            table[key] = inner
            return start, inner
        else:
            table[key], position = _decode_value(kind, data, start)
    if position > end:
        raise _ends_early("value", position)
    return position, None


def _fill_array(
    array: list[FieldValue], data: bytes, position: int, end: int
) -> tuple[int, _Container | None]:
    """Like ``_fill_table``; items have no key."""
    while position < end:
        kind = data[position]
        if kind in _NESTED:
            inner: _Container = {} if kind == _TABLE else []
            array.append(inner)
            return position + 1, inner
        value, position = _decode_value(kind, data, position + 1)
        array.append(value)
    if position > end:
        raise _ends_early("value", position)
    return position, None


def _open(data: bytes, offset: int, limit: int, what: str) -> tuple[int, int]:
    """Where the contents after a four-byte length start and end."""
    start = offset + 4
    if start > limit:
        raise _ends_early(what, offset)
    end: int = start + _unpack_long(data, offset)[0]
    if end > limit:
        raise _ends_early(what, offset)
    return start, end


def _decode_entry(raw: bytes) -> _Entry:
    """Decode an entry's key and kind of value; cached while there is room."""
    kind = raw[raw[0] + 1]
    unpack, size = _UNPACKERS.get(kind, _NO_UNPACKER)
    entry = raw[1:-1].decode("utf-8", "surrogateescape"), kind, unpack, size
    if len(_known_entries) < _MEMORY_MAX:
        _known_entries[raw] = entry
    return entry


def _decode_value(kind: int, data: bytes, start: int) -> tuple[FieldValue, int]:
    """Decode a value that is not a container; return it and the offset after it."""
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        return number.unpack_from(data, start)[0], start + number.size
    if kind == _BOOL:
        return data[start] != 0, start + 1
    if kind == _TIMESTAMP:
        return decode_timestamp(_unpack_uint64(data, start)[0]), start + 8
    if kind == _VOID:
        return None, start
    if kind == _DECIMAL:
        return _decode_decimal(*_unpack_decimal(data, start)), start + 5
    if kind not in _STRINGS:
        raise MalformedData(f"value of unknown type {bytes((kind,))!r} at byte {start - 1}")
    end = start + 4 + _unpack_long(data, start)[0]
    raw = data[start + 4 : end]
    return raw if kind == _BYTES else raw.decode("utf-8", "surrogateescape"), end


def _decode_decimal(scale: int, unscaled: int) -> Decimal:
    # Built from digits: arithmetic would round by the thread's decimal context.
    return Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -scale))


def decode_timestamp(seconds: int) -> datetime | int:
    """An aware datetime in UTC; the number itself where datetime ends (year 10000)."""
    try:
        return _from_timestamp(seconds, _UTC)
    except (ValueError, OverflowError, OSError):
        return seconds


def _ends_early(what: str, offset: int) -> MalformedData:
    return MalformedData(f"{what} at byte {offset} ends beyond what holds it")


# --- encoding -------------------------------------------------------------------------------


class _Refused(Exception):
    """A value that cannot be encoded; each container adds its part of the path."""

    def __init__(self, kind: type[UsageError], text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.path: list[str] = []

    def within(self, part: str) -> _Refused:
        """The same error, from the container that holds the value under ``part``."""
        self.path.append(part)
        return self

    def named(self, what: str) -> UsageError:
        """The error for the user, ``what`` being the outermost name."""
        return self.kind(f"{what}{''.join(reversed(self.path))} {self.text}")


def encode_table(table: Mapping[str, object] | None, what: str = "table") -> bytes:
    """Encode a table after its four-byte length; None is an empty one.

    Args:
        what: Names the table in errors, which give the path to the culprit: ``headers.a[3]``.

    Raises:
        BadType: A key is not a str, or no table can hold a value's type.
        BadArgument: A key or value does not fit, or a table contains itself.
    """
    if table is None:
        return b"\x00\x00\x00\x00"
    try:
        if not isinstance(table, (dict, Mapping)):  # dict first: checking against an ABC is slow
            raise _Refused(BadType, f"must be a mapping, not {type(table).__name__}")
        if _COMPILED and type(table) is dict:
            encoded = native.encode_plain(table)
            if encoded is not None:
                return encoded
        return _encode_entries(table, 1)
    except _Refused as refused:
        raise refused.named(what) from None
    except StructError:
        raise BadArgument(f"{what} has a value above {LONG_MAX} bytes") from None


def encode_timestamp(value: datetime | int, what: str) -> bytes:
    """Encode eight bytes: whole seconds since 1970.

    Raises:
        BadType: Neither a datetime nor an int.
        BadArgument: A naive datetime, one before 1970, or a number above 64 bits.
    """
    try:
        if isinstance(value, datetime):
            value = _seconds(value)
        elif isinstance(value, bool) or not isinstance(value, int):
            raise _Refused(BadType, f"must be datetime or int, not {type(value).__name__}")
        return _pack_uint64(value)
    except _Refused as refused:
        raise refused.named(what) from None
    except StructError:
        raise BadArgument(f"{what} must be within 64 bits, unsigned") from None


def _encode_entries(table: Mapping[str, object], depth: int) -> bytes:
    known = _known_keys
    parts = []
    key = ""
    try:
        for key, value in table.items():
            parts.append(known.get(key) or _encode_key(key))
            # The two most common kinds inline: a call costs as much as the encoding.
            if type(value) is str:
                raw = value.encode("utf-8", "surrogateescape")
                size = len(raw)
                parts.append(_STRING_HEADS[size] if size < 256 else _pack_head(_LONGSTR, size))
                parts.append(raw)
            elif type(value) is int and -0x80000000 <= value <= 0x7FFFFFFF:
                parts.append(_pack_int32(_INT32, value))
            else:
                encode = _ENCODERS.get(type(value)) or _find_encoder(value)
                parts.append(encode(value, depth))
    except UnicodeEncodeError as error:
        raise _no_utf8(error).within(f".{key!s:.64}") from None
    except _Refused as refused:
        raise refused.within(f".{key!s:.64}") from None
    entries = b"".join(parts)
    return _pack_long(len(entries)) + entries


def _encode_key(key: str) -> bytes:
    """Encode a key; cached while there is room."""
    if not isinstance(key, str):
        raise _Refused(BadType, f"is no key: keys are str, not {type(key).__name__}")
    raw = key.encode("utf-8", "surrogateescape")
    if len(raw) > 255:
        raise _Refused(BadArgument, f"is a key of {len(raw)} bytes; at most 255 fit")
    encoded = _OCTETS[len(raw)] + raw
    if len(_known_keys) < _MEMORY_MAX and type(key) is str:
        _known_keys[key] = encoded
    return encoded


def _no_utf8(error: UnicodeEncodeError) -> _Refused:
    return _Refused(BadArgument, f"has no UTF-8 form: {error}")


def _encode_str(value: str, depth: int) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    return _pack_head(_LONGSTR, len(raw)) + raw


def _encode_bytes(value: bytes, depth: int) -> bytes:
    return _pack_head(_BYTES, len(value)) + value


def _encode_bool(value: bool, depth: int) -> bytes:
    return b"t\x01" if value else b"t\x00"


def _encode_int(value: int, depth: int) -> bytes:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return _pack_int32(_INT32, value)
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return _pack_int64(_INT64, value)
    raise _Refused(BadArgument, "is an int beyond 64 bits, signed")


def _encode_float(value: float, depth: int) -> bytes:
    # RabbitMQ's parser accepts no other floats: it closes the connection with 541.
    if not isfinite(value):
        raise _Refused(BadArgument, f"is {value}; only finite numbers can be sent")
    return _pack_double(_DOUBLE, value)


def _encode_datetime(value: datetime, depth: int) -> bytes:
    return _pack_timestamp(_TIMESTAMP, _seconds(value))


def _seconds(value: datetime) -> int:
    if value.utcoffset() is None:
        raise _Refused(
            BadArgument, "is a naive datetime; give it a time zone, such as datetime.timezone.utc"
        )
    since = value - _EPOCH
    if since.days < 0:
        raise _Refused(BadArgument, "is before 1970, which the unsigned wire format cannot say")
    return since.days * 86400 + since.seconds


def _encode_decimal(value: Decimal, depth: int) -> bytes:
    """Encode a scale octet and the unscaled value in 32 *signed* bits, as specified."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise _Refused(BadArgument, f"is {value}, which a decimal field cannot hold")
    scale, zeros = max(-exponent, 0), 0 if digits == (0,) else max(exponent, 0)
    # More than ten digits exceed 32 bits; check first, to avoid the arithmetic of 1E+999999.
    if len(digits) + zeros > 10 or scale > 255:
        raise _out_of_decimal(value)
    unscaled = int("".join(map(str, digits))) * 10**zeros
    try:
        return _pack_decimal(_DECIMAL, scale, -unscaled if sign else unscaled)
    except StructError:
        raise _out_of_decimal(value) from None


def _out_of_decimal(value: Decimal) -> _Refused:
    return _Refused(BadArgument, f"is {value!s:.40}: decimals have 32 bits and up to 255 places")


def _encode_none(value: None, depth: int) -> bytes:
    return b"V"


def _encode_mapping(value: Mapping[str, object], depth: int) -> bytes:
    return b"F" + _encode_entries(value, _deeper(depth))


def _encode_sequence(value: list[object] | tuple[object, ...], depth: int) -> bytes:
    depth = _deeper(depth)
    parts = []
    try:
        for item in value:
            encode = _ENCODERS.get(type(item)) or _find_encoder(item)
            parts.append(encode(item, depth))
    except UnicodeEncodeError as error:
        raise _no_utf8(error).within(f"[{len(parts)}]") from None
    except _Refused as refused:
        raise refused.within(f"[{len(parts)}]") from None
    items = b"".join(parts)
    return _pack_head(_ARRAY, len(items)) + items


def _deeper(depth: int) -> int:
    if depth >= DEPTH_MAX:
        raise _Refused(BadArgument, f"is nested more than {DEPTH_MAX} deep, or contains itself")
    return depth + 1


_Encoder = Callable[[Any, int], bytes]

# The order matters for subclasses: an IntEnum is an int, a named tuple is a tuple.
_ENCODERS: dict[type, _Encoder] = {
    str: _encode_str,
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    datetime: _encode_datetime,
    Decimal: _encode_decimal,
    list: _encode_sequence,
    tuple: _encode_sequence,
    dict: _encode_mapping,
    type(None): _encode_none,
}


def _find_encoder(value: object) -> _Encoder:
    """The encoder for an instance of a subclass, or for any mapping."""
    for kind, encode in _ENCODERS.items():
        if isinstance(value, kind):
            return encode
    if isinstance(value, Mapping):
        return _encode_mapping
    raise _Refused(BadType, f"is of type {type(value).__name__}, which no field table can hold")
