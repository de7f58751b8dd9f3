"""Retries, batches and a live prefetch on RabbitMQ: nothing lost through its faults."""

from __future__ import annotations

from collections import Counter

import evamqp
from evamqp import Retry, Topology
from evamqp.recovery.retry import QueueType
from tests.behaviour.versions import parse_version
from tests.interop.rig import OnOneLoop, Rig

MESSAGES = 300
KILLS = 3
PATIENCE = 60.0  # seconds


def queue_type(rig: Rig) -> QueueType:
    """Quorum queues know a TTL since 3.10."""
    return "quorum" if parse_version(rig.node.version()) >= (3, 10) else "classic"


def strike(rig: Rig) -> None:
    """Kill the broker; before 4.0, where a killed node may lose a quorum queue, its connections."""
    if parse_version(rig.node.version()) < (4, 0):
        rig.node.close_all_connections()
        return
    rig.node.kill()
    rig.node.start()


class Job:
    """A queue ``work`` that a publisher fills and a consumer empties.

    Every third message fails once, every tenth always; the others succeed.
    """

    def __init__(self, rig: Rig, delays: list[float], **options: object) -> None:
        self.rig = rig
        self.keys: list[str] = []
        self.outcomes: Counter[evamqp.Outcome | None] = Counter()
        self.tries: Counter[int] = Counter()
        self.done: set[int] = set()
        self.dead: dict[int, dict[str, object]] = {}
        adapter = rig.loop.adapter
        topology = Topology()
        kind = queue_type(rig)
        topology.queue("work", arguments={"x-queue-type": kind})
        retry = Retry(delays, dead_letter="work.failed", queue_type=kind)
        self.publisher = evamqp.Publisher(rig.parameters(), adapter=adapter, topology=topology)
        self.consumer = evamqp.Consumer(
            rig.parameters(), "work", self.work, adapter=adapter, topology=topology,
            retry=retry, prefetch=20, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        rig.wait(self.consumer.wait_ready(60))
        self.undertaker = evamqp.Consumer(
            rig.parameters(), "work.failed", self.bury, adapter=adapter
        )

    def work(self, message: evamqp.Message) -> None:
        number = int(message.body)
        self.keys.append(message.routing_key)
        self.tries[number] += 1
        attempts = (message.properties.headers or {}).get("evamqp-attempts", 0)
        if number % 10 == 0 or (number % 3 == 0 and not attempts):
            raise ValueError(number)
        self.done.add(number)

    def bury(self, message: evamqp.Message) -> None:
        self.dead[int(message.body)] = dict(message.properties.headers or {})

    def publish(self, numbers: range) -> None:
        for number in numbers:
            self.publisher.publish("", "work", b"%d" % number, callback=self.note)

    def note(self, publication: evamqp.Publication) -> None:
        self.outcomes[publication.outcome] += 1

    def wait_for_tries(self, count: int) -> None:
        """Wait until handlers were called so many times more."""
        before = self.tries.total()
        self.rig.until(lambda: self.tries.total() >= before + count, PATIENCE)

    @property
    def is_over(self) -> bool:
        return len(self.done) + len(self.dead) == MESSAGES

    def close(self) -> None:
        self.rig.wait(self.publisher.close(5))
        self.rig.wait(self.consumer.close(5))
        self.rig.wait(self.undertaker.close(5))


class TestNothingLost(OnOneLoop):
    def test_retries_lose_nothing_through_faults(self, rig: Rig) -> None:
        job = Job(rig, [0.5, 1])
        step = MESSAGES // KILLS
        for first in range(0, MESSAGES, step):
            job.publish(range(first, first + step))
            job.wait_for_tries(step // 3)
            strike(rig)
        rig.until(lambda: not job.publisher.pending, PATIENCE)
        assert job.outcomes == Counter({evamqp.Outcome.CONFIRMED: MESSAGES})
        rig.until(lambda: job.is_over, PATIENCE)
        assert set(job.dead) == set(range(0, MESSAGES, 10))
        assert job.done == set(range(MESSAGES)) - set(job.dead)
        assert {headers["evamqp-attempts"] for headers in job.dead.values()} == {3}
        job.close()


class TestRetries(OnOneLoop):
    def test_a_message_fails_three_times_and_ends_with_its_routing_key(self, rig: Rig) -> None:
        job = Job(rig, [0.2, 0.4])
        channel = rig.channel()
        rig.wait(channel.exchange_declare("e", "topic", durable=True))
        rig.wait(channel.queue_bind("work", "e", "#"))
        job.publisher.publish("e", "eu.berlin", b"0")
        rig.until(lambda: bool(job.dead))
        assert job.keys == ["eu.berlin"] * 3
        assert job.dead[0]["evamqp-attempts"] == 3
        assert job.dead[0]["evamqp-exchange"] == "e"
        job.close()

    def test_batches_retry_what_failed(self, rig: Rig) -> None:
        handled: list[list[int]] = []
        kind = queue_type(rig)
        topology = Topology()
        topology.queue("work", arguments={"x-queue-type": kind})

        def work(messages: list[evamqp.Message]) -> None:
            handled.append([int(message.body) for message in messages])
            if len(handled) == 1:
                for message in messages[:3]:
                    message.ack()
                raise ValueError("mine")

        consumer = evamqp.Consumer(
            rig.parameters(), "work", work, adapter=rig.loop.adapter, topology=topology,
            batch=10, batch_wait=0.3,
            retry=Retry([0.2], dead_letter="work.failed", queue_type=kind),
        )  # fmt: skip
        rig.wait(consumer.wait_ready(60))
        channel = rig.channel()
        channel.confirm_select()
        for number in range(15):
            channel.basic_publish("", "work", b"%d" % number)
        rig.until(lambda: sum(map(len, handled)) >= 22)
        assert len(handled[0]) == 10
        again = sorted(number for batch in handled[1:] for number in batch)
        assert again == list(range(3, 15))
        rig.wait(consumer.close(5))
        rig.until_count(channel, "work", 0)

    def test_prefetch_changes_on_the_live_consumer(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        channel.confirm_select()
        for number in range(50):
            channel.basic_publish("", "q", b"%d" % number)
        rig.wait(channel.wait_for_confirms())
        held: list[evamqp.Message] = []
        consumer = evamqp.Consumer(
            rig.parameters(), "q", held.append, adapter=rig.loop.adapter, ack="manual", prefetch=5
        )
        rig.until(lambda: len(held) == 5)
        consumer.set_prefetch(20)
        rig.until(lambda: len(held) == 25)  # five of the former prefetch, twenty of the new one
        rig.until_count(channel, "q", 25)
        for message in held[:25]:
            message.ack()
        consumer.set_prefetch(2)
        rig.until(lambda: consumer.is_ready)
        rig.until_count(channel, "q", 25 - (len(held) - 25))
        assert len({message.body for message in held}) == len(held)
        rig.wait(consumer.close(5))
