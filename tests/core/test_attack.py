"""Peers that keep to the frames and still hurt: what they may hold up, keep in memory, or mistake.

The codes for broken frames are in test_content.py; consumers and their tags in test_consumers.py.
"""

from __future__ import annotations

import tracemalloc

import pytest

from evamqp.codec.frames import HEARTBEAT_FRAME, content_header_frame, frame, method_frame
from evamqp.core.channel import Message
from tests.support.client import Client, is_done, opened
from tests.support.frames import channel_close, connection_close, deliver, names

MIB = 1024 * 1024
READ = 64 * 1024
CONSUME_OK = method_frame(1, "basic.consume-ok", "tag")
CANCEL_OK = method_frame(1, "basic.cancel-ok", "tag")
BIG = deliver(1, "tag", 2, bytes(1000))
#: Where the frames of BIG end: behind the method, and behind the header.
CUTS = (len(deliver(1, "tag", 2, b"")) - 22, len(BIG) - 1008)


def consuming() -> Client:
    """A client with a consumer on channel 1 that has had a delivery, so the next is expected."""
    client = opened()
    client.consumer(client.channel())
    client.feed(deliver(1, "tag", 1))
    client.recorder.take()
    client.taken()
    return client


# --- frames between the frames of a delivery


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("reads", [1, 2])
def test_what_comes_between_the_frames_of_a_delivery_does_not_wait_for_its_rest(
    cut: int, reads: int
) -> None:
    client = consuming()
    other = client.channel()
    request = other.basic_qos(1)
    client.taken()
    pieces = [BIG[:cut], method_frame(2, "basic.qos-ok")]
    for piece in pieces if reads == 2 else [b"".join(pieces)]:
        client.feed(piece)
    assert is_done(request)
    client.feed(BIG[cut:])
    assert [message.body for message in client.recorder.messages[1:]] == [bytes(1000)]


def test_what_comes_between_two_body_frames_does_not_wait_for_the_second() -> None:
    client = consuming()
    other = client.channel()
    request = other.basic_qos(1)
    client.taken()
    first = BIG[: CUTS[1]] + frame(3, 1, bytes(400))
    client.feed(first + method_frame(2, "basic.qos-ok"))
    assert is_done(request)
    client.feed(frame(3, 1, bytes(600)))
    assert [message.body for message in client.recorder.messages[1:]] == [bytes(1000)]


@pytest.mark.parametrize("cut", CUTS)
def test_a_close_between_the_frames_of_a_delivery_is_answered(cut: int) -> None:
    client = consuming()
    client.feed(BIG[:cut] + connection_close())
    assert names(client.sent()) == ["connection.close-ok"]
    client = consuming()
    client.channel()
    client.feed(BIG[:cut] + channel_close(2))
    assert names(client.sent()) == ["channel.close-ok"]


# --- memory


def test_half_a_body_keeps_nothing_else_that_came_with_it() -> None:
    client = opened(body_max=4 * MIB)
    client.consumer(client.channel())
    client.feed(method_frame(1, "basic.deliver", "tag", 1, False, "", "q"))
    client.feed(content_header_frame(1, b"\x00\x00", 4 * MIB))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            piece = frame(3, 1, bytes(READ // 2))
            client.feed(piece + HEARTBEAT_FRAME * ((READ - len(piece)) // len(HEARTBEAT_FRAME)))
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert client.connection.context.parser.body_bytes == 100 * READ // 2
    assert held < 1.1 * 100 * READ // 2


# --- a consumer tag that is used again


@pytest.mark.parametrize("auto_ack", [False, True])
def test_an_old_cancels_answer_does_not_end_a_new_consumer_of_that_tag(auto_ack: bool) -> None:
    client = consuming()
    channel = client.recorder.messages[0].channel
    channel.basic_cancel("tag")
    client.feed(method_frame(1, "basic.cancel", "tag", True))  # the broker's own was under way
    messages: list[Message] = []
    channel.basic_consume("queue", messages.append, auto_ack, consumer_tag="tag")
    client.feed(CANCEL_OK, CONSUME_OK)
    client.taken()
    client.feed(deliver(1, "tag", 2))
    assert [message.delivery_tag for message in messages] == [2]
    assert client.sent() == []


def test_cancelling_nobody_does_not_end_who_consumes_by_that_tag_next() -> None:
    client = opened()
    channel = client.channel()
    messages: list[Message] = []
    channel.basic_cancel("tag")
    channel.basic_consume("queue", messages.append, consumer_tag="tag")
    client.feed(deliver(1, "tag", 1))  # RabbitMQ's queues may overtake the answers of the channel
    client.feed(CANCEL_OK, CONSUME_OK, deliver(1, "tag", 2))
    assert [message.delivery_tag for message in messages] == [1, 2]


def test_a_second_cancels_answer_does_not_end_a_new_consumer_of_that_tag() -> None:
    client = consuming()
    channel = client.recorder.messages[0].channel
    messages: list[Message] = []
    channel.basic_cancel("tag")
    channel.basic_cancel("tag")
    client.feed(CANCEL_OK)
    channel.basic_consume("queue", messages.append, consumer_tag="tag")
    client.feed(CANCEL_OK, CONSUME_OK, deliver(1, "tag", 2))
    assert [message.delivery_tag for message in messages] == [2]
