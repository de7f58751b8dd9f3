"""Frames for tests: what a broker sends, made by the codec, and what a client sent, taken apart.

No test lives here, and nothing that decides what is sent when.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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

NO_PROPERTIES = b"\x00\x00"
SERVER_PROPERTIES = {"product": "Scripted", "capabilities": {"basic.nack": True}}
#: The largest frame that anybody may send here.
FRAME_MAX = 2**20
#: The frame_max that brokers propose in connection.tune.
TUNED_FRAME_MAX = 131_072
HEARTBEAT = HEARTBEAT_FRAME


class Sent(NamedTuple):
    """One frame of the client's: a method, or ``"header"``, ``"body"`` or ``"heartbeat"``."""

    channel: int
    name: str
    arguments: tuple[Any, ...] = ()

    @property
    def is_method(self) -> bool:
        return "." in self.name


# --- bytes in, frames out ----------------------------------------------------------------------


class FrameBuffer:
    """Keeps the bytes of a frame that is not whole yet.

    Args:
        expects_header: Whether the other side begins with a protocol header, as clients do.
        frame_max: Bytes of the largest frame that may come, a content header's apart.

    Attributes:
        has_header: Whether the protocol header has come.
    """

    def __init__(self, *, expects_header: bool = False, frame_max: int = FRAME_MAX) -> None:
        self._frame_max = frame_max
        self._data = b""
        self._expects_header = expects_header
        self.has_header = False

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that are whole now: kind, channel and payload of each."""
        self._data += data
        if self._expects_header and not self._take_header():
            return []
        frames, used = split_frames(self._data, 0, self._frame_max, FRAME_MAX)
        self._data = self._data[used:]
        return frames

    def feed_sent(self, data: bytes) -> list[Sent]:
        """As feed(), with each frame decoded."""
        return [decode_frame(*frame) for frame in self.feed(data)]

    def _take_header(self) -> bool:
        if len(self._data) < len(PROTOCOL_HEADER):
            return False
        assert self._data.startswith(PROTOCOL_HEADER), self._data[:8]
        self._data = self._data[len(PROTOCOL_HEADER) :]
        self._expects_header = False
        self.has_header = True
        return True


def decode(data: bytes) -> list[Sent]:
    """What a client sent."""
    frames, used = split_frames(data, 0, FRAME_MAX, FRAME_MAX)
    assert used == len(data), "the client sent a part of a frame"
    return [decode_frame(*frame) for frame in frames]


def decode_frame(kind: int, channel: int, payload: bytes) -> Sent:
    """One frame, decoded."""
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


def names(sent: Sequence[Sent]) -> list[str]:
    return [frame.name for frame in sent]


# --- what a broker sends -----------------------------------------------------------------------


def start(
    mechanisms: str = "PLAIN AMQPLAIN",
    version: tuple[int, int] = (0, 9),
    release: str | None = None,
) -> bytes:
    """The broker's greeting; ``release`` makes it RabbitMQ's."""
    rabbitmq = {} if release is None else {"product": "RabbitMQ", "version": release}
    properties = {**SERVER_PROPERTIES, **rabbitmq}
    return method_frame(0, "connection.start", *version, properties, mechanisms.encode(), b"en_US")


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
