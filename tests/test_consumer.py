"""The Consumer's laws, on the memory loop against a broker that does as it is told."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import evamqp
from evamqp import Topology
from evamqp.adapters.memory import MemoryAdapter
from evamqp.errors import BadArgument, BadType, WrongState, WrongThread
from tests.recovery.stage import HOUR, LONG, URL, Stage, numbered
from tests.support.scripted_broker import Publish


class Work:
    """An on_message that notes bodies, and does what a test wants done.

    Attributes:
        bodies: What came, in order.
        inside: Called with each message; its result is the handler's.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.messages: list[evamqp.Message] = []
        self.inside: Callable[[evamqp.Message], object] = lambda message: None

    def __call__(self, message: evamqp.Message) -> object:
        self.bodies.append(message.body)
        self.messages.append(message)
        return self.inside(message)


class Tasks:
    """Makes handlers that run until they are told to end."""

    def __init__(self, adapter: MemoryAdapter) -> None:
        self._adapter = adapter
        self.running: dict[bytes, Any] = {}  # the promise by which each ends
        self.highest = 0
        self.cancelled: list[bytes] = []

    async def run(self, message: evamqp.Message) -> None:
        promise = self._adapter.create_future()
        self.running[message.body] = promise
        self.highest = max(self.highest, len(self.running))
        try:
            await promise.future
        except GeneratorExit:
            self.cancelled.append(message.body)
            raise
        finally:
            if self.running.get(message.body) is promise:
                del self.running[message.body]

    def end(self, body: bytes) -> None:
        self.running[body].resolve(None)

    def fail(self, body: bytes, error: BaseException) -> None:
        self.running[body].reject(error)


@pytest.fixture
def stage() -> Stage:
    """A memory loop with a scripted broker that has a queue ``work``."""
    stage = Stage()
    stage.server.fill("work")
    return stage


@pytest.fixture
def work() -> Work:
    """A handler that notes what it gets."""
    return Work()


@pytest.fixture
def tasks(stage: Stage) -> Tasks:
    """Handlers that run until they are told to end."""
    return Tasks(stage.adapter)


def consuming(stage: Stage, work: Callable[[evamqp.Message], object], **options: Any) -> Any:
    consumer = stage.consumer(work, **options)
    stage.turn()
    assert consumer.is_consuming
    return consumer


# --- settling -----------------------------------------------------------------------------------


def test_a_message_is_acked_when_its_handler_returns(stage: Stage, work: Work) -> None:
    consumer = consuming(stage, work)
    stage.server.fill("work", b"a", b"b")
    stage.turn()
    assert work.bodies == [b"a", b"b"]
    assert stage.server.settled == [("acked", b"a"), ("acked", b"b")]
    assert consumer.handled == 2


@pytest.mark.parametrize("verb", ["ack", "nack", "reject"])
def test_what_the_handler_settled_is_settled_once(stage: Stage, work: Work, verb: str) -> None:
    work.inside = lambda message: getattr(message, verb)(*(() if verb == "ack" else (False,)))
    consuming(stage, work)
    stage.server.fill("work", b"a")
    stage.turn()
    assert len(stage.server.settled) == 1


def test_manual_acks_leave_settling_to_the_handler(stage: Stage, work: Work) -> None:
    consuming(stage, work, ack="manual")
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == []
    work.messages[0].ack()
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]


@pytest.mark.parametrize(
    ("policy", "settled"),
    [("reject", [("dropped", b"a")]), ("leave", []), ("requeue", [("requeued", b"a")])],
)
def test_a_handler_that_raises_meets_its_policy_and_is_logged(
    stage: Stage, work: Work, policy: Any, settled: Any, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[evamqp.Message] = []

    def fail_once(message: evamqp.Message) -> None:
        if not raised:
            raised.append(message)
            raise ValueError("mine")

    work.inside = fail_once
    consumer = consuming(stage, work, on_error=policy)
    stage.server.fill("work", b"a")
    stage.advance(0.1)
    assert stage.server.settled[:1] == settled
    assert "mine" in caplog.text
    assert "fail_once" in caplog.text
    assert consumer.is_consuming


def test_a_handler_that_settles_and_then_raises_is_not_settled_again(
    stage: Stage, work: Work
) -> None:
    def settle_and_fail(message: evamqp.Message) -> None:
        message.ack()
        raise ValueError("behind the ack")

    work.inside = settle_and_fail
    consuming(stage, work)
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]


def test_prefetch_reaches_the_broker_before_the_consumer(stage: Stage, work: Work) -> None:
    consuming(stage, work, prefetch=7)
    names = stage.wire.names
    assert names.index("basic.qos") < names.index("basic.consume")
    (qos,) = [sent for sent in stage.wire.sent if sent.name == "basic.qos"]
    assert qos.arguments == (0, 7, False)


def test_arguments_are_those_of_the_time_of_the_call(stage: Stage, work: Work) -> None:
    arguments: dict[str, object] = {"x-priority": 5}
    consumer = stage.consumer(work, arguments=arguments)
    arguments["x-priority"] = object()
    stage.turn()
    (consume,) = [sent for sent in stage.wire.sent if sent.name == "basic.consume"]
    assert consume.arguments[-1] == {"x-priority": 5}
    assert consumer.is_consuming


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue": 1}, BadType),
        ({"queue": "q" * 256}, BadArgument),
        ({"prefetch": 0}, BadArgument),
        ({"prefetch": 65536}, BadArgument),
        ({"prefetch": "many"}, BadType),
        ({"prefetch": True}, BadType),
        ({"exclusive": None}, BadType),
        ({"ack": "later"}, BadArgument),
        ({"on_error": "panic"}, BadArgument),
        ({"arguments": {1: 2}}, BadType),
        ({"topology": {}}, BadType),
    ],
)
def test_impossible_settings_are_refused_and_nothing_is_dialled(
    stage: Stage, work: Work, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        stage.consumer(work, **options)
    with pytest.raises(BadType):
        stage.consumer(None)  # type: ignore[arg-type]
    stage.turn()
    assert stage.server.wires == []


# --- coming back --------------------------------------------------------------------------------


def test_it_comes_back_after_a_loss_and_gets_again_what_was_not_acked(
    stage: Stage, work: Work
) -> None:
    consumer = consuming(stage, work, ack="manual", prefetch=2)
    stage.server.fill("work", *numbered(3))
    stage.turn()
    work.messages[0].ack()
    stage.turn()
    assert work.bodies == numbered(3)
    stage.wire.cut()
    stage.advance(LONG)
    assert consumer.is_consuming
    assert work.bodies[3:] == [b"1", b"2"]
    assert all(message.redelivered for message in work.messages[3:])


def test_an_ack_of_a_lost_connection_is_a_counted_no_op(stage: Stage, work: Work) -> None:
    consuming(stage, work, ack="manual")
    stage.server.fill("work", b"a")
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    old, new = work.messages
    assert old.ack() is False
    assert old.channel.connection.stats.stale_acks == 1
    assert new.ack() is True
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]
    assert stage.wire.names.count("channel.close") == 0


def test_it_comes_back_after_a_channel_error(stage: Stage, work: Work) -> None:
    consumer = consuming(stage, work, ack="manual")
    stage.server.fill("work", b"a")
    stage.turn()
    work.messages[0].channel.basic_ack(99)  # unknown: the broker closes the channel
    stage.advance(LONG)
    assert consumer.is_consuming
    assert work.bodies == [b"a", b"a"]
    assert len(stage.server.wires) == 1


def test_it_comes_back_after_its_queue_was_deleted_and_declares_it_again(
    stage: Stage, work: Work
) -> None:
    topology = Topology()
    topology.queue("work", durable=True)
    consumer = consuming(stage, work, topology=topology)
    stage.server.delete_queue("work")
    stage.advance(LONG)
    assert consumer.is_consuming
    stage.server.fill("work", b"a")
    stage.turn()
    assert work.bodies == [b"a"]


def test_it_consumes_again_as_soon_as_a_missing_queue_is_there(stage: Stage, work: Work) -> None:
    stage.server.delete_queue("work")
    consumer = stage.consumer(work)
    stage.advance(HOUR)
    assert not consumer.is_consuming or not stage.server.queues
    attempts = stage.wire.names.count("basic.consume")
    assert 60 < attempts < 600  # every 30 s at the most, 15 s on average
    stage.server.fill("work", b"a")
    stage.advance(LONG)
    assert work.bodies == [b"a"]


def test_it_waits_until_an_exclusive_consumer_leaves(stage: Stage, work: Work) -> None:
    first = consuming(stage, lambda message: None, exclusive=True)
    second = stage.consumer(work, exclusive=True)
    stage.advance(60)
    stage.server.fill("work", b"a")
    stage.turn()
    assert work.bodies == []
    first.close()
    stage.advance(LONG)
    stage.server.fill("work", b"b")
    stage.turn()
    assert work.bodies == [b"b"]
    assert second.is_consuming


def test_its_exclusive_queue_is_declared_again_while_the_broker_still_locks_it(
    stage: Stage, work: Work
) -> None:
    topology = Topology()
    topology.queue("mine", exclusive=True)
    consumer = consuming(stage, work, topology=topology, queue="mine")
    stage.server.keeps_exclusive = True
    stage.wire.cut()
    stage.advance(0.02)
    assert not consumer.is_consuming
    del stage.server.queues["mine"]
    stage.server.keeps_exclusive = False
    stage.advance(1)
    assert consumer.is_consuming
    assert stage.told("on_topology_error") == []


def test_hours_of_losses_do_not_stop_it(stage: Stage, work: Work) -> None:
    consumer = consuming(stage, work)
    for _ in range(50):
        stage.server.down()
        stage.advance(HOUR)
        stage.server.up()
        stage.advance(LONG)
        stage.server.fill("work", b"x")
        stage.turn()
    assert consumer.is_consuming
    assert len(work.bodies) == 50


def test_losses_in_every_state_do_not_stop_it(stage: Stage, work: Work) -> None:
    consumer = stage.consumer(work)
    for bytes_read in range(0, 900, 7):
        stage.advance(LONG)
        if stage.wire.is_up:
            stage.wire.cut()
        stage.turn()
        stage.adapter.accepted[-1].cut_after(bytes_read)
    stage.advance(10 * LONG)
    assert consumer.is_consuming


# --- awaitable handlers -------------------------------------------------------------------------


def test_a_message_is_acked_when_its_awaitable_has_succeeded(stage: Stage, tasks: Tasks) -> None:
    consumer = consuming(stage, tasks.run)
    stage.server.fill("work", b"a", b"b")
    stage.turn()
    assert consumer.at_work == 2
    tasks.end(b"b")
    stage.turn()
    assert stage.server.settled == [("acked", b"b")]
    assert consumer.at_work == 1


def test_an_awaitable_that_fails_meets_the_policy(stage: Stage, tasks: Tasks) -> None:
    consuming(stage, tasks.run)
    stage.server.fill("work", b"a")
    stage.turn()
    tasks.fail(b"a", ValueError("mine"))
    stage.turn()
    assert stage.server.settled == [("dropped", b"a")]


def test_a_handler_may_return_a_request(stage: Stage, work: Work) -> None:
    work.inside = lambda message: message.channel.queue_declare("other")
    consumer = consuming(stage, work)
    stage.server.held.add("queue.declare")
    stage.server.fill("work", b"a")
    stage.turn()
    assert consumer.at_work == 1
    stage.wire.release()
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]


def test_an_awaitable_of_another_loop_is_a_failure_of_the_handler(stage: Stage, work: Work) -> None:
    class Foreign:
        def __await__(self) -> Any:
            raise AssertionError("nobody can await this")

    work.inside = lambda message: Foreign()
    consumer = consuming(stage, work)
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == [("dropped", b"a")]
    assert consumer.at_work == 0
    assert stage.ended(consumer.close()) == 0


def test_no_more_than_prefetch_are_at_work(stage: Stage, tasks: Tasks) -> None:
    consumer = consuming(stage, tasks.run, prefetch=3)
    stage.server.fill("work", *numbered(10))
    stage.turn()
    assert consumer.at_work == 3
    for number in range(10):
        tasks.end(b"%d" % number)
        stage.turn()
    assert tasks.highest == 3
    assert len(stage.server.settled) == 10


def test_early_acks_do_not_let_more_than_prefetch_work(stage: Stage, tasks: Tasks) -> None:
    async def ack_first(message: evamqp.Message) -> None:
        message.ack()
        await tasks.run(message)

    consumer = consuming(stage, ack_first, prefetch=3)
    stage.server.fill("work", *numbered(10))
    stage.turn()
    assert consumer.at_work == 3
    assert len(stage.server.queues["work"].ready) == 4  # three at work, three waiting
    for number in range(10):
        tasks.end(b"%d" % number)
        stage.turn()
    assert tasks.highest == 3
    assert consumer.handled == 10


def test_a_loss_does_not_let_more_than_prefetch_work(stage: Stage, tasks: Tasks) -> None:
    consumer = consuming(stage, tasks.run, prefetch=2)
    stage.server.fill("work", *numbered(2))
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    assert consumer.at_work == 2
    for body in numbered(2):
        tasks.end(body)
    stage.turn()
    assert consumer.at_work == 2  # the redelivered ones
    for body in numbered(2):
        tasks.end(body)
    stage.turn()
    assert stage.server.settled == [("acked", b"0"), ("acked", b"1")]
    assert tasks.highest == 2


def test_what_waits_for_a_handler_when_the_connection_is_lost_is_handled_once(
    stage: Stage, tasks: Tasks
) -> None:
    async def ack_first(message: evamqp.Message) -> None:
        message.ack()
        await tasks.run(message)

    consumer = consuming(stage, ack_first, prefetch=1)
    stage.server.fill("work", *numbered(2))
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    for body in numbered(2):
        tasks.end(body)
        stage.turn()
    assert consumer.handled == 2
    assert tasks.running == {}


def test_an_old_awaitable_that_succeeds_after_a_loss_acks_nothing(
    stage: Stage, tasks: Tasks
) -> None:
    consumer = consuming(stage, tasks.run, prefetch=5)
    stage.server.fill("work", b"a")
    stage.turn()
    old = tasks.running[b"a"]
    stage.wire.cut()
    stage.advance(LONG)
    old.resolve(None)
    stage.turn()
    assert stage.server.settled == []
    assert consumer.at_work == 1
    tasks.end(b"a")
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]


# --- pause and resume ---------------------------------------------------------------------------


def test_pause_takes_nothing_more_and_resume_goes_on(stage: Stage, work: Work) -> None:
    consumer = consuming(stage, work)
    consumer.pause()
    consumer.pause()
    stage.server.fill("work", b"a")
    stage.advance(HOUR)
    assert work.bodies == []
    assert not consumer.is_consuming
    consumer.resume()
    consumer.resume()
    stage.turn()
    assert work.bodies == [b"a"]
    assert stage.wire.names.count("basic.consume") == 2


def test_pause_lasts_over_a_reconnection(stage: Stage, work: Work) -> None:
    consumer = consuming(stage, work)
    consumer.pause()
    stage.wire.cut()
    stage.server.fill("work", b"a")
    stage.advance(LONG)
    assert work.bodies == []
    consumer.resume()
    stage.turn()
    assert work.bodies == [b"a"]


def test_pause_before_the_first_connect_is_legal(stage: Stage, work: Work) -> None:
    consumer = stage.consumer(work)
    consumer.pause()
    stage.advance(LONG)
    assert "basic.consume" not in stage.wire.names
    consumer.resume()
    stage.turn()
    assert consumer.is_consuming


def test_pause_inside_a_handler_gives_back_what_is_under_way(stage: Stage, work: Work) -> None:
    consumer = stage.consumer(work)
    work.inside = lambda message: consumer.pause()
    stage.server.fill("work", *numbered(5))
    stage.advance(1)
    assert work.bodies == [b"0"]
    assert stage.server.queues["work"].bodies == numbered(4, first=1)
    work.inside = lambda message: None
    consumer.resume()
    stage.turn()
    assert work.bodies == numbered(5)


def test_pause_gives_back_what_waits_for_a_handler(stage: Stage, tasks: Tasks) -> None:
    async def ack_first(message: evamqp.Message) -> None:
        message.ack()
        await tasks.run(message)

    consumer = consuming(stage, ack_first, prefetch=1)
    stage.server.fill("work", *numbered(2))
    stage.turn()
    consumer.pause()
    stage.turn()
    assert ("requeued", b"1") in stage.server.settled
    tasks.end(b"0")
    stage.turn()
    assert tasks.running == {}


def test_what_waits_of_a_consumer_that_the_broker_cancelled_is_dropped(
    stage: Stage, tasks: Tasks
) -> None:
    async def ack_first(message: evamqp.Message) -> None:
        message.ack()
        await tasks.run(message)

    consumer = consuming(stage, ack_first, prefetch=1)
    stage.server.fill("work", *numbered(2))
    stage.turn()
    stage.server.time_out("work")
    stage.turn()
    assert consumer.is_consuming
    for number in range(2):
        tasks.end(b"%d" % number)
        stage.turn()
    assert consumer.handled == 2
    assert stage.server.settled[-1] == ("acked", b"1")
    assert tasks.running == {}


def test_resume_after_close_raises(stage: Stage, work: Work) -> None:
    consumer = consuming(stage, work)
    consumer.close()
    with pytest.raises(WrongState):
        consumer.resume()


def test_calls_from_another_thread_raise(stage: Stage, work: Work) -> None:
    consumer = consuming(stage, work)
    caught: list[BaseException] = []

    def attempt() -> None:
        for call in (consumer.pause, consumer.resume, consumer.close):
            try:
                call()
            except WrongThread as error:
                caught.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(caught) == 3


# --- the end ------------------------------------------------------------------------------------


def test_close_lets_the_handlers_finish_and_acks_them(stage: Stage, tasks: Tasks) -> None:
    consumer = consuming(stage, tasks.run)
    stage.server.fill("work", b"a")
    stage.turn()
    closing = consumer.close()
    stage.server.fill("work", b"late")
    stage.turn()
    assert not closing.is_done
    assert b"late" not in tasks.running
    tasks.end(b"a")
    assert stage.ended(closing) == 0
    assert stage.server.settled == [("requeued", b"late"), ("acked", b"a")]
    assert not stage.wire.is_up


def test_close_with_a_timeout_cancels_handlers_and_gives_their_messages_back(
    stage: Stage, tasks: Tasks
) -> None:
    consumer = consuming(stage, tasks.run)
    stage.server.fill("work", b"a", b"b")
    stage.turn()
    closing = consumer.close(timeout=5)
    tasks.end(b"a")
    stage.advance(10)
    assert stage.ended(closing) == 1
    assert tasks.cancelled == [b"b"]
    (ready,) = stage.server.queues["work"].ready
    assert (ready.body, ready.redelivered) == (b"b", True)


def test_handlers_that_resist_being_cancelled_do_not_hinder_the_end(
    stage: Stage, tasks: Tasks
) -> None:
    async def stubborn(message: evamqp.Message) -> None:
        try:
            await tasks.run(message)
        finally:
            raise ValueError("not me")

    consumer = consuming(stage, stubborn)
    stage.server.fill("work", b"a", b"b")
    stage.turn()
    closing = consumer.close(timeout=1)
    stage.advance(2)
    assert stage.ended(closing) == 2


def test_close_is_idempotent_and_every_call_gets_the_same_report(
    stage: Stage, tasks: Tasks
) -> None:
    consumer = consuming(stage, tasks.run)
    stage.server.fill("work", b"a")
    stage.turn()
    requests = [consumer.close(), consumer.close(timeout=1)]
    stage.advance(2)
    requests.append(consumer.close())
    assert [stage.ended(request) for request in requests] == [1, 1, 1]


def test_close_before_the_first_connect_ends_at_once(stage: Stage, work: Work) -> None:
    stage.server.down()
    assert stage.ended(stage.consumer(work).close()) == 0


def test_close_while_the_queue_is_missing_ends(stage: Stage, work: Work) -> None:
    stage.server.delete_queue("work")
    consumer = stage.consumer(work)
    stage.advance(60)
    assert stage.ended(consumer.close()) == 0


@pytest.mark.parametrize("what", ["consumer", "timeout", "connection", "reconnector", "channel"])
def test_closing_inside_a_handler_is_legal(stage: Stage, work: Work, what: str) -> None:
    consumer = stage.consumer(work)
    closed: list[object] = []

    def close(message: evamqp.Message) -> None:
        if closed:
            return
        closed.append(what)
        if what == "consumer":
            consumer.close()
        elif what == "timeout":
            consumer.close(timeout=0)
        elif what == "connection":
            message.channel.connection.close()
        elif what == "channel":
            message.channel.close()
        else:
            consumer.reconnector.close()

    work.inside = close
    stage.server.fill("work", *numbered(3))
    stage.advance(LONG)
    if what in ("connection", "channel"):
        assert consumer.is_consuming
        assert stage.server.queues["work"].bodies == []
    else:
        assert stage.ended(consumer.close()) == 0
        assert stage.server.queues["work"].bodies[-2:] == [b"1", b"2"]


def test_an_async_handler_may_await_the_close_of_its_consumer(stage: Stage, tasks: Tasks) -> None:
    steps: list[str] = []

    async def handle(message: evamqp.Message) -> None:
        if message.body == b"stop":
            steps.append(f"closed, {await consumer.close()} cancelled")
            await tasks.run(message)
        else:
            await tasks.run(message)

    consumer = consuming(stage, handle)
    stage.server.fill("work", b"a", b"stop", b"stop")
    stage.turn()
    assert steps == []
    tasks.end(b"a")
    stage.turn()
    assert steps == ["closed, 0 cancelled"] * 2
    assert stage.wire.is_up  # they have not ended yet
    for promise in list(tasks.running.values()):
        promise.resolve(None)
    stage.turn()


def test_a_handler_that_awaits_its_consumers_close_is_acked(stage: Stage) -> None:
    async def handle(message: evamqp.Message) -> None:
        await consumer.close()

    consumer = consuming(stage, handle)
    stage.server.fill("work", b"stop")
    stage.turn()
    assert stage.ended(consumer.close()) == 0
    assert stage.server.settled == [("acked", b"stop")]
    assert not stage.wire.is_up


def test_a_handler_may_return_the_close_of_its_consumer(stage: Stage) -> None:
    consumer = consuming(stage, lambda message: consumer.close())
    stage.server.fill("work", b"stop")
    stage.turn()
    assert stage.ended(consumer.close()) == 0
    assert stage.server.settled == [("acked", b"stop")]


def test_a_close_within_a_handler_keeps_its_timeout(stage: Stage, tasks: Tasks) -> None:
    ends: list[int] = []

    async def handle(message: evamqp.Message) -> None:
        if message.body == b"stop":
            ends.append(await consumer.close(timeout=5))
        await tasks.run(message)

    consumer = consuming(stage, handle)
    stage.server.fill("work", b"a", b"stop")
    stage.advance(10)
    assert stage.ended(consumer.close()) == 2
    assert tasks.cancelled == [b"a"]
    assert sorted(stage.server.queues["work"].bodies) == [b"a", b"stop"]


@pytest.mark.parametrize("policy", ["reject", "requeue"])
def test_a_broker_that_ignores_prefetch_does_not_fill_the_memory(
    stage: Stage, tasks: Tasks, policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: evamqp.Message) -> None:
        raise ValueError("mine")

    stage.server.ignores_prefetch = True
    handler = tasks.run if policy == "reject" else fail
    consumer = consuming(stage, handler, prefetch=10, on_error=policy)
    stage.server.fill("work", *numbered(1000))
    for _ in range(20):
        stage.advance(1)
        assert consumer.at_work + consumer._held <= 31
    assert "ignores" in caplog.text
    assert ("channel.close", 506) in [
        (sent.name, *sent.arguments[:1]) for sent in stage.wire.sent if sent.arguments
    ]
    stage.server.ignores_prefetch = False
    stage.ended(consumer.close(timeout=0))
    assert len(stage.server.queues["work"].ready) == 1000


def oversized(stage: Stage, work: Work, **options: Any) -> evamqp.Consumer:
    """A consumer of a queue at whose head is a message that is too large."""
    target = evamqp.Parameters.from_url(URL, body_max=5000)
    stage.server.fill("work", b"x" * 200_000, b"a", b"y" * 5001, b"b")
    return stage.consumer(work, target, **options)


def test_what_is_above_body_max_is_rejected_in_the_end(
    stage: Stage, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = oversized(stage, work, prefetch=1)
    stage.advance(LONG)
    assert work.bodies == [b"a", b"b"]
    verbs = [(verb, len(body)) for verb, body in stage.server.settled]
    assert verbs == [("dropped", 200_000), ("acked", 1), ("dropped", 5001), ("acked", 1)]
    assert stage.wire.names.count("channel.close") == 2
    assert "200000 bytes exceeds body_max" in caplog.text
    assert consumer.is_consuming
    assert len(stage.server.wires) == 1


@pytest.mark.parametrize("policy", ["requeue", "leave"])
def test_what_is_above_body_max_stops_who_rejects_nothing(
    stage: Stage, work: Work, policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = oversized(stage, work, prefetch=1, on_error=policy)
    stage.advance(HOUR)
    assert work.bodies == []
    assert not consumer.is_consuming
    assert stage.wire.names.count("basic.consume") == 2
    assert "until resume()" in caplog.text
    stage.server.queues["work"].ready.pop(0)
    consumer.resume()
    stage.turn()
    assert work.bodies == [b"a"]


def test_a_failed_topology_ends_it(stage: Stage, work: Work, tasks: Tasks) -> None:
    stage.server.refuse("queue.declare", 406)
    topology = Topology("fail")
    topology.queue("work")
    consumer = stage.consumer(work, topology=topology)
    stage.advance(LONG)
    assert not consumer.is_consuming
    assert stage.ended(consumer.close()) == 0
    assert isinstance(stage.ended(consumer.reconnector.wait_closed()), evamqp.TopologyFailed)
    with pytest.raises(WrongState, match="could not declare"):
        consumer.resume()


def test_several_consumers_and_a_publisher_share_one_reconnector(stage: Stage) -> None:
    stage.server.on_publish = Publish.route
    reconnector = stage.reconnector()
    logs = Work(), Work()
    stage.server.fill("other")
    first = stage.consumer(logs[0], reconnector, prefetch=5)
    second = stage.consumer(logs[1], reconnector, queue="other")
    publisher = stage.publisher(reconnector)
    for number in range(10):
        stage.publish(publisher, [b"%d" % number])
        publisher.publish("", "other", b"%d" % number, callback=stage.fates)
        if number == 5:
            stage.turn()
            stage.wire.cut()
        stage.advance(1)
    stage.advance(LONG)
    assert sorted(set(logs[0].bodies)) == numbered(10)
    assert sorted(set(logs[1].bodies)) == numbered(10)
    assert len(stage.fates.of(evamqp.Outcome.CONFIRMED)) == 20
    assert stage.ended(first.close()) == 0
    assert stage.wire.is_up
    stage.ended(publisher.close())
    states = [second.is_consuming]
    stage.ended(reconnector.close())
    assert [*states, second.is_consuming] == [True, False]
    assert not stage.wire.is_up


def test_a_topology_that_comes_late_is_declared_before_its_consumer(
    stage: Stage, work: Work
) -> None:
    reconnector = stage.reconnector()
    stage.server.held.add("queue.declare")
    slow = Topology()
    slow.queue("slow")
    stage.consumer(work, reconnector, topology=slow, queue="slow")
    stage.turn()
    assert reconnector.state.value == "REPLAYING"
    topology = Topology()
    topology.queue("late")
    consumer = stage.consumer(work, reconnector, topology=topology, queue="late")
    stage.server.held.clear()
    stage.wire.release()
    stage.turn()
    assert consumer.is_consuming
    assert stage.wire.names.count("basic.consume") == 2
    assert "late" in stage.server.queues


def test_a_consumer_that_leaves_declares_nothing_more(stage: Stage, work: Work) -> None:
    reconnector = stage.reconnector()
    stage.turn()
    stage.server.refuse("queue.declare", 406)
    topology = Topology()
    topology.queue("never")
    consumer = stage.consumer(work, reconnector, topology=topology, queue="never")
    stage.advance(60)
    assert stage.told("on_topology_error")
    stage.ended(consumer.close())
    stage.events.clear()
    stage.advance(HOUR)
    assert stage.events == []


def test_it_comes_back_when_all_channel_numbers_were_in_use(stage: Stage, work: Work) -> None:
    target = evamqp.Parameters.from_url(URL, channel_max=1)
    reconnector = stage.reconnector(target)
    stage.turn()
    assert reconnector.connection is not None
    channel = reconnector.connection.channel()
    consumer = stage.consumer(work, reconnector)
    stage.advance(60)
    assert not consumer.is_consuming
    channel.close()
    stage.advance(LONG)
    assert consumer.is_consuming


def test_a_closed_consumer_leaves_nothing_behind(stage: Stage, tasks: Tasks) -> None:
    gc.collect()
    gc.disable()
    try:
        topology = Topology()
        topology.queue("work")
        consumer = consuming(stage, tasks.run, topology=topology)
        stage.server.fill("work", b"a", b"b")
        stage.turn()
        tasks.end(b"a")
        stage.wire.cut()
        stage.advance(LONG)
        stage.server.delete_queue("work")
        stage.advance(LONG)
        consumer.close(timeout=1)
        stage.advance(LONG)
        tasks.running.clear()
        gone = weakref.ref(consumer), weakref.ref(consumer.reconnector)
        del consumer
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_an_awaitable_is_distinguished_from_a_plain_result(stage: Stage, work: Work) -> None:
    results: list[object] = [0, "text", [], {"a": 1}, b"", True]
    work.inside = lambda message: results[int(message.body)]
    assert not any(isinstance(result, Awaitable) for result in results)
    consumer = consuming(stage, work)
    stage.server.fill("work", *numbered(len(results)))
    stage.turn()
    assert consumer.handled == len(results)
    assert {verb for verb, _ in stage.server.settled} == {"acked"}


# --- handlers that take long ----------------------------------------------------------------------


def test_a_handler_that_nears_the_brokers_timeout_is_a_warning_once(
    stage: Stage, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = consuming(stage, tasks.run, prefetch=2)
    stage.server.fill("work", b"a", b"b")
    stage.turn()
    stage.advance(19 * 60)
    assert "unacknowledged" not in caplog.text
    stage.advance(11 * 60)
    [record] = [record for record in caplog.records if "unacknowledged" in record.message]
    assert record.levelname == "WARNING"
    assert "queue work" in record.message
    assert "and 1 more" in record.message
    assert "consumer_timeout, 30 minutes by default" in record.message
    stage.advance(HOUR)
    assert caplog.text.count("unacknowledged") == 1
    tasks.end(b"a")
    tasks.end(b"b")
    stage.ended(consumer.close())


def test_handlers_that_end_in_time_are_not_mentioned(
    stage: Stage, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = consuming(stage, tasks.run)
    for body in numbered(10):
        stage.server.fill("work", body)
        stage.turn()
        stage.advance(19 * 60)
        tasks.end(body)
        stage.turn()
    assert "unacknowledged" not in caplog.text
    stage.ended(consumer.close())
