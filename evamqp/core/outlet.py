"""What publishing and settling on one channel take, whoever does it.

The states of a channel are in ``channel_machine.py``; no frame is made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evamqp.codec.templates import settle_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from evamqp.core.content import Content
    from evamqp.core.output import Output
    from evamqp.errors import UsageError


class Outlet:
    """Whose a channel is, where its frames go, and which tag comes next.

    Args:
        number: The channel's.
        output: Where its frames are queued.
        owner: The thread that may use it; 0 if none may.

    Attributes:
        channel: The user's Channel, until its end.
        content: The content that is under way; None between contents.
        owner: The thread that may use the channel; 0 if none may.
        publisher: The same for publishing, which the broker may stop on its own (channel.flow).
        next_tag: Of the next publish; 0 outside confirm mode.
        unconfirmed_published: Publishes outside confirm mode.
        settle_head: A frame of basic.ack up to the delivery tag.
    """

    __slots__ = (
        "channel",
        "content",
        "next_tag",
        "number",
        "output",
        "owner",
        "publisher",
        "settle_head",
        "unconfirmed_published",
    )

    def __init__(self, number: int, output: Output, owner: int) -> None:
        self.channel: Any = None
        self.content: Content | None = None
        self.number: int = number
        self.output: Output = output
        self.owner: int = owner
        self.publisher: int = owner
        self.next_tag: int = 0
        self.unconfirmed_published: int = 0
        self.settle_head: bytes = settle_head(number)

    def send_to(self, output: Output) -> None:
        """Queue its frames there from now on."""
        self.output = output

    def disown(self) -> None:
        """Let no thread use the channel any more."""
        self.owner = self.publisher = 0

    def bind_owner(self, owner: int) -> None:
        """Move the channel to another thread, unless no thread may use it."""
        # 0 where none may: a channel that is closing, or whose flow the broker stopped.
        if self.owner:
            self.owner = owner
        if self.publisher:
            self.publisher = owner

    def set_flow(self, active: bool) -> None:
        """The broker stops or resumes publishing (channel.flow)."""
        self.publisher = self.owner if active else 0

    def detach(self) -> None:
        """Let go of the user's Channel, so that no reference cycle is left."""
        self.channel = None

    def unusable(self, what: str) -> UsageError:
        """Why a call is refused."""
        raise NotImplementedError

    def settle(self, method: bytes, tag: bytes, flags: bytes) -> bool:
        """Send basic.ack, nack or reject for one message; False if the channel is gone."""
        raise NotImplementedError

    def recv_deliver(self, content: Content) -> object:
        """A message that took the slow path is complete."""
        raise NotImplementedError

    def confirm(self, delivery_tag: int, multiple: bool, acked: bool) -> object:
        """The broker confirms publishes."""
        raise NotImplementedError

    def reporter(self, name: str, message: Any) -> Callable[[BaseException], object]:
        """What reports to a handler that a callback raised."""
        raise NotImplementedError
