"""What each fault looks like from the client's side, in virtual time."""

from __future__ import annotations

import pytest

import evamqp
from evamqp.testing.fixtures import MemoryBroker
from tests.testing.world import World

PERSISTENT = evamqp.Properties(delivery_mode=2)


@pytest.fixture
def world(amqp_memory: MemoryBroker) -> World:
    return World(amqp_memory)


@pytest.mark.parametrize("reset", [False, True])
def test_dropped_connection_ends_by_the_network(world: World, reset: bool) -> None:
    recorder, _ = world.open()
    world.broker.faults.drop_connections(reset=reset)
    world.settle()
    assert recorder.reason is not None
    assert recorder.reason.by == "network"
    assert isinstance(recorder.reason.__cause__, ConnectionResetError) is reset
    assert world.broker.connections() == []


def test_one_connection_is_dropped_and_the_other_stays(world: World) -> None:
    first, _ = world.open()
    second, _ = world.open()
    world.broker.faults.drop_connections(only=2)
    world.settle()
    assert first.reason is None
    assert second.reason is not None
    assert [connection.number for connection in world.broker.connections()] == [1]


def test_connection_is_cut_after_every_byte_of_the_handshake(world: World) -> None:
    count = 0
    while True:
        world.broker.faults.cut_after(bytes=count)
        recorder, connection = world.connect()
        world.settle()
        if recorder.reason is None:
            break
        assert recorder.names() == ["open_error"]
        count += 1
    assert count > 400
    assert connection.is_open


def test_connection_is_cut_after_a_frame_sent(world: World) -> None:
    names = []
    for frames in range(1, 5):
        world.broker.faults.cut_after(frames=frames, reset=False)
        recorder, _ = world.connect()
        world.settle()
        names.append(recorder.names())
    # start, tune, open-ok; the fourth frame would be the answer to something asked later.
    assert names == [["open_error"], ["open_error"], ["open", "close"], ["open"]]


def test_frames_received_before_the_cut_are_carried_out_and_not_answered(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.cut_after(frames=6, direction="received", only=1)
    for number in range(4):
        channel.basic_publish("", "q", b"%d" % number)  # three frames each
    world.settle()
    assert recorder.names()[-1] == "close"
    assert recorder.outcomes() == []
    assert channel.unconfirmed
    assert [each.body for each in world.broker.published] == [b"0", b"1"]
    assert world.broker.queue("q").bodies == (b"0", b"1")


def test_bytes_received_are_counted_too(world: World) -> None:
    _, channel = world.open()
    world.broker.faults.cut_after(bytes=100, direction="received", only=1)
    for _ in range(10):
        channel.basic_publish("", "q", b"x" * 30)
    world.settle()
    assert 1 <= len(world.broker.published) <= 2


def test_cut_takes_either_frames_or_bytes(world: World) -> None:
    with pytest.raises(evamqp.BadArgument, match="either frames or bytes"):
        world.broker.faults.cut_after()


def test_refused_connections_fail_and_open_ones_stay(world: World) -> None:
    old, _ = world.open()
    world.broker.faults.refuse_connections()
    new, _ = world.connect()
    world.settle()
    assert isinstance(new.reason, evamqp.ConnectFailed)
    assert old.reason is None
    world.broker.faults.accept_connections()
    again, _ = world.connect()
    world.settle()
    assert again.names() == ["open"]


def test_stalled_broker_is_found_by_heartbeat(world: World) -> None:
    recorder, channel = world.open(heartbeat=10)
    world.adapter.advance(60)
    assert channel.is_open
    world.broker.faults.stall()
    world.adapter.advance(30)
    assert isinstance(recorder.reason, evamqp.HeartbeatTimeout)


def test_stalled_broker_goes_on_where_it_was(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.stall()
    channel.basic_publish("", "q", b"one")
    world.adapter.advance(5)
    assert world.broker.published == []
    world.broker.faults.resume()
    world.settle()
    assert recorder.outcomes() == [1]


def test_connection_is_closed_with_a_code(world: World) -> None:
    recorder, _ = world.open()
    world.broker.faults.close_connections(320, "maintenance")
    world.settle()
    assert recorder.reason is not None
    assert (recorder.reason.code, recorder.reason.by) == (320, "broker")
    assert recorder.reason.text == "CONNECTION_FORCED - maintenance"


def test_channels_are_closed_with_a_code(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.close_channels(406, "because")
    world.settle()
    assert recorder.calls[-1] == ("channel_close", (406, "PRECONDITION_FAILED - because"))
    assert channel.connection.is_open


def test_alarm_blocks_publishers_until_it_is_over(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.block("low on disk")
    world.settle()
    assert "blocked" not in recorder.names()
    channel.basic_publish("", "q", b"one")
    world.settle()
    assert ("blocked", "low on disk") in recorder.calls
    assert world.broker.connections()[0].blocked
    assert recorder.outcomes() == []
    world.broker.faults.unblock()
    world.settle()
    assert recorder.names()[-2:] == ["unblocked", "confirm"]


def test_consumers_are_cancelled_and_the_queue_stays(world: World) -> None:
    recorder, channel = world.open()
    channel.basic_consume("q", recorder.on_message, consumer_tag="t")
    world.settle()
    world.broker.faults.cancel_consumers("q")
    world.settle()
    assert recorder.calls[-1] == ("cancel", "t")
    assert world.broker.queue("q").consumers == 0


def test_deleted_queue_cancels_its_consumers(world: World) -> None:
    recorder, channel = world.open()
    channel.basic_consume("q", recorder.on_message, consumer_tag="t")
    world.settle()
    world.broker.faults.delete_queue("q")
    world.settle()
    assert recorder.calls[-1] == ("cancel", "t")
    assert world.broker.queues() == {}


def test_held_confirms_come_when_they_are_released(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.hold_confirms()
    for _ in range(3):
        channel.basic_publish("", "q", b"m")
    world.settle()
    assert world.broker.queue("q").ready == 3
    assert recorder.outcomes() == []
    world.broker.faults.release_confirms()
    world.settle()
    assert recorder.outcomes() == [1, 2, 3]


def test_delayed_confirms_come_at_their_time(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.delay_confirms(2.0)
    channel.basic_publish("", "q", b"m")
    world.adapter.advance(1.9)
    assert recorder.outcomes() == []
    world.adapter.advance(0.2)
    assert recorder.outcomes() == [1]


def test_nacked_returned_and_lost_publishes(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.nack_next()
    world.broker.faults.return_next(2)
    world.broker.faults.lose_next()
    for number in range(4):
        channel.basic_publish("", "q", b"%d" % number, mandatory=number != 2)
    channel.basic_publish("", "q", b"kept")
    world.settle()
    assert recorder.calls.count(("return", b"1")) == 1
    assert recorder.names().count("return") == 1
    assert recorder.outcomes() == [-1, 2, 3, 5]
    assert list(channel.unconfirmed) == [4]
    assert world.broker.queue("q").bodies == (b"kept",)
    assert [each.queues for each in world.broker.published] == [(), (), (), (), ("q",)]


def test_repeated_confirms_settle_nothing_again(world: World) -> None:
    recorder, channel = world.open()
    for number in range(3):
        channel.basic_publish("", "q", b"%d" % number)
    world.settle()
    world.broker.faults.repeat_confirms()
    world.settle()
    assert recorder.outcomes() == [1, 2, 3]
    assert channel.connection.stats.unknown_confirms == 1


def test_lost_confirms_never_come_though_the_messages_are_there(world: World) -> None:
    recorder, channel = world.open()
    world.broker.faults.lose_confirms(2)
    for number in range(4):
        channel.basic_publish("", "q", b"%d" % number)
    channel.basic_publish("", "nowhere", b"unroutable", mandatory=True)
    world.settle()
    assert recorder.outcomes() == [3, 4, 5]
    assert world.broker.queue("q").bodies == (b"0", b"1", b"2", b"3")
    assert ("return", b"unroutable") in recorder.calls


def test_prefetch_is_ignored_while_the_fault_lasts(world: World) -> None:
    recorder, channel = world.open()
    for number in range(10):
        channel.basic_publish("", "q", b"%d" % number)
    channel.basic_qos(2)
    channel.basic_consume("q", recorder.on_message)
    world.settle()
    assert len(recorder.bodies) == 2
    world.broker.faults.ignore_prefetch()
    world.settle()
    assert len(recorder.bodies) == 10
    world.broker.faults.ignore_prefetch(False)
    channel.basic_publish("", "q", b"more")
    world.settle()
    assert len(recorder.bodies) == 10


def test_channels_open_late_or_not_at_all(world: World) -> None:
    recorder, connection = world.connect()
    world.settle()
    world.broker.faults.delay_channels(5.0)
    late = connection.channel()
    opened = []
    for wait in (4.9, 0.2):
        world.adapter.advance(wait)
        opened.append(late.is_open)
    world.broker.faults.delay_channels(None)
    never = connection.channel()
    world.adapter.advance(5.0)
    opened.append(never.is_open)
    world.broker.faults.admit_channels()
    world.settle()
    opened.append(never.is_open)
    assert opened == [False, True, False, True]
    assert recorder.reason is None


def test_what_is_behind_a_late_open_is_answered_behind_it(world: World) -> None:
    recorder, connection = world.connect()
    world.settle()
    world.broker.faults.delay_channels(5.0)
    channel = connection.channel()
    channel.confirm_select()
    channel.queue_declare("q")
    tag = channel.basic_publish("", "q", b"body", mandatory=True)
    world.adapter.advance(4.9)
    assert not world.broker.queues()
    world.adapter.advance(0.2)
    assert recorder.outcomes() == [tag]
    assert world.broker.queue("q").bodies == (b"body",)
    assert recorder.reason is None


def test_replayed_deliveries_are_late_frames_to_the_client(world: World) -> None:
    recorder, channel = world.open()
    channel.basic_consume("q", recorder.on_message, auto_ack=True)
    world.settle()
    channel.basic_publish("", "q", b"once")
    world.settle()
    connection = channel.connection
    world.wait(channel.close())
    world.broker.faults.replay_deliveries()
    world.settle()
    assert recorder.bodies == [b"once"]
    assert connection.is_open
    assert connection.stats.late_frames == 3


def test_only_deliveries_are_replayed(world: World) -> None:
    recorder, channel = world.open()
    channel.basic_publish("", "nowhere", b"returned", mandatory=True)
    channel.basic_publish("", "q", b"got")
    world.settle()
    world.wait(channel.basic_get("q"))
    world.broker.faults.replay_deliveries()
    world.settle()
    assert recorder.names().count("return") == 1
    assert channel.is_open


def test_restart_keeps_durable_things_and_persistent_messages(world: World) -> None:
    recorder, channel = world.open()
    channel.exchange_declare("kept", "fanout", durable=True)
    channel.exchange_declare("lost", "fanout")
    channel.queue_declare("durable", durable=True)
    channel.queue_declare("mine", durable=True, exclusive=True)
    for exchange in ("kept", "lost"):
        channel.queue_bind("durable", exchange)
    for body, properties in ((b"1", PERSISTENT), (b"2", None), (b"3", PERSISTENT)):
        channel.basic_publish("kept", "", body, properties)
    world.wait(channel.wait_for_confirms())
    world.wait(channel.basic_get("durable"))  # out and unacknowledged
    world.broker.faults.restart(down=3.0)
    world.settle()
    assert recorder.reason is not None
    assert recorder.reason.code == 320
    refused, _ = world.connect()
    world.settle()
    assert isinstance(refused.reason, evamqp.ConnectFailed)
    world.adapter.advance(3.0)
    assert set(world.broker.queues()) == {"durable"}
    assert "lost" not in world.broker.exchanges()
    assert [each.source for each in world.broker.bindings()] == ["kept"]
    _, again = world.open()
    message = world.wait(again.basic_get("durable", auto_ack=True))
    assert message is not None
    assert (message.body, message.redelivered) == (b"1", True)
    message = world.wait(again.basic_get("durable", auto_ack=True))
    assert message is not None
    assert (message.body, message.redelivered) == (b"3", False)


def test_crash_ends_connections_without_a_word(world: World) -> None:
    recorder, _ = world.open()
    world.broker.faults.stop(graceful=False)
    world.settle()
    assert recorder.reason is not None
    assert (recorder.reason.code, recorder.reason.by) == (None, "network")
    world.broker.faults.start()
    again, _ = world.connect()
    world.settle()
    assert again.names() == ["open"]


def test_repair_ends_every_fault_that_lasts(world: World) -> None:
    recorder, channel = world.open()
    faults = world.broker.faults
    faults.hold_confirms()
    faults.nack_next(5)
    faults.cut_after(bytes=10)
    faults.stall()
    faults.block()
    faults.refuse_connections()
    world.broker.repair()
    channel.basic_publish("", "q", b"m")
    fresh, _ = world.connect()
    world.settle()
    assert recorder.outcomes() == [1]
    assert fresh.names() == ["open"]
