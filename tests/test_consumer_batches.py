"""What a Consumer's batches and its live prefetch promise, on the memory loop."""

from __future__ import annotations

from typing import Any

import pytest

import evamqp
from evamqp.errors import BadArgument, BadType, WrongState
from tests.recovery.stage import LONG, Stage, numbered

WAIT = 0.5


class Batches:
    """An on_message that notes the bodies of each list, and may run until it is told to end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.bodies: list[list[bytes]] = []
        self.messages: list[evamqp.Message] = []
        self.ends: list[Any] = []
        self.error: BaseException | None = None
        self.is_slow = False
        self.acked_before_raising = 0

    def __call__(self, messages: list[evamqp.Message]) -> object:
        self.bodies.append([message.body for message in messages])
        self.messages += messages
        for message in messages[: self.acked_before_raising]:
            message.ack()
        if self.error is not None:
            raise self.error
        return self._wait() if self.is_slow else None

    async def _wait(self) -> None:
        end = self._stage.adapter.create_future()
        self.ends.append(end)
        await end.future


@pytest.fixture
def stage() -> Stage:
    """A memory loop with a scripted broker that has a queue ``work``."""
    stage = Stage()
    stage.server.fill("work")
    return stage


@pytest.fixture
def work(stage: Stage) -> Batches:
    """A handler of batches."""
    return Batches(stage)


def batching(stage: Stage, work: Batches, **options: Any) -> evamqp.Consumer:
    consumer = stage.consumer(work, **{"batch": 3, "batch_wait": WAIT, **options})
    stage.turn()
    return consumer


# --- batches ------------------------------------------------------------------------------------


def test_full_batches_come_at_once_and_the_rest_after_the_wait(stage: Stage, work: Batches) -> None:
    consumer = batching(stage, work)
    stage.server.fill("work", *numbered(7))
    stage.turn()
    assert work.bodies == [numbered(3), numbered(3, 3)]
    stage.advance(WAIT)
    assert work.bodies[2:] == [[b"6"]]
    assert stage.server.settled == [("acked", body) for body in numbered(7)]
    assert consumer.handled == 7


def test_a_batch_begun_after_another_waits_anew(stage: Stage, work: Batches) -> None:
    batching(stage, work)
    stage.server.fill("work", b"0")
    stage.advance(0.8 * WAIT)
    stage.server.fill("work", b"1", b"2")  # full: its timer must not cut the next one short
    stage.turn()
    stage.server.fill("work", b"3")
    stage.advance(0.8 * WAIT)
    assert work.bodies == [numbered(3)]
    stage.advance(0.2 * WAIT)
    assert work.bodies == [numbered(3), [b"3"]]


@pytest.mark.parametrize(
    ("policy", "fate"), [("reject", "dropped"), ("requeue", "requeued"), ("leave", None)]
)
def test_what_a_failed_batch_has_not_settled_meets_the_policy(
    stage: Stage, work: Batches, policy: Any, fate: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    work.error = ValueError("mine")
    work.acked_before_raising = 1
    batching(stage, work, on_error=policy)
    stage.server.fill("work", *numbered(3))
    stage.advance(0.1)
    rest = [] if fate is None else [(fate, b"1"), (fate, b"2")]
    assert sorted(stage.server.settled[:3]) == sorted([("acked", b"0"), *rest])
    assert caplog.text.count("raised ValueError") == 1


def test_no_more_batches_run_than_prefetch_allows(stage: Stage, work: Batches) -> None:
    work.is_slow = True
    consumer = batching(stage, work, prefetch=7)
    stage.server.fill("work", *numbered(12))
    stage.advance(WAIT)
    assert len(work.ends) == 2
    assert consumer.at_work == 6
    work.ends[0].resolve(None)
    stage.advance(WAIT)
    assert len(work.ends) == 3
    assert stage.server.settled == [("acked", body) for body in numbered(3)]


def test_what_was_collected_when_the_connection_was_lost_is_forgotten(
    stage: Stage, work: Batches
) -> None:
    batching(stage, work)
    stage.server.fill("work", *numbered(2))
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    assert work.bodies == [numbered(2)]  # delivered again, and not mixed with the former ones
    assert all(message.redelivered for message in work.messages)


def test_close_returns_what_was_collected_and_lets_a_batch_finish(
    stage: Stage, work: Batches
) -> None:
    work.is_slow = True
    consumer = batching(stage, work)
    stage.server.fill("work", *numbered(4))
    stage.turn()
    closing = consumer.close()
    stage.turn()
    assert stage.server.settled == [("requeued", b"3")]
    work.ends[0].resolve(None)
    assert stage.ended(closing) == 0
    assert stage.server.settled[1:] == [("acked", body) for body in numbered(3)]


def test_close_with_a_timeout_counts_the_messages_of_cancelled_batches(
    stage: Stage, work: Batches
) -> None:
    work.is_slow = True
    consumer = batching(stage, work)
    stage.server.fill("work", *numbered(3))
    stage.turn()
    closing = consumer.close(timeout=1)
    stage.advance(2)
    assert stage.ended(closing) == 3


def test_a_handler_of_batches_may_await_the_close_of_its_consumer(
    stage: Stage, work: Batches
) -> None:
    async def close(messages: list[evamqp.Message]) -> None:
        await consumer.close()

    consumer = stage.consumer(close, batch=3)
    stage.turn()
    stage.server.fill("work", *numbered(3))
    stage.advance(LONG)
    assert stage.server.settled == [("acked", body) for body in numbered(3)]
    assert stage.ended(consumer.close()) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"batch": 0}, BadArgument),
        ({"batch": 8, "prefetch": 7}, BadArgument),
        ({"batch": "many"}, BadType),
        ({"batch": True}, BadType),
        ({"batch_wait": -1}, BadArgument),
        ({"batch_wait": float("inf")}, BadArgument),
        ({"batch_wait": None}, BadArgument),
        ({"batch_wait": "long"}, BadType),
    ],
)
def test_impossible_batches_are_refused(
    stage: Stage, work: Batches, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        batching(stage, work, **options)
    stage.turn()
    assert stage.server.wires == []


# --- prefetch -----------------------------------------------------------------------------------


class Held:
    """A handler that leaves messages unsettled."""

    def __init__(self) -> None:
        self.messages: list[evamqp.Message] = []

    def __call__(self, message: evamqp.Message) -> None:
        self.messages.append(message)


def holding(stage: Stage, prefetch: int) -> tuple[evamqp.Consumer, Held]:
    held = Held()
    consumer = stage.consumer(held, ack="manual", prefetch=prefetch)
    stage.server.fill("work", *numbered(20))
    stage.turn()
    return consumer, held


def test_a_higher_prefetch_counts_at_once(stage: Stage) -> None:
    consumer, held = holding(stage, 2)
    before = len(held.messages)
    consumer.set_prefetch(8)
    stage.turn()
    assert consumer.prefetch == 8
    assert len(held.messages) >= before + 6
    assert consumer.is_ready
    assert len(stage.server.wires) == 1


def test_a_prefetch_counts_for_connections_to_come(stage: Stage) -> None:
    consumer, _ = holding(stage, 8)
    stage.wire.cut()
    consumer.set_prefetch(3)
    stage.advance(LONG)
    (qos,) = [sent for sent in stage.wire.sent if sent.name == "basic.qos"]
    assert qos.arguments == (0, 3, False)
    assert consumer.is_consuming


def test_a_lower_prefetch_bounds_handlers_and_closes_no_channel(stage: Stage) -> None:
    ends: list[Any] = []

    async def wait(message: evamqp.Message) -> None:
        end = stage.adapter.create_future()
        ends.append(end)
        await end.future

    consumer = stage.consumer(wait, prefetch=8)
    stage.server.fill("work", *numbered(20))
    stage.turn()
    assert consumer.at_work == 8
    consumer.set_prefetch(2)
    stage.turn()
    channels = stage.wire.names.count("channel.open")
    for end in ends[:8]:
        end.resolve(None)
    stage.turn()
    assert consumer.at_work == 2
    while len(stage.server.settled) < 20:
        ends.pop().resolve(None)
        stage.turn()
        assert consumer.at_work <= 2
    assert stage.wire.names.count("channel.open") == channels
    assert {body for fate, body in stage.server.settled if fate == "acked"} == set(numbered(20))


def test_the_same_prefetch_changes_nothing(stage: Stage) -> None:
    consumer, _ = holding(stage, 8)
    sent = len(stage.wire.sent)
    consumer.set_prefetch(8)
    stage.turn()
    assert len(stage.wire.sent) == sent


def test_a_paused_consumer_stays_paused(stage: Stage) -> None:
    consumer, _ = holding(stage, 8)
    consumer.pause()
    consumer.set_prefetch(3)
    stage.turn()
    assert not consumer.is_consuming
    consumer.resume()
    stage.turn()
    assert consumer.is_consuming


@pytest.mark.parametrize(
    ("prefetch", "error"), [(0, BadArgument), (65536, BadArgument), ("x", BadType)]
)
def test_an_impossible_prefetch_changes_nothing(
    stage: Stage, prefetch: Any, error: type[Exception]
) -> None:
    consumer, _ = holding(stage, 8)
    with pytest.raises(error):
        consumer.set_prefetch(prefetch)
    assert consumer.prefetch == 8


def test_prefetch_stays_above_the_batch(stage: Stage, work: Batches) -> None:
    consumer = batching(stage, work)
    with pytest.raises(BadArgument):
        consumer.set_prefetch(2)


def test_a_closed_consumer_takes_no_prefetch(stage: Stage) -> None:
    consumer, _ = holding(stage, 8)
    consumer.close()
    with pytest.raises(WrongState):
        consumer.set_prefetch(3)
