"""The reconnector's laws: its table, its epochs, its events, and what it replays."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import evamqp
from evamqp import Credentials, Outcome, Parameters, Topology
from evamqp.errors import BadArgument, BadType, WrongState
from evamqp.recovery.reconnector import Reconnector
from evamqp.recovery.state import TABLE, State
from tests.recovery.stage import HOUR, LONG, URL, Stage
from tests.support.scripted_broker import HOST, Publish, ScriptedBroker

Reach = Callable[[Stage], Reconnector]
REACHED: dict[State, Reach] = {}


def reach(state: State) -> Callable[[Reach], Reach]:
    """Register how a reconnector is brought into a state."""

    def register(function: Reach) -> Reach:
        REACHED[state] = function
        return function

    return register


def with_topology() -> Topology:
    topology = Topology()
    topology.queue("work")
    return topology


@reach(State.WAITING)
def _waiting(stage: Stage) -> Reconnector:
    stage.server.down()
    reconnector = stage.reconnector(topology=with_topology())
    stage.advance(5)
    return reconnector


@reach(State.DIALLING)
def _dialling(stage: Stage) -> Reconnector:
    stage.server.is_mute = True
    reconnector = stage.reconnector(topology=with_topology())
    stage.turn()
    stage.server.is_mute = False
    return reconnector


@reach(State.REPLAYING)
def _replaying(stage: Stage) -> Reconnector:
    stage.server.held.add("queue.declare")
    reconnector = stage.reconnector(topology=with_topology())
    stage.turn()
    stage.server.held.clear()
    return reconnector


@reach(State.READY)
def _ready(stage: Stage) -> Reconnector:
    reconnector = stage.reconnector(topology=with_topology())
    stage.turn()
    return reconnector


@reach(State.CLOSING)
def _closing(stage: Stage) -> Reconnector:
    reconnector = _ready(stage)
    stage.adapter.accepted[-1].silence()
    reconnector.close()
    stage.turn()
    return reconnector


@reach(State.CLOSED)
def _closed(stage: Stage) -> Reconnector:
    reconnector = _ready(stage)
    reconnector.close()
    stage.turn()
    return reconnector


every_state = pytest.mark.parametrize("state", State)


# --- the table ----------------------------------------------------------------------------------


@every_state
def test_every_state_can_be_reached_and_is_in_the_table(stage: Stage, state: State) -> None:
    assert REACHED[state](stage).state is state
    assert state in TABLE


@every_state
def test_close_is_legal_in_every_state_and_ends_closed(stage: Stage, state: State) -> None:
    reconnector = REACHED[state](stage)
    closings = [reconnector.close(), reconnector.close(), reconnector.wait_closed()]
    stage.advance(LONG)
    assert reconnector.state is State.CLOSED
    assert all(closing.is_done for closing in closings)
    assert stage.ended(reconnector.wait_closed()).by == "client"
    wires = len(stage.server.wires)
    stage.advance(HOUR)
    assert len(stage.server.wires) == wires
    assert reconnector.connection is None


@pytest.mark.parametrize("state", [State.DIALLING, State.REPLAYING, State.READY])
def test_a_loss_in_every_state_is_followed_by_recovery(stage: Stage, state: State) -> None:
    reconnector = REACHED[state](stage)
    stage.wire.cut()
    stage.advance(LONG)
    assert reconnector.state is State.READY
    assert reconnector.epoch == 2
    assert "work" in stage.server.queues


def test_a_loss_while_closing_is_the_end(stage: Stage) -> None:
    reconnector = _ready(stage)
    closing = reconnector.close()
    stage.wire.cut()
    assert stage.ended(closing).by == "client"
    assert reconnector.state is State.CLOSED


@every_state
def test_waiting_for_the_end_never_fails_and_reports_the_reason(stage: Stage, state: State) -> None:
    reconnector = REACHED[state](stage)
    waiting = reconnector.wait_closed()
    reconnector.close()
    stage.advance(LONG)
    assert isinstance(stage.ended(waiting), evamqp.ConnectionClosed)


# --- epochs -------------------------------------------------------------------------------------


def test_what_comes_late_from_an_old_epoch_is_dropped(stage: Stage) -> None:
    reconnector = _ready(stage)
    old = reconnector.connection
    assert old is not None
    handler = old._control.handler
    stage.wire.cut()
    stage.advance(LONG)
    reason = evamqp.ConnectionClosed("late", by="network")
    before = list(stage.events)
    handler.on_open(old)
    handler.on_writable(old, False)
    handler.on_close(old, reason)
    handler.on_open_error(old, reason)
    stage.advance(LONG)
    assert reconnector.state is State.READY
    assert reconnector.epoch == 2
    assert stage.events == before


def test_a_connection_that_opens_after_close_is_closed(stage: Stage) -> None:
    stage.server.held.add("connection.open")
    reconnector = stage.reconnector()
    stage.turn()
    reconnector.close()
    stage.server.wire.release()
    stage.advance(LONG)
    assert reconnector.state is State.CLOSED
    assert not stage.wire.is_up


def test_a_connection_that_the_user_closes_comes_back(stage: Stage) -> None:
    reconnector = _ready(stage)
    assert reconnector.connection is not None
    reconnector.connection.close()
    stage.advance(LONG)
    assert reconnector.state is State.READY
    assert reconnector.epoch == 2


# --- events -------------------------------------------------------------------------------------


def test_events_report_attempt_delay_reason_and_recovery(stage: Stage) -> None:
    _ready(stage)
    stage.advance(60)
    stage.server.down()
    stage.turn()
    stage.advance(3.0)
    stage.server.up()
    stage.advance(LONG)
    told = stage.told("on_reconnecting")
    assert [attempt for attempt, _, _ in told] == [1, 2, 3, 4, 5, 6]
    assert [round(delay, 6) for _, delay, _ in told] == [0, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert all(isinstance(reason, evamqp.ConnectionClosed) for _, _, reason in told)
    assert isinstance(told[-1][2], evamqp.ConnectFailed)
    ((attempts, seconds),) = stage.told("on_recovered")
    assert attempts == 6
    assert seconds == pytest.approx(6.2)


def test_attempts_are_counted_from_each_loss_also_where_losses_come_quickly(stage: Stage) -> None:
    _ready(stage)
    for _ in range(3):
        stage.wire.cut()
        stage.advance(5)  # less than makes a connection stable
    assert [attempt for attempt, _, _ in stage.told("on_reconnecting")] == [1, 1, 1]
    assert [attempts for attempts, _ in stage.told("on_recovered")] == [1, 1, 1]


def test_delays_go_on_growing_where_losses_come_quickly(stage: Stage) -> None:
    _ready(stage)
    for _ in range(4):
        stage.wire.cut()
        stage.advance(5)
    assert [round(delay, 6) for _, delay, _ in stage.told("on_reconnecting")] == [0, 0.2, 0.4, 0.8]


def test_delays_begin_anew_after_ten_stable_seconds(stage: Stage) -> None:
    _ready(stage)
    for _ in range(3):
        stage.wire.cut()
        stage.advance(5)
    stage.advance(10)
    stage.wire.cut()
    stage.turn()
    assert stage.told("on_reconnecting")[-1][1] == 0


def test_the_first_connect_is_retried_as_well(stage: Stage) -> None:
    stage.server.down()
    reconnector = stage.reconnector()
    stage.advance(HOUR)
    stage.server.up()
    stage.advance(LONG)
    assert reconnector.is_ready
    assert len(stage.told("on_recovered")) == 1


@pytest.mark.parametrize("code", [403, 530])
def test_refused_logins_are_retried_slowly_and_logged_as_errors(
    stage: Stage, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    stage.server.login_refusal = (code, "REFUSED")
    reconnector = stage.reconnector()
    stage.advance(600)
    assert 8 <= len(stage.server.logins) <= 16
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) >= 5  # the first, and one a minute
    assert all(f"{code} REFUSED" in record.getMessage() for record in errors)
    stage.server.login_refusal = None
    stage.advance(LONG)
    assert reconnector.is_ready


def test_a_broker_that_breaks_the_protocol_is_logged_as_an_error(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    reconnector = _ready(stage)
    stage.wire.send(b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0b\xff")  # a bad frame end
    stage.advance(LONG)
    assert reconnector.epoch == 2
    assert [record for record in caplog.records if record.levelno == logging.ERROR]


@pytest.mark.parametrize("event", ["on_reconnecting", "on_recovered", "on_topology_error"])
def test_an_event_that_raises_harms_nothing(stage: Stage, event: str) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError(event)

    topology = Topology("skip")
    topology.queue("work")
    stage.server.refuse("queue.declare", 406)
    reconnector = stage.reconnector(topology=topology, **{event: fail})
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    assert reconnector.is_ready


@pytest.mark.parametrize("event", ["on_reconnecting", "on_recovered", "on_topology_error"])
def test_close_inside_an_event_is_legal(stage: Stage, event: str) -> None:
    topology = Topology("skip")
    topology.queue("work")
    stage.server.refuse("queue.declare", 406)

    def close(*arguments: object) -> None:
        reconnector.close()

    reconnector = stage.reconnector(topology=topology, **{event: close})
    stage.turn()
    if event != "on_topology_error":
        stage.wire.cut()
    stage.advance(LONG)
    assert reconnector.state is State.CLOSED
    assert not stage.wire.is_up


# --- the handler --------------------------------------------------------------------------------


class Noting(evamqp.Handler):
    def __init__(self) -> None:
        self.log: list[str] = []
        self.inside: Callable[[evamqp.Connection], object] = lambda connection: None

    def on_open(self, connection: evamqp.Connection) -> None:
        self.log.append("on_open")
        self.inside(connection)

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self.log.append("on_open_error")

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.log.append("on_close")

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.log.append(f"{context.callback} raised")


def test_on_open_comes_anew_with_each_connection_when_the_topology_is_there(
    stage: Stage,
) -> None:
    handler = Noting()
    handler.inside = lambda connection: handler.log.append(f"{sorted(stage.server.queues)}")
    stage.reconnector(handler=handler, topology=with_topology())
    stage.turn()
    stage.wire.cut()
    stage.server.queues.clear()
    stage.advance(LONG)
    assert handler.log == ["on_open", "['work']", "on_close", "on_open", "['work']"]


def test_an_on_open_that_raises_goes_to_on_callback_error(stage: Stage) -> None:
    handler = Noting()
    handler.inside = lambda connection: 1 // 0
    reconnector = stage.reconnector(handler=handler)
    stage.turn()
    assert handler.log == ["on_open", "on_open raised"]
    assert reconnector.is_ready


def test_an_on_close_that_raises_does_not_stop_recovery(stage: Stage) -> None:
    class Raising(evamqp.Handler):
        def on_close(self, *arguments: object) -> None:
            raise ValueError("mine")

        def on_open_error(self, *arguments: object) -> None:
            raise ValueError("mine")

        def on_writable(self, *arguments: object) -> None:
            raise ValueError("mine")

    reconnector = stage.reconnector(handler=Raising())
    stage.turn()
    stage.wire.block()
    stage.turn()
    stage.server.down()
    stage.advance(60)
    stage.server.up()
    stage.advance(LONG)
    assert reconnector.is_ready


@pytest.mark.parametrize("what", ["connection", "reconnector"])
def test_close_inside_on_open_is_legal(stage: Stage, what: str) -> None:
    handler = Noting()
    reconnector = stage.reconnector(handler=handler)
    publisher = stage.publisher(reconnector)
    stage.publish(publisher, [b"x"])

    def close(connection: evamqp.Connection) -> None:
        handler.inside = lambda connection: None
        if what == "connection":
            connection.close()
        else:
            reconnector.close()

    handler.inside = close
    stage.advance(LONG)
    if what == "connection":
        assert reconnector.is_ready
        assert stage.server.bodies == [b"x"]
    else:
        assert reconnector.state is State.CLOSED
        assert stage.told("on_recovered") == []


# --- targets and credentials --------------------------------------------------------------------


def test_credentials_are_asked_for_at_every_attempt_and_sent(stage: Stage) -> None:
    asked: list[str] = []

    def credentials() -> Credentials:
        asked.append(f"token-{len(asked)}")
        return Credentials("user", asked[-1])

    stage.reconnector(Parameters.from_url(URL, credentials=credentials))
    stage.turn()
    for _ in range(3):
        stage.wire.cut()
        stage.advance(LONG)
    responses = [login[2] for login in stage.server.logins]
    assert responses == [b"\x00user\x00" + token.encode() for token in asked]
    assert len(asked) == 4


def test_a_credentials_source_that_raises_is_asked_again(stage: Stage) -> None:
    asked: list[int] = []

    def credentials() -> Credentials:
        asked.append(1)
        if len(asked) < 4:
            raise OSError("the token server is down")
        return Credentials("user", "token")

    reconnector = stage.reconnector(Parameters.from_url(URL, credentials=credentials))
    stage.advance(HOUR)
    assert reconnector.is_ready
    assert len(asked) == 4


def test_names_are_resolved_anew_at_every_attempt(stage: Stage) -> None:
    stage.adapter.unresolvable.add(HOST)
    reconnector = stage.reconnector()
    stage.advance(60)
    assert not reconnector.is_ready
    stage.adapter.unresolvable.clear()
    stage.advance(LONG)
    assert reconnector.is_ready


def listening(stage: Stage, host: str) -> ScriptedBroker:
    """One more broker, at that host."""
    broker = ScriptedBroker()
    broker.listen(stage.adapter, host)
    return broker


def test_a_list_of_targets_is_rotated_over_those_that_refuse_logins(stage: Stage) -> None:
    servers = [listening(stage, f"host-{number}") for number in range(3)]
    for server in servers[:2]:
        server.login_refusal = (403, "REFUSED")
    reconnector = stage.reconnector([URL.replace(HOST, f"host-{n}") for n in range(3)])
    stage.advance(HOUR)
    assert reconnector.is_ready
    assert len(servers[2].wires) == 1


def test_a_list_of_targets_is_fallen_over_within_one_attempt(stage: Stage) -> None:
    targets = [URL, *(URL.replace(HOST, f"nowhere-{number}") for number in range(4))]
    stage.adapter.unresolvable.update(f"nowhere-{number}" for number in range(4))
    reconnector = stage.reconnector(targets)
    stage.turn()
    assert reconnector.is_ready
    assert stage.told("on_reconnecting") == []


def test_targets_are_shuffled() -> None:
    firsts = set()
    for _ in range(60):
        stage = Stage()
        for number in range(3):
            listening(stage, f"host-{number}")
        reconnector = stage.reconnector([URL.replace(HOST, f"host-{n}") for n in range(3)])
        stage.turn()
        assert reconnector.connection is not None
        assert reconnector.connection.parameters is not None
        firsts.add(reconnector.connection.parameters.host)
    assert len(firsts) == 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"target": "http://nowhere"}, BadArgument),
        ({"target": []}, BadArgument),
        ({"topology": {}}, BadType),
        ({"handler": 5}, BadType),
        ({"backoff": 5}, BadType),
        ({"on_reconnecting": 5}, BadType),
        ({"on_recovered": "log"}, BadType),
        ({"on_topology_error": {}}, BadType),
    ],
)
def test_impossible_arguments_are_refused(
    stage: Stage, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Reconnector(**{"target": URL, "adapter": stage.adapter, **arguments})


def test_without_an_adapter_and_a_running_loop_it_says_what_to_do() -> None:
    with pytest.raises(WrongState, match="SelectAdapter"):
        Reconnector(URL)


# --- replay -------------------------------------------------------------------------------------


def declared(stage: Stage) -> list[tuple[str, object]]:
    """What was declared on the newest connection: method and its first argument."""
    return [
        (sent.name, sent.arguments[0])
        for sent in stage.wire.sent
        if sent.name.endswith((".declare", ".bind"))
    ]


def test_the_topology_is_declared_pipelined_in_order_on_each_connection(stage: Stage) -> None:
    topology = Topology()
    topology.bind("q", "x", "key")
    topology.queue("q")
    topology.bind_exchange("y", "x")
    topology.exchange("x")
    topology.exchange("y", "fanout")
    stage.reconnector(topology=topology)
    stage.server.held.add("exchange.declare")
    stage.turn()
    expected = [
        ("exchange.declare", "x"),
        ("exchange.declare", "y"),
        ("queue.declare", "q"),
        ("queue.bind", "q"),
        ("exchange.bind", "y"),
    ]
    assert declared(stage) == expected  # though nothing was answered yet
    stage.server.held.clear()
    stage.wire.cut()
    stage.advance(LONG)
    assert declared(stage) == expected
    assert stage.wire.names.count("channel.open") == 1
    assert stage.wire.names.count("channel.close") == 1


def many_queues(count: int) -> Topology:
    topology = Topology()
    for number in range(count):
        topology.queue(f"queue-{number}")
    return topology


@pytest.mark.parametrize("room", [1_000, 10_000])
def test_a_topology_larger_than_the_output_buffer_is_declared_once_in_parts(
    stage: Stage, room: int
) -> None:
    target = Parameters.from_url(URL, output_max=room, output_high_water=room)
    reconnector = stage.reconnector(target, topology=many_queues(2000))
    stage.advance(LONG)
    assert reconnector.is_ready
    assert [name for _, name in declared(stage)] == [f"queue-{n}" for n in range(2000)]
    assert stage.wire.names.count("channel.open") == 1


def test_replies_on_a_channel_that_was_given_up_count_for_nothing(stage: Stage) -> None:
    """Where the output is full of something else, declaring waits, and nothing is left out."""
    target = Parameters.from_url(URL, output_max=10_000, output_high_water=5_000)
    reconnector = stage.reconnector(target, topology=many_queues(200))
    stage.turn()
    assert reconnector.is_ready
    connection = reconnector.connection
    assert connection is not None
    stage.wire.transport.pause_reading()
    member = stage.publisher(reconnector, topology=many_queues(400), max_bytes=10**9)
    stage.advance(1)
    stage.wire.transport.resume_reading()
    stage.server.on_publish = Publish.ack
    publication = member.publish("", "work", b"x")
    stage.advance(LONG)
    assert publication.outcome is Outcome.CONFIRMED
    assert {f"queue-{n}" for n in range(400)} <= set(stage.server.queues)


def three_queues(policy: Any) -> Topology:
    topology = Topology()
    topology.queue("first")
    topology.queue("culprit", policy=policy)
    topology.queue("last")
    return topology


@pytest.mark.parametrize("policy", ["skip", "retry", "fail"])
def test_an_entity_that_fits_no_frame_meets_its_policy(stage: Stage, policy: Any) -> None:
    topology = three_queues(policy)
    topology.queue("culprit", arguments={"x": "x" * 5000}, policy=policy)
    reconnector = stage.reconnector(URL + "&frame_max=4096", topology=topology)
    stage.advance(1)
    (entity, reason), *more = stage.told("on_topology_error")
    assert (entity.name, reason.by) == ("culprit", "client")
    assert isinstance(reason.__cause__, BadArgument)
    assert bool(more) is (policy == "retry")
    expected = {"skip": State.READY, "retry": State.REPLAYING, "fail": State.CLOSED}
    assert reconnector.state is expected[policy]
    assert sorted(stage.server.queues) == (["first"] if policy == "fail" else ["first", "last"])
    assert reconnector.epoch == 1


def refuse_culprit(stage: Stage, code: int = 406) -> None:
    stage.server.refuse("queue.declare", code, when=lambda name, *rest: name == "culprit")


def test_an_entity_that_is_skipped_is_left_out_and_the_rest_goes_on_behind_it(
    stage: Stage,
) -> None:
    refuse_culprit(stage)
    reconnector = stage.reconnector(topology=three_queues("skip"))
    stage.turn()
    assert reconnector.is_ready
    assert sorted(stage.server.queues) == ["first", "last"]
    ((entity, reason),) = stage.told("on_topology_error")
    assert (entity.name, reason.code, reason.method) == ("culprit", 406, "queue.declare")
    assert stage.wire.names.count("channel.open") == 2
    names = [name for _, name in declared(stage)]
    assert names == ["first", "culprit", "last", "last"]  # behind it, not from the beginning


def test_an_entity_that_is_retried_holds_up_until_it_works(stage: Stage) -> None:
    refuse_culprit(stage)
    reconnector = stage.reconnector(topology=three_queues("retry"))
    stage.advance(HOUR)
    assert reconnector.state is State.REPLAYING
    attempts = len(stage.told("on_topology_error"))
    assert 100 < attempts < 200  # every 30 s in the end
    stage.server.refusals.clear()
    stage.advance(LONG)
    assert reconnector.is_ready
    assert sorted(stage.server.queues) == ["culprit", "first", "last"]


def test_an_entity_that_must_not_fail_ends_recovery(stage: Stage) -> None:
    refuse_culprit(stage)
    reconnector = stage.reconnector(topology=three_queues("fail"))
    stage.advance(LONG)
    assert reconnector.state is State.CLOSED
    reason = stage.ended(reconnector.wait_closed())
    assert isinstance(reason, evamqp.TopologyFailed)
    assert isinstance(reason.__cause__, evamqp.ChannelClosed)
    assert len(stage.told("on_topology_error")) == 1
    assert not stage.wire.is_up


def test_a_retry_ends_with_its_connection(stage: Stage) -> None:
    refuse_culprit(stage)
    stage.reconnector(topology=three_queues("retry"))
    stage.advance(60)
    stage.server.down()
    stage.events.clear()
    stage.advance(HOUR)
    assert stage.told("on_topology_error") == []


def exclusive() -> Topology:
    topology = Topology()
    topology.queue("mine", exclusive=True)
    return topology


def test_our_own_exclusive_queue_is_waited_for_silently_after_a_loss(stage: Stage) -> None:
    reconnector = stage.reconnector(topology=exclusive())
    stage.turn()
    stage.server.keeps_exclusive = True
    stage.wire.cut()
    stage.advance(0.05)
    assert reconnector.state is State.REPLAYING
    stage.server.queues.clear()
    stage.advance(0.2)
    assert reconnector.is_ready
    assert stage.told("on_topology_error") == []


def test_an_exclusive_queue_that_stays_locked_surfaces(stage: Stage) -> None:
    reconnector = stage.reconnector(topology=exclusive())
    stage.turn()
    stage.server.keeps_exclusive = True
    stage.wire.cut()
    stage.advance(2.0)
    assert stage.told("on_topology_error") == []
    stage.advance(1.0)
    assert stage.told("on_topology_error")[0][1].code == 405
    stage.server.queues.clear()
    stage.advance(LONG)
    assert reconnector.is_ready


def test_a_locked_queue_that_is_not_exclusive_surfaces_at_once(stage: Stage) -> None:
    refuse_culprit(stage, 405)
    stage.reconnector(topology=three_queues("skip"))
    stage.turn()
    assert len(stage.told("on_topology_error")) == 1


def test_a_broker_that_does_not_answer_a_declare_is_asked_again(stage: Stage) -> None:
    stage.server.held.add("queue.declare")
    topology = three_queues("retry")
    target = Parameters.from_url(URL, request_timeout=5)
    reconnector = stage.reconnector(target, topology=topology)
    stage.advance(4)
    stage.server.held.clear()
    stage.advance(LONG)
    assert reconnector.is_ready


# --- recording ----------------------------------------------------------------------------------


def recording(stage: Stage, act: Callable[[evamqp.Channel], object]) -> Reconnector:
    """A reconnector on whose connection a raw channel has done something."""
    reconnector = stage.reconnector()
    stage.turn()
    assert reconnector.connection is not None
    act(reconnector.connection.channel())
    stage.turn()
    return reconnector


def test_what_raw_channels_declare_is_declared_again(stage: Stage) -> None:
    def act(channel: evamqp.Channel) -> None:
        channel.exchange_declare("x", "topic")
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "x", "key", {"a": 1})

    recording(stage, act)
    stage.wire.cut()
    stage.advance(LONG)
    names = [name for name, _ in declared(stage)]
    assert names == ["exchange.declare", "queue.declare", "queue.bind"]


def test_deleted_things_are_forgotten_with_their_bindings(stage: Stage) -> None:
    def act(channel: evamqp.Channel) -> None:
        for name in ("x", "y"):
            channel.exchange_declare(name)
        for name in ("q", "r"):
            channel.queue_declare(name)
            channel.queue_bind(name, "x")
            channel.queue_bind(name, "y")
        channel.exchange_bind("x", "y")
        channel.queue_delete("q")
        channel.exchange_delete("x")
        channel.queue_unbind("r", "y")

    reconnector = recording(stage, act)
    assert [type(entity).__name__ for entity in reconnector.topology] == ["Exchange", "Queue"]
    assert [entity[0] for entity in reconnector.topology] == ["y", "r"]


def test_an_anonymous_queue_gets_a_name_of_ours_that_it_keeps(stage: Stage) -> None:
    names: list[str] = []

    def act(channel: evamqp.Channel) -> None:
        channel.queue_declare(exclusive=True, callback=lambda ok: names.append(ok.queue))
        channel.queue_bind("", "amq.topic", "a")

    reconnector = recording(stage, act)
    (name,) = names
    assert name.startswith("evamqp.gen-")
    queue, binding = reconnector.topology
    assert (queue[0], binding[1]) == (name, name)  # "" was resolved
    stage.wire.cut()
    stage.advance(LONG)
    assert ("queue.declare", name) in declared(stage)
    assert ("queue.bind", name) in declared(stage)


def test_an_empty_name_is_the_queue_declared_before_it_on_its_channel(stage: Stage) -> None:
    def act(channel: evamqp.Channel) -> None:
        other = channel.connection.channel()
        channel.queue_declare("mine")
        other.queue_declare("other")
        channel.queue_bind("", "amq.topic", "a")
        channel.queue_declare("second")
        channel.queue_bind("", "amq.topic", "b")
        channel.queue_unbind("", "amq.topic", "c")
        other.queue_delete("")

    reconnector = recording(stage, act)
    assert [entity[0] for entity in reconnector.topology][:2] == ["mine", "second"]
    assert [entity[1] for entity in reconnector.topology][2:] == ["mine", "second"]


def test_an_empty_name_behind_a_declare_without_reply_does_no_harm(stage: Stage) -> None:
    def act(channel: evamqp.Channel) -> None:
        channel.queue_declare("unrecorded", nowait=True)
        channel.queue_bind("", "amq.topic", "a")
        channel.queue_delete("")

    reconnector = recording(stage, act)
    assert reconnector.is_ready
    assert reconnector.epoch == 1
    assert len(reconnector.topology) == 0


def test_what_fails_is_not_recorded(stage: Stage) -> None:
    stage.server.refuse("queue.declare", 406)
    reconnector = recording(stage, lambda channel: channel.queue_declare("q"))
    assert len(reconnector.topology) == 0


def test_passive_and_reserved_declares_are_not_recorded(stage: Stage) -> None:
    def act(channel: evamqp.Channel) -> None:
        channel.queue_declare("q", passive=True)
        channel.queue_declare("amq.gen-other")
        channel.exchange_declare("amq.topic", "topic")
        channel.exchange_declare("x", passive=True)

    assert len(recording(stage, act).topology) == 0


def test_arguments_that_change_before_the_reply_cost_the_record_only(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def act(channel: evamqp.Channel) -> None:
        arguments: dict[str, object] = {"x-max-length": 5}
        channel.queue_declare("q", arguments=arguments)
        arguments["x-max-length"] = object()

    reconnector = recording(stage, act)
    assert reconnector.is_ready
    assert len(reconnector.topology) == 0
    assert "cannot be recorded" in caplog.text


def test_a_policy_survives_being_declared_again_while_ready(stage: Stage) -> None:
    reconnector = stage.reconnector()
    stage.turn()
    topology = Topology("skip")
    topology.exchange("x")
    topology.queue("q")
    topology.bind("q", "x")
    stage.publisher(reconnector, topology=topology)
    stage.turn()
    assert len(declared(stage)) == 3
    assert len(reconnector.topology) == 0  # it is the member's
    stage.server.refuse("exchange.declare", 406)
    stage.wire.cut()
    stage.advance(LONG)
    assert [entity[-1] for entity, _ in stage.told("on_topology_error")] == ["skip"]


def test_a_members_topology_leaves_with_it_unless_another_has_it(stage: Stage) -> None:
    one, two = Topology(), Topology()
    one.queue("one")
    one.queue("both")
    two.queue("both")
    two.queue("two")
    reconnector = stage.reconnector()
    first = stage.publisher(reconnector, topology=one)
    stage.publisher(reconnector, topology=two)
    stage.turn()
    assert sorted(stage.server.queues) == ["both", "one", "two"]
    stage.wire.cut()
    stage.advance(LONG)
    stage.ended(first.close())
    stage.server.queues.clear()
    stage.wire.cut()
    stage.advance(LONG)
    assert sorted(stage.server.queues) == ["both", "two"]


@pytest.mark.parametrize("comes", ["at first", "later"])
def test_an_entity_that_fails_delays_those_who_brought_it_and_nobody_else(
    stage: Stage, comes: str
) -> None:
    stage.server.on_publish = Publish.ack
    reconnector = stage.reconnector()
    if comes == "later":
        stage.turn()
    culprit = stage.publisher(reconnector, topology=three_queues("retry"))
    other = stage.publisher(reconnector, topology=many_queues(1))
    for _ in range(2):
        refuse_culprit(stage)
        held = culprit.publish("", "work", b"held")
        goes = other.publish("", "work", b"goes")
        stage.advance(LONG)
        assert goes.outcome is Outcome.CONFIRMED
        states = [held.is_done]
        assert {"first", "last"} <= set(stage.server.queues)
        stage.server.refusals.clear()
        stage.advance(LONG)
        states.append(held.is_done)
        assert states == [False, True]
        assert "culprit" in stage.server.queues
        stage.server.queues.clear()
        refuse_culprit(stage)
        stage.wire.cut()
        stage.turn()
    stage.advance(1)
    stage.ended(culprit.close(timeout=0))
    stage.events.clear()
    stage.advance(HOUR)
    assert stage.events == []


def test_a_recorded_entity_that_fails_delays_nobody(stage: Stage) -> None:
    stage.server.on_publish = Publish.ack
    reconnector = recording(stage, lambda channel: channel.queue_declare("culprit"))
    publisher = stage.publisher(reconnector)
    refuse_culprit(stage)
    stage.wire.cut()
    stage.advance(LONG)
    publication = publisher.publish("", "work", b"x")
    stage.advance(1)
    assert publication.outcome is Outcome.CONFIRMED
    stage.server.queues.clear()
    stage.server.refusals.clear()
    stage.advance(LONG)
    assert "culprit" in stage.server.queues


def test_a_consumer_whose_queue_was_deleted_waits_for_nobody_elses_entity(stage: Stage) -> None:
    reconnector = stage.reconnector()
    mine = Topology()
    mine.queue("work")
    bodies: list[bytes] = []
    consumer = stage.consumer(
        lambda message: bodies.append(message.body), reconnector, topology=mine
    )
    stage.turn()
    refuse_culprit(stage)
    stage.publisher(reconnector, topology=three_queues("retry"))
    stage.advance(1)
    stage.server.delete_queue("work")
    stage.advance(1)
    stage.server.fill("work", b"a")
    stage.turn()
    assert consumer.is_consuming
    assert bodies == [b"a"]


def test_a_consumer_comes_back_to_a_queue_that_others_declared(stage: Stage) -> None:
    """Queue, binding and exchange, wherever they are written down."""
    reconnector = stage.reconnector()
    theirs = Topology()
    theirs.exchange("x")
    theirs.exchange("y")
    theirs.queue("work")
    theirs.queue("unrelated")
    theirs.bind("work", "x")
    theirs.bind_exchange("x", "y")
    stage.publisher(reconnector, topology=theirs)
    consumer = stage.consumer(lambda message: None, reconnector)
    stage.turn()
    before = len(declared(stage))
    stage.server.delete_queue("work")
    stage.advance(1)
    assert consumer.is_consuming
    assert declared(stage)[before:] == [
        ("exchange.declare", "x"),
        ("exchange.declare", "y"),
        ("queue.declare", "work"),
        ("queue.bind", "work"),
        ("exchange.bind", "x"),
    ]


# --- what goes by itself ------------------------------------------------------------------------


def vanish(channel: evamqp.Channel, end: str) -> None:
    """Declare an auto-delete queue and exchange, consume, and let both go."""
    channel.exchange_declare("x", auto_delete=True)
    name = "reply"
    channel.queue_declare(name, auto_delete=True)
    channel.queue_bind(name, "x")
    tag = channel.basic_consume(name, print)
    if end == "cancel":
        channel.basic_cancel(tag)
    else:
        channel.close()


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_what_was_auto_deleted_is_forgotten(stage: Stage, end: str) -> None:
    reconnector = recording(stage, lambda channel: vanish(channel, end))
    assert list(reconnector.topology) == []
    assert reconnector._recorded == set()


def test_a_thousand_reply_queues_leave_nothing_behind(stage: Stage) -> None:
    def act(channel: evamqp.Channel) -> None:
        for number in range(1000):
            channel.queue_declare(f"reply-{number}", exclusive=True, auto_delete=True)
            channel.basic_cancel(channel.basic_consume(f"reply-{number}", print))

    reconnector = recording(stage, act)
    assert len(reconnector.topology) == 0


def test_an_auto_delete_queue_stays_while_somebody_consumes_it_and_over_a_loss(
    stage: Stage,
) -> None:
    def act(channel: evamqp.Channel) -> None:
        channel.queue_declare("shared", auto_delete=True)
        first = channel.basic_consume("shared", print)
        channel.basic_consume("shared", print)
        channel.basic_cancel(first)

    reconnector = recording(stage, act)
    stage.wire.cut()
    stage.advance(LONG)
    assert [entity[0] for entity in reconnector.topology] == ["shared"]
    assert ("queue.declare", "shared") in declared(stage)


def test_an_auto_delete_queue_of_a_consumer_is_declared_again(stage: Stage) -> None:
    reconnector = recording(stage, lambda channel: channel.queue_declare("work", auto_delete=True))
    consumer = stage.consumer(lambda message: None, reconnector)
    stage.turn()
    consumer.pause()
    stage.turn()
    del stage.server.queues["work"]
    consumer.resume()
    stage.advance(LONG)
    assert consumer.is_consuming


def test_a_recorded_queue_that_is_somebody_elses_by_now_is_given_up(stage: Stage) -> None:
    reconnector = recording(stage, lambda channel: channel.queue_declare("culprit", exclusive=True))
    refuse_culprit(stage, 405)
    stage.wire.cut()
    stage.advance(200)
    assert len(reconnector.topology) == 1  # it may be our own former connection's
    stage.advance(200)
    assert len(reconnector.topology) == 0
    stage.events.clear()
    stage.advance(HOUR)
    assert stage.events == []


def test_a_connection_whose_channels_do_not_open_is_replaced(stage: Stage) -> None:
    target = Parameters.from_url(URL, request_timeout=5)
    publisher = stage.publisher(target)
    stage.server.held |= {"channel.open", "confirm.select"}
    publication = publisher.publish("", "work", b"x")
    stage.advance(15.2)
    stage.server.held.clear()
    stage.server.on_publish = Publish.ack
    stage.advance(LONG)
    assert publication.outcome is Outcome.CONFIRMED
    assert len(stage.server.wires) == 2
    assert any("not opened" in str(reason) for _, _, reason in stage.told("on_reconnecting"))


def test_a_connection_on_which_no_topology_can_be_declared_is_replaced(stage: Stage) -> None:
    target = Parameters.from_url(URL, request_timeout=5)
    stage.server.held |= {"channel.open", "queue.declare"}
    reconnector = stage.reconnector(target, topology=three_queues("retry"))
    stage.advance(15.25)
    stage.server.held.clear()
    stage.advance(LONG)
    assert reconnector.is_ready
    assert len(stage.server.wires) == 2
    assert stage.told("on_topology_error") == []


def test_an_own_topology_is_not_changed_by_what_others_bring(stage: Stage) -> None:
    mine = Topology()
    mine.queue("mine")
    stage.publisher(topology=mine)
    reconnector = stage.reconnector()
    stage.publisher(reconnector, topology=mine)
    other = Topology()
    other.queue("other")
    stage.publisher(reconnector, topology=other)
    stage.turn()
    assert [entity[0] for entity in mine] == ["mine"]


class Member:
    """A member that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def _connected(self, connection: evamqp.Connection) -> None:
        self.told.append("connected")

    def _undeclared(self, reason: evamqp.ChannelClosed) -> None:
        self.told.append("undeclared")

    def _disconnected(self, reason: evamqp.ConnectionClosed) -> None:
        self.told.append("disconnected")

    def _writable(self, writable: bool) -> None:
        self.told.append(f"writable {writable}")

    def _ended(self, reason: object) -> None:
        self.told.append("ended")

    def _needs(self, queue: str) -> bool:
        return False


@every_state
def test_a_member_gets_each_connection_each_loss_and_the_end(stage: Stage, state: State) -> None:
    reconnector = REACHED[state](stage)
    member = Member()
    if state in (State.CLOSING, State.CLOSED):
        with pytest.raises(WrongState):
            reconnector.join(member)
        return
    reconnector.join(member)
    if state is State.WAITING:
        stage.server.up()
    elif state is not State.READY:
        stage.wire.cut()
    stage.advance(LONG)
    stage.wire.block()
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    reconnector.close()
    stage.advance(LONG)
    tail = ["connected", "writable False", "disconnected", "connected", "disconnected", "ended"]
    assert member.told[-6:] == tail
    assert set(member.told[:-6]) <= {"disconnected"}


def test_a_member_that_left_gets_no_callback(stage: Stage) -> None:
    reconnector = _ready(stage)
    member, other = Member(), Member()
    for each in (member, other):
        reconnector.join(each, with_topology())
    reconnector.leave(member)
    reconnector.leave(member)
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    assert member.told == []
    assert other.told == ["connected", "disconnected", "connected"]


def test_each_locked_queue_is_waited_for_as_long_as_the_first(stage: Stage) -> None:
    topology = Topology()
    topology.queue("one", exclusive=True)
    topology.queue("two", exclusive=True)
    reconnector = stage.reconnector(topology=topology)
    stage.turn()
    stage.server.keeps_exclusive = True
    stage.wire.cut()
    stage.advance(1.5)
    del stage.server.queues["one"]
    stage.advance(2.0)
    del stage.server.queues["two"]
    stage.advance(2.0)
    assert reconnector.is_ready
    assert stage.told("on_topology_error") == []


# --- the end ------------------------------------------------------------------------------------


def test_former_connections_are_freed_without_the_collector(stage: Stage) -> None:
    reconnector = _ready(stage)
    gc.collect()
    gc.disable()
    try:
        wires = [weakref.ref(reconnector.connection)]
        for _ in range(200):
            stage.wire.cut()
            stage.advance(LONG)
            stage.server.wires[:-1] = []
            stage.adapter.accepted.clear()
            wires.append(weakref.ref(reconnector.connection))
        alive = [reference for reference in wires if reference() is not None]
        assert len(alive) == 1
    finally:
        gc.enable()


def test_a_closed_reconnector_is_freed_without_the_collector(stage: Stage) -> None:
    gc.collect()
    gc.disable()
    try:
        reconnector = _ready(stage)
        stage.wire.cut()
        stage.advance(LONG)
        reconnector.close()
        stage.advance(LONG)
        gone = weakref.ref(reconnector)
        del reconnector
        assert gone() is None
    finally:
        gc.enable()
