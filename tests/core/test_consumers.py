"""Consumers: who gets which message, and what becomes of those that nobody wants any more."""

from __future__ import annotations

import gc
import weakref

import pytest

from evamqp.codec.frames import method_frame
from evamqp.core.channel_machine import FORMER_TAGS_KEPT
from evamqp.core.numbers import NUMBER_REST
from evamqp.errors import NotExecuted, OutputFull
from tests.support.client import Client, opened, outcome
from tests.support.frames import Sent, channel_close, deliver, names

CANCEL_OK = method_frame(1, "basic.cancel-ok", "tag")


def test_each_consumer_gets_its_own_messages() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel, "a")
    client.consumer(channel, "b")
    client.feed(deliver(1, "a", 1), deliver(1, "b", 2), deliver(1, "a", 3))
    assert [entry[2:4] for entry in client.log] == [("a", 1), ("b", 2), ("a", 3)]


def test_messages_may_precede_consume_ok() -> None:
    client = opened()
    channel = client.channel()
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="tag")
    client.sent()
    client.feed(deliver(1, "tag", 1), method_frame(1, "basic.consume-ok", "tag"))
    assert client.recorder.names == ["on_message"]


@pytest.mark.parametrize("warm", [True, False])
def test_messages_that_cross_a_cancel_are_requeued(warm: bool) -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    if warm:
        client.feed(deliver(1, "tag", 1))
    client.recorder.take()
    request = channel.basic_cancel("tag")
    client.sent()
    client.feed(deliver(1, "tag", 2), deliver(1, "tag", 3), CANCEL_OK)
    assert client.sent() == [
        Sent(1, "basic.nack", (2, False, True)),
        Sent(1, "basic.nack", (3, False, True)),
    ]
    assert client.log == []
    assert outcome(request) == "tag"


@pytest.mark.parametrize("warm", [True, False])
def test_messages_of_an_auto_ack_consumer_come_until_cancel_ok(warm: bool) -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel, auto_ack=True)
    if warm:
        client.feed(deliver(1, "tag", 1))
    client.recorder.take()
    channel.basic_cancel("tag")
    client.sent()
    client.feed(deliver(1, "tag", 2), deliver(1, "tag", 3), CANCEL_OK)
    assert [entry[3] for entry in client.log] == [2, 3]
    assert client.sent() == []


def test_a_cancel_in_a_message_callback_holds_for_the_next_message() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1))
    client.recorder.inside("on_message", lambda message: channel.basic_cancel("tag"))
    client.feed(deliver(1, "tag", 2), deliver(1, "tag", 3))
    assert len(client.recorder.messages) == 2
    assert names(client.sent()) == ["basic.cancel", "basic.nack"]


def methods(client: Client) -> list[str]:
    """Names of the methods sent, without the content."""
    return [name for name in names(client.sent()) if "." in name]


def test_a_cancel_is_sent_once_its_consumer_is_there() -> None:
    client = opened()
    channel = client.channel()
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="tag")
    requests = [channel.basic_cancel("tag"), channel.basic_cancel("tag")]
    assert names(client.sent()) == ["basic.consume"]
    client.feed(deliver(1, "tag", 1), method_frame(1, "basic.consume-ok", "tag"))
    assert client.sent() == [
        Sent(1, "basic.cancel", ("tag", False)),
        Sent(1, "basic.cancel", ("tag", False)),
        Sent(1, "basic.nack", (1, False, True)),
    ]
    client.feed(CANCEL_OK, CANCEL_OK)
    assert [outcome(request) for request in requests] == ["tag", "tag"]
    assert client.recorder.messages == []


def test_what_follows_a_cancel_stays_behind_it() -> None:
    client = opened()
    channel = client.channel()
    other = client.channel()
    client.consumer(channel, tag="other")
    client.feed(deliver(1, "other", 1))
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="tag")
    channel.basic_cancel("tag")
    channel.queue_delete("q", if_unused=True)
    channel.confirm_select()
    channel.basic_publish("", "q", b"body")
    client.recorder.messages[0].ack()
    other.queue_purge("q")
    assert names(client.sent())[-2:] == ["basic.consume", "queue.purge"]
    client.feed(method_frame(1, "basic.consume-ok", "tag"))
    expected = ["basic.cancel", "queue.delete", "confirm.select", "basic.publish", "basic.ack"]
    assert methods(client) == expected
    channel.queue_purge("q")
    assert names(client.sent()) == ["queue.purge"]


def test_each_cancel_waits_for_its_own_consumer() -> None:
    client = opened()
    channel = client.channel()
    for tag in ("one", "two"):
        channel.basic_consume("q", client.recorder.on_message, consumer_tag=tag)
    for tag in ("one", "two"):
        channel.basic_cancel(tag)
        channel.queue_purge(tag)
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="three")
    channel.basic_cancel("three")
    client.sent()
    client.feed(method_frame(1, "basic.consume-ok", "two"))
    assert client.sent() == []
    client.feed(method_frame(1, "basic.consume-ok", "one"))
    expected = ["basic.cancel", "queue.purge"] * 2
    assert names(client.sent()) == [*expected, "basic.consume"]
    client.feed(
        method_frame(1, "basic.cancel-ok", "one"),
        method_frame(1, "queue.purge-ok", 0),
        method_frame(1, "basic.cancel-ok", "two"),
        method_frame(1, "queue.purge-ok", 0),
        method_frame(1, "basic.consume-ok", "three"),
    )
    assert names(client.sent()) == ["basic.cancel"]


@pytest.mark.parametrize("what", ["channel", "connection"])
def test_what_waits_for_a_cancel_goes_before_the_close(what: str) -> None:
    client = opened()
    channel = client.channel()
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="tag")
    channel.basic_cancel("tag")
    channel.basic_publish("", "q", b"body")
    client.sent()
    (channel if what == "channel" else client.connection).close()
    assert methods(client) == ["basic.publish", f"{what}.close"]


def test_full_output_that_waits_for_a_cancel_is_reported_once_it_goes() -> None:
    client = opened(output_high_water=1000, output_max=2000)
    channel = client.channel()
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="tag")
    channel.basic_cancel("tag")
    client.sent()
    for _ in range(2):
        channel.basic_publish("", "q", b"x" * 700)
    with pytest.raises(OutputFull):
        channel.basic_publish("", "q", b"x" * 700)
    client.feed(method_frame(1, "basic.consume-ok", "tag"))
    assert not client.connection.is_writable
    assert methods(client) == ["basic.cancel", "basic.publish", "basic.publish"]


@pytest.mark.parametrize("by", ["us", "the broker"])
def test_a_cancel_that_waits_ends_with_its_channel(by: str) -> None:
    client = opened()
    channel = client.channel()
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="tag")
    request = channel.basic_cancel("tag")
    client.sent()
    if by == "us":
        channel.close()
        client.feed(method_frame(1, "basic.consume-ok", "tag"), method_frame(1, "channel.close-ok"))
        assert names(client.sent()) == ["channel.close"]
    else:
        client.feed(channel_close(1))
        assert names(client.sent()) == ["channel.close-ok"]
    assert isinstance(outcome(request), NotExecuted)


class Held:
    """Something of the user's."""

    def __call__(self, tag: str) -> None:
        """Do nothing."""


def test_a_channel_that_ends_amid_a_cancel_is_freed_without_the_collector() -> None:
    client = opened()
    gc.collect()
    gc.disable()
    try:
        channel = client.channel()
        held = Held()
        reference = weakref.ref(held)
        channel._machine.on_oversized_rejected = held  # what the machine holds, it does until freed
        del held
        tag = channel.basic_consume("q", client.recorder.on_message)
        client.feed(method_frame(1, "basic.consume-ok", tag))
        channel.basic_cancel(tag)
        client.feed(channel_close(1))
        client.recorder.take()
        del channel, tag
        assert reference() is None
    finally:
        gc.enable()


def test_another_consumer_is_not_touched_by_a_cancel() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel, "a")
    client.consumer(channel, "b")
    channel.basic_cancel("a")
    client.feed(deliver(1, "b", 1), deliver(1, "b", 2))
    assert len(client.recorder.messages) == 2
    client.serve()
    client.feed(deliver(1, "b", 3), deliver(1, "b", 4))
    assert len(client.recorder.messages) == 4


def test_a_tag_may_be_used_again_after_its_cancel() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1))
    channel.basic_cancel("tag")
    client.serve()
    seen: list[int] = []
    channel.basic_consume("q", lambda m: seen.append(m.delivery_tag), consumer_tag="tag")
    client.serve()
    client.feed(deliver(1, "tag", 2), deliver(1, "tag", 3))
    assert seen == [2, 3]
    assert len(client.recorder.messages) == 1


def test_a_delivery_for_an_unknown_consumer_is_dropped_and_counted() -> None:
    client = opened()
    client.channel()
    client.feed(deliver(1, "who", 9))
    assert client.sent() == []
    assert client.connection.stats.unknown_deliveries == 1
    assert client.lives()


def test_tags_made_here_are_unique_on_the_connection() -> None:
    client = opened()
    channels = [client.channel() for _ in range(3)]
    tags = [channel.basic_consume("q", print) for channel in channels * 3]
    assert len(set(tags)) == 9


@pytest.mark.parametrize("closed_by", ["client", "broker"])
def test_what_a_former_channel_of_the_number_was_sent_is_dropped_without_a_nack(
    closed_by: str,
) -> None:
    """RabbitMQ 4 sends it even behind the open-ok of the successor."""
    client = opened(channel_max=1)
    channel = client.channel()
    old = channel.basic_consume("q", client.recorder.on_message)
    client.serve()
    client.feed(deliver(1, old, 1))
    if closed_by == "client":
        channel.close()
    else:
        client.feed(channel_close(1))
        client.advance(NUMBER_REST)
    client.serve()
    successor = client.channel()
    tag = successor.basic_consume("q", client.recorder.on_message)
    client.serve()
    client.recorder.take()
    client.feed(deliver(1, old, 2), deliver(1, old, 3, bytes(20_000)), deliver(1, tag, 1))
    assert client.log == [("on_message", 1, tag, 1, b"hello")]
    assert client.sent() == []
    assert client.connection.stats.unknown_deliveries == 2


@pytest.mark.parametrize("cancelled_by", ["client", "broker"])
def test_what_comes_for_a_consumer_that_was_ours_is_requeued(cancelled_by: str) -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    if cancelled_by == "client":
        channel.basic_cancel("tag")
        client.serve()
    else:
        client.feed(method_frame(1, "basic.cancel", "tag", True))
        client.sent()
    client.recorder.take()
    client.feed(deliver(1, "tag", 7))
    assert client.log == []
    assert client.sent() == [Sent(1, "basic.nack", (7, False, True))]


def test_what_comes_for_an_auto_ack_consumer_that_is_gone_cannot_be_requeued() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel, auto_ack=True)
    client.feed(method_frame(1, "basic.cancel", "tag", True))
    client.sent()
    client.feed(deliver(1, "tag", 7))
    assert client.sent() == []


def test_former_tags_are_kept_up_to_a_limit() -> None:
    client = opened()
    channel = client.channel()
    for number in range(FORMER_TAGS_KEPT + 2):
        client.consumer(channel, f"t{number}")
        channel.basic_cancel(f"t{number}")
        client.serve()
    assert len(channel._machine._former_tags) == FORMER_TAGS_KEPT
    client.feed(deliver(1, "t1", 1), deliver(1, "t2", 2))
    assert [frame.arguments[0] for frame in client.sent()] == [2]


@pytest.mark.parametrize("no_wait", [True, False])
def test_a_broker_cancel_is_reported_once_to_both(no_wait: bool) -> None:
    client = opened()
    channel = client.channel()
    channel.basic_consume(
        "q", print, consumer_tag="tag", on_cancel=client.recorder.note("on_cancel")
    )
    client.serve()
    client.feed(method_frame(1, "basic.cancel", "tag", no_wait))
    assert client.log == [("on_consumer_cancel", 1, "tag"), ("on_cancel", "tag")]
    answer = ("basic.cancel", ("tag", True)) if no_wait else ("basic.cancel-ok", ("tag",))
    assert client.sent() == [Sent(1, *answer)]
    client.feed(method_frame(1, "basic.cancel", "tag", True))
    assert client.sent() == []
    assert len(client.log) == 2


def test_a_broker_cancel_that_crosses_ours_is_no_error() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    request = channel.basic_cancel("tag")
    client.sent()
    client.feed(method_frame(1, "basic.cancel", "tag", True), CANCEL_OK)
    assert outcome(request) == "tag"
    assert client.recorder.names == ["on_consumer_cancel"]
    assert channel.is_open
    assert client.sent() == []


def test_the_answer_to_a_broker_cancel_goes_before_who_consumes_by_that_tag_next() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    client.recorder.inside(
        "on_consumer_cancel",
        lambda channel, tag: channel.basic_consume("q", print, consumer_tag=tag),
    )
    client.feed(method_frame(1, "basic.cancel", "tag", True))
    assert names(client.sent()) == ["basic.cancel", "basic.consume"]
    assert client.lives()


def test_a_message_can_be_settled_after_its_consumer_is_gone() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1))
    channel.basic_cancel("tag")
    client.serve()
    assert client.recorder.messages[0].ack() is True


@pytest.mark.parametrize("warm", [True, False])
def test_a_close_in_a_message_callback_ends_the_deliveries(warm: bool) -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    if warm:
        client.feed(deliver(1, "tag", 1))
    client.recorder.take()
    client.recorder.inside("on_message", lambda message: channel.close())
    client.feed(deliver(1, "tag", 2), deliver(1, "tag", 3), deliver(1, "tag", 4, bytes(9000)))
    assert client.recorder.names == ["on_message"]
