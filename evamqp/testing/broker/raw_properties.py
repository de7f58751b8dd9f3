"""A message's properties and headers as bytes: checked, split and joined, values left as they came.

What a property means is not known here but for the headers, which are a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct

from evamqp.errors import MalformedData

HEADERS = 0x2000
DELIVERY_MODE = 0x1000
PRIORITY = 0x0800
REPLY_TO = 0x0200
EXPIRATION = 0x0100
USER_ID = 0x0010
# Bit 0 announces another word of flags, which nothing sends.
_MORE_FLAGS = 0x0001

# The properties by their flags, in the order of the wire, with the bytes each takes.
_STRING, _TABLE = 0, -1
_LAYOUT = tuple(
    (0x8000 >> number, size)
    for number, size in enumerate(
        (_STRING, _STRING, _TABLE, 1, 1, *[_STRING] * 4, 8, *[_STRING] * 4)
    )
)
# Bytes of a value, by its kind; strings, tables and arrays begin with their length.
_SIZES = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"lLdT", 8),
    ord("D"): 5,
    ord("V"): 0,
}
_LONG = frozenset(b"SxFA")
_NESTED = frozenset(b"FA")
_TABLE_KIND, _FLOAT, _DOUBLE = b"Ffd"
_pack_flags = Struct(">H").pack
_pack_long = Struct(">I").pack

#: Values by their flags, in the order of the wire.
Fields = dict[int, bytes]
#: A header: its name, and the kind and the bytes of its value.
Header = tuple[bytes, bytes]


def split_properties(raw: bytes) -> Fields:
    """The properties, each as it came.

    Raises:
        MalformedData: They end early or late, or the headers are no table.
    """
    flags = int.from_bytes(raw[:2], "big")
    position = 2
    fields: Fields = {}
    for flag, size in _LAYOUT:
        if flags & flag:
            start = position
            if size == _STRING:
                position += 1 + int.from_bytes(raw[start : start + 1], "big")
            elif size == _TABLE:
                position += 4 + int.from_bytes(raw[start : start + 4], "big")
            else:
                position += size
            fields[flag] = raw[start:position]
    if position != len(raw) or flags & _MORE_FLAGS:
        raise MalformedData("properties end early or late")
    if HEADERS in fields:
        _check_table(fields[HEADERS])
    return fields


def join_properties(fields: Fields) -> bytes:
    """The properties as one piece."""
    values = [fields[flag] for flag, _ in _LAYOUT if flag in fields]
    return _pack_flags(sum(fields)) + b"".join(values)


def split_headers(table: bytes) -> list[Header]:
    """The headers of a table that begins with its length, in their order, of equal names each."""
    headers = []
    position = 4
    while position < len(table):
        start = position + 1 + table[position]
        stop = _end_of_value(table, start)
        headers.append((table[position + 1 : start], table[start:stop]))
        position = stop
    return headers


def join_headers(headers: Iterable[Header]) -> bytes:
    """A table of these headers, with its length."""
    data = b"".join(bytes((len(name),)) + name + value for name, value in headers)
    return _pack_long(len(data)) + data


def split_array(value: bytes) -> Iterator[bytes]:
    """The items of an array, each with its kind; none of what is no array."""
    position = 5 if value[:1] == b"A" else len(value)
    while position < len(value):
        stop = _end_of_value(value, position)
        yield value[position:stop]
        position = stop


def array_of(items: Iterable[bytes]) -> bytes:
    """An array of items that have their kinds."""
    data = b"".join(items)
    return b"A" + _pack_long(len(data)) + data


def text_of(value: str) -> bytes:
    """A long string with its kind."""
    data = value.encode("utf-8", "surrogateescape")
    return b"S" + _pack_long(len(data)) + data


def _check_table(data: bytes) -> None:
    """Refuse what is no table, whatever is nested in it, to any depth."""
    waiting = [(4, len(data), True)]
    while waiting:
        position, end, is_table = waiting.pop()
        while position < end:
            if is_table:
                position += 1 + data[position]
            if position >= end:
                raise MalformedData("a header ends early")
            kind = data[position]
            stop = _end_of_value(data, position)
            if stop > end or (kind in (_FLOAT, _DOUBLE) and not _is_finite(data, position)):
                raise MalformedData("a header ends early, or is no number")
            if kind in _NESTED:
                waiting.append((position + 5, stop, kind == _TABLE_KIND))
            position = stop


def _end_of_value(data: bytes, position: int) -> int:
    """Where the value ends whose kind is at ``position``; perhaps beyond the data."""
    kind = data[position]
    size = _SIZES.get(kind)
    if size is not None:
        return position + 1 + size
    if kind in _LONG:
        start = position + 5
        return start + int.from_bytes(data[position + 1 : start], "big")
    raise MalformedData(f"a header is of the unknown kind {kind}")


def _is_finite(data: bytes, position: int) -> bool:
    """Whether a float is a number; RabbitMQ cannot read others."""
    exponent = 0x7F80 if data[position] == _FLOAT else 0x7FF0
    return int.from_bytes(data[position + 1 : position + 3], "big") & exponent != exponent
