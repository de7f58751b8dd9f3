"""The message that came, in kombu's words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import kombu.message

import evamqp

if TYPE_CHECKING:
    from evamqp.integrations.kombu.channel import Channel


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
            body=_decoded(raw.body, properties.get("content_encoding")),
            channel=channel,
            delivery_tag=tag,
            content_type=properties.get("content_type"),
            content_encoding=properties.get("content_encoding"),
            delivery_info=info,
            properties=properties,
            headers=headers,
        )


def _decoded(body: bytes, encoding: str | None) -> bytes | str:
    """Text where the message says how to read it, as py-amqp gives it; else the bytes."""
    try:
        return body.decode(encoding) if encoding else body
    except (LookupError, UnicodeDecodeError):
        return body
