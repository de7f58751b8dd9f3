"""BlockingConnection and BlockingChannel: pika's results, exceptions and order of callbacks."""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import evamqp.compat.pika as pika
from evamqp.compat.pika import exceptions, spec
from evamqp.compat.pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from evamqp.compat.pika.frame import Method
from evamqp.testing.fixtures import ServedVhost
from rabbitmq_node import RabbitNode

TIMEOUT = 10.0


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def put(channel: BlockingChannel, *bodies: str) -> None:
    for body in bodies:
        channel.basic_publish("", "q", body)


def holds(channel: BlockingChannel, count: int) -> bool:
    """Whether the queue soon holds so many: RabbitMQ's counts lag behind."""
    deadline = time.monotonic() + TIMEOUT
    found = -1
    while found != count and time.monotonic() < deadline:
        found = channel.queue_declare("q", passive=True).method.message_count
        channel.connection.sleep(0.01)
    return found == count


# Connecting.


def test_unreachable_broker_raises_as_pika_does(amqp_broker: ServedVhost) -> None:
    with pytest.raises(exceptions.AMQPConnectionError) as refused:
        BlockingConnection(pika.ConnectionParameters("127.0.0.1", closed_port()))
    assert "AMQPConnectorSocketConnectError: ConnectionRefusedError" in repr(refused.value)
    wrong = pika.URLParameters(amqp_broker.url)
    wrong.credentials = pika.PlainCredentials("guest", "wrong")
    with pytest.raises(exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        BlockingConnection(wrong)
    wrong = pika.URLParameters(amqp_broker.url)
    wrong.virtual_host = "missing"
    with pytest.raises(exceptions.ProbableAccessDeniedError, match="NOT_ALLOWED"):
        BlockingConnection(wrong)
    with pytest.raises(ValueError, match="non-empty sequence"):
        BlockingConnection([])
    with pytest.raises(AttributeError, match="connection_attempts"):
        BlockingConnection("amqp://localhost")  # type: ignore[arg-type]


def test_brokers_are_tried_in_order_and_again(url: str) -> None:
    nobody = pika.ConnectionParameters("127.0.0.1", closed_port())
    with BlockingConnection([nobody, pika.URLParameters(url)]) as connection:
        assert connection.is_open
    assert connection.is_closed
    port = closed_port()
    parameters = pika.ConnectionParameters(
        "127.0.0.1", port, connection_attempts=2, retry_delay=0.05
    )
    started = time.monotonic()
    with pytest.raises(exceptions.AMQPConnectionError):
        BlockingConnection(parameters)
    assert time.monotonic() - started >= 0.05


def test_channels_get_a_fresh_number(connection: BlockingConnection) -> None:
    channels = [connection.channel() for _ in range(3)]
    assert [int(channel) for channel in channels] == [1, 2, 3]
    assert "%i" % channels[0] == "1"  # noqa: UP031  as programs write it
    channels[1].close()
    assert connection.channel().channel_number == 4
    assert connection.channel(7).channel_number == 7
    for wrong in (7, "x", -1, 70_000):
        with pytest.raises(exceptions.InvalidChannelNumber):
            connection.channel(wrong)


def test_last_number_is_there_again_when_the_broker_has_closed_its_channel(url: str) -> None:
    parameters = pika.URLParameters(url)
    parameters.channel_max = 1
    with BlockingConnection(parameters) as connection:
        for _ in range(2):
            channel = connection.channel()
            with pytest.raises(exceptions.NoFreeChannels):
                connection.channel()
            with pytest.raises(exceptions.ChannelClosedByBroker, match="404"):
                channel.queue_declare("missing", passive=True)


def test_nothing_piles_up_in_a_program_that_never_processes_events(
    connection: BlockingConnection,
) -> None:
    def count() -> int:
        gc.collect()
        return sum(type(each) in (BlockingChannel, partial) for each in gc.get_objects())

    before = count()
    for _ in range(30):
        channel = connection.channel()
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("amq.fanout", "", b"")
        channel.close()
    assert count() < before + 30


def test_a_loss_is_a_connection_closed_in_0_x(amqp_broker: ServedVhost) -> None:
    connection = BlockingConnection(pika.URLParameters(amqp_broker.url))
    channel: Any = connection.channel()
    queue = channel.queue_declare("q").method.queue
    drop = amqp_broker.broker.faults.drop_connections
    channel.basic_consume(lambda *message: drop(), queue)  # the callback first: 0.x
    channel.basic_publish("", queue, "x")
    with pytest.raises(exceptions.ConnectionClosed) as lost:
        channel.start_consuming()
    assert isinstance(lost.value, exceptions.StreamLostError)
    assert isinstance(lost.value.reply_code, int)
    with pytest.raises(exceptions.ChannelClosed):
        channel.basic_publish("", queue, "x")
    for call in (connection.channel, connection.process_data_events):
        with pytest.raises(exceptions.ConnectionClosed):
            call()


def test_closed_things_refuse_in_1_x_and_are_silent_in_0_x(
    connection: BlockingConnection, channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.close()
    calls: list[Callable[[], object]] = [
        channel.close,
        lambda: channel.queue_declare("q"),
        lambda: channel.basic_ack(1),
        lambda: channel.basic_publish("", "q", b""),
        channel.start_consuming,
    ]
    for call in calls:
        with pytest.raises(exceptions.ChannelWrongStateError, match=r"Channel is closed\."):
            call()
    assert channel.basic_cancel("none") == []
    channel.stop_consuming()
    connection.close()
    late: list[Callable[[], object]] = [
        connection.close,
        connection.channel,
        connection.process_data_events,
        lambda: connection.add_callback_threadsafe(print),
    ]
    for call in late:
        with pytest.raises(exceptions.ConnectionWrongStateError):
            call()
    monkeypatch.setattr(pika, "ERA", "0.x")
    channel.close()
    connection.close()


# Requests.


def test_requests_return_frames(channel: BlockingChannel) -> None:
    declared = channel.queue_declare("p", exclusive=True)
    assert isinstance(declared, Method)
    assert isinstance(declared.method, spec.Queue.DeclareOk)
    assert (declared.method.queue, declared.channel_number) == ("p", 1)
    kinds: list[tuple[Any, Method]] = [
        (spec.Exchange.DeclareOk, channel.exchange_declare("e", "topic")),
        (spec.Exchange.DeclareOk, channel.exchange_declare("f", pika.ExchangeType.fanout)),
        (spec.Exchange.BindOk, channel.exchange_bind("f", "e", "#")),
        (spec.Exchange.UnbindOk, channel.exchange_unbind("f", "e", "#")),
        (spec.Queue.BindOk, channel.queue_bind("p", "e")),
        (spec.Queue.UnbindOk, channel.queue_unbind("p", "e")),
        (spec.Queue.PurgeOk, channel.queue_purge("p")),
        (spec.Queue.DeleteOk, channel.queue_delete("p")),
        (spec.Exchange.DeleteOk, channel.exchange_delete("e")),
        (spec.Exchange.DeleteOk, channel.exchange_delete("f")),
    ]
    assert [type(frame.method) for _, frame in kinds] == [kind for kind, _ in kinds]
    channel.basic_qos(prefetch_count=3)
    channel.basic_recover(True)
    assert channel.flow(True) is True


def test_refused_request_raises_the_brokers_reason(channel: BlockingChannel) -> None:
    with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
        channel.queue_declare("missing", passive=True)
    assert caught.value.reply_code == 404
    assert str(caught.value).startswith("(404, ")
    assert channel.is_closed


def test_bad_arguments_raise_what_pika_raises_and_send_nothing(channel: BlockingChannel) -> None:
    bad: list[tuple[type[BaseException], Callable[[], object]]] = [
        (TypeError, lambda: channel.queue_declare(5)),  # type: ignore[arg-type]
        (TypeError, lambda: channel.basic_consume("q", "text")),
        (ValueError, lambda: channel.basic_qos(prefetch_count=-1)),
        (AttributeError, lambda: channel.basic_publish("", "q", 5)),  # type: ignore[arg-type]
        (AssertionError, lambda: channel.basic_publish("", 5, b"")),  # type: ignore[arg-type]
        (exceptions.ShortStringTooLong, lambda: channel.basic_publish("", "k" * 300, b"")),
        (AssertionError, lambda: channel.connection.sleep(-1)),
        (ValueError, lambda: channel.connection.call_later(-1, print)),
    ]
    for kind, call in bad:
        with pytest.raises(kind):
            call()
    assert channel.queue_declare("q", passive=True).method.message_count == 0


# Publishing.


def test_unroutable_message_is_raised_with_confirms_and_called_back_without(
    connection: BlockingConnection, channel: BlockingChannel
) -> None:
    returned: list[tuple[Any, ...]] = []
    channel.add_on_return_callback(lambda *arguments: returned.append(arguments))
    properties = pika.BasicProperties(message_id="7")
    channel.basic_publish("", "missing", "text", properties, mandatory=True)
    while not returned:
        connection.process_data_events(TIMEOUT)
    source, method, received, body = returned[0]
    assert source is channel
    assert (method.reply_code, method.routing_key, received.message_id) == (312, "missing", "7")
    assert body == b"text"
    # RabbitMQ 3.8 counts mandatory publishes before confirm.select, so its tags would be others.
    channel = connection.channel()
    channel.add_on_return_callback(lambda *arguments: returned.append(arguments))
    channel.confirm_delivery()
    channel.confirm_delivery()
    with pytest.raises(exceptions.UnroutableError) as caught:
        channel.basic_publish("", "missing", "text", properties, mandatory=True)
    (message,) = caught.value.messages
    assert (message.method.reply_code, message.body) == (312, b"text")
    channel.basic_publish("", "missing", "text")
    assert len(returned) == 1


def test_refused_message_raises_nack(channel: BlockingChannel) -> None:
    channel.confirm_delivery()
    channel.queue_declare(
        "full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    channel.basic_publish("", "full", b"1")
    with pytest.raises(exceptions.NackError):
        channel.basic_publish("", "full", b"2")


def test_publish_that_closes_the_channel_tells_why_at_the_next_request(
    connection: BlockingConnection, channel: BlockingChannel
) -> None:
    channel.basic_publish("missing", "", b"1")
    with pytest.raises(exceptions.ChannelClosedByBroker, match="404"):
        channel.queue_declare("q", passive=True)
    other = connection.channel()
    other.confirm_delivery()
    with pytest.raises(exceptions.ChannelClosedByBroker, match="404"):
        other.basic_publish("missing", "", b"1")


# Consuming.


def until_it_raises(call: Callable[[], object]) -> BaseException:
    """What a call raises that does not wait; it may take some calls."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            call()
        except pika.exceptions.AMQPError as error:
            return error
    raise AssertionError("it never raised")


def test_publishing_without_confirms_hears_of_the_channels_end(
    connection: BlockingConnection, channel: BlockingChannel
) -> None:
    error = until_it_raises(lambda: channel.basic_publish("missing", "", b"1"))
    assert isinstance(error, pika.exceptions.ChannelClosedByBroker)
    assert error.reply_code == 404
    with pytest.raises(pika.exceptions.ChannelWrongStateError):  # it is told once
        channel.basic_publish("", "q", b"1")
    assert connection.is_open


def test_loss_is_told_once_to_whoever_calls_first(amqp_broker: ServedVhost) -> None:
    connection = BlockingConnection(pika.URLParameters(amqp_broker.url))
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare("q", exclusive=True)
    amqp_broker.broker.faults.drop_connections()
    error = until_it_raises(lambda: channel.basic_publish("", "q", b"1"))
    assert isinstance(error, pika.exceptions.StreamLostError)
    for late in (channel, other):
        with pytest.raises(pika.exceptions.ChannelWrongStateError):
            late.basic_publish("", "q", b"1")
    with pytest.raises(pika.exceptions.ConnectionWrongStateError):
        connection.close()


def test_loss_that_nobody_has_noticed_is_told_by_close(amqp_broker: ServedVhost) -> None:
    for close_channel in (True, False):
        connection = BlockingConnection(pika.URLParameters(amqp_broker.url))
        channel = connection.channel()
        amqp_broker.broker.faults.drop_connections()
        amqp_broker.broker.wait_until(lambda broker: not broker.connections())
        time.sleep(0.05)  # after a pause a call looks first
        with pytest.raises(pika.exceptions.StreamLostError):
            (channel if close_channel else connection).close()
        assert connection.is_closed


def test_consume_goes_on_where_it_was_left_until_it_is_cancelled(channel: BlockingChannel) -> None:
    put(channel, "1", "2", "3")
    for method, properties, body in channel.consume("q", inactivity_timeout=TIMEOUT):
        assert (method.routing_key, properties.headers, body) == ("q", None, b"1")
        channel.basic_ack(method.delivery_tag)
        break
    with pytest.raises(ValueError, match="different params"):
        next(iter(channel.consume("q", auto_ack=True)))
    _, _, body = next(iter(channel.consume("q", inactivity_timeout=TIMEOUT)))
    assert body == b"2"
    assert channel.get_waiting_message_count() == 1
    assert channel.cancel() == 1
    assert channel.cancel() == 0
    channel.basic_recover(True)
    assert holds(channel, 2)


def test_ctrl_c_leaves_the_consumer_as_it_does_in_pika(channel: BlockingChannel) -> None:
    put(channel, "1", "2", "3")

    def interrupt() -> None:
        for method, _, _ in channel.consume("q", inactivity_timeout=TIMEOUT):
            channel.basic_ack(method.delivery_tag)
            signal.raise_signal(signal.SIGINT)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert channel.queue_declare("q", passive=True).method.consumer_count == 1
        assert len(channel.consumer_tags) == 1
    _, _, body = next(iter(channel.consume("q", inactivity_timeout=TIMEOUT)))
    assert body == b"3"
    channel.cancel()
    assert channel.queue_declare("q", passive=True).method.consumer_count == 0


def test_inactivity_is_three_none_and_in_0_x_one(channel: BlockingChannel) -> None:
    assert next(iter(channel.consume("q", inactivity_timeout=0.01))) == (None, None, None)
    channel.cancel()
    assert next(iter(channel.consume("q", no_ack=False, inactivity_timeout=0.01))) is None


def test_consume_ends_when_the_broker_cancels(connection: BlockingConnection) -> None:
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare("doomed", exclusive=True)
    connection.call_later(0.05, lambda: other.queue_delete("doomed"))
    assert list(channel.consume("doomed")) == []


def test_start_consuming_returns_when_the_last_consumer_is_gone(
    connection: BlockingConnection, channel: BlockingChannel
) -> None:
    calls: list[object] = []
    channel.add_on_cancel_callback(lambda frame: calls.append(frame.method.consumer_tag))
    put(channel, "1")

    def on_message(ch: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        calls.append(body)
        connection.process_data_events(0.01)
        with pytest.raises(exceptions.ReentrancyError):
            ch.start_consuming()
        ch.basic_ack(method.delivery_tag)
        connection.channel().queue_delete("q")

    tag = channel.basic_consume("q", on_message)
    with pytest.raises(exceptions.DuplicateConsumerTag):
        channel.basic_consume("q", on_message, consumer_tag=tag)
    channel.start_consuming()
    assert calls == [b"1", tag]


def test_closing_inside_a_callback_ends_consuming(
    connection: BlockingConnection, channel: BlockingChannel
) -> None:
    got: list[bytes] = []
    put(channel, "1", "2")

    def on_message(ch: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        got.append(body)
        ch.close()

    channel.basic_consume("q", on_message)
    channel.start_consuming()
    assert got == [b"1"]
    other = connection.channel()
    connection.call_later(0.02, connection.close)
    other.basic_consume("q", lambda *_: None)
    other.start_consuming()
    assert connection.is_closed


def test_exception_of_a_callback_leaves_start_consuming(channel: BlockingChannel) -> None:
    put(channel, "1", "2")
    channel.basic_consume("q", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        channel.start_consuming()
    channel.stop_consuming()
    assert holds(channel, 1)


def test_bad_acknowledgement_ends_consuming_with_the_brokers_reason(
    channel: BlockingChannel,
) -> None:
    put(channel, "1")
    channel.basic_consume("q", lambda ch, *_: ch.basic_ack(99))
    with pytest.raises(exceptions.ChannelClosedByBroker, match="406"):
        channel.start_consuming()


def test_loss_of_the_connection_ends_consuming(amqp_broker: ServedVhost) -> None:
    for cut, kind in (
        (amqp_broker.broker.faults.drop_connections, exceptions.StreamLostError),
        (amqp_broker.broker.faults.close_connections, exceptions.ConnectionClosedByBroker),
    ):
        connection = BlockingConnection(pika.URLParameters(amqp_broker.url))
        channel = connection.channel()
        channel.queue_declare("q")
        channel.basic_consume("q", lambda *_: None)
        connection.call_later(0.05, cut)
        with pytest.raises(kind):
            channel.start_consuming()
        assert connection.is_closed


def test_cancelled_consumer_hands_back_what_it_had(channel: BlockingChannel) -> None:
    put(channel, "1", "2")
    tag = channel.basic_consume("q", lambda *_: None, auto_ack=True)
    channel.queue_declare("q", passive=True)
    left = channel.basic_cancel(tag)
    assert [body for _, _, body in left] == [b"1", b"2"]
    put(channel, "3")
    channel.basic_cancel(channel.basic_consume("q", lambda *_: None))
    assert holds(channel, 1)
    method, _, body = channel.basic_get("q", auto_ack=True)
    assert (method.NAME, method.message_count, body) == ("Basic.GetOk", 0, b"3")
    assert channel.basic_get("q") == (None, None, None)


@pytest.mark.parametrize("is_busy", [False, True])
def test_signal_handler_ends_consuming(
    connection: BlockingConnection, channel: BlockingChannel, is_busy: bool
) -> None:
    for _ in range(5):

        def on_message(ch: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
            ch.basic_ack(method.delivery_tag)
            if is_busy:
                ch.basic_publish("", "q", body)

        before = signal.signal(signal.SIGALRM, lambda *_: channel.stop_consuming())
        try:
            put(channel, "1", "2", "3")
            channel.basic_consume("q", on_message)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            channel.start_consuming()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert channel.consumer_tags == []
    assert channel.queue_declare("q", passive=True).method.consumer_count == 0


# Serving.


def test_timers_and_functions_of_other_threads_are_called_while_it_is_served(
    connection: BlockingConnection,
) -> None:
    calls: list[object] = []
    connection.remove_timeout(connection.call_later(0.01, lambda: calls.append("never")))
    connection.call_later(0.02, lambda: calls.append("timer"))
    connection.add_timeout(0.03, lambda: calls.append("0.x"))
    thread = threading.Thread(
        target=connection.add_callback_threadsafe, args=(lambda: calls.append("thread"),)
    )
    thread.start()
    thread.join()
    assert calls == []
    connection.sleep(0.1)
    assert calls == ["thread", "timer", "0.x"]


def test_blocked_connection_is_told_in_both_styles(amqp_broker: ServedVhost) -> None:
    calls: list[object] = []
    with BlockingConnection(pika.URLParameters(amqp_broker.url)) as connection:
        connection.add_on_connection_blocked_callback(
            lambda source, frame: calls.append((source is connection, frame.method.reason))
        )
        connection.add_on_connection_blocked_callback(
            lambda frame: calls.append(frame.method.reason)
        )
        connection.add_on_connection_unblocked_callback(lambda source, frame: calls.append("over"))
        channel = connection.channel()
        channel.queue_declare("q")
        channel.basic_publish("", "q", b"1")
        amqp_broker.broker.faults.block("low on memory")
        channel.basic_publish("", "q", b"2")
        connection.process_data_events(TIMEOUT)
        amqp_broker.broker.faults.unblock()
        connection.process_data_events(TIMEOUT)
    assert calls == [(True, "low on memory"), "low on memory", "over"]


def test_blocked_timeout_is_told_to_who_never_waits(amqp_broker: ServedVhost) -> None:
    parameters = pika.URLParameters(amqp_broker.url)
    parameters.blocked_connection_timeout = 0.2
    connection = BlockingConnection(parameters)
    channel = connection.channel()
    channel.queue_declare("q", exclusive=True)
    amqp_broker.broker.faults.block("low on memory")

    def publish() -> None:
        channel.basic_publish("", "q", b"1")
        time.sleep(0.02)

    assert isinstance(until_it_raises(publish), exceptions.ConnectionBlockedTimeout)
    amqp_broker.broker.faults.unblock()
    assert connection.is_closed


def test_capabilities_are_the_brokers(connection: BlockingConnection) -> None:
    assert connection.basic_nack_supported
    assert connection.publisher_confirms_supported
    assert connection.consumer_cancel_notify_supported
    assert connection.exchange_exchange_bindings_supported


# Other forms.


def test_thread_safe_connection_serves_many_threads(url: str) -> None:
    from evamqp.compat.pika.adapters.thread_safe_connection import Connection

    confirmed: list[int] = []
    announced: list[int] = []
    got: list[tuple[bytes, str]] = []
    closed: list[BaseException] = []
    with Connection(
        pika.URLParameters(url), on_close_callback=lambda _, error: closed.append(error)
    ) as connection:
        channel = connection.channel()
        channel.queue_declare("safe", exclusive=True)

        def on_confirm(frame: Method) -> None:
            tag = frame.method.delivery_tag
            assert frame.method.NAME == "Basic.Ack"
            first = len(confirmed) + 1 if frame.method.multiple else tag
            confirmed.extend(range(first, tag + 1))

        channel.confirm_delivery(on_confirm)

        def on_message(source: Any, method: Any, properties: Any, body: bytes) -> None:
            source.queue_declare("safe", passive=True)  # a waiting call, in the worker
            got.append((body, threading.current_thread().name))
            source.basic_ack(method.delivery_tag)

        channel.basic_consume("safe", on_message)

        def publish() -> None:
            for _ in range(20):
                channel.basic_publish("", "safe", "text", on_publish=announced.append)

        threads = [threading.Thread(target=publish) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deadline = time.monotonic() + TIMEOUT
        while (len(got) < 80 or len(confirmed) < 80) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert channel.next_publish_seq_no == 81
    assert announced == list(range(1, 81))
    assert sorted(set(confirmed)) == list(range(1, 81))
    assert set(got) == {(b"text", "pika-consumer")}
    assert len(got) == 80
    assert [type(error) for error in closed] == [exceptions.ConnectionClosedByClient]
    with pytest.raises(exceptions.ConnectionClosedByClient):
        connection.channel()


def test_thread_safe_connection_is_given_up_when_its_callbacks_are_too_slow(url: str) -> None:
    from evamqp.compat.pika.adapters import thread_safe_connection as module

    closed = threading.Event()
    errors: list[BaseException] = []
    release = threading.Event()

    def on_close(_: Any, error: BaseException) -> None:
        errors.append(error)
        closed.set()

    connection = module.Connection(
        pika.URLParameters(url), None, on_close, work_queue_maxsize=2, work_queue_put_timeout=0.1
    )
    channel = connection.channel()
    channel.queue_declare("slow", exclusive=True)
    channel.basic_consume("slow", lambda *_: release.wait(TIMEOUT), auto_ack=True)
    for _ in range(10):
        channel.basic_publish("", "slow", "text")
    assert closed.wait(TIMEOUT)
    release.set()
    assert [type(error) for error in errors] == [module.WorkQueueFullError]
    connection.close()


@pytest.mark.rabbitmq
def test_thread_safe_request_ends_at_its_timeout_and_its_channel_lives_on(
    rabbit: RabbitNode,
) -> None:
    from evamqp.compat.pika.adapters.thread_safe_connection import Connection

    with Connection(pika.URLParameters(rabbit.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery(lambda frame: None)
        requests: list[tuple[str, Callable[[], object]]] = [
            ("queue_declare", lambda: channel.queue_declare("timed", exclusive=True, timeout=0.05)),
            ("basic_qos", lambda: channel.basic_qos(prefetch_count=1, timeout=0.05)),
            ("basic_get", lambda: channel.basic_get("timed", timeout=0.05)),
            ("channel open", lambda: connection.channel(timeout=0.05)),
        ]
        rabbit.freeze()
        try:
            for name, request in requests:
                with pytest.raises(TimeoutError, match=f"^{name} timed out after 0.05 seconds$"):
                    request()
        finally:
            rabbit.thaw()
        # The late replies are nobody's, and the next request gets its own.
        ok = channel.queue_declare("timed", exclusive=True, timeout=None)
        assert ok.method.queue == "timed"
        assert channel.is_open


def test_thread_safe_connection_that_does_not_open_in_time_raises_timeout_error() -> None:
    from evamqp.compat.pika.adapters.thread_safe_connection import Connection

    told: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        parameters = pika.ConnectionParameters("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(TimeoutError, match=r"timed out after 0\.1 seconds"):
            Connection(parameters, lambda _, error: told.append(error), timeout=0.1)
    assert [type(error) for error in told] == [TimeoutError]
    for bad in ({"work_queue_put_timeout": None}, {"shutdown_drain_timeout": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Connection(parameters, **bad)


@pytest.mark.parametrize("whole", [False, True])
def test_thread_safe_close_lets_waiting_callbacks_acknowledge(url: str, whole: bool) -> None:
    from evamqp.compat.pika.adapters.thread_safe_connection import Connection

    connection = Connection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare("kept", durable=True)
    for _ in range(5):
        channel.basic_publish("", "kept", "text")
    started, got = threading.Event(), []

    def on_message(source: Any, method: Any, properties: Any, body: bytes) -> None:
        started.set()
        time.sleep(0.05)
        got.append(body)
        source.basic_ack(method.delivery_tag)

    channel.basic_consume("kept", on_message)
    assert started.wait(TIMEOUT)
    (connection if whole else channel).close()
    connection.close()
    with BlockingConnection(pika.URLParameters(url)) as check:
        left = check.channel().queue_delete
        declared = check.channel().queue_declare("kept", durable=True)
        assert declared.method.message_count == 5 - len(got)
        left("kept")


def test_handler_that_works_longer_than_the_heartbeat_keeps_its_connection(
    amqp_broker: ServedVhost,
) -> None:
    parameters = pika.URLParameters(amqp_broker.url)
    parameters.heartbeat = 1
    with BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        channel.basic_publish("", "q", "1")

        def on_message(ch: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
            time.sleep(4)
            ch.basic_ack(method.delivery_tag)
            ch.stop_consuming()

        channel.basic_consume("q", on_message)
        channel.start_consuming()
        assert channel.queue_declare("q", passive=True).method.message_count == 0
