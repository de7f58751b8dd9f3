"""A Handler that records every callback: the one that tests of a connection look at.

No test lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evamqp.core.channel import Channel, Message
from evamqp.core.connection import Connection
from evamqp.core.handler import CallbackContext, Handler
from evamqp.core.message import Returned
from evamqp.errors import ChannelClosed, ConnectionClosed
from evamqp.types import Tags


class RecordingHandler(Handler):
    """Records every callback, then does inside it what the test has asked for.

    Attributes:
        log: Of each callback its name and arguments, connection and channel as numbers.
        in_loop: Whether callbacks are legal at this moment (the fourth law).
    """

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.actions: dict[str, Callable[..., object]] = {}
        self.in_loop = False
        self.messages: list[Message] = []
        self.returns: list[Returned] = []
        self.errors: list[BaseException] = []
        self.contexts: list[CallbackContext] = []

    @property
    def names(self) -> list[str]:
        """The names of the callbacks so far."""
        return [entry[0] for entry in self.log]

    def take(self) -> list[tuple[Any, ...]]:
        """The log since the last time."""
        log, self.log = self.log, []
        return log

    def inside(self, name: str, action: Callable[..., object]) -> None:
        """Have ``action`` called inside the callback ``name``, with its arguments."""
        self.actions[name] = action

    def note(self, name: str) -> Callable[..., None]:
        """A callback that is recorded under this name."""

        def callback(*arguments: Any) -> None:
            self._record(name, arguments, *arguments)

        return callback

    def _record(self, name: str, given: tuple[Any, ...], *shown: Any) -> None:
        assert self.in_loop, f"{name} came from inside a call"
        self.log.append((name, *shown))
        action = self.actions.get(name)
        if action is not None:
            action(*given)

    def on_message(self, message: Message) -> None:
        self.messages.append(message)
        shown = (message.channel.number, message.consumer_tag, message.delivery_tag, message.body)
        self._record("on_message", (message,), *shown)

    def on_open(self, connection: Connection) -> None:
        self._record("on_open", (connection,))

    def on_open_error(self, connection: Connection, error: ConnectionClosed) -> None:
        self._record("on_open_error", (connection, error), error)

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> None:
        self._record("on_close", (connection, reason), reason)

    def on_blocked(self, connection: Connection, reason: str) -> None:
        self._record("on_blocked", (connection, reason), reason)

    def on_unblocked(self, connection: Connection) -> None:
        self._record("on_unblocked", (connection,))

    def on_writable(self, connection: Connection, writable: bool) -> None:
        self._record("on_writable", (connection, writable), writable)

    def on_channel_open(self, channel: Channel) -> None:
        self._record("on_channel_open", (channel,), channel.number)

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        self._record("on_channel_close", (channel, reason), channel.number, reason)

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        shown = (channel.number, list(tags), acked)
        self._record("on_delivery_confirmation", (channel, tags, acked), *shown)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        self.returns.append(returned)
        self._record("on_return", (channel, returned), channel.number, returned.body)

    def on_consumer_cancel(self, channel: Channel, consumer_tag: str) -> None:
        self._record("on_consumer_cancel", (channel, consumer_tag), channel.number, consumer_tag)

    def on_callback_error(self, context: CallbackContext, error: BaseException) -> None:
        self.contexts.append(context)
        self.errors.append(error)
        self._record("on_callback_error", (context, error), context.callback)
