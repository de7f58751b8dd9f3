"""What health() tells of a real broker that is frozen, thawed and short of memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import evamqp
from tests.interop.rig import OnTwoLoops, Rig

BEAT = 4  # seconds


class TestHealth(OnTwoLoops):
    @pytest.fixture
    def publisher(self, rig: Rig) -> Iterator[evamqp.Publisher]:
        parameters = rig.parameters(heartbeat=BEAT)
        publisher = evamqp.Publisher(parameters, adapter=rig.loop.adapter)
        rig.wait(publisher.wait_ready(30))
        yield publisher
        rig.wait(publisher.close(5))

    def test_a_frozen_broker_is_not_ok(self, rig: Rig, publisher: evamqp.Publisher) -> None:
        assert rig.wait(publisher.publish("amq.fanout", "", b"a", mandatory=False))
        rig.until(lambda: publisher.health().since > BEAT)
        assert publisher.health().is_ok  # idle, but alive
        rig.node.freeze()
        # A broker that lives is silent for up to half the interval, between two heartbeats.
        rig.until(lambda: (publisher.health().silence or 0) > BEAT / 2)
        publisher.publish("amq.fanout", "", b"b", mandatory=False)
        rig.until(lambda: publisher.health().state == "SILENT")
        health = publisher.health()
        assert health.silence is not None
        assert BEAT / 2 < health.silence <= 2 * BEAT
        assert health.pending == 1
        assert health.last_confirm is not None
        assert health.last_confirm > BEAT
        rig.until(lambda: publisher.health().state in ("WAITING", "DIALLING"))
        assert isinstance(publisher.health().last_error, evamqp.HeartbeatTimeout)
        rig.node.thaw()
        rig.until(lambda: publisher.health().is_ok and not publisher.pending, 60)
        stats = publisher.stats
        assert (stats.accepted, stats.confirmed, stats.repeats) == (2, 2, 1)
        assert publisher.reconnector.stats.connections == 2

    def test_an_alarm_is_not_ok(self, rig: Rig, publisher: evamqp.Publisher) -> None:
        rig.node.set_memory_alarm(True)
        publisher.publish("amq.fanout", "", b"a", mandatory=False)
        rig.until(lambda: publisher.health().state == "BLOCKED")
        rig.node.set_memory_alarm(False)
        rig.until(lambda: publisher.health().is_ok and not publisher.pending)
