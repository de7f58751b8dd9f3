"""Direct reply-to: asking and answering without a queue."""

from __future__ import annotations

import pytest

from evamqp.codec.properties import Properties
from tests.behaviour.client import Refused
from tests.behaviour.rig import Rig

REPLY_TO = "amq.rabbitmq.reply-to"


def test_answer_comes_straight_to_who_asked(rig: Rig) -> None:
    asker, server = rig.open(), rig.open()
    server.declare_queue("service")
    asker.consume(REPLY_TO, "answers", no_ack=True)
    asker.put("service", b"question", Properties(reply_to=REPLY_TO, correlation_id="7"))
    assert server.holds("service", 1)
    question = server.got("service")
    assert question.properties is not None
    address = question.properties.reply_to
    assert address is not None
    assert address.startswith(f"{REPLY_TO}.")
    server.put(address, b"answer", Properties(correlation_id="7"))
    answer = asker.deliveries(1)[0]
    assert (answer.body, answer["consumer_tag"]) == (b"answer", "answers")
    assert (answer["exchange"], answer["routing_key"]) == ("", address)
    assert answer.properties is not None
    assert answer.properties.correlation_id == "7"
    assert server.declare_queue(address, passive=True).arguments == (address, 0, 1)


def test_nobody_waits_at_an_address_any_more(rig: Rig) -> None:
    client = rig.open()
    client.call(2, "channel.open")
    client.declare_queue("service")
    client.consume(REPLY_TO, "answers", no_ack=True)
    client.put("service", b"", Properties(reply_to=REPLY_TO))
    question = client.got("service")
    assert question.properties is not None
    address = question.properties.reply_to
    client.call(1, "channel.close", 200, "", 0, 0)
    client.number = 2
    with pytest.raises(Refused) as refused:
        client.declare_queue(address or "", passive=True)
    assert refused.value.args == (404, f"NOT_FOUND - no queue '{address}' in vhost '{rig.vhost}'")


@pytest.mark.parametrize("waits", [True, False])
def test_mandatory_answer_is_returned_or_not_whoever_waits(rig: Rig, waits: bool) -> None:
    asker, server = rig.open(), rig.open()
    server.declare_queue("service")
    asker.consume(REPLY_TO, no_ack=True)
    asker.put("service", b"", Properties(reply_to=REPLY_TO))
    assert server.holds("service", 1)
    question = server.got("service").properties
    assert question is not None
    if not waits:
        asker.close()
    server.confirm()
    server.put(question.reply_to or "", b"answer", mandatory=True)
    told = [server.take().name]
    if told == ["basic.return"]:
        told.append(server.take().name)
    assert told == rig.answer({"3.8": ["basic.return", "basic.ack"], "4.3": ["basic.ack"]})
    assert not waits or asker.deliveries(1)[0].body == b"answer"


@pytest.mark.parametrize(
    ("no_ack", "before", "text"),
    [
        (False, 0, "reply consumer cannot acknowledge"),
        (True, 1, "reply consumer already set"),
    ],
)
def test_wrong_reply_consumer_is_406(rig: Rig, no_ack: bool, before: int, text: str) -> None:
    client = rig.open()
    for _ in range(before):
        client.consume(REPLY_TO, no_ack=True)
    refused = client.refused(1, "basic.consume", REPLY_TO, "", False, no_ack, False, False, {})
    assert refused.args == (406, f"PRECONDITION_FAILED - {text}")


def test_asking_without_a_reply_consumer_is_406(rig: Rig) -> None:
    client = rig.open()
    client.put("nowhere", b"", Properties(reply_to=REPLY_TO))
    refused = client.refusal()
    assert refused.args == (406, "PRECONDITION_FAILED - fast reply consumer does not exist")
