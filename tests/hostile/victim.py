"""A client under attack, which notes every breach of the laws of callbacks and every byte it holds.

No attack lives here.  What a breach is, is decided here alone: every test asks for the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evamqp.core.channel import Channel, Message
from evamqp.core.connection import Connection
from evamqp.core.handler import CallbackContext, Handler
from evamqp.core.message import Returned
from evamqp.core.output import UNCAPPED_ROOM
from evamqp.core.parser import MAX_TEMPLATES
from evamqp.core.request import Request
from evamqp.core.state import ConnectionState
from evamqp.errors import (
    AmqpError,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    MalformedData,
    NotExecuted,
    RequestTimeout,
)
from evamqp.types import Tags
from tests.support.client import Client

#: Limits so small that a peer reaches each of them within a few kilobytes.
LIMITS: dict[str, Any] = {
    "frame_max": 4096,
    "header_max": 4096,
    "body_max": 10_000,
    "output_high_water": 16_384,
    "output_max": 65_536,
}
PROPERTIES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)
#: How a request may fail for whatever a peer does.
FAILURES = (NotExecuted, RequestTimeout, Closed)


class Witness(Handler):
    """Hears every callback and remembers what should not have been.

    Attributes:
        faults: Every breach of a law, in words.  An exception would go to on_callback_error.
        names: The callbacks in order.
        bodies: Of the messages delivered, unless ``forgets``.
        message: The newest, until somebody settles it.
        forgets: Whether bodies and names are dropped, for floods.
    """

    def __init__(self, body_max: int) -> None:
        self.faults: list[str] = []
        self.names: list[str] = []
        self.bodies: list[bytes] = []
        self.forgets = False
        self.in_loop: Callable[[], bool] = lambda: True
        self.reason: Closed | None = None
        self.channels_closed: list[Channel] = []
        self.settled: set[tuple[int, int]] = set()
        self.actions: dict[str, Callable[[Any], object]] = {}
        self.message: Message | None = None
        self._body_max = body_max

    def told(self, name: str, subject: Any) -> None:
        """A callback has come."""
        if not self.in_loop():
            self.faults.append(f"{name} from inside a call")
        if self.reason is not None:
            self.faults.append(f"{name} after the end")
        if not self.forgets:
            self.names.append(name)
        action = self.actions.get(name)
        if action is not None:
            action(subject)

    def on_open(self, connection: Connection) -> None:
        if "on_open" in self.names:
            self.faults.append("on_open twice")
        self.told("on_open", connection)

    def on_open_error(self, connection: Connection, error: ConnectionClosed) -> None:
        if "on_open" in self.names:
            self.faults.append("on_open_error after on_open")
        self.told("on_open_error", connection)
        self.reason = error

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> None:
        self.told("on_close", connection)
        self.reason = reason

    def on_blocked(self, connection: Connection, reason: str) -> None:
        self.told("on_blocked", connection)

    def on_unblocked(self, connection: Connection) -> None:
        self.told("on_unblocked", connection)

    def on_writable(self, connection: Connection, writable: bool) -> None:
        self.told("on_writable", connection)

    def on_channel_open(self, channel: Channel) -> None:
        self.told("on_channel_open", channel)

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel in self.channels_closed:
            self.faults.append(f"on_channel_close twice for {channel!r}")
        if not str(reason):
            self.faults.append("a reason without words")
        self.channels_closed.append(channel)
        self.told("on_channel_close", channel)

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        for tag in tags:
            if (id(channel), tag) in self.settled or not 0 < tag < channel._machine.next_tag:
                self.faults.append(f"tag {tag} of {channel!r} confirmed twice or never published")
            self.settled.add((id(channel), tag))
        self.told("on_delivery_confirmation", channel)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        self._check_body(returned.body)
        read_all(returned.properties)
        self.told("on_return", channel)

    def on_consumer_cancel(self, channel: Channel, consumer_tag: str) -> None:
        self.told("on_consumer_cancel", channel)

    def on_callback_error(self, context: CallbackContext, error: BaseException) -> None:
        self.faults.append(f"{context.callback} raised {error!r}")

    def on_message(self, message: Message) -> None:
        self._check_body(message.body)
        shown: tuple[object, ...] = (message.exchange, message.routing_key, message.consumer_tag)
        if not isinstance(message.delivery_tag, int) or {*map(type, shown)} != {str}:
            self.faults.append(f"a malformed message: {shown}")
        read_all(message.properties)
        self.message = message
        self.told("on_message", message)

    def _check_body(self, body: bytes) -> None:
        if type(body) is not bytes or len(body) > self._body_max:
            self.faults.append(f"a malformed body: {type(body).__name__} of {len(body)}")
        if not self.forgets:
            self.bodies.append(body)


def read_all(properties: Any) -> list[str]:
    """Read every property; a bad one raises MalformedData and nothing else."""
    assert isinstance(properties.raw, bytes)
    assert repr(properties)
    seen = []
    for name in PROPERTIES:
        try:
            seen.append(repr(getattr(properties, name)))
        except MalformedData as error:
            seen.append(str(error))
    return seen


class Outcome:
    """The callback and on_error of one request."""

    def __init__(self, witness: Witness, name: str) -> None:
        self._witness = witness
        self.name = name
        self.values: list[Any] = []

    def callback(self, value: Any) -> None:
        self.values.append(value)
        self._witness.told(f"{self.name} answered", value)

    def on_error(self, error: Exception) -> None:
        if not isinstance(error, FAILURES):
            self._witness.faults.append(f"{self.name} failed with {error!r}")
        self.values.append(error)
        self._witness.told(f"{self.name} failed", error)

    @property
    def value(self) -> Any:
        (value,) = self.values
        return value


class Victim(Client):
    """A core in memory, with small limits, whose every callback and byte is watched.

    Attributes:
        witness: The handler.
        outcomes: Of every request asked by ask().
        peak: The most bytes that were held at any time.
    """

    def __init__(self, **parameters: Any) -> None:
        chosen = {**LIMITS, **parameters}
        self.witness = Witness(chosen["body_max"])
        super().__init__(handler=self.witness, **chosen)
        self.witness.in_loop = lambda: self.recorder.in_loop
        self.outcomes: list[Outcome] = []
        self.channels: list[Channel] = []
        self.peak = 0

    def feed(self, *frames: bytes) -> None:
        super().feed(*frames)
        self.peak = max(self.peak, self.held())

    def ask(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Outcome:
        """Make a request whose outcome has to come exactly once."""
        outcome = Outcome(self.witness, method.__name__)
        method(*arguments, callback=outcome.callback, on_error=outcome.on_error, **keywords)
        self.outcomes.append(outcome)
        return outcome

    def new_channel(self, number: int | None = None) -> Channel:
        """A channel whose open is not answered yet."""
        channel = self.connection.channel(number=number)
        self.channels.append(channel)
        return channel

    def open_channel(self) -> Channel:
        """A channel that is open."""
        channel = self.new_channel()
        self.serve()
        assert channel.is_open
        return channel

    def consume(self, channel: Channel, tag: str = "tag", *, auto_ack: bool = False) -> None:
        """A consumer whose messages the witness checks."""
        channel.basic_consume("queue", self.witness.on_message, auto_ack, consumer_tag=tag)
        self.serve()

    def held(self) -> int:
        """Bytes that the connection holds for its peer."""
        receiver = self.connection.context.parser
        return (
            len(receiver.held)
            + receiver.body_bytes
            + receiver.header_bytes
            + self.connection.output_size
        )

    @property
    def bound(self) -> int:
        """Bytes that it may hold at the most, whatever the peer does."""
        limits = self.parameters
        partial = 2 * limits.body_max + limits.header_max
        return partial + 64 * 1024 + limits.header_max + limits.output_max + UNCAPPED_ROOM

    def finish(self) -> Closed:
        """The end, if it has not come yet; then every law is checked.  Returns the reason."""
        if not self.connection._closing.is_over:
            self.lose()
        self.turn()
        connection, witness = self.connection, self.witness
        assert not witness.faults, witness.faults
        assert connection.state is ConnectionState.CLOSED
        assert isinstance(witness.reason, ConnectionClosed)
        # What we did not foresee ends the connection with these words.
        assert "internal error" not in witness.reason.text
        assert connection.next_deadline() is None
        for outcome in self.outcomes:
            assert len(outcome.values) == 1, f"{outcome.name}: {outcome.values}"
        assert len(witness.channels_closed) == len(self.channels)
        assert self.peak <= self.bound
        receiver = connection.context.parser
        assert len(receiver._templates) <= MAX_TEMPLATES
        assert not receiver.held
        assert all(channel._machine.content is None for channel in self.channels)
        return witness.reason


def failure(request: Request[Any]) -> AmqpError:
    """Why a request failed."""
    assert request.is_done
    error = request.future.exception()
    assert isinstance(error, AmqpError)
    return error
