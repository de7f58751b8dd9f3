"""A core under test, with a runtime whose clock the test moves and a broker that the test plays.

No test lives here, and nothing opens a socket, sleeps or reads a real clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from evamqp.adapters._future import Promise, Result
from evamqp.codec.frames import PROTOCOL_HEADER
from evamqp.core.channel import Channel, Message
from evamqp.core.connection import Connection
from evamqp.core.handler import Handler
from evamqp.core.parser import MAX_TEMPLATES, FrameParser
from evamqp.core.request import Request
from evamqp.core.state import ChannelState, ConnectionState, TransportAction
from evamqp.parameters import Parameters
from evamqp.types import T
from tests.support.frames import OPEN_OK, Sent, decode, reply_to, start, tune
from tests.support.recording_handler import RecordingHandler


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

    def output_ready(self, waiting: int = 0) -> None:
        self.ready_count += 1

    def flush_next_turn(self) -> None:
        self.ready_count += 1

    def perform(self, action: Callable[..., T], *arguments: object) -> T:
        return action(*arguments)


def other_parser(
    connection: Connection,
    max_templates: int = MAX_TEMPLATES,
    kind: type[FrameParser] = FrameParser,
) -> FrameParser:
    """A parser in place of the connection's own."""
    context = connection.context
    return kind(connection._control, context.channels, context.callbacks, Message, max_templates)


def channels(connection: Connection) -> list[Channel]:
    """The channels that a connection has now."""
    return [machine.channel for machine in connection.context.channels.all()]


class Client:
    """A core between a RecordingHandler and the test, which is its driver and its broker in one.

    Args:
        parameters: Given to connection_made(); see ``Parameters``.
        handler: None means the client's own RecordingHandler.
    """

    def __init__(self, *, handler: Handler | None = None, **parameters: Any) -> None:
        self.parameters = Parameters(**parameters)
        self.runtime = Runtime()
        self.recorder = RecordingHandler()
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
