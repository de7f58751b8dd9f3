"""A message in the embedded broker: as it was published, and as it stands in one queue.

Values only; no queue and no connection is known here.
It is for tests and demos; production is RabbitMQ.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from evamqp.codec.fields import encode_shortstr
from evamqp.codec.properties import Properties
from evamqp.errors import MalformedData
from evamqp.testing.arguments import check_expiration, kind_of
from evamqp.testing.refusals import precondition_failed
from evamqp.types import DeliveryMode, Table

_pack_content = Struct(">IQ").pack
_CLASS_BASIC = 60 << 16
_NO_PROPERTIES = b"\x00\x00"
# Most messages go to few places, so the two strings that each delivery repeats are remembered.
_MEMORY_MAX = 1024
_known_routes: dict[tuple[str, str], bytes] = {}
#: Larger than any number of messages: a priority step in the order of a queue.
PRIORITY_STEP = 1 << 48


class Message:
    """What was published; every queue that took it shares this.

    Attributes:
        exchange: Where it was published.
        routing_key: With which key.
        raw: The properties, as they came.
        body: The payload.
        route: Exchange and key as basic.deliver has them.
        header: The payload of the content header frame.
        expiration: Milliseconds that it may wait in a queue; None for as long as the queue allows.
        is_persistent: Whether a durable queue keeps it over a restart.
        priority: 0..255.
        copies: Further routing keys, from the headers CC and BCC.
    """

    __slots__ = (
        "_properties",
        "body",
        "copies",
        "exchange",
        "expiration",
        "header",
        "is_persistent",
        "priority",
        "raw",
        "route",
        "routing_key",
    )

    def __init__(self, exchange: str, routing_key: str, raw: bytes, body: bytes) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.raw = raw
        self.body = body
        self.route = _known_routes.get((exchange, routing_key)) or _encode(exchange, routing_key)
        self.header = _pack_content(_CLASS_BASIC, len(body)) + raw
        self._properties: Properties | None = None
        self.expiration: int | None = None
        self.is_persistent = False
        self.priority = 0
        self.copies: list[str] = []
        if raw != _NO_PROPERTIES:
            self._read()

    @property
    def properties(self) -> Properties:
        if self._properties is None:
            self._properties = Properties.from_raw(self.raw)
        return self._properties

    @property
    def headers(self) -> Table:
        """Its headers; empty without any, and if they are malformed, which ends no publisher."""
        try:
            return self.properties.headers or {}
        except MalformedData:
            return {}

    @property
    def has_copies(self) -> bool:
        return bool(self.copies)

    @property
    def user_id(self) -> str | None:
        return self._text("user_id")

    @property
    def reply_to(self) -> str | None:
        return self._text("reply_to")

    def _read(self) -> None:
        """Read the properties that queues act on.

        Raises:
            Refusal: 406: the expiration is no number of milliseconds.
        """
        flags = self.raw[0]
        if flags & 0x10:
            self.is_persistent = self._property("delivery_mode") == DeliveryMode.PERSISTENT
        if flags & 0x08:
            self.priority = self._property("priority") or 0
        if flags & 0x01:
            expiration = self._text("expiration")
            self.expiration = None if expiration is None else check_expiration(expiration)
        if flags & 0x20 and b"CC" in self.raw:
            self._read_copies()

    def _read_copies(self) -> None:
        headers = self.headers
        for name in ("CC", "BCC"):
            keys = headers.get(name, [])
            if not isinstance(keys, list):
                raise precondition_failed(
                    f'invalid message: {{unacceptable_type_in_header,"{name}",{kind_of(keys)}}}'
                )
            self.copies += [key for key in keys if isinstance(key, str)]
        if "BCC" in headers:
            del headers["BCC"]
            self._properties = self.properties.replace(headers=headers)
            self.raw = self._properties.raw
            self.header = _pack_content(_CLASS_BASIC, len(self.body)) + self.raw

    def _text(self, name: str) -> str | None:
        value: str | None = self._property(name)
        return value

    def _property(self, name: str) -> Any:
        """A property; None if it is unset, or malformed: then the message goes on as it came."""
        try:
            return getattr(self.properties, name)
        except MalformedData:
            return None


def _encode(exchange: str, routing_key: str) -> bytes:
    route = encode_shortstr(exchange, "exchange") + encode_shortstr(routing_key, "routing key")
    if len(_known_routes) < _MEMORY_MAX:
        _known_routes[exchange, routing_key] = route
    return route


class Entry:
    """A message in a queue.

    Attributes:
        message: The message.
        order: Where it stands: lower ones are delivered first, also after they were requeued.
        redelivered: Whether it was handed out before.
        expires_at: On the loop's clock; None for never.
    """

    __slots__ = ("expires_at", "message", "order", "redelivered")

    def __init__(self, message: Message, order: int, expires_at: float | None) -> None:
        self.message = message
        self.order = order
        self.redelivered = False
        self.expires_at = expires_at
