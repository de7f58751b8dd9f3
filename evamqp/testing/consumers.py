"""A consumer of a queue: what it may still take, and what it holds.

How a message is put into frames is the channel's.
It is for tests and demos; production is RabbitMQ.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from evamqp.codec.fields import encode_shortstr
from evamqp.types import Table

if TYPE_CHECKING:
    from evamqp.testing.messages import Entry
    from evamqp.testing.queues import Queue
    from evamqp.testing.server_session import Session

_numbers = itertools.count(1)


class Consumer:
    """One basic.consume.

    Attributes:
        number: Grows with each consumer, so that the eldest can be told.
        unacked: Messages it holds.
        prefetch: Messages it may hold; 0 means no limit.
        raw_tag: The tag as basic.deliver has it.
    """

    __slots__ = (
        "arguments",
        "channel",
        "is_exclusive",
        "no_ack",
        "number",
        "prefetch",
        "priority",
        "queue",
        "raw_tag",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        channel: Session,
        queue: Queue,
        tag: str,
        *,
        no_ack: bool,
        is_exclusive: bool,
        priority: int,
        prefetch: int,
        arguments: Table,
    ) -> None:
        self.number = next(_numbers)
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.raw_tag = encode_shortstr(tag, "consumer tag")
        self.no_ack = no_ack
        self.is_exclusive = is_exclusive
        self.priority = priority
        self.prefetch = prefetch
        self.arguments = arguments
        self.unacked = 0

    def can_take(self) -> bool:
        """Whether one more message may be sent to it now."""
        if not self.no_ack and self.prefetch and self.unacked >= self.prefetch:
            return False
        return self.channel.can_take(self)

    def deliver(self, entry: Entry) -> None:
        self.channel.deliver(self, entry)
