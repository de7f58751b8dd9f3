"""Consuming: who gets what and when, settling, requeueing, cancelling."""

from __future__ import annotations

from typing import Any

import pytest

from tests.behaviour.client import CLIENT_PROPERTIES, Event, Refused
from tests.behaviour.rig import Rig, Talker


def bodies(events: list[Event]) -> list[bytes]:
    return [event.body for event in events]


@pytest.fixture
def client(rig: Rig) -> Talker:
    """A client with a queue of four messages, ``0`` to ``3``."""
    client = rig.open()
    client.declare_queue("q")
    for number in range(4):
        client.put("q", b"%d" % number)
    return client


def test_consumer_gets_what_is_ready_and_what_comes(client: Talker) -> None:
    tag = client.consume("q", "mine")
    client.put("q", b"4")
    events = client.deliveries(5)
    assert tag == "mine"
    assert bodies(events) == [b"0", b"1", b"2", b"3", b"4"]
    assert [event.arguments for event in events] == [
        ("mine", number, False, "", "q") for number in range(1, 6)
    ]


def test_broker_makes_a_consumer_tag(client: Talker) -> None:
    tag = client.consume("q")
    assert tag.startswith("amq.ctag-")
    assert len(tag) == len("amq.ctag-2rMNAI0Z4tUC8z5zuoKgrA")


def test_consumer_tag_is_not_used_twice(client: Talker) -> None:
    client.consume("q", "t")
    refused = client.refused(1, "basic.consume", "q", "t", False, False, False, False, {})
    assert refused.args == (530, "NOT_ALLOWED - attempt to reuse consumer tag 't'")
    assert refused.is_hard


def test_get_counts_what_is_left(client: Talker) -> None:
    events = [client.got("q") for _ in range(4)]
    assert [event["message_count"] for event in events] == [3, 2, 1, 0]
    assert [event["delivery_tag"] for event in events] == [1, 2, 3, 4]
    assert client.get("q") is None


def test_consumers_take_turns(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    for tag in ("a", "b", "c"):
        client.consume("q", tag, no_ack=True)
    for number in range(6):
        client.put("q", b"%d" % number)
    tags = [event["consumer_tag"] for event in client.deliveries(6)]
    assert sorted(tags[:3]) == sorted(tags[3:]) == ["a", "b", "c"]
    assert tags[:3] == tags[3:]


def test_prefetch_holds_back_until_acks_come(client: Talker) -> None:
    client.qos(2)
    client.consume("q")
    first, _ = client.deliveries(2)
    assert client.silent("q", 2)
    client.ack(first)
    (third,) = client.deliveries(1)
    assert third.body == b"2"
    client.ack(third, multiple=True)
    assert bodies(client.deliveries(1)) == [b"3"]


def test_prefetch_is_of_each_new_consumer(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.qos(1)
    client.consume("q", "one")
    client.qos(2)
    client.consume("q", "two")
    for _ in range(5):
        client.put("q")
    tags = [event["consumer_tag"] for event in client.deliveries(3)]
    assert sorted(tags) == ["one", "two", "two"]
    assert client.silent("q", 2)


def test_prefetch_across_the_channel_is_shared_until_4_3(client: Talker, rig: Rig) -> None:
    is_shared = rig.answer({"3.8": True, "4.3": False})  # else each new consumer has its own
    client.qos(3, across_channel=True)
    client.consume("q", "one")
    client.declare_queue("r")
    client.put("r", b"other")
    client.consume("r", "two")
    events = client.deliveries(3 if is_shared else 4)
    assert client.silent("q", 1)
    client.ack(events[2], multiple=True)
    rest = [b"3", b"other"] if is_shared else [b"3"]
    assert sorted(bodies(client.deliveries(len(rest)))) == rest


def test_prefetch_does_not_count_what_needs_no_ack_nor_get(client: Talker) -> None:
    client.qos(1, across_channel=True)
    client.got("q", no_ack=False)
    client.consume("q", no_ack=True)
    assert bodies(client.deliveries(3)) == [b"1", b"2", b"3"]


def test_prefetch_size_is_540(client: Talker) -> None:
    refused = client.refused(1, "basic.qos", 5, 1, False)
    assert refused.args == (540, "NOT_IMPLEMENTED - prefetch_size!=0 (5)")
    assert refused.is_hard


def test_requeued_messages_come_again_in_their_old_order(client: Talker) -> None:
    events = [client.got("q", no_ack=False) for _ in range(3)]
    client.nack(events[1])
    client.reject(events[2])
    client.nack(events[0])
    again = [client.got("q") for _ in range(4)]
    assert bodies(again) == [b"0", b"1", b"2", b"3"]
    assert [event["redelivered"] for event in again] == [True, True, True, False]


def test_rejected_message_without_requeue_is_gone(client: Talker) -> None:
    events = [client.got("q", no_ack=False) for _ in range(4)]
    client.reject(events[0], requeue=False)
    client.nack(events[2], multiple=True, requeue=False)
    client.call(1, "channel.close", 200, "", 0, 0)
    client.call(1, "channel.open")
    assert client.bodies("q") == [b"3"]


def test_tag_zero_with_multiple_settles_everything(client: Talker) -> None:
    client.consume("q")
    client.deliveries(4)
    client.send(1, "basic.nack", 0, True, True)
    assert all(event["redelivered"] for event in client.deliveries(4))
    client.send(1, "basic.ack", 0, True)
    client.send(1, "basic.ack", 0, True)
    client.call(1, "channel.close", 200, "", 0, 0)
    client.call(1, "channel.open")
    assert client.holds("q", 0)


@pytest.mark.parametrize(
    ("method", "arguments", "ids"),
    [
        ("basic.ack", (99, False), (60, 80)),
        ("basic.ack", (99, True), (60, 80)),
        ("basic.ack", (0, False), (60, 80)),
        ("basic.nack", (99, False, True), (60, 120)),
        ("basic.reject", (99, True), (60, 90)),
    ],
)
def test_unknown_delivery_tag_is_406(
    client: Talker, method: str, arguments: tuple[int, ...], ids: tuple[int, int]
) -> None:
    client.send(1, method, *arguments)
    refused = client.refusal()
    text = f"PRECONDITION_FAILED - unknown delivery tag {arguments[0]}"
    assert refused.args == (406, text)
    assert refused.ids == ids


def test_second_ack_of_a_tag_is_406(client: Talker) -> None:
    event = client.got("q", no_ack=False)
    client.ack(event)
    client.ack(event)
    assert client.refusal().code == 406


def test_closed_channel_gives_back_what_it_held(client: Talker) -> None:
    client.consume("q")
    client.deliveries(4)
    client.call(1, "channel.close", 200, "", 0, 0)
    client.call(1, "channel.open")
    assert [event["redelivered"] for event in [client.got("q") for _ in range(4)]] == [True] * 4


def test_lost_connection_gives_back_what_it_held(client: Talker, rig: Rig) -> None:
    other = rig.open()
    client.consume("q")
    client.deliveries(4)
    client.drop()
    other.consume("q")
    events = other.deliveries(4)
    assert bodies(events) == [b"0", b"1", b"2", b"3"]
    assert all(event["redelivered"] for event in events)


def test_recover_requeues_everything(client: Talker) -> None:
    client.got("q", no_ack=False)
    client.call(1, "basic.recover", True)
    assert client.got("q")["redelivered"]
    client.got("q", no_ack=False)
    client.send(1, "basic.recover-async", True)
    assert client.got("q").body == b"1"


def test_recover_without_requeue_is_540(client: Talker) -> None:
    refused = client.refused(1, "basic.recover", False)
    assert refused.args == (540, "NOT_IMPLEMENTED - requeue=false")


def test_cancelled_consumer_keeps_what_it_holds(client: Talker) -> None:
    client.qos(2)
    tag = client.consume("q")
    events = client.deliveries(2)
    assert client.cancel(tag)["consumer_tag"] == tag
    client.ack(events[1], multiple=True)
    assert client.bodies("q") == [b"2", b"3"]


def test_cancelling_an_unknown_consumer_is_no_error(client: Talker) -> None:
    assert client.cancel("nope")["consumer_tag"] == "nope"


def test_exclusive_consumer_is_alone(client: Talker, rig: Rig) -> None:
    text = f"ACCESS_REFUSED - queue 'q' in vhost '{rig.vhost}' in exclusive use"
    client.call(2, "channel.open")
    client.call(3, "channel.open")
    client.consume("q", "first", exclusive=True)
    client.deliveries(4)
    refused = client.refused(2, "basic.consume", "q", "", False, False, False, False, {})
    assert refused.args == (403, text)
    client.cancel("first")
    client.call(2, "channel.open")
    client.number = 2
    client.consume("q", "second")
    refused = client.refused(3, "basic.consume", "q", "", False, False, True, False, {})
    assert refused.args == (403, text)


def test_consumer_of_higher_priority_is_served_first(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q")
    client.qos(2)
    client.consume("q", "low", arguments={"x-priority": -1})
    client.consume("q", "high", arguments={"x-priority": 5})
    for number in range(3):
        client.put("q", b"%d" % number)
    tags = {event.body: event["consumer_tag"] for event in client.deliveries(3)}
    assert tags == {b"0": "high", b"1": "high", b"2": "low"}


def test_bad_consumer_priority_is_406(client: Talker, rig: Rig) -> None:
    fault = rig.answer(
        {"3.8": "{unacceptable_type,longstr}", "3.10": '"expected integer, got longstr"'}
    )
    refused = client.refused(
        1, "basic.consume", "q", "", False, False, False, False, {"x-priority": "s"}
    )
    text = (
        f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '{rig.vhost}':"
        f" {fault}"
    )
    assert refused.args == (406, text)


def test_single_active_consumer_passes_on_when_it_goes(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q", arguments={"x-single-active-consumer": True})
    client.consume("q", "one", no_ack=True)
    client.consume("q", "two", no_ack=True)
    for _ in range(2):
        client.put("q")
    assert [event["consumer_tag"] for event in client.deliveries(2)] == ["one", "one"]
    client.cancel("one")
    client.put("q")
    assert client.deliveries(1)[0]["consumer_tag"] == "two"


def test_single_active_consumer_is_not_exclusive(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q", arguments={"x-single-active-consumer": True})
    refused = client.refused(1, "basic.consume", "q", "", False, False, True, False, {})
    text = f"ACCESS_REFUSED - queue 'q' in vhost '{rig.vhost}' in exclusive use"
    assert refused.args == (403, text)


def test_deleted_queue_cancels_its_consumers(client: Talker, rig: Rig) -> None:
    client.consume("q", "t", no_ack=True)
    client.deliveries(4)
    rig.open().delete_queue("q")
    event = client.expect("basic.cancel")
    assert event.arguments == ("t", True)


def test_client_that_knows_no_cancel_gets_none(rig: Rig) -> None:
    silent = {**CLIENT_PROPERTIES, "capabilities": {}}
    client = rig.open(properties=silent)
    client.declare_queue("q")
    client.declare_queue("r")
    client.consume("q", "t")
    rig.open().delete_queue("q")
    assert client.silent("r", 0)


def test_acks_of_a_deleted_queue_are_no_error(client: Talker) -> None:
    event = client.got("q", no_ack=False)
    client.declare_queue("r")
    client.delete_queue("q")
    client.ack(event)
    client.declare_queue("q")
    assert client.holds("q", 0)


def test_flow_may_only_be_on(client: Talker) -> None:
    assert client.call(1, "channel.flow", True)["active"]
    refused = client.refused(1, "channel.flow", False)
    assert refused.args == (540, "NOT_IMPLEMENTED - active=false")


def test_nothing_is_answered_to_no_wait(client: Talker) -> None:
    client.send(1, "queue.declare", "silent", False, True, False, False, True, {})
    client.send(1, "queue.bind", "silent", "amq.fanout", "", True, {})
    client.send(1, "basic.consume", "silent", "t", False, True, False, True, {})
    client.put("", b"heard", exchange="amq.fanout")
    assert client.expect("basic.deliver").body == b"heard"
    client.send(1, "basic.cancel", "t", True)
    client.send(1, "queue.delete", "silent", False, False, True)
    client.send(1, "confirm.select", True)
    with pytest.raises(Refused) as refused:
        client.declare_queue("silent", passive=True)
    assert refused.value.code == 404


def test_deleter_hears_delete_ok_before_its_consumers_are_cancelled(client: Talker) -> None:
    client.consume("q", "t", no_ack=True)
    client.deliveries(4)
    client.send(1, "queue.delete", "q", False, False, False)
    assert client.take().name == "queue.delete-ok"
    assert client.expect("basic.cancel").arguments == ("t", True)


def test_prefetch_of_consumers_ends_the_limit_of_the_channel_until_4_3(
    client: Talker, rig: Rig
) -> None:
    client.qos(1, across_channel=True)
    client.consume("q")
    client.deliveries(1)
    client.qos(2)
    if rig.answer({"3.8": True, "4.3": False}):  # whether the channel had a limit
        client.deliveries(3)
    else:
        assert client.silent("q", 3)


def test_limit_of_the_channel_stops_consumers_that_need_no_ack_until_4_3(
    client: Talker, rig: Rig
) -> None:
    client.qos(1, across_channel=True)
    client.consume("q", "one")
    client.deliveries(1)
    client.consume("q", "two", no_ack=True)
    if rig.answer({"3.8": True, "4.3": False}):
        assert client.silent("q", 3)
        client.send(1, "basic.ack", 0, True)
        tags = [event["consumer_tag"] for event in client.deliveries(1)]
        assert tags[0] in ("one", "two")
    else:
        assert {event["consumer_tag"] for event in client.deliveries(3)} == {"two"}


def test_recover_ok_comes_before_what_is_redelivered(client: Talker) -> None:
    client.consume("q")
    client.deliveries(4)
    client.send(1, "basic.recover", True)
    assert client.take().name == "basic.recover-ok"
    assert all(event["redelivered"] for event in client.deliveries(4))


def test_single_active_consumer_is_followed_by_the_highest_priority(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q", arguments={"x-single-active-consumer": True})
    for tag, priority in (("first", 0), ("low", -1), ("middle", 0), ("high", 5)):
        client.consume("q", tag, no_ack=True, arguments={"x-priority": priority})
    for tag in ("first", "high", "middle", "low"):
        client.put("q")
        assert client.deliveries(1)[0]["consumer_tag"] == tag
        client.cancel(tag)


@pytest.mark.parametrize("value", [1, "first", "nonsense", None])
def test_offset_of_a_stream_is_406_since_3_10(client: Talker, rig: Rig, value: Any) -> None:
    arguments = {"x-stream-offset": value}
    if rig.answer({"3.8": True, "3.10": False}):
        client.consume("q", arguments=arguments)
        return
    refused = client.refused(1, "basic.consume", "q", "", False, False, False, False, arguments)
    text = f"invalid arg 'x-stream-offset' for queue 'q' in vhost '{rig.vhost}' of queue type"
    assert refused.args == (406, f"PRECONDITION_FAILED - {text} rabbit_classic_queue")


def test_word_on_failing_over_is_looked_at_until_4_0(client: Talker, rig: Rig) -> None:
    arguments = {"x-cancel-on-ha-failover": 5}
    if rig.answer({"3.8": False, "4.0": True}):
        client.consume("q", arguments=arguments)
        return
    refused = client.refused(1, "basic.consume", "q", "", False, False, False, False, arguments)
    text = f"invalid arg 'x-cancel-on-ha-failover' for queue 'q' in vhost '{rig.vhost}'"
    assert refused.args == (406, f"PRECONDITION_FAILED - {text}: {{unacceptable_type,signedint}}")
