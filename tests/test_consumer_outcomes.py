"""What the end of a handler means to its message: forwards, interruptions, repeated failures.

On the memory loop; that the other loops do the same is in tests/recovery/test_loops.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

import evamqp
from evamqp import Outcome
from evamqp.errors import BadType, RequestCancelled
from evamqp.recovery.failures import REMEMBERED, Failures
from tests.recovery.stage import HOUR, Stage, numbered
from tests.support.scripted_broker import Publish

Handler = Callable[[evamqp.Message], object]
Form = Callable[[evamqp.Publisher], Handler]


@pytest.fixture
def stage() -> Stage:
    """A memory loop with a scripted broker that routes, and has a queue ``work``."""
    stage = Stage()
    stage.server.fill("work")
    stage.server.on_publish = Publish.route
    return stage


def consuming(stage: Stage, handler: Handler, **options: Any) -> evamqp.Consumer:
    consumer = stage.consumer(handler, **options)
    stage.turn()
    assert consumer.is_consuming
    return consumer


# --- forwards -----------------------------------------------------------------------------------


def forward(publisher: evamqp.Publisher, message: evamqp.Message) -> evamqp.Publication:
    return publisher.publish("", "next", message.body, timeout=60)


def returning(publisher: evamqp.Publisher) -> Handler:
    return lambda message: forward(publisher, message)


def returning_its_future(publisher: evamqp.Publisher) -> Handler:
    return lambda message: forward(publisher, message).future


def returning_several(publisher: evamqp.Publisher) -> Handler:
    return lambda message: [publisher.publish("", "work", b"x"), forward(publisher, message)]


def awaiting(publisher: evamqp.Publisher) -> Handler:
    async def handle(message: evamqp.Message) -> None:
        await forward(publisher, message)

    return handle


def awaiting_the_first(publisher: evamqp.Publisher) -> Handler:
    async def handle(message: evamqp.Message) -> str:
        await forward(publisher, message)
        await publisher.publish("", "other", b"x")
        return "done"

    return handle


def awaiting_and_returning(publisher: evamqp.Publisher) -> Handler:
    async def handle(message: evamqp.Message) -> Outcome:
        return await forward(publisher, message)

    return handle


def returning_from_a_coroutine(publisher: evamqp.Publisher) -> Handler:
    async def handle(message: evamqp.Message) -> evamqp.Publication:
        return forward(publisher, message)

    return handle


def returning_several_from_a_coroutine(publisher: evamqp.Publisher) -> Handler:
    async def handle(message: evamqp.Message) -> tuple[object, ...]:
        return Outcome.CONFIRMED, forward(publisher, message)

    return handle


FORMS = [
    returning, returning_its_future, returning_several, awaiting, awaiting_the_first,
    awaiting_and_returning, returning_from_a_coroutine, returning_several_from_a_coroutine,
]  # fmt: skip


def confirm(publish: Publish) -> None:
    publish.ack()


def nack(publish: Publish) -> None:
    if publish.routing_key == "next":
        publish.nack()
    else:
        publish.ack()


def give_back(publish: Publish) -> None:
    if publish.routing_key == "next":
        publish.give_back()
    publish.ack()


def refuse(publish: Publish) -> None:
    if publish.routing_key == "next":
        publish.refuse()
    else:
        publish.ack()


def ignore(publish: Publish) -> None:
    if publish.routing_key != "next":
        publish.ack()


ENDS = [
    (confirm, Outcome.CONFIRMED, "acked"),
    (nack, Outcome.NACKED, "dropped"),
    (give_back, Outcome.RETURNED, "dropped"),
    (refuse, Outcome.REFUSED, "dropped"),
    (ignore, Outcome.EXPIRED, "dropped"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("broker", "outcome", "verb"), ENDS)
def test_only_a_confirmed_forward_is_success(
    stage: Stage,
    form: Form,
    broker: Callable[[Publish], object],
    outcome: Outcome,
    verb: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage.server.on_publish = broker
    publisher = stage.publisher()
    consumer = consuming(stage, form(publisher))
    stage.server.fill("work", b"a")
    stage.advance(100)
    assert (verb, b"a") in stage.server.settled
    assert len(stage.server.settled) == 1
    assert (outcome.name in caplog.text) is (verb == "dropped")
    assert consumer.handled == 1
    assert consumer.at_work == 0


@pytest.mark.parametrize("form", [returning, awaiting])
def test_an_abandoned_forward_is_no_success(stage: Stage, form: Form) -> None:
    stage.server.on_publish = ignore
    publisher = stage.publisher()
    consuming(stage, form(publisher), on_error="requeue")
    stage.server.fill("work", b"a")
    stage.turn()
    publisher.close(timeout=1)
    stage.advance(100)
    assert {verb for verb, _ in stage.server.settled} == {"requeued"}


def test_a_handler_that_deals_with_a_failed_forward_returns_what_counts(stage: Stage) -> None:
    publisher = stage.publisher()

    async def handle(message: evamqp.Message) -> Outcome:
        if await publisher.publish("", "nowhere", message.body) is Outcome.CONFIRMED:
            return Outcome.CONFIRMED
        return await publisher.publish("", "fallback", message.body)

    stage.server.fill("fallback")
    consuming(stage, handle)
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]
    assert stage.server.queues["fallback"].bodies == [b"a"]


def test_a_handler_that_deals_with_a_failed_forward_may_settle_its_message(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = stage.publisher()

    async def handle(message: evamqp.Message) -> None:
        await publisher.publish("", "nowhere", message.body)
        message.ack()

    consuming(stage, handle)
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]
    assert "forward" not in caplog.text


def test_a_failed_publish_of_one_handler_is_not_held_against_another(stage: Stage) -> None:
    publisher = stage.publisher()

    async def handle(message: evamqp.Message) -> None:
        await publisher.publish("", "nowhere" if message.body == b"1" else "sink", message.body)

    stage.server.fill("sink")
    consuming(stage, handle)
    stage.server.fill("work", *numbered(3))
    stage.turn()
    assert sorted(stage.server.settled) == [("acked", b"0"), ("acked", b"2"), ("dropped", b"1")]


def a_generator(message: evamqp.Message) -> Iterator[None]:
    yield


async def an_async_generator(message: evamqp.Message) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("function", [a_generator, an_async_generator])
def test_a_handler_that_yields_has_not_run_and_is_no_success(
    stage: Stage, function: Handler
) -> None:
    with pytest.raises(BadType, match="yield"):
        stage.consumer(function)
    stage.server.fill("work", *numbered(3))
    consumer = consuming(stage, lambda message: function(message), on_error="reject")
    assert consumer.stats.failed == consumer.handled == 3


def test_a_failed_publish_outside_of_handlers_harms_nobody(stage: Stage) -> None:
    publisher = stage.publisher()
    consuming(stage, lambda message: None)

    async def main() -> Outcome:
        return await publisher.publish("", "nowhere", b"x")

    assert stage.adapter.run_until(main()) is Outcome.RETURNED
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == [("acked", b"a")]


# --- interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interruption", [asyncio.CancelledError(), GeneratorExit(), RequestCancelled("inner")]
)
@pytest.mark.parametrize("policy", ["reject", "requeue", "leave"])
@pytest.mark.parametrize("is_async", [True, False])
def test_an_interrupted_handler_has_not_failed(
    stage: Stage, interruption: BaseException, policy: Any, is_async: bool
) -> None:
    runs: list[evamqp.Message] = []

    def act(message: evamqp.Message) -> None:
        runs.append(message)
        if len(runs) == 1:
            raise interruption

    async def act_later(message: evamqp.Message) -> None:
        act(message)

    consumer = consuming(stage, act_later if is_async else act, on_error=policy)
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == []
    stage.advance(1)
    assert stage.server.settled == [("requeued", b"a"), ("acked", b"a")]
    assert stage.wire.names.count("basic.nack") == 1  # which no delivery limit counts
    assert consumer.handled == 1


def test_a_handler_that_interrupts_itself_again_and_again_fails(stage: Stage) -> None:
    async def handle(message: evamqp.Message) -> None:
        if message.body == b"a":
            raise asyncio.CancelledError

    consumer = consuming(stage, handle)
    stage.server.fill("work", b"a")
    for _ in range(10):
        stage.advance(1)
        stage.server.fill("work", b"good")
    assert [each for each in stage.server.settled if each[1] == b"a"] == [
        *[("requeued", b"a")] * 3,
        ("dropped", b"a"),
    ]
    assert consumer.stats.failed == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_async", [True, False])
def test_an_interrupt_leaves_the_loop_and_no_message_behind(
    stage: Stage, interruption: type[BaseException], is_async: bool
) -> None:
    runs: list[evamqp.Message] = []

    def act(message: evamqp.Message) -> None:
        runs.append(message)
        if len(runs) == 1:
            raise interruption

    async def act_later(message: evamqp.Message) -> None:
        act(message)

    consumer = consuming(stage, act_later if is_async else act)
    stage.server.fill("work", b"a")
    with pytest.raises(interruption):
        stage.turn()
    stage.advance(1)
    assert stage.server.settled == [("requeued", b"a"), ("acked", b"a")]
    assert stage.ended(consumer.close()) == 0


def test_what_fails_behind_an_interruption_goes_back_until_a_handler_succeeds(
    stage: Stage,
) -> None:
    """A program that ends closes its pools and executors while messages still come."""
    errors: dict[bytes, BaseException] = {b"first": asyncio.CancelledError()}

    async def handle(message: evamqp.Message) -> None:
        error = errors.get(message.body, RuntimeError("Executor shutdown has been called"))
        if message.body != b"good":
            raise error

    consuming(stage, handle)
    stage.server.fill("work", b"first", b"second")
    stage.turn()
    assert stage.server.settled == []
    stage.server.fill("work", b"good", b"third")
    stage.turn()
    assert stage.server.settled == [("acked", b"good"), ("dropped", b"third")]


def test_a_failure_long_after_an_interruption_is_one(stage: Stage) -> None:
    errors: list[BaseException] = [asyncio.CancelledError()]

    def handle(message: evamqp.Message) -> None:
        raise errors.pop() if errors else ValueError("mine")

    consuming(stage, handle)
    stage.server.fill("work", b"a")
    stage.advance(HOUR)
    assert stage.server.settled[-1] == ("dropped", b"a")


def test_a_handler_whose_cleaning_up_fails_when_it_is_cancelled_has_not_failed(
    stage: Stage,
) -> None:
    async def handle(message: evamqp.Message) -> None:
        try:
            raise asyncio.CancelledError
        finally:
            raise OSError("the database is gone")

    consuming(stage, handle)
    stage.server.fill("work", b"a")
    stage.advance(1)
    assert stage.server.settled[0] == ("requeued", b"a")


def test_a_timeout_is_a_failure(stage: Stage) -> None:
    async def handle(message: evamqp.Message) -> None:
        try:
            raise asyncio.CancelledError
        except asyncio.CancelledError as cancelled:
            raise TimeoutError from cancelled

    consuming(stage, handle)
    stage.server.fill("work", b"a")
    stage.turn()
    assert stage.server.settled == [("dropped", b"a")]


def test_an_interrupt_does_not_keep_a_closing_consumer_from_its_end(stage: Stage) -> None:
    promises: list[Any] = []

    def handle(message: evamqp.Message) -> Any:
        if message.body == b"1":
            raise KeyboardInterrupt
        message.ack()
        promises.append(stage.adapter.create_future())
        return promises[-1].future

    consumer = consuming(stage, handle, prefetch=1)
    stage.server.fill("work", *numbered(2))
    stage.turn()
    promises[0].resolve(None)
    with pytest.raises(KeyboardInterrupt):
        stage.turn()
    assert stage.ended(consumer.close()) == 0


# --- failures again and again -------------------------------------------------------------------


def fail(message: evamqp.Message) -> None:
    raise ValueError("mine")


def test_a_message_that_always_fails_comes_back_ever_more_slowly(stage: Stage) -> None:
    times: list[float] = []

    def note_and_fail(message: evamqp.Message) -> None:
        times.append(stage.adapter.time())
        raise ValueError("mine")

    consuming(stage, note_and_fail, on_error="requeue")
    stage.server.fill("work", b"a")
    stage.advance(HOUR)
    delays = [later - earlier for earlier, later in pairwise(times)]
    assert delays[:10] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0])
    assert delays[10:] == pytest.approx([30.0] * len(delays[10:]))
    # The limit of a quorum queue is 20.
    assert 300 < times[20] - times[0] < 600


def test_a_message_that_waits_to_go_back_does_not_hold_up_others(stage: Stage) -> None:
    def handle(message: evamqp.Message) -> None:
        if message.body == b"bad":
            raise ValueError("mine")

    consumer = consuming(stage, handle, on_error="requeue", prefetch=2)
    stage.server.fill("work", b"bad", *numbered(5))
    stage.turn()
    assert stage.server.settled == [("acked", body) for body in numbered(5)]
    assert stage.ended(consumer.close()) == 0
    assert stage.server.queues["work"].bodies == [b"bad"]


def test_what_waits_to_go_back_over_a_loss_is_given_back_once(stage: Stage) -> None:
    consuming(stage, fail, on_error="requeue")
    stage.server.fill("work", b"a")
    stage.turn()
    stage.wire.cut()
    stage.advance(0.5)
    counts = stage.server.wires[0].names.count("basic.reject")
    assert counts == 0


def message_of(stage: Stage, body: bytes) -> evamqp.Message:
    messages: list[evamqp.Message] = []
    consumer = consuming(stage, messages.append, ack="manual")
    stage.server.fill("work", body)
    stage.turn()
    consumer.close()
    return messages[0]


def test_the_delay_follows_the_count_of_a_quorum_queue(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = message_of(stage, b"a")
    properties = evamqp.Properties(headers={"x-delivery-count": 4})
    monkeypatch.setattr(type(message), "properties", properties)
    assert Failures().next_delay(message) == pytest.approx(1.6)


def test_the_memory_of_failures_is_bounded(stage: Stage) -> None:
    consuming(stage, fail, on_error="requeue", prefetch=65535)
    stage.server.fill("work", *numbered(2 * REMEMBERED))
    consumer = consuming(stage, fail, on_error="requeue", prefetch=65535)
    stage.advance(1)
    assert len(consumer._handlers._failures._counts) <= REMEMBERED
