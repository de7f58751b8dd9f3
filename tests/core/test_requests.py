"""The FIFO of requests: pipelining, futures, cancelling, and how long an answer may take."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from evamqp.codec.frames import method_frame
from evamqp.core.clock import RequestClock
from evamqp.core.request import Request
from evamqp.errors import (
    BadArgument,
    BadType,
    NotExecuted,
    OutputFull,
    ProtocolError,
    RequestCancelled,
    RequestTimeout,
    WrongState,
)
from evamqp.types import DeclareOk
from tests.support.client import Client, opened, outcome
from tests.support.frames import Sent, channel_close, got, names, reply_to

SECRET_OK = method_frame(0, "connection.update-secret-ok")


def test_fifty_declares_go_out_at_once_and_are_answered_in_order() -> None:
    client = opened()
    channel = client.connection.channel()
    requests = [channel.queue_declare(f"q{number}") for number in range(50)]
    assert names(client.serve()) == ["channel.open", *["queue.declare"] * 50]
    assert [outcome(request) for request in requests] == [
        DeclareOk(f"q{number}", 3, 2) for number in range(50)
    ]


async def _wait_for(request: Request[Any]) -> Any:
    return await request


def steps(client: Client, request: Request[Any]) -> Any:
    """Drive an await of ``request`` as a loop would, up to its end or its next wait."""
    coroutine = _wait_for(request)
    try:
        waited = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    client.turn()
    assert waited.done()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits twice")


def test_a_request_can_be_awaited_early_and_late_and_twice() -> None:
    client = opened()
    channel = client.channel()
    request = channel.queue_purge("q")
    coroutine = _wait_for(request)
    coroutine.send(None)
    client.serve()
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == 3
    assert steps(client, request) == 3
    assert steps(client, request) == 3


def test_the_future_is_the_same_object_before_and_after() -> None:
    client = opened()
    request = client.channel().queue_purge("q")
    future = request.future
    assert request.future is future
    assert not future.done()
    client.serve()
    assert request.future is future
    assert future.result() == 3


def test_a_request_nobody_looks_at_makes_no_future() -> None:
    client = opened()
    request = client.channel().queue_purge("q")
    client.serve()
    assert request._future is None
    assert request._promises == []


def test_every_recipient_of_a_failure_gets_its_own_instance() -> None:
    client = opened()
    channel = client.channel()
    errors: list[Exception] = []
    request = channel.queue_declare("q", on_error=errors.append)
    early = request.future
    client.lose()
    recipients = [early.exception(), *errors]
    for _ in range(2):
        with pytest.raises(NotExecuted) as caught:
            steps(client, request)
        recipients.append(caught.value)
    assert len({id(error) for error in recipients}) == len(recipients)
    for error in recipients:
        assert isinstance(error, NotExecuted)
        assert error.__cause__ is channel.reason
        assert str(error) == str(recipients[0])


def test_a_failure_that_is_awaited_often_does_not_grow() -> None:
    client = opened()
    request = client.channel().queue_declare("q")
    client.lose()
    for _ in range(50):
        with pytest.raises(NotExecuted):
            steps(client, request)
    depth = 0
    traceback = outcome(request).__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert depth < 5


def test_cancel_discards_the_reply_and_harms_nothing() -> None:
    client = opened()
    channel = client.channel()
    told: list[Any] = []
    first = channel.queue_declare("a", callback=told.append, on_error=told.append)
    second = channel.queue_declare("b")
    future = first.future
    first.cancel()
    first.cancel()
    client.serve()
    assert told == []
    assert isinstance(future.exception(), RequestCancelled)
    assert isinstance(outcome(first), RequestCancelled)
    assert outcome(second).queue == "b"


def test_cancel_after_the_outcome_is_a_no_op() -> None:
    client = opened()
    request = client.channel().queue_purge("q")
    client.serve()
    request.cancel()
    client.turn()
    assert outcome(request) == 3


@pytest.mark.parametrize("auto_ack", [True, False])
def test_a_cancelled_get_gives_its_message_back(auto_ack: bool) -> None:
    client = opened()
    channel = client.channel()
    request = channel.basic_get("q", auto_ack)
    request.cancel()
    client.sent()
    client.feed(got(1, 9))
    expected = [] if auto_ack else [Sent(1, "basic.nack", (9, False, True))]
    assert client.sent() == expected


def test_a_get_whose_every_future_was_cancelled_gives_its_message_back() -> None:
    client = opened()
    channel = client.channel()
    request = channel.basic_get("q")
    request.future.cancel()
    client.sent()
    client.feed(got(1, 9))
    assert client.sent() == [Sent(1, "basic.nack", (9, False, True))]
    assert isinstance(outcome_of_another_look(request), RequestCancelled)


def outcome_of_another_look(request: Request[Any]) -> Any:
    """What a future gets that is made after the first one was cancelled."""
    return request._new_future().exception()


def test_a_get_with_a_future_that_still_waits_keeps_its_message() -> None:
    client = opened()
    channel = client.channel()
    request = channel.basic_get("q")
    request.future.cancel()
    coroutine = _wait_for(request)
    waited = coroutine.send(None)
    client.sent()
    client.feed(got(1, 9))
    assert client.sent() == []
    assert waited.done()
    coroutine.close()


def test_consume_ok_and_cancel_ok_may_be_overtaken_by_later_replies() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel, "old")
    note = client.recorder.note
    channel.basic_consume("q", print, consumer_tag="a", callback=note("consumed"))
    channel.basic_cancel("old", callback=note("cancelled"))
    channel.basic_consume("q", print, consumer_tag="b", callback=note("consumed"))
    channel.queue_purge("q", callback=note("purged"))
    frames = client.sent()
    for index in (3, 1, 2, 0):
        client.feed(reply_to(frames[index]))
    assert client.log == [
        ("purged", 3),
        ("cancelled", "old"),
        ("consumed", "b"),
        ("consumed", "a"),
    ]
    assert not channel._machine.requests
    assert client.lives()


def test_no_other_reply_may_overtake() -> None:
    client = opened()
    channel = client.channel()
    channel.queue_purge("q")
    channel.basic_consume("q", print, consumer_tag="a")
    frames = client.sent()
    client.feed(reply_to(frames[1]))
    client.lose()
    assert isinstance(client.log[-1][1], ProtocolError)


def test_a_consume_that_was_overtaken_still_has_its_time() -> None:
    client = opened(heartbeat=0)
    channel = client.channel()
    channel.basic_consume("q", print, consumer_tag="a", on_error=client.recorder.note("late"))
    channel.queue_purge("q")
    frames = client.sent()
    client.advance(20)
    client.feed(reply_to(frames[1]))
    client.advance(10)
    assert client.recorder.names == ["late"]
    assert isinstance(client.log[0][1], RequestTimeout)


def test_a_cancelled_get_of_an_empty_queue_gives_nothing_back() -> None:
    client = opened()
    request = client.channel().basic_get("q")
    request.cancel()
    assert names(client.serve()) == ["basic.get"]
    assert client.sent() == []


def test_a_cancelled_request_that_fails_makes_no_callback() -> None:
    client = opened()
    request = client.channel().queue_declare("q", on_error=client.recorder.note("failed"))
    request.cancel()
    client.lose()
    assert "failed" not in client.recorder.names
    assert isinstance(outcome(request), RequestCancelled)


# --- time


def test_an_unanswered_request_fails_and_closes_its_channel() -> None:
    client = opened(heartbeat=0)
    channel = client.channel()
    note = client.recorder.note
    channel.queue_declare("a", on_error=note("first"))
    channel.queue_declare("b", on_error=note("second"))
    client.sent()
    client.advance(29.9)
    assert client.log == []
    client.advance(0.1)
    assert client.recorder.names == ["first"]
    assert isinstance(client.log[0][1], RequestTimeout)
    assert "queue.declare on channel 1" in str(client.log[0][1])
    assert names(client.sent()) == ["channel.close"]
    client.feed(method_frame(1, "channel.close-ok"))
    assert client.recorder.names == ["first", "second", "on_channel_close"]
    assert isinstance(client.log[1][1], NotExecuted)
    assert client.lives()


def test_the_late_answer_of_an_expired_request_is_no_error() -> None:
    client = opened(heartbeat=0)
    channel = client.channel()
    first, second = channel.queue_declare("a"), channel.queue_declare("b")
    frames = client.sent()
    client.advance(30)
    client.feed(*map(reply_to, frames), method_frame(1, "channel.close-ok"))
    assert isinstance(outcome(first), RequestTimeout)
    assert outcome(second).queue == "b"
    assert client.lives()


def test_time_runs_for_the_head_of_the_fifo_from_when_it_became_head() -> None:
    client = opened(heartbeat=0)
    channel = client.channel()
    first, second = channel.queue_declare("a"), channel.queue_declare("b")
    frames = client.sent()
    client.advance(20)
    client.feed(reply_to(frames[0]))
    client.advance(29)
    assert first.is_done
    assert not second.is_done
    client.advance(1)
    assert isinstance(outcome(second), RequestTimeout)


def test_each_channel_has_its_own_head() -> None:
    client = opened(heartbeat=0)
    first, second = client.channel(), client.channel()
    early = first.queue_declare("a")
    client.advance(10)
    late = second.queue_declare("b")
    client.advance(20)
    assert early.is_done
    assert not late.is_done
    client.advance(10)
    assert isinstance(outcome(late), RequestTimeout)


def test_a_request_answered_in_time_leaves_no_clock() -> None:
    client = opened(heartbeat=0)
    channel = client.channel()
    channel.queue_declare("a")
    client.serve()
    assert client.connection.next_deadline() is None
    client.advance(1000)
    assert channel.is_open


def blocked(client: Client) -> None:
    client.feed(method_frame(0, "connection.blocked", "memory"))


def unblocked(client: Client) -> None:
    client.feed(method_frame(0, "connection.unblocked"))


def paused(client: Client) -> None:
    client.call(client.connection.set_writable, False)


def resumed(client: Client) -> None:
    client.call(client.connection.set_writable, True)


def deaf(client: Client) -> None:
    client.connection.pause_reading()


def hearing(client: Client) -> None:
    client.connection.resume_reading()


STANDSTILLS = [(blocked, unblocked), (paused, resumed), (deaf, hearing)]


@pytest.mark.parametrize(("stop", "go"), STANDSTILLS)
def test_request_time_stands_still_while(stop: Any, go: Any) -> None:
    client = opened(heartbeat=0)
    request = client.channel().queue_declare("a")
    client.sent()
    client.advance(10)
    stop(client)
    client.advance(500)
    stop(client)
    client.advance(500)
    go(client)
    client.advance(19.9)
    assert not request.is_done
    client.advance(0.2)
    assert isinstance(outcome(request), RequestTimeout)


@pytest.mark.parametrize(("stop", "go"), STANDSTILLS)
def test_a_request_made_at_a_standstill_has_its_whole_time_after_it(stop: Any, go: Any) -> None:
    client = opened(heartbeat=0)
    channel = client.channel()
    stop(client)
    request = channel.queue_declare("a")
    client.advance(500)
    go(client)
    client.advance(29.9)
    assert not request.is_done
    client.advance(0.2)
    assert request.is_done


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_standstills_overlap(order: tuple[int, ...]) -> None:
    client = opened(heartbeat=0)
    request = client.channel().queue_declare("a")
    client.sent()
    for index in order:
        STANDSTILLS[index][0](client)
        client.advance(50)
    for index in order:
        assert not request.is_done
        STANDSTILLS[index][1](client)
        client.advance(20 if index == order[-1] else 50)
    assert not request.is_done
    client.advance(10)
    assert request.is_done


def test_expiring_together_with_a_channel_that_the_first_one_closes() -> None:
    client = opened(heartbeat=0)
    first, second = client.channel(), client.channel()
    first.queue_declare("a", on_error=client.recorder.note("a"))
    second.queue_declare("b", on_error=client.recorder.note("b"))
    client.recorder.inside("a", lambda error: second.close())
    frames = client.sent()
    client.advance(30)
    assert client.recorder.names == ["a"]
    client.feed(reply_to(frames[1]), method_frame(2, "channel.close-ok"))
    assert client.recorder.names == ["a", "on_channel_close"]
    assert client.lives()


def test_a_channel_that_is_not_closed_in_time_either_ends_all_the_same() -> None:
    client = opened(heartbeat=0)
    channel = client.channel()
    requests = [channel.queue_declare("a"), channel.queue_declare("b")]
    client.advance(60)
    assert isinstance(outcome(requests[0]), RequestTimeout)
    assert isinstance(outcome(requests[1]), NotExecuted)
    assert client.recorder.names == ["on_channel_close"]


# --- the clock by itself


class Now:
    """A time that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_clock_expires_the_longest_wait_first_and_each_once() -> None:
    now = Now()
    clock = RequestClock(10, now)
    assert clock.deadline() is None
    clock.start("a")
    now.seconds = 1
    clock.start("b")
    assert clock.deadline() == 10
    assert clock.take_expired(9.9) is None
    assert [clock.take_expired(11), clock.take_expired(11)] == ["a", "b"]
    assert clock.take_expired(11) is None


def test_a_clock_started_again_waits_anew() -> None:
    now = Now()
    clock = RequestClock(10, now)
    for key, now.seconds in (("a", 0), ("b", 1), ("a", 5)):
        clock.start(key)
    assert clock.take_expired(11) == "b"
    assert clock.take_expired(14.9) is None
    assert clock.take_expired(15) == "a"
    clock.stop("a")


def test_a_paused_clock_expires_nothing() -> None:
    now = Now()
    clock = RequestClock(10, now)
    clock.start("a")
    for now.seconds in (4, 5):
        clock.pause(True)
    assert clock.deadline() is None
    assert clock.take_expired(100) is None
    for now.seconds in (104, 105):
        clock.pause(False)
    assert clock.deadline() == 110


# --- update_secret


def test_update_secret_is_a_request_of_the_connection() -> None:
    client = opened()
    request = client.connection.update_secret("sesam", "expired")
    assert client.sent() == [Sent(0, "connection.update-secret", (b"sesam", "expired"))]
    assert "sesam" not in f"{request!r} {request} {client.connection!r}"
    client.feed(SECRET_OK)
    assert outcome(request) is None


def test_secrets_are_answered_in_order() -> None:
    client = opened()
    note = client.recorder.note
    client.connection.update_secret("a", callback=note("a"))
    client.connection.update_secret("b", callback=note("b"))
    client.feed(SECRET_OK, SECRET_OK)
    assert client.recorder.names == ["a", "b"]


def test_an_unanswered_update_secret_closes_the_connection() -> None:
    client = opened(heartbeat=0)
    request = client.connection.update_secret("t")
    client.sent()
    client.advance(30)
    assert isinstance(outcome(request), RequestTimeout)
    assert names(client.sent()) == ["connection.close"]
    client.feed(method_frame(0, "connection.close-ok"))
    client.lose()
    assert client.recorder.names == ["on_close"]


def test_an_update_secret_that_expires_during_a_close_changes_nothing() -> None:
    client = opened(heartbeat=0, request_timeout=2)
    request = client.connection.update_secret("t")
    client.connection.close(200, "mine")
    client.sent()
    client.advance(2)
    assert isinstance(outcome(request), RequestTimeout)
    assert client.sent() == []
    client.feed(method_frame(0, "connection.close-ok"))
    client.lose()
    assert client.log[-1][1].text == "mine"


def test_an_update_secret_may_be_answered_during_a_close() -> None:
    client = opened()
    request = client.connection.update_secret("t")
    client.connection.close()
    client.feed(SECRET_OK)
    assert outcome(request) is None


def test_an_answer_to_no_update_secret_is_503() -> None:
    client = opened()
    client.feed(SECRET_OK)
    client.lose()
    assert isinstance(client.log[0][1], ProtocolError)
    assert client.log[0][1].code == 503


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((5,), BadType), (("t", "r" * 256), BadArgument), (("t", None), BadType)],
)
def test_a_bad_secret_sends_nothing_and_is_not_shown(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    client = opened()
    with pytest.raises(error):
        client.connection.update_secret(*arguments)
    assert client.sent() == []
    assert not client.connection._control._requests


def test_update_secret_at_the_cap_and_after_the_end_is_refused() -> None:
    client = opened(output_max=4096, output_high_water=4096)
    client.fill(client.channel())
    with pytest.raises(OutputFull):
        client.connection.update_secret("t")
    assert not client.connection._control._requests
    client.lose()
    with pytest.raises(WrongState, match="CLOSED"):
        client.connection.update_secret("t")


def test_requests_of_an_ended_connection_hold_nothing_up() -> None:
    client = opened()
    channel = client.channel()
    request = channel.queue_declare("q")
    client.feed(channel_close(1))
    client.lose()
    assert request._promises == []
    del channel
    gc.collect()
    assert isinstance(outcome(request), NotExecuted)
