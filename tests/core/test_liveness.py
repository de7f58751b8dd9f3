"""Heartbeats, an alarm of the broker's, and reading that stands still."""

from __future__ import annotations

import pytest

from evamqp.codec.frames import method_frame
from evamqp.core.heartbeat import Heartbeat
from evamqp.core.state import TransportAction
from evamqp.errors import BlockedTimeout, HeartbeatTimeout, WrongState
from tests.support.client import Client, opened
from tests.support.frames import HEARTBEAT, Sent, ack, deliver, names, start, tune

BLOCKED = method_frame(0, "connection.blocked", "memory")
UNBLOCKED = method_frame(0, "connection.unblocked")


def beats(client: Client, seconds: float, *, step: float = 1.0) -> int:
    """Heartbeats sent while the broker goes on beating."""
    count = 0
    for _ in range(int(seconds / step)):
        client.feed(HEARTBEAT)
        client.advance(step)
        count += names(client.sent()).count("heartbeat")
    return count


# --- sending


def test_a_silent_client_beats_twice_in_each_interval() -> None:
    client = opened(heartbeat=60)
    assert 20 <= beats(client, 600) <= 21


def test_a_client_with_traffic_sends_no_heartbeat() -> None:
    client = opened(heartbeat=60)
    channel = client.channel()
    for _ in range(40):
        channel.basic_publish("", "q", b"x")
        client.feed(HEARTBEAT)
        client.advance(15)
        assert "heartbeat" not in names(client.sent())


def test_a_heartbeat_follows_within_half_an_interval_of_the_last_byte() -> None:
    client = opened(heartbeat=60)
    channel = client.channel()
    client.feed(HEARTBEAT)
    client.advance(20)
    channel.basic_publish("", "q", b"x")
    client.sent()
    client.feed(HEARTBEAT)
    client.advance(24.9)
    assert client.sent() == []
    client.advance(0.2)
    assert client.sent() == [Sent(0, "heartbeat")]


def test_bytes_that_wait_behind_a_full_transport_are_no_reason_to_beat() -> None:
    client = opened(heartbeat=60)
    client.call(client.connection.set_writable, False)
    channel = client.connection.channel()
    channel.basic_publish("", "q", b"x")
    size = client.connection.output_size
    for _ in range(8):
        client.feed(HEARTBEAT)
        client.advance(15)
    assert client.connection.output_size == size


def test_without_heartbeats_there_is_no_clock() -> None:
    client = opened(heartbeat=0)
    assert client.connection.heartbeat == 0
    assert client.connection.next_deadline() is None
    client.advance(100_000)
    assert client.sent() == []
    assert client.lives()


@pytest.mark.parametrize(("wanted", "agreed"), [(0, 0), (600, 600), (5, 5), (10**9, 65535)])
def test_a_function_decides_the_heartbeat_whatever_the_broker_wishes(
    wanted: int, agreed: int
) -> None:
    asked: list[int] = []

    def decide(offered: int) -> int:
        asked.append(offered)
        return wanted

    client = Client(heartbeat=decide)
    client.connect()
    client.feed(start("PLAIN"), tune(heartbeat=60))
    assert asked == [60]
    assert client.connection.heartbeat == agreed


def test_a_heartbeat_function_that_fails_ends_the_handshake() -> None:
    client = Client(heartbeat=lambda offered: 1 // 0)
    client.connect()
    client.feed(start("PLAIN"), tune(heartbeat=60))
    assert client.wants(TransportAction.ABORT)
    assert "ZeroDivisionError" in str(client.connection.reason)


def test_heartbeats_begin_with_tune() -> None:
    client = Client(heartbeat=4, handshake_timeout=100)
    client.connect()
    client.advance(50)
    assert client.wants(TransportAction.KEEP)


# --- the dead peer


def test_a_peer_is_dead_after_eight_silent_quarters() -> None:
    client = opened(heartbeat=60)
    client.feed(HEARTBEAT)
    client.advance(15)
    client.advance(119.9)
    assert client.lives()
    client.advance(0.2)
    assert client.wants(TransportAction.ABORT)
    assert client.log == []
    client.lose()
    (entry,) = client.log
    assert type(entry[1]) is HeartbeatTimeout
    assert entry[1].by == "network"
    assert "120" in str(entry[1])


def test_any_byte_keeps_a_peer_alive() -> None:
    client = opened(heartbeat=60)
    client.consumer(client.channel())
    data = deliver(1, "tag", 1, bytes(30))
    for byte in data:
        client.feed(bytes((byte,)))
        client.advance(100)
    assert client.lives()
    assert client.recorder.names == ["on_message"]


def test_a_late_tick_counts_once() -> None:
    client = opened(heartbeat=60)
    client.feed(HEARTBEAT)
    client.advance(15)
    for _ in range(7):
        client.runtime.now += 500  # the loop was busy
        client.turn()
        assert client.lives()
    client.runtime.now += 500
    client.turn()
    assert client.wants(TransportAction.ABORT)


def test_no_tick_counts_while_reading_is_paused() -> None:
    client = opened(heartbeat=60)
    client.connection.pause_reading()
    client.advance(10_000)
    assert client.lives()
    assert names(client.sent()) == ["heartbeat"]
    client.connection.resume_reading()
    client.advance(119)
    assert client.lives()
    client.advance(16)
    assert client.wants(TransportAction.ABORT)


def test_the_table_of_ticks() -> None:
    heartbeat = Heartbeat(8)
    assert heartbeat.period == 2
    assert [heartbeat.tick(reading=True) for _ in range(3)] == [True, True, True]
    heartbeat.sent = heartbeat.received = True
    assert [heartbeat.tick(reading=True) for _ in range(3)] == [False, True, True]
    deaths = []
    for reading in (True,) * 7 + (False,):
        deaths.append(heartbeat.is_dead)
        heartbeat.tick(reading=reading)
    assert [*deaths, heartbeat.is_dead] == [False] * 6 + [True, True, False]


# --- blocked


def test_blocked_and_unblocked_are_reported_and_change_is_writable_at_once() -> None:
    client = opened()
    states: list[tuple[bool, bool]] = []
    connection = client.connection
    for name in ("on_blocked", "on_unblocked"):
        client.recorder.inside(
            name, lambda *_: states.append((connection.is_blocked, connection.is_writable))
        )
    client.feed(BLOCKED, UNBLOCKED)
    assert states == [(True, False), (False, True)]
    assert client.recorder.names == ["on_blocked", "on_writable", "on_unblocked", "on_writable"]


def test_blocked_twice_is_reported_twice_and_counted_once() -> None:
    client = opened(heartbeat=0)
    client.feed(BLOCKED)
    client.advance(5)
    client.feed(BLOCKED)
    client.advance(5)
    client.feed(UNBLOCKED)
    client.feed(UNBLOCKED)
    assert client.connection.stats.blocked_seconds == 10
    assert client.recorder.names.count("on_writable") == 2


def test_a_blocked_connection_still_reads_beats_and_publishes() -> None:
    client = opened(heartbeat=60)
    channel = client.confirming_channel()
    client.consumer(channel)
    client.feed(BLOCKED)
    channel.basic_publish("", "q", b"x")
    client.feed(deliver(1, "tag", 1), ack(1, 1))
    assert "on_message" in client.recorder.names
    assert "on_delivery_confirmation" in client.recorder.names
    client.sent()
    client.feed(HEARTBEAT)
    client.advance(45)
    assert client.sent() == [Sent(0, "heartbeat")]


def test_blocked_for_too_long_is_an_end() -> None:
    client = opened(blocked_timeout=50, heartbeat=0)
    client.feed(BLOCKED)
    client.advance(30)
    client.feed(BLOCKED)
    client.advance(19.9)
    assert client.lives()
    client.advance(0.1)
    assert client.wants(TransportAction.ABORT)
    client.lose()
    assert type(client.log[-1][1]) is BlockedTimeout


def test_unblocked_in_time_ends_the_blocked_clock() -> None:
    client = opened(blocked_timeout=50, heartbeat=0)
    client.feed(BLOCKED)
    client.advance(49)
    client.feed(UNBLOCKED)
    client.advance(1000)
    assert client.lives()


def test_blocked_during_a_close_is_no_error() -> None:
    client = opened(blocked_timeout=50)
    client.connection.close()
    client.feed(BLOCKED, UNBLOCKED, method_frame(0, "connection.close-ok"))
    client.lose()
    assert client.recorder.names[-1] == "on_close"
    assert client.connection.reason is not None
    assert client.connection.reason.by == "client"


# --- pause_reading


@pytest.mark.parametrize("warm", [True, False])
def test_nothing_is_delivered_while_reading_is_paused_and_nothing_is_lost(warm: bool) -> None:
    client = opened()
    client.consumer(client.channel())
    if warm:
        client.feed(deliver(1, "tag", 100))
    client.recorder.take()
    client.recorder.inside("on_message", lambda message: client.connection.pause_reading())
    data = b"".join(deliver(1, "tag", number, bytes(100)) for number in range(5))
    client.feed(data[:250])
    client.feed(data[250:400])
    client.feed(data[400:])
    assert client.connection.reading is False
    for count in range(1, 6):
        assert [entry[3] for entry in client.log] == list(range(count))
        client.connection.resume_reading()
        client.turn()
    assert len(client.log) == 5


def test_pausing_and_resuming_are_idempotent() -> None:
    client = opened()
    client.consumer(client.channel())
    connection = client.connection
    connection.pause_reading()
    connection.pause_reading()
    client.feed(deliver(1, "tag", 1))
    assert client.recorder.messages == []
    connection.resume_reading()
    connection.resume_reading()
    client.turn()
    assert len(client.recorder.messages) == 1


def test_a_pause_amid_a_body_goes_on_where_it_stopped() -> None:
    client = opened()
    client.consumer(client.channel())
    data = deliver(1, "tag", 1, bytes(50_000))
    client.feed(data[:20_000])
    client.connection.pause_reading()
    client.feed(data[20_000:30_000])
    client.feed(data[30_000:40_000])
    client.connection.resume_reading()
    client.turn()
    client.feed(data[40_000:])
    assert [message.body for message in client.recorder.messages] == [bytes(50_000)]


def test_what_was_held_back_is_delivered_before_the_end_is_reported() -> None:
    client = opened()
    client.consumer(client.channel())
    client.connection.pause_reading()
    client.feed(deliver(1, "tag", 1))
    client.lose()
    assert client.recorder.names == ["on_message", "on_channel_close", "on_close"]


def test_a_close_while_reading_is_paused_reads_its_answer() -> None:
    client = opened()
    client.connection.pause_reading()
    client.connection.close()
    assert client.connection.reading
    client.feed(method_frame(0, "connection.close-ok"))
    assert client.wants(TransportAction.CLOSE)


def test_after_the_end_reading_cannot_be_paused() -> None:
    client = opened()
    client.lose()
    for call in (client.connection.pause_reading, client.connection.resume_reading):
        with pytest.raises(WrongState, match="CLOSED"):
            call()
