"""A client that says exactly what a law asks for: raw methods out, whole events in.

It is built on the codec alone, so that no habit of evamqp's own client hides what a broker does.
It holds no tests, and nothing that only one of the brokers would understand.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from evamqp.codec.frames import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    PROTOCOL_HEADER,
    body_frames,
    content_header_frame,
    method_frame,
)
from evamqp.codec.methods import decode_arguments
from evamqp.codec.properties import Properties
from evamqp.codec.spec import BY_KEY, BY_NAME
from tests.support.frames import FrameBuffer

#: Seconds after which something that has not come is given up.
TIMEOUT = 10.0
FRAME_MAX = 131_072
CLIENT_PROPERTIES = {
    "product": "behaviour",
    "capabilities": {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "exchange_exchange_bindings": True,
        "publisher_confirms": True,
    },
}
#: Headers of types that no client of Python sends, sorted by their names.
TYPED_HEADERS = (
    b"\1aV",
    b"\1bx\0\0\0\1a",
    b"\1cD\2\0\0\0\x64",
    b"\1dl\0\0\0\0\0\0\0\0",
    b"\1ef\0\0\0\0",
    b"\1fi\0\0\0\5",
    b"\1gu\0\4",
    b"\1hs\0\3",
    b"\1yB\2",
    b"\1zb\1",
)
CLOSES = ("connection.close", "channel.close")


class Wire(Protocol):
    """What carries the bytes: a socket, or the memory adapter."""

    def send(self, data: bytes) -> None: ...
    def receive(self, seconds: float) -> bytes:
        """What came, b"" for the end; TimeoutError when nothing does for so long."""

    def sleep(self, seconds: float) -> None: ...
    def close(self) -> None: ...


def raw_headers(*headers: bytes) -> bytes:
    """Properties with these headers and nothing else."""
    table = b"".join(headers)
    return b"\x20\0" + len(table).to_bytes(4, "big") + table


@dataclass(frozen=True, slots=True)
class Event:
    """One thing the broker said: a method with its arguments, and its content if it has one."""

    channel: int
    name: str
    arguments: tuple[Any, ...] = ()
    properties: Properties | None = None
    body: bytes = b""

    def __getitem__(self, name: str) -> Any:
        """An argument by its name in the specification."""
        names = [argument for argument, _ in BY_NAME[self.name].arguments]
        return self.arguments[names.index(name)]


class Refused(Exception):
    """The broker closed the channel or the connection; ``args`` are code and text."""

    def __init__(self, event: Event) -> None:
        super().__init__(event["reply_code"], event["reply_text"])
        self.event = event
        self.code: int = event["reply_code"]
        self.text: str = event["reply_text"]
        self.ids = (event["class_id"], event["method_id"])
        self.is_hard = event.name == "connection.close"


class HungUp(Exception):
    """The broker closed the socket without a word."""


class Client:
    """One connection, driven synchronously.

    Attributes:
        events: What came and was not asked for, in order.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._input = FrameBuffer(frame_max=FRAME_MAX)
        self._frames: deque[tuple[int, int, bytes]] = deque()
        self.events: deque[Event] = deque()
        self.server_properties: dict[str, Any] = {}
        self.mechanisms = b""
        self.tune: tuple[int, ...] = ()

    # The handshake

    def open(
        self,
        vhost: str = "/",
        user: str = "guest",
        password: str = "guest",
        *,
        mechanism: str = "PLAIN",
        response: bytes | None = None,
        properties: dict[str, Any] | None = None,
        heartbeat: int = 0,
        frame_max: int = FRAME_MAX,
        channel_max: int = 2047,
        header: bytes = PROTOCOL_HEADER,
    ) -> Client:
        """Shake hands, up to connection.open-ok."""
        self._wire.send(header)
        start = self.expect("connection.start")
        self.server_properties = start["server_properties"]
        self.mechanisms = start["mechanisms"]
        if response is None:
            response = f"\0{user}\0{password}".encode()
        properties = CLIENT_PROPERTIES if properties is None else properties
        self.send(0, "connection.start-ok", properties, mechanism, response, "en_US")
        self.tune = self.expect("connection.tune").arguments
        self.send(0, "connection.tune-ok", channel_max, frame_max, heartbeat)
        self.call(0, "connection.open", vhost)
        return self

    def close(self) -> None:
        """Close in order.  Idempotent."""
        try:
            self.call(0, "connection.close", 200, "bye", 0, 0)
        except (Refused, HungUp, OSError):
            pass  # it is closed, which is what was asked for
        finally:
            self._wire.close()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._wire.sleep(seconds)

    def drop(self) -> None:
        """Close the socket without a word."""
        self._wire.close()

    # Sending

    def send(self, channel: int, name: str, *arguments: object) -> None:
        """Send one method."""
        self._wire.send(method_frame(channel, name, *arguments))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._wire.send(data)

    def publish_raw(self, channel: int, exchange: str, key: str, properties: bytes) -> None:
        """Send a message of no body, with properties as they are."""
        self.send(channel, "basic.publish", exchange, key, False, False)
        self._wire.send(content_header_frame(channel, properties, 0))

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        """Send a message."""
        raw = b"\0\0" if properties is None else properties.raw
        self._wire.send(
            b"".join(
                (
                    method_frame(
                        channel, "basic.publish", exchange, routing_key, mandatory, immediate
                    ),
                    content_header_frame(channel, raw, len(body)),
                    *body_frames(channel, body, FRAME_MAX),
                )
            )
        )

    def call(self, channel: int, name: str, *arguments: object) -> Event:
        """Send one method and wait for its reply; what comes in between goes to ``events``.

        Raises:
            Refused: The broker closed the channel or the connection instead.
        """
        self.send(channel, name, *arguments)
        return self.wait_for(channel, *BY_NAME[name].replies)

    # Receiving

    def wait_for(self, channel: int, *names: str, seconds: float = TIMEOUT) -> Event:
        """Wait for one of these methods on a channel, noting everything else in ``events``."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            event = self._next(seconds)
            if event.channel == channel and event.name in names:
                return event
            if event.name in CLOSES and event.channel in (0, channel):
                raise Refused(event)
            assert time.monotonic() < deadline, f"{names} never came"
            self.events.append(event)

    def refused(self, channel: int, name: str, *arguments: object) -> Refused:
        """Send a method that the broker must refuse; returns how it did."""
        try:
            answer = self.call(channel, name, *arguments)
        except Refused as refused:
            return refused
        raise AssertionError(f"{name} was answered by {answer}")

    def closed(self, channel: int = 0) -> Refused:
        """Wait until the broker closes this channel, or the connection."""
        try:
            answer = self.wait_for(channel)
        except Refused as refused:
            return refused
        raise AssertionError(f"unexpected {answer}")

    def expect(self, *names: str, seconds: float = TIMEOUT) -> Event:
        """The next event, or the next one noted, which must be one of these."""
        event = self.take(seconds)
        if event.name in CLOSES and event.name not in names:
            raise Refused(event)
        assert event.name in names, f"expected {names}, got {event}"
        return event

    def take(self, seconds: float = TIMEOUT) -> Event:
        """The next thing noted, or else the next thing that comes."""
        return self.events.popleft() if self.events else self._next(seconds)

    def gather(self, count: int, *names: str) -> list[Event]:
        """So many events of these kinds."""
        return [self.expect(*names) for _ in range(count)]

    def until(self, done: Callable[[], bool]) -> None:
        """Take events until the condition holds."""
        while not done():
            self.events.append(self._next(TIMEOUT))

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long, not even the end."""
        try:
            self.events.append(self.take(seconds))
        except TimeoutError:
            return True
        return False

    def at_end(self) -> bool:
        """Wait until the broker hangs up; False if it says something instead."""
        try:
            self._next(TIMEOUT)
        except (HungUp, ConnectionError):
            return True
        return False

    def _next(self, seconds: float) -> Event:
        kind, channel, payload = self._frame(seconds)
        if kind == FRAME_HEARTBEAT:
            return Event(channel, "heartbeat")
        assert kind == FRAME_METHOD, (kind, payload)
        method = BY_KEY[int.from_bytes(payload[:4], "big")]
        event = Event(channel, method.name, decode_arguments(method, payload))
        if method.has_content:
            event = self._content(event, seconds)
        if event.name in CLOSES:
            with suppress(OSError):  # the broker may be gone by now
                self.send(channel, f"{event.name}-ok")
        return event

    def _content(self, event: Event, seconds: float) -> Event:
        kind, channel, payload = self._frame(seconds)
        assert (kind, channel) == (FRAME_HEADER, event.channel)
        size = int.from_bytes(payload[4:12], "big")
        body = b""
        while len(body) < size:
            kind, channel, piece = self._frame(seconds)
            assert (kind, channel) == (FRAME_BODY, event.channel)
            body += piece
        return replace(event, properties=Properties.from_raw(payload[12:]), body=body)

    def raw_frame(self) -> tuple[int, int, bytes]:
        """The next frame as it comes: kind, channel and payload."""
        return self._frame(TIMEOUT)

    def _frame(self, seconds: float) -> tuple[int, int, bytes]:
        while not self._frames:
            data = self._wire.receive(seconds)
            if not data:
                raise HungUp
            self._frames.extend(self._input.feed(data))
        return self._frames.popleft()
