"""What a message becomes when a queue gives it up: its x-death headers, and whether it circles.

Where it then goes is the virtual host's to say.
It is for tests and demos; production is RabbitMQ.
"""

from __future__ import annotations

from datetime import datetime, timezone

from evamqp.codec.properties import Properties
from evamqp.errors import MalformedData
from evamqp.testing.messages import Message
from evamqp.types import FieldValue, Table

#: Why a queue gave a message up.
EXPIRED, REJECTED, MAXLEN = "expired", "rejected", "maxlen"


def deaths_of(headers: Table) -> list[Table]:
    """The x-death records among headers, the last death first."""
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return []
    return [death for death in deaths if isinstance(death, dict)]


def circles(message: Message, queue: str) -> bool:
    """Whether a queue has the message back without anybody's having rejected it on the way."""
    for death in deaths_of(message.headers):
        if death.get("reason") == REJECTED:
            return False
        if death.get("queue") == queue:
            return True
    return False


def dead_letter(
    message: Message, queue: str, reason: str, exchange: str, routing_key: str | None
) -> Message:
    """The message as it is published anew.

    Args:
        message: What died.
        queue: Where.
        reason: Why: EXPIRED, REJECTED or MAXLEN.
        exchange: The queue's dead letter exchange.
        routing_key: The queue's dead letter routing key; None keeps the message's.
    """
    key = message.routing_key if routing_key is None else routing_key
    headers = dict(message.headers)
    if routing_key is not None:
        headers.pop("CC", None)  # the new key replaces all of the old ones
    headers["x-death"] = [*_add_death(message, queue, reason)]
    for name, value in (
        ("x-first-death-exchange", message.exchange),
        ("x-first-death-queue", queue),
        ("x-first-death-reason", reason),
    ):
        headers.setdefault(name, value)
    try:
        properties = message.properties.replace(headers=headers, expiration=None)
    except MalformedData:  # what nobody can read cannot be kept beside new headers
        properties = Properties(headers=headers)
    return Message(exchange, key, properties.raw, message.body)


def _add_death(message: Message, queue: str, reason: str) -> list[Table]:
    deaths = deaths_of(message.headers)
    for death in deaths:
        if (death.get("queue"), death.get("reason")) == (queue, reason):
            count = death.get("count")
            again = {**death, "count": count + 1 if isinstance(count, int) else 1}
            return [again, *(other for other in deaths if other is not death)]
    return [_first_death(message, queue, reason), *deaths]


def _first_death(message: Message, queue: str, reason: str) -> Table:
    keys: list[FieldValue] = [message.routing_key]
    carbon_copies = message.headers.get("CC")
    if isinstance(carbon_copies, list):
        keys += carbon_copies
    death: Table = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.now(timezone.utc).replace(microsecond=0),
        "exchange": message.exchange,
        "routing-keys": keys,
    }
    if message.expiration is not None:
        death["original-expiration"] = str(message.expiration)
    return death
