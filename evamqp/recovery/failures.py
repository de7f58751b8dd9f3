"""How long the consumer holds a failed message before it goes back to its queue.

The consumer settles it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from evamqp.errors import MalformedData

if TYPE_CHECKING:
    from evamqp.core.channel import Message

# Seconds.  RabbitMQ's quorum queues drop or dead-letter a message after 20 redeliveries, with these
# delays after six and a half minutes.  The longest is far below the 30 minutes after which a broker
# takes back unsettled messages.
FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
# 0.1 * 2**9 exceeds the longest; a power without a limit would overflow.
HIGHEST_POWER = 9
# Messages whose failures are counted; those that failed longest ago are dropped first.
REMEMBERED = 1000


class Failures:
    """Counts how often messages failed, by what identifies them over redeliveries."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: OrderedDict[int, int] = OrderedDict()

    def next_delay(self, message: Message) -> float:
        """Count a failure; return the seconds to hold the message."""
        before = _delivery_count(message)
        if before is None:
            before = self.count(message)
        return min(LONGEST_DELAY, FIRST_DELAY * (1 << min(before, HIGHEST_POWER)))

    def count(self, message: Message) -> int:
        """Count a failure; return how often it failed before, as far as known.

        Byte-equal messages count together.
        """
        key = hash((message.exchange, message.routing_key, message.properties.raw, message.body))
        before = self._counts.pop(key, 0) if message.redelivered else 0
        self._counts[key] = before + 1
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)
        return before


def _delivery_count(message: Message) -> int | None:
    """How often a quorum queue delivered it before, by its own count; None elsewhere."""
    try:
        count = (message.properties.headers or {}).get("x-delivery-count")
    except MalformedData:
        return None
    return count if isinstance(count, int) and count >= 0 else None
