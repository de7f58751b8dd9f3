"""What health() and stats tell, on the memory loop."""

from __future__ import annotations

import evamqp
from evamqp import ConsumerStats, Outcome, PublisherStats
from tests.recovery.stage import LONG, URL, Stage, numbered
from tests.support.scripted_broker import Publish

BEATS = URL.replace("heartbeat=0", "heartbeat=40")


def test_the_states_of_an_outage(stage: Stage) -> None:
    stage.server.down()
    reconnector = stage.reconnector()
    states = [reconnector.health().state]
    stage.turn()
    stage.advance(30)
    health = reconnector.health()
    states.append(health.state)
    assert not health.is_ok
    assert health.since == 30
    assert isinstance(health.last_error, evamqp.ConnectFailed)
    stage.server.up()
    stage.advance(LONG)
    health = reconnector.health()
    states.append(health.state)
    assert health.is_ok
    assert health.since < LONG
    assert isinstance(health.last_error, evamqp.ConnectFailed)  # the last there was
    reconnector.close()
    states.append(reconnector.health().state)
    stage.advance(LONG)
    states.append(reconnector.health().state)
    assert states == ["WAITING", "WAITING", "READY", "CLOSING", "CLOSED"]


def test_a_silent_broker_is_seen_before_its_connection_is_given_up(stage: Stage) -> None:
    publisher = stage.publisher(BEATS)
    stage.advance(1)
    stage.publish(publisher, [b"a"])
    assert publisher.health().state == "READY"
    stage.advance(41)
    health = publisher.health()
    assert health.state == "SILENT"
    assert health.silence is not None
    assert health.silence >= 30
    stage.advance(60)
    assert isinstance(publisher.health().last_error, evamqp.HeartbeatTimeout)


def test_an_alarm_is_a_state(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.turn()
    stage.wire.block()
    stage.turn()
    assert publisher.health().state == "BLOCKED"
    stage.wire.unblock()
    stage.turn()
    assert publisher.health().is_ok


def test_a_publisher_tells_what_is_pending_and_when_it_was_confirmed(stage: Stage) -> None:
    publisher = stage.publisher()
    assert publisher.health().last_confirm is None
    stage.server.on_publish = Publish.ack
    stage.turn()
    stage.publish(publisher, [b"a"])
    stage.turn()
    stage.advance(7)
    stage.server.down()
    stage.publish(publisher, [b"b", b"c"])
    health = publisher.health()
    assert (health.pending, health.last_confirm) == (2, 7)


def test_a_consumer_tells_what_is_at_work_and_when_a_message_came(stage: Stage) -> None:
    async def work(message: evamqp.Message) -> None:
        await stage.adapter.create_future().future

    stage.server.fill("work", *numbered(3))
    consumer = stage.consumer(work, prefetch=2)
    assert consumer.health().last_delivery is None
    stage.advance(5)
    health = consumer.health()
    assert (health.state, health.at_work) == ("READY", 2)
    assert health.last_delivery is not None
    assert 4 <= health.last_delivery <= 5
    consumer.pause()
    stage.turn()
    assert consumer.health().state == "PAUSED"


def test_a_consumer_without_its_queue_is_not_ready(stage: Stage) -> None:
    consumer = stage.consumer(lambda message: None)
    stage.advance(LONG)
    health = consumer.health()
    assert health.state == "OPENING"
    assert isinstance(health.last_error, evamqp.ChannelClosed)
    assert health.last_error.code == 404
    stage.server.fill("work")
    stage.advance(LONG)
    assert consumer.health().is_ok


def test_a_consumer_that_the_broker_cancelled_is_not_ready(stage: Stage) -> None:
    stage.server.fill("work")
    consumer = stage.consumer(lambda message: None)
    stage.turn()
    stage.server.delete_queue("work")
    stage.turn()
    assert consumer.health().state == "OPENING"
    assert consumer.health().last_error is not None


def test_the_stats_of_a_publisher_add_up_over_connections(stage: Stage) -> None:
    stage.server.on_publish = Publish.ack
    publisher = stage.publisher()
    stage.turn()
    stage.publish(publisher, numbered(5))
    stage.turn()
    stage.server.down()
    stage.publish(publisher, numbered(3), timeout=20)
    stage.publish(publisher, numbered(2))
    stage.advance(50)
    stage.server.up()
    stage.advance(LONG)
    stats = publisher.stats
    assert stats == PublisherStats(10, 0, 7, 0, 0, 3, 0, 0, repeats=stats.repeats)
    assert stats.confirmed == len(stage.fates.of(Outcome.CONFIRMED))


def test_publishes_that_a_loss_repeats_are_counted(stage: Stage) -> None:
    publishes: list[object] = []
    stage.server.on_publish = publishes.append
    publisher = stage.publisher()
    stage.turn()
    stage.publish(publisher, numbered(4))
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    assert publisher.stats.repeats == 4
    assert publisher.stats.pending == 4
    assert len(publishes) == 8
    publisher.close(timeout=1)
    stage.advance(LONG)
    assert publisher.stats.abandoned == 4
    assert publisher.health().state == "CLOSED"


def test_the_stats_of_a_consumer_count_messages(stage: Stage) -> None:
    def work(message: evamqp.Message) -> None:
        if message.body == b"1":
            raise ValueError("mine")

    stage.server.fill("work", *numbered(4))
    consumer = stage.consumer(work)
    stage.turn()
    assert consumer.stats == ConsumerStats(delivered=4, handled=4, failed=1, retried=0)


def test_the_stats_of_a_reconnector_sum_up_its_connections(stage: Stage) -> None:
    reconnector = stage.reconnector()
    stage.turn()
    first = reconnector.stats
    stage.wire.cut()
    stage.advance(LONG)
    second = reconnector.stats
    assert (first.attempts, first.connections) == (1, 1)
    assert (second.attempts, second.connections) == (2, 2)
    assert second.traffic.bytes_sent == 2 * first.traffic.bytes_sent > 0
    reconnector.close()
    stage.advance(LONG)
    assert reconnector.stats.traffic.bytes_sent >= second.traffic.bytes_sent
