"""A consumer of a queue: what it may still take, and what it holds.

How a message is put into frames is the channel's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evamqp.codec.fields import encode_shortstr
from evamqp.types import Table

if TYPE_CHECKING:
    from evamqp.testing.broker.base_channel import BaseServerChannel
    from evamqp.testing.broker.message import Entry
    from evamqp.testing.broker.queue import Queue


class Consumer:
    """One basic.consume.

    Attributes:
        unacked: Messages it holds.
        prefetch: Messages it may hold; 0 means no limit.
        raw_tag: The tag as basic.deliver has it.
        begun_in: The read of the connection that brought it; 0 if the client awaits no answer.
    """

    __slots__ = (
        "arguments",
        "begun_in",
        "channel",
        "is_exclusive",
        "no_ack",
        "prefetch",
        "priority",
        "queue",
        "raw_tag",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        channel: BaseServerChannel,
        queue: Queue,
        tag: str,
        *,
        no_ack: bool,
        is_exclusive: bool,
        priority: int,
        prefetch: int,
        arguments: Table,
    ) -> None:
        self.channel: BaseServerChannel = channel
        self.queue: Queue = queue
        self.tag: str = tag
        self.raw_tag: bytes = encode_shortstr(tag, "consumer tag")
        self.no_ack: bool = no_ack
        self.is_exclusive: bool = is_exclusive
        self.priority: int = priority
        self.prefetch: int = prefetch
        self.arguments: Table = arguments
        self.unacked: int = 0
        self.begun_in: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it holds all that it may."""
        return bool(self.prefetch) and not self.no_ack and self.unacked >= self.prefetch

    def can_take(self) -> bool:
        """Whether one more message may be sent to it now."""
        return self.channel.can_take(self)

    def deliver(self, entry: Entry) -> None:
        self.channel.deliver(self, entry)
