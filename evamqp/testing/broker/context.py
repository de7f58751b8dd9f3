"""What a connection needs of its broker: a Protocol, so that neither imports the other.

No code that runs belongs here.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Protocol

from evamqp.testing.broker.message import Message
from evamqp.testing.broker.release import Release
from evamqp.testing.broker.user import User
from evamqp.testing.broker.virtual_host import VirtualHost

if TYPE_CHECKING:
    from evamqp.testing.broker.base_channel import BaseServerChannel
    from evamqp.testing.broker.channel import ServerChannel
    from evamqp.testing.broker.connection import ServerConnection


class BrokerContext(Protocol):
    """What a connection needs of the broker it belongs to."""

    release: Release
    heartbeat: int
    names: random.Random
    users: dict[str, User]
    virtual_hosts: dict[str, VirtualHost]
    alarm: str | None

    @property
    def holds_confirms(self) -> bool: ...
    @property
    def ignores_prefetch(self) -> bool: ...
    def publish_fault(self, message: Message) -> str | None:
        """What a fault says of a publish: "nack", "return" or "lose"; None for nothing."""

    def open_channel(self, channel: ServerChannel) -> None:
        """Answer channel.open, unless a fault keeps the answer back."""

    def record(
        self, channel: BaseServerChannel, message: Message, mandatory: bool, queues: tuple[str, ...]
    ) -> None:
        """Note a publish."""

    def confirm_later(self, channel: BaseServerChannel) -> None:
        """A channel has confirms that a fault keeps back."""

    def forget(self, connection: ServerConnection) -> None:
        """A connection ended."""
