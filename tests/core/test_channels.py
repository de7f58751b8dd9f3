"""The life of a channel: opened, closed by either side or both, its number used again."""

from __future__ import annotations

from typing import Any

import pytest

from evamqp.codec.frames import frame, method_frame
from evamqp.core.channel import Channel
from evamqp.core.numbers import NUMBER_REST
from evamqp.core.state import ChannelState, TransportAction
from evamqp.errors import (
    BadArgument,
    BadType,
    ChannelClosed,
    NotExecuted,
    OutputFull,
    ProtocolError,
    WrongState,
)
from tests.support.client import Client, in_state, opened, outcome
from tests.support.frames import Sent, ack, channel_close, content, deliver, got, names, reply_to

OPEN_OK = method_frame(1, "channel.open-ok")
CLOSE_OK = method_frame(1, "channel.close-ok")


def protocol_error(client: Client) -> Any:
    """The error that a connection closed by a protocol error has; checks that it was told."""
    (close,) = (frame for frame in client.sent() if frame.name == "connection.close")
    assert client.wants(TransportAction.CLOSE)
    client.lose()
    error = client.log[-1][1]
    assert isinstance(error, ProtocolError)
    assert error.code == close.arguments[0]
    assert client.recorder.names[-1] == "on_close"
    return error


# --- opening


def test_a_channel_is_usable_before_the_broker_has_opened_it() -> None:
    client = opened()
    channel = client.connection.channel()
    assert in_state(channel, ChannelState.OPENING)
    channel.queue_declare("q")
    channel.basic_publish("", "q", b"x")
    assert names(client.serve())[:3] == ["channel.open", "queue.declare", "basic.publish"]
    assert channel.is_open
    assert client.log == [("on_channel_open", 1)]


def test_numbers_count_up_and_each_channel_has_its_own() -> None:
    client = opened()
    assert [client.channel().number for _ in range(3)] == [1, 2, 3]


def test_channel_max_bounds_the_channels_and_a_refusal_changes_nothing() -> None:
    client = opened(channel_max=2)
    first, _ = client.channel(), client.channel()
    for _ in range(3):
        with pytest.raises(WrongState, match="all 2 channels of channel_max"):
            client.connection.channel()
    assert client.sent() == []
    first.close()
    with pytest.raises(WrongState):
        client.connection.channel()
    client.serve()
    assert client.channel().number == 1


def test_a_channel_refused_at_the_output_cap_takes_no_number() -> None:
    client = opened(output_max=4096, output_high_water=4096)
    client.fill(client.channel())
    for _ in range(3):
        with pytest.raises(OutputFull):
            client.connection.channel()
    client.taken()
    assert client.channel().number == 2


def test_a_reused_number_refused_at_the_output_cap_is_kept() -> None:
    client = opened(channel_max=2, output_max=4096, output_high_water=4096)
    first, second = client.channel(), client.channel()
    first.close()
    client.serve()
    client.fill(second)
    with pytest.raises(OutputFull):
        client.connection.channel()
    client.taken()
    assert client.channel().number == 1


# --- the ring of numbers


def test_numbers_are_reused_longest_free_first_and_after_all_fresh_ones() -> None:
    client = opened(channel_max=4)
    channels = [client.channel() for _ in range(3)]
    for channel in (channels[1], channels[0], channels[2]):
        channel.close()
        client.serve()
    assert [client.channel().number for _ in range(4)] == [4, 2, 1, 3]


def test_a_number_whose_channel_the_broker_closed_rests() -> None:
    client = opened(channel_max=2)
    first, second = client.channel(), client.channel()
    client.feed(channel_close(1))
    client.advance(NUMBER_REST - 0.1)
    with pytest.raises(WrongState, match=r"in use, or rest for 3 seconds"):
        client.connection.channel()
    client.feed(deliver(1, "tag", 1))  # from here it rests anew
    client.advance(NUMBER_REST - 0.1)
    with pytest.raises(WrongState):
        client.connection.channel()
    second.close()
    client.serve()
    client.taken()
    assert client.channel().number == 2  # behind the answer to our close nothing comes
    client.advance(0.2)
    assert client.channel().number == 1
    assert not first.is_open


def test_an_open_that_is_never_answered_is_reported_as_the_culprit() -> None:
    client = opened(heartbeat=0, request_timeout=5)
    channel = client.connection.channel()
    request = channel.queue_declare("q")
    client.advance(10)
    assert isinstance(outcome(request), NotExecuted)
    assert channel.reason is not None
    assert (channel.reason.culprit, channel.reason.by) == ("channel.open", "broker")
    assert client.recorder.names == ["on_channel_close"]


def test_a_number_whose_open_was_never_answered_is_free_once_it_was() -> None:
    client = opened(channel_max=1, heartbeat=0, request_timeout=5)
    client.connection.channel()
    client.advance(10)
    with pytest.raises(WrongState):
        client.connection.channel()
    client.feed(OPEN_OK)
    with pytest.raises(WrongState):
        client.connection.channel()
    client.feed(CLOSE_OK)
    client.sent()
    assert client.channel().number == 1


def reused(**parameters: Any) -> tuple[Client, Channel]:
    """A channel on a number used before, its open not answered yet."""
    client = opened(channel_max=1, **parameters)
    client.channel().close()
    client.serve()
    client.recorder.take()
    channel = client.connection.channel()
    assert in_state(channel, ChannelState.REOPENING)
    client.sent()
    return client, channel


LATE = [
    deliver(1, "tag", 1),
    ack(1, 1),
    method_frame(1, "basic.cancel", "tag", True),
    method_frame(1, "channel.close-ok"),
    method_frame(1, "queue.declare-ok", "q", 0, 0),
    got(1, 1),
]


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("one_by_one", [True, False])
def test_frames_of_a_former_life_before_open_ok_are_discarded_and_counted(
    late: bytes, one_by_one: bool
) -> None:
    client, channel = reused()
    for piece in [bytes((byte,)) for byte in late] if one_by_one else [late]:
        client.feed(piece)
    assert client.log == []
    assert client.connection.stats.late_frames >= 1
    client.feed(OPEN_OK)
    assert client.log == [("on_channel_open", 1)]
    client.consumer(channel)
    client.recorder.take()
    client.feed(deliver(1, "tag", 5))
    assert client.recorder.names == ["on_message"]


def test_a_broker_may_refuse_a_reused_number() -> None:
    client, channel = reused()
    request = channel.queue_declare("q")
    client.feed(channel_close(1, 504))
    assert client.recorder.names == ["on_channel_close"]
    assert isinstance(outcome(request), NotExecuted)


def test_a_channel_may_be_closed_before_it_is_open() -> None:
    client = opened()
    channel = client.connection.channel()
    request = channel.queue_declare("q")
    channel.close()
    assert names(client.serve()) == ["channel.open", "queue.declare", "channel.close"]
    assert outcome(request).queue == "q"
    assert client.recorder.names == ["on_channel_close"]


def test_an_object_of_a_number_used_again_stays_closed() -> None:
    client = opened(channel_max=1)
    old = client.channel()
    old.close()
    client.serve()
    new = client.channel()
    with pytest.raises(WrongState):
        old.queue_declare("q")
    assert new.is_open
    assert old.state is ChannelState.CLOSED


# --- closed by the broker


def test_a_broker_close_is_answered_and_ends_that_channel_only() -> None:
    client = opened()
    channel, other = client.channel(), client.channel()
    client.feed(channel_close(1, 406, "PRECONDITION_FAILED - x", "queue.declare"))
    assert client.sent() == [Sent(1, "channel.close-ok")]
    (entry,) = client.log
    reason = entry[2]
    assert entry[:2] == ("on_channel_close", 1)
    assert type(reason) is ChannelClosed
    assert (reason.code, reason.by, reason.method) == (406, "broker", "queue.declare")
    assert channel.reason is reason
    assert "406" in str(reason)
    assert other.is_open
    assert client.lives()


def test_a_close_without_text_still_says_something() -> None:
    client = opened()
    channel = client.channel()
    client.feed(channel_close(1, 404, ""))
    assert channel.reason is not None
    assert channel.reason.text


@pytest.mark.parametrize(
    ("blamed", "culprit", "head_blamed"),
    [
        ("queue.declare", "queue.declare", True),
        ("basic.publish", "basic.publish", False),
        ("basic.ack", "basic.ack", False),
        ("basic.nack", "basic.nack", False),
        ("basic.reject", "basic.reject", False),
        ("queue.bind", None, False),
        ("queue.purge", None, False),
        (None, None, False),
    ],
)
def test_the_culprit_is_the_head_of_the_fifo_or_what_has_no_reply(
    blamed: str | None, culprit: str | None, head_blamed: bool
) -> None:
    client = opened()
    channel = client.channel()
    head, second = channel.queue_declare("q"), channel.queue_bind("q", "e")
    client.sent()
    client.feed(channel_close(1, 404, "x", blamed))
    assert channel.reason is not None
    assert channel.reason.method == blamed
    assert channel.reason.culprit == culprit
    first = outcome(head)
    assert isinstance(first, NotExecuted)
    assert first.is_culprit is head_blamed
    assert first.__cause__ is channel.reason
    assert first.reason is channel.reason
    assert outcome(second).is_culprit is False


def test_a_close_that_blames_an_unknown_method_blames_nobody() -> None:
    client = opened()
    channel = client.channel()
    client.feed(method_frame(1, "channel.close", 404, "x", 999, 1))
    assert channel.reason is not None
    assert channel.reason.method is None


def test_the_end_drops_consumers_and_lists_what_is_unconfirmed() -> None:
    client = opened()
    channel = client.confirming_channel()
    client.consumer(channel)
    for _ in range(4):
        channel.basic_publish("", "q", b"x")
    client.feed(ack(1, 2), channel_close(1))
    assert list(channel.unconfirmed) == [1, 3, 4]
    assert client.recorder.names == ["on_delivery_confirmation", "on_channel_close"]


# --- closed by us


def test_close_sends_its_reason_and_ends_with_close_ok() -> None:
    client = opened()
    channel = client.channel()
    request = channel.close(320, "enough")
    assert in_state(channel, ChannelState.CLOSING)
    assert client.sent() == [Sent(1, "channel.close", (320, "enough", 0, 0))]
    assert client.log == []
    client.feed(CLOSE_OK)
    assert outcome(request) is channel.reason
    reason = client.log[0][2]
    assert (reason.code, reason.text, reason.by) == (320, "enough", "client")
    assert in_state(channel, ChannelState.CLOSED)


def test_close_is_idempotent_and_legal_in_any_state() -> None:
    client = opened()
    channel = client.connection.channel()
    requests = [channel.close(), channel.close(404)]
    assert names(client.serve()) == ["channel.open", "channel.close"]
    requests.append(channel.close())
    client.turn()
    assert {outcome(request) for request in requests} == {channel.reason}
    client.lose()
    assert outcome(channel.close()) is channel.reason
    assert outcome(channel.wait_closed()) is channel.reason
    assert client.recorder.names == ["on_channel_close", "on_close"]


def test_a_close_text_is_cut_at_255_bytes_between_characters() -> None:
    client = opened()
    client.channel().close(200, "é" * 200)
    (close,) = client.sent()
    assert close.arguments[1] == "é" * 127


@pytest.mark.parametrize("text", ["", "\ud800"])
def test_any_close_text_can_be_sent(text: str) -> None:
    client = opened()
    client.channel().close(200, text)
    assert names(client.sent()) == ["channel.close"]


def test_requests_sent_before_a_close_still_get_their_replies() -> None:
    client = opened()
    channel = client.channel()
    request = channel.queue_declare("q")
    channel.close()
    client.serve()
    assert outcome(request).queue == "q"


def test_requests_that_a_close_overtakes_are_not_executed() -> None:
    client = opened()
    channel = client.channel()
    request = channel.queue_declare("q")
    channel.close()
    client.sent()
    client.feed(CLOSE_OK)
    error = outcome(request)
    assert isinstance(error, NotExecuted)
    assert not error.is_culprit


def test_crossing_closes_end_the_channel_once_and_the_reason_is_the_broker_s() -> None:
    client = opened(channel_max=1)
    channel = client.channel()
    declared = channel.queue_declare("q", durable=True)
    closed = channel.close(200, "mine")
    client.feed(channel_close(1, 406, "inequivalent arg", "queue.declare"))
    assert names(client.sent()) == ["queue.declare", "channel.close", "channel.close-ok"]
    assert client.recorder.names == ["on_channel_close"]
    reason = channel.reason
    assert reason is not None
    assert (reason.code, reason.by, reason.culprit) == (406, "broker", "queue.declare")
    assert outcome(closed) is reason
    assert outcome(declared).is_culprit
    assert outcome(declared).reason is reason
    client.advance(NUMBER_REST)
    again = client.connection.channel()
    client.sent()
    client.feed(CLOSE_OK, OPEN_OK)
    assert again.is_open
    assert client.lives()


WHILE_CLOSING: list[bytes] = [
    deliver(1, "tag", 1),
    method_frame(1, "basic.cancel", "tag", True),
    method_frame(1, "channel.flow", False),
]


@pytest.mark.parametrize("late", WHILE_CLOSING)
def test_frames_behind_our_close_are_discarded(late: bytes) -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    channel.close()
    client.sent()
    client.feed(late)
    assert client.log == []
    assert client.sent() == []
    client.feed(CLOSE_OK)
    assert client.recorder.names == ["on_channel_close"]


@pytest.mark.parametrize("late", [*LATE, frame(3, 1, b"body"), frame(2, 1, b"")])
def test_frames_of_a_closed_channel_are_discarded_and_counted(late: bytes) -> None:
    client = opened()
    client.channel().close()
    client.serve()
    client.recorder.take()
    client.feed(late)
    assert client.log == []
    assert client.lives()
    assert client.connection.stats.late_frames >= 1
    client.channel()


def test_confirms_and_returns_behind_our_close_are_facts() -> None:
    client = opened()
    channel = client.confirming_channel()
    channel.basic_publish("", "q", b"x")
    channel.basic_publish("", "q", b"x")
    channel.close()
    client.sent()
    client.feed(ack(1, 1), *content(1, "basic.return", 312, "", "", "q", body=b"x"), CLOSE_OK)
    assert client.recorder.names == ["on_delivery_confirmation", "on_return", "on_channel_close"]
    assert list(channel.unconfirmed) == [2]


def test_a_close_amid_a_delivery_discards_the_rest_of_it() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    data = deliver(1, "tag", 1, bytes(50_000))
    client.feed(data[:30_000])
    channel.close()
    client.feed(data[30_000:], deliver(1, "tag", 2), CLOSE_OK)
    assert client.recorder.names == ["on_channel_close"]
    assert client.connection.context.parser.body_bytes == 0


def test_a_close_amid_a_get_ok_lets_it_and_what_follows_complete() -> None:
    client = opened()
    channel = client.channel()
    get, declared = channel.basic_get("q"), channel.queue_declare("q")
    frames = client.sent()
    data = got(1, 1, bytes(50_000))
    client.feed(data[:30_000])
    channel.close()
    client.feed(data[30_000:], reply_to(frames[1]), CLOSE_OK)
    assert client.lives()
    assert len(outcome(get).body) == 50_000
    assert outcome(declared).queue == "q"


@pytest.mark.parametrize("closing", [True, False])
def test_a_get_ok_above_body_max_fails_its_request_and_no_other(closing: bool) -> None:
    client = opened(body_max=1000)
    channel = client.channel()
    get, declared = channel.basic_get("q"), channel.queue_declare("q")
    frames = client.sent()
    if closing:
        channel.close()
    client.feed(got(1, 1, bytes(1001)), reply_to(frames[1]))
    assert names(client.sent()) == ["channel.close"]
    error = outcome(get)
    assert isinstance(error, NotExecuted)
    assert error.reason.code == 311
    assert outcome(declared).queue == "q"
    client.feed(CLOSE_OK)
    assert client.lives()
    assert client.recorder.names == ["on_channel_close"]


def test_a_close_that_is_never_answered_ends_and_its_number_is_not_reused() -> None:
    client = opened(channel_max=1, heartbeat=0, request_timeout=5)
    channel = client.channel()
    channel.close()
    client.advance(4.9)
    assert client.log == []
    client.advance(0.1)
    assert client.recorder.names == ["on_channel_close"]
    with pytest.raises(WrongState):
        client.connection.channel()
    client.feed(CLOSE_OK)
    assert client.connection.stats.late_frames == 1
    assert client.channel().number == 1  # the answer came after all
    client.feed(CLOSE_OK)  # once
    assert protocol_error(client).code == 503


# --- what is an error


@pytest.mark.parametrize(
    "wrong",
    [
        deliver(5, "tag", 1),
        method_frame(5, "channel.open-ok"),
        frame(2, 5, bytes(14)),
        frame(3, 5, b"body"),
    ],
)
def test_a_frame_on_a_channel_never_opened_is_504(wrong: bytes) -> None:
    client = opened()
    client.feed(wrong)
    assert protocol_error(client).code == 504


@pytest.mark.parametrize(
    "wrong",
    [
        method_frame(1, "queue.declare-ok", "q", 0, 0),
        method_frame(1, "channel.open-ok"),
        method_frame(1, "channel.close-ok"),
        method_frame(1, "basic.get-empty"),
        got(1, 1),
    ],
)
def test_a_reply_that_answers_nothing_is_503(wrong: bytes) -> None:
    client = opened()
    client.channel()
    client.feed(wrong)
    assert protocol_error(client).code == 503


def test_a_reply_to_another_request_is_503() -> None:
    client = opened()
    channel = client.channel()
    request = channel.queue_declare("q")
    client.sent()
    client.feed(method_frame(1, "queue.bind-ok"))
    error = protocol_error(client)
    assert error.code == 503
    assert "queue.declare" in str(error)
    assert isinstance(outcome(request), NotExecuted)


@pytest.mark.parametrize("wrong", [deliver(1, "t", 1), ack(1, 1)])
def test_a_fresh_channel_gets_nothing_before_open_ok(wrong: bytes) -> None:
    client = opened()
    client.connection.channel()
    client.taken()
    client.feed(wrong)
    assert protocol_error(client).code == 503


@pytest.mark.parametrize(
    ("channel", "name"), [(1, "connection.blocked"), (0, "basic.ack"), (0, "channel.open-ok")]
)
def test_a_method_on_the_wrong_channel_is_503(channel: int, name: str) -> None:
    client = opened()
    client.channel()
    values = {"connection.blocked": ("x",), "basic.ack": (1, False)}.get(name, ())
    client.feed(method_frame(channel, name, *values))
    assert protocol_error(client).code == 503


def test_functions_given_to_channel_are_checked_before_anything_is_sent() -> None:
    client = opened()
    with pytest.raises(BadArgument):
        client.connection.channel(on_nothing=print)  # type: ignore[call-arg]
    with pytest.raises(BadType):
        client.connection.channel(5)  # type: ignore[arg-type]
    assert client.sent() == []


# --- numbers of one's own choice


def test_a_number_of_ones_own_is_taken_and_stepped_over() -> None:
    client = opened()
    assert client.connection.channel(number=2).number == 2
    assert [client.connection.channel().number for _ in range(3)] == [1, 3, 4]
    assert client.connection.channel(number=2047).number == 2047


def test_a_closed_channels_number_may_be_asked_for() -> None:
    client = opened()
    channel = client.channel()
    channel.close()
    with pytest.raises(BadArgument, match="in use"):
        client.connection.channel(number=1)
    client.serve()
    again = client.connection.channel(number=1)
    assert again.number == 1
    client.serve()
    assert again.is_open


@pytest.mark.parametrize(
    ("number", "kind"), [(0, BadArgument), (2048, BadArgument), ("1", BadType), (True, BadType)]
)
def test_a_number_that_is_none_is_refused_with_nothing_sent(number: Any, kind: type) -> None:
    client = opened()
    with pytest.raises(kind):
        client.connection.channel(number=number)
    assert client.sent() == []
