"""A loop that stands still for longer than RabbitMQ waits for heartbeats: the reason says so."""

from __future__ import annotations

import re
import time

from tests.interop.rig import OnEveryLoopPlain, Rig

HEARTBEAT = 1  # seconds
STALL = 5.0  # RabbitMQ closes after two to three intervals, and may look a little later


class TestStalls(OnEveryLoopPlain):
    def test_a_death_by_heartbeats_names_the_stall(self, rig: Rig) -> None:
        client = rig.open(heartbeat=HEARTBEAT)
        assert client.connection.heartbeat == HEARTBEAT
        rig.loop.adapter.call_later(0.01, lambda: time.sleep(STALL))
        rig.until(lambda: client.is_over, STALL + 10)
        assert client.reason is not None
        assert client.reason.by == "network"
        found = re.search(r"the loop stood still for (\d+\.\d) s", client.reason.text)
        assert found is not None, client.reason.text
        # A timer shows it, which was due up to a quarter of the interval later.
        assert float(found[1]) >= STALL - HEARTBEAT
        assert client.connection.stats.stalls >= 1
