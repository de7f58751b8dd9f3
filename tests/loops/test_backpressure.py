"""What happens between many publishes and a socket: few writes, one signal, bounded memory.

The broker is the small one of this folder, which stops reading when it is told to.
"""

from __future__ import annotations

import tracemalloc
from typing import cast

import pytest

import evamqp
from evamqp.abc import Adapter, Endpoint, Handle, Stream, Transport
from tests.loops.rig import Rig, on_sockets

KIB = 1024
MIB = 1024 * KIB
BODY = b"b" * (8 * KIB)
# Bytes that may lie outside our own buffer: what the driver hands over in one turn, and what a
# loop keeps for its socket.
IN_FLIGHT = 1 * MIB
# Turns of the loop without a chance to publish, after which the way is taken to be blocked.
STALLED_TURNS = 50
CAP = 8 * MIB


class CountingAdapter:
    """An adapter whose transports count the writes that come to them."""

    def __init__(self, adapter: Adapter) -> None:
        self.time = adapter.time
        self.call_soon = adapter.call_soon
        self.call_later = adapter.call_later
        self.call_soon_threadsafe = adapter.call_soon_threadsafe
        self.create_future = adapter.create_future
        self.run = adapter.run
        self.stop = adapter.stop
        self._adapter = adapter
        self.writes: list[int] = []

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        return self._adapter.connect(endpoint, CountingStream(stream, self.writes))


class CountingStream:
    """Between an adapter and a stream."""

    def __init__(self, stream: Stream, writes: list[int]) -> None:
        self._stream = stream
        self._writes = writes
        self.data_received = stream.data_received
        self.pause_writing = stream.pause_writing
        self.resume_writing = stream.resume_writing
        self.connection_lost = stream.connection_lost

    def connection_made(self, transport: Transport) -> None:
        self._stream.connection_made(CountingTransport(transport, self._writes))


class CountingTransport:
    """Notes the size of each write."""

    def __init__(self, transport: Transport, writes: list[int]) -> None:
        self._write = transport.write
        self._writes = writes
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.close = transport.close
        self.abort = transport.abort

    def write(self, data: bytes) -> None:
        self._writes.append(len(data))
        self._write(data)


class Watcher(evamqp.Handler):
    """Notes the signal, and what is confirmed."""

    def __init__(self) -> None:
        self.signals: list[bool] = []
        self.confirmed = 0

    def on_writable(self, connection: evamqp.Connection, writable: bool) -> None:
        self.signals.append(writable)

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: evamqp.types.Tags, acked: bool
    ) -> None:
        self.confirmed += len(tags)


def confirming(rig: Rig, handler: evamqp.Handler, **options: object) -> evamqp.Channel:
    """An open channel in confirm mode."""
    channel = rig.open(handler, **options)
    rig.settle(channel.confirm_select())
    return channel


# --- few writes


def test_thousand_publishes_in_one_callback_are_a_handful_of_writes(rig: Rig) -> None:
    adapter = CountingAdapter(rig.loop.adapter)
    watcher = Watcher()
    channel = confirming(rig, watcher, adapter=adapter)
    adapter.writes.clear()

    def publish() -> None:
        for _ in range(1000):
            channel.basic_publish("", "q", b"a small message")

    rig.loop.adapter.call_soon(publish)
    rig.loop.until(lambda: watcher.confirmed == 1000)
    assert len(adapter.writes) <= 4, adapter.writes
    assert rig.broker.bodies == [b"a small message"] * 1000


def test_requests_of_one_callback_leave_in_one_write(rig: Rig) -> None:
    adapter = CountingAdapter(rig.loop.adapter)
    channel = rig.open(adapter=adapter)
    adapter.writes.clear()
    channel.exchange_declare("x")
    channel.queue_declare("q")
    channel.queue_bind("q", "x")
    rig.settle(channel.queue_purge("q"))
    assert len(adapter.writes) == 1


def test_acks_of_one_callback_leave_in_one_write(rig: Rig) -> None:
    adapter = CountingAdapter(rig.loop.adapter)
    channel = rig.open(adapter=adapter)
    rig.broker.fill("q", *[b"body"] * 100)
    gets: list[evamqp.Message | None] = []
    for _ in range(100):
        channel.basic_get("q", callback=gets.append)
    rig.loop.until(lambda: len(gets) == 100)
    adapter.writes.clear()

    def settle() -> None:
        for message in gets:
            cast(evamqp.Message, message).ack()

    rig.loop.adapter.call_soon(settle)
    rig.loop.until(lambda: rig.broker.names.count("basic.ack") == 100)
    assert len(adapter.writes) == 1


# --- a broker that reads slowly


def stop_reading(rig: Rig) -> None:
    assert rig.server is not None
    rig.server.pause_reading()


def read_on(rig: Rig) -> None:
    assert rig.server is not None
    rig.server.resume_reading()


def fill(rig: Rig, channel: evamqp.Channel) -> int:
    """Publish whenever it is allowed, until that ends for good; how many that were."""
    count = stalled = 0

    def publish() -> None:
        nonlocal count, stalled
        stalled += 1
        for _ in range(50):
            if channel.connection.is_writable:
                channel.basic_publish("", "q", BODY)
                count += 1
                stalled = 0
        if stalled < STALLED_TURNS:
            rig.loop.adapter.call_soon(publish)

    rig.loop.adapter.call_soon(publish)
    rig.loop.until(lambda: stalled == STALLED_TURNS)
    return count


def publish_many(channel: evamqp.Channel) -> None:
    for _ in range(200):
        channel.basic_publish("", "q", BODY)


@on_sockets
def test_slow_reader_stops_the_publisher_and_starts_it_again(rig: Rig) -> None:
    watcher = Watcher()
    channel = confirming(rig, watcher, output_high_water=256 * KIB)
    stop_reading(rig)
    count = fill(rig, channel)
    assert watcher.signals[-1] is False
    assert channel.connection.output_size <= 256 * KIB + IN_FLIGHT
    waiting = channel.connection.wait_writable()
    read_on(rig)
    rig.settle(waiting)
    rig.loop.until(lambda: watcher.signals[-1])
    rig.loop.until(lambda: watcher.confirmed == count)
    assert channel.connection.is_writable
    assert channel.connection.output_size == 0
    assert watcher.signals == [False, True] * (len(watcher.signals) // 2)


@on_sockets
def test_signals_alternate_however_often_the_reader_stops(rig: Rig) -> None:
    watcher = Watcher()
    channel = confirming(rig, watcher, output_high_water=64 * KIB)
    count = 0
    for stops in range(1, 4):
        stop_reading(rig)
        count += fill(rig, channel)
        assert watcher.signals[-1] is False
        read_on(rig)
        rig.loop.until(lambda: watcher.signals[-1])
        assert len(watcher.signals) >= 2 * stops
    rig.loop.until(lambda: watcher.confirmed == count)
    assert watcher.signals == [False, True] * (len(watcher.signals) // 2)


@on_sockets
def test_publisher_that_never_looks_is_refused_at_the_cap_and_takes_no_tag(rig: Rig) -> None:
    watcher = Watcher()
    channel = confirming(rig, watcher, output_high_water=64 * KIB, output_max=MIB)
    stop_reading(rig)
    fill(rig, channel)
    with pytest.raises(evamqp.OutputFull):
        publish_many(channel)
    assert MIB - 2 * len(BODY) <= channel.connection.output_size <= MIB
    taken = len(channel.unconfirmed)
    read_on(rig)
    rig.loop.until(lambda: watcher.confirmed == taken)
    assert channel.basic_publish("", "q", BODY) == taken + 1
    rig.loop.until(lambda: watcher.confirmed == taken + 1)


@on_sockets
def test_memory_stays_bounded_however_often_the_reader_stops(rig: Rig) -> None:
    watcher = Watcher()
    channel = confirming(rig, watcher, output_max=CAP)
    rig.broker.keeps = False
    refusals = 0
    is_over = False

    def publish() -> None:
        nonlocal refusals
        if is_over:
            return
        try:
            for _ in range(50):
                channel.basic_publish("", "q", BODY)
        except evamqp.OutputFull:
            refusals += 1
        rig.loop.adapter.call_soon(publish)

    rig.loop.adapter.call_soon(publish)
    tracemalloc.start()
    try:
        for _ in range(3):
            stop_reading(rig)
            enough = refusals + STALLED_TURNS
            rig.loop.until(lambda: refusals > enough)  # noqa: B023
            read_on(rig)
            enough = watcher.confirmed + 1
            rig.loop.until(lambda: watcher.confirmed > enough)  # noqa: B023
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        is_over = True
    assert peak <= CAP + 4 * MIB


@on_sockets
def test_acks_go_out_although_the_output_is_at_its_cap(rig: Rig) -> None:
    channel = confirming(rig, Watcher(), output_high_water=64 * KIB, output_max=256 * KIB)
    rig.broker.fill("q", b"body")
    gets: list[evamqp.Message | None] = []
    channel.basic_get("q", callback=gets.append)
    rig.loop.until(lambda: gets)
    stop_reading(rig)
    fill(rig, channel)
    with pytest.raises(evamqp.OutputFull):
        publish_many(channel)
    assert cast(evamqp.Message, gets[0]).ack()
    read_on(rig)
    rig.loop.until(lambda: "basic.ack" in rig.broker.names)


@on_sockets
def test_close_under_backpressure_ends_when_the_broker_never_reads_again(rig: Rig) -> None:
    # Without heartbeats no other timer would come to the rescue.
    options = {"heartbeat": 0, "close_timeout": 0.1, "close_limit": 0.2}
    channel = confirming(rig, Watcher(), output_high_water=64 * KIB, **options)
    stop_reading(rig)
    count = fill(rig, channel)
    connection = channel.connection
    rig.settle(connection.close())
    assert connection.reason is not None
    assert connection.reason.by == "client"
    assert list(channel.unconfirmed) == list(range(1, count + 1))
