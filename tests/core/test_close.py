"""The end of a connection: asked for in any state, by either side or both, and never for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evamqp.codec.frames import frame, method_frame
from evamqp.core.state import ConnectionState, TransportAction
from evamqp.errors import (
    BadArgument,
    BadType,
    ConnectionClosed,
    NotExecuted,
    ProtocolError,
    WrongState,
)
from tests.support.client import Client, opened, outcome
from tests.support.frames import (
    HEARTBEAT,
    OPEN_OK,
    Sent,
    channel_close,
    connection_close,
    deliver,
    names,
    reply_to,
    start,
    tune,
)

CLOSE_OK = method_frame(0, "connection.close-ok")


def at(state: ConnectionState) -> Client:
    """A client in this state."""
    client = Client(heartbeat=0)
    frames = {
        ConnectionState.AUTHENTICATING: [start()],
        ConnectionState.OPENING: [start(), tune()],
        ConnectionState.OPEN: [start(), tune(heartbeat=0), OPEN_OK],
        ConnectionState.CLOSING: [start(), tune(heartbeat=0), OPEN_OK],
        ConnectionState.CLOSED: [start(), tune(heartbeat=0), OPEN_OK, connection_close()],
    }.get(state, [])
    if state is not ConnectionState.CONNECTING:
        client.connect()
    client.feed(*frames)
    if state is ConnectionState.CLOSING:
        client.connection.close()
    client.recorder.take()
    assert client.connection.state is state
    return client


@pytest.mark.parametrize("state", ConnectionState)
def test_close_is_legal_and_idempotent_in_every_state(state: ConnectionState) -> None:
    client = at(state)
    requests = [client.connection.close() for _ in range(3)]
    assert client.log == []
    client.turn()
    client.lose()
    requests.append(client.connection.close())
    (entry,) = client.log
    was_open = state in (ConnectionState.OPEN, ConnectionState.CLOSING, ConnectionState.CLOSED)
    assert entry[0] == ("on_close" if was_open else "on_open_error")
    assert entry[1].by == ("broker" if state is ConnectionState.CLOSED else "client")
    assert {id(outcome(request)) for request in requests} == {id(entry[1])}
    client.turn()
    assert len(client.log) == 1


def test_an_open_connection_is_closed_with_a_handshake() -> None:
    client = opened()
    channel = client.channel()
    request = channel.queue_declare("q")
    client.connection.close(320, "enough")
    assert names(client.sent()) == ["queue.declare", "connection.close"]
    assert client.stands(ConnectionState.CLOSING)
    client.feed(reply_to(Sent(1, "queue.declare", ("q", *[False] * 5, {}))))
    assert outcome(request).queue == "q"
    client.feed(CLOSE_OK)
    assert client.wants(TransportAction.CLOSE)
    assert client.log == []
    client.lose()
    assert client.recorder.names == ["on_channel_close", "on_close"]
    reason = client.log[-1][1]
    assert (type(reason), reason.code, reason.text, reason.by) == (
        ConnectionClosed,
        320,
        "enough",
        "client",
    )


def test_what_was_published_before_a_close_goes_out_before_it() -> None:
    client = opened()
    client.channel().basic_publish("", "q", bytes(300_000))
    client.connection.close()
    assert names(client.sent())[-1] == "connection.close"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((65_536,), BadArgument), (("x",), BadType), ((200, 5), BadType), ((-1, "x"), BadArgument)],
)
def test_a_bad_close_changes_nothing(arguments: Any, error: type[Exception]) -> None:
    client = opened()
    channel = client.channel()
    with pytest.raises(error):
        client.connection.close(*arguments)
    assert client.lives()
    assert client.connection.reason is None
    assert channel.is_open
    assert client.sent() == []


@pytest.mark.parametrize("text", ["", "é" * 200, "\ud800"])
def test_any_close_text_can_be_sent(text: str) -> None:
    client = opened()
    client.connection.close(200, text)
    (close,) = client.sent()
    assert len(close.arguments[1].encode()) <= 255
    client.lose()
    assert client.log[0][1].text


# --- bounded


def test_a_close_that_is_never_answered_is_cut_short() -> None:
    client = opened(heartbeat=0)
    client.connection.close()
    client.sent()
    client.advance(2.9)
    assert client.wants(TransportAction.KEEP)
    client.advance(3.1)
    assert client.wants(TransportAction.ABORT)
    client.lose()
    assert client.log[0][1].by == "client"


def test_a_close_that_makes_progress_has_more_time_but_not_for_ever() -> None:
    client = opened(heartbeat=0)
    client.consumer(client.channel())
    client.connection.close()
    seconds = 0.0
    while client.wants(TransportAction.KEEP):
        client.feed(deliver(1, "tag", 1))
        client.advance(1)
        seconds += 1
    assert 29 <= seconds <= 31
    assert client.recorder.names == []


def test_sending_is_progress_too() -> None:
    client = opened(heartbeat=0)
    client.connection.close()
    client.advance(2)
    client.sent()
    client.advance(2)
    assert client.wants(TransportAction.KEEP)
    client.advance(3)
    assert client.wants(TransportAction.ABORT)


def test_our_own_heartbeats_are_no_progress_and_stop_behind_a_close() -> None:
    client = opened(heartbeat=4)
    client.connection.close()
    beats = 0
    for _ in range(70):
        client.advance(0.1)
        beats += names(client.sent()).count("heartbeat")
    assert beats == 0
    assert client.wants(TransportAction.ABORT)


def test_the_broker_s_heartbeats_are_no_progress_of_a_close() -> None:
    """During an alarm RabbitMQ reads nothing and goes on beating."""
    client = opened(heartbeat=4)
    client.connection.close()
    client.sent()
    for _ in range(3):
        client.advance(2)
        client.feed(HEARTBEAT)
    assert client.wants(TransportAction.ABORT)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_below_the_timeout_bounds_a_close(limit: float) -> None:
    client = opened(heartbeat=0, close_limit=limit, close_timeout=3)
    client.connection.close()
    client.advance(limit)
    assert client.wants(TransportAction.ABORT)


def test_the_clock_of_a_close_runs_until_the_transport_is_gone() -> None:
    client = opened(heartbeat=0)
    client.connection.close()
    client.sent()
    client.feed(CLOSE_OK)
    assert client.wants(TransportAction.CLOSE)
    client.advance(7)
    assert client.wants(TransportAction.ABORT)
    assert client.connection.next_deadline() is None


# --- by the broker, and crossing


def test_a_broker_close_is_answered_and_ends_everything() -> None:
    client = opened()
    channel = client.channel()
    request = channel.queue_declare("q")
    client.sent()
    client.feed(connection_close(320, "CONNECTION_FORCED - shutdown", "queue.declare"))
    assert client.sent() == [Sent(0, "connection.close-ok")]
    assert client.wants(TransportAction.CLOSE)
    assert client.log == []
    with pytest.raises(WrongState):
        client.connection.channel()
    client.lose(ConnectionResetError("behind it"))
    assert client.recorder.names == ["on_channel_close", "on_close"]
    reason = client.log[-1][1]
    assert (reason.code, reason.by, reason.method) == (320, "broker", "queue.declare")
    assert isinstance(outcome(request), NotExecuted)
    assert channel.reason is not None
    assert (channel.reason.code, channel.reason.by) == (320, "broker")


def test_crossing_closes_are_both_answered_and_the_reason_is_the_broker_s() -> None:
    client = opened()
    request = client.connection.close(200, "mine")
    client.feed(connection_close(540, "NOT_IMPLEMENTED", "basic.recover"))
    assert names(client.sent()) == ["connection.close", "connection.close-ok"]
    client.feed(CLOSE_OK)
    client.lose()
    assert client.recorder.names == ["on_close"]
    reason = client.log[0][1]
    assert (reason.code, reason.by, reason.method) == (540, "broker", "basic.recover")
    assert outcome(request) is reason is client.connection.reason


@pytest.mark.parametrize("blamed", ["basic.recover", "queue.bind", "basic.publish", None])
def test_a_connection_close_blames_the_only_request_that_it_can_mean(blamed: str | None) -> None:
    client = opened()
    first, second, third = (client.channel() for _ in range(3))
    recover = second.basic_recover(requeue=False)
    binds = [channel.queue_bind("q", "e") for channel in (first, second, third)]
    client.connection.close()
    client.feed(connection_close(540, "NOT_IMPLEMENTED", blamed))
    client.lose()
    for request in (recover, *binds):
        error = outcome(request)
        assert (error.reason.code, error.reason.by) == (540, "broker")
        assert error.is_culprit is (request is recover and blamed == "basic.recover")


def test_a_loss_before_close_ok_is_still_our_close() -> None:
    client = opened()
    client.connection.close()
    client.lose(ConnectionResetError("reset"))
    assert client.log[0][1].by == "client"


@pytest.mark.parametrize("channel_too", [False, True])
def test_a_channel_close_behind_our_connection_close_is_not_answered_and_its_reason_is_reported(
    channel_too: bool,
) -> None:
    client = opened()
    channel = client.channel()
    declared = channel.queue_declare("q", durable=True)
    if channel_too:
        channel.close()
    client.connection.close()
    client.sent()
    client.feed(channel_close(1, 406, "inequivalent arg", "queue.declare"), CLOSE_OK)
    assert client.sent() == []
    client.lose()
    assert client.recorder.names == ["on_channel_close", "on_close"]
    reason = client.log[0][2]
    assert (reason.code, reason.by, reason.culprit) == (406, "broker", "queue.declare")
    assert channel.reason is reason
    assert outcome(declared).is_culprit
    assert client.log[1][1].by == "client"


def test_a_channel_that_we_had_to_close_keeps_its_reason_when_the_connection_is_closed() -> None:
    client = opened(body_max=10)
    channel = client.channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1, bytes(11)))
    client.connection.close()
    client.feed(CLOSE_OK)
    client.lose()
    assert channel.reason is not None
    assert (channel.reason.code, channel.reason.by) == (311, "broker")


def test_a_channel_that_we_had_to_close_reports_why_the_broker_closed_the_connection() -> None:
    client = opened(body_max=10)
    channel = client.channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1, bytes(11)))
    client.feed(connection_close(320))
    client.lose()
    assert channel.reason is not None
    assert (channel.reason.code, channel.reason.by) == (320, "broker")


def test_a_delivery_that_a_close_overtakes_is_not_handed_over() -> None:
    client = opened()
    client.consumer(client.channel())
    data = deliver(1, "tag", 1, bytes(50_000))
    client.feed(data[:30_000])
    client.connection.close()
    client.feed(data[30_000:], deliver(1, "tag", 2), CLOSE_OK)
    client.lose()
    assert client.recorder.names == ["on_channel_close", "on_close"]


def test_nothing_is_parsed_behind_the_end() -> None:
    client = opened()
    client.consumer(client.channel())
    client.feed(connection_close(), deliver(1, "tag", 1))
    client.feed(deliver(1, "tag", 2))
    client.lose()
    assert client.recorder.names == ["on_channel_close", "on_close"]


@pytest.mark.parametrize("when", ["open", "closing"])
def test_a_protocol_error_closes_with_its_code(when: str) -> None:
    client = opened()
    if when == "closing":
        client.connection.close(200, "mine")
    client.feed(frame(9, 0, b""))
    assert client.wants(TransportAction.CLOSE)
    assert names(client.sent()) == ["connection.close"]
    client.lose()
    assert isinstance(client.log[0][1], ProtocolError) is (when == "open")


def test_a_loss_in_mid_session_is_reported_with_its_cause() -> None:
    client = opened()
    client.lose(ConnectionResetError("reset by peer"))
    reason = client.log[0][1]
    assert type(reason) is ConnectionClosed
    assert (reason.by, reason.code) == ("network", None)
    assert "reset by peer" in str(reason)


def test_a_transport_that_comes_after_a_close_is_not_used() -> None:
    client = Client()
    client.connection.close()
    client.connect()
    assert client.taken() == b""
    assert client.wants(TransportAction.ABORT)


# --- waiting


WAITS: list[Callable[[Client], Any]] = [
    lambda client: client.connection.wait_open(),
    lambda client: client.connection.wait_closed(),
]


def test_wait_open_fails_when_it_will_never_be() -> None:
    client = Client()
    early = client.connection.wait_open()
    client.connect()
    client.lose()
    late = client.connection.wait_open()
    client.turn()
    for request in (early, late):
        error = outcome(request)
        assert isinstance(error, ConnectionClosed)
        assert error is not client.connection.reason


@pytest.mark.parametrize("late", [True, False])
def test_wait_closed_succeeds_with_the_reason(late: bool) -> None:
    client = opened()
    request = None if late else client.connection.wait_closed()
    client.lose()
    request = request or client.connection.wait_closed()
    assert outcome(request) is client.connection.reason


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("is_asked_for", [True, False])
def test_a_checked_wait_fails_unless_the_client_closed(late: bool, is_asked_for: bool) -> None:
    client = opened()
    request = None if late else client.connection.wait_closed(check=True)
    if is_asked_for:
        client.call(client.connection.close)
        client.feed(method_frame(0, "connection.close-ok"))
    client.lose()
    request = request or client.connection.wait_closed(check=True)
    end = outcome(request)
    assert isinstance(end, ConnectionClosed)
    assert (end is client.connection.reason) is is_asked_for
    assert (end.by == "client") is is_asked_for


def test_a_wait_for_an_end_that_is_past_needs_no_loop() -> None:
    client = opened()
    channel = client.channel()
    client.lose()
    for request in (client.connection.wait_closed(), channel.wait_closed()):
        assert request.is_done
    assert client.connection.next_deadline() is None
