"""One blocking connection for many threads, and the keeper while none of them waits."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

import evamqp.blocking
from evamqp.blocking import Channel, Connection
from evamqp.testing.fixtures import ServedVhost
from rabbitmq_node import RabbitNode, VhostPool

TIMEOUT = 30.0


class Threads:
    """Threads whose failures are told at the end."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, function: Callable[..., object], *arguments: object) -> None:
        def run() -> None:
            try:
                function(*arguments)
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        assert self._errors == []


def publish(channel: Channel, thread: int, messages: int) -> None:
    for number in range(messages):
        channel.publish("", "q", b"%d.%d" % (thread, number))


@pytest.mark.parametrize("shared", [True, False], ids=["one channel", "a channel each"])
def test_sixteen_threads_publish_and_all_is_confirmed(
    connection: Connection, channel: Channel, shared: bool
) -> None:
    threads = Threads()
    for number in range(16):
        own = channel if shared else connection.channel()
        threads.start(publish, own, number, 40)
    threads.join()
    messages = channel.consume("q", auto_ack=True, inactivity_timeout=0.3)
    bodies = [message.body for message in messages]
    assert Counter(bodies) == Counter(b"%d.%d" % (t, n) for t in range(16) for n in range(40))
    for thread in range(16):  # each thread's own order is kept
        own_bodies = [body for body in bodies if body.startswith(b"%d." % thread)]
        assert own_bodies == [b"%d.%d" % (thread, number) for number in range(40)]


def test_threads_consume_and_settle_side_by_side(connection: Connection, channel: Channel) -> None:
    with channel.batch() as batch:
        for number in range(400):
            batch.publish("", "q", b"%d" % number)
    got: list[bytes] = []

    def consume() -> None:
        for message in connection.channel().consume("q", prefetch=5, inactivity_timeout=0.5):
            got.append(message.body)
            message.ack()

    threads = Threads()
    for _ in range(4):
        threads.start(consume)
    threads.join()
    assert Counter(got) == Counter(b"%d" % number for number in range(400))
    assert channel.queue_declare("q", passive=True).message_count == 0


def test_thread_settles_what_another_one_received(connection: Connection, channel: Channel) -> None:
    channel.publish("", "q", b"1")
    message = channel.basic_get("q")
    assert message is not None
    threads = Threads()
    threads.start(message.ack)
    threads.join()
    channel.close()
    assert connection.channel().queue_declare("q", passive=True).message_count == 0


def test_round_trip_is_served_while_another_thread_sleeps_in_the_loop(
    connection: Connection, channel: Channel
) -> None:
    threads = Threads()
    threads.start(connection.sleep, 0.5)
    time.sleep(0.05)
    for _ in range(20):
        channel.publish("", "q", b"1")
    threads.join()
    assert channel.queue_purge("q") == 20


def test_body_of_several_turns_is_sent_while_another_thread_sleeps_in_the_loop(
    connection: Connection, channel: Channel
) -> None:
    def sleep() -> None:
        with pytest.raises(evamqp.ConnectionClosed):
            connection.sleep(TIMEOUT)

    threads = Threads()
    threads.start(sleep)
    time.sleep(0.05)
    started = time.monotonic()
    for _ in range(3):
        channel.publish("", "q", bytes(300_000))
        channel.basic_publish("", "q", bytes(300_000))
    assert time.monotonic() - started < 10  # before the heartbeat wakes the sleeper
    connection.close()
    threads.join()


def test_callbacks_never_come_in_a_thread_of_the_library(
    connection: Connection, channel: Channel
) -> None:
    callers: list[str] = []
    channel.basic_consume("q", lambda _: callers.append(threading.current_thread().name), True)
    threads = Threads()
    for number in range(4):
        threads.start(publish, connection.channel(), number, 10)
    while len(callers) < 40:
        connection.process_events(TIMEOUT)
    threads.join()
    assert set(callers) == {threading.current_thread().name}


def test_close_ends_the_wait_of_every_thread(connection: Connection, channel: Channel) -> None:
    ends: list[evamqp.AmqpError] = []

    def wait(what: Callable[[], object]) -> None:
        try:
            what()
        except evamqp.AmqpError as error:
            ends.append(error)

    threads = Threads()
    threads.start(wait, lambda: connection.process_events(None))
    threads.start(wait, lambda: next(iter(channel.consume("q"))))
    threads.start(wait, lambda: connection.sleep(TIMEOUT))
    time.sleep(0.1)
    connection.close()
    threads.join()
    assert [type(end) for end in ends] == [evamqp.ConnectionClosed] * 3


def test_closed_connection_leaves_no_thread(url: str) -> None:
    before = set(threading.enumerate())
    with evamqp.blocking.connect(url):
        (keeper,) = set(threading.enumerate()) - before
        assert keeper.daemon
    keeper.join(TIMEOUT)
    assert not set(threading.enumerate()) - before


# The keeper.


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_keeper_of_a_connection_that_nobody_has_ends(amqp_broker: ServedVhost) -> None:
    before = set(threading.enumerate())
    target = evamqp.Parameters.from_url(amqp_broker.url, heartbeat=1)
    evamqp.blocking.connect(target).channel()
    deadline = time.monotonic() + TIMEOUT
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before


@pytest.mark.rabbitmq
def test_handler_that_works_longer_than_the_heartbeat_keeps_its_connection(
    rabbit: RabbitNode, vhosts: VhostPool
) -> None:
    vhost = vhosts.take()
    target = evamqp.Parameters.from_url(vhost.url, heartbeat=2)
    with evamqp.blocking.connect(target) as connection:
        assert connection.heartbeat == 2
        channel = connection.channel()
        channel.queue_declare("q", exclusive=True)
        channel.publish("", "q", b"1")
        for message in channel.consume("q"):
            time.sleep(10)  # the broker would hang up after six
            assert connection.is_open
            message.ack()
            break
        assert channel.queue_declare("q", passive=True).message_count == 0
    vhosts.give_back(vhost)


def test_keeper_takes_a_bounded_part_of_a_flood(
    amqp_broker: ServedVhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evamqp.blocking.loop.KEPT_BYTES", 1_000_000)
    body = bytes(100_000)
    target = evamqp.Parameters.from_url(amqp_broker.url, heartbeat=1)
    with evamqp.blocking.connect(target) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        publisher = evamqp.blocking.connect(amqp_broker.url)
        channel.basic_consume("q", lambda message: None, auto_ack=True)
        before = connection.stats.bytes_received
        with publisher, publisher.channel().batch() as batch:
            for _ in range(60):
                batch.publish("", "q", body)
        time.sleep(1.5)
        kept = connection.stats.bytes_received - before
        assert 1_000_000 < kept < 3_000_000
        while connection.stats.bytes_received - before < 6_000_000:
            connection.process_events(TIMEOUT)
        assert connection.is_open


def test_caller_who_returns_takes_the_loop_from_the_keeper(amqp_broker: ServedVhost) -> None:
    target = evamqp.Parameters.from_url(amqp_broker.url, heartbeat=1)
    with evamqp.blocking.connect(target) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        for _ in range(3):
            time.sleep(0.6)  # the keeper has it by now
            channel.publish("", "q", b"1")
            channel.publish("", "q", b"2")
        assert channel.queue_purge("q") == 6
