"""One core, one transport, one timer, on the memory adapter: dialling, writing, letting go."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import evamqp
from evamqp.abc import Handle, LoopCallback, Transport
from evamqp.adapters.memory import MemoryAdapter, Peer
from evamqp.codec.frames import PROTOCOL_HEADER, method_frame
from evamqp.core.connection import Connection
from evamqp.core.output import FLUSH_AT
from evamqp.driver import TURN_BUDGET, Driver
from evamqp.errors import (
    AuthenticationFailed,
    BadArgument,
    ConnectFailed,
    ConnectionClosed,
    HandshakeTimeout,
    HeartbeatTimeout,
    NotExecuted,
    ProtocolError,
    ProtocolMismatch,
    WrongState,
)
from evamqp.parameters import Parameters
from tests.support.client import outcome
from tests.support.frames import (
    OPEN_OK,
    FrameBuffer,
    connection_close,
    decode,
    deliver,
    reply_to,
    start,
    tune,
)
from tests.support.recording_handler import RecordingHandler


class Broker(Peer):
    """A peer that shakes hands and answers every request with its plain reply.

    Attributes:
        heard: The names of the methods that came.
        bodies: The payloads of the body frames that came.
        polite: False: it answers nothing.
    """

    __slots__ = ("bodies", "buffer", "heard", "polite")

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.bodies: list[bytes] = []
        self.polite = True
        self.buffer = FrameBuffer(expects_header=True)

    def data_received(self, data: bytes) -> None:
        has_greeted = self.buffer.has_header
        arrived = self.buffer.feed_sent(data)
        if self.buffer.has_header and not has_greeted:
            self._answer(start())
        for sent in arrived:
            self.heard.append(sent.name)
            if sent.name == "body":
                self.bodies.append(sent.arguments[0])
            if sent.name == "connection.start-ok":
                self._answer(tune(heartbeat=4))
            elif sent.name == "connection.open":
                self._answer(OPEN_OK)
            else:
                self._answer(reply_to(sent))

    def _answer(self, data: bytes) -> None:
        if self.polite:
            self.send(data)


class Loop(MemoryAdapter):
    """A memory loop that counts the timers set and called off."""

    __slots__ = ("set_timers",)

    def __init__(self) -> None:
        super().__init__()
        self.set_timers: list[float] = []

    def call_later(self, delay: float, callback: LoopCallback) -> Handle:
        self.set_timers.append(self.time() + delay)
        return super().call_later(delay, callback)


class Stage:
    """A loop, a broker that listens, and whoever connects to it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.brokers: list[Broker] = []
        self.loop.listen("broker", 5672, self._accept)
        self.recorder = RecordingHandler()
        self.recorder.in_loop = True

    def _accept(self) -> Broker:
        self.brokers.append(Broker())
        return self.brokers[-1]

    @property
    def broker(self) -> Broker:
        return self.brokers[-1]

    def connect(self, *targets: Parameters | str, **parameters: Any) -> Connection:
        """Begin to connect; to "broker" if no target is given."""
        wanted = list(targets) or [Parameters("broker", heartbeat=4, **parameters)]
        return evamqp.connect(wanted, self.recorder, adapter=self.loop)

    @staticmethod
    def broker_heard(peer: Peer, name: str) -> int:
        """How often a plain peer was sent this method."""
        frames = decode(bytes(peer.received).removeprefix(PROTOCOL_HEADER))
        return [frame.name for frame in frames].count(name)

    def open(self, **parameters: Any) -> Connection:
        connection = self.connect(**parameters)
        self.loop.run_until_idle()
        assert connection.is_open
        self.recorder.take()
        return connection


@pytest.fixture
def stage() -> Stage:
    return Stage()


def error_of(stage: Stage) -> Any:
    assert stage.recorder.names in (["on_open_error"], ["on_close"])
    return stage.recorder.log[0][1]


# --- dialling


def test_connect_returns_at_once_and_calls_nothing_back(stage: Stage) -> None:
    stage.recorder.in_loop = False
    connection = stage.connect()
    assert stage.brokers == []
    assert connection.adapter is stage.loop
    stage.recorder.in_loop = True
    stage.loop.run_until_idle()
    assert stage.recorder.names == ["on_open"]
    assert connection.parameters is not None
    assert connection.parameters.host == "broker"


def test_a_list_of_targets_falls_over_to_the_first_that_answers(stage: Stage) -> None:
    stage.loop.unresolvable.add("nowhere")
    stage.loop.unanswering.add("silent")
    connection = stage.connect(
        Parameters("nowhere"), Parameters("refusing"), Parameters("silent"), Parameters("broker")
    )
    stage.loop.advance(6)
    assert stage.recorder.names == ["on_open"]
    assert connection.parameters == Parameters("broker")


def test_when_all_targets_fail_every_attempt_is_reported_in_order(stage: Stage) -> None:
    stage.loop.unresolvable.add("nowhere")
    stage.loop.unanswering.add("silent")
    stage.connect("amqp://nowhere", "amqp://refusing:1234", "amqp://silent")
    stage.loop.advance(60)
    error = error_of(stage)
    assert type(error) is ConnectFailed
    assert [target for target, _ in error.attempts] == [
        "nowhere:5672",
        "refusing:1234",
        "silent:5672",
    ]
    for target, cause in error.attempts:
        assert target in str(error)
        assert isinstance(cause, Exception)
    assert error.__cause__ is not None


def test_a_target_whose_certificates_cannot_be_read_is_one_failed_attempt(stage: Stage) -> None:
    bad = Parameters("broker", tls=True, cacertfile="/nonexistent/authority.pem")
    stage.connect(bad, Parameters("refusing"))
    stage.loop.advance(20)
    error = error_of(stage)
    assert type(error.attempts[0][1]) is BadArgument
    assert len(error.attempts) == 2


def test_a_failed_handshake_ends_the_connection_without_another_target(stage: Stage) -> None:
    peer = Peer()
    stage.loop.listen("web", 80, lambda: peer)
    stage.connect(Parameters("web", 80), Parameters("broker"))
    stage.loop.run_until_idle()
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    stage.loop.run_until_idle()
    assert type(error_of(stage)) is ProtocolMismatch
    assert stage.brokers == []
    assert not peer.is_connected


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("host", ["broker", "silent", "refusing", "nowhere"])
def test_close_during_the_dial_is_reported_once(stage: Stage, turns: int, host: str) -> None:
    stage.loop.unanswering.add("silent")
    stage.loop.unresolvable.add("nowhere")
    connection = stage.connect(Parameters(host), Parameters("silent"))
    for _ in range(turns):
        stage.loop._turn()
    if stage.recorder.names == []:
        request = connection.close()
        assert stage.recorder.names == []
        stage.loop.advance(30)
        assert stage.recorder.names == ["on_open_error"]
        assert error_of(stage).by == "client"
        assert outcome(request) is error_of(stage)
    assert all(not broker.is_connected for broker in stage.brokers)


def test_a_silent_peer_is_left_when_the_handshake_timeout_ends(stage: Stage) -> None:
    peer = Peer()
    stage.loop.listen("mute", 5672, lambda: peer)
    stage.connect(Parameters("mute", handshake_timeout=7))
    stage.loop.advance(6.9)
    assert peer.is_connected
    stage.loop.advance(0.2)
    assert type(error_of(stage)) is HandshakeTimeout
    assert not peer.is_connected


# --- writing


def test_a_thousand_publishes_in_one_callback_are_a_handful_of_writes(stage: Stage) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.loop.run_until_idle()
    writes = spy(stage)

    def publish() -> None:
        for _ in range(1000):
            channel.basic_publish("", "q", bytes(100))
        assert len(writes) <= 1000 * 200 // FLUSH_AT + 1

    stage.loop.call_soon(publish)
    stage.loop.run_until_idle()
    assert 1 <= len(writes) <= 5
    assert stage.broker.heard.count("basic.publish") == 1000


def spy(stage: Stage) -> list[int]:
    """The sizes of the client's writes from now on."""
    sizes: list[int] = []
    transport = stage.broker.transport.peer
    driver = transport._stream
    assert isinstance(driver, Driver)
    driver._transport = Spy(transport, sizes)
    return sizes


class Spy:
    """A transport that notes what is written through it."""

    def __init__(self, transport: Transport, sizes: list[int]) -> None:
        self._transport = transport
        self._sizes = sizes
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.close = transport.close
        self.abort = transport.abort

    def write(self, data: bytes) -> None:
        assert data
        self._sizes.append(len(data))
        self._transport.write(data)


def test_one_turn_hands_over_no_more_than_its_budget_and_what_is_left_follows(
    stage: Stage,
) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.loop.run_until_idle()
    writes = spy(stage)

    def publish() -> None:
        while connection.is_writable:
            channel.basic_publish("", "q", bytes(10_000))
        assert sum(writes) <= TURN_BUDGET + FLUSH_AT + 20_000
        assert connection.output_size > 1024 * 1024

    stage.loop.call_soon(publish)
    stage.loop.run_until_idle()
    assert connection.is_writable
    assert ("on_writable", False) in stage.recorder.log
    assert stage.recorder.log[-1] == ("on_writable", True)


def test_each_turn_hands_over_its_budget_while_the_transport_takes_it(stage: Stage) -> None:
    connection = stage.open(output_high_water=8 * TURN_BUDGET)
    channel = connection.channel()
    stage.loop.run_until_idle()
    writes = spy(stage)
    stage.broker.transport.silence()  # what loses all that is written is never full
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        if connection.output_size:
            stage.loop.call_soon(count)

    channel.basic_publish("", "q", bytes(4 * TURN_BUDGET))
    stage.loop.call_soon(count)
    stage.loop.run_until_idle()
    assert sum(writes) > 4 * TURN_BUDGET
    assert turns <= 5


@pytest.mark.parametrize("messages", [100, 110, 130, 160, 300])
def test_output_leaves_in_order_however_much_waits(stage: Stage, messages: int) -> None:
    connection = stage.open(output_high_water=512 * 1024)
    channel = connection.channel()
    stage.loop.run_until_idle()
    bodies = [number.to_bytes(4, "big") * 2500 for number in range(messages)]
    stage.broker.transport.pause_reading()
    for body in bodies:
        channel.basic_publish("", "q", body)
        stage.loop.run_until_idle()
    assert connection.output_size > 512 * 1024
    stage.broker.transport.resume_reading()
    stage.loop.run_until_idle()
    assert stage.broker.bodies == bodies


def test_output_of_calls_outside_callbacks_leaves_on_the_next_turn(stage: Stage) -> None:
    connection = stage.open()
    connection.channel()
    writes = spy(stage)
    connection.channel()
    connection.channel()
    assert writes == []
    stage.loop.run_until_idle()
    assert len(writes) == 1
    assert stage.broker.heard.count("channel.open") == 3


@pytest.mark.parametrize("is_asked", [True, False])
def test_output_of_the_next_turn_leaves_within_it_if_that_was_asked_for(
    stage: Stage, is_asked: bool
) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.loop.run_until_idle()
    waiting: list[int] = []
    # As a callback of ours does that wakes a coroutine: what it sends comes before the flush.
    stage.loop.call_soon(lambda: channel.basic_publish("", "q", b"body"))
    if is_asked:
        connection.flush_next_turn()
    stage.loop.call_soon(lambda: waiting.append(connection.output_size))
    stage.loop.run_until_idle()
    assert (waiting == [0]) is is_asked
    assert stage.broker.bodies == [b"body"]


def test_a_flush_of_the_next_turn_after_the_end_is_a_no_op(stage: Stage) -> None:
    connection = stage.open()
    connection.close()
    stage.loop.run_until_idle()
    connection.flush_next_turn()
    stage.loop.run_until_idle()
    assert stage.recorder.names == ["on_close"]


def test_a_peer_that_does_not_read_pauses_the_core_and_resumes_it(stage: Stage) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.loop.run_until_idle()
    stage.recorder.take()
    stage.broker.transport.pause_reading()
    for _ in range(40):
        channel.basic_publish("", "q", bytes(10_000))
    stage.loop.run_until_idle()
    assert stage.recorder.take() == [("on_writable", False)]
    channel.basic_publish("", "q", b"x")
    stage.loop.run_until_idle()
    assert connection.output_size > 0
    stage.broker.transport.resume_reading()
    stage.loop.run_until_idle()
    assert connection.is_writable
    assert stage.recorder.take() == [("on_writable", True)]
    assert connection.output_size == 0
    assert stage.broker.heard.count("basic.publish") == 41


def test_paused_reading_reaches_the_transport(stage: Stage) -> None:
    connection = stage.open()
    channel = connection.channel()
    channel.basic_consume("q", stage.recorder.on_message, consumer_tag="tag")
    stage.loop.run_until_idle()
    stage.recorder.take()
    connection.pause_reading()
    stage.loop.run_until_idle()
    stage.broker.send(deliver(1, "tag", 1) * 3)
    stage.loop.advance(100)
    received = connection.stats.bytes_received
    assert stage.recorder.messages == []
    connection.resume_reading()
    stage.loop.run_until_idle()
    assert connection.stats.bytes_received > received
    assert len(stage.recorder.messages) == 3


def test_a_burst_is_delivered_whatever_the_size_of_a_read(stage: Stage) -> None:
    connection = stage.open()
    connection.channel().basic_consume("q", stage.recorder.on_message, consumer_tag="tag")
    stage.loop.run_until_idle()
    stage.broker.transport.peer.chunk_size = 1
    stage.broker.send(b"".join(deliver(1, "tag", number) for number in range(5)))
    stage.loop.run_until_idle()
    assert [message.delivery_tag for message in stage.recorder.messages] == list(range(5))


# --- time


def test_the_timer_is_moved_only_to_an_earlier_time(stage: Stage) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.loop.run_until_idle()
    stage.loop.set_timers.clear()
    for _ in range(100):
        channel.queue_declare("q")
        stage.loop.run_until_idle()
    assert len(stage.loop.set_timers) <= 2


def test_a_timer_that_fires_early_is_armed_again(stage: Stage) -> None:
    peer = Peer()
    stage.loop.listen("slow", 5672, lambda: peer)
    connection = stage.connect(Parameters("slow", handshake_timeout=5, heartbeat=0))
    stage.loop.advance(1)
    peer.send(start() + tune(heartbeat=0) + OPEN_OK)
    stage.loop.run_until_idle()
    connection.channel()
    stage.loop.advance(29)
    assert stage.broker_heard(peer, "channel.close") == 0
    stage.loop.advance(1)
    assert stage.broker_heard(peer, "channel.close") == 1


def test_heartbeats_keep_a_quiet_connection_for_days(stage: Stage) -> None:
    connection = stage.open()
    for _ in range(100):
        stage.broker.send(method_frame(0, "connection.unblocked"))
        stage.loop.advance(5)
    assert connection.is_open
    assert stage.broker.heard.count("heartbeat") > 200


def test_a_dead_peer_is_aborted(stage: Stage) -> None:
    stage.open()
    stage.broker.transport.silence()
    stage.loop.advance(20)
    assert type(error_of(stage)) is HeartbeatTimeout


def test_a_close_on_a_mute_peer_is_bounded(stage: Stage) -> None:
    connection = stage.open()
    stage.broker.polite = False
    request = connection.close()
    stage.loop.advance(7)
    assert outcome(request).by == "client"
    assert stage.recorder.names == ["on_close"]
    assert not stage.broker.is_connected


def test_a_close_behind_a_peer_that_does_not_read_is_bounded(stage: Stage) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.loop.run_until_idle()
    stage.broker.transport.pause_reading()
    for _ in range(60):
        channel.basic_publish("", "q", bytes(10_000))
    stage.loop.run_until_idle()
    connection.close()
    stage.loop.advance(7)
    assert stage.recorder.names[-1] == "on_close"


# --- ends


def test_a_close_is_answered_and_both_sides_hang_up(stage: Stage) -> None:
    connection = stage.open()
    request = connection.close()
    assert stage.loop.run_until(request).by == "client"
    stage.loop.run_until_idle()
    assert stage.broker.heard[-1] == "connection.close"
    assert stage.broker.reason is None
    assert not stage.broker.is_connected


def test_a_broker_close_flushes_close_ok(stage: Stage) -> None:
    stage.open()
    stage.broker.send(connection_close(320, "shutdown"))
    stage.loop.run_until_idle()
    assert stage.broker.heard[-1] == "connection.close-ok"
    assert error_of(stage).code == 320


@pytest.mark.parametrize("fault", ["reset", "close", "cut"])
def test_a_loss_is_reported_once_with_everything_that_waited(stage: Stage, fault: str) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.loop.run_until_idle()
    stage.broker.polite = False
    request = channel.queue_declare("q")
    stage.recorder.take()
    transport = stage.broker.transport
    if fault == "cut":
        transport.peer.cut_after(0)
    elif fault == "reset":
        transport.reset()
    else:
        transport.close()
    stage.loop.run_until_idle()
    assert stage.recorder.names == ["on_channel_close", "on_close"]
    assert isinstance(outcome(request), NotExecuted)
    assert isinstance(connection.reason, ConnectionClosed)
    assert connection.reason.by == "network"


def test_after_the_end_waiting_is_answered_and_late_functions_are_counted(stage: Stage) -> None:
    connection = stage.open()
    channel = connection.channel()
    stage.broker.transport.reset()
    stage.loop.run_until_idle()
    stage.recorder.take()
    for request in (connection.close(), connection.wait_closed()):
        assert stage.loop.run_until(request) is connection.reason
    assert stage.loop.run_until(channel.close()) is channel.reason
    with pytest.raises(ConnectionClosed):
        stage.loop.run_until(connection.wait_open())
    with pytest.raises(ConnectionClosed):
        stage.loop.run_until(connection.wait_writable())
    connection.call_soon_threadsafe(stage.recorder.note("late"))
    stage.loop.run_until_idle()
    assert stage.recorder.log == []
    assert connection.stats.late_calls == 1
    with pytest.raises(WrongState):
        connection.channel()


def test_an_interrupt_in_a_callback_leaves_the_loop_and_the_rest_follows(stage: Stage) -> None:
    connection = stage.open()
    connection.channel().basic_consume("q", stage.recorder.on_message, consumer_tag="tag")
    stage.loop.run_until_idle()
    stage.recorder.take()

    def interrupt(message: object) -> None:
        stage.recorder.actions.clear()
        raise KeyboardInterrupt

    stage.recorder.inside("on_message", interrupt)
    stage.broker.send(deliver(1, "tag", 1) + deliver(1, "tag", 2))
    with pytest.raises(KeyboardInterrupt):
        stage.loop.run_until_idle()
    stage.loop.run_until_idle()
    assert len(stage.recorder.messages) == 2


@pytest.mark.parametrize("callback", ["on_close", "on_channel_close"])
def test_an_interrupt_at_the_end_reports_the_rest_on_the_next_turn(
    stage: Stage, callback: str
) -> None:
    connection = stage.open()
    connection.channel()
    stage.loop.run_until_idle()
    stage.recorder.take()

    def interrupt(*arguments: object) -> None:
        stage.recorder.actions.clear()
        raise SystemExit

    stage.recorder.inside(callback, interrupt)
    stage.broker.transport.reset()
    with pytest.raises(SystemExit):
        stage.loop.run_until_idle()
    stage.loop.advance(1)
    assert stage.recorder.names == ["on_channel_close", "on_close"]


# --- the public door


def test_connect_without_a_loop_names_the_adapters() -> None:
    with pytest.raises(WrongState, match="SelectAdapter"):
        evamqp.connect("amqp://localhost")


def test_connect_refuses_what_it_cannot_use(stage: Stage) -> None:
    with pytest.raises(BadArgument):
        evamqp.connect("http://localhost", adapter=stage.loop)
    with pytest.raises(BadArgument, match="on_opened"):
        evamqp.connect("amqp://localhost", adapter=stage.loop, on_opened=print)  # type: ignore[call-arg]
    stage.loop.run_until_idle()
    assert stage.recorder.log == []


def test_functions_serve_as_callbacks(stage: Stage) -> None:
    seen: list[str] = []

    def on_open(connection: Connection) -> None:
        seen.append("open")
        connection.close()

    evamqp.connect(
        Parameters("broker"),
        adapter=stage.loop,
        on_open=on_open,
        on_close=lambda connection, reason: seen.append(reason.by),
    )
    stage.loop.run_until_idle()
    assert seen == ["open", "client"]


async def _conversation(connection: Connection) -> list[Any]:
    await connection.wait_open()
    channel = connection.channel()
    await channel.confirm_select()
    declared = await channel.queue_declare("q")
    purged = await channel.queue_purge("q")
    reason = await connection.close()
    return [declared.queue, purged, reason.by]


def test_a_coroutine_holds_a_whole_conversation(stage: Stage) -> None:
    connection = stage.connect()
    assert stage.loop.run_until(_conversation(connection)) == ["q", 3, "client"]


def test_a_running_asyncio_loop_is_the_default_adapter() -> None:
    async def main() -> str:
        connection = evamqp.connect("amqp://localhost")
        return type((await connection.close(), connection.adapter)[1]).__name__

    assert asyncio.run(main()) == "AsyncioAdapter"


def test_a_stream_that_is_called_after_its_end_does_nothing(stage: Stage) -> None:
    connection = stage.open()
    driver = connection._runtime
    assert isinstance(driver, Driver)
    connection.close()
    stage.loop.run_until_idle()
    stage.recorder.take()
    driver.data_received(b"late")
    driver.pause_writing()
    driver.resume_writing()
    driver.output_ready()
    driver.connection_lost(None)
    stage.loop.advance(100)
    assert stage.recorder.log == []
    assert connection.stats.bytes_received < 10_000


def test_a_function_that_closes_from_another_thread_is_served_during_the_dial(
    stage: Stage,
) -> None:
    stage.loop.unanswering.add("silent")
    connection = stage.connect(Parameters("silent"))
    connection.call_soon_threadsafe(connection.close)
    stage.loop.run_until_idle()
    assert stage.recorder.names == ["on_open_error"]


# --- letting go


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def cycles() -> list[str]:
    """What of evamqp the collector finds unreachable: kept alive by a cycle alone."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    return sorted(
        {type(thing).__qualname__ for thing in gc.garbage if "evamqp" in type(thing).__module__}
    )


def _working(stage: Stage) -> Connection:
    connection = stage.open()
    channel = connection.channel()
    channel.confirm_select()
    channel.basic_consume("q", lambda message: message.ack(), consumer_tag="tag")
    stage.loop.run_until_idle()
    stage.broker.send(deliver(1, "tag", 1) + deliver(1, "tag", 2))
    channel.basic_publish("", "q", b"x")
    channel.wait_for_confirms()
    stage.loop.run_until_idle()
    return connection


def end_by_close(stage: Stage) -> None:
    _working(stage).close()


def end_by_broker(stage: Stage) -> None:
    _working(stage)
    stage.broker.send(connection_close())


def end_by_loss(stage: Stage) -> None:
    _working(stage).channel().queue_declare("q")
    stage.broker.transport.reset()


def end_by_protocol_error(stage: Stage) -> None:
    _working(stage)
    stage.broker.send(b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\xff\xce")


def end_by_callback_error(stage: Stage) -> None:
    connection = _working(stage)
    stage.recorder.inside("on_blocked", lambda *_: 1 / 0)
    stage.broker.send(method_frame(0, "connection.blocked", "memory"))
    stage.loop.run_until_idle()
    stage.recorder.errors.clear()
    connection.close()


def end_by_failed_login(stage: Stage) -> None:
    stage.connect(mechanisms=["EXTERNAL"])


def end_by_refusal(stage: Stage) -> None:
    stage.connect(Parameters("refusing"), Parameters("nowhere"))


def end_by_early_close(stage: Stage) -> None:
    stage.connect().close()


def end_by_timeout(stage: Stage) -> None:
    _working(stage)
    stage.broker.transport.silence()


ENDS: list[Callable[[Stage], None]] = [
    end_by_close,
    end_by_broker,
    end_by_loss,
    end_by_protocol_error,
    end_by_callback_error,
    end_by_failed_login,
    end_by_refusal,
    end_by_early_close,
    end_by_timeout,
]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ENDS)
def test_a_connection_that_ended_leaves_no_reference_cycle(end: Callable[[Stage], None]) -> None:
    stage = Stage()
    end(stage)
    stage.loop.advance(100)
    assert stage.recorder.names[-1] in ("on_close", "on_open_error")
    for end_of_wire in stage.loop.accepted:
        del end_of_wire.peer.peer  # the two ends of the memory wire know each other
    stage.brokers.clear()
    stage.loop.accepted.clear()
    stage.recorder = RecordingHandler()
    assert cycles() == []


@pytest.mark.usefixtures("no_collector")
def test_a_user_who_keeps_the_connection_keeps_no_loop() -> None:
    stage = Stage()
    connection = stage.open()
    connection.close()
    stage.loop.advance(10)
    driver = connection._runtime
    assert isinstance(driver, Driver)
    assert driver._transport is None
    assert driver._timer is None
    assert connection._control.handler is not stage.recorder


def test_errors_of_a_login_name_their_kind(stage: Stage) -> None:
    end_by_failed_login(stage)
    stage.loop.run_until_idle()
    assert type(error_of(stage)) is AuthenticationFailed


def test_errors_of_the_protocol_name_their_kind(stage: Stage) -> None:
    end_by_protocol_error(stage)
    stage.loop.run_until_idle()
    assert type(stage.recorder.log[-1][1]) is ProtocolError
