"""A consumer and the messages that nobody has taken yet.

How a thread waits is ``loop.py``; what the broker is asked is ``channel.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import evamqp
from evamqp.blocking.message import Message

if TYPE_CHECKING:
    from evamqp.blocking.channel import Channel


class Subscription:
    """One basic.consume; ``Channel.subscribe`` makes it.  ``len()`` tells what waits here.

    Attributes:
        channel: The channel.
        auto_ack: Whether the broker forgets a message once sent.
        tag: The consumer tag.
        is_cancelled: Whether the broker has cancelled it.
    """

    __slots__ = ("_messages", "_on_message", "auto_ack", "channel", "is_cancelled", "tag")

    def __init__(
        self, channel: Channel, auto_ack: bool, on_message: Callable[[Message], object] | None
    ) -> None:
        self.channel: Channel = channel
        self.auto_ack: bool = auto_ack
        self.tag: str = ""
        self.is_cancelled: bool = False
        self._on_message = on_message
        self._messages: deque[evamqp.Message] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def get(self, timeout: float | None = None) -> Message | None:
        """Take the next message; wait for it, and call back meanwhile.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            None if no message came in time.

        Raises:
            ConsumerCancelled: The broker ended it, and no message is left.
            ChannelClosed, ConnectionClosed: That ended it, and no message is left.
        """
        while True:
            try:
                message = self._messages.popleft()
            except IndexError:  # also if another thread took it
                if not self._wait(timeout):
                    return None
                continue
            try:
                return Message(self.channel, message)
            except BaseException:  # of a signal handler
                self._messages.appendleft(message)  # nobody has got it
                raise

    def cancel(self) -> list[Message]:
        """Stop it; see Channel.basic_cancel."""
        return self.channel.basic_cancel(self.tag)

    def _wait(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else monotonic() + timeout
        connection = self.channel.connection
        while not self._messages:
            is_something = connection._wait(self._is_something, deadline)
            connection._dispatch()
            if self._messages:
                break
            if self.has_ended:
                raise self._end()
            if not is_something:
                return False
        return True

    def _is_something(self) -> bool:
        return bool(self._messages) or self.has_ended or self.channel.connection._is_due()

    @property
    def has_ended(self) -> bool:
        """Whether no further message comes."""
        return self.is_cancelled or not self.channel.is_open

    def _end(self) -> evamqp.AmqpError:
        if self.is_cancelled and self.channel.is_open:
            return evamqp.ConsumerCancelled(f"the broker cancelled {self.tag}")
        return self.channel._ended()

    # Called by the channel

    def receiver(self) -> Callable[[evamqp.Message], object]:
        """What the core calls with each message."""
        keep, defer, hand_over = self._messages.append, self.channel._defer, self._hand_over
        if self._on_message is None:
            return keep

        def receive(message: evamqp.Message) -> None:
            keep(message)
            defer(hand_over)

        return receive

    def waiting(self) -> list[evamqp.Message]:
        """The messages that nobody has taken."""
        return list(self._messages)

    def clear(self) -> None:
        """They are dealt with."""
        self._messages.clear()

    def _hand_over(self) -> None:
        if not self._messages or self._on_message is None:
            return  # cancelled meanwhile
        message = self._messages.popleft()
        if self.channel.is_open or self._is_lost_otherwise():
            self._on_message(Message(self.channel, message))

    def _is_lost_otherwise(self) -> bool:
        """Whether the broker has forgotten what it sent, and the user did not close the channel."""
        reason = self.channel.reason
        return self.auto_ack and reason is not None and reason.by != "client"
