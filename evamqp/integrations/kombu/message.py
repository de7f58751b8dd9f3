"""Messages on their way in and out, in kombu's words.

kombu calls the property ``headers`` ``application_headers``, and keeps properties in a dict.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import kombu.message

import evamqp

if TYPE_CHECKING:
    from evamqp.integrations.kombu.channel import Channel

#: The properties but for headers; evamqp and kombu agree on these.
NAMES = frozenset((
    "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
))  # fmt: skip


class Message(kombu.message.Message):  # type: ignore[misc]
    """A message that came; one whose properties are malformed has ``errors``, and none of them."""

    def __init__(self, raw: evamqp.Message, channel: Channel, consumer_tag: str = "") -> None:
        try:
            properties: dict[str, Any] = raw.properties.to_dict()
        except evamqp.MalformedData:
            self.errors: list[Any] = [sys.exc_info()]
            properties = {}
        headers = properties.pop("headers", None)
        if headers is not None:
            headers = properties["application_headers"] = dict(headers)  # kombu's may be changed
        tag = raw.delivery_tag
        info = {
            "delivery_tag": tag,
            "redelivered": raw.redelivered,
            "exchange": raw.exchange,
            "routing_key": raw.routing_key,
        }
        if consumer_tag:
            info["consumer_tag"] = consumer_tag
        else:
            info["message_count"] = raw.message_count
        super().__init__(
            body=raw.body,
            channel=channel,
            delivery_tag=tag,
            content_type=properties.get("content_type"),
            content_encoding=properties.get("content_encoding"),
            delivery_info=info,
            properties=properties,
            headers=headers,
        )


class OutgoingMessage:
    """A message that prepare_message() made.

    Attributes:
        body: As kombu has encoded it; a str goes out in ``content_encoding``.
        properties: By name, ``application_headers`` among them; those that AMQP has are sent.
    """

    __slots__ = ("body", "properties")

    #: The last properties that had no headers, and what was made of them.
    _plain: tuple[dict[str, Any], evamqp.Properties] = ({}, evamqp.Properties())

    def __init__(self, body: Any, properties: dict[str, Any]) -> None:
        self.body: Any = body
        self.properties: dict[str, Any] = properties

    @property
    def headers(self) -> Any:
        """The headers, or None."""
        return self.properties.get("application_headers")

    def encode(self) -> tuple[bytes, evamqp.Properties]:
        """Body and properties as they are sent.

        Raises:
            BadType, BadArgument: A value that AMQP cannot carry; the text names it.
        """
        body, fields = self.body, self.properties
        headers = fields.get("application_headers")
        if type(body) is not bytes or headers:
            return self._encode(headers)
        # Programs without headers mostly publish with the same properties.
        before, properties = OutgoingMessage._plain
        if fields != before:
            _, properties = self._encode(headers)
            OutgoingMessage._plain = fields.copy(), properties
        return body, properties

    def _encode(self, headers: Any) -> tuple[bytes, evamqp.Properties]:
        fields = {name: value for name, value in self.properties.items() if name in NAMES}
        body = self.body
        if isinstance(body, str):
            encoding = fields.setdefault("content_encoding", "utf-8") or "utf-8"
            body = body.encode("utf-8" if encoding == "binary" else encoding)
        try:
            return body, evamqp.Properties(headers=headers, **fields)
        except evamqp.BadArgument:
            # kombu's programs may send times without a zone, and mean UTC.
            return body, evamqp.Properties(headers=_in_utc(headers), **_in_utc(fields))


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    if isinstance(value, Mapping):
        return {key: _in_utc(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_utc(entry) for entry in value]
    return value
