"""Publishing: confirms, returns, transactions, and what ends the channel instead."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from evamqp.codec.frames import body_frames, content_header_frame
from evamqp.codec.properties import Properties
from tests.behaviour.client import FRAME_MAX, raw_headers
from tests.behaviour.rig import Rig

# What is wrong with an expiration; None from releases that take it.
EXPIRATIONS: list[tuple[str, Mapping[str, str | None]]] = [
    ("abc", {"3.8": "no_integer"}),
    ("", {"3.8": "no_integer"}),
    (" 5", {"3.8": "no_integer"}),
    ("-5", {"3.8": "{value_negative,-5}"}),
    ("12.5", {"3.8": '{leftover_string,".5"}'}),
    ("99999999999999", {"3.8": None, "3.10": "{value_too_large,99999999999999}"}),
]


def test_every_publish_is_confirmed(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.confirm()
    for number in range(100):
        client.put("q" if number % 2 else "nowhere", b"%d" % number)
    assert client.confirms(100) == [(True, tag) for tag in range(1, 101)]
    assert client.holds("q", 50)


def test_publishes_before_confirm_select_take_no_tag(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.put("q")
    client.confirm()
    client.put("q")
    client.confirm()  # once more changes nothing
    client.put("q")
    assert client.confirms(2) == [(True, 1), (True, 2)]


def test_old_release_counts_mandatory_publishes_before_confirm_select(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.put("q", mandatory=True)
    client.put("q")
    client.put("nowhere", mandatory=True)
    client.confirm()
    client.put("q")
    assert client.take().name == "basic.return"
    first = rig.answer({"3.8": 3, "3.10": 1})
    ack = client.take()
    assert (ack.name, *ack.arguments) == ("basic.ack", first, False)


def test_return_comes_before_its_ack_with_the_whole_message(rig: Rig) -> None:
    client = rig.open()
    client.confirm()
    properties = Properties(app_id="a", headers={"h": [1, {"b": True}]})
    client.put("nowhere", b"body", properties, mandatory=True)
    returned, ack = client.take(), client.take()
    assert returned.name == "basic.return"
    assert returned.arguments == (312, "NO_ROUTE", "", "nowhere")
    assert returned.properties == properties
    assert returned.body == b"body"
    assert (ack.name, ack["delivery_tag"]) == ("basic.ack", 1)


def test_mandatory_message_that_finds_a_queue_is_not_returned(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.put("q", b"here", mandatory=True)
    assert client.got("q").body == b"here"
    assert not client.events


@pytest.mark.parametrize("size", [0, 1, FRAME_MAX - 8, FRAME_MAX - 7, 3 * FRAME_MAX])
def test_body_of_any_size_comes_back_as_it_was(rig: Rig, size: int) -> None:
    client = rig.open()
    client.declare_queue("q")
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client.put("q", body)
    assert client.got("q").body == body


def test_body_in_frames_of_any_size_is_one_message(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.send(1, "basic.publish", "", "q", False, False)
    client.send_raw(content_header_frame(1, b"\0\0", 10))
    for piece in (b"0", b"12345", b"6789"):
        client.send_raw(b"".join(body_frames(1, piece, FRAME_MAX)))
    assert client.got("q").body == b"0123456789"


def test_properties_come_back_byte_for_byte(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    properties = Properties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={"a": 1, "b": "x", "c": [1, "2", None], "d": {"e": 1.5}, "f": b"\xff"},
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration=60000,
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        user_id="guest",
        app_id="a",
        cluster_id="",
    )
    client.put("q", b"", properties)
    received = client.got("q").properties
    assert received is not None
    assert received.raw == properties.raw


def test_publish_to_a_missing_exchange_ends_the_channel(rig: Rig) -> None:
    client = rig.open()
    client.put("k", b"", exchange="nope")
    refused = client.refusal()
    assert refused.args == (404, f"NOT_FOUND - no exchange 'nope' in vhost '{rig.vhost}'")
    assert refused.ids == (60, 40)


@pytest.mark.parametrize(("expiration", "faults"), EXPIRATIONS)
def test_bad_expiration_is_406(rig: Rig, expiration: str, faults: Mapping[str, str | None]) -> None:
    client = rig.open()
    fault = rig.answer(faults)
    client.put("nowhere", b"", Properties(expiration=expiration))
    if fault is None:
        client.qos(0)
        return
    refused = client.refusal()
    text = f"PRECONDITION_FAILED - invalid expiration '{expiration}': {fault}"
    assert refused.args == (406, text)
    assert refused.ids == (60, 40)


def test_foreign_user_id_is_406(rig: Rig) -> None:
    client = rig.open()
    client.put("nowhere", b"", Properties(user_id="other"))
    text = (
        "PRECONDITION_FAILED - user_id property set to 'other' but authenticated user was 'guest'"
    )
    assert client.refusal().args == (406, text)


def test_immediate_is_540(rig: Rig) -> None:
    client = rig.open()
    client.put("nowhere", b"", immediate=True)
    refused = client.refusal()
    assert refused.args == (540, "NOT_IMPLEMENTED - immediate=true")
    assert refused.is_hard


def test_transaction_publishes_and_returns_at_commit(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.call(1, "tx.select")
    client.call(1, "tx.select")
    client.put("q", b"one")
    client.put("nowhere", b"two", mandatory=True)
    assert client.get("q") is None
    assert not client.events
    client.call(1, "tx.commit")
    assert client.got("q").body == b"one"
    assert client.expect("basic.return").body == b"two"


def test_transaction_forgets_at_rollback(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.call(1, "tx.select")
    client.put("q", b"one")
    client.call(1, "tx.rollback")
    client.call(1, "tx.commit")
    assert client.get("q") is None


def test_transaction_acks_at_commit(rig: Rig) -> None:
    client, other = rig.open(), rig.open()
    client.declare_queue("q")
    for body in (b"one", b"two"):
        client.put("q", body)
    client.call(1, "tx.select")
    one, two = client.got("q", no_ack=False), client.got("q", no_ack=False)
    client.ack(one)
    client.call(1, "tx.commit")
    client.ack(two)
    client.call(1, "tx.rollback")
    client.call(1, "channel.close", 200, "", 0, 0)
    again = other.got("q")
    assert again.body == b"two"
    assert again["redelivered"]
    assert other.get("q") is None


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("tx.commit", "channel is not transactional"),
        ("tx.rollback", "channel is not transactional"),
    ],
)
def test_end_of_no_transaction_is_406(rig: Rig, method: str, text: str) -> None:
    refused = rig.open().refused(1, method)
    assert refused.args == (406, f"PRECONDITION_FAILED - {text}")


def test_confirms_and_transactions_exclude_each_other(rig: Rig) -> None:
    client = rig.open()
    client.call(2, "channel.open")
    client.confirm()
    client.call(2, "tx.select")
    first = client.refused(1, "tx.select")
    assert first.args == (406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode")
    second = client.refused(2, "confirm.select", False)
    assert second.args == (406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")


def test_alarm_blocks_whoever_publishes(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.confirm()
    rig.broker.set_alarm(True)
    client.put("q", b"one")
    assert client.expect("connection.blocked").channel == 0
    client.put("q", b"two")
    rig.broker.set_alarm(False)
    client.expect("connection.unblocked")
    assert client.confirms(2) == [(True, 1), (True, 2)]
    assert client.bodies("q") == [b"one", b"two"]


# Bytes of properties that make no sense.
MALFORMED = [
    b"",
    b"\x80",
    b"\x80\0\5ab",
    b"\x08\0",
    b"\x20\0\0\0\0\x20\1a",
    b"\x20\0\0\0\0\3\1aZ",
    b"\x20\0\0\0\0\4\1at\1\1\1",
    b"\x20\0\0\0\0\x0b\1aF\0\0\0\4\1bt\1\1",
    b"\x20\0\0\0\0\7\1af\x7f\xc0\0\0",
    b"\0\0xyz",
    b"\0\1\0\0",
    b"\0\2\1a",
]
# What is strange, and taken and delivered as it is.
STRANGE = [
    b"\0\2",
    b"\x80\0\1\xff",
    b"\2\0\1\xff",
    b"\0\x40" + b"\xff" * 8,
    b"\x20\0\0\0\0\4\1\xfft\1",
]


@pytest.mark.parametrize("properties", MALFORMED)
def test_malformed_properties_are_541(rig: Rig, properties: bytes) -> None:
    client = rig.open()
    client.publish_raw(1, "", "nowhere", properties)
    refused = client.closed()
    assert refused.args == (541, "INTERNAL_ERROR")
    assert refused.ids == (0, 0)
    assert refused.is_hard


@pytest.mark.parametrize("properties", STRANGE)
def test_strange_properties_are_delivered_as_they_are(rig: Rig, properties: bytes) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.publish_raw(1, "", "q", properties)
    received = client.got("q").properties
    assert received is not None
    assert received.raw[2:] == properties[2:]


def test_number_of_the_kind_l_may_be_spelt_otherwise_since_4_0(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    number = b"\0" * 8
    client.publish_raw(1, "", "q", raw_headers(b"\1aL" + number))
    received = client.got("q").properties
    assert received is not None
    kind = rig.answer({"3.8": b"L", "4.0": b"l"})
    assert received.raw == raw_headers(b"\1a" + kind + number)


def test_headers_may_be_nested_deeply(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    table = b""
    for _ in range(3000):
        table = b"\1aF" + len(table).to_bytes(4, "big") + table
    client.publish_raw(1, "", "q", raw_headers(table))
    received = client.got("q").properties
    assert received is not None
    assert received.raw == raw_headers(table)


@pytest.mark.parametrize("mode", [0, 3])
def test_delivery_mode_of_no_meaning_is_406_until_4_0(rig: Rig, mode: int) -> None:
    client = rig.open()
    client.publish_raw(1, "", "nowhere", b"\x10\0" + bytes((mode,)))
    if rig.answer({"3.8": False, "4.0": True}):
        client.qos(0)
        return
    refused = client.refusal()
    text = f"invalid message: {{delivery_mode_unknown,{mode}}}"
    assert refused.args == (406, f"PRECONDITION_FAILED - {text}")
    assert refused.ids == (60, 40)


def test_headers_are_sorted_since_4_0_in_returns_too(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    headers = (b"\1zb\1", b"\1yB\2", b"\1as\0\3", b"\1zb\7")
    kept = {"3.8": raw_headers(*headers), "4.0": raw_headers(headers[2], headers[1], headers[0])}
    client.publish_raw(1, "", "q", raw_headers(*headers))
    received = client.got("q").properties
    assert received is not None
    assert received.raw == rig.answer(kept)
    client.put("nowhere", b"", Properties.from_raw(raw_headers(*headers)), mandatory=True)
    returned = client.expect("basic.return").properties
    assert returned is not None
    assert returned.raw == rig.answer(kept)


def test_transaction_routes_when_it_publishes(rig: Rig) -> None:
    client, other = rig.open(), rig.open()
    client.declare_queue("q")
    client.declare_queue("late")
    client.declare_exchange("x", "fanout")
    client.bind("q", "x")
    client.call(1, "tx.select")
    client.put("k", b"one", exchange="x")
    other.bind("late", "x")
    other.call(1, "exchange.delete", "x", False, False)
    client.call(1, "tx.commit")
    assert client.bodies("q") == [b"one"]
    assert client.bodies("late") == []


def test_transaction_whose_queue_went(rig: Rig) -> None:
    client, other = rig.open(), rig.open()
    client.declare_queue("q")
    client.call(1, "tx.select")
    client.put("q", b"one", mandatory=True)
    other.delete_queue("q")
    text = f'{{not_found,{{resource,<<"{rig.vhost}">>,queue,<<"q">>}}}}'
    answer = rig.answer(
        {
            "3.8": None,
            "4.0": (406, "PRECONDITION_FAILED - partial tx completion"),
            "4.3": (506, f"RESOURCE_ERROR - failed to deliver message: {text}"),
        }
    )
    if answer is None:
        client.call(1, "tx.commit")
        assert client.expect("basic.return").body == b"one"
        return
    refused = client.refused(1, "tx.commit")
    text = "".join(refused.text.split())  # 4.3 breaks the line by the length of the name
    assert (refused.code, text) == (answer[0], "".join(answer[1].split()))
    assert refused.ids == (90, 20)


def test_transaction_to_a_queue_yet_to_come(rig: Rig) -> None:
    client, other = rig.open(), rig.open()
    client.call(1, "tx.select")
    client.put("q", b"one", mandatory=True)
    other.declare_queue("q")
    client.call(1, "tx.commit")
    if rig.answer({"3.8": True, "4.0": False}):
        assert client.got("q").body == b"one"
    else:
        assert client.expect("basic.return").body == b"one"
