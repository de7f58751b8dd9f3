"""What a callback gets beside the body: Envelope of a delivery, ReturnEnvelope of a return.

They read a message when they are read themselves.
"""

from __future__ import annotations

import evamqp

_new = object.__new__


class Envelope:
    """How a message came."""

    __slots__ = (
        "_message",
        "consumer_tag",
        "delivery_tag",
        "exchange_name",
        "is_redeliver",
        "routing_key",
    )

    _message: evamqp.Message
    consumer_tag: str
    delivery_tag: int
    exchange_name: str
    routing_key: str
    is_redeliver: bool

    def __init__(
        self,
        consumer_tag: str,
        delivery_tag: int,
        exchange_name: str,
        routing_key: str,
        is_redeliver: bool,
    ) -> None:
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.exchange_name = exchange_name
        self.routing_key = routing_key
        self.is_redeliver = is_redeliver

    def __getattr__(self, name: str) -> object:
        # A slot that is not filled yet ends here.
        field = _FIELDS.get(name)
        if field is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = getattr(self._message, field)
        setattr(self, name, value)
        return value


_FIELDS = {
    "consumer_tag": "consumer_tag",
    "delivery_tag": "delivery_tag",
    "exchange_name": "exchange",
    "routing_key": "routing_key",
    "is_redeliver": "redelivered",
}


def envelope_of(message: evamqp.Message) -> Envelope:
    """The envelope of a message, which is read when it is."""
    envelope = _new(Envelope)
    envelope._message = message
    return envelope


class ReturnEnvelope:
    """How a message that nobody took came back."""

    __slots__ = ("exchange_name", "reply_code", "reply_text", "routing_key")

    def __init__(
        self, reply_code: int, reply_text: str, exchange_name: str, routing_key: str
    ) -> None:
        self.reply_code: int = reply_code
        self.reply_text: str = reply_text
        self.exchange_name: str = exchange_name
        self.routing_key: str = routing_key
