"""Blocking verbs: each returns what came of it, or raises what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

import evamqp.blocking
from evamqp.blocking import Channel, Connection
from evamqp.testing.fixtures import ServedVhost

TIMEOUT = 10.0


def put(channel: Channel, *bodies: bytes) -> None:
    for body in bodies:
        channel.publish("", "q", body)


def count(channel: Channel) -> int:
    return channel.queue_declare("q", passive=True).message_count


def holds(channel: Channel, messages: int) -> bool:
    """Whether the queue soon holds so many: RabbitMQ's counts lag behind."""
    deadline = monotonic() + TIMEOUT
    while count(channel) != messages and monotonic() < deadline:
        channel.connection.sleep(0.01)
    return count(channel) == messages


# Verbs.


def test_verbs_return_plain_values(channel: Channel) -> None:
    assert channel.queue_declare("p", exclusive=True) == evamqp.DeclareOk("p", 0, 0)
    channel.exchange_declare("e", "topic")
    channel.queue_bind("p", "e", "a.*")
    channel.publish("e", "a.b", b"1")
    channel.queue_unbind("p", "e", "a.*")
    assert channel.queue_purge("p") == 1
    channel.exchange_declare("f", "fanout")
    channel.exchange_bind("f", "e", "#")
    channel.exchange_unbind("f", "e", "#")
    assert channel.queue_delete("p") == 0
    channel.exchange_delete("e")
    channel.exchange_delete("f")
    channel.basic_recover()
    channel.basic_qos(5)


def test_transaction_shows_at_its_commit(connection: Connection, channel: Channel) -> None:
    work = connection.channel()
    work.tx_select()
    work.basic_publish("", "q", b"1")
    assert count(channel) == 0
    work.tx_commit()
    assert count(channel) == 1
    work.basic_publish("", "q", b"2")
    work.tx_rollback()
    work.close()
    assert count(channel) == 1


def test_refused_request_raises_and_the_channel_tells_why(
    connection: Connection, channel: Channel
) -> None:
    with pytest.raises(evamqp.NotExecuted, match="no queue") as caught:
        channel.queue_declare("missing", passive=True)
    assert caught.value.is_culprit
    assert channel.reason is not None
    assert channel.reason.code == 404
    with pytest.raises(evamqp.WrongState):
        channel.queue_declare("q")
    assert connection.channel().is_open


def test_wrong_argument_raises_and_sends_nothing(channel: Channel) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: channel.queue_declare(5),  # type: ignore[arg-type]
        lambda: channel.publish("", "q", "text"),  # type: ignore[arg-type]
        lambda: channel.basic_publish("", "q" * 300, b""),
        lambda: channel.basic_qos(-1),
        lambda: channel.basic_consume("q", "no function"),  # type: ignore[arg-type]
        lambda: channel.batch(0),
    ]
    for call in wrong:
        with pytest.raises(evamqp.UsageError):
            call()
    assert count(channel) == 0


def test_closed_channel_and_connection_may_be_closed_again(
    connection: Connection, channel: Channel
) -> None:
    channel.close()
    channel.close()
    assert not channel.is_open
    connection.close()
    connection.close()
    channel.close()
    with pytest.raises(evamqp.WrongState):
        connection.channel()
    with pytest.raises(evamqp.ConnectionClosed):
        connection.process_events()


# Publishing.


def test_publish_returns_when_the_message_is_confirmed(channel: Channel) -> None:
    properties = evamqp.Properties(message_id="1", headers={"a": 1})
    channel.publish("", "q", b"body", properties)
    message = channel.basic_get("q", auto_ack=True)
    assert message is not None
    assert (message.body, message.properties.message_id) == (b"body", "1")
    assert message.properties.headers == {"a": 1}
    assert channel.basic_get("q") is None


def test_publish_that_no_queue_takes_raises(channel: Channel) -> None:
    with pytest.raises(evamqp.PublishReturned) as caught:
        channel.publish("", "missing", b"1")
    assert (caught.value.code, caught.value.routing_key) == (312, "missing")
    channel.publish("", "missing", b"1", mandatory=False)
    put(channel, b"2")
    assert count(channel) == 1


def test_publish_that_the_broker_refuses_raises(channel: Channel) -> None:
    channel.queue_declare(
        "full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    channel.publish("", "full", b"1")
    with pytest.raises(evamqp.PublishNacked):
        channel.publish("", "full", b"2")


def test_publish_on_a_channel_that_ends_is_unknown(channel: Channel) -> None:
    with pytest.raises(evamqp.NotExecuted, match="no exchange"):
        channel.publish("missing", "", b"1")


def test_batch_confirms_all(channel: Channel) -> None:
    with channel.batch(window=10) as batch:
        numbers = [batch.publish("", "q", b"%d" % number) for number in range(100)]
    assert numbers == list(range(100))
    assert count(channel) == 100
    assert list(channel.unconfirmed) == []


def test_batch_tells_what_was_not_taken(channel: Channel) -> None:
    channel.queue_declare(
        "full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    batch = channel.batch(window=3)
    for key in ("q", "missing", "full", "full", "q", "missing", "q"):
        batch.publish("", key, b"twin")
    with pytest.raises(evamqp.BatchFailed) as caught:
        batch.wait()
    failures = {number: type(error) for number, error in caught.value.failures}
    assert failures == {
        1: evamqp.PublishReturned,
        3: evamqp.PublishNacked,
        5: evamqp.PublishReturned,
    }
    assert count(channel) == 3


def test_batch_on_a_channel_that_ends_raises(channel: Channel) -> None:
    with pytest.raises(evamqp.NotExecuted, match="no exchange"), channel.batch() as batch:
        batch.publish("missing", "", b"1")


def test_what_is_published_without_confirm_arrives_though_nobody_waits(
    url: str, channel: Channel
) -> None:
    body = bytes(1024 * 1024)
    for _ in range(8):
        assert channel.basic_publish("", "q", body) == 0
    assert holds(channel, 8)
    assert channel.queue_purge("q") == 8


def test_publishing_without_confirm_hears_of_the_channels_end(channel: Channel) -> None:
    """Nobody waits: what the broker says is read all the same."""

    def publish_for_long() -> None:
        deadline = monotonic() + TIMEOUT
        while monotonic() < deadline:
            channel.basic_publish("missing", "", b"1")

    with pytest.raises(evamqp.WrongState):
        publish_for_long()
    assert channel.reason is not None
    assert channel.reason.code == 404


def test_messages_are_persistent_unless_asked_otherwise(channel: Channel) -> None:
    properties = evamqp.Properties(content_type="text/plain")
    channel.publish("", "q", b"0")
    channel.publish("", "q", b"1", properties)
    channel.publish("", "q", b"2", properties, persistent=False)
    channel.publish("", "q", b"3", properties.replace(delivery_mode=1))
    channel.publish("", "q", b"4", persistent=False)
    with channel.batch() as batch:
        batch.publish("", "q", b"5", properties)
        batch.publish("", "q", b"6", persistent=False)
    got = [message.properties for message in channel.consume("q", inactivity_timeout=0.2)]
    assert [each.delivery_mode for each in got] == [2, 2, None, 1, None, 2, None]
    assert [each.content_type for each in got[1:4]] == ["text/plain"] * 3


# Consuming.


def test_iteration_hands_out_messages_in_order_and_ends_when_none_comes(channel: Channel) -> None:
    put(channel, b"1", b"2", b"3")
    bodies = []
    for message in channel.consume("q", inactivity_timeout=0.2):
        bodies.append(message.body)
        assert message.ack()
    assert bodies == [b"1", b"2", b"3"]
    assert channel.consumer_tags == []
    with pytest.raises(evamqp.AlreadySettled):
        message.ack()


def test_what_an_iteration_did_not_hand_out_goes_back(channel: Channel) -> None:
    put(channel, b"1", b"2", b"3")
    for message in channel.consume("q"):
        message.ack()
        break
    assert holds(channel, 2)
    bodies = [message.body for message in channel.consume("q", inactivity_timeout=0.2)]
    assert bodies == [b"2", b"3"]


def test_iteration_ends_with_its_queue(connection: Connection, channel: Channel) -> None:
    other = connection.channel()
    connection.call_later(0.05, lambda: other.queue_delete("q"))
    with pytest.raises(evamqp.ConsumerCancelled):
        next(iter(channel.consume("q")))
    assert channel.is_open


def test_iteration_ends_with_its_channel(channel: Channel) -> None:
    channel.connection.call_later(0.05, channel.close)
    with pytest.raises(evamqp.ChannelClosed):
        next(iter(channel.consume("q")))


def test_iteration_over_a_missing_queue_raises(channel: Channel) -> None:
    with pytest.raises(evamqp.NotExecuted, match="no queue"):
        next(iter(channel.consume("missing")))


def test_callbacks_come_in_process_events_and_nowhere_else(
    connection: Connection, channel: Channel
) -> None:
    got: list[bytes] = []
    tag = channel.basic_consume("q", lambda message: got.append(message.body), auto_ack=True)
    put(channel, b"1", b"2")
    assert count(channel) == 0
    assert got == []
    connection.process_events(1)
    assert got == [b"1", b"2"]
    assert channel.consumer_tags == [tag]
    assert channel.basic_cancel(tag) == []


def test_callback_may_call_everything(connection: Connection, channel: Channel) -> None:
    got: list[int] = []

    def on_message(message: evamqp.blocking.Message) -> None:
        message.ack()
        channel.publish("", "p", message.body)
        connection.process_events()  # calls nobody from in here
        with connection.channel() as other:
            got.append(other.queue_declare("p", passive=True).message_count)

    channel.queue_declare("p", exclusive=True)
    channel.basic_consume("q", on_message)
    put(channel, b"1", b"2")
    while len(got) < 2:
        connection.process_events(1)
    assert got == [1, 2]


def test_cancelled_consumer_gives_back_what_nobody_got(channel: Channel) -> None:
    put(channel, b"1", b"2")
    tag = channel.basic_consume("q", lambda message: None)
    channel.basic_cancel(tag)
    assert holds(channel, 2)
    tag = channel.basic_consume("q", lambda message: None, auto_ack=True)
    assert [message.body for message in channel.basic_cancel(tag)] == [b"1", b"2"]
    channel.connection.process_events()
    assert count(channel) == 0


def test_callback_that_raises_leaves_process_events_and_loses_nothing(channel: Channel) -> None:
    got: list[bytes] = []

    def on_message(message: evamqp.blocking.Message) -> None:
        got.append(message.body)
        if message.body == b"1":
            raise ZeroDivisionError

    put(channel, b"1", b"2")
    channel.basic_consume("q", on_message, auto_ack=True)
    with pytest.raises(ZeroDivisionError):
        channel.connection.process_events(1)
    while len(got) < 2:
        channel.connection.process_events(1)
    assert got == [b"1", b"2"]


def test_channel_callbacks_are_made_in_process_events(connection: Connection) -> None:
    calls: list[tuple[str, object]] = []
    channel = connection.channel(
        on_return=lambda channel, returned: calls.append(("return", returned.body)),
        on_delivery_confirmation=lambda channel, tags, acked: calls.append(("confirm", list(tags))),
        on_channel_close=lambda channel, reason: calls.append(("close", reason.code)),
    )
    channel.confirm_select()
    channel.basic_publish("", "missing", b"1", mandatory=True)
    assert channel.wait_for_confirms() == []
    channel.close()
    assert calls == []
    connection.process_events()
    assert calls == [("return", b"1"), ("confirm", [1]), ("close", 200)]


def test_confirm_refused_is_told_by_wait_for_confirms(amqp_broker: ServedVhost) -> None:
    with evamqp.blocking.connect(amqp_broker.url) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        channel.confirm_select()
        amqp_broker.broker.faults.nack_next()
        channel.basic_publish("", "q", b"1")
        channel.basic_publish("", "q", b"2")
        assert channel.wait_for_confirms() == [1]
