"""The other side of a core under test: a runtime with a clock moved by hand, a broker's words.

No test lives here, and nothing opens a socket, sleeps or reads a real clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evamqp.adapters._future import Promise, Result
from evamqp.codec.frames import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    body_frames,
    content_header_frame,
    method_frame,
    split_frames,
)
from evamqp.codec.methods import decode_arguments
from evamqp.codec.spec import BY_KEY, BY_NAME
from evamqp.core.channel import Channel
from evamqp.core.connection import Connection
from evamqp.core.handler import CallbackContext, Handler
from evamqp.core.message import Message, Returned
from evamqp.core.request import Request
from evamqp.core.state import ChannelState, ConnectionState, TransportAction
from evamqp.errors import ChannelClosed, ConnectionClosed
from evamqp.parameters import Parameters
from evamqp.types import Tags

NO_PROPERTIES = b"\x00\x00"
SERVER_PROPERTIES = {"product": "Scripted", "capabilities": {"basic.nack": True}}
#: The largest frame that anybody may send here.
FRAME_MAX = 2**20


class Sent(NamedTuple):
    """One frame of the client's: a method, or ``"header"``, ``"body"`` or ``"heartbeat"``."""

    channel: int
    name: str
    arguments: tuple[Any, ...] = ()


# --- what a broker says -----------------------------------------------------------------------


def start(mechanisms: str = "PLAIN AMQPLAIN", version: tuple[int, int] = (0, 9)) -> bytes:
    return method_frame(
        0, "connection.start", *version, SERVER_PROPERTIES, mechanisms.encode(), b"en_US"
    )


def tune(channel_max: int = 2047, frame_max: int = 131_072, heartbeat: int = 60) -> bytes:
    return method_frame(0, "connection.tune", channel_max, frame_max, heartbeat)


OPEN_OK = method_frame(0, "connection.open-ok")


def reply_to(sent: Sent) -> bytes:
    """The plain success of a request; b"" for what has no reply."""
    replies = BY_NAME[sent.name].replies if sent.name in BY_NAME else ()
    if not replies:
        return b""
    reply = BY_NAME[replies[-1]]  # of basic.get: get-empty
    values: dict[str, object] = dict(zip(_names(sent.name), sent.arguments, strict=True))
    if values.get("no_wait"):
        return b""
    defaults: dict[str, object] = {"message_count": 3, "consumer_count": 2}
    values = {**defaults, **values}
    return method_frame(sent.channel, reply.name, *(values[name] for name in _names(reply.name)))


def _names(method: str) -> list[str]:
    return [name for name, _ in BY_NAME[method].arguments]


def content(
    channel: int,
    name: str,
    *values: object,
    body: bytes = b"",
    properties: bytes = NO_PROPERTIES,
    frame_max: int = 131_072,
) -> list[bytes]:
    """The frames of a content-bearing method."""
    body_parts = (body[at : at + frame_max - 8] for at in range(0, len(body), frame_max - 8))
    return [
        method_frame(channel, name, *values),
        content_header_frame(channel, properties, len(body)),
        *(b"".join(body_frames(channel, part, FRAME_MAX)) for part in body_parts),
    ]


def deliver(
    channel: int,
    consumer_tag: str,
    delivery_tag: int,
    body: bytes = b"hello",
    *,
    redelivered: bool = False,
    exchange: str = "amq.topic",
    routing_key: str = "key",
    properties: bytes = NO_PROPERTIES,
) -> bytes:
    """One whole delivery."""
    values = (consumer_tag, delivery_tag, redelivered, exchange, routing_key)
    frames = content(channel, "basic.deliver", *values, body=body, properties=properties)
    return b"".join(frames)


def got(channel: int, delivery_tag: int, body: bytes = b"got", left: int = 0) -> bytes:
    """The basic.get-ok of one message, whole; ``left`` stand behind it."""
    frames = content(channel, "basic.get-ok", delivery_tag, False, "", "queue", left, body=body)
    return b"".join(frames)


def returned(channel: int, body: bytes = b"back", routing_key: str = "nowhere") -> bytes:
    """One whole basic.return."""
    values = (312, "NO_ROUTE", "", routing_key)
    return b"".join(content(channel, "basic.return", *values, body=body))


def ack(channel: int, tag: int, multiple: bool = False) -> bytes:
    return method_frame(channel, "basic.ack", tag, multiple)


def nack(channel: int, tag: int, multiple: bool = False) -> bytes:
    return method_frame(channel, "basic.nack", tag, multiple, False)


def channel_close(
    channel: int, code: int = 404, text: str = "NOT_FOUND", blamed: str | None = None
) -> bytes:
    return method_frame(channel, "channel.close", code, text, *_ids(blamed))


def connection_close(
    code: int = 320, text: str = "CONNECTION_FORCED", blamed: str | None = None
) -> bytes:
    return method_frame(0, "connection.close", code, text, *_ids(blamed))


def _ids(method: str | None) -> tuple[int, int]:
    return (0, 0) if method is None else (BY_NAME[method].class_id, BY_NAME[method].method_id)


def decode(data: bytes) -> list[Sent]:
    """What a client sent."""
    frames, used = split_frames(data, 0, FRAME_MAX, FRAME_MAX)
    assert used == len(data), "the client sent a part of a frame"
    return [_decode_frame(*frame) for frame in frames]


def _decode_frame(kind: int, channel: int, payload: bytes) -> Sent:
    if kind == FRAME_HEADER:
        size = int.from_bytes(payload[4:12], "big")
        return Sent(channel, "header", (size, payload[12:]))
    if kind == FRAME_BODY:
        return Sent(channel, "body", (payload,))
    if kind == FRAME_HEARTBEAT:
        assert not payload
        return Sent(channel, "heartbeat")
    method = BY_KEY[int.from_bytes(payload[:4], "big")]
    return Sent(channel, method.name, decode_arguments(method, payload))


# --- the client under test --------------------------------------------------------------------


class Runtime:
    """What a driver is to the core, with a clock that stands still.

    Attributes:
        now: Seconds; moved by the test.
        ready_count: How often output_ready() was called.
    """

    adapter: Any = None

    def __init__(self) -> None:
        self.now = 0.0
        self.ready_count = 0
        self.calls: deque[Callable[[], object]] = deque()

    def time(self) -> float:
        return self.now

    def create_future(self) -> Promise[Result[Any]]:
        return Promise(Result(self.calls.append))

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self.calls.append(callback)

    def output_ready(self) -> None:
        self.ready_count += 1


class Recorder(Handler):
    """Writes every callback down, then does in it what the test has asked for.

    Attributes:
        log: Of each callback its name and what it was told, connection and channel as numbers.
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
        """A callback that is written down under a name of one's own."""

        def callback(*arguments: Any) -> None:
            self._told(name, arguments, *arguments)

        return callback

    def _told(self, name: str, given: tuple[Any, ...], *shown: Any) -> None:
        assert self.in_loop, f"{name} came from inside a call"
        self.log.append((name, *shown))
        action = self.actions.get(name)
        if action is not None:
            action(*given)

    def on_message(self, message: Message) -> None:
        self.messages.append(message)
        shown = (message.channel.number, message.consumer_tag, message.delivery_tag, message.body)
        self._told("on_message", (message,), *shown)

    def on_open(self, connection: Connection) -> None:
        self._told("on_open", (connection,))

    def on_open_error(self, connection: Connection, error: ConnectionClosed) -> None:
        self._told("on_open_error", (connection, error), error)

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> None:
        self._told("on_close", (connection, reason), reason)

    def on_blocked(self, connection: Connection, reason: str) -> None:
        self._told("on_blocked", (connection, reason), reason)

    def on_unblocked(self, connection: Connection) -> None:
        self._told("on_unblocked", (connection,))

    def on_writable(self, connection: Connection, writable: bool) -> None:
        self._told("on_writable", (connection, writable), writable)

    def on_channel_open(self, channel: Channel) -> None:
        self._told("on_channel_open", (channel,), channel.number)

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        self._told("on_channel_close", (channel, reason), channel.number, reason)

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        shown = (channel.number, list(tags), acked)
        self._told("on_delivery_confirmation", (channel, tags, acked), *shown)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        self.returns.append(returned)
        self._told("on_return", (channel, returned), channel.number, returned.body)

    def on_consumer_cancel(self, channel: Channel, consumer_tag: str) -> None:
        self._told("on_consumer_cancel", (channel, consumer_tag), channel.number, consumer_tag)

    def on_callback_error(self, context: CallbackContext, error: BaseException) -> None:
        self.contexts.append(context)
        self.errors.append(error)
        self._told("on_callback_error", (context, error), context.callback)


class Client:
    """A core between a Recorder and the test, which is its driver and its broker in one.

    Args:
        parameters: Given to connection_made(); see ``Parameters``.
        handler: None means the client's own Recorder.
    """

    def __init__(self, *, handler: Handler | None = None, **parameters: Any) -> None:
        self.parameters = Parameters(**parameters)
        self.runtime = Runtime()
        self.recorder = Recorder()
        self.connection = Connection(handler or self.recorder, self.runtime)

    # What a driver does

    def connect(self) -> None:
        """The transport is up."""
        self._in_loop(self.connection.connection_made, self.parameters)

    def feed(self, *frames: bytes) -> None:
        """Bytes from the broker, in one piece; then a turn of the loop."""
        self._in_loop(self.connection.receive_data, b"".join(frames))
        self.turn()

    def turn(self) -> None:
        """Run what is due now, until nothing is."""
        while self.runtime.calls or self._is_due():
            if self.runtime.calls:
                self._in_loop(self.runtime.calls.popleft())
            else:
                self._in_loop(self.connection.handle_timer)

    def _is_due(self) -> bool:
        deadline = self.connection.next_deadline()
        return deadline is not None and deadline <= self.runtime.now

    def advance(self, seconds: float) -> None:
        """Let time pass, stopping at each deadline on the way."""
        end = self.runtime.now + seconds
        self.turn()
        while (deadline := self.connection.next_deadline()) is not None and deadline <= end:
            self.runtime.now = deadline
            self.turn()
        self.runtime.now = end

    def lose(self, exc: BaseException | None = None) -> None:
        """The transport is gone."""
        self._in_loop(self.connection.connection_lost, exc)
        self.turn()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run something as the loop would: callbacks are legal in it."""
        self._in_loop(function, *arguments)
        self.turn()

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        assert not self.recorder.in_loop
        self.recorder.in_loop = True
        try:
            function(*arguments)
        finally:
            self.recorder.in_loop = False

    def taken(self) -> bytes:
        """The bytes that wait to be sent, taken as a driver takes them."""
        return b"".join(iter(self.connection.data_to_send, b""))

    def sent(self) -> list[Sent]:
        """What was sent since the last time, without the protocol header."""
        return decode(self.taken().removeprefix(PROTOCOL_HEADER))

    # What a broker does

    def open(self) -> Client:
        """The whole handshake; the log and the output are empty afterwards."""
        self.connect()
        return self.open_from_start()

    def open_from_start(self) -> Client:
        """The handshake of a client that is connected."""
        heartbeat = self.parameters.heartbeat
        self.feed(start(), tune(heartbeat=60 if callable(heartbeat) else heartbeat), OPEN_OK)
        self.recorder.take()
        self.taken()
        return self

    def serve(self) -> list[Sent]:
        """Answer every request that waits to be sent; returns what was sent."""
        sent = self.sent()
        self.feed(*map(reply_to, sent))
        return sent

    def channel(
        self, handler: Handler | None = None, **callbacks: Callable[..., object]
    ) -> Channel:
        """A channel that is open; the log and the output are empty afterwards."""
        channel = self.connection.channel(handler, number=None, **callbacks)
        self.serve()
        self.recorder.take()
        assert channel.is_open
        return channel

    def confirming_channel(self) -> Channel:
        """An open channel in confirm mode."""
        channel = self.channel()
        channel.confirm_select()
        self.serve()
        return channel

    def fill(self, channel: Channel) -> None:
        """Publish so much that the output buffer is at its cap, to the byte."""
        before = self.connection.output_size
        channel.basic_publish("", "q", b"x")
        overhead = self.connection.output_size - before - 1
        room = self.parameters.output_max - self.connection.output_size
        channel.basic_publish("", "q", bytes(room - overhead))
        assert self.connection.output_size == self.parameters.output_max

    def consumer(self, channel: Channel, tag: str = "tag", *, auto_ack: bool = False) -> None:
        """A consumer whose messages the recorder notes."""
        channel.basic_consume("queue", self.recorder.on_message, auto_ack, consumer_tag=tag)
        self.serve()

    @property
    def log(self) -> list[tuple[Any, ...]]:
        return self.recorder.log

    # Questions as calls, since a type checker takes an attribute for what it was last compared to.

    def wants(self, transport_action: TransportAction) -> bool:
        """Whether this is to become of the transport."""
        return self.connection.transport_action is transport_action

    def stands(self, state: ConnectionState) -> bool:
        """Whether the connection is in this state."""
        return self.connection.state is state

    def lives(self) -> bool:
        """Whether the connection is open."""
        return self.connection.is_open

    def writable(self) -> bool:
        """Whether the connection says that publishing will not pile up."""
        return self.connection.is_writable


def opened(**parameters: Any) -> Client:
    """A client whose handshake is done."""
    return Client(**parameters).open()


def outcome(request: Request[Any] | None) -> Any:
    """The result of a request that is done, or the exception that ended it."""
    assert request is not None
    assert request.is_done
    error = request.future.exception()
    return request.future.result() if error is None else error


def in_state(channel: Channel, state: ChannelState) -> bool:
    """Whether the channel stands there; see ``Client.wants`` for why this is a call."""
    return channel.state is state


def is_done(request: Request[Any]) -> bool:
    """Whether it has its outcome; see ``Client.wants`` for why this is a call."""
    return request.is_done


def names(sent: Sequence[Sent]) -> list[str]:
    return [frame.name for frame in sent]


HEARTBEAT = HEARTBEAT_FRAME
