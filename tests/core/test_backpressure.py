"""What may wait to be sent: the marks, the cap, who is uncapped, and how output is coalesced."""

from __future__ import annotations

import pytest

from evamqp.codec.frames import method_frame
from evamqp.core.output import FLUSH_AT, UNCAPPED_ROOM
from evamqp.core.state import TransportAction
from evamqp.errors import ConnectionClosed, OutputFull
from tests.support.client import is_done, opened, outcome
from tests.support.frames import HEARTBEAT, decode, deliver, names

KIB = 1024


def test_a_thousand_publishes_in_one_callback_are_a_handful_of_writes() -> None:
    client = opened()
    channel = client.channel()
    ready = client.runtime.ready_count
    for _ in range(1000):
        channel.basic_publish("", "q", bytes(1000))
    assert client.runtime.ready_count - ready <= 6
    takes = list(iter(client.connection.data_to_send, b""))
    assert len(takes) <= 10
    assert names(decode(b"".join(takes))).count("basic.publish") == 1000


def test_output_is_ready_when_it_turns_non_empty_and_when_it_passes_the_flush_mark() -> None:
    client = opened()
    channel = client.channel()
    ready = client.runtime.ready_count
    channel.basic_publish("", "q", b"x")
    assert client.runtime.ready_count == ready + 1
    channel.basic_publish("", "q", b"x")
    assert client.runtime.ready_count == ready + 1
    channel.basic_publish("", "q", bytes(FLUSH_AT))
    assert client.runtime.ready_count == ready + 2


def test_a_paused_transport_gets_no_output_ready() -> None:
    client = opened()
    channel = client.channel()
    client.call(client.connection.set_writable, False)
    ready = client.runtime.ready_count
    for _ in range(100):
        channel.basic_publish("", "q", bytes(5000))
    assert client.runtime.ready_count == ready


def test_writing_ends_at_high_water_and_goes_on_when_it_was_taken() -> None:
    client = opened(output_high_water=10 * KIB, output_max=20 * KIB)
    channel = client.channel()
    channel.basic_publish("", "q", bytes(9 * KIB))
    assert client.writable()
    channel.basic_publish("", "q", bytes(2 * KIB))
    assert not client.writable()
    client.turn()
    client.taken()
    assert client.writable()
    client.turn()
    assert client.log == [("on_writable", False), ("on_writable", True)]


def test_each_change_is_reported_even_if_it_is_over_by_then() -> None:
    client = opened(output_high_water=KIB)
    channel = client.channel()
    for _ in range(3):
        channel.basic_publish("", "q", bytes(2 * KIB))
        client.taken()
    client.turn()
    assert [entry[1] for entry in client.log] == [False, True] * 3


@pytest.mark.parametrize("size", [1, 3 * KIB, 60 * KIB])
def test_at_the_cap_a_publish_is_refused_and_takes_no_tag(size: int) -> None:
    client = opened(output_high_water=100 * KIB, output_max=200 * KIB)
    channel = client.confirming_channel()
    tags: list[int] = []

    def publish() -> None:
        while True:
            tags.append(channel.basic_publish("", "q", bytes(size)))

    with pytest.raises(OutputFull, match="output_max"):
        publish()
    tag = len(tags)
    assert tags == list(range(1, tag + 1))
    assert client.connection.output_size <= 200 * KIB
    assert client.connection.output_size > 200 * KIB - size - 100
    assert list(channel.unconfirmed) == list(range(1, tag + 1))
    published = names(client.sent()).count("basic.publish")
    assert published == tag
    assert channel.basic_publish("", "q", b"x") == tag + 1


def test_an_empty_buffer_takes_any_one_message() -> None:
    client = opened(output_high_water=KIB, output_max=KIB)
    channel = client.channel()
    channel.basic_publish("", "q", bytes(100 * KIB))
    with pytest.raises(OutputFull):
        channel.basic_publish("", "q", b"")


def test_acks_heartbeats_and_closes_are_exempt_from_the_cap() -> None:
    client = opened(output_high_water=KIB, output_max=4 * KIB, heartbeat=4)
    channel = client.channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1), deliver(1, "tag", 2))
    client.fill(channel)
    assert client.recorder.messages[0].ack()
    channel.basic_nack(2)
    client.feed(method_frame(1, "channel.flow", True))
    channel.close()
    client.connection.close()
    assert names(client.sent())[-5:] == [
        "basic.ack",
        "basic.nack",
        "channel.flow-ok",
        "channel.close",
        "connection.close",
    ]


def test_a_peer_that_reads_no_replies_is_given_up_above_cap_and_room() -> None:
    client = opened(output_high_water=KIB, output_max=4 * KIB, heartbeat=0)
    channel = client.channel()
    client.call(client.connection.set_writable, False)
    client.fill(channel)
    waiting = channel.wait_closed()
    for tag in range(1, UNCAPPED_ROOM // 21 + 1):
        channel.basic_ack(tag)
    assert client.lives()
    channel.basic_ack(1)
    assert client.wants(TransportAction.ABORT)
    client.turn()
    client.lose()
    assert type(client.log[-1][1]) is ConnectionClosed
    assert "reads nothing" in str(client.log[-1][1])
    assert outcome(waiting) is channel.reason


def test_a_paused_transport_is_backpressure() -> None:
    client = opened()
    client.call(client.connection.set_writable, False)
    assert not client.writable()
    waiting = client.connection.wait_writable()
    client.turn()
    assert not is_done(waiting)
    client.call(client.connection.set_writable, True)
    client.turn()
    assert client.writable()
    assert is_done(waiting)
    assert client.log == [("on_writable", False), ("on_writable", True)]


def test_causes_of_backpressure_add_up() -> None:
    client = opened()
    client.channel()
    client.call(client.connection.set_writable, False)
    client.feed(method_frame(0, "connection.blocked", "x"))
    client.feed(method_frame(1, "channel.flow", False))
    client.call(client.connection.set_writable, True)
    client.feed(method_frame(0, "connection.unblocked"))
    assert not client.writable()
    client.feed(method_frame(1, "channel.flow", True))
    assert client.writable()
    assert [entry[1] for entry in client.log if entry[0] == "on_writable"] == [False, True]


def test_wait_writable_is_done_at_once_when_it_is() -> None:
    client = opened()
    request = client.connection.wait_writable()
    client.turn()
    assert outcome(request) is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_wait_writable_fails_with_the_end(when: str) -> None:
    client = opened()
    client.call(client.connection.set_writable, False)
    if when == "after":
        client.lose()
    request = client.connection.wait_writable()
    client.turn()
    if when == "before":
        client.lose()
    error = outcome(request)
    assert isinstance(error, ConnectionClosed)
    assert error is not client.connection.reason


def test_backpressure_before_open_makes_no_callback() -> None:
    client = opened()
    client.connection.close()
    client.call(client.connection.set_writable, False)
    client.turn()
    assert client.log == []
    assert not client.writable()


@pytest.mark.parametrize("size", [10, 700, 40_000])
def test_a_long_backlog_leaves_complete_and_in_order(size: int) -> None:
    client = opened()
    channel = client.channel()
    client.call(client.connection.set_writable, False)
    count = 4_000_000 // (size + 60)
    for number in range(count):
        channel.basic_publish("", "q", number.to_bytes(4, "big") * (size // 4))
    size_before = client.connection.output_size
    client.call(client.connection.set_writable, True)
    takes = list(iter(client.connection.data_to_send, b""))
    assert sum(map(len, takes)) == size_before
    assert max(map(len, takes)) < 3_000_000
    bodies = [sent.arguments[0] for sent in decode(b"".join(takes)) if sent.name == "body"]
    assert [int.from_bytes(body[:4], "big") for body in bodies] == list(range(count))
    client.turn()
    assert client.writable()


def test_the_size_of_the_output_is_what_is_taken() -> None:
    client = opened()
    channel = client.channel()
    for size in (0, 1, 100, 20_000, 300_000):
        channel.basic_publish("e", "key", bytes(size))
    channel.queue_declare("q")
    client.feed(HEARTBEAT)
    assert client.connection.output_size == len(client.taken())
    assert client.connection.output_size == 0
