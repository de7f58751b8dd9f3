"""Single attacks, each in the state where it hurts most: what it costs, and what it cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from evamqp.codec.frames import HEARTBEAT_FRAME, frame, method_frame
from evamqp.core.state import ChannelState
from evamqp.errors import (
    AuthenticationFailed,
    Closed,
    ConnectionClosed,
    HandshakeTimeout,
    ProtocolError,
    ProtocolMismatch,
    VhostRefused,
)
from tests.hostile import states
from tests.hostile.states import ANNOUNCE, STATES, body, header
from tests.support.frames import (
    OPEN_OK,
    ack,
    channel_close,
    connection_close,
    content,
    deliver,
    got,
    nack,
    returned,
    start,
    tune,
)

#: A protocol error's code; or an error's class; or nothing, or no more than channel 1, is lost.
Expected = int | type[Closed] | Literal["survived", "channel 1 ends"]
Case = tuple[str, Sequence[bytes], Expected]


def start_with(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "major": 0, "minor": 9, "properties": {}, "mechanisms": b"PLAIN", "locales": b"en_US"
    }  # fmt: skip
    return method_frame(0, "connection.start", *{**values, **changes}.values())


def raw_table(entries: bytes) -> bytes:
    """connection.start whose server properties hold these bytes."""
    arguments = b"\x00\x0a\x00\x0a\x00\x09" + len(entries).to_bytes(4, "big") + entries
    return frame(1, 0, arguments + b"\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US")


def nested(depth: int) -> bytes:
    """The entries of a table that nests so deep."""
    entries = b""
    for _ in range(depth):
        entries = b"\x01aF" + len(entries).to_bytes(4, "big") + entries
    return entries


def cut(data: bytes, count: int) -> bytes:
    """A method frame that ends ``count`` bytes early, and says so."""
    return frame(data[0], int.from_bytes(data[1:3], "big"), data[7 : -1 - count])


def longer(data: bytes, more: bytes) -> bytes:
    """A method frame with more bytes than its method has."""
    return frame(data[0], int.from_bytes(data[1:3], "big"), data[7:-1] + more)


DELIVERY = deliver(1, "tag", 3, b"good")
QUEUE = ("queue", 0, 0)
DECLARED = method_frame(1, "queue.declare-ok", *QUEUE)
PURGED = method_frame(1, "queue.purge-ok", 1)
UPDATED = method_frame(0, "connection.update-secret-ok")
OPENED = method_frame(1, "channel.open-ok")
CANCEL = method_frame(1, "basic.cancel", "tag", False)

HANDSHAKE: dict[str, Case] = {
    "start of version 1-0": ("starting", [start(version=(1, 0))], 503),
    "start of version 0-8": ("starting", [start(version=(0, 8))], 503),
    "start cut short": ("starting", [cut(start(), 1)], 502),
    "start without arguments": ("starting", [frame(1, 0, b"\x00\x0a\x00\x0a")], 502),
    "start overlong": ("starting", [longer(start(), b"x")], 502),
    "start without mechanisms": ("starting", [start(mechanisms="")], AuthenticationFailed),
    "start with strange mechanisms": ("starting", [start("SCRAM \xff\n")], AuthenticationFailed),
    "start with 60 kB of mechanisms": (
        "starting", [start_with(mechanisms=b"X " * 30_000)], AuthenticationFailed,
    ),
    "start with mechanisms that are no text": (
        "starting", [start_with(mechanisms=b"\xff\xfe PLAIN"), tune(), OPEN_OK], "survived",
    ),
    "start with invalid UTF-8 in a key": ("starting", [raw_table(b"\x02\xff\xfeV")], "survived"),
    "start with an empty key twice": ("starting", [raw_table(b"\x00V\x00t\x01")], "survived"),
    "start with a table 100 deep": ("starting", [raw_table(nested(99))], "survived"),
    "start with a table 5,000 deep": ("starting", [raw_table(nested(5000))], 502),
    "start with an unknown type": ("starting", [raw_table(b"\x01a\x07")], 502),
    "start with a table beyond its frame": ("starting", [raw_table(b"\x01aS\xff\xff\xff")], 502),
    "start with half an entry": ("starting", [raw_table(b"\xff")], 502),
    "start with a capability of the wrong type": (
        "starting", [start_with(properties={"capabilities": 5})], "survived",
    ),
    "start on channel 1": ("starting", [start()[:1] + b"\0\1" + start()[3:]], 504),
    "tune before start": ("starting", [tune()], 503),
    "open-ok before start": ("starting", [OPEN_OK], 503),
    "AMQP 1.0": ("starting", [b"AMQP\x00\x01\x00\x00"], ProtocolMismatch),
    "AMQP 0-9-1 again": ("starting", [b"AMQP\x00\x00\x09\x01"], ProtocolMismatch),
    "HTTP": ("starting", [b"HTTP/1.1 400 Bad\r\n\x1b[2J\r\n"], ProtocolMismatch),
    "HTML": ("starting", [b"<html>nothing here"], ProtocolMismatch),
    "SSH": ("starting", [b"SSH-2.0-OpenSSH_9.2"], ProtocolMismatch),
    "a TLS alert": ("starting", [b"\x15\x03\x01\x00\x02\x02\x46\x00"], ProtocolMismatch),
    "zeros": ("starting", [bytes(64)], ProtocolMismatch),
    "seven bytes of nothing": ("starting", [b"\xff" * 7], ProtocolMismatch),
    "a close at once": ("starting", [connection_close(320, "going down")], ConnectionClosed),
    "a challenge without a mechanism for it": (
        "authenticating", [method_frame(0, "connection.secure", b"?")], AuthenticationFailed,
    ),
    "start answered twice": ("authenticating", [start()], 503),
    "open-ok before tune": ("authenticating", [OPEN_OK], 503),
    "tune cut short": ("authenticating", [cut(tune(), 1)], 502),
    "tune overlong": ("authenticating", [longer(tune(), b"\0")], 502),
    "tune with frame_max 1": ("authenticating", [tune(frame_max=1)], 501),
    "tune with frame_max 4095": ("authenticating", [tune(frame_max=4095)], 501),
    "tune with no limits": ("authenticating", [tune(0, 0, 0), OPEN_OK], "survived"),
    "tune with the largest limits": (
        "authenticating", [tune(65_535, 2**32 - 1, 65_535), OPEN_OK], "survived",
    ),
    "a heartbeat before tune": ("authenticating", [HEARTBEAT_FRAME, tune(), OPEN_OK], "survived"),
    "refused with 403": ("authenticating", [connection_close(403, "no")], AuthenticationFailed),
    "refused with code 0": ("authenticating", [connection_close(0, "")], ConnectionClosed),
    "tune twice": ("opening", [tune()], 503),
    "a delivery before open-ok": ("opening", [deliver(1, "tag", 1)], 504),
    "blocked before open-ok": ("opening", [method_frame(0, "connection.blocked", "x")], 503),
    "open-ok twice": ("opening", [OPEN_OK, OPEN_OK], 503),
    "open-ok overlong": ("opening", [longer(OPEN_OK, b"xx")], 502),
    "open-ok on channel 9": ("opening", [OPEN_OK[:1] + b"\0\x09" + OPEN_OK[3:]], 504),
    "an unknown virtual host": ("opening", [connection_close(530, "no")], VhostRefused),
    "a close that blames a method nobody knows": (
        "opening", [method_frame(0, "connection.close", 541, "x", 999, 999)], ConnectionClosed,
    ),
    "a close cut short": ("opened", [cut(connection_close(), 1)], 502),
    "blocked, cut short": ("opened", [cut(method_frame(0, "connection.blocked", "xyz"), 1)], 502),
    "blocked twice": ("opened", [method_frame(0, "connection.blocked", "x")] * 2, "survived"),
    "unblocked for nothing": ("opened", [method_frame(0, "connection.unblocked")] * 2, "survived"),
    "an answer to no update-secret": ("opened", [UPDATED], 503),
}  # fmt: skip

REQUESTS: dict[str, Case] = {
    "open-ok twice on a channel": ("channel_opening", [OPENED, OPENED], 503),
    "an answer before open-ok": ("channel_opening", [DECLARED], 503),
    "a delivery before the channel's open-ok": ("channel_opening", [DELIVERY], 503),
    "open-ok for a channel never opened": (
        "channel_opening", [method_frame(2, "channel.open-ok")], 504,
    ),
    "a channel refused": ("channel_opening", [channel_close(1, 504, "no")], "channel 1 ends"),
    "a refused channel opened": ("channel_opening", [channel_close(1), OPENED], "channel 1 ends"),
    "close-ok for a channel that is open": (
        "channel_open", [method_frame(1, "channel.close-ok")], 503,
    ),
    "a channel closed twice": ("channel_open", [channel_close(1)] * 2, "channel 1 ends"),
    "a channel closed without words": (
        "channel_open", [channel_close(1, 0, "")], "channel 1 ends",
    ),
    "a channel closed for a reason of 255 bytes": (
        "channel_open", [channel_close(1, 404, "\x00" * 255)], "channel 1 ends",
    ),
    "a channel closed and then used": (
        "consuming", [channel_close(1), DELIVERY, ack(1, 1), CANCEL], "channel 1 ends",
    ),
    "a channel's close cut short": ("channel_open", [cut(channel_close(1), 2)], 502),
    "an answer to nothing": ("channel_open", [DECLARED], 503),
    "a get-empty to nothing": ("channel_open", [method_frame(1, "basic.get-empty")], 503),
    "a message to no get": ("channel_open", [got(1, 1)], 503),
    "answers twice": ("requesting", [DECLARED, DECLARED], 503),
    "answers in the wrong order": ("requesting", [PURGED, DECLARED], 503),
    "answers of another request": ("requesting", [method_frame(1, "queue.bind-ok")], 503),
    "answers by a message": ("requesting", [got(1, 1)], 503),
    "an answer on another channel": (
        "requesting", [method_frame(2, "queue.declare-ok", *QUEUE)], 504,
    ),
    "an answer on channel 0": ("requesting", [method_frame(0, "queue.declare-ok", *QUEUE)], 503),
    "update-secret answered on channel 1": (
        "requesting", [UPDATED[:1] + b"\0\1" + UPDATED[3:]], 503,
    ),
    "update-secret answered twice": ("requesting", [UPDATED, UPDATED], 503),
    "an answer cut short": ("requesting", [cut(DECLARED, 1)], 502),
    "an answer overlong": ("requesting", [longer(DECLARED, b"\0")], 502),
    "an answer whose name ends beyond it": (
        "requesting", [frame(1, 1, b"\x00\x32\x00\x0b\xffq")], 502,
    ),
    "an answer with a name that is no text": (
        "requesting",
        [frame(1, 1, b"\x00\x32\x00\x0b\x02\xff\xfe" + bytes(8)), PURGED, UPDATED],
        "survived",
    ),
    "an answer with a body": ("requesting", [DECLARED, header(3), body(b"abc")], 505),
    "an answer and the channel's close": (
        "requesting", [DECLARED, channel_close(1), PURGED], "channel 1 ends",
    ),
    "a close that blames what was not asked": (
        "requesting", [channel_close(1, 404, "x", "tx.commit")], "channel 1 ends",
    ),
    "a close that blames the head": (
        "requesting", [channel_close(1, 404, "x", "queue.declare")], "channel 1 ends",
    ),
    "a get answered by two messages": ("getting", [got(1, 1), got(1, 2)], 503),
    "a get answered by a message and nothing": (
        "getting", [got(1, 1), method_frame(1, "basic.get-empty")], 503,
    ),
    "a get answered by a delivery": ("getting", [deliver(1, "tag", 1)], "survived"),
    "a get answered without a body": ("getting", [got(1, 1)[:-11], DECLARED], 505),
    "a get answered by a body above the limit": (
        "getting", [*content(1, "basic.get-ok", 1, False, "", "q", 0, body=bytes(4000))[:1],
                    header(10_001)], "channel 1 ends",
    ),
}  # fmt: skip

CONTENT: dict[str, Case] = {
    "a message to an unknown consumer": ("consuming", [deliver(1, "nobody", 3)], "survived"),
    "a message to a consumer without a name": ("consuming", [deliver(1, "", 3)], "survived"),
    "a consumer's name that is no text": (
        "consuming",
        [frame(1, 1, b"\x00\x3c\x00\x3c\x02\xff\xfe" + bytes(11)), header(0)],
        "survived",
    ),
    "a message on another channel": ("consuming", [deliver(2, "tag", 3)], 504),
    "a message with tag 0": ("consuming", [deliver(1, "tag", 0, b"good")], "survived"),
    "a message with the largest tag": (
        "consuming", [deliver(1, "tag", 2**64 - 1, b"good")], "survived",
    ),
    "a message with a tag used before": ("consuming", [DELIVERY, DELIVERY], "survived"),
    "a delivery cut short": ("consuming", [cut(ANNOUNCE, 1), header(0)], 502),
    "a delivery overlong": ("consuming", [longer(ANNOUNCE, b"x"), header(0)], 502),
    "a delivery whose lengths lie": (
        "consuming", [ANNOUNCE[:11] + b"\xff" + ANNOUNCE[12:], header(0)], 502,
    ),
    "a delivery with a routing key that is too long": (
        "consuming", [ANNOUNCE[:-7] + b"\xff" + ANNOUNCE[-6:], header(0)], 502,
    ),
    "a header for nothing": ("consuming", [header(1)], 505),
    "a body for nothing": ("consuming", [body(b"x")], 505),
    "an empty body for nothing": ("consuming", [body(b"")], 505),
    "a body before its header": ("before_a_header", [body(b"x")], 505),
    "a second delivery before a header": ("before_a_header", [DELIVERY], 505),
    "an answer before a header": ("before_a_header", [OPENED], 505),
    "a confirm before a header": ("before_a_header", [ack(1, 1)], 505),
    "the channel's close before a header": ("before_a_header", [channel_close(1)], 505),
    "a heartbeat before a header": (
        "before_a_header", [HEARTBEAT_FRAME, header(4), body(b"good")], "survived",
    ),
    "a header of another class": (
        "before_a_header", [frame(2, 1, b"\x00\x32\x00\x00" + bytes(10))], 502,
    ),
    "a header with a weight": (
        "before_a_header", [frame(2, 1, b"\x00\x3c\x00\x01" + bytes(10))], 502,
    ),
    "a header cut short": ("before_a_header", [frame(2, 1, b"\x00\x3c\x00\x00" + bytes(9))], 502),
    "an empty header": ("before_a_header", [frame(2, 1, b"")], 502),
    "a header on another channel": ("before_a_header", [header(4, 2)], 504),
    "a header above header_max": (
        "before_a_header", [header(1, properties=bytes(4096 - 11))], 501,
    ),
    "a header of header_max": (
        "before_a_header", [header(4, properties=bytes(4096 - 12)), body(b"good")], "survived",
    ),
    "a body of 2**63 bytes": ("before_a_header", [header(2**63)], "channel 1 ends"),
    "a body of 2**64 - 1 bytes": ("before_a_header", [header(2**64 - 1)], "channel 1 ends"),
    "a body a byte above the limit": ("before_a_header", [header(10_001)], "channel 1 ends"),
    "a body above the limit that comes all the same": (
        "before_a_header", [header(10_001), *[body(bytes(4000))] * 5, HEARTBEAT_FRAME],
        "channel 1 ends",
    ),
    "a second header": ("amid_a_body", [header(10)], 505),
    "a method amid a body": ("amid_a_body", [CANCEL], 505),
    "a confirm amid a body": ("amid_a_body", [ack(1, 1)], 505),
    "a delivery amid a body": ("amid_a_body", [DELIVERY], 505),
    "a return amid a body": ("amid_a_body", [returned(1)], 505),
    "the connection's close amid a body": (
        "amid_a_body", [connection_close()], ConnectionClosed,
    ),
    "a body longer than announced": ("amid_a_body", [body(b"longer than that")], 502),
    "a body a byte longer than announced": ("amid_a_body", [body(b"123456")], 502),
    "another body after the last": (
        "before_a_header", [header(4), body(b"good"), body(b"x")], 505,
    ),
    "an empty body after the last": (
        "before_a_header", [header(4), body(b"good"), body(b"")], 505,
    ),
    "a body after a header of none": ("before_a_header", [header(0), body(b"x")], 505),
    "a cut body frame that ends wrong": ("amid_a_body_frame", [b"56789\0"], 501),
    "a body frame that ends wrong": ("amid_a_body", [body(b"x")[:-1] + b"\0"], 501),
    "a body above frame_max": ("amid_a_body", [body(bytes(4089))], 501),
    "a body of frame_max that is too long": ("amid_a_body", [body(bytes(4088))], 502),
    "a body on another channel": ("amid_a_body", [body(b"x", 2)], 504),
    "a body shorter than announced, then silence": ("amid_a_body", [HEARTBEAT_FRAME], "survived"),
    "empty bodies amid a body": ("amid_a_body", [body(b"")] * 50, "survived"),
    "properties with flags nobody knows": (
        "consuming", [deliver(1, "tag", 3, b"good", properties=b"\xff\xff")], "survived",
    ),
    "properties that end early": (
        "consuming", [deliver(1, "tag", 3, b"good", properties=b"\xff\xfc\xff")], "survived",
    ),
    "headers nested 500 deep": (
        "consuming",
        [deliver(1, "tag", 3, b"good", properties=b"\x20\x00" + len(nested(500)).to_bytes(4, "big")
                 + nested(500))], "survived",
    ),
    "a return that nobody provoked": ("consuming", [returned(1, b"good")], "survived"),
    "a return with a code of 0": (
        "consuming", content(1, "basic.return", 0, "", "", "", body=b"good"), "survived",
    ),
    "a return above the limit": (
        "consuming", [method_frame(1, "basic.return", 312, "", "", ""), header(10_001)],
        "channel 1 ends",
    ),
}  # fmt: skip

CONSUMERS: dict[str, Case] = {
    "a cancel of a consumer": ("consuming", [CANCEL, DELIVERY], "survived"),
    "a cancel twice": ("consuming", [CANCEL, CANCEL], "survived"),
    "a cancel of nobody": (
        "consuming",
        [method_frame(1, "basic.cancel", "nobody", False)],
        "survived",
    ),
    "a cancel-ok for nothing": ("consuming", [method_frame(1, "basic.cancel-ok", "tag")], 503),
    "a consume-ok for nothing": ("consuming", [method_frame(1, "basic.consume-ok", "tag")], 503),
    "a flow stopped and never resumed": (
        "consuming",
        [method_frame(1, "channel.flow", False), DELIVERY],
        "survived",
    ),
    "a flow-ok for nothing": ("consuming", [method_frame(1, "channel.flow-ok", True)], 503),
}

CONFIRMS: dict[str, Case] = {
    "an ack of tag 0": ("confirming", [ack(1, 0)], "survived"),
    "an ack of a tag never published": ("confirming", [ack(1, 6)], "survived"),
    "an ack of the largest tag": ("confirming", [ack(1, 2**64 - 1)], "survived"),
    "an ack of all up to the largest tag": ("confirming", [ack(1, 2**64 - 1, True)], "survived"),
    "an ack twice": ("confirming", [ack(1, 3), ack(1, 3)], "survived"),
    "an ack and a nack": ("confirming", [ack(1, 3), nack(1, 3)], "survived"),
    "a nack and an ack": ("confirming", [nack(1, 3), ack(1, 3)], "survived"),
    "acks in reverse": ("confirming", [ack(1, tag) for tag in range(9, 0, -1)], "survived"),
    "an ack of all, twice": ("confirming", [ack(1, 0, True)] * 2, "survived"),
    "a nack of all after an ack of some": ("confirming", [ack(1, 4), nack(1, 5, True)], "survived"),
    "an ack without confirm mode": ("consuming", [ack(1, 1), nack(1, 1, True)], "survived"),
    "an ack on another channel": ("confirming", [ack(2, 3)], 504),
    "an ack on channel 0": ("confirming", [ack(0, 3)], 503),
    "an ack cut short": ("confirming", [cut(ack(1, 3), 1)], 502),
    "an ack overlong": ("confirming", [longer(ack(1, 3), b"\0")], 502),
    "an ack that ends wrong": ("confirming", [ack(1, 3)[:-1] + b"\xcd"], 501),
    "an ack with all bits set": ("confirming", [ack(1, 3)[:-2] + b"\xff\xce"], "survived"),
    "a select-ok for nothing": ("confirming", [method_frame(1, "confirm.select-ok")], 503),
    "a return of what was confirmed": ("confirming", [returned(1, b"good")], "survived"),
    "the channel's close amid confirms": (
        "confirming",
        [ack(1, 3), channel_close(1), ack(1, 4)],
        "channel 1 ends",
    ),
}

ENDS: dict[str, Case] = {
    "an answer to nothing while closing": ("channel_closing", [DECLARED], 503),
    "deliveries while a channel closes": ("channel_closing", [DELIVERY] * 9, "survived"),
    "half a delivery while a channel closes": (
        "channel_closing", [ANNOUNCE, header(10), method_frame(1, "channel.close-ok")],
        "channel 1 ends",
    ),
    "close and close-ok crossing": (
        "channel_closing", [channel_close(1), method_frame(1, "channel.close-ok")],
        "channel 1 ends",
    ),
    "close-ok twice": (
        "channel_closing", [method_frame(1, "channel.close-ok")] * 2, "channel 1 ends",
    ),
    "open-ok while a channel closes": ("channel_closing", [OPENED], 503),
    "anything on a channel that was closed": (
        "channel_closed",
        [DELIVERY, ack(1, 1), CANCEL, OPENED, header(5), body(b"x"), channel_close(1), DECLARED],
        "survived",
    ),
    "anything of a former life": (
        "channel_reopening", [DELIVERY, ack(1, 1), header(5), body(b"x"), DECLARED], "survived",
    ),
    "half a delivery of a former life, then open-ok": (
        "channel_reopening", [ANNOUNCE, header(10), OPENED, DECLARED], "survived",
    ),
    "deliveries while the connection closes": (
        "closing", [DELIVERY, DECLARED, ack(1, 1)], "survived",
    ),
    "blocked while the connection closes": (
        "closing", [method_frame(0, "connection.blocked", "x")], "survived",
    ),
}  # fmt: skip

CASES = {**HANDSHAKE, **REQUESTS, **CONTENT, **CONSUMERS, **CONFIRMS, **ENDS}


def test_no_case_hides_another() -> None:
    groups = (HANDSHAKE, REQUESTS, CONTENT, CONSUMERS, CONFIRMS, ENDS)
    assert len(CASES) == sum(map(len, groups))
    assert len(CASES) >= 150


@pytest.mark.parametrize("one_by_one", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", CASES)
def test_it_ends_as_it_should(name: str, one_by_one: bool) -> None:
    state, frames, expected = CASES[name]
    victim = getattr(states, state)()
    data = b"".join(frames)
    for piece in [bytes((byte,)) for byte in data] if one_by_one else [data]:
        victim.feed(piece)
    lives = victim.connection.transport_action.name == "KEEP"
    channel = victim.channels[-1] if victim.channels else None
    if expected == "survived":
        assert lives, victim.connection.reason
        assert channel is None or channel.state is not ChannelState.CLOSED or "clos" in state
    elif expected == "channel 1 ends":
        assert lives, victim.connection.reason
        assert channel is not None
        assert channel.state in (ChannelState.CLOSED, ChannelState.CLOSING)
    reason = victim.finish()
    assert set(victim.witness.bodies) <= {b"good", b""}
    if isinstance(expected, int):
        assert type(reason) is ProtocolError
        assert reason.code == expected
    elif isinstance(expected, type):
        assert type(reason) is expected


def test_a_peer_that_begins_and_stops_is_left_in_time() -> None:
    victim = STATES["starting"]()
    victim.feed(b"\x01")
    victim.advance(11)
    assert type(victim.finish()) is HandshakeTimeout


@pytest.mark.parametrize("answer", ["basic.cancel-ok", "basic.consume-ok"])
def test_an_answer_about_another_consumer_is_503_and_ends_none(answer: str) -> None:
    victim = states.consuming()
    channel = victim.channels[0]
    victim.consume(channel, "other")
    if answer == "basic.cancel-ok":
        victim.ask(channel.basic_cancel, "tag")
    else:
        channel.basic_consume("queue", print, consumer_tag="mine")
    victim.feed(method_frame(1, answer, "other"), deliver(1, "other", 8, b"late"))
    reason = victim.finish()
    assert type(reason) is ProtocolError
    assert reason.code == 503
    assert victim.witness.bodies == [b"good"] * 2
