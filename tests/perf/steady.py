"""An open connection in memory, prepared bytes to feed it, and counts of what Python does then.

Counts are the same on every machine and under any load; nothing here looks at a clock.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import evamqp
from evamqp.codec.frames import body_frames, content_header_frame, method_frame
from evamqp.core.output import FLUSH_AT
from evamqp.types import T

FRAME_MAX = 131072
BODY = b"b" * 100
# Messages, of the short run and by which the long one is longer.
FEW = 50
MORE = 100
PROPERTIES = evamqp.Properties(content_type="text/plain", delivery_mode=1)

#: Something to be done with so many messages.
Work = Callable[[int], object]
#: Counts what something does.
Counter = Callable[[Callable[[], object]], int]


class Runtime:
    """A loop that only does what the driver must: empty the output before it grows."""

    adapter: Any = None
    core: evamqp.Connection

    def time(self) -> float:
        return 0.0

    def create_future(self) -> Any:
        raise AssertionError("no future is wanted")

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        raise AssertionError("nobody calls from another thread")

    def output_ready(self, waiting: int = 0) -> None:
        if waiting >= FLUSH_AT:
            self.core.data_to_send()

    def flush_next_turn(self) -> None:
        raise NotImplementedError

    def perform(self, action: Callable[..., T], *arguments: object) -> T:
        raise NotImplementedError


def open_connection(handler: evamqp.Handler | None = None) -> evamqp.Connection:
    """A connection whose handshake is done."""
    runtime = Runtime()
    connection = runtime.core = evamqp.Connection(handler or evamqp.Handler(), runtime)
    connection.connection_made(evamqp.Parameters())
    start = method_frame(0, "connection.start", 0, 9, {}, "PLAIN", "en_US")
    tune = method_frame(0, "connection.tune", 2047, FRAME_MAX, 60)
    for frame in (start, tune, method_frame(0, "connection.open-ok")):
        connection.receive_data(frame)
    connection.data_to_send()
    return connection


def open_channels(connection: evamqp.Connection, count: int = 1) -> list[evamqp.Channel]:
    """Open channels; they are numbered from 1."""
    channels = [connection.channel() for _ in range(count)]
    for channel in channels:
        connection.receive_data(method_frame(channel.number, "channel.open-ok"))
    connection.data_to_send()
    return channels


def consume(
    channel: evamqp.Channel, on_message: Callable[[evamqp.Message], object], *, auto_ack: bool
) -> None:
    """Begin to consume; the consumer's tag is ``"steady"``."""
    channel.basic_consume("queue", on_message, auto_ack, consumer_tag="steady")
    reply = method_frame(channel.number, "basic.consume-ok", "steady")
    channel.connection.receive_data(reply)
    channel.connection.data_to_send()


def confirm(channel: evamqp.Channel) -> None:
    """Turn confirm mode on."""
    channel.confirm_select()
    channel.connection.receive_data(method_frame(channel.number, "confirm.select-ok"))
    channel.connection.data_to_send()


def delivery(number: int, tag: int, routing_key: str = "queue", body: bytes = BODY) -> bytes:
    """The frames of one delivery."""
    deliver = method_frame(number, "basic.deliver", "steady", tag, False, "", routing_key)
    header = content_header_frame(number, PROPERTIES.raw, len(body))
    return b"".join((deliver, header, *body_frames(number, body, FRAME_MAX)))


def varied(count: int) -> list[tuple[str, bytes]]:
    """So many different routing keys, with bodies whose sizes differ."""
    chance = random.Random(3)
    return [
        (f"{number}.{'k' * chance.randrange(30)}", BODY * 2 * chance.randrange(1, 10))
        for number in range(count)
    ]


def count_calls(work: Callable[[], object]) -> int:
    """Calls of functions, Python's and C's, that ``work`` makes."""
    calls = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def count_steps(work: Callable[[], object]) -> int:
    """Bytecode instructions that ``work`` executes."""
    steps = 0

    def note(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            steps += 1
        return note

    before = sys.gettrace()
    # CPython 3.12 sends opcodes only if some frame had asked for them before settrace().
    sys._getframe().f_trace_opcodes = True
    sys.settrace(note)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def per_message(counter: Counter, work: Work) -> float:
    """What one message costs: the difference between many and few, so no set-up counts."""
    work(FEW)  # whatever is remembered is remembered now
    few = counter(lambda: work(FEW))
    return (counter(lambda: work(FEW + MORE)) - few) / MORE


def publish_all(channel: evamqp.Channel, messages: Sequence[tuple[str, bytes]]) -> None:
    """Publish each, as a user would."""
    publish = channel.basic_publish
    for routing_key, body in messages:
        publish("", routing_key, body, PROPERTIES)
