"""The five laws of Handler's docstring.  The recorder itself fails a callback inside a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from evamqp.codec.frames import method_frame
from evamqp.core.channel import Channel
from evamqp.core.handler import CALLBACKS as HANDLERS_METHODS
from evamqp.core.handler import Callbacks, Handler, with_functions
from evamqp.core.parser import FrameParser
from evamqp.core.state import TransportAction
from evamqp.errors import (
    BadArgument,
    BadType,
    ChannelClosed,
    ConnectionClosed,
    NotExecuted,
    RequestTimeout,
)
from tests.support.client import Client, channels, opened, other_parser, outcome
from tests.support.frames import (
    OPEN_OK,
    Sent,
    ack,
    channel_close,
    connection_close,
    deliver,
    got,
    nack,
    names,
    reply_to,
    returned,
    start,
    tune,
)
from tests.support.recording_handler import RecordingHandler

# --- every callback there is, provoked

CALLBACKS = (
    "on_open",
    "on_channel_open",
    "on_channel_close",
    "on_message",
    "on_delivery_confirmation",
    "on_return",
    "on_consumer_cancel",
    "on_cancel",
    "on_blocked",
    "on_unblocked",
    "on_writable",
    "reply",
    "refused",
    "threadsafe",
    "confirmed",
)


class Stage:
    """A client ready for any callback: two channels, a consumer, a publish, requests under way."""

    def __init__(self, callback: str) -> None:
        self.client = Client()
        self.callback = callback
        self.client.connect()
        self.client.feed(start(), tune())
        self.client.taken()
        if callback == "on_open":
            return
        self.client.feed(OPEN_OK)
        client, recorder = self.client, self.client.recorder
        self.channel = client.confirming_channel()
        self.other = client.channel()
        self.channel.basic_consume(
            "queue", recorder.on_message, consumer_tag="tag", on_cancel=recorder.note("on_cancel")
        )
        client.serve()
        self.channel.basic_publish("", "queue", b"1")
        recorder.take()
        client.taken()

    def provoke(self) -> None:
        """Bring the callback about."""
        client, note = self.client, self.client.recorder.note
        if self.callback == "reply":
            self.channel.queue_declare("q", callback=note("reply"))
            client.serve()
        elif self.callback == "refused":
            self.other.queue_declare("q", on_error=note("refused"))
            client.feed(channel_close(2, blamed="queue.declare"))
        elif self.callback == "threadsafe":
            client.connection.call_soon_threadsafe(note("threadsafe"))
            client.turn()
        elif self.callback == "confirmed":
            self.channel.wait_for_confirms(callback=note("confirmed"))
            client.feed(ack(1, 1))
        elif self.callback == "on_writable":
            client.call(client.connection.set_writable, False)
        elif self.callback == "on_channel_open":
            client.connection.channel()
            client.serve()
        elif self.callback == "on_unblocked":
            client.feed(method_frame(0, "connection.blocked", "memory"))
            client.feed(method_frame(0, "connection.unblocked"))
        else:
            client.feed(self._frame())

    def _frame(self) -> bytes:
        return {
            "on_open": OPEN_OK,
            "on_channel_close": channel_close(2),
            "on_message": deliver(1, "tag", 1),
            "on_delivery_confirmation": ack(1, 1),
            "on_return": returned(1),
            "on_consumer_cancel": method_frame(1, "basic.cancel", "tag", True),
            "on_cancel": method_frame(1, "basic.cancel", "tag", True),
            "on_blocked": method_frame(0, "connection.blocked", "memory"),
        }[self.callback]

    def finish(self) -> list[str]:
        """End the connection; the names of all callbacks, with all laws of the end checked."""
        client = self.client
        if client.connection.is_open:
            client.connection.close()
        client.turn()
        client.lose()
        log = client.recorder.names
        assert log.count("on_close") == 1
        assert log[-1] == "on_close"
        opened_numbers = [entry[1] for entry in client.log if entry[0] == "on_channel_close"]
        assert len(opened_numbers) == len(set(opened_numbers))
        return log


def reentry_close(stage: Stage) -> None:
    stage.client.connection.close()


def reentry_abort(stage: Stage) -> None:
    stage.client.connection.close(320, "enough")
    stage.client.connection.close()


def reentry_close_channel(stage: Stage) -> None:
    for channel in channels(stage.client.connection):
        channel.close()


def reentry_open_channel(stage: Stage) -> None:
    if stage.client.connection.is_open:
        channel = stage.client.connection.channel()
        channel.queue_declare("another")


def reentry_publish(stage: Stage) -> None:
    for channel in channels(stage.client.connection):
        if channel.is_open:
            channel.basic_publish("", "q", b"again")


def reentry_cancel(stage: Stage) -> None:
    for channel in channels(stage.client.connection):
        if channel.is_open:
            channel.basic_cancel("tag").cancel()


def reentry_pause(stage: Stage) -> None:
    if stage.client.connection.is_open:
        stage.client.connection.pause_reading()
        stage.client.connection.resume_reading()


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize(
    "action",
    [
        reentry_close,
        reentry_abort,
        reentry_close_channel,
        reentry_open_channel,
        reentry_publish,
        reentry_cancel,
        reentry_pause,
    ],
)
def test_re_entry_is_legal_in(callback: str, action: Callable[[Stage], None]) -> None:
    stage = Stage(callback)
    done: list[bool] = []

    def act(*arguments: object) -> None:
        if not done:
            done.append(True)
            action(stage)

    stage.client.recorder.inside(callback, act)
    stage.provoke()
    assert done
    stage.client.serve()
    assert "on_callback_error" not in stage.finish()


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize(
    "raised", [ValueError("mine"), asyncio.CancelledError(), GeneratorExit(), BadType("mine")]
)
def test_an_exception_goes_to_on_callback_error_and_the_connection_lives_from(
    callback: str, raised: BaseException
) -> None:
    stage = Stage(callback)

    def fail(*arguments: object) -> None:
        raise raised

    stage.client.recorder.inside(callback, fail)
    stage.provoke()
    recorder, connection = stage.client.recorder, stage.client.connection
    assert recorder.errors == [raised]
    assert raised.__traceback__ is not None
    (context,) = recorder.contexts
    assert context.connection is connection
    if callback.startswith("on_"):
        assert context.callback == callback
    assert (context.message is not None) == (callback == "on_message")
    assert connection.is_open
    assert connection.stats.callback_errors == 1
    assert stage.client.wants(TransportAction.KEEP)
    stage.client.channel()
    stage.finish()


@pytest.mark.parametrize("callback", [*CALLBACKS, "on_close"])
def test_on_callback_error_may_raise_itself(
    callback: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage("on_message" if callback == "on_close" else callback)
    recorder = stage.client.recorder

    def fail(*arguments: object) -> None:
        raise ValueError("mine")

    recorder.inside(callback, fail)
    recorder.inside("on_callback_error", fail)
    with caplog.at_level(logging.ERROR):
        stage.provoke()
        if callback == "on_close":
            stage.client.lose()
    assert "on_callback_error" in recorder.names
    assert "on_callback_error raised" in caplog.text
    assert stage.client.connection.stats.callback_errors == 1


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_propagates_and_the_connection_goes_on_after_it_from(
    callback: str, raised: type[BaseException]
) -> None:
    stage = Stage(callback)
    interrupted: list[bool] = []

    def interrupt(*arguments: object) -> None:
        if not interrupted:
            interrupted.append(True)
            raise raised

    stage.client.recorder.inside(callback, interrupt)
    with pytest.raises(raised):
        stage.provoke()
    stage.client.turn()
    assert stage.client.connection.is_open
    assert "on_callback_error" not in stage.client.recorder.names
    stage.client.channel()
    stage.finish()


def test_an_interrupt_in_on_callback_error_propagates() -> None:
    stage = Stage("on_message")

    def fail(*arguments: object) -> None:
        raise ValueError

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    stage.client.recorder.inside("on_message", fail)
    stage.client.recorder.inside("on_callback_error", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage.provoke()
    assert stage.client.connection.is_open


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("at", range(1, 6))
def test_an_interrupt_amid_a_buffer_loses_nothing(at: int, fused: bool) -> None:
    client = opened()
    channel = client.confirming_channel()
    client.consumer(channel)
    if fused:
        client.feed(deliver(1, "tag", 100))  # teaches the route
        client.recorder.take()
    for _ in range(3):
        channel.basic_publish("", "q", b"x")

    seen: list[Any] = []

    def note_then_maybe_stop(value: Any) -> None:
        seen.append(value)
        if len(seen) == at:
            raise KeyboardInterrupt

    client.recorder.inside("on_message", lambda message: note_then_maybe_stop(message.delivery_tag))
    client.recorder.inside(
        "on_delivery_confirmation", lambda _, tags, __: note_then_maybe_stop(list(tags))
    )
    frames = [deliver(1, "tag", 1), ack(1, 1), deliver(1, "tag", 2), ack(1, 3, True)]
    frames += [deliver(1, "tag", 3), deliver(1, "tag", 4)[:-1]]
    with pytest.raises(KeyboardInterrupt):
        client.feed(*frames)
    assert len(seen) == at
    deadline = client.connection.next_deadline()
    if at < 5:
        assert deadline == 0.0
    client.turn()
    client.feed(b"\xce")
    assert seen == [1, [1], 2, [2, 3], 3, 4]


def test_an_interrupt_does_not_keep_on_cancel_from_being_called() -> None:
    stage = Stage("on_consumer_cancel")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    stage.client.recorder.inside("on_consumer_cancel", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage.provoke()
    stage.client.turn()
    assert stage.client.recorder.names == ["on_consumer_cancel", "on_cancel"]


def test_an_interrupt_in_on_open_does_not_hold_up_who_waits() -> None:
    client = Client()
    request = client.connection.wait_open()
    writable = client.connection.wait_writable()

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    client.recorder.inside("on_open", interrupt)
    client.connect()
    with pytest.raises(KeyboardInterrupt):
        client.feed(start(), tune(), OPEN_OK)
    client.turn()
    assert request.is_done
    assert writable.is_done


def test_an_interrupt_in_on_blocked_does_not_hold_back_on_writable() -> None:
    client = opened()

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    client.recorder.inside("on_blocked", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.feed(method_frame(0, "connection.blocked", "memory"))
    client.turn()
    assert ("on_writable", False) in client.log


def test_an_interrupt_among_threadsafe_functions_loses_none() -> None:
    client = opened()

    def interrupt() -> None:
        raise SystemExit

    for function in (client.recorder.note("a"), interrupt, client.recorder.note("b")):
        client.connection.call_soon_threadsafe(function)
    with pytest.raises(SystemExit):
        client.turn()
    client.turn()
    assert client.recorder.names == ["a", "b"]


def test_an_interrupt_among_expiring_requests_forgets_none() -> None:
    client = opened(heartbeat=0)

    def interrupt(error: object) -> None:
        raise KeyboardInterrupt

    first, second = client.channel(), client.channel()
    first.queue_declare("a", on_error=interrupt)
    request = second.queue_declare("b")
    with pytest.raises(KeyboardInterrupt):
        client.advance(30)
    client.turn()
    assert isinstance(outcome(request), RequestTimeout)


# --- the second law: every request once, in request order


def test_requests_complete_once_in_request_order_at_reply() -> None:
    client = opened()
    channel = client.channel()
    for name in "abc":
        channel.queue_declare(name, callback=client.recorder.note(name))
    client.serve()
    assert client.recorder.names == ["a", "b", "c"]
    client.lose()
    assert client.recorder.names == ["a", "b", "c", "on_channel_close", "on_close"]


def test_requests_fail_once_in_request_order_when_the_broker_closes_the_channel() -> None:
    client = opened()
    channel = client.channel()
    for name in "abc":
        channel.queue_declare(name, on_error=client.recorder.note(name))
    frames = client.sent()
    client.feed(reply_to(frames[0]), channel_close(1, 404, "NOT_FOUND", "queue.declare"))
    assert client.recorder.names == ["b", "c", "on_channel_close"]
    client.lose()
    assert client.recorder.names == ["b", "c", "on_channel_close", "on_close"]


def test_the_end_is_reported_per_channel_then_the_connection_then_on_close() -> None:
    client = opened()
    note = client.recorder.note
    first, second = client.confirming_channel(), client.channel()
    first.basic_publish("", "q", b"x")
    client.connection.update_secret("t", on_error=note("secret"))
    second.queue_declare("q", on_error=note("second"))
    first.queue_declare("q", on_error=note("first 1"))
    first.queue_purge("q", on_error=note("first 2"))
    first.wait_for_confirms(on_error=note("first confirms"))
    client.lose(ConnectionResetError("reset"))
    assert client.recorder.names == [
        "first 1",
        "first 2",
        "first confirms",
        "on_channel_close",
        "second",
        "on_channel_close",
        "secret",
        "on_close",
    ]
    error = client.log[0][1]
    assert isinstance(error, NotExecuted)
    assert isinstance(error.__cause__, ChannelClosed)
    assert isinstance(error.__cause__.__cause__, ConnectionClosed)
    assert error.__cause__.__cause__ is client.connection.reason
    assert isinstance(error.__cause__.__cause__.__cause__, ConnectionResetError)


def test_what_waits_for_the_end_is_settled_before_the_last_callback() -> None:
    client = opened()
    channel = client.channel()
    closed, gone = client.connection.wait_closed(), channel.wait_closed()
    seen = []
    client.recorder.inside("on_close", lambda *_: seen.append((closed.is_done, gone.is_done)))
    client.lose()
    assert seen == [(True, True)]
    assert outcome(closed) is client.connection.reason
    assert outcome(gone) is channel.reason


# --- the third law: on_close is last and once


@pytest.mark.parametrize("late", ["before the turn", "in on_close", "after"])
def test_functions_that_arrive_late_are_dropped_and_counted(late: str) -> None:
    client = opened()
    connection = client.connection

    def call() -> None:
        connection.call_soon_threadsafe(client.recorder.note("late"))

    if late == "in on_close":
        client.recorder.inside("on_close", lambda *_: call())
    if late == "before the turn":
        call()
    client.lose()
    if late == "after":
        call()
    client.turn()
    assert client.recorder.names == ["on_close"]
    assert connection.stats.late_calls == 1


def test_a_second_end_makes_no_callback() -> None:
    client = opened()
    client.feed(connection_close())
    client.lose()
    client.feed(deliver(1, "tag", 1))
    client.advance(1000)
    client.connection.set_writable(False)
    client.turn()
    assert client.recorder.names == ["on_close"]


@pytest.mark.parametrize("callback", ["on_channel_close", "failed"])
def test_nothing_that_the_last_callbacks_do_comes_after_on_close(callback: str) -> None:
    client = opened()
    note = client.recorder.note
    channel = client.channel()
    channel.queue_declare("a", on_error=note("failed"))
    request = channel.queue_declare("b", on_error=note("never"))

    def act(*arguments: object) -> None:
        request.cancel()
        client.connection.close()
        client.connection.wait_writable()
        client.connection.wait_open()
        channel.close()
        client.connection.set_writable(False)
        client.connection.call_soon_threadsafe(note("late"))

    client.recorder.inside(callback, act)
    client.lose()
    assert client.recorder.names[-1] == "on_close"
    assert "never" not in client.recorder.names or callback == "on_channel_close"
    assert "late" not in client.recorder.names


# --- the fourth law: never from inside a call


def test_a_wait_with_nothing_outstanding_is_answered_by_the_loop() -> None:
    client = opened()
    channel = client.confirming_channel()
    request = channel.wait_for_confirms(callback=client.recorder.note("all"))
    assert not request.is_done
    assert client.log == []
    assert client.connection.next_deadline() == 0.0
    client.turn()
    assert client.log == [("all", [])]


def test_close_before_open_is_reported_by_the_loop() -> None:
    client = Client()
    client.connect()
    request = client.connection.close()
    assert client.log == []
    assert client.wants(TransportAction.ABORT)
    client.lose()
    assert client.recorder.names == ["on_open_error"]
    assert outcome(request).by == "client"


def test_cancel_calls_nothing_back() -> None:
    client = opened()
    note = client.recorder.note
    request = client.channel().queue_declare("q", callback=note("done"), on_error=note("failed"))
    future = request.future
    request.cancel()
    assert client.log == []
    client.serve()
    assert client.log == []
    assert future.done()


def test_backpressure_is_true_at_once_and_reported_by_the_loop() -> None:
    client = opened(output_high_water=1000)
    channel = client.channel()
    channel.basic_publish("", "q", bytes(2000))
    assert not client.writable()
    assert client.log == []
    client.turn()
    assert client.log == [("on_writable", False)]


def test_a_call_defers_its_callback_at_once() -> None:
    client = opened(heartbeat=0)
    channel = client.confirming_channel()
    client.turn()
    assert client.connection.next_deadline() is None
    ready = client.runtime.ready_count
    channel.wait_for_confirms()
    assert client.connection.next_deadline() == 0.0
    assert client.runtime.ready_count > ready


def test_what_deferred_callbacks_defer_waits_for_the_next_turn() -> None:
    client = opened()
    channel = client.confirming_channel()

    def again(nacked: object) -> None:
        if len(client.log) < 3:
            channel.wait_for_confirms(callback=client.recorder.note("again"))

    client.recorder.inside("again", again)
    channel.wait_for_confirms(callback=client.recorder.note("again"))
    client.call(client.connection.handle_timer)
    assert client.recorder.names == ["again"] * 3


# --- handlers


def test_a_channel_handler_replaces_the_connection_handler_for_its_events() -> None:
    client = opened()
    own = RecordingHandler()
    own.in_loop = True
    channel = client.connection.channel(own)
    client.serve()
    client.feed(channel_close(channel.number))
    assert own.names == ["on_channel_open", "on_channel_close"]
    client.lose()
    assert client.recorder.names == ["on_close"]


def test_functions_come_before_the_handler() -> None:
    seen = []
    client = opened()
    client.channel(on_channel_close=lambda channel, reason: seen.append(reason.code))
    client.feed(channel_close(1, 406))
    assert seen == [406]
    assert client.log == []


def test_every_callback_has_a_type_as_a_keyword() -> None:
    assert sorted(Callbacks.__annotations__) == sorted(HANDLERS_METHODS)


def test_a_function_for_on_close_also_hears_of_a_failed_open() -> None:
    seen = []

    class Mine(Handler):
        """A handler with a callback of its own."""

    handler = with_functions(Mine(), {"on_close": lambda connection, reason: seen.append(reason)})
    client = Client(handler=handler)
    client.connect()
    client.lose()
    assert len(seen) == 1


def test_handlers_are_checked_at_the_call() -> None:
    client = opened()
    for arguments, error in (
        ({"handler": "x"}, BadType),
        ({"on_mesage": print}, BadArgument),
        ({"on_open": 5}, BadType),
    ):
        with pytest.raises(error):
            client.connection.channel(**arguments)
    assert client.sent() == []
    assert client.channel().number == 1


def test_nothing_dies_silently_by_default(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(handler=Handler())
    client.open()
    channel = client.connection.channel()
    channel.basic_consume("q", client.recorder.on_message, consumer_tag="tag")
    client.serve()
    channel.queue_declare("x", callback=lambda result: 1 / 0)
    client.serve()
    client.feed(
        returned(1),
        method_frame(0, "connection.blocked", "memory"),
        method_frame(0, "connection.unblocked"),
        method_frame(1, "basic.cancel", "tag", True),
        channel_close(1),
    )
    client.lose()
    text = caplog.text
    for said in (
        "ZeroDivisionError", "consumer tag", "channel 1 closed", "connection", "memory", "NO_ROUTE",
    ):  # fmt: skip
        assert said in text
    assert [record.levelname for record in caplog.records] == ["ERROR", *["WARNING"] * 5]


def test_an_end_that_was_asked_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(handler=Handler()).open()
    channel = client.connection.channel()
    client.serve()
    channel.close()
    client.serve()
    client.connection.close()
    client.serve()
    client.lose()
    assert caplog.records == []


def test_default_on_open_error_calls_on_close(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(handler=Handler())
    client.connect()
    client.lose()
    assert "closed" in caplog.text


def test_confirms_and_returns_come_in_the_order_of_the_broker() -> None:
    client = opened()
    channel = client.confirming_channel()
    channel.basic_publish("", "nowhere", b"back", mandatory=True)
    channel.basic_publish("", "q", b"x")
    client.feed(returned(1), ack(1, 1), nack(1, 2))
    assert client.log == [
        ("on_return", 1, b"back"),
        ("on_delivery_confirmation", 1, [1], True),
        ("on_delivery_confirmation", 1, [2], False),
    ]


def test_a_cancelled_get_keeps_the_order_of_the_others() -> None:
    client = opened()
    channel: Channel = client.channel()
    note = client.recorder.note
    channel.basic_get("q", callback=note("get")).cancel()
    channel.queue_declare("q", callback=note("declared"))
    client.sent()
    client.feed(got(1, 7), method_frame(1, "queue.declare-ok", "q", 0, 0))
    assert client.recorder.names == ["declared"]
    assert client.sent() == [Sent(1, "basic.nack", (7, False, True))]


class Faulty(FrameParser):
    """A receiver with a bug."""

    __slots__ = ()

    def receive(self, data: bytes, wait_whole: bool = True) -> None:
        if data:
            raise LookupError("a bug")


def test_an_unexpected_failure_of_ours_costs_the_connection_and_not_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = opened()
    client.connection.context.parser = other_parser(client.connection, kind=Faulty)
    client.feed(method_frame(0, "connection.blocked", "x"))
    client.lose()
    assert client.recorder.names == ["on_close"]
    assert isinstance(client.log[0][1], ConnectionClosed)
    assert names(client.sent()) == []
