"""How a connection comes about and ends: attempts, several brokers, timeouts, alarms."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import evamqp.compat.pika as pika
from evamqp.compat.pika.adapters.select_connection import IOLoop
from evamqp.compat.pika.adapters.utils import connection_workflow as workflow
from evamqp.testing import Broker
from tests.compat.pika.rig import TIMEOUT

exceptions = pika.exceptions


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker().serve() as broker:
        yield broker


def parameters(broker: Broker, **named: Any) -> pika.ConnectionParameters:
    return pika.ConnectionParameters("127.0.0.1", broker.port, **named)


def nobody() -> pika.ConnectionParameters:
    """Where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return pika.ConnectionParameters("127.0.0.1", sock.getsockname()[1])


def play(given: Any, **named: Any) -> tuple[Any, list[Any]]:
    """Connect, close once open, and return the connection and what was told."""
    log: list[Any] = []

    def end(name: str) -> Any:
        def tell(connection: Any, reason: Any) -> None:
            log.append((name, reason))
            connection.ioloop.stop()

        return tell

    def opened(connection: Any) -> None:
        log.append("open")
        connection.close()

    named.setdefault("on_open_callback", opened)
    connection = pika.SelectConnection(
        given, on_open_error_callback=end("error"), on_close_callback=end("closed"), **named
    )
    run(connection.ioloop)
    return connection, log


def run(loop: IOLoop) -> None:
    late = loop.call_later(TIMEOUT, loop.stop)
    started = time.monotonic()
    loop.start()
    late.cancel()
    assert time.monotonic() - started < TIMEOUT, "no end in time"


def test_every_attempt_is_made_with_a_pause_between() -> None:
    target = nobody()
    target.connection_attempts = 3
    target.retry_delay = 0.05
    started = time.monotonic()
    connection, ((name, error),) = play(target)
    assert time.monotonic() - started >= 0.1
    assert (name, connection.is_closed) == ("error", True)
    (failed,) = error.args
    assert isinstance(error, exceptions.AMQPConnectionError)
    assert isinstance(failed, workflow.AMQPConnectionWorkflowFailed)
    assert len(failed.exceptions) == 3
    for each in failed.exceptions:
        assert isinstance(each, workflow.AMQPConnectorSocketConnectError)
        assert isinstance(each.exception, ConnectionRefusedError)


def test_a_broker_that_comes_late_is_found_by_a_later_attempt(broker: Broker) -> None:
    port = broker.port
    broker.faults.stop()
    threading.Timer(0.1, broker.faults.start).start()
    late = pika.ConnectionParameters("127.0.0.1", port, connection_attempts=100, retry_delay=0.05)
    _, log = play(late)
    assert log[0] == "open"


def test_a_refused_login_is_not_tried_again(broker: Broker) -> None:
    bad = pika.PlainCredentials("guest", "wrong")
    _, ((name, error),) = play(parameters(broker, credentials=bad, connection_attempts=5))
    assert name == "error"
    assert type(error) is exceptions.ProbableAuthenticationError


def test_a_silent_peer_is_left_after_the_stack_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        _, ((name, error),) = play(pika.ConnectionParameters("127.0.0.1", port, stack_timeout=0.2))
    assert name == "error"
    assert isinstance(error, exceptions.AMQPConnectionError)


def test_without_error_callback_the_loop_raises() -> None:
    connection = pika.SelectConnection(nobody())
    with pytest.raises(exceptions.AMQPConnectionError):
        connection.ioloop.start()
    assert connection.is_closed


def test_a_close_before_it_is_open_aborts_it(broker: Broker) -> None:
    log: list[Any] = []

    def failed(connection: Any, error: Any) -> None:
        log.append(error)
        connection.ioloop.stop()

    connection = pika.SelectConnection(parameters(broker), on_open_error_callback=failed)
    connection.close(320, "changed my mind")
    assert connection.is_closing
    run(connection.ioloop)
    (error,) = log
    assert isinstance(error, exceptions.ConnectionOpenAborted)
    assert "changed my mind" in str(error)


# --- create_connection


def create(configs: list[Any], **named: Any) -> Any:
    loop = IOLoop()
    results: list[Any] = []

    def done(result: Any) -> None:
        results.append(result)
        loop.stop()

    pika.SelectConnection.create_connection(configs, done, custom_ioloop=loop, **named)
    run(loop)
    (result,) = results
    return result


def test_several_brokers_are_tried_in_turn(broker: Broker) -> None:
    connection = create([nobody(), nobody(), parameters(broker)])
    assert isinstance(connection, pika.SelectConnection)
    assert connection.is_open
    assert connection.params.port == broker.port
    closed: list[Any] = []
    connection.add_on_close_callback(lambda connection, reason: closed.append(reason))
    connection.add_on_close_callback(lambda connection, reason: connection.ioloop.stop())
    connection.close()
    run(connection.ioloop)
    assert [type(reason) for reason in closed] == [exceptions.ConnectionClosedByClient]


def test_a_refused_virtual_host_is_not_the_last_word(broker: Broker) -> None:
    connection = create([parameters(broker, virtual_host="missing"), parameters(broker)])
    assert connection.params.virtual_host == "/"


def test_all_failures_are_told_in_order(broker: Broker) -> None:
    failed = create([nobody(), parameters(broker, virtual_host="missing")])
    assert isinstance(failed, workflow.AMQPConnectionWorkflowFailed)
    first, second = failed.exceptions
    assert isinstance(first, workflow.AMQPConnectorSocketConnectError)
    assert isinstance(second, workflow.AMQPConnectorAMQPHandshakeError)
    assert isinstance(second.exception, exceptions.ProbableAccessDeniedError)


def test_a_workflow_is_aborted_once() -> None:
    loop = IOLoop()
    results: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = pika.ConnectionParameters("127.0.0.1", listener.getsockname()[1])
        going = pika.SelectConnection.create_connection([target], results.append, loop)
        loop.call_later(0.05, going.abort)
        loop.call_later(0.1, loop.stop)
        run(loop)
    assert [type(result) for result in results] == [workflow.AMQPConnectionWorkflowAborted]
    with pytest.raises(workflow.AMQPConnectionWorkflowWrongState):
        going.abort()


def test_asyncio_has_its_native_loop(broker: Broker) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        log: list[Any] = []

        def created(connection: Any) -> None:
            log.append(connection.ioloop is loop)
            connection.add_on_close_callback(lambda _, reason: done.set_result(reason))
            connection.channel(on_open_callback=lambda channel: connection.close())

        pika.AsyncioConnection.create_connection([nobody(), parameters(broker)], created)
        log.append(type(await done))
        return log

    assert asyncio.run(main()) == [True, exceptions.ConnectionClosedByClient]


# --- while it lives


def test_an_alarm_is_told_by_frames_and_ends_a_connection_that_wants_no_waiting(
    broker: Broker,
) -> None:
    log: list[str] = []

    def opened(connection: Any) -> None:
        connection.add_on_connection_blocked_callback(
            lambda same, frame: log.append(f"{same is connection} {frame.method.reason}")
        )
        connection.channel(on_open_callback=publish)

    def publish(channel: Any) -> None:
        broker.faults.block("memory")
        channel.basic_publish("", "q", b"one too many")

    _, told = play(parameters(broker, blocked_connection_timeout=0.1), on_open_callback=opened)
    assert log == ["True memory"]
    ((name, reason),) = told
    assert (name, type(reason)) == ("closed", exceptions.ConnectionBlockedTimeout)


@pytest.mark.parametrize(
    ("wanted", "agreed"), [(None, 60), (0, 0), (600, 600), (lambda connection, offered: 7, 7)]
)
def test_the_programs_heartbeat_counts(broker: Broker, wanted: Any, agreed: int) -> None:
    found: list[int] = []

    def opened(connection: Any) -> None:
        found.append(connection._core.heartbeat)
        connection.close()

    play(parameters(broker, heartbeat=wanted), on_open_callback=opened)
    assert found == [agreed]


@pytest.mark.parametrize(("channel_max", "numbers"), [(0, [1, 2, 3]), (1, [1, 1, 1])])
def test_a_channel_takes_the_number_of_a_closed_one_only_if_there_is_no_other(
    broker: Broker, channel_max: int, numbers: list[int]
) -> None:
    found: list[int] = []

    def again(connection: Any) -> None:
        if len(found) == 3:
            connection.close()
        else:
            connection.channel(on_open_callback=fail)

    def fail(channel: Any) -> None:
        found.append(int(channel))
        connection = channel.connection
        channel.add_on_close_callback(
            lambda channel, reason: connection.ioloop.call_later(0, lambda: again(connection))
        )
        channel.queue_declare("missing", passive=True, callback=lambda frame: None)

    target = parameters(broker)
    if channel_max:
        target.channel_max = channel_max
    connection, _ = play(target, on_open_callback=again)
    connection.ioloop.close()
    assert found == numbers


def test_erased_credentials_are_gone_after_the_login(broker: Broker) -> None:
    credentials: Any = pika.PlainCredentials("guest", "guest", erase_on_connect=True)
    _, log = play(parameters(broker, credentials=credentials))
    assert log[0] == "open"
    assert (credentials.username, credentials.password) == (None, None)


def test_publishing_from_another_thread_is_carried_out_by_the_loop(broker: Broker) -> None:
    def opened(connection: Any) -> None:
        connection.channel(on_open_callback=ready)

    def ready(channel: Any) -> None:
        def work() -> None:
            for number in range(10):
                channel.basic_publish("", "q", str(number))

        def on_message(same: Any, method: Any, properties: Any, body: bytes) -> None:
            got.append(body)
            settle = threading.Thread(target=same.basic_ack, args=(method.delivery_tag,))
            settle.start()
            settle.join()
            if len(got) == 10:
                channel.connection.close()

        got: list[bytes] = []
        channel.queue_declare("q", exclusive=True)
        channel.basic_consume("q", on_message)
        threading.Thread(target=work).start()

    _, log = play(parameters(broker), on_open_callback=opened)
    assert [name for name, _ in log] == ["closed"]
