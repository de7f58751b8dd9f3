"""What a message becomes when a queue gives it up: its x-death headers, and whether it circles.

Where it then goes is the virtual host's to say.
"""

from __future__ import annotations

from time import time

from evamqp.testing.broker.message import Message
from evamqp.testing.broker.raw_properties import (
    EXPIRATION,
    HEADERS,
    array_of,
    join_headers,
    split_array,
    split_headers,
    text_of,
)
from evamqp.types import Table, TableLike

#: Why a queue gave a message up.
EXPIRED, REJECTED, MAXLEN, DELIVERY_LIMIT = "expired", "rejected", "maxlen", "delivery_limit"


def deaths_of(headers: TableLike) -> list[Table]:
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
        reason: Why: EXPIRED, REJECTED, MAXLEN or DELIVERY_LIMIT.
        exchange: The queue's dead letter exchange.
        routing_key: The queue's dead letter routing key; None keeps the message's.
    """
    keeps_all = routing_key is None or message.release.records_last_death
    old = dict(split_headers(message.fields.get(HEADERS, b"")))
    new = {b"x-death": array_of(_add_death(message, queue, reason, old))}
    place = {b"exchange": message.exchange, b"queue": queue, b"reason": reason}
    if b"x-death" not in old:
        new |= {b"x-first-death-" + name: text_of(value) for name, value in place.items()}
    if message.release.records_last_death:
        new |= {b"x-last-death-" + name: text_of(value) for name, value in place.items()}
    if not keeps_all:
        old.pop(b"CC", None)  # the new key replaces all of the old ones
    key = message.routing_key if routing_key is None else routing_key
    changes = {HEADERS: join_headers(sorted((old | new).items())), EXPIRATION: b""}
    return message.replaced(key, changes, exchange=exchange)


def _add_death(
    message: Message, queue: str, reason: str, headers: dict[bytes, bytes]
) -> list[bytes]:
    """The x-death records, this death first: a new one, or a known one counted once more."""
    records = [each for each in split_array(headers.get(b"x-death", b"")) if each[:1] == b"F"]
    for record in records:
        death = dict(split_headers(record[1:]))
        if (death.get(b"queue"), death.get(b"reason")) == (text_of(queue), text_of(reason)):
            before = death.get(b"count", b"")
            count = int.from_bytes(before[1:], "big") if before[:1] == b"l" else 0
            again = b"F" + join_headers({**death, b"count": _count(count + 1)}.items())
            return [again, *(other for other in records if other is not record)]
    return [_first_record(message, queue, reason, headers), *records]


def _first_record(message: Message, queue: str, reason: str, headers: dict[bytes, bytes]) -> bytes:
    keys = [text_of(message.routing_key), *split_array(headers.get(b"CC", b""))]
    record = [
        (b"count", _count(1)),
        (b"reason", text_of(reason)),
        (b"queue", text_of(queue)),
        (b"time", b"T" + int(time()).to_bytes(8, "big")),
        (b"exchange", text_of(message.exchange)),
        (b"routing-keys", array_of(keys)),
    ]
    if message.expiration is not None:
        record.append((b"original-expiration", text_of(str(message.expiration))))
    return b"F" + join_headers(record)


def _count(value: int) -> bytes:
    return b"l" + value.to_bytes(8, "big")
