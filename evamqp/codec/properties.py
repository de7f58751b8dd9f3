"""The fourteen properties of a message, stored as encoded bytes.

Reading one decodes only that one, so unread bytes cost nothing and malformed ones hurt only
their reader.  What the properties mean to a broker is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from struct import Struct
from struct import error as StructError
from types import MappingProxyType
from typing import TYPE_CHECKING

import evamqp.codec.fields as fields
import evamqp.codec.native as native
from evamqp.errors import BadArgument, BadType, MalformedData
from evamqp.types import FieldValue

if TYPE_CHECKING:
    from inspect import Signature

_COMPILED = native.COMPILED

_pack_flags = Struct(">H").pack
_unpack_long = Struct(">I").unpack_from
_unpack_timestamp = Struct(">Q").unpack_from

# The properties in wire order, with their flags and encoded sizes.
_STRING, _TABLE = 0, -1
_LAYOUT = (
    ("content_type", 0x8000, _STRING),
    ("content_encoding", 0x4000, _STRING),
    ("headers", 0x2000, _TABLE),
    ("delivery_mode", 0x1000, 1),
    ("priority", 0x0800, 1),
    ("correlation_id", 0x0400, _STRING),
    ("reply_to", 0x0200, _STRING),
    ("expiration", 0x0100, _STRING),
    ("message_id", 0x0080, _STRING),
    ("timestamp", 0x0040, 8),
    ("type", 0x0020, _STRING),
    ("user_id", 0x0010, _STRING),
    ("app_id", 0x0008, _STRING),
    ("cluster_id", 0x0004, _STRING),
)
_NAMES = frozenset(name for name, _, _ in _LAYOUT)

# Bit 0 announces another word of flags, bit 1 a property that does not exist.
_FOREIGN_FLAGS = 0x0003

# Bytes that fit the content header at the smallest frame_max that a broker may set: 4096 less the
# envelope, class, weight and body size.
SMALL = 4096 - 8 - 12

# What precedes a property, by the flags down to its own; fewer than 2**14 entries.
_before: dict[int, tuple[int, ...]] = {}
# Names and sizes of the properties that are set, by the flags; at most 2**14 entries.
_present: dict[int, tuple[tuple[str, int], ...]] = {}


class _Signature:
    """What inspect.signature() finds of Properties: compiled classes have none that it can read."""

    def __get__(self, instance: object, owner: object) -> Signature:
        if not native.COMPILED:
            raise AttributeError  # it reads the source's
        from inspect import Parameter, Signature  # heavy, and rarely needed

        kind = Parameter.KEYWORD_ONLY
        return Signature([Parameter(name, kind, default=None) for name, _, _ in _LAYOUT])


class Properties:
    """The properties of a message; read-only, and equal when their bytes are.

    None means unset: such a property is not sent.  An empty string is sent.

    Args:
        content_type: MIME type of the body.
        content_encoding: MIME encoding of the body.
        headers: Table of the application; copied.
        delivery_mode: 1 transient, 2 persistent; see ``DeliveryMode``.
        priority: 0..255.
        correlation_id: Of the request that this message answers.
        reply_to: Queue that an answer should go to.
        expiration: Milliseconds until a queue drops the message; read as str, as it is sent.
        message_id: Identifies the message to the application.
        timestamp: Aware datetime, or seconds since 1970; the wire has whole seconds.
        type: Name of the message's kind.
        user_id: RabbitMQ refuses any name but the connection's own.
        app_id: Name of the sending application.
        cluster_id: Deprecated by the specification.

    Raises:
        BadType: A value has the wrong type; the text names the property.
        BadArgument: A value does not fit.

    Reading a property that arrived malformed raises ``MalformedData``.
    """

    __slots__ = ("_headers", "_raw", "_sendable")
    __signature__: _Signature = _Signature()

    @property
    def raw(self) -> bytes:
        """The encoded bytes: flags and values."""
        return self._raw

    def __init__(
        self,
        *,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, object] | None = None,
        delivery_mode: int | None = None,
        priority: int | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expiration: str | int | None = None,
        message_id: str | None = None,
        timestamp: datetime | int | None = None,
        type: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self._headers: Mapping[str, FieldValue] | None = None
        if _COMPILED:
            plain = native.encode_properties(
                content_type, content_encoding, headers, delivery_mode, priority, correlation_id,
                reply_to, expiration, message_id, timestamp, type, user_id, app_id, cluster_id,
            )  # fmt: skip
            if plain is not None:
                self._raw = self._sendable = plain
                return
        # Unrolled, since it runs for each message that has properties of its own.
        flags = 0
        values = b""
        if content_type is not None:
            flags = 0x8000
            values = fields.encode_shortstr(content_type, "content_type")
        if content_encoding is not None:
            flags |= 0x4000
            values += fields.encode_shortstr(content_encoding, "content_encoding")
        if headers is not None:
            flags |= 0x2000
            values += fields.encode_table(headers, "headers")
        if delivery_mode is not None:
            flags |= 0x1000
            values += _encode_octet(delivery_mode, 1, 2, "delivery_mode")
        if priority is not None:
            flags |= 0x0800
            values += _encode_octet(priority, 0, 255, "priority")
        if correlation_id is not None:
            flags |= 0x0400
            values += fields.encode_shortstr(correlation_id, "correlation_id")
        if reply_to is not None:
            flags |= 0x0200
            values += fields.encode_shortstr(reply_to, "reply_to")
        if expiration is not None:
            flags |= 0x0100
            values += _encode_expiration(expiration)
        if message_id is not None:
            flags |= 0x0080
            values += fields.encode_shortstr(message_id, "message_id")
        if timestamp is not None:
            flags |= 0x0040
            values += fields.encode_timestamp(timestamp, "timestamp")
        if type is not None:
            flags |= 0x0020
            values += fields.encode_shortstr(type, "type")
        if user_id is not None:
            flags |= 0x0010
            values += fields.encode_shortstr(user_id, "user_id")
        if app_id is not None:
            flags |= 0x0008
            values += fields.encode_shortstr(app_id, "app_id")
        if cluster_id is not None:
            flags |= 0x0004
            values += fields.encode_shortstr(cluster_id, "cluster_id")
        raw = _pack_flags(flags) + values
        self._raw = raw
        # The same bytes if they need no check before they are published: small, and made or
        # checked here.  Unset otherwise, so that the check costs other messages nothing.
        if len(raw) <= SMALL:
            self._sendable = raw

    @staticmethod
    def from_raw(raw: bytes) -> Properties:
        """Wrap encoded properties; each is decoded only when read."""
        return wrap(raw)

    def check(self) -> bytes:
        """Check that a broker would accept these properties, and return ``raw``.

        Properties made here are valid; those from a broker are checked to the end.

        Raises:
            MalformedData: They cannot be parsed; a broker would close the connection.
        """
        raw = self._raw
        if getattr(self, "_sendable", None) is None:
            _check(raw)
            if len(raw) <= SMALL:
                self._sendable = raw
        return raw

    def replace(self, **changes: object) -> Properties:
        """Return a copy with some properties changed, or unset by None; others keep their bytes.

        Raises:
            BadType: Unknown property, or as for the constructor.
            BadArgument: As for the constructor.
            MalformedData: The bytes of these properties cannot be parsed.
        """
        unknown = changes.keys() - _NAMES
        if unknown:
            raise BadType(f"there is no property {', '.join(sorted(unknown))}")
        kept = _split(self._raw)
        kept.update(_split(Properties(**changes)._raw))  # type: ignore[arg-type]
        for name, value in changes.items():
            if value is None:
                kept.pop(name, None)
        flags, values = 0, []
        for name, flag, _ in _LAYOUT:
            if name in kept:
                flags |= flag
                values.append(kept[name])
        return Properties.from_raw(_pack_flags(flags) + b"".join(values))

    def to_dict(self) -> dict[str, object]:
        """The properties that are set, by name; cheaper than reading several one by one.

        Raises:
            MalformedData: One of them is malformed.
        """
        raw = self._raw
        found: dict[str, object] = {}
        name, offset = "their flags", 2
        try:
            flags = raw[0] << 8 | raw[1]
            layout = _present.get(flags)
            if layout is None:
                layout = _list_present(flags)
            for name, size in layout:
                if size == _STRING:
                    start = offset + 1
                    offset = start + raw[offset]
                    found[name] = raw[start:offset].decode("utf-8", "surrogateescape")
                elif size == 1:
                    found[name] = raw[offset]
                    offset += 1
                elif size == _TABLE:
                    found[name] = self.headers
                    offset += 4 + _unpack_long(raw, offset)[0]
                else:
                    found[name] = self.timestamp
                    offset += size
        except (IndexError, StructError):
            raise _ends_within(name) from None
        if offset > len(raw):
            raise _ends_within(name)
        return found

    def with_headers(self, headers: Mapping[str, object]) -> Properties:
        """Return a copy with these headers added; one of the same name is replaced.

        None is a value of a header, and is sent.  ``replace(headers=...)`` sets all headers anew,
        and so is the way to leave one out.  Other properties keep their bytes; headers that stay
        are encoded again from what was read of them.

        Args:
            headers: Names and values, as for the constructor; copied.

        Raises:
            BadType: Not a mapping, or a value that no table holds; the text names it.
            BadArgument: A value does not fit.
            MalformedData: The bytes of these properties cannot be parsed.
        """
        if not isinstance(headers, Mapping):
            raise BadType(f"headers must be a mapping, not {type(headers).__name__}")
        return self.replace(headers={**(self.headers or {}), **headers})

    @property
    def content_type(self) -> str | None:
        return self._read_string(0x8000, "content_type")

    @property
    def content_encoding(self) -> str | None:
        return self._read_string(0x4000, "content_encoding")

    @property
    def headers(self) -> Mapping[str, FieldValue] | None:
        """A read-only mapping, the same each time; ``with_headers`` makes other ones.

        ``dict(headers)`` is a copy that may be changed.  Tables and arrays within the headers are
        plain dicts and lists: changing one of those changes nothing that is sent.
        """
        if self._headers is None:
            offset = self._find(0x2000, "headers")
            if offset:
                try:
                    self._headers = MappingProxyType(fields.decode_table(self._raw, offset)[0])
                except MalformedData as error:
                    raise MalformedData(f"headers: {error}") from None
        return self._headers

    @property
    def delivery_mode(self) -> int | None:
        return self._read_octet(0x1000, "delivery_mode")

    @property
    def priority(self) -> int | None:
        return self._read_octet(0x0800, "priority")

    @property
    def correlation_id(self) -> str | None:
        return self._read_string(0x0400, "correlation_id")

    @property
    def reply_to(self) -> str | None:
        return self._read_string(0x0200, "reply_to")

    @property
    def expiration(self) -> str | None:
        return self._read_string(0x0100, "expiration")

    @property
    def message_id(self) -> str | None:
        return self._read_string(0x0080, "message_id")

    @property
    def timestamp(self) -> datetime | int | None:
        """In UTC; an int (seconds since 1970) beyond the range of datetime."""
        offset = self._find(0x0040, "timestamp")
        if not offset:
            return None
        try:
            return fields.decode_timestamp(_unpack_timestamp(self._raw, offset)[0])
        except StructError:
            raise _ends_within("timestamp") from None

    @property
    def type(self) -> str | None:
        return self._read_string(0x0020, "type")

    @property
    def user_id(self) -> str | None:
        return self._read_string(0x0010, "user_id")

    @property
    def app_id(self) -> str | None:
        return self._read_string(0x0008, "app_id")

    @property
    def cluster_id(self) -> str | None:
        return self._read_string(0x0004, "cluster_id")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Properties):
            return NotImplemented
        return self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)

    def __reduce__(self) -> tuple[Callable[[bytes], Properties], tuple[bytes]]:
        # The bytes are all there is; what was decoded of them can be copied by nobody.
        return Properties.from_raw, (self._raw,)

    def __repr__(self) -> str:
        shown = []
        for name, _, _ in _LAYOUT:
            try:
                value = getattr(self, name)
            except MalformedData:
                shown.append(f"{name}=<malformed>")
            else:
                if value is not None:
                    shown.append(f"{name}={dict(value) if name == 'headers' else value!r}")
        return f"Properties({', '.join(shown)})"

    def _find(self, flag: int, name: str) -> int:
        """Where the property's value starts; 0 if it is unset."""
        raw = self._raw
        try:
            flags = raw[0] << 8 | raw[1]
            if flags & _FOREIGN_FLAGS:
                raise _has_foreign(flags)
            if not flags & flag:
                return 0
            offset = 2
            # The flags above this one say what to skip.
            key = flags & -flag
            sizes = _before.get(key)
            if sizes is None:
                sizes = _list_before(key)
            for size in sizes:
                if size > 0:
                    offset += size
                elif size == _STRING:
                    offset += 1 + raw[offset]
                else:
                    offset += 4 + _unpack_long(raw, offset)[0]
        except (IndexError, StructError):
            raise _ends_within(name) from None
        return offset

    def _read_string(self, flag: int, name: str) -> str | None:
        offset = self._find(flag, name)
        if not offset:
            return None
        raw = self._raw
        start = offset + 1
        end = start + raw[offset] if offset < len(raw) else start
        if end > len(raw):
            raise _ends_within(name)
        return raw[start:end].decode("utf-8", "surrogateescape")

    def _read_octet(self, flag: int, name: str) -> int | None:
        offset = self._find(flag, name)
        if not offset:
            return None
        if offset >= len(self._raw):
            raise _ends_within(name)
        return self._raw[offset]


def wrap(raw: bytes) -> Properties:
    """``Properties.from_raw``, for whoever is in a hurry."""
    properties = Properties.__new__(Properties)
    properties._raw = raw
    properties._headers = None
    return properties


_OCTETS = tuple(bytes((octet,)) for octet in range(256))


def _encode_octet(value: int, low: int, high: int, what: str) -> bytes:
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, int)):
        raise BadType(f"{what} must be int, not {type(value).__name__}")
    if low <= value <= high:
        return _OCTETS[value]
    raise BadArgument(f"{what} is {value}, not within {low}..{high}")


def _encode_expiration(value: str | int) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise BadArgument(f"expiration is {value}, below 0 milliseconds")
        value = str(int(value))
    if not isinstance(value, str):
        raise BadType(f"expiration must be str or int, not {type(value).__name__}")
    return fields.encode_shortstr(value, "expiration")


def _list_before(key: int) -> tuple[int, ...]:
    """The sizes of the properties whose flags are in ``key``, without the last."""
    before = tuple(size for _, flag, size in _LAYOUT if key & flag)[:-1]
    _before[key] = before
    return before


def _list_present(flags: int) -> tuple[tuple[str, int], ...]:
    """Names and sizes of the properties whose flags are set."""
    if flags & _FOREIGN_FLAGS:
        raise _has_foreign(flags)
    layout = tuple((name, size) for name, flag, size in _LAYOUT if flags & flag)
    _present[flags] = layout
    return layout


def _split(raw: bytes) -> dict[str, bytes]:
    """The bytes of each property that is set, by name."""
    properties = Properties.from_raw(raw)
    found = {}
    for name, flag, size in _LAYOUT:
        start = properties._find(flag, name)
        if start:
            end = _step(raw, start, size)
            if end > len(raw):
                raise _ends_within(name)
            found[name] = raw[start:end]
    return found


def _check(raw: bytes) -> None:
    """Raise MalformedData unless ``raw`` is valid from the first byte to the last."""
    if len(raw) < 2:
        raise _ends_within("their flags")
    flags = raw[0] << 8 | raw[1]
    if flags & _FOREIGN_FLAGS:
        raise _has_foreign(flags)
    offset = 2
    for name, flag, size in _LAYOUT:
        if flags & flag:
            offset = fields.skip_table(raw, offset) if size == _TABLE else _step(raw, offset, size)
            if offset > len(raw):
                raise _ends_within(name)
    if offset < len(raw):
        raise MalformedData(f"properties go on for {len(raw) - offset} bytes behind the last")


def _step(raw: bytes, offset: int, size: int) -> int:
    """Where the value at ``offset`` ends; beyond ``raw`` if it does not end within."""
    if size > 0:
        return offset + size
    try:
        if size == _STRING:
            return offset + 1 + raw[offset]
        return offset + 4 + int(_unpack_long(raw, offset)[0])
    except (IndexError, StructError):
        return len(raw) + 1


def _has_foreign(flags: int) -> MalformedData:
    return MalformedData(f"properties have flags beyond the fourteen: {flags:#06x}")


def _ends_within(name: str) -> MalformedData:
    return MalformedData(f"properties end before the end of {name}")


#: Of a message that the broker keeps when it restarts, and nothing else.
PERSISTENT: Properties = Properties(delivery_mode=2)
