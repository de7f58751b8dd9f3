"""The one door from other threads, and what a wrong thread or a forked child is told.

Against the real RabbitMQ, since what is at stake is whether messages are lost.
"""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import evamqp
from evamqp.types import Tags
from rabbitmq_node import RabbitNode
from tests.loops.rig import on_sockets
from tests.support.loops import Loop

THREADS = 16
# Publishes of each thread; by hand this is run with ten thousand.
PUBLISHES = int(os.environ.get("EVAMQP_PUBLISHES", "1000"))

pytestmark = pytest.mark.rabbitmq


class Confirmed(evamqp.Handler):
    """Counts what the broker confirmed."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.nacked = 0
        self.errors: list[BaseException] = []

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        if acked:
            self.confirmed += len(tags)
        else:
            self.nacked += len(tags)

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.errors.append(error)


class Client:
    """An open channel in confirm mode, with a queue that goes with its connection."""

    def __init__(self, loop: Loop, url: str) -> None:
        self.loop = loop
        self.handler = Confirmed()
        self.connection = evamqp.connect(url, self.handler, adapter=loop.adapter)
        loop.until(lambda: self.connection.is_open)
        self.channel = self.connection.channel()
        self.channel.confirm_select()
        self.queue = self.ask(self.channel.queue_declare(exclusive=True)).queue

    def ask(self, request: evamqp.Request[Any]) -> Any:
        """The outcome of a request."""
        self.loop.until(lambda: request.is_done)

        async def outcome() -> Any:
            return await request

        return self.loop.run(outcome())

    def publish(self, body: bytes = b"body") -> int:
        return self.channel.basic_publish("", self.queue, body)

    def check(self) -> None:
        """The connection still does what it is for."""
        before = self.handler.confirmed
        self.publish()
        self.loop.until(lambda: self.handler.confirmed == before + 1)
        self.ask(self.channel.queue_purge(self.queue))

    def finish(self) -> None:
        self.ask(self.connection.close())
        assert self.handler.errors == []


@pytest.fixture
def client(loop: Loop, rabbit: RabbitNode) -> Iterator[Client]:
    rabbit.repair()
    client = Client(loop, rabbit.url)
    yield client
    client.finish()


def in_thread(function: Callable[[], object]) -> list[BaseException]:
    """Call a function in another thread; what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


@on_sockets
def test_no_publish_is_lost_on_its_way_through_the_threadsafe_entry(client: Client) -> None:
    gate = threading.Barrier(THREADS)
    bodies: list[bytes] = []

    def publish(body: bytes) -> None:
        bodies.append(body)
        client.publish(body)

    def work(worker: int) -> None:
        gate.wait()
        for number in range(PUBLISHES):
            client.connection.call_soon_threadsafe(partial(publish, b"%d %d" % (worker, number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    total = THREADS * PUBLISHES
    client.loop.until(lambda: client.handler.confirmed == total)
    for thread in threads:
        thread.join()
    assert client.handler.nacked == 0
    assert client.ask(client.channel.queue_purge(client.queue)) == total
    # Each thread's calls were made in its own order.
    for worker in range(THREADS):
        own = [body for body in bodies if body.startswith(b"%d " % worker)]
        assert own == [b"%d %d" % (worker, number) for number in range(PUBLISHES)]


@on_sockets
def test_threadsafe_entry_is_open_while_the_loop_sleeps(client: Client) -> None:
    timer = threading.Timer(
        0.02, lambda: client.connection.call_soon_threadsafe(lambda: client.publish())
    )
    timer.start()
    client.loop.until(lambda: client.handler.confirmed == 1)
    timer.join()


CALLS: dict[str, Callable[[Client], object]] = {
    "connection.channel": lambda client: client.connection.channel(),
    "connection.close": lambda client: client.connection.close(),
    "pause_reading": lambda client: client.connection.pause_reading(),
    "basic.publish": lambda client: client.publish(),
    "queue.declare": lambda client: client.channel.queue_declare(""),
    "queue.purge": lambda client: client.channel.queue_purge("q", nowait=True),
    "basic.ack": lambda client: client.channel.basic_ack(1),
    "wait_for_confirms": lambda client: client.channel.wait_for_confirms(),
    "channel.close": lambda client: client.channel.close(),
}


@on_sockets
def test_call_from_a_wrong_thread_raises_and_changes_nothing(client: Client) -> None:
    for name, call in CALLS.items():
        raised = in_thread(partial(call, client))
        assert [type(error) for error in raised] == [evamqp.WrongThread], name
        assert name in str(raised[0])
        assert "use connection.call_soon_threadsafe" in str(raised[0])
    assert client.connection.is_open
    assert client.channel.is_open
    client.check()


@on_sockets
def test_message_is_not_settled_from_a_wrong_thread(client: Client) -> None:
    client.publish(b"kept")
    client.ask(client.channel.wait_for_confirms())
    message = client.ask(client.channel.basic_get(client.queue))
    for settle in (message.ack, message.nack, message.reject):
        raised = in_thread(settle)
        assert [type(error) for error in raised] == [evamqp.WrongThread]
    assert message.ack()
    client.check()


def told_in_child(function: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What a function finds out in a forked child, which then ends as if it had crashed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told: dict[str, str] = json.loads(pipe.read() or b"{}")
    os.waitpid(child, 0)
    return told


CALLS_IN_CHILD: dict[str, Callable[[Client], object]] = {
    **CALLS,
    "call_soon_threadsafe": lambda client: client.connection.call_soon_threadsafe(print),
}


def refusals(client: Client) -> dict[str, str]:
    """What each call raises here."""
    told = {}
    for name, call in CALLS_IN_CHILD.items():
        try:
            told[name] = f"returned {call(client)!r}"
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    gc.collect()
    return told


@on_sockets
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_is_refused_and_the_parent_goes_on(client: Client) -> None:
    for _ in range(2):
        told = told_in_child(partial(refusals, client))
        assert list(told) == list(CALLS_IN_CHILD)
        for name, text in told.items():
            assert text.startswith("WrongThread: "), name
            assert name in text
            assert "in a forked child" in text
        client.check()
    # Everything that wakes a loop still does: the socket, a timer, a thread.
    fired: list[str] = []
    client.loop.adapter.call_later(0.01, lambda: fired.append("timer"))
    in_thread(lambda: client.connection.call_soon_threadsafe(lambda: fired.append("thread")))
    client.loop.until(lambda: len(fired) == 2)
