"""wait_ready() and ``async with`` against RabbitMQ, on every loop."""

from __future__ import annotations

from typing import Any

import pytest

import evamqp
from evamqp import Consumer, NotReady, Outcome, Parameters, Publisher, Reconnector, Topology
from tests.interop.rig import OnEveryLoopPlain, Rig, SharingVhost


def topology(**arguments: Any) -> Topology:
    topology = Topology()
    topology.queue("q", **arguments)
    return topology


def cause_of(rig: Rig, wait: evamqp.Request[None]) -> evamqp.Closed:
    """What was in the way of a client that is not ready."""
    with pytest.raises(NotReady) as caught:
        rig.wait(wait)
    assert isinstance(caught.value.__cause__, evamqp.Closed)
    return caught.value.__cause__


class TestReady(SharingVhost, OnEveryLoopPlain):
    def test_a_program_in_blocks(self, rig: Rig) -> None:
        bodies: list[bytes] = []
        adapter = rig.loop.adapter
        outcomes: list[Outcome] = []

        async def program() -> None:
            async with Reconnector(rig.parameters(), adapter=adapter) as reconnector:
                consumer = Consumer(
                    reconnector, "q", lambda message: bodies.append(message.body),
                    topology=topology(),
                )  # fmt: skip
                async with consumer, Publisher(reconnector, topology=topology()) as publisher:
                    await consumer.wait_ready(10)
                    assert consumer.is_ready
                    await publisher.wait_ready(10, fail_fast=True)
                    published = [publisher.publish("", "q", b"%d" % n) for n in range(100)]
                    outcomes.extend([await publication for publication in published])

        ended: list[BaseException | None] = []
        adapter.run_awaitable(program(), ended.append)
        rig.until(lambda: bool(ended))
        assert ended == [None]
        assert outcomes == [Outcome.CONFIRMED] * 100
        channel = rig.channel()
        assert len(bodies) + rig.count(channel, "q") == 100

    def test_fail_fast_at_a_wrong_password(self, rig: Rig) -> None:
        bad = rig.parameters(credentials=evamqp.Credentials("guest", "wrong"))
        self.fails(rig, bad, topology(), evamqp.AuthenticationFailed)

    def test_fail_fast_at_a_virtual_host_that_is_not_there(self, rig: Rig) -> None:
        bad = rig.parameters(virtual_host="nowhere")
        self.fails(rig, bad, topology(), evamqp.VhostRefused)

    def test_fail_fast_at_a_queue_with_other_arguments(self, rig: Rig) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True, arguments={"x-max-length": 7}))
        self.fails(rig, rig.parameters(), topology(), evamqp.ChannelClosed)

    def fails(
        self, rig: Rig, target: Parameters, wanted: Topology, kind: type[evamqp.Closed]
    ) -> None:
        adapter = rig.loop.adapter
        publisher = Publisher(target, adapter=adapter, topology=wanted)
        consumer = Consumer(target, "q", lambda message: None, adapter=adapter, topology=wanted)
        clients: list[Any] = [publisher, consumer]
        for client in clients:
            assert type(cause_of(rig, client.wait_ready(20, fail_fast=True))) is kind
            rig.wait(client.close(0))
