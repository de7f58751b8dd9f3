"""What a message's headers say about its former deliveries and dead-letterings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

# A quorum queue counts what was rejected or lost, since RabbitMQ 4.3 also all that it handed out.
_COUNTS = ("x-delivery-count", "x-acquired-count")


class Death(NamedTuple):
    """One entry of ``x-death``: how often a queue dead-lettered the message for one reason.

    Attributes:
        queue: The queue in which it died.
        reason: ``"rejected"``, ``"expired"``, ``"maxlen"`` or ``"delivery_limit"``.
        times: How often.
        exchange: To which it had been published.
        routing_keys: With which it had been published.
        time: When it died first; None if the broker does not say.
    """

    queue: str
    reason: str
    times: int
    exchange: str
    routing_keys: tuple[str, ...]
    time: datetime | None


def delivery_count(headers: Mapping[str, object] | None, redelivered: bool) -> int:
    """How often a message was delivered before, as far as the broker says."""
    counts = [(headers or {}).get(name) for name in _COUNTS]
    known = [count for count in counts if isinstance(count, int) and count >= 0]
    return max(*known, int(redelivered), 0)


def deaths(headers: Mapping[str, object] | None) -> tuple[Death, ...]:
    """The entries of ``x-death``, the latest first.  Entries of another form are left out."""
    entries = (headers or {}).get("x-death")
    tables = entries if isinstance(entries, list) else []
    return tuple(_death(table) for table in tables if isinstance(table, dict))


def _death(table: dict[str, object]) -> Death:
    count, keys, time = table.get("count"), table.get("routing-keys"), table.get("time")
    return Death(
        _text(table.get("queue")),
        _text(table.get("reason")),
        count if isinstance(count, int) else 1,
        _text(table.get("exchange")),
        tuple(map(_text, keys)) if isinstance(keys, list) else (),
        time if isinstance(time, datetime) else None,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
