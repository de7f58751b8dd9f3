"""Connections: the handshake, permissions, broken frames, and both ways of closing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from evamqp.codec.fields import encode_table
from evamqp.codec.frames import body_frames, content_header_frame, frame, method_frame
from evamqp.codec.properties import Properties
from tests.behaviour.client import CLIENT_PROPERTIES, FRAME_MAX, HungUp, Refused
from tests.behaviour.rig import Rig

HANGS_UP = (HungUp, ConnectionError)
LOGIN_REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the"
    " broker logfile."
)
# Bytes that break the protocol, and what is said of them.
BROKEN: list[tuple[bytes, int, str, tuple[int, int]]] = [
    (
        bytes.fromhex("01 0001 00000004 00140028 cd"),
        501,
        "FRAME_ERROR - type 1, all octets = <<0,20,0,40>>: {invalid_frame_end_marker,205}",
        (0, 0),
    ),
    (
        bytes.fromhex("05 0001 00000004 00140028 ce"),
        501,
        "FRAME_ERROR - type 5, all octets = <<0,20,0,40>>: unknown_frame",
        (0, 0),
    ),
    (
        bytes.fromhex("01 0001 00100000 00140028 ce"),
        501,
        "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,1048576,131064}",
        (0, 0),
    ),
    (
        bytes.fromhex("01 0001 00000005 003c000a00 ce"),
        501,
        "FRAME_ERROR - cannot decode <<0>>",
        (60, 10),
    ),
    (frame(8, 1, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", (0, 0)),
    (
        content_header_frame(1, b"\0\0", 3),
        505,
        "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
        (0, 0),
    ),
    (
        b"".join(body_frames(1, b"abc", FRAME_MAX)),
        505,
        "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
        (0, 0),
    ),
]
NO_HEADER = (
    505,
    (
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame"
        " instead"
    ),
)
# What may not follow basic.publish.
INTERRUPTED: list[tuple[bytes, Mapping[str, tuple[int, str]]]] = [
    (frame(1, 1, bytes.fromhex("003c000a 00000000 0000 00")), {"3.8": NO_HEADER}),
    (b"".join(body_frames(1, b"abc", FRAME_MAX)), {"3.8": NO_HEADER}),
    (
        bytes.fromhex("02 0001 0000000e 0032 0000 0000000000000001 0000 ce"),
        {
            "3.8": (
                505,
                (
                    "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50"
                    " instead"
                ),
            )
        },
    ),
    (
        content_header_frame(1, b"\0\0", 1) + b"".join(body_frames(1, b"abc", FRAME_MAX)),
        {
            "3.8": (
                505,
                "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
            ),
            "4.3": (501, "FRAME_ERROR - content body frame exceeds remaining content size"),
        },
    ),
]


def test_broker_introduces_itself(rig: Rig) -> None:
    client = rig.connect()
    assert set(client.mechanisms.split()) >= {b"PLAIN", b"AMQPLAIN"}
    assert client.tune == (2047, 131072, 60)
    capabilities = client.server_properties["capabilities"]
    assert all(
        capabilities[name] is True
        for name in (
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "consumer_priorities",
            "direct_reply_to",
            "exchange_exchange_bindings",
            "per_consumer_qos",
            "publisher_confirms",
        )
    )


def test_amqplain_logs_in(rig: Rig) -> None:
    response = encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]
    rig.connect(mechanism="AMQPLAIN", response=response).call(1, "channel.open")


def test_secret_may_be_updated(rig: Rig) -> None:
    rig.connect().call(0, "connection.update-secret", b"guest", "because")


@pytest.mark.parametrize(("user", "password"), [("guest", "wrong"), ("nobody", "guest")])
def test_wrong_login_is_403(rig: Rig, user: str, password: str) -> None:
    with pytest.raises(Refused) as refused:
        rig.connect(user=user, password=password)
    assert refused.value.args == (403, LOGIN_REFUSED.format("PLAIN"))
    assert refused.value.ids == (0, 0)


def test_unknown_vhost_is_530(rig: Rig) -> None:
    with pytest.raises(Refused) as refused:
        rig.dial().open("no such vhost")
    assert refused.value.args == (530, "NOT_ALLOWED - vhost no such vhost not found")
    assert refused.value.ids == (10, 40)


def test_unacceptable_limits_end_without_a_word(rig: Rig) -> None:
    smallest = rig.answer({"3.8": 4096, "4.3": 8192})
    rig.connect(frame_max=smallest)
    for frame_max in (smallest - 1, FRAME_MAX + 1):
        with pytest.raises(HANGS_UP):
            rig.connect(frame_max=frame_max)


@pytest.mark.parametrize(("data", "code", "text", "ids"), BROKEN)
def test_broken_frame_ends_the_connection(
    rig: Rig, data: bytes, code: int, text: str, ids: tuple[int, int]
) -> None:
    client = rig.open()
    client.send_raw(data)
    refused = client.closed()
    assert refused.args == (code, text)
    assert refused.ids == ids
    assert refused.is_hard


@pytest.mark.parametrize(("data", "answers"), INTERRUPTED)
def test_publish_that_is_interrupted_ends_the_connection(
    rig: Rig, data: bytes, answers: Mapping[str, tuple[int, str]]
) -> None:
    client = rig.open()
    client.send(1, "basic.publish", "", "k", False, False)
    client.send_raw(data)
    client.send(1, "basic.qos", 0, 0, False)  # RabbitMQ looks at a body's excess no sooner
    refused = client.closed()
    assert refused.args == rig.answer(answers)
    assert refused.ids == (60, 40)


def test_unknown_method_ends_without_a_word(rig: Rig) -> None:
    client = rig.open()
    client.send_raw(frame(1, 1, bytes.fromhex("00c80001")))
    assert client.at_end()


@pytest.mark.parametrize(
    ("channel", "method", "arguments", "text", "ids"),
    [
        (1, "channel.open", (), "second 'channel.open' seen", (20, 10)),
        (2, "basic.qos", (0, 0, False), "expected 'channel.open'", (60, 10)),
        (
            0,
            "basic.qos",
            (0, 0, False),
            "unexpected method in connection state running",
            (60, 10),
        ),
        (
            0,
            "connection.open",
            ("/",),
            "unexpected method in connection state running",
            (10, 40),
        ),
    ],
)
def test_method_in_the_wrong_place_is_504(
    rig: Rig, channel: int, method: str, arguments: tuple[Any, ...], text: str, ids: tuple[int, int]
) -> None:
    client = rig.open()
    client.send(channel, method, *arguments)
    refused = client.closed()
    assert refused.args == (504, f"CHANNEL_ERROR - {text}")
    assert refused.ids == ids


def test_method_of_the_server_is_503(rig: Rig) -> None:
    client = rig.open()
    client.send(1, "basic.qos-ok")
    refused = client.closed()
    assert refused.args == (503, "COMMAND_INVALID - unimplemented method")
    assert refused.ids == (60, 11)


def test_after_a_refusal_a_channel_answers_nothing_and_its_number_is_free(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.send(1, "basic.get", "nope", True)
    client.put("q", b"lost")
    client.send(1, "basic.get", "q", True)
    assert client.closed(1).code == 404
    client.call(1, "channel.open")
    assert client.get("q") is None
    assert not client.events


def test_other_channels_live_on(rig: Rig) -> None:
    client = rig.open()
    client.call(2, "channel.open")
    client.refused(1, "basic.get", "nope", True)
    client.call(2, "queue.declare", "q", False, True, False, False, False, {})


def test_operator_closes_connections_with_320(rig: Rig) -> None:
    client = rig.open()
    rig.broker.sleep(0.5)  # RabbitMQ's operator sees a new connection a little later
    rig.broker.close_connections("because")
    refused = client.closed()
    assert refused.args == (320, "CONNECTION_FORCED - because")
    assert refused.ids == (0, 0)


def test_silent_broker_sends_heartbeats(rig: Rig) -> None:
    client = rig.connect(heartbeat=1)
    assert client.expect("heartbeat").channel == 0
    client.send_raw(frame(8, 0, b""))
    assert client.expect("heartbeat").channel == 0


def test_silent_client_is_cut_off(rig: Rig) -> None:
    client = rig.connect(heartbeat=1)
    assert client.beats_until_end() >= 1


def test_restart_keeps_durable_things_and_persistent_messages(rig: Rig) -> None:
    client = rig.open()
    client.confirm()
    client.declare_exchange("kept", "fanout", durable=True)
    client.declare_exchange("lost", "fanout")
    client.declare_queue("durable", durable=True)
    transients = rig.answer({"3.8": ["transient"], "4.0": []})  # there are none any more
    for queue in transients:
        client.declare_queue(queue, durable=False)
    client.declare_queue("mine", durable=True, exclusive=True)
    for exchange in ("kept", "lost"):
        client.bind("durable", exchange)
    for number in range(4):
        mode = 1 if number == 1 else 2
        client.put("", b"%d" % number, Properties(delivery_mode=mode), exchange="kept")
    client.confirms(4)
    client.got("durable", no_ack=False)
    rig.broker.restart()
    refused = client.closed()
    text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
    assert refused.args == (320, text)
    client = rig.open()
    assert client.holds("durable", 3)
    events = [client.got("durable") for _ in range(3)]
    assert [(event.body, event["redelivered"]) for event in events] == [
        (b"0", True),
        (b"2", False),
        (b"3", False),
    ]
    client.put("", b"still bound", exchange="kept")
    assert client.got("durable").body == b"still bound"
    for number, queue in enumerate((*transients, "mine"), start=2):
        client.call(number, "channel.open")
        refused = client.refused(
            number, "queue.declare", queue, True, False, False, False, False, {}
        )
        assert refused.code == 404
    client.put("", b"to lost", exchange="lost")
    # RabbitMQ 4.3 forgets neither a transient exchange nor its bindings.
    if rig.answer({"3.8": False, "4.3": True}):
        assert client.got("durable").body == b"to lost"
    else:
        assert client.refusal().code == 404


# Permissions


def test_user_without_permissions_may_not_enter(rig: Rig) -> None:
    rig.broker.add_user("outside", "secret")
    with pytest.raises(Refused) as refused:
        rig.connect(user="outside", password="secret")
    text = f"NOT_ALLOWED - access to vhost '{rig.vhost}' refused for user 'outside'"
    assert refused.value.args == (530, text)


def test_user_is_held_to_its_permissions(rig: Rig) -> None:
    rig.broker.add_user("low", "secret", "^c", "^w", "^r")
    owner = rig.open()
    for name in ("cq", "wq", "rq", "nq"):
        owner.declare_queue(name)
    for name in ("rx", "nx"):
        owner.declare_exchange(name)
    nothing: dict[str, Any] = {}
    cases: list[tuple[str, tuple[Any, ...], str]] = [  # what is refused, access to what
        ("queue.declare", ("nq", *[False] * 5, nothing), "configure access to queue 'nq'"),
        # 4.3 asks for one of the three, whichever it is.
        (
            "queue.declare",
            ("nq", True, *[False] * 4, nothing),
            rig.answer({"3.8": "", "4.3": "configure access to queue 'nq'"}),
        ),
        ("queue.declare", ("rq", True, *[False] * 4, nothing), ""),
        ("queue.delete", ("missing", False, False, False), "configure access to queue 'missing'"),
        ("basic.get", ("wq", True), "read access to queue 'wq'"),
        ("basic.get", ("rq", True), ""),
        (
            "basic.consume",
            ("nq", "", False, True, False, False, nothing),
            "read access to queue 'nq'",
        ),
        ("queue.purge", ("nq", False), "read access to queue 'nq'"),
        ("queue.bind", ("nq", "rx", "", False, nothing), "write access to queue 'nq'"),
        ("queue.bind", ("wq", "nx", "", False, nothing), "read access to exchange 'nx'"),
        ("queue.bind", ("wq", "rx", "", False, nothing), ""),
        (
            "exchange.declare",
            ("nx", "direct", False, False, False, False, False, nothing),
            "configure access to exchange 'nx'",
        ),
        (
            "queue.declare",
            ("cq2", False, False, False, False, False, {"x-dead-letter-exchange": "nx"}),
            "read access to queue 'cq2'",
        ),
        (
            "exchange.declare",
            ("cx", "direct", False, False, False, False, False, {"alternate-exchange": "nx"}),
            "read access to exchange 'cx'",
        ),
    ]
    client = rig.connect(user="low", password="secret")
    for number, (method, arguments, what) in enumerate(cases, start=1):
        client.call(number, "channel.open")
        if not what:
            client.call(number, method, *arguments)
            continue
        refused = client.refused(number, method, *arguments)
        told = rig.answer({"3.8": what.partition(" ")[2], "4.0": what})
        text = f"ACCESS_REFUSED - {told} in vhost '{rig.vhost}' refused for user 'low'"
        assert refused.args == (403, text), method


@pytest.mark.parametrize(("exchange", "shown"), [("", "amq.default"), ("nope", "nope")])
def test_publish_needs_permission_to_write(rig: Rig, exchange: str, shown: str) -> None:
    rig.broker.add_user(f"reader{len(exchange)}", "secret", "", "", ".*")
    client = rig.open(user=f"reader{len(exchange)}", password="secret")
    client.put("k", b"", exchange=exchange)
    refused = client.refusal()
    assert refused.code == 403
    access = rig.answer({"3.8": "access", "4.0": "write access"})
    assert f"ACCESS_REFUSED - {access} to exchange '{shown}' in vhost" in refused.text


def test_client_of_no_capabilities_is_refused_without_a_word(rig: Rig) -> None:
    properties = {**CLIENT_PROPERTIES, "capabilities": {}}
    with pytest.raises(HANGS_UP):
        rig.connect(user="guest", password="wrong", properties=properties)


NAMED_IN_BYTES = {
    "queue.declare": "0032000a 0000 01ff 00 00000000",
    "passive declare": "0032000a 0000 01ff 01 00000000",
    "exchange.declare": "0028000a 0000 01ff 0161 00 00000000",
    "exchange type": "0028000a 0000 0161 01ff 00 00000000",
    "queue.bind": "00320014 0000 0171 0a616d712e646972656374 01ff 00 00000000",
    "basic.consume": "003c0014 0000 0171 01ff 00 00000000",
    "basic.get": "003c0046 0000 01ff 00",
    "basic.cancel": "003c001e 01ff 00",
}


@pytest.mark.parametrize("method", NAMED_IN_BYTES)
def test_name_that_is_no_utf8_is_501(rig: Rig, method: str) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.send_raw(frame(1, 1, bytes.fromhex(NAMED_IN_BYTES[method])))
    refused = client.closed()
    assert refused.args == (501, "FRAME_ERROR - Malformed UTF-8 in shortstr")
    assert refused.ids == (0, 0)


def test_publish_may_name_what_is_no_utf8(rig: Rig) -> None:
    client = rig.open()
    client.put("\udcff", b"", mandatory=True)
    assert client.expect("basic.return")["routing_key"] == "\udcff"
    client.put("k", b"", exchange="\udcff")
    shown = rig.answer({"3.8": "\udcff", "4.0": "\xff"})
    text = f"NOT_FOUND - no exchange '{shown}' in vhost '{rig.vhost}'"
    assert client.refusal().args == (404, text)


def test_long_refusal_is_cut(rig: Rig) -> None:
    name = "n" * 250
    refused = rig.open().refused(1, "queue.declare", name, True, False, False, False, False, {})
    assert refused.text == f"NOT_FOUND - no queue '{name}"[:252] + "..."


@pytest.mark.parametrize("has_consumer", [False, True])
def test_cancel_ok_is_no_answer_to_give_before_4_3(rig: Rig, has_consumer: bool) -> None:
    client = rig.open()
    client.declare_queue("q")
    if has_consumer:
        client.consume("q", "t")
    client.send(1, "basic.cancel-ok", "t")
    unimplemented = (503, "COMMAND_INVALID - unimplemented method", (60, 31))
    unknown = None if has_consumer else (541, "INTERNAL_ERROR", (0, 0))
    answer = rig.answer({"3.8": unimplemented, "4.3": unknown})
    if answer is None:
        client.qos(0)
        return
    refused = client.closed()
    assert (*refused.args, refused.ids) == answer


def test_cancel_right_behind_its_consume_ends_the_connection_before_4_3(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.send_raw(
        method_frame(1, "basic.consume", "q", "t", False, False, False, False, {})
        + method_frame(1, "basic.cancel", "t", False)
    )
    answer = rig.answer({"3.8": (541, "INTERNAL_ERROR", (0, 0)), "4.3": None})
    if answer is None:
        client.wait_for(1, "basic.cancel-ok")
        return
    refused = client.closed()
    assert (*refused.args, refused.ids) == answer


def test_cancel_once_the_consumer_is_there_is_answered(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.consume("q", "t")
    assert client.call(1, "basic.cancel", "t", False).arguments == ("t",)


def test_cancel_ok_for_a_deleted_queue_ends_the_connection(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.consume("q", "t")
    rig.open().delete_queue("q")
    assert client.expect("basic.cancel").arguments == ("t", True)
    client.send(1, "basic.cancel-ok", "t")
    assert client.closed().code == rig.answer({"3.8": 503, "4.3": 541})


def test_access_tickets_are_handed_out(rig: Rig) -> None:
    client = rig.open()
    client.send_raw(frame(1, 1, bytes.fromhex("001e000a 012f 1f")))
    assert client.raw_frame() == (1, 1, bytes.fromhex("001e000b 0001"))
    client.send_raw(frame(1, 1, bytes.fromhex("001e000a 012f")))
    refused = client.closed()
    assert refused.args == (501, "FRAME_ERROR - cannot decode <<1,47>>")
    assert refused.ids == (30, 10)


def test_socket_stays_open_after_close_ok(rig: Rig) -> None:
    client = rig.open()
    client.call(0, "connection.close", 200, "bye", 0, 0)
    assert client.is_silent(0.5)


def test_nothing_is_delivered_after_close(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    for _ in range(10):
        client.put("q")
    client.consume("q")
    client.deliveries(10)
    client.call(2, "channel.open")
    client.call(2, "basic.consume", "q", "greedy", False, True, False, False, {})
    client.call(0, "connection.close", 200, "bye", 0, 0)
    assert not client.events
    assert client.is_silent(0.2)
