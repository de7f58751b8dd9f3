"""Properties that RabbitMQ passes on as they came: each is delivered and hurts at most a reader."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from struct import pack
from urllib.parse import unquote, urlsplit

import pytest

import evamqp
from evamqp.codec.frames import (
    PROTOCOL_HEADER,
    body_frames,
    content_header_frame,
    method_frame,
)
from evamqp.codec.properties import Properties
from evamqp.errors import MalformedData
from tests.interop.rig import OnEveryLoopPlain, Rig
from tests.support.frames import FrameBuffer
from tests.support.loops import Loop, opened

SHORT_STRINGS = {
    "content_type": 0x8000,
    "content_encoding": 0x4000,
    "correlation_id": 0x0400,
    "reply_to": 0x0200,
    "message_id": 0x0080,
    "type": 0x0020,
    "app_id": 0x0008,
    "cluster_id": 0x0004,
}
ALL_NAMES = (
    *SHORT_STRINGS, "headers", "delivery_mode", "priority", "expiration", "timestamp", "user_id"
)  # fmt: skip


class RawPublisher:
    """Publishes bytes as they are, and waits until the broker has confirmed them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 5672), 10)
        self._input = FrameBuffer()
        self._methods = self._read_methods()
        self._socket.sendall(PROTOCOL_HEADER)
        self._wait_for("connection.start")
        login = f"\0{unquote(parts.username or '')}\0{unquote(parts.password or '')}".encode()
        self._say(0, "connection.start-ok", {}, "PLAIN", login, "en_US")
        self._wait_for("connection.tune")
        self._say(0, "connection.tune-ok", 2047, 131_072, 0)
        self._say(0, "connection.open", unquote(parts.path[1:]))
        self._wait_for("connection.open-ok")
        self._say(1, "channel.open")
        self._say(1, "confirm.select", False)
        self._wait_for("confirm.select-ok")

    def publish(self, queue: str, properties: bytes, body: bytes) -> None:
        """Publish, and wait for the confirm; a refusal fails the test."""
        frames = method_frame(1, "basic.publish", "", queue, False, False)
        frames += content_header_frame(1, properties, len(body))
        self._socket.sendall(frames + b"".join(body_frames(1, body, 131_072)))
        self._wait_for("basic.ack")

    def close(self) -> None:
        self._socket.close()

    def _say(self, channel: int, method: str, *values: object) -> None:
        self._socket.sendall(method_frame(channel, method, *values))

    def _wait_for(self, name: str) -> None:
        for method, arguments in self._methods:
            assert "close" not in method, arguments
            if method == name:
                return

    def _read_methods(self) -> Iterator[tuple[str, tuple[object, ...]]]:
        while data := self._socket.recv(65_536):
            for sent in self._input.feed_sent(data):
                if sent.is_method:
                    yield sent.name, sent.arguments
        pytest.fail("the broker hung up on the publisher")


def table(entries: bytes) -> bytes:
    return len(entries).to_bytes(4, "big") + entries


def headers(entries: bytes) -> bytes:
    return b"\x20\x00" + table(entries)


def nested(depth: int, kind: bytes = b"F") -> bytes:
    """The entries of a headers table with ``depth`` containers within each other, itself one."""
    inner = b""
    for _ in range(depth - 2):
        inner = (b"\x01k" if kind == b"F" else b"") + kind + table(inner)
    return b"\x01k" + kind + table(inner) if depth > 1 else b""


def keys(count: int) -> bytes:
    # From here on, since RabbitMQ looks at what "CC" holds.
    names = range(0x8000, 0x8000 + count)
    return b"".join(b"\x02" + name.to_bytes(2, "big") + b"V" for name in names)


#: The bytes of the properties, and the name of the one that cannot be read, if any.
POISON: dict[str, tuple[bytes, str | None]] = {
    "tables 5,000 deep": (headers(nested(5000)), "headers"),
    "arrays 5,000 deep": (headers(nested(5000, b"A")), "headers"),
    "tables 101 deep": (headers(nested(101)), "headers"),
    "tables 100 deep": (headers(nested(100)), None),
    "invalid UTF-8 in a key": (headers(b"\x02\xff\xfeV"), None),
    "invalid UTF-8 in a value": (headers(b"\x01kS\x00\x00\x00\x02\xff\xfe"), None),
    "half a character at the end": (headers(b"\x01kS\x00\x00\x00\x02a\xe2"), None),
    "NUL in a key and a value": (headers(b"\x01\x00S\x00\x00\x00\x01\x00"), None),
    "bytes": (headers(b"\x01kx\x00\x00\x00\x02\xff\xfe"), None),
    "a timestamp of 2**63": (b"\x00\x40" + pack(">Q", 2**63), None),
    "a timestamp of 2**64 - 1": (b"\x00\x40" + pack(">Q", 2**64 - 1), None),
    "a timestamp of 2**63 in headers": (headers(b"\x01kT" + pack(">Q", 2**63)), None),
    "a decimal of 255 places": (headers(b"\x01kD\xff\x7f\xff\xff\xff"), None),
    "the smallest float": (headers(b"\x01kd" + bytes(7) + b"\x01"), None),
    # RabbitMQ holds what it is sent to frame_max, 131,072 bytes.
    "32,000 keys": (headers(keys(32_000)), None),
    "a key 40,000 times": (headers(b"\x01kV" * 40_000), None),
    "an empty key twice": (headers(b"\x00V\x00t\x01"), None),
    "a key of 255 bytes": (headers(b"\xff" + b"k" * 255 + b"V"), None),
    "a value of 130 kB": (headers(b"\x01kS" + table(b"v" * 130_000)), None),
    "an array of 100,000 nothings": (headers(b"\x01kA" + table(b"V" * 100_000)), None),
    "a header named like nothing": (headers(b"\x00S\x00\x00\x00\x00"), None),
    "no properties": (b"\x00\x00", None),
    "empty headers": (headers(b""), None),
    "all empty": (b"\xe6\xa8" + b"\x00\x00" + table(b"") + b"\x00" * 5, None),
    "priority 255": (b"\x08\x00\xff", None),
    **{
        f"invalid UTF-8 in {name}": (pack(">H", flag) + b"\x03\xff\xfea", None)
        for name, flag in SHORT_STRINGS.items()
    },
    **{
        f"{name} of 255 bytes": (pack(">H", flag) + b"\xff" + b"\xff" * 255, None)
        for name, flag in SHORT_STRINGS.items()
    },
}


# Of headers with the same name RabbitMQ 4 keeps the first.
OF_EQUAL_KEYS_THE_FIRST = {
    "a key 40,000 times": headers(b"\x01kV"),
    "an empty key twice": headers(b"\x00V"),
}
SENT = {name: raw for name, (raw, _) in POISON.items()}
AS_RECEIVED = {"3.8": SENT, "4.0": {**SENT, **OF_EQUAL_KEYS_THE_FIRST}}


def check_reading(properties: Properties, bad: str | None) -> None:
    """All but the bad property can be read; that one raises, as often as it is read."""
    for name in ALL_NAMES:
        if name == bad:
            for _ in range(2):
                with pytest.raises(MalformedData, match=name):
                    getattr(properties, name)
        else:
            getattr(properties, name)
    assert repr(properties)


def consume(rig: Rig, channel: evamqp.Channel) -> list[evamqp.Message]:
    received: list[evamqp.Message] = []

    def on_message(message: evamqp.Message) -> None:
        received.append(message)
        message.ack()

    channel.basic_consume("q", on_message)
    return received


class TestEachPoison(OnEveryLoopPlain):
    @pytest.fixture(scope="class")
    @classmethod
    def loop(cls) -> Iterator[Loop]:
        """One is enough here: what differs between loops is below what reads properties."""
        with opened("select") as loop:
            yield loop

    @pytest.mark.parametrize("name", POISON)
    def test_it_is_delivered_and_so_is_the_next_message(self, rig: Rig, name: str) -> None:
        raw, bad = POISON[name]
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        received = consume(rig, channel)
        with closing(RawPublisher(rig.vhost.url)) as publisher:
            publisher.publish("q", raw, b"")
            publisher.publish("q", b"\x00\x00", b"next")
        rig.until(lambda: len(received) == 2)
        poison, following = received
        assert poison.properties.raw == rig.answer(AS_RECEIVED)[name]
        assert (poison.body, following.body) == (b"", b"next")
        check_reading(poison.properties, bad)
        assert channel.is_open

    def test_a_get_brings_it_as_well(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        raw, bad = POISON["tables 5,000 deep"]
        with closing(RawPublisher(rig.vhost.url)) as publisher:
            publisher.publish("q", raw, b"poison")
        message = rig.get(channel, "q")
        assert message.properties.raw == raw
        check_reading(message.properties, bad)


class TestAllPoisonAtOnce(OnEveryLoopPlain):
    def test_a_queue_full_of_it_is_drained_and_passed_on(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        with closing(RawPublisher(rig.vhost.url)) as publisher:
            for name, (raw, _) in POISON.items():
                publisher.publish("q", raw, name.encode())
        received = consume(rig, channel)
        rig.until(lambda: len(received) == len(POISON))
        told = {message.body.decode(): message.properties.raw for message in received}
        assert told == rig.answer(AS_RECEIVED)
        # What was received can be published again as it is, poison included.
        again = channel.connection.channel()
        again.confirm_select()
        rig.wait(again.queue_declare("again", durable=True))
        for message in received:
            again.basic_publish("", "again", message.body, message.properties)
        assert rig.wait(again.wait_for_confirms()) == []
        rig.until_count(again, "again", len(POISON))
