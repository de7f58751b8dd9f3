"""Calls and replies through RabbitMQ's direct reply-to, on every loop; one through its death."""

from __future__ import annotations

import pytest

import evamqp
from evamqp import RequestTimeout, RpcClient, RpcError, RpcServer, Topology
from tests.interop.rig import OnEveryLoopPlain, OnTwoLoops, Rig, SharingVhost

CALLS = 200


class Pair:
    """A client and a server of the queue ``q``."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        topology = Topology()
        topology.queue("q", durable=True)
        adapter = rig.loop.adapter
        self.client = RpcClient(rig.parameters(), adapter=adapter, topology=topology)
        self.server = RpcServer(
            rig.parameters(), "q", self.handle, adapter=adapter, topology=topology
        )

    async def handle(self, message: evamqp.Message) -> bytes:
        if message.body == b"fail":
            raise RpcError("as you wished", "wish")
        return message.body.upper()

    def close(self) -> None:
        self.rig.wait(self.client.close(5))
        self.rig.wait(self.server.close(5))


class TestCalls(SharingVhost, OnEveryLoopPlain):
    def test_calls_get_replies_errors_and_timeouts(self, rig: Rig) -> None:
        pair = Pair(rig)
        calls = [pair.client.call("q", b"call %d" % number) for number in range(CALLS)]
        replies = [rig.wait(call).body for call in calls]
        assert replies == [b"CALL %d" % number for number in range(CALLS)]
        with pytest.raises(RpcError, match="wish: as you wished"):
            rig.wait(pair.client.call("q", b"fail"))
        with pytest.raises(RpcError, match="unroutable"):
            rig.wait(pair.client.call("no such queue", b""))
        rig.wait(pair.server.close(5))
        with pytest.raises(RequestTimeout):
            rig.wait(pair.client.call("q", b"", timeout=0.2))
        pair.close()


class TestReturnedReplies(SharingVhost, OnTwoLoops):
    def test_replies_are_sent_once_though_the_broker_returns_them(self, rig: Rig) -> None:
        """RabbitMQ up to 4.0 returns every reply, also one that it delivers."""
        pair = Pair(rig)
        for number in range(50):
            assert rig.wait(pair.client.call("q", b"%d" % number)).body == b"%d" % number
        assert pair.server.reconnector.stats.traffic.messages_published == 50
        pair.close()
        assert pair.client.late_replies == 0


class TestDeath(OnTwoLoops):
    def test_calls_survive_the_broker_s_death(self, rig: Rig) -> None:
        pair = Pair(rig)
        rig.wait(pair.client.call("q", b"warm"))
        calls = [pair.client.call("q", b"%d" % number, timeout=60) for number in range(CALLS)]
        rig.node.kill()
        rig.node.start()
        assert [rig.wait(call).body for call in calls] == [b"%d" % n for n in range(CALLS)]
        pair.close()
