"""BasicProperties: pika's mutable object, read lazily from a message and written lazily to one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from evamqp import MalformedData, Properties, UsageError

from . import amqp_object, data
from .compat import str_or_bytes
from .delivery_mode import DeliveryMode
from .exceptions import InvalidFrameError

if TYPE_CHECKING:
    from evamqp import Message, blocking

    # Both are equal for a message that came.
    AnyMessage = Message | blocking.Message

_LAYOUT = (
    ("content_type", 0x8000, "shortstr"),
    ("content_encoding", 0x4000, "shortstr"),
    ("headers", 0x2000, "table"),
    ("delivery_mode", 0x1000, ">B"),
    ("priority", 0x0800, ">B"),
    ("correlation_id", 0x0400, "shortstr"),
    ("reply_to", 0x0200, "shortstr"),
    ("expiration", 0x0100, "shortstr"),
    ("message_id", 0x0080, "shortstr"),
    ("timestamp", 0x0040, ">Q"),
    ("type", 0x0020, "shortstr"),
    ("user_id", 0x0010, "shortstr"),
    ("app_id", 0x0008, "shortstr"),
    ("cluster_id", 0x0004, "shortstr"),
)
_NAMES = tuple(name for name, _, _ in _LAYOUT)
_NAME_SET = frozenset(_NAMES)
_NONE = Properties()


class BasicProperties(amqp_object.Properties):
    """The properties of a message.  Attributes may be set at any time; None means unset.

    What came with a message is decoded attribute by attribute, when it is read.  ``delivery_mode``
    takes a DeliveryMode or its number; ``timestamp`` is in seconds since 1970.
    """

    INDEX: int | None = 60
    NAME = "BasicProperties"
    CLASS: Any  # ``spec.Basic``

    FLAG_CONTENT_TYPE = 1 << 15
    FLAG_CONTENT_ENCODING = 1 << 14
    FLAG_HEADERS = 1 << 13
    FLAG_DELIVERY_MODE = 1 << 12
    FLAG_PRIORITY = 1 << 11
    FLAG_CORRELATION_ID = 1 << 10
    FLAG_REPLY_TO = 1 << 9
    FLAG_EXPIRATION = 1 << 8
    FLAG_MESSAGE_ID = 1 << 7
    FLAG_TIMESTAMP = 1 << 6
    FLAG_TYPE = 1 << 5
    FLAG_USER_ID = 1 << 4
    FLAG_APP_ID = 1 << 3
    FLAG_CLUSTER_ID = 1 << 2

    # Where unread attributes come from: a Message, Properties, or nothing.  And what was published
    # last: the attributes and their bytes, since the next message mostly has the same.
    __slots__ = ("_published", "_published_as", "_source")

    _source: AnyMessage | Properties | None
    _published: dict[str, Any]
    _published_as: Properties

    def __init__(
        self,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        delivery_mode: DeliveryMode | int | None = None,
        priority: int | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expiration: str | None = None,
        message_id: str | None = None,
        timestamp: int | None = None,
        type: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self._source = None
        if isinstance(delivery_mode, DeliveryMode):
            delivery_mode = delivery_mode.value
        # Unrolled, since it runs for each message that has properties of its own.
        if content_type is not None:
            self.content_type = content_type
        if content_encoding is not None:
            self.content_encoding = content_encoding
        if headers is not None:
            self.headers = headers
        if delivery_mode is not None:
            self.delivery_mode = delivery_mode
        if priority is not None:
            self.priority = priority
        if correlation_id is not None:
            self.correlation_id = correlation_id
        if reply_to is not None:
            self.reply_to = reply_to
        if expiration is not None:
            self.expiration = expiration
        if message_id is not None:
            self.message_id = message_id
        if timestamp is not None:
            self.timestamp = timestamp
        if type is not None:
            self.type = type
        if user_id is not None:
            self.user_id = user_id
        if app_id is not None:
            self.app_id = app_id
        if cluster_id is not None:
            self.cluster_id = cluster_id

    def __getattr__(self, name: str) -> Any:
        if name not in _NAME_SET:
            raise AttributeError(f"BasicProperties has no attribute {name!r}")
        source = self._source
        if source is None:
            return None
        properties = source if isinstance(source, Properties) else source.properties
        value = getattr(properties, name)
        if name == "timestamp" and value is not None and not isinstance(value, int):
            value = int(value.timestamp())
        elif name == "headers" and value is not None:
            value = dict(value)
        self.__dict__[name] = value
        return value

    def _items(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NAMES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._source = None
        self.__dict__.update(state)

    def encode(self) -> list[bytes]:
        """The flags and the values, as pieces of bytes.

        Raises:
            AssertionError: A text is no str.
            struct.error: A number does not fit.
            ShortStringTooLong: A text has more than 255 bytes.
            UnsupportedAMQPFieldException: No table holds a value of ``headers``.
        """
        flags = 0
        pieces: list[bytes] = []
        for name, flag, kind in _LAYOUT:
            value = getattr(self, name)
            if value is None:
                continue
            flags |= flag
            if kind == "table":
                data.encode_table(pieces, value)
            elif kind == "shortstr":
                if not isinstance(value, str_or_bytes):
                    raise AssertionError(f"A non-string value was supplied for self.{name}")
                data.encode_short_string(pieces, value)
            else:
                pieces.append(struct.pack(kind, _number(value)))
        return [struct.pack(">H", flags), *pieces]

    def decode(self, encoded: bytes, offset: int = 0) -> BasicProperties:
        """Take the properties that lie at ``offset``; return this object."""
        properties = Properties.from_raw(bytes(encoded[offset:]))
        self.__dict__.clear()
        self._source = properties
        try:
            self._items()
        except MalformedData as error:
            raise InvalidFrameError(str(error)) from error
        return self


def _number(value: Any) -> Any:
    return value.value if isinstance(value, DeliveryMode) else value


def to_wire(properties: BasicProperties) -> Properties:
    """What evamqp publishes for pika's properties.

    Raises:
        As ``BasicProperties.encode``.
    """
    changed = properties.__dict__
    source = properties._source
    if source is not None:
        return _passed_on(properties, source)
    try:
        if properties._published == changed:
            return properties._published_as
    except AttributeError:
        pass  # never published
    if not changed:
        return _NONE
    try:
        wire = Properties(**changed)
    except (UsageError, TypeError):
        # pika's checks are others: it lets more pass, and says otherwise what it refuses.
        wire = Properties.from_raw(b"".join(properties.encode()))
    if "headers" not in changed:
        # A table may change without our knowing.
        properties._published = changed.copy()
        properties._published_as = wire
    return wire


def _passed_on(properties: BasicProperties, source: AnyMessage | Properties) -> Properties:
    """The properties of a message that came, published again: unread ones keep their bytes."""
    received = source if isinstance(source, Properties) else source.properties
    if not properties.__dict__:
        return received
    try:
        return received.replace(**properties.__dict__)
    except (UsageError, TypeError, MalformedData):
        return Properties.from_raw(b"".join(properties.encode()))


_new = object.__new__


def from_message(message: AnyMessage) -> BasicProperties:
    """The properties of a message, of which nothing is decoded yet."""
    properties = _new(BasicProperties)
    properties._source = message
    return properties


def from_wire(received: Properties) -> BasicProperties:
    """The same of evamqp's Properties."""
    properties = _new(BasicProperties)
    properties._source = received
    return properties
