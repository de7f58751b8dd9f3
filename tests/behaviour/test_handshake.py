"""The handshake: protocol headers, what the broker says of itself, and limits agreed on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from evamqp.codec.fields import encode_table
from evamqp.codec.frames import FRAME_METHOD, PROTOCOL_HEADER, content_header_frame, frame
from evamqp.codec.properties import Properties
from tests.behaviour.client import Client, HungUp
from tests.behaviour.rig import Rig
from tests.behaviour.versions import parse_version

HANGS_UP = (HungUp, ConnectionError)
OLD_HEADER = b"AMQP\1\1\0\x09"
HEADERS_0_8 = (b"AMQP\1\1\x08\0", b"AMQP\1\1\x09\1")
OFFERS: Mapping[str, bytes] = {"3.8": PROTOCOL_HEADER, "4.0": b"AMQP\3\1\0\0"}
# Protocol headers that are not taken, and what they are answered.
WRONG_HEADERS: list[tuple[bytes, Mapping[str, bytes]]] = [
    (b"AMQP\0\1\0\0", OFFERS),
    (b"AMQP\1\1\0\x08", OFFERS),
    (b"AMQP\0\0\x08\0", OFFERS),
    (b"GET / HT", OFFERS),
    (b"AMQP\0\0\x09\0", {"3.8": PROTOCOL_HEADER}),
    *((header, {"3.8": b"", "4.0": OFFERS["4.0"]}) for header in HEADERS_0_8),
]


def test_old_protocol_header_opens_the_same_protocol(rig: Rig) -> None:
    client = rig.connect(header=OLD_HEADER)
    client.call(1, "channel.open")
    client.declare_queue("q")
    client.put("q", b"m")
    assert client.got("q").body == b"m"


@pytest.mark.parametrize(("header", "answers"), WRONG_HEADERS)
def test_header_that_is_not_taken_is_answered_by_one_that_is(
    rig: Rig, header: bytes, answers: Mapping[str, bytes]
) -> None:
    answer = rig.answer(answers)
    wire = rig.broker.connect()
    wire.send(header)
    if answer:
        assert wire.receive(5.0) == answer
        with pytest.raises(HANGS_UP):
            Client(wire).expect("connection.start")
    wire.close()


@pytest.mark.parametrize("header", HEADERS_0_8)
def test_amqp_0_8_is_spoken_until_4_0(rig: Rig, header: bytes) -> None:
    if rig.answer({"3.8": False, "4.0": True}):
        return  # the law before this one says what happens
    client = rig.dial()
    client.send_raw(header)
    start = client.expect("connection.start")
    assert start.arguments[:2] == (8, 0)
    assert start["server_properties"]["capabilities"] == {}
    login = encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]
    client.send(0, "connection.start-ok", {}, "AMQPLAIN", login, "en_US")
    client.expect("connection.tune")
    client.send(0, "connection.tune-ok", 10, 131072, 0)
    client.call(0, "connection.open", rig.vhost)
    client.send(1, "channel.open")
    assert client.raw_frame() == (FRAME_METHOD, 1, bytes.fromhex("0014000b"))  # no argument
    client.declare_queue("q")
    client.send_raw(frame(FRAME_METHOD, 1, b"\0\x3c\0\x14\0\0\1q\1t\2"))  # no arguments either
    assert client.expect("basic.consume-ok")["consumer_tag"] == "t"
    client.put("q", b"m")
    assert client.deliveries(1)[0].body == b"m"
    client.send_raw(frame(FRAME_METHOD, 0, b"\0\x0a\0\x3c\0\xc8\0\0\0\0\0"))  # close is 60 there
    assert client.raw_frame() == (FRAME_METHOD, 0, bytes.fromhex("000a003d"))
    client.drop()


def test_broker_says_that_it_is_rabbitmq(rig: Rig) -> None:
    properties = rig.connect().server_properties
    assert properties["product"] == "RabbitMQ"
    assert parse_version(properties["version"]) == rig.broker.version
    known = {"capabilities", "cluster_name", "information", "platform", "product", "version"}
    assert set(properties) >= known


def test_channels_beyond_channel_max_are_530(rig: Rig) -> None:
    client = rig.connect(channel_max=3)
    for number in (1, 7, 3):  # it is their count that matters
        client.call(number, "channel.open")
    client.call(7, "channel.close", 200, "", 0, 0)
    client.call(2, "channel.open")
    refused = client.refused(7, "channel.open")
    text = "number of channels opened (3) has reached the negotiated channel_max (3)"
    assert refused.args == (530, f"NOT_ALLOWED - {text}")
    assert refused.ids == (0, 0)
    assert refused.is_hard


@pytest.mark.parametrize("kind", ["body", "header", "method"])
@pytest.mark.parametrize("excess", [0, 8, 9])
def test_frame_may_be_eight_bytes_above_frame_max(rig: Rig, kind: str, excess: int) -> None:
    frame_max = rig.answer({"3.8": 4096, "4.3": 8192})
    client = rig.open(frame_max=frame_max)
    client.declare_queue("q")
    size = frame_max - 8 + excess  # of the payload
    if kind == "body":
        client.send(1, "basic.publish", "", "q", False, False)
        client.send_raw(content_header_frame(1, b"\0\0", size))
        client.send_raw(frame(3, 1, b"x" * size))
    elif kind == "header":
        empty = len(Properties(headers={"x": ""}).raw) + 12
        client.put("q", b"", Properties(headers={"x": "y" * (size - empty)}))
    else:
        empty = len(encode_table({"x": ""})) + 4 + 2 + 2 + 1
        arguments = {"x": "y" * (size - empty)}
        client.send(1, "queue.declare", "q", False, True, False, False, False, arguments)
        if excess < 9:
            client.expect("queue.declare-ok")
    if excess < 9:
        assert client.holds("q", 0 if kind == "method" else 1)
        return
    number = {"method": 1, "header": 2, "body": 3}[kind]
    refused = client.closed()
    text = f"type {number}, all octets = <<>>: {{frame_too_large,{size},{frame_max - 8}}}"
    assert refused.args == (501, f"FRAME_ERROR - {text}")
    assert refused.ids == (0, 0)
