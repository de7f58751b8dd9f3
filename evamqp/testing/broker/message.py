"""A message in the embedded broker: as it was published, and as it stands in one queue.

Values only; no queue and no connection is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from evamqp.codec.fields import encode_shortstr
from evamqp.codec.properties import Properties
from evamqp.errors import MalformedData
from evamqp.testing.broker.arguments import check_expiration, kind_of
from evamqp.testing.broker.raw_properties import (
    DELIVERY_MODE,
    EXPIRATION,
    HEADERS,
    PRIORITY,
    REPLY_TO,
    USER_ID,
    Fields,
    Header,
    join_headers,
    join_properties,
    split_headers,
    split_properties,
)
from evamqp.testing.broker.refusal import Refusal, precondition_failed
from evamqp.testing.broker.release import Release
from evamqp.types import DeliveryMode, FieldValue

_pack_content = Struct(">IQ").pack
_CLASS_BASIC = 60 << 16
_NO_PROPERTIES = b"\x00\x00"
_NO_PRIORITY = b"\0"
_DELIVERY_MODES = (DeliveryMode.TRANSIENT, DeliveryMode.PERSISTENT)
# Most messages go to few places, so the two strings that each delivery repeats are remembered.
_MEMORY_MAX = 1024
_known_routes: dict[tuple[str, str], bytes] = {}
#: Larger than any number of messages: a priority step in the order of a queue.
PRIORITY_STEP = 1 << 48


class Message:
    """What was published; every queue that took it shares this.

    Args:
        exchange: Where it was published.
        routing_key: With which key.
        raw: The properties, as they came.
        body: The payload.
        release: What is refused, and how headers are kept.

    Attributes:
        route: Exchange and key as basic.deliver has them.
        header: The payload of the content header frame.
        expiration: Milliseconds that it may wait in a queue; None for as long as the queue allows.
        is_persistent: Whether a durable queue keeps it over a restart.
        priority: 0..255.
        copies: Further routing keys, from the headers CC and BCC.

    Raises:
        Refusal: 541: the properties are malformed; 406: one of them has no meaning.
    """

    __slots__ = (
        "_properties",
        "body",
        "copies",
        "exchange",
        "expiration",
        "fields",
        "header",
        "is_persistent",
        "priority",
        "raw",
        "release",
        "route",
        "routing_key",
    )

    def __init__(
        self, exchange: str, routing_key: str, raw: bytes, body: bytes, release: Release
    ) -> None:
        self.exchange: str = exchange
        self.routing_key: str = routing_key
        self.raw: bytes = raw
        self.body: bytes = body
        self.release: Release = release
        self.route: bytes = _known_routes.get((exchange, routing_key)) or _encode(
            exchange, routing_key
        )
        self.fields: Fields = {}
        self._properties: Properties | None = None
        self.expiration: int | None = None
        self.is_persistent: bool = False
        self.priority: int = 0
        self.copies: list[str] = []
        if raw != _NO_PROPERTIES:
            self._read()
        self.header: bytes = _pack_content(_CLASS_BASIC, len(body)) + self.raw

    @property
    def properties(self) -> Properties:
        if self._properties is None:
            self._properties = Properties.from_raw(self.raw)
        return self._properties

    @property
    def headers(self) -> Mapping[str, FieldValue]:
        """Its headers; empty without any, and if they are nested too deep to be read here."""
        try:
            return self.properties.headers or {}
        except MalformedData:
            return {}

    @property
    def has_copies(self) -> bool:
        return bool(self.copies)

    @property
    def user_id(self) -> str | None:
        return self._text(USER_ID)

    @property
    def reply_to(self) -> str | None:
        return self._text(REPLY_TO)

    def replaced(
        self, routing_key: str, changes: Fields, *, exchange: str | None = None
    ) -> Message:
        """The same content elsewhere, with some properties changed, and unset by b""."""
        fields = {**self.fields, **changes}
        raw = join_properties({flag: value for flag, value in fields.items() if value})
        name = self.exchange if exchange is None else exchange
        return Message(name, routing_key, raw, self.body, self.release)

    def _read(self) -> None:
        """Read the properties that queues act on, and put the headers as the release keeps them."""
        try:
            self.fields = fields = split_properties(self.raw)
        except MalformedData:
            raise Refusal(541, "", (0, 0)) from None
        self.priority = fields.get(PRIORITY, _NO_PRIORITY)[0]
        if DELIVERY_MODE in fields:
            self._read_delivery_mode(fields[DELIVERY_MODE][0])
        expiration = self._text(EXPIRATION)
        if expiration is not None:
            self.expiration = check_expiration(expiration, self.release)
        if HEADERS in fields:
            self._read_headers()

    def _read_delivery_mode(self, mode: int) -> None:
        if self.release.checks_delivery_mode and mode not in _DELIVERY_MODES:
            raise precondition_failed(f"invalid message: {{delivery_mode_unknown,{mode}}}")
        self.is_persistent = mode == DeliveryMode.PERSISTENT

    def _read_headers(self) -> None:
        raw = self.fields[HEADERS]
        if b"CC" in raw:
            self._read_copies()
        if not (self.release.sorts_headers or b"BCC" in raw):
            return
        headers = [each for each in split_headers(raw) if each[0] != b"BCC"]
        if self.release.sorts_headers:
            headers = sorted(dict(map(_respelt, reversed(headers))).items())
        self.fields[HEADERS] = join_headers(headers)
        self.raw = join_properties(self.fields)
        self._properties = None

    def _read_copies(self) -> None:
        headers = self.headers
        for name in ("CC", "BCC"):
            keys = headers.get(name, [])
            if not isinstance(keys, list):
                raise precondition_failed(
                    f'invalid message: {{unacceptable_type_in_header,"{name}",{kind_of(keys)}}}'
                )
            self.copies += [key for key in keys if isinstance(key, str)]

    def _text(self, flag: int) -> str | None:
        value = self.fields.get(flag)
        return None if value is None else value[1:].decode("utf-8", "surrogateescape")


def _encode(exchange: str, routing_key: str) -> bytes:
    route = encode_shortstr(exchange, "exchange") + encode_shortstr(routing_key, "routing key")
    if len(_known_routes) < _MEMORY_MAX:
        _known_routes[exchange, routing_key] = route
    return route


def _respelt(header: Header) -> Header:
    """A header as releases send it that read and write them all: L and l are the same number."""
    name, value = header
    return (name, b"l" + value[1:]) if value[:1] == b"L" else header


class Entry:
    """A message in a queue.

    Attributes:
        message: The message.
        order: Where it stands: lower ones are delivered first, also after they were requeued.
        redelivered: Whether it was handed out before.
        redelivered_when_dead: Whether that is what its dead letter says.
        expires_at: On the loop's clock; None for never.
    """

    __slots__ = ("expires_at", "message", "order", "redelivered", "redelivered_when_dead")

    def __init__(
        self, message: Message, order: int, expires_at: float | None, redelivered: bool = False
    ) -> None:
        self.message: Message = message
        self.order: int = order
        self.redelivered: bool = redelivered
        self.redelivered_when_dead: bool = False
        self.expires_at: float | None = expires_at
