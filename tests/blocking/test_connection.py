"""The blocking connection: how it begins and ends, its timers, forks and signals."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import threading
import time

import pytest

import evamqp.blocking
from evamqp.blocking import Channel, Connection
from evamqp.testing.fixtures import ServedVhost
from rabbitmq_node import RabbitNode
from tests.conftest import Certificates

TIMEOUT = 10.0


def test_connect_raises_why_it_could_not(amqp_broker: ServedVhost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(evamqp.ConnectFailed):
        evamqp.blocking.connect(f"amqp://127.0.0.1:{port}")
    wrong = evamqp.Parameters.from_url(
        amqp_broker.url, credentials=evamqp.Credentials("guest", "wrong")
    )
    with pytest.raises(evamqp.AuthenticationFailed):
        evamqp.blocking.connect(wrong)
    with pytest.raises(evamqp.BadArgument):
        evamqp.blocking.connect(amqp_broker.url, on_message=print)  # type: ignore[call-arg]
    with pytest.raises(evamqp.BadArgument):
        evamqp.blocking.connect("http://localhost")


def test_connect_tries_a_list_in_order(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with evamqp.blocking.connect([f"amqp://127.0.0.1:{port}", url]) as connection:
        assert connection.is_open
        wanted = evamqp.Parameters.from_url(url, stall_warning=None)  # which does not apply here
        assert connection.parameters == wanted
    assert not connection.is_open


@pytest.mark.rabbitmq
def test_everything_works_over_tls(rabbit: RabbitNode, certificates: Certificates) -> None:
    target = evamqp.Parameters.from_url(
        rabbit.url_of("/", tls=True), cacertfile=certificates.authority
    )
    with evamqp.blocking.connect(target) as connection:
        channel = connection.channel()
        channel.queue_declare("tls", exclusive=True)
        body = bytes(3 * 1024 * 1024)
        channel.basic_publish("", "tls", body)
        channel.publish("", "tls", b"small")
        bodies = [m.body for m in channel.consume("tls", auto_ack=True, inactivity_timeout=1)]
        assert [len(each) for each in bodies] == [len(body), 5]


def test_loss_raises_in_whoever_never_waits(amqp_broker: ServedVhost) -> None:
    with evamqp.blocking.connect(amqp_broker.url) as connection:
        channel = connection.channel()
        channel.queue_declare("q", exclusive=True)
        amqp_broker.broker.faults.drop_connections()

        def publish_for_long() -> None:
            deadline = time.monotonic() + TIMEOUT
            while time.monotonic() < deadline:
                channel.basic_publish("", "q", b"1")

        with pytest.raises(evamqp.WrongState):
            publish_for_long()
        assert not connection.is_open


def test_loss_raises_in_whoever_waits(amqp_broker: ServedVhost) -> None:
    reasons: list[evamqp.ConnectionClosed] = []
    connection = evamqp.blocking.connect(
        amqp_broker.url, on_close=lambda connection, reason: reasons.append(reason)
    )
    channel = connection.channel()
    channel.queue_declare("q")
    channel.publish("", "q", b"1")
    messages = iter(channel.consume("q", auto_ack=True))
    assert next(messages).body == b"1"
    amqp_broker.broker.faults.drop_connections()
    with pytest.raises(evamqp.ConnectionClosed):
        next(messages)
    assert not connection.is_open
    assert [reason.by for reason in reasons] == ["network"]
    with pytest.raises(evamqp.ConnectionClosed):
        connection.process_events(None)
    with pytest.raises(evamqp.WrongState):
        channel.basic_ack(1)
    connection.close()


def test_timers_fire_in_order_while_the_caller_sleeps(connection: Connection) -> None:
    calls: list[int] = []
    connection.call_later(0.04, lambda: calls.append(2))
    connection.call_later(0.02, lambda: calls.append(1))
    connection.call_later(0.03, lambda: calls.append(0)).cancel()
    cancelled_when_due = connection.call_later(0, lambda: calls.append(-1))
    connection.channel()
    cancelled_when_due.cancel()
    connection.sleep(0.1)
    assert calls == [1, 2]


def test_function_of_another_thread_is_called_by_the_one_that_waits(
    connection: Connection,
) -> None:
    callers: list[int] = []
    thread = threading.Thread(
        target=connection.call_soon_threadsafe,
        args=(lambda: callers.append(threading.get_ident()),),
    )
    thread.start()
    connection.process_events(TIMEOUT)
    thread.join()
    assert callers == [threading.get_ident()]


def test_process_events_without_timeout_takes_what_is_there(
    connection: Connection, channel: Channel
) -> None:
    got: list[bytes] = []
    channel.basic_consume("q", lambda message: got.append(message.body), auto_ack=True)
    channel.publish("", "q", b"1")
    deadline = time.monotonic() + TIMEOUT
    while not got and time.monotonic() < deadline:
        connection.process_events()
        time.sleep(0.01)
    assert got == [b"1"]
    with connection.channel() as other:
        other.basic_publish("", "q", b"2")
        while len(got) < 2 and time.monotonic() < deadline:
            connection.process_events(0)
            time.sleep(0.01)
    assert got == [b"1", b"2"]


def test_alarm_is_told_and_publishing_goes_on_after_it(amqp_broker: ServedVhost) -> None:
    calls: list[str] = []
    with evamqp.blocking.connect(
        amqp_broker.url,
        on_blocked=lambda connection, reason: calls.append(reason),
        on_unblocked=lambda connection: calls.append("over"),
    ) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        channel.publish("", "q", b"1")
        amqp_broker.broker.faults.block("low on memory")
        channel.basic_publish("", "q", b"2")
        connection.process_events(TIMEOUT)
        assert connection.is_blocked
        threading.Timer(0.05, amqp_broker.broker.faults.unblock).start()
        channel.publish("", "q", b"3")
        connection.process_events(TIMEOUT)
        assert calls == ["low on memory", "over"]


def test_forked_child_gets_a_clear_error_and_the_parent_goes_on(
    connection: Connection, channel: Channel
) -> None:
    messages = channel.consume("q", inactivity_timeout=0.1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        said = []
        for call in (
            lambda: channel.publish("", "q", b"child"),
            lambda: connection.process_events(0),
            lambda: connection.call_soon_threadsafe(print),
            lambda: next(messages),
            connection.close,
        ):
            try:
                call()
                said.append("nothing")
            except evamqp.WrongThread as error:
                said.append("forked" if "forked child" in str(error) else str(error))
        connection.__exit__(None, None, None)
        os.write(writer, " ".join(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        assert answers.read() == "forked forked forked forked forked"
    channel.publish("", "q", b"parent")
    assert [message.body for message in messages] == [b"parent"]


def test_fork_while_another_thread_waits_leaves_the_child_no_deadlock(
    connection: Connection, channel: Channel
) -> None:
    thread = threading.Thread(target=connection.sleep, args=(0.3,))
    thread.start()
    child = os.fork()
    if child == 0:  # pragma: no cover
        signal.alarm(5)
        try:
            channel.publish("", "q", b"child")
        except evamqp.WrongThread:
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    thread.join()


class Interrupt(KeyboardInterrupt):
    """What the signal handlers of these tests raise."""


@pytest.fixture
def interrupt() -> object:
    """SIGALRM raises Interrupt."""

    def raise_it(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, raise_it)
    yield None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("interrupt")
def test_interrupted_wait_leaves_the_connection_usable(
    connection: Connection, channel: Channel
) -> None:
    for wait in (
        lambda: connection.process_events(TIMEOUT),
        lambda: connection.sleep(TIMEOUT),
        lambda: next(iter(channel.consume("q"))),
    ):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupt):
            wait()
        channel.publish("", "q", b"1")
        assert channel.queue_purge("q") == 1
    assert channel.consumer_tags == []


def test_a_ctrl_c_while_no_python_code_runs_ends_the_wait(connection: Connection) -> None:
    # As in the loop's own tests; here a sleep has no wake-up for signals at first.
    too_late: list[int] = []
    connection.call_later(TIMEOUT / 2, lambda: too_late.append(1))
    connection._loop.adapter.call_soon(_thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt):
        connection.sleep(TIMEOUT)
    assert not too_late


@pytest.mark.usefixtures("interrupt")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment_leave_it_usable_or_closed(url: str) -> None:
    deadline = time.monotonic() + 2.0
    round_trips = interrupts = 0
    connection = evamqp.blocking.connect(url)
    # A machine under load makes fewer rounds in that time.
    while time.monotonic() < deadline or min(round_trips, interrupts) <= 50:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.003 + interrupts % 7 / 1000)
                channel = connection.channel()
                channel.queue_declare("busy", durable=True)
                for _ in range(100):  # Python drops what is raised inside a finalizer
                    channel.publish("", "busy", b"1")
                    round_trips += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupts += 1
        except evamqp.AmqpError:
            assert not connection.is_open
            connection = evamqp.blocking.connect(url)
    connection.close()
    with evamqp.blocking.connect(url) as fresh:
        fresh.channel().queue_delete("busy")


def test_a_program_that_is_away_is_no_loop_that_stands_still(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with evamqp.blocking.connect(f"{url}?heartbeat=2&stall_warning=0.01") as connection:
        channel = connection.channel()
        channel.queue_declare("q", exclusive=True)
        time.sleep(1.5)
        channel.queue_declare("q", exclusive=True)
    assert "stood still" not in caplog.text


def test_signal_handler_may_call_while_its_thread_waits(
    connection: Connection, channel: Channel
) -> None:
    counts: list[int] = []
    before = signal.signal(
        signal.SIGALRM,
        lambda *_: counts.append(channel.queue_declare("q", passive=True).message_count),
    )
    try:
        channel.publish("", "q", b"1")
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        connection.sleep(0.3)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert counts == [1]
    assert channel.queue_purge("q") == 1
