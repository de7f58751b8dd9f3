"""Recovery on every loop: the same laws over real sockets, with each loop's own awaitables."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

import evamqp
from evamqp import Outcome, Topology
from evamqp.adapters.select import SelectAdapter
from tests.recovery.stage import LONG, numbered
from tests.support.loops import ASYNCIO_LOOPS, LOOPS, Loop, MemoryLoop, opened
from tests.support.scripted_broker import HOST, PORT, Publish, ScriptedBroker

LOCALHOST = "127.0.0.1"
TIMEOUT = 10.0
T = TypeVar("T")


class Rig:
    """One loop and the scripted broker: on the same memory, or on sockets of a thread."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.server = ScriptedBroker()
        self._thread: threading.Thread | None = None
        if isinstance(loop, MemoryLoop):
            self.server.listen(loop.memory)
            self.url = f"amqp://{HOST}:{PORT}/?heartbeat=0"
            return
        self._select = SelectAdapter()
        self.server.listen(self._select, LOCALHOST, 0)
        self.url = f"amqp://{LOCALHOST}:{self.server.port}/?heartbeat=0"
        self._thread = threading.Thread(target=self._select.run, name="scripted broker")
        self._thread.start()

    def broker(self, act: Callable[[ScriptedBroker], T]) -> T:
        """Have the broker do something, where it lives."""
        if self._thread is None:
            return act(self.server)
        results: list[T] = []
        done = threading.Event()

        def run() -> None:
            try:
                results.append(act(self.server))
            finally:
                done.set()

        self._select.call_soon_threadsafe(run)
        assert done.wait(TIMEOUT)
        return results[0]

    def until(self, done: Callable[[], object]) -> None:
        if isinstance(self.loop, MemoryLoop):
            self.loop.memory.advance(LONG)
        self.loop.until(done)

    def finish(self, *clients: evamqp.Publisher | evamqp.Consumer) -> None:
        """Close the user's side."""
        closings: list[evamqp.Request[Any]] = [client.close(timeout=0) for client in clients]
        self.until(lambda: all(closing.is_done for closing in closings))
        closings.clear()  # the loop's helper may keep its condition, and so all of these

    def stop(self) -> None:
        if self._thread is not None:
            self._select.call_soon_threadsafe(self._stop)
            self._thread.join(TIMEOUT)
            assert not self._thread.is_alive()
            self._select.close()

    def _stop(self) -> None:
        self.server.down()
        # The resets are sent on the next turn.
        self._select.call_later(0.01, self._select.stop)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """Every loop in turn."""
    with opened(request.param) as loop:
        yield loop


@pytest.fixture
def rig(loop: Loop) -> Iterator[Rig]:
    """That loop, and the scripted broker."""
    rig = Rig(loop)
    try:
        yield rig
    finally:
        rig.stop()


def topology() -> Topology:
    topology = Topology()
    topology.queue("work", durable=True)
    return topology


def cut(server: ScriptedBroker) -> None:
    for wire in server.wires:
        if wire.is_up:
            wire.cut()


def force_out(server: ScriptedBroker) -> None:
    for wire in server.wires:
        if wire.is_up:
            wire.close(320, "CONNECTION_FORCED")


def close_channels(server: ScriptedBroker) -> None:
    for wire in server.wires:
        for channel in list(wire.channels.values()):
            channel.close()


@pytest.mark.parametrize("fault", [cut, force_out, close_channels])
def test_nothing_is_lost_over_a_fault(rig: Rig, fault: Callable[[ScriptedBroker], None]) -> None:
    rig.server.on_publish = Publish.route
    bodies: list[bytes] = []
    consumer = evamqp.Consumer(
        rig.url,
        "work",
        lambda message: bodies.append(message.body),
        adapter=rig.loop.adapter,
        topology=topology(),
    )
    publisher = evamqp.Publisher(rig.url, adapter=rig.loop.adapter, topology=topology())
    early = [publisher.publish("", "work", body) for body in numbered(20)]
    rig.until(lambda: all(publication.is_done for publication in early))
    late = [publisher.publish("", "work", body) for body in numbered(20, first=20)]
    rig.broker(fault)
    late += [publisher.publish("", "work", body) for body in numbered(20, first=40)]
    rig.until(lambda: publisher.pending == 0)
    rig.until(lambda: set(bodies) == set(numbered(60)))
    assert {publication.outcome for publication in early + late} == {Outcome.CONFIRMED}
    rig.finish(publisher, consumer)


def test_publications_and_closes_are_awaited_in_the_loops_own_way(rig: Rig) -> None:
    rig.server.on_publish = Publish.route

    async def main() -> list[Any]:
        publisher = evamqp.Publisher(rig.url, adapter=rig.loop.adapter, topology=topology())
        first = await publisher.publish("", "work", b"1")
        second = await publisher.publish("", "nowhere", b"2")
        third = publisher.publish("", "work", b"3")
        left = await publisher.close(timeout=5)
        return [first, second, third.outcome, left]

    assert rig.loop.run(main()) == [Outcome.CONFIRMED, Outcome.RETURNED, Outcome.CONFIRMED, []]


def test_async_handlers_work_side_by_side_up_to_prefetch_and_are_acked(rig: Rig) -> None:
    adapter = rig.loop.adapter
    running: dict[bytes, Any] = {}
    highest: list[int] = []

    async def work(message: evamqp.Message) -> None:
        promise = running[message.body] = adapter.create_future()
        highest.append(len(running))
        await promise.future
        if message.body == b"2":
            raise ValueError("mine")

    rig.broker(lambda server: server.fill("work", *numbered(6)))
    consumer = evamqp.Consumer(rig.url, "work", work, adapter=adapter, prefetch=2)
    rig.until(lambda: len(running) == 2)
    for number in range(6):
        body = b"%d" % number
        rig.until(lambda body=body: body in running)  # type: ignore[misc]
        running.pop(body).resolve(None)
    rig.until(lambda: consumer.handled == 6)
    rig.until(lambda: rig.broker(lambda server: len(server.settled)) == 6)
    assert max(highest) == 2
    assert ("dropped", b"2") in rig.server.settled
    assert rig.server.settled.count(("acked", b"1")) == 1
    rig.finish(consumer)


def test_close_cancels_async_handlers_that_take_too_long(rig: Rig) -> None:
    adapter = rig.loop.adapter
    steps: list[str] = []

    async def work(message: evamqp.Message) -> None:
        steps.append("begun")
        try:
            await adapter.create_future().future
        finally:
            steps.append("ended")

    rig.broker(lambda server: server.fill("work", b"x"))
    consumer = evamqp.Consumer(rig.url, "work", work, adapter=adapter)
    rig.until(lambda: steps)
    closing = consumer.close(timeout=0.01)
    rig.until(lambda: closing.is_done)
    rig.until(lambda: steps == ["begun", "ended"])
    assert closing.future is not None
    rig.until(lambda: rig.broker(lambda server: server.queues["work"].bodies) == [b"x"])


def test_a_handler_may_return_the_loops_own_future(rig: Rig) -> None:
    adapter = rig.loop.adapter
    promises: list[Any] = []

    def work(message: evamqp.Message) -> object:
        promises.append(adapter.create_future())
        return promises[-1].future

    rig.broker(lambda server: server.fill("work", b"a", b"b"))
    consumer = evamqp.Consumer(rig.url, "work", work, adapter=adapter)
    rig.until(lambda: len(promises) == 2)
    assert consumer.at_work == 2
    promises[0].resolve(None)
    promises[1].reject(ValueError("mine"))
    rig.until(lambda: rig.broker(lambda server: len(server.settled)) == 2)
    assert sorted(rig.server.settled) == [("acked", b"a"), ("dropped", b"b")]
    rig.finish(consumer)


def test_a_handler_that_returns_what_no_loop_can_await_fails(rig: Rig) -> None:
    class Foreign:
        def __await__(self) -> Any:
            raise ValueError("of no loop")

    rig.broker(lambda server: server.fill("work", b"a"))
    consumer = evamqp.Consumer(rig.url, "work", lambda message: Foreign(), adapter=rig.loop.adapter)
    rig.until(lambda: rig.broker(lambda server: server.settled) == [("dropped", b"a")])
    assert consumer.at_work == 0
    rig.finish(consumer)


@pytest.mark.parametrize("form", ["returned", "awaited", "awaited and returned", "gathered"])
def test_only_a_confirmed_forward_is_success(rig: Rig, form: str) -> None:
    rig.server.on_publish = Publish.route
    publisher = evamqp.Publisher(rig.url, adapter=rig.loop.adapter)

    def forward(message: evamqp.Message) -> evamqp.Publication:
        return publisher.publish("", message.body.decode(), message.body)

    async def handle(message: evamqp.Message) -> object:
        if form == "gathered":
            return [forward(message), forward(message)]
        outcome = await forward(message)
        return outcome if form == "awaited and returned" else None

    rig.broker(lambda server: server.fill("sink"))
    rig.broker(lambda server: server.fill("work", b"sink", b"nowhere"))
    handler = forward if form == "returned" else handle
    consumer = evamqp.Consumer(rig.url, "work", handler, adapter=rig.loop.adapter)
    rig.until(lambda: rig.broker(lambda server: len(server.settled)) == 2)
    assert sorted(rig.server.settled) == [("acked", b"sink"), ("dropped", b"nowhere")]
    rig.finish(consumer, publisher)


def test_a_handler_whose_own_future_is_cancelled_has_not_failed(rig: Rig) -> None:
    adapter = rig.loop.adapter
    futures: list[Any] = []

    async def work(message: evamqp.Message) -> None:
        if not futures:
            futures.append(adapter.create_future().future)
            await futures[0]

    rig.broker(lambda server: server.fill("work", b"a"))
    consumer = evamqp.Consumer(rig.url, "work", work, adapter=adapter)
    rig.until(lambda: futures)
    futures[0].cancel()
    rig.until(lambda: consumer.handled)
    rig.until(lambda: rig.broker(lambda server: len(server.settled)) == 2)
    assert rig.server.settled == [("requeued", b"a"), ("acked", b"a")]
    rig.finish(consumer)


def test_an_async_handler_may_await_the_close_of_its_consumer(rig: Rig) -> None:
    async def handle(message: evamqp.Message) -> None:
        await consumer.close()

    rig.broker(lambda server: server.fill("work", b"stop"))
    consumer = evamqp.Consumer(rig.url, "work", handle, adapter=rig.loop.adapter)
    rig.until(lambda: rig.broker(lambda server: server.settled) == [("acked", b"stop")])
    rig.finish(consumer)


class Pair:
    """A publisher and a consumer, held in one place, so that they can be let go of."""

    def __init__(self, rig: Rig) -> None:
        adapter = rig.loop.adapter
        self.consumer = evamqp.Consumer(
            rig.url, "work", lambda message: None, adapter=adapter, topology=topology()
        )
        self.publisher = evamqp.Publisher(rig.url, adapter=adapter, topology=topology())
        self.publisher.publish("", "work", b"x", timeout=1000)

    @property
    def is_done(self) -> bool:
        return self.publisher.is_writable and not self.publisher.pending

    @property
    def epochs(self) -> int:
        return self.publisher.reconnector.epoch + self.consumer.reconnector.epoch


def test_closed_clients_are_freed_without_the_collector(rig: Rig) -> None:
    rig.server.on_publish = Publish.route
    gc.collect()
    gc.disable()
    try:
        held = [Pair(rig)]
        rig.until(lambda: held[0].is_done and held[0].consumer.handled)
        rig.broker(cut)
        rig.until(lambda: held[0].epochs == 4)
        rig.until(lambda: held[0].is_done and held[0].consumer.is_consuming)
        rig.finish(held[0].publisher, held[0].consumer)
        clients = (held[0].publisher, held[0].consumer)
        references: list[Callable[[], object]] = [weakref.ref(client) for client in clients]
        references += [weakref.ref(client.reconnector) for client in clients]
        held.clear()
        del clients
        rig.until(lambda: not any(reference() for reference in references))
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ASYNCIO_LOOPS)
def test_a_handler_cancelled_before_it_began_leaves_no_coroutine_unawaited(name: str) -> None:
    """As at the end of a program that cancels all tasks."""
    with opened(name) as loop:
        rig = Rig(loop)
        rig.server.fill("work", b"x")
        came = loop.adapter.create_future()

        async def handle(message: evamqp.Message) -> None:
            """Never begun."""

        def on_message(message: evamqp.Message) -> object:
            came.resolve(None)  # before the task of the handler is made, so its waiter is first
            return handle(message)

        consumer = evamqp.Consumer(rig.url, "work", on_message, adapter=loop.adapter)

        async def end() -> None:
            await came.future
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        ended: list[BaseException | None] = []
        loop.adapter.run_awaitable(end(), ended.append)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rig.until(lambda: ended and not consumer.at_work)
            gc.collect()
        assert ended == [None]
        rig.finish(consumer)
        rig.stop()
