"""What ``Consumer(retry=...)`` promises, against the embedded broker in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

import evamqp
from evamqp import Properties, Retry, Topology
from evamqp.adapters.memory import MemoryAdapter
from evamqp.errors import BadArgument, BadType
from evamqp.testing import Broker

DELAYS = (1, 10)


class Handling:
    """A handler that fails as often as a test wants.

    Attributes:
        calls: When each call came, and with which message.
        failures: How many calls fail, counted by body.
    """

    def __init__(self, adapter: MemoryAdapter) -> None:
        self._adapter = adapter
        self.calls: list[tuple[float, evamqp.Message]] = []
        self.failures: dict[bytes, int] = {}

    def __call__(self, message: evamqp.Message) -> None:
        self.calls.append((self._adapter.time(), message))
        left = self.failures.get(message.body, 0)
        if left:
            self.failures[message.body] = left - 1
            raise ValueError("mine")

    @property
    def waits(self) -> list[float]:
        times = [time for time, _ in self.calls]
        return [round(later - time) for time, later in pairwise(times)]


class World:
    """A queue ``work`` with a consumer that retries."""

    def __init__(self) -> None:
        self.adapter = MemoryAdapter()
        self.broker = Broker(self.adapter)
        self.broker.listen()
        self.handling = Handling(self.adapter)
        self.topology = Topology()
        self.topology.queue("work")
        self.topology.exchange("orders", "topic", durable=True)
        self.topology.bind("work", "orders", "#")
        self.publisher = evamqp.Publisher(
            self.broker.url, adapter=self.adapter, topology=self.topology
        )

    def consume(self, on_message: Callable[..., object] | None = None, **options: Any) -> Any:
        options.setdefault("retry", Retry(DELAYS, dead_letter="work.failed", queue_type="classic"))
        consumer = evamqp.Consumer(
            self.broker.url, "work", on_message or self.handling,
            adapter=self.adapter, topology=self.topology, **options,
        )  # fmt: skip
        self.adapter.run_until(consumer.wait_ready(10))
        return consumer

    def publish(self, body: bytes, properties: Properties | None = None, **options: Any) -> None:
        outcome = self.publisher.publish("orders", "eu.berlin", body, properties, **options)
        assert self.adapter.run_until(outcome) is evamqp.Outcome.CONFIRMED
        self.adapter.advance(0.1)

    def bodies(self, queue: str) -> list[bytes]:
        return list(self.broker.queues()[queue].bodies)

    def dead(self) -> evamqp.Message:
        """The one message in the dead-letter queue."""
        connection = evamqp.connect(self.broker.url, adapter=self.adapter)
        self.adapter.run_until(connection.wait_open())
        message = self.adapter.run_until(connection.channel().basic_get("work.failed", True))
        assert message is not None
        assert message.message_count == 0
        connection.close()
        return message

    def unsettled(self) -> int:
        return sum(queue.ready + queue.unacked for queue in self.broker.queues().values())


@pytest.fixture
def world() -> Iterator[World]:
    """A broker and a publisher in virtual time."""
    world = World()
    yield world
    world.publisher.close()
    world.broker.close()


def headers_of(message: evamqp.Message) -> dict[str, object]:
    return dict(message.properties.headers or {})


def test_a_failed_message_comes_again_after_each_delay(world: World) -> None:
    world.handling.failures[b"a"] = 2
    consumer = world.consume()
    world.publish(b"a")
    world.adapter.advance(20)
    assert world.handling.waits == [1, 10]
    assert world.unsettled() == 0
    assert consumer.handled == 3


def test_it_comes_again_with_routing_key_properties_and_attempts(world: World) -> None:
    world.handling.failures[b"a"] = 2
    world.consume()
    world.publish(b"a", Properties(message_id="7", headers={"mine": 1}, priority=3))
    world.adapter.advance(20)
    first, second, third = [message for _, message in world.handling.calls]
    assert headers_of(first) == {"mine": 1}
    for attempts, message in ((1, second), (2, third)):
        assert message.routing_key == "eu.berlin"
        assert message.properties.message_id == "7"
        assert message.properties.priority == 3
        headers = headers_of(message)
        assert headers["mine"] == 1
        assert headers["evamqp-attempts"] == attempts
        assert headers["evamqp-exchange"] == "orders"
        assert headers["evamqp-error"] == "ValueError('mine')"


def test_after_the_last_delay_it_ends_in_the_dead_letter_queue(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.handling.failures[b"a"] = 100
    world.consume()
    world.publish(b"a")
    world.adapter.advance(1000)
    assert len(world.handling.calls) == 3
    dead = world.dead()
    assert (dead.body, dead.routing_key) == (b"a", "eu.berlin")
    assert headers_of(dead)["evamqp-attempts"] == 3
    assert "comes again in 1 s, after failure 1" in caplog.text
    assert "goes to queue work.failed, after failure 3" in caplog.text


def test_without_delays_the_first_failure_is_the_last(world: World) -> None:
    world.handling.failures[b"a"] = 1
    world.consume(retry=Retry([], dead_letter="work.failed", queue_type="classic"))
    world.publish(b"a")
    assert world.dead().body == b"a"


def test_what_would_act_on_the_broker_again_is_not_copied(world: World) -> None:
    world.handling.failures[b"a"] = 1
    world.topology.queue("other")
    world.consume()
    properties = Properties(
        headers={"CC": ["other"], "x-death": [{"queue": "work", "reason": "expired"}]},
        expiration="500000",
        user_id="guest",
    )
    world.publish(b"a", properties)
    world.adapter.advance(5)
    again = world.handling.calls[1][1]
    assert "CC" not in headers_of(again)
    assert [death.queue for death in again.deaths] == ["work.retry.1000"]
    assert again.properties.user_id is None
    assert again.properties.expiration is None


def test_the_message_is_acked_after_the_confirm_of_its_copy(world: World) -> None:
    world.handling.failures[b"a"] = 1
    consumer = world.consume()
    world.publish(b"a")
    world.adapter.advance(20)
    world.handling.failures[b"b"] = 1
    world.publish(b"b")
    assert consumer.is_ready
    world.broker.faults.hold_confirms()
    world.handling.failures[b"c"] = 1
    world.publisher.publish("orders", "eu.berlin", b"c")
    world.adapter.advance(0.5)
    work = world.broker.queues()["work"]
    assert (work.ready, work.unacked) == (0, 1)
    world.broker.faults.release_confirms()
    world.adapter.advance(0.1)
    work = world.broker.queues()["work"]
    assert (work.ready, work.unacked) == (0, 0)


@pytest.mark.parametrize("fault", ["nack_next", "return_next"])
def test_a_copy_that_the_broker_does_not_take_is_made_again(world: World, fault: str) -> None:
    world.handling.failures[b"a"] = 1

    def fail(message: evamqp.Message) -> None:
        if len(world.handling.calls) == 0:
            getattr(world.broker.faults, fault)()
        world.handling(message)

    world.consume(fail)
    world.publish(b"a")
    world.adapter.advance(60)
    assert world.unsettled() == 0
    assert len(world.handling.calls) == 2
    assert headers_of(world.handling.calls[1][1]).get("evamqp-attempts", 0) == (
        1 if fault == "nack_next" else 0  # returned: the message itself comes again, and succeeds
    )


def test_a_lost_connection_brings_the_message_itself_again(world: World) -> None:
    world.handling.failures[b"a"] = 2
    world.consume()
    world.broker.faults.hold_confirms()
    world.publisher.publish("orders", "eu.berlin", b"a")
    world.adapter.advance(0.5)
    assert len(world.handling.calls) == 1
    world.broker.faults.drop_connections()
    world.broker.faults.release_confirms()
    world.adapter.advance(100)
    assert world.unsettled() == 0
    assert len(world.handling.calls) >= 3


def test_queues_that_were_deleted_are_declared_again(world: World) -> None:
    world.handling.failures[b"a"] = 1
    world.consume()
    world.broker.faults.delete_queue("work.retry.1000")
    world.publish(b"a")
    world.adapter.advance(60)
    assert world.unsettled() == 0
    assert "work.retry.1000" in world.broker.queues()
    assert len(world.handling.calls) == 2


def test_each_message_of_a_failed_batch_is_retried_unless_settled(world: World) -> None:
    batches: list[list[bytes]] = []

    def fail_once(messages: list[evamqp.Message]) -> None:
        batches.append([message.body for message in messages])
        if len(batches) == 1:
            messages[0].ack()
            raise ValueError("mine")

    world.consume(fail_once, batch=3)
    for body in (b"a", b"b", b"c"):
        world.publish(body)
    world.adapter.advance(10)
    assert batches == [[b"a", b"b", b"c"], [b"b", b"c"]]
    assert world.unsettled() == 0


def test_a_copy_that_is_never_confirmed_is_made_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.handling.failures[b"a"] = 2
    world.consume()
    world.broker.faults.lose_confirms(2)  # the publisher's, and the copy's
    world.publisher.publish("orders", "eu.berlin", b"a")
    world.adapter.advance(1000)
    assert "no confirm for 1 copies in time" in caplog.text
    assert len(world.handling.calls) > 2
    assert world.unsettled() == 0


def test_close_waits_for_the_confirms_of_copies(world: World) -> None:
    world.handling.failures[b"a"] = 1
    consumer = world.consume()
    world.broker.faults.hold_confirms()
    world.publisher.publish("orders", "eu.berlin", b"a")
    world.adapter.advance(0.5)
    closing = consumer.close()
    world.adapter.advance(5)
    assert not closing.is_done
    world.broker.faults.release_confirms()
    world.adapter.advance(0.1)
    assert closing.is_done
    assert world.bodies("work") == [b"a"]  # from its delay queue, once


def test_close_ends_when_the_connection_takes_copies_with_it(world: World) -> None:
    world.handling.failures[b"a"] = 1
    consumer = world.consume()
    world.broker.faults.hold_confirms()
    world.publisher.publish("orders", "eu.berlin", b"a")
    world.adapter.advance(0.5)
    closing = consumer.close()
    world.broker.faults.drop_connections()
    world.adapter.advance(100)
    assert closing.is_done
    world.broker.faults.release_confirms()


def test_a_dead_letter_queue_of_the_topology_stays_as_it_is(world: World) -> None:
    world.topology.queue("work.failed", arguments={"x-max-length": 7})
    world.consume()
    assert world.broker.queues()["work.failed"].arguments == {"x-max-length": 7}


def test_a_failed_forward_is_retried(world: World) -> None:
    outcomes = [evamqp.Outcome.NACKED, evamqp.Outcome.CONFIRMED]
    calls: list[evamqp.Message] = []

    def forward(message: evamqp.Message) -> evamqp.Outcome:
        calls.append(message)
        return outcomes.pop(0)

    world.consume(forward)
    world.publish(b"a")
    world.adapter.advance(10)
    assert headers_of(calls[1])["evamqp-error"] == "a forward was not confirmed"
    assert world.unsettled() == 0


@pytest.mark.parametrize(
    ("delays", "options", "error"),
    [
        ([0], {}, BadArgument),
        ([-1], {}, BadArgument),
        ([float("nan")], {}, BadArgument),
        ([1e9], {}, BadArgument),
        (["1"], {}, BadType),
        (None, {}, BadType),
        ([True], {}, BadType),
        ([1], {"dead_letter": ""}, BadArgument),
        ([1], {"dead_letter": 1}, BadType),
        ([1], {"queue_type": "stream"}, BadArgument),
    ],
)
def test_impossible_retries_are_refused(
    delays: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Retry(delays, **{"dead_letter": "d", **options})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retry": [1, 2]}, BadType),
        ({"on_error": "requeue"}, BadArgument),
        ({"topology": {}}, BadType),
    ],
)
def test_impossible_combinations_are_refused(
    world: World, options: dict[str, Any], error: type[Exception]
) -> None:
    options = {"retry": Retry([1], dead_letter="d"), **options}
    with pytest.raises(error):
        evamqp.Consumer(world.broker.url, "work", print, adapter=world.adapter, **options)
