"""Limits of queues, and where messages go when they pass them: the dead letter exchange."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from evamqp.codec.properties import Properties
from tests.behaviour.client import TYPED_HEADERS, Event, raw_headers
from tests.behaviour.rig import Rig, Talker


@pytest.fixture
def client(rig: Rig) -> Talker:
    """A client with a queue for dead letters, behind the exchange ``dead``."""
    client = rig.open()
    client.declare_exchange("dead", "fanout")
    client.declare_queue("grave")
    client.bind("grave", "dead")
    return client


def mortal(client: Talker, **arguments: Any) -> None:
    """Declare a queue ``q`` that sends to ``dead``."""
    named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    client.declare_queue("q", arguments={"x-dead-letter-exchange": "dead", **named})


def headers_of(event: Event) -> Mapping[str, Any]:
    assert event.properties is not None
    headers: Mapping[str, Any] | None = event.properties.headers
    assert headers is not None
    return headers


def check_death(event: Event, reason: str, count: int = 1, more: Any = None) -> None:
    """Hold the last death of a message against what it should tell."""
    headers = headers_of(event)
    death = dict(headers["x-death"][0])
    assert isinstance(death.pop("time"), datetime)
    assert death == {
        "count": count,
        "reason": reason,
        "queue": "q",
        "exchange": "",
        "routing-keys": ["q"],
        **(more or {}),
    }
    assert headers["x-first-death-reason"] == reason
    assert headers["x-first-death-queue"] == "q"
    assert headers["x-first-death-exchange"] == ""


def test_rejected_message_is_dead_lettered_with_its_properties(client: Talker, rig: Rig) -> None:
    mortal(client)
    client.put("q", b"m", Properties(app_id="a", headers={"h": 1}, delivery_mode=2))
    client.reject(client.got("q", no_ack=False), requeue=False)
    assert client.holds("grave", 1)
    event = client.got("grave")
    check_death(event, "rejected")
    assert event.body == b"m"
    assert (event["exchange"], event["routing_key"]) == ("dead", "q")
    assert event["redelivered"] is rig.answer({"3.8": False, "4.3": True})
    assert event.properties is not None
    assert (event.properties.app_id, event.properties.delivery_mode) == ("a", 2)
    assert headers_of(event)["h"] == 1


def test_dead_letter_key_replaces_the_routing_key(client: Talker) -> None:
    mortal(client, dead_letter_routing_key="elsewhere")
    client.put("q")
    client.nack(client.got("q", no_ack=False), requeue=False)
    assert client.holds("grave", 1)
    event = client.got("grave")
    assert (event["routing_key"], event["redelivered"]) == ("elsewhere", False)


def test_message_expires_after_its_own_time(client: Talker) -> None:
    mortal(client)
    client.put("q", b"m", Properties(expiration=30))
    assert client.holds("grave", 1)
    event = client.got("grave")
    check_death(event, "expired", more={"original-expiration": "30"})
    assert event.properties is not None
    assert event.properties.expiration is None


def test_message_expires_after_the_time_of_the_queue(client: Talker) -> None:
    mortal(client, message_ttl=30)
    client.put("q", b"one")
    client.put("q", b"two", Properties(expiration=60_000))
    assert client.holds("grave", 2)
    check_death(client.got("grave"), "expired")
    assert client.holds("q", 0)


def test_only_the_head_of_a_queue_expires(client: Talker) -> None:
    mortal(client)
    client.put("q", b"long", Properties(expiration=60_000))
    client.put("q", b"short", Properties(expiration=1))
    assert client.holds("q", 2)
    client.got("q")
    assert client.holds("grave", 1)
    assert client.got("grave").body == b"short"


def test_message_with_no_time_is_for_a_consumer_that_waits(client: Talker) -> None:
    client.declare_queue("q", arguments={"x-message-ttl": 0})
    client.put("q", b"lost")
    assert client.holds("q", 0)
    client.consume("q", no_ack=True)
    client.put("q", b"caught")
    assert client.deliveries(1)[0].body == b"caught"


def test_requeued_message_does_not_live_longer(client: Talker) -> None:
    mortal(client, message_ttl=50)
    client.put("q")
    event = client.got("q", no_ack=False)
    client.call(1, "basic.qos", 0, 0, False)
    client.send(1, "basic.nack", event["delivery_tag"], False, True)
    assert client.holds("grave", 1)


def test_full_queue_drops_its_head(client: Talker) -> None:
    mortal(client, max_length=2)
    for number in range(4):
        client.put("q", b"%d" % number)
    assert client.holds("grave", 2)
    assert client.bodies("q") == [b"2", b"3"]
    event = client.got("grave")
    check_death(event, "maxlen")
    assert event.body == b"0"


def test_full_queue_counts_bytes(client: Talker) -> None:
    mortal(client, max_length_bytes=10)
    for body in (b"12345", b"67890", b"x"):
        client.put("q", body)
    assert client.holds("grave", 1)
    assert client.bodies("q") == [b"67890", b"x"]


def test_unacked_messages_fill_no_queue(client: Talker) -> None:
    mortal(client, max_length=1)
    client.put("q", b"one")
    client.got("q", no_ack=False)
    client.put("q", b"two")
    assert client.holds("q", 1)
    assert client.holds("grave", 0)


def test_full_queue_refuses_publishes(client: Talker) -> None:
    client.declare_queue("q", arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    client.confirm()
    outcomes = []
    for number in range(4):
        client.put("q", b"%d" % number)
        # One at a time: a classic queue of RabbitMQ tells its publishers late that it is full.
        event = client.expect("basic.ack", "basic.nack")
        outcomes.append((event.name, event["delivery_tag"]))
    assert outcomes == [("basic.ack", 1), ("basic.ack", 2), ("basic.nack", 3), ("basic.nack", 4)]
    assert client.bodies("q") == [b"0", b"1"]


def test_full_queue_refuses_and_dead_letters(client: Talker) -> None:
    mortal(client, max_length=1, overflow="reject-publish-dlx")
    client.confirm()
    client.put("q", b"one")
    assert client.expect("basic.ack")["delivery_tag"] == 1
    client.put("q", b"two")
    assert client.expect("basic.nack")["delivery_tag"] == 2
    assert client.holds("grave", 1)
    event = client.got("grave")
    check_death(event, "maxlen")
    assert event.body == b"two"


def test_deaths_are_counted_by_queue_and_reason(client: Talker) -> None:
    client.declare_queue(
        "q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}
    )
    client.put("q")
    for count in range(1, 4):
        client.reject(client.got("q", no_ack=False), requeue=False)
        assert client.holds("q", 1)
        event = client.got("q", no_ack=False)
        check_death(event, "rejected", count=count)
        assert len(headers_of(event)["x-death"]) == 1
        client.nack(event, requeue=True)


def test_deaths_in_several_queues_are_listed_last_first(client: Talker) -> None:
    mortal(client)
    client.declare_queue(
        "r", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "end"}
    )
    client.declare_queue("end")
    client.bind("r", "dead")
    client.put("q")
    client.reject(client.got("q", no_ack=False), requeue=False)
    assert client.holds("r", 1)
    client.reject(client.got("r", no_ack=False), requeue=False)
    assert client.holds("end", 1)
    headers = headers_of(client.got("end"))
    assert [(death["queue"], death["exchange"]) for death in headers["x-death"]] == [
        ("r", "dead"),
        ("q", ""),
    ]
    assert headers["x-first-death-queue"] == "q"


def test_message_that_circles_without_a_rejection_is_dropped(client: Talker) -> None:
    client.declare_queue(
        "q",
        arguments={
            "x-message-ttl": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "q",
        },
    )
    client.put("q")
    assert client.holds("q", 0)


def test_missing_dead_letter_exchange_loses_the_message(rig: Rig) -> None:
    client = rig.open()
    client.declare_queue("q", arguments={"x-dead-letter-exchange": "nowhere", "x-max-length": 0})
    client.put("q")
    assert client.holds("q", 0)


def test_priorities_order_a_queue(client: Talker) -> None:
    client.declare_queue("q", arguments={"x-max-priority": 5})
    for priority in (1, 9, 5, 0, 3):
        client.put("q", b"%d" % priority, Properties(priority=priority))
    client.put("q", b"none")
    assert client.holds("q", 6)
    assert client.bodies("q") == [b"9", b"5", b"3", b"1", b"0", b"none"]


def test_expired_messages_behind_the_head_are_neither_counted_nor_delivered(
    client: Talker,
) -> None:
    mortal(client)
    for number in range(4):
        client.put("q", b"live %d" % number)
        client.put("q", b"dead", Properties(expiration=1))
    client.holds("q", 8)
    client.sleep(0.1)
    assert [client.got("q")["message_count"] for _ in range(2)] == [6, 4]
    assert client.holds("q", 4)
    client.consume("q", no_ack=True)
    assert [event.body for event in client.deliveries(2)] == [b"live 2", b"live 3"]
    assert client.silent("q", 0)
    assert client.holds("grave", 4)


def test_requeued_message_beyond_the_limit_is_dropped_before_it_is_delivered(
    client: Talker,
) -> None:
    client.qos(2)
    mortal(client, max_length=1)
    client.consume("q")
    client.put("q", b"one")
    client.put("q", b"two")
    client.deliveries(2)
    client.put("q", b"three")
    assert client.holds("q", 1)
    client.send(1, "basic.nack", 0, True, True)
    (event,) = client.deliveries(1)
    assert (event.body, event["redelivered"]) == (b"three", False)
    assert client.holds("grave", 2)
    assert client.silent("q", 0)


def test_requeue_drops_nothing_where_publishes_are_refused(client: Talker) -> None:
    mortal(client, max_length=1, overflow="reject-publish")
    client.put("q", b"one")
    event = client.got("q", no_ack=False)
    client.put("q", b"two")
    assert client.holds("q", 1)
    client.nack(event)
    assert client.holds("q", 2)
    assert client.bodies("q") == [b"one", b"two"]


def test_headers_of_a_dead_letter_are_sorted_and_keep_their_types(client: Talker) -> None:
    mortal(client)
    client.publish_raw(1, "", "q", raw_headers(*reversed(TYPED_HEADERS)))
    client.reject(client.got("q", no_ack=False), requeue=False)
    assert client.holds("grave", 1)
    event = client.got("grave")
    assert event.properties is not None
    raw = event.properties.raw
    position = 6
    for header in TYPED_HEADERS:  # what died stands in between
        position = raw.find(header, position)
        assert position > 0, header
    assert list(headers_of(event)) == sorted(headers_of(event))


def test_last_death_is_reported_since_4_0(client: Talker, rig: Rig) -> None:
    mortal(client, dead_letter_routing_key="k")
    client.put("q", b"", Properties(headers={"CC": ["nowhere"]}))
    client.reject(client.got("q", no_ack=False), requeue=False)
    assert client.holds("grave", 1)
    headers = headers_of(client.got("grave"))
    last = {name: headers.get(f"x-last-death-{name}") for name in ("exchange", "queue", "reason")}
    told = {"exchange": "", "queue": "q", "reason": "rejected"}
    assert last == rig.answer({"3.8": dict.fromkeys(told), "4.0": told})
    assert headers.get("CC") == rig.answer({"3.8": None, "4.0": ["nowhere"]})
    assert headers["x-death"][0]["routing-keys"] == ["q", "nowhere"]
