"""What programs of the 0.x eras do: their call styles, their close callbacks, their loops."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

import evamqp.compat.pika as pika
from evamqp.testing import Broker
from tests.compat.pika.rig import TIMEOUT, everywhere


@pytest.fixture
def era() -> Iterator[Any]:
    """Sets ERA, for a test."""
    yield functools.partial(setattr, pika, "ERA")
    pika.ERA = None


def start(url: str, on_open: Any, **named: Any) -> list[Any]:
    """Run a connection on its loop until something stops that; return the log it was given."""
    log: list[Any] = []
    connection = pika.SelectConnection(
        pika.URLParameters(url), lambda connection: on_open(connection, log), **named
    )
    if not named:
        connection.add_on_close_callback(lambda connection, reason: connection.ioloop.stop())
    run(connection)
    return log


def run(connection: Any) -> None:
    late: list[int] = []

    def give_up() -> None:
        late.append(1)
        connection.ioloop.stop()

    guard = connection.ioloop.call_later(TIMEOUT, give_up)
    connection.ioloop.start()
    guard.cancel()
    assert not late, "no end in time"


@everywhere
def test_callbacks_may_come_first(url: str) -> None:
    queues: list[Any] = []

    def on_open(connection: Any, log: list[Any]) -> None:
        def names(frame: Any) -> None:
            log.append(frame.method.NAME)

        def opened(channel: Any) -> None:
            channel.exchange_declare(names, "x", "topic", False, False, True)
            channel.exchange_declare(callback=names, exchange="y", type="fanout",
                                     auto_delete=True)  # fmt: skip
            channel.queue_declare(bind, "q", False, False, True)

            queues.append(channel)

        def bind(frame: Any) -> None:
            names(frame)
            (channel,) = queues
            channel.queue_bind(names, "q", "x", "a.*")
            channel.basic_qos(names, 0, 10, False)
            channel.basic_qos(names, prefetch_count=5, all_channels=True)
            channel.confirm_delivery(lambda frame: log.append(frame.method.NAME))
            tag = channel.basic_consume(consume, "q")
            log.append(tag in channel.consumer_tags)
            channel.basic_publish("x", "a.b", "text", pika.BasicProperties(type="t"))

        def consume(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            log.append((properties.type, body))
            channel.basic_ack(method.delivery_tag)
            channel.basic_cancel(done, method.consumer_tag)

        def done(frame: Any) -> None:
            names(frame)
            connection.close()

        connection.channel(opened)

    log = start(url, on_open, stop_ioloop_on_close=True)
    assert [entry for entry in log if entry != "Basic.Ack"] == [
        "Exchange.DeclareOk", "Exchange.DeclareOk", "Queue.DeclareOk", True, "Queue.BindOk",
        "Basic.QosOk", "Basic.QosOk", ("t", b"text"), "Basic.CancelOk",
    ]  # fmt: skip
    assert log.count("Basic.Ack") == 1


@everywhere
def test_close_callbacks_of_all_eras_are_told_apart_by_their_arguments(url: str) -> None:
    def on_open(connection: Any, log: list[Any]) -> None:
        class Bound:
            def modern(self, closed: Any, reason: Exception) -> None:
                log.append(("modern", type(reason).__name__, reason.args))

            def middle(self, closed: Any, code: int, text: str) -> None:
                log.append(("middle", code, text))

            def early(self, frame: Any) -> None:
                method = frame.method
                log.append(("early", method.NAME, method.reply_code, method.reply_text))

        def add(to: Any) -> None:
            bound = Bound()
            for callback in (bound.modern, bound.middle, bound.early):
                to.add_on_close_callback(callback)

        def opened(channel: Any) -> None:
            add(channel)
            channel.close(7, "seven")
            channel.add_on_close_callback(lambda channel, reason: connection.close())

        add(connection)
        connection.add_on_close_callback(lambda *arguments: connection.ioloop.stop())
        connection.channel(on_open_callback=opened)

    assert start(url, on_open) == [
        ("modern", "ChannelClosedByClient", (7, "seven")),
        ("middle", 7, "seven"),
        ("early", "Channel.Close", 7, "seven"),
        ("modern", "ConnectionClosedByClient", (200, "Normal shutdown")),
        ("middle", 200, "Normal shutdown"),
        # 0.9 tells only of what the broker has closed.
    ]


@pytest.mark.parametrize(("said", "count"), [(None, 2), ("1.x", 2), ("0.x", 3), ("0.9", 1)])
def test_any_number_of_arguments_follows_what_was_said(
    amqp_broker: Broker, era: Any, said: str | None, count: int
) -> None:
    era(said)

    def on_open(connection: Any, log: list[Any]) -> None:
        def closed(*arguments: Any) -> None:
            log.append(len(arguments))
            connection.close()

        connection.channel(None, lambda channel: (
            channel.add_on_close_callback(closed), channel.close()
        ))  # fmt: skip

    assert start(amqp_broker.url, on_open) == [count]


def test_partials_methods_and_defaults_are_counted_as_they_are_called(
    amqp_broker: Broker,
) -> None:
    def on_open(connection: Any, log: list[Any]) -> None:
        def old(name: str, channel: Any, code: int, text: str) -> None:
            log.append((name, code, text))

        def new(channel: Any, reason: Any = None) -> None:
            log.append(reason.args)

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(functools.partial(old, "partial"))
            channel.add_on_close_callback(new)
            channel.close(0, "so")
            connection.close()

        connection.channel(on_open_callback=opened)

    log = start(amqp_broker.url, on_open, stop_ioloop_on_close=True)
    assert log == [("partial", 0, "so"), (0, "so")]


def test_a_program_that_showed_its_era_ends_with_its_connection(amqp_broker: Broker) -> None:
    def on_open(connection: Any, log: list[Any]) -> None:
        def declared(frame: Any) -> None:
            connection.close()
            connection.close()  # silent, as it was

        connection.channel(lambda channel: channel.queue_declare(declared, "q", exclusive=True))

    run(pika.SelectConnection(pika.URLParameters(amqp_broker.url), lambda it: on_open(it, [])))


@pytest.mark.parametrize(("said", "waits"), [(None, False), ("0.x", True)])
def test_a_request_without_callback_waits_for_its_reply_in_0_x(
    amqp_broker: Broker, era: Any, said: str | None, waits: bool
) -> None:
    era(said)

    def on_open(connection: Any, log: list[Any]) -> None:
        def opened(channel: Any) -> None:
            channel.add_callback(lambda frame: log.append("declared"), [pika.spec.Queue.DeclareOk])
            channel.queue_declare("q", exclusive=True)
            channel.queue_purge("q", callback=lambda frame: connection.close())

        connection.channel(on_open_callback=opened)

    log = start(amqp_broker.url, on_open)
    assert log == (["declared"] if waits else [])


@pytest.mark.parametrize("said", ["0.x", "0.9"])
def test_what_escapes_a_callback_leaves_the_loop_in_0_x(
    amqp_broker: Broker, era: Any, said: str
) -> None:
    era(said)

    def on_open(connection: Any, log: list[Any]) -> None:
        raise LookupError("mine")

    connection = pika.SelectConnection(
        pika.URLParameters(amqp_broker.url), lambda connection: on_open(connection, [])
    )
    with pytest.raises(LookupError, match="mine"):
        run(connection)
    assert connection.is_open
    connection.close()
    run(connection)
    assert connection.is_closed


# --- loops


def test_the_loop_is_started_again_after_an_interrupt(amqp_broker: Broker) -> None:
    def interrupt(connection: Any) -> None:
        raise KeyboardInterrupt

    connection = pika.SelectConnection(
        pika.URLParameters(amqp_broker.url),
        interrupt,
        on_close_callback=lambda connection, reason: connection.ioloop.stop(),
    )
    with pytest.raises(KeyboardInterrupt):
        run(connection)
    connection.close()
    run(connection)
    assert connection.is_closed


@pytest.mark.parametrize("nested", [True, False])
def test_a_close_callback_makes_the_next_connection(amqp_broker: Broker, nested: bool) -> None:
    opened: list[Any] = []

    def connect() -> Any:
        return pika.SelectConnection(
            pika.URLParameters(amqp_broker.url), on_open, on_close_callback=on_close
        )

    def on_open(connection: Any) -> None:
        opened.append(connection)
        connection.close()

    def on_close(connection: Any, reason: Any) -> None:
        if len(opened) == 4:
            connection.ioloop.stop()
        elif nested:
            connection.ioloop.stop()
            connect().ioloop.start()
        else:
            connect()

    run(connect())
    assert len(opened) == 4
    assert all(connection.is_closed for connection in opened)


def test_a_timer_makes_and_starts_the_next_connection(amqp_broker: Broker) -> None:
    opened: list[Any] = []

    def connect() -> Any:
        return pika.SelectConnection(
            pika.URLParameters(amqp_broker.url),
            on_open,
            on_close_callback=on_close,
            stop_ioloop_on_close=False,
        )

    def on_open(connection: Any) -> None:
        opened.append(connection)
        connection.close()

    def on_close(connection: Any, reason: Any) -> None:
        if len(opened) < 3:
            connection.add_timeout(0.01, lambda: again(connection))
        else:
            connection.ioloop.stop()

    def again(connection: Any) -> None:
        connection.ioloop.stop()
        connect().ioloop.start()

    run(connect())
    assert len(opened) == 3


def test_a_loop_nested_in_a_message_loses_and_reorders_nothing(amqp_broker: Broker) -> None:
    count = 200

    def on_open(connection: Any, log: list[Any]) -> None:
        def consume(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            log.append(int(body))
            if len(log) == 1:
                # More comes meanwhile, and has to wait for this callback.
                for number in range(100, count):
                    channel.basic_publish("", "q", str(number))
                loop = connection.ioloop
                loop.call_later(0.1, loop.stop)
                loop.start()
                assert log == [0]
            if len(log) == count:
                connection.close()

        def opened(channel: Any) -> None:
            channel.queue_declare("q", exclusive=True)
            for number in range(100):
                channel.basic_publish("", "q", str(number))
            channel.basic_consume("q", consume, auto_ack=True)

        connection.channel(on_open_callback=opened)

    log = start(amqp_broker.url, on_open, stop_ioloop_on_close=True)
    assert log == list(range(count))


@pytest.mark.parametrize("closes", [True, False])
def test_a_loss_during_a_nested_loop_is_told_after_the_callback(closes: bool) -> None:
    def on_open(connection: Any, log: list[Any]) -> None:
        def declared(frame: Any) -> None:
            if closes:
                broker.faults.close_connections(320, "enough")
            else:
                broker.faults.drop_connections()
            loop = connection.ioloop
            loop.call_later(0.1, loop.stop)
            loop.start()
            log.append("callback is over")

        def closed(connection: Any, reason: Any) -> None:
            log.append(type(reason).__name__)

        connection.add_on_close_callback(closed)
        connection.channel(None, lambda channel: channel.queue_declare("q", callback=declared))

    with Broker().serve() as broker:
        log = start(broker.url, on_open, stop_ioloop_on_close=True)
    reason = "ConnectionClosedByBroker" if closes else "StreamLostError"
    assert log == ["callback is over", reason]


def test_no_parameters_mean_a_local_broker_and_guest() -> None:
    connection = pika.SelectConnection()
    parameters = connection.params
    assert (parameters.host, parameters.port, parameters.virtual_host) == ("localhost", 5672, "/")
    assert parameters.credentials.username == "guest"
    assert (parameters.ssl, parameters.ssl_options) == (False, None)
    connection.close()


def test_old_parameters_are_taken() -> None:
    parameters = pika.ConnectionParameters("h", heartbeat_interval=5, backpressure_detection=True)
    assert parameters.heartbeat == 5
    assert pika.URLParameters("amqp://h/%2F?heartbeat_interval=7").heartbeat == 7
    assert pika.ConnectionParameters("h", ssl=False).ssl_options is None
    assert pika.ConnectionParameters("h", ssl=True).port == 5671
