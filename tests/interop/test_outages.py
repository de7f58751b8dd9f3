"""What a broker in trouble does to its clients: crash, freeze, alarm."""

from __future__ import annotations

import evamqp
from evamqp import DeliveryMode, Properties
from tests.interop.own_node import rabbit, vhost_pool
from tests.interop.rig import OnEveryLoopPlain, OnTwoLoops, Rig

__all__ = ["rabbit", "vhost_pool"]

PERSISTENT = Properties(delivery_mode=DeliveryMode.PERSISTENT)


class Load:
    """Publishes numbered messages and asks questions for as long as the connection lives."""

    BURST = 20

    def __init__(self, rig: Rig, channel: evamqp.Channel) -> None:
        self._rig = rig
        self._channel = channel
        self.asked = 0
        self.outcomes: list[tuple[int, object]] = []

    def go_on(self) -> None:
        channel = self._channel
        if not channel.is_open:
            return
        for _ in range(self.BURST):
            body = b"%d" % (channel.published + 1)
            assert channel.basic_publish("", "durable", body, PERSISTENT) == channel.published
        self._ask(self.asked)
        self.asked += 1
        self._rig.loop.adapter.call_later(0.001, self.go_on)

    def _ask(self, number: int) -> None:
        self._channel.queue_declare(
            "durable",
            passive=True,
            callback=lambda ok: self.outcomes.append((number, ok)),
            on_error=lambda error: self.outcomes.append((number, error)),
        )


def drain(rig: Rig, channel: evamqp.Channel) -> list[int]:
    """The numbers of all messages in the durable queue."""
    count = rig.wait(channel.queue_declare("durable", durable=True)).message_count
    numbers: list[int] = []
    channel.basic_consume("durable", lambda message: numbers.append(int(message.body)), True)
    rig.until(lambda: len(numbers) >= count)
    return numbers


class TestCrash(OnTwoLoops):
    def test_killed_broker_leaves_each_request_and_publish_with_one_outcome(self, rig: Rig) -> None:
        channel = rig.channel()
        client = rig.client_of(channel)
        channel.confirm_select()
        rig.wait(channel.queue_declare("durable", durable=True))
        load = Load(rig, channel)
        load.go_on()
        rig.until(lambda: len(client.confirmed) > 500)
        # Frozen first, so that requests and publishes are under way for certain.
        rig.node.freeze()
        asked = load.asked
        rig.until(lambda: load.asked > asked + 10)
        rig.node.kill()
        reason = rig.wait(client.connection.wait_closed())

        assert reason.by == "network"
        assert client.channel_reasons[channel].by == "network"
        # Requests: each ended once, in order; those without an answer with the reason.
        assert [number for number, _ in load.outcomes] == list(range(load.asked))
        failures = [each for _, each in load.outcomes if isinstance(each, Exception)]
        assert len(failures) >= 10
        for failure in failures:
            assert isinstance(failure, evamqp.NotExecuted)
            assert failure.reason is client.channel_reasons[channel]
        # Publishes: confirmed, nacked or unknown; each exactly one of them.
        outcomes = [*client.confirmed, *client.nacked, *channel.unconfirmed]
        assert sorted(outcomes) == list(range(1, channel.published + 1))
        assert len(channel.unconfirmed) >= 10 * load.BURST
        # And nothing that was confirmed is missing from the broker that comes back.
        rig.node.start()
        kept = drain(rig, rig.channel())
        assert set(client.confirmed) <= set(kept)
        assert set(kept) <= set(client.confirmed) | set(channel.unconfirmed)
        assert kept == sorted(kept)

    def test_stopped_broker_says_so_before_it_goes(self, rig: Rig) -> None:
        client = rig.open()
        rig.node.ctl("stop_app")
        reason = rig.wait(client.connection.wait_closed())
        assert (reason.code, reason.by) == (320, "broker")


class TestFreeze(OnEveryLoopPlain):
    def test_frozen_broker_is_detected_by_heartbeat(self, rig: Rig) -> None:
        client = rig.open(heartbeat=1)
        channel = client.connection.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        rig.node.freeze()
        pending = channel.queue_declare("q", durable=True)
        reason = rig.wait(client.connection.wait_closed())
        assert isinstance(reason, evamqp.HeartbeatTimeout)
        assert pending.is_done

    def test_idle_connection_lives_by_its_heartbeats(self, rig: Rig) -> None:
        client = rig.open(heartbeat=1)
        idle_from = client.connection.stats.bytes_received
        # The broker sends one every half second, and kills a silent client after three.
        rig.until(lambda: client.connection.stats.bytes_received >= idle_from + 7 * 8)
        assert client.connection.is_open


class TestAlarm(OnEveryLoopPlain):
    def test_memory_alarm_blocks_and_unblocks(self, rig: Rig) -> None:
        channel = rig.channel()
        client = rig.client_of(channel)
        channel.confirm_select()
        rig.wait(channel.queue_declare("q", durable=True))
        rig.node.set_memory_alarm(True)
        channel.basic_publish("", "q", b"the publish that meets the alarm")
        rig.until(lambda: client.count("on_writable"))
        assert (client.connection.is_blocked, client.connection.is_writable) == (True, False)
        assert list(channel.unconfirmed) == [1]
        rig.node.set_memory_alarm(False)
        rig.until(lambda: client.confirmed)
        rig.until(lambda: client.count("on_writable") == 2)
        assert (client.connection.is_blocked, client.connection.is_writable) == (False, True)
        told = [(name, value) for name, value in client.calls if "blocked" in name]
        assert [name for name, _ in told] == ["on_blocked", "on_unblocked"]
        assert [value for name, value in client.calls if name == "on_writable"] == [False, True]
        assert client.connection.stats.blocked_seconds > 0

    def test_blocked_for_too_long_is_an_end(self, rig: Rig) -> None:
        client = rig.open(blocked_timeout=0.2)
        channel = client.connection.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        rig.node.set_memory_alarm(True)
        channel.basic_publish("", "q", b"")
        reason = rig.wait(client.connection.wait_closed())
        assert isinstance(reason, evamqp.BlockedTimeout)
