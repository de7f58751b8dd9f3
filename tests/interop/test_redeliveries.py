"""What a Consumer does with messages that the broker takes back, or that fail again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import evamqp
from tests.interop.rig import OnOneLoop, Rig

QUORUM = {"x-queue-type": "quorum"}


class Slow:
    """A handler that takes a while, unless it has had the message before."""

    def __init__(
        self, rig: Rig, seconds: float, handled: Counter[bytes], *, acks_first: bool = False
    ) -> None:
        self._adapter = rig.loop.adapter
        self._seconds = seconds
        self._handled = handled
        self._acks_first = acks_first

    async def __call__(self, message: evamqp.Message) -> None:
        self._handled[message.body] += 1
        if self._acks_first:
            message.ack()
        elif self._handled[message.body] > 1:
            return
        done = self._adapter.create_future()
        self._adapter.call_later(self._seconds, lambda: done.resolve(None))
        await done.future


@contextmanager
def consuming(
    rig: Rig, work: Callable[[evamqp.Message], object], **options: Any
) -> Iterator[evamqp.Consumer]:
    """A Consumer of "q" whose messages time out after a second, from RabbitMQ 4.3 on."""
    consumer = evamqp.Consumer(
        rig.parameters(), "q", work, adapter=rig.loop.adapter,
        arguments={"x-consumer-timeout": 1000}, **options,
    )  # fmt: skip
    try:
        yield consumer
    finally:
        rig.wait(consumer.close(timeout=5))


def fill(rig: Rig, channel: evamqp.Channel, count: int) -> None:
    channel.confirm_select()
    for number in range(count):
        channel.basic_publish("", "q", b"%d" % number)
    assert rig.wait(channel.wait_for_confirms()) == []


class TestTakenBack(OnOneLoop):
    """Before 4.3 no consumer times out: there these only show that nothing else happens."""

    def test_what_waits_here_of_a_consumer_that_timed_out_is_handled_once(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True, arguments=QUORUM))
        fill(rig, channel, 6)
        handled: Counter[bytes] = Counter()
        with consuming(rig, Slow(rig, 1.5, handled, acks_first=True), prefetch=2) as consumer:
            rig.until(lambda: consumer.handled >= 6 and len(handled) == 6)
            rig.until_count(channel, "q", 0)
        assert handled == {b"%d" % number: 1 for number in range(6)}

    def test_what_is_at_work_when_its_consumer_times_out_closes_no_channel(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True, arguments=QUORUM))
        fill(rig, channel, 2)
        handled: Counter[bytes] = Counter()
        with consuming(rig, Slow(rig, 2.5, handled), prefetch=4) as consumer:
            rig.until(lambda: consumer.handled >= 2 and not consumer.at_work)
            rig.until_count(channel, "q", 0)
        assert "closed" not in caplog.text


class TestTooLarge(OnOneLoop):
    def test_it_is_dead_lettered_and_those_behind_it_come(self, rig: Rig) -> None:
        channel = rig.channel()
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        rig.wait(channel.queue_declare("dead", durable=True))
        rig.wait(channel.queue_declare("q", durable=True, arguments=arguments))
        channel.confirm_select()
        for body in (b"x" * 300_000, b"a", b"y" * 10_001, b"b"):
            channel.basic_publish("", "q", body)
        assert rig.wait(channel.wait_for_confirms()) == []
        bodies: list[bytes] = []
        consumer = evamqp.Consumer(
            rig.parameters(body_max=10_000),
            "q",
            lambda message: bodies.append(message.body),
            adapter=rig.loop.adapter,
        )
        rig.until(lambda: set(bodies) == {b"a", b"b"})
        rig.until_count(channel, "dead", 2)
        rig.until_count(channel, "q", 0)
        rig.wait(consumer.close())


class TestFailures(OnOneLoop):
    def test_a_message_that_fails_for_a_while_outlives_the_delivery_limit(self, rig: Rig) -> None:
        """21 deliveries at once would use up a limit of 20, and the message would be gone."""
        channel = rig.channel()
        arguments = {**QUORUM, "x-delivery-limit": 5}
        rig.wait(channel.queue_declare("q", durable=True, arguments=arguments))
        fill(rig, channel, 1)
        until = rig.loop.adapter.time() + 1.0
        tries: list[bool] = []

        def work(message: evamqp.Message) -> None:
            tries.append(message.redelivered)
            if rig.loop.adapter.time() < until:
                raise ValueError("not yet")

        with consuming(rig, work, on_error="requeue") as consumer:
            rig.until(lambda: tries and rig.loop.adapter.time() > until + 1.0)
            rig.until_count(channel, "q", 0)
            assert consumer.handled == len(tries) == 5  # after 0.1, 0.2, 0.4 and 0.8 s
