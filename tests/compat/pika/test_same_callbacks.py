"""The same program on pika and on the facade: the same callbacks, in order and by argument."""

from __future__ import annotations

from typing import Any

from tests.compat.pika.rig import Stage, everywhere, play_both


def on_channel(then: Any) -> Any:
    """A program that opens a channel first."""
    return lambda stage: stage.connection.channel(on_open_callback=lambda ch: then(stage, ch))


def every_request(stage: Stage, channel: Any) -> None:
    told = stage.told
    channel.queue_declare("q", exclusive=True, callback=told("declared"))
    channel.queue_declare("", exclusive=True, callback=told("declared"))
    channel.exchange_declare("x", callback=told("exchange"))
    channel.exchange_declare("y", stage.pika.exchange_type.ExchangeType.topic, durable=True,
                             callback=told("exchange"))  # fmt: skip
    channel.queue_bind("q", "x", callback=told("bound"))
    channel.queue_bind("q", "y", "a.#", {"k": 1}, callback=told("bound"))
    channel.queue_unbind("q", "y", "a.#", {"k": 1}, callback=told("unbound"))
    channel.exchange_bind("y", "x", "k", callback=told("exchange bound"))
    channel.exchange_unbind("y", "x", "k", callback=told("exchange unbound"))
    channel.basic_qos(prefetch_count=3, callback=told("qos"))
    channel.basic_recover(True, callback=told("recovered"))
    channel.queue_purge("q", callback=told("purged"))
    channel.exchange_delete("x", callback=told("exchange deleted"))
    channel.exchange_delete("y", callback=told("exchange deleted"))
    channel.flow(True, told("flow"))
    channel.tx_select(told("tx"))
    channel.tx_commit(told("tx"))
    channel.tx_rollback(told("tx"))
    channel.queue_delete("q", callback=stage.last)


@everywhere
def test_requests_are_answered_by_the_same_frames_in_the_same_order(url: str) -> None:
    assert len(play_both(url, on_channel(every_request))) == 20


def requests_without_callback(stage: Stage, channel: Any) -> None:
    channel.queue_declare("q", exclusive=True)
    channel.exchange_declare("x", auto_delete=True)
    channel.queue_bind("q", "x")
    channel.basic_publish("x", "q", b"routed by the queue's name")

    def on_message(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        stage.say(repr(method), repr(properties), body)
        channel.queue_delete("q")
        stage.connection.close()

    channel.basic_consume("q", on_message, auto_ack=True)


@everywhere
def test_a_queue_is_bound_by_its_own_name_where_no_key_is_given(url: str) -> None:
    log = play_both(url, on_channel(requests_without_callback))
    assert "exchange=x" in log[0]


def a_message(stage: Stage, channel: Any) -> None:
    properties = stage.pika.BasicProperties(
        content_type="text/plain",
        headers={"é": 1, "none": None, "list": [1, {"b": 2}], "yes": True},
        delivery_mode=2,
        priority=3,
        timestamp=1_000_000_000,
        correlation_id="c",
        message_id="m",
        app_id="a",
    )
    channel.queue_declare("q", exclusive=True)
    channel.basic_publish("", "q", "é", properties)

    def on_message(same: Any, method: Any, properties: Any, body: bytes) -> None:
        stage.say(same is channel, repr(method), repr(properties), body, method.delivery_tag)
        stage.say(properties.headers, properties.timestamp, properties.reply_to)
        if method.redelivered:
            same.basic_ack(delivery_tag=method.delivery_tag)
            same.basic_cancel("T", callback=stage.told("cancelled"))
            stage.later(stage.connection.close)
        else:
            same.basic_nack(method.delivery_tag)

    stage.say(channel.basic_consume("q", on_message, consumer_tag="T",
                                    callback=stage.told("consuming")))  # fmt: skip
    stage.tried("twice", channel.basic_consume, "q", on_message, consumer_tag="T")
    stage.say(channel.consumer_tags)


@everywhere
def test_a_message_comes_with_the_same_method_properties_and_body(url: str) -> None:
    play_both(url, on_channel(a_message))


def confirms_and_returns(stage: Stage, channel: Any) -> None:
    def on_confirm(frame: Any) -> None:
        confirmed.add(frame.method.delivery_tag)
        stage.say(type(frame.method).__name__, frame.method.NAME, frame.method.multiple)
        if len(confirmed) < 3:
            publish()
        else:
            stage.connection.close()

    def publish() -> None:
        channel.basic_publish("", "nowhere", b"%d" % len(confirmed), mandatory=True)

    confirmed: set[int] = set()
    channel.add_on_return_callback(stage.told("returned"))
    channel.confirm_delivery(on_confirm, callback=stage.told("confirms"))
    publish()


@everywhere
def test_each_publish_is_returned_and_confirmed_in_the_same_way(url: str) -> None:
    play_both(url, on_channel(confirms_and_returns))


def get(stage: Stage, channel: Any) -> None:
    def again(frame: Any) -> None:
        stage.say("empty", frame)
        channel.basic_publish("", "q", b"one")
        channel.basic_get("q", got, auto_ack=True)

    def got(*arguments: Any) -> None:
        stage.say(*map(repr, arguments))
        stage.connection.close()

    channel.add_callback(again, [stage.pika.spec.Basic.GetEmpty])
    channel.queue_declare("q", exclusive=True)
    channel.basic_get("q", stage.told("never"))
    stage.tried("twice", channel.basic_get, "q", got)


@everywhere
def test_basic_get_tells_what_it_got_and_that_there_is_nothing(url: str) -> None:
    play_both(url, on_channel(get))


def cancelled_by_the_broker(stage: Stage, channel: Any) -> None:
    def cancelled(frame: Any) -> None:
        stage.say(repr(frame), channel.consumer_tags)
        stage.connection.close()

    channel.add_on_cancel_callback(cancelled)
    channel.queue_declare("q")
    channel.basic_consume("q", stage.told("never"), consumer_tag="T")
    channel.queue_delete("q")


@everywhere
def test_a_cancel_by_the_broker_is_told_by_its_frame(url: str) -> None:
    play_both(url, on_channel(cancelled_by_the_broker))


def ends(stage: Stage, first: Any) -> None:
    """A channel that the broker closes, one that we close, and one that the connection ends."""

    def closed(name: str, then: Any = None) -> Any:
        def tell(channel: Any, reason: Any) -> None:
            state = (channel.is_closed, channel.is_open, channel.is_closing)
            stage.say(name, repr(reason), reason, state, stage.connection.is_open)
            stage.tried("publish", channel.basic_publish, "", "q", b"")
            stage.tried("declare", channel.queue_declare, "q")
            stage.tried("ack", channel.basic_ack, 1)
            stage.tried("close", channel.close)
            if then is not None:
                stage.connection.channel(on_open_callback=then)

        return tell

    def second(channel: Any) -> None:
        stage.say(repr(channel), int(channel), "%i" % channel)  # noqa: UP031  as old programs do
        channel.add_on_close_callback(closed("second", third))
        channel.close(0, "enough")
        stage.say(channel.is_closing, channel.is_open)
        stage.tried("publish", channel.basic_publish, "", "q", b"")
        stage.tried("close", channel.close)

    def third(channel: Any) -> None:
        channel.add_on_close_callback(closed("third"))
        stage.connection.close(200, "bye")
        stage.say(stage.connection.is_closing, channel.is_closing)
        stage.tried("close", stage.connection.close)
        stage.tried("channel", stage.connection.channel)

    first.add_on_close_callback(closed("first", second))
    first.queue_declare("missing", passive=True, callback=stage.told("never"))


@everywhere
def test_channels_and_the_connection_end_with_the_same_reasons_in_the_same_order(
    url: str,
) -> None:
    log = play_both(url, on_channel(ends))
    assert [line.split()[0] for line in log if line.split()[0] in ("first", "second", "third",
                                                                   "closed")] == [
        "first", "second", "third", "closed",
    ]  # fmt: skip


def several_channels(stage: Stage) -> None:
    connection = stage.connection
    opened: list[int] = []

    def ready(channel: Any) -> None:
        opened.append(int(channel))
        if len(opened) == 4:
            stage.say(opened)
            connection.close()

    numbers = [int(connection.channel(on_open_callback=ready)) for _ in range(3)]
    stage.say(numbers, int(connection.channel(7, ready)))
    stage.tried("number", connection.channel, "x")
    stage.tried("callback", connection.channel, None, 3)


@everywhere
def test_channels_get_the_same_numbers(url: str) -> None:
    play_both(url, several_channels)


def what_it_is(stage: Stage) -> None:
    connection = stage.connection
    stage.say(connection.is_open, connection.is_closed, connection.is_closing)
    stage.say(repr(connection.params), connection.params.host, connection.connection_state)
    stage.say(connection.basic_nack, connection.publisher_confirms)
    stage.say(connection.consumer_cancel_notify, connection.exchange_exchange_bindings)
    stage.say(sorted(connection.server_properties), sorted(connection.server_capabilities))
    connection.close()


@everywhere
def test_a_connection_says_the_same_of_itself_and_of_its_broker(url: str) -> None:
    play_both(url, what_it_is)


def a_callback_that_raises(stage: Stage, channel: Any) -> None:
    channel.add_on_close_callback(lambda _, reason: stage.say("channel", repr(reason)))
    # No name: the broker may still hold the exclusive queue of the connection that has just ended.
    channel.queue_declare("", exclusive=True, callback=lambda _: 1 // 0)


@everywhere
def test_a_callback_that_raises_ends_the_connection(url: str) -> None:
    log = play_both(url, on_channel(a_callback_that_raises))
    assert all("StreamLostError" in line and "ZeroDivisionError" in line for line in log)
