"""Streams on RabbitMQ: where a consumer begins, and that it goes on where it was."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import evamqp
from evamqp import Topology
from tests.behaviour.versions import parse_version
from tests.interop.own_node import rabbit, vhost_pool
from tests.interop.rig import OnOneLoop, Rig

__all__ = ["rabbit", "vhost_pool"]

STREAM = Topology()
STREAM.queue("s", arguments={"x-queue-type": "stream"})
COUNT = 60
KILLS = 3


class OfStreams(OnOneLoop):
    """Scenarios of streams."""

    @pytest.fixture(autouse=True)
    def since_3_9(self, rig: Rig) -> None:
        if parse_version(rig.node.version()) < (3, 9):
            pytest.skip("this RabbitMQ has no streams")


class Reader:
    """A consumer of the stream that notes what it gets."""

    def __init__(self, rig: Rig, *, fails: bytes = b"", **options: Any) -> None:
        self.rig = rig
        self.offsets: list[int | None] = []
        self.bodies: list[bytes] = []
        self._fails = fails  # the handler raises for this body
        options.setdefault("prefetch", 10)
        self.consumer = evamqp.Consumer(
            rig.parameters(), "s", self.read, adapter=rig.loop.adapter, topology=STREAM, **options
        )
        rig.wait(self.consumer.wait_ready(60))

    def read(self, message: evamqp.Message) -> None:
        self.offsets.append(message.stream_offset)
        self.bodies.append(message.body)
        if message.body == self._fails:
            raise ValueError(message.body)

    def wait_for(self, count: int) -> None:
        self.rig.until(lambda: len(set(self.bodies)) >= count, 60)

    def close(self) -> None:
        self.rig.wait(self.consumer.close(10))


def fill(rig: Rig, first: int, end: int) -> None:
    publisher = evamqp.Publisher(rig.parameters(), adapter=rig.loop.adapter, topology=STREAM)
    for number in range(first, end):
        publisher.publish("", "s", b"%d" % number)
    assert rig.wait(publisher.close(60)) == []


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, end)]


class TestOffsets(OfStreams):
    @pytest.mark.parametrize(
        ("offset", "first"),
        [("first", 0), (7, 7), ("1h", 0), (timedelta(hours=1), 0), (COUNT - 1, COUNT - 1)],
    )
    def test_where_it_begins(self, rig: Rig, offset: Any, first: int) -> None:
        fill(rig, 0, COUNT)
        reader = Reader(rig, offset=offset)
        reader.wait_for(COUNT - first)
        assert reader.bodies == numbers(first, COUNT)
        assert reader.offsets == list(range(first, COUNT))
        assert reader.consumer.next_offset == COUNT
        reader.close()

    def test_next_begins_behind_what_there_is(self, rig: Rig) -> None:
        fill(rig, 0, 10)
        reader = Reader(rig)  # the topology says that it is a stream
        fill(rig, 10, 20)
        reader.wait_for(10)
        assert reader.bodies == numbers(10, 20)
        reader.close()


class TestGoingOn(OfStreams):
    def test_it_goes_on_where_it_was_after_each_loss(self, rig: Rig) -> None:
        fill(rig, 0, COUNT)
        reader = Reader(rig, offset="first")
        for round_ in range(KILLS):
            reader.wait_for(COUNT * (round_ + 1))
            rig.node.close_all_connections()
            fill(rig, COUNT * (round_ + 1), COUNT * (round_ + 2))
        reader.wait_for(COUNT * (KILLS + 1))
        reader.close()
        # Each was settled before the loss, so none comes twice.
        assert reader.bodies == numbers(0, COUNT * (KILLS + 1))

    def test_it_goes_on_after_a_killed_broker(self, rig: Rig) -> None:
        fill(rig, 0, COUNT)
        reader = Reader(rig, offset="first")
        reader.wait_for(COUNT)
        rig.node.kill()
        rig.node.start()
        fill(rig, COUNT, 2 * COUNT)
        reader.wait_for(2 * COUNT)
        reader.close()
        assert reader.bodies == numbers(0, 2 * COUNT)

    def test_what_was_unsettled_comes_again(self, rig: Rig) -> None:
        fill(rig, 0, 8)
        held: list[evamqp.Message] = []
        seen: list[int | None] = []

        def read(message: evamqp.Message) -> None:
            seen.append(message.stream_offset)
            if message.stream_offset == 3 and not held:
                held.append(message)
            else:
                message.ack()

        consumer = evamqp.Consumer(
            rig.parameters(), "s", read, adapter=rig.loop.adapter,
            offset="first", ack="manual", prefetch=10,
        )  # fmt: skip
        rig.until(lambda: len(seen) == 8)
        assert consumer.next_offset == 3
        rig.node.close_all_connections()
        rig.until(lambda: len(seen) == 13, 60)
        assert seen[8:] == [3, 4, 5, 6, 7]
        assert consumer.next_offset == 8
        rig.wait(consumer.close(10))

    def test_pause_and_a_new_prefetch_lose_nothing_and_keep_the_connection(self, rig: Rig) -> None:
        fill(rig, 0, 200)
        reader = Reader(rig, offset="first", prefetch=20)
        connections = reader.consumer.reconnector.stats.connections
        reader.wait_for(20)
        reader.consumer.pause()
        reader.consumer.resume()
        reader.consumer.set_prefetch(5)
        fill(rig, 200, 220)
        reader.wait_for(220)
        assert reader.bodies == numbers(0, 220)
        assert reader.consumer.reconnector.stats.connections == connections
        reader.close()

    def test_what_waits_at_a_pause_comes_again_and_what_is_done_does_not(self, rig: Rig) -> None:
        fill(rig, 0, 30)
        seen: list[int | None] = []
        promises: list[Any] = []

        async def read(message: evamqp.Message) -> None:
            seen.append(message.stream_offset)
            promises.append(rig.loop.adapter.create_future())
            await promises[-1].future

        consumer = evamqp.Consumer(
            rig.parameters(), "s", read, adapter=rig.loop.adapter, offset="first", prefetch=4
        )
        rig.until(lambda: len(seen) == 4)
        consumer.pause()
        for promise in promises:
            promise.resolve(None)
        rig.until(lambda: consumer.at_work == 0)
        consumer.resume()
        rig.until(lambda: len(seen) == 8)
        for promise in promises[4:]:
            promise.resolve(None)
        assert seen == [0, 1, 2, 3, 4, 5, 6, 7]
        rig.wait(consumer.close(1))

    @pytest.mark.parametrize("settle", ["nack", "reject"])
    def test_nack_and_reject_pass_a_message_and_cost_no_connection(
        self, rig: Rig, settle: str
    ) -> None:
        fill(rig, 0, 10)
        channel = rig.channel()
        came: list[int | None] = []

        def read(message: evamqp.Message) -> None:
            came.append(message.stream_offset)
            getattr(message, settle)()

        channel.basic_qos(3)
        tag = channel.basic_consume("s", read, arguments={"x-stream-offset": "first"})
        rig.until(lambda: len(came) == 10)
        rig.wait(channel.basic_cancel(tag))
        assert channel.is_open

    def test_a_cancel_with_messages_under_way_costs_no_connection(self, rig: Rig) -> None:
        fill(rig, 0, 500)
        channel = rig.channel()
        channel.basic_qos(300)
        came: list[evamqp.Message] = []
        tag = channel.basic_consume("s", came.append, arguments={"x-stream-offset": "first"})
        rig.until(lambda: bool(came))
        rig.wait(channel.basic_cancel(tag))
        rig.wait(channel.queue_declare("s", passive=True))
        assert channel.is_open

    def test_a_failed_message_is_passed(self, rig: Rig) -> None:
        fill(rig, 0, 10)
        reader = Reader(rig, offset="first", fails=b"4")
        reader.wait_for(10)
        assert reader.bodies == numbers(0, 10)
        assert reader.consumer.stats.failed == 1
        assert reader.consumer.next_offset == 10
        reader.close()

    def test_a_handler_that_is_cancelled_has_its_message_again(self, rig: Rig) -> None:
        fill(rig, 0, 5)
        seen: list[int | None] = []

        async def read(message: evamqp.Message) -> None:
            seen.append(message.stream_offset)
            if seen == [0, 1, 2]:
                raise asyncio.CancelledError

        consumer = evamqp.Consumer(
            rig.parameters(), "s", read, adapter=rig.loop.adapter, offset="first"
        )
        rig.until(lambda: 2 in seen[3:], 60)
        rig.until(lambda: consumer.next_offset == 5)
        assert seen[:3] == [0, 1, 2]
        rig.wait(consumer.close(10))
