"""Every method of a channel: the bytes it sends, its result, and each way in which it is refused.

A refused call sends nothing and changes nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from evamqp.codec.frames import PROTOCOL_HEADER, method_frame
from evamqp.codec.properties import Properties
from evamqp.core.channel import Channel, Message
from evamqp.errors import (
    AlreadySettled,
    BadArgument,
    BadType,
    ChannelClosed,
    MalformedData,
    NotExecuted,
    OutputFull,
    WrongState,
    WrongThread,
)
from evamqp.types import DeclareOk
from tests.support.client import Client, opened, outcome
from tests.support.frames import NO_PROPERTIES, Sent, channel_close, deliver, got, names


class Call(NamedTuple):
    """One request method: how to call it, what it sends, and what its plain reply gives."""

    method: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    name: str
    sent: tuple[Any, ...]
    result: Any
    takes_nowait: bool = False


TABLE = {"x-max": 1}
CALLS = [
    Call(
        "exchange_declare",
        ("e", "topic"),
        {"durable": True, "internal": True, "arguments": TABLE},
        "exchange.declare",
        ("e", "topic", False, True, False, True, False, TABLE),
        None,
        True,
    ),
    Call(
        "exchange_declare",
        ("e",),
        {"passive": True, "auto_delete": True},
        "exchange.declare",
        ("e", "direct", True, False, True, False, False, {}),
        None,
        True,
    ),
    Call("exchange_delete", ("e", True), {}, "exchange.delete", ("e", True, False), None, True),
    Call(
        "exchange_bind",
        ("to", "from", "key", TABLE),
        {},
        "exchange.bind",
        ("to", "from", "key", False, TABLE),
        None,
        True,
    ),
    Call(
        "exchange_unbind",
        ("to", "from"),
        {},
        "exchange.unbind",
        ("to", "from", "", False, {}),
        None,
        True,
    ),
    Call(
        "queue_declare",
        ("q",),
        {"durable": True, "exclusive": True, "arguments": TABLE},
        "queue.declare",
        ("q", False, True, True, False, False, TABLE),
        DeclareOk("q", 3, 2),
        True,
    ),
    Call(
        "queue_declare",
        (),
        {"passive": True, "auto_delete": True},
        "queue.declare",
        ("", True, False, False, True, False, {}),
        DeclareOk("", 3, 2),
        True,
    ),
    Call(
        "queue_bind",
        ("q", "e", "key", TABLE),
        {},
        "queue.bind",
        ("q", "e", "key", False, TABLE),
        None,
        True,
    ),
    Call("queue_unbind", ("q", "e", "key"), {}, "queue.unbind", ("q", "e", "key", {}), None),
    Call("queue_purge", ("q",), {}, "queue.purge", ("q", False), 3, True),
    Call("queue_delete", ("q", True, True), {}, "queue.delete", ("q", True, True, False), 3, True),
    Call("basic_cancel", ("tag",), {}, "basic.cancel", ("tag", False), "tag"),
    Call("basic_get", ("q", True), {}, "basic.get", ("q", True), None),
    Call("basic_qos", (7,), {}, "basic.qos", (0, 7, False), None),
    Call("basic_qos", (7,), {"across_consumers": True}, "basic.qos", (0, 7, True), None),
    Call("basic_recover", (), {}, "basic.recover", (True,), None),
    Call("confirm_select", (), {}, "confirm.select", (False,), None, True),
    Call("tx_select", (), {}, "tx.select", (), None),
    Call("tx_commit", (), {}, "tx.commit", (), None),
    Call("tx_rollback", (), {}, "tx.rollback", (), None),
    Call("flow", (False,), {}, "channel.flow", (False,), False),
]
IDS = [f"{call.method}-{index}" for index, call in enumerate(CALLS)]
each_call = pytest.mark.parametrize("call", CALLS, ids=IDS)


def ready() -> tuple[Client, Channel]:
    client = opened()
    return client, client.channel()


def perform(channel: Channel, call: Call, **more: Any) -> Any:
    return getattr(channel, call.method)(*call.arguments, **call.keywords, **more)


def fifo(channel: Channel) -> list[str]:
    """The requests that wait, by name."""
    return [request.method for request in channel._machine.requests]


@each_call
def test_it_sends_its_arguments_and_resolves_with_the_reply(call: Call) -> None:
    client, channel = ready()
    replies: list[Any] = []
    request = perform(channel, call, callback=replies.append)
    assert not request.is_done
    assert client.serve() == [Sent(1, call.name, call.sent)]
    assert outcome(request) == call.result
    assert replies == [call.result]
    assert fifo(channel) == []


@each_call
def test_an_end_calls_on_error_with_the_reason_as_cause(call: Call) -> None:
    client, channel = ready()
    errors: list[Exception] = []
    replies: list[Any] = []
    request = perform(channel, call, callback=replies.append, on_error=errors.append)
    client.sent()
    client.feed(channel_close(1, 404, "no such thing", call.name))
    (error,) = errors
    assert isinstance(error, NotExecuted)
    assert error.is_culprit
    assert isinstance(error.__cause__, ChannelClosed)
    assert error.__cause__.code == 404
    assert channel.reason is not None
    assert channel.reason.culprit == call.name
    assert call.name in str(error)
    assert replies == []
    assert outcome(request) is not error
    assert client.sent() == [Sent(1, "channel.close-ok")]


@each_call
def test_nowait_sends_the_bit_and_expects_nothing(call: Call) -> None:
    client, channel = ready()
    if not call.takes_nowait:
        with pytest.raises(TypeError):
            perform(channel, call, nowait=True)
        return
    assert perform(channel, call, nowait=True) is None
    (sent,) = client.sent()
    assert sent.name == call.name
    assert [a != b for a, b in zip(sent.arguments, call.sent, strict=True)].count(True) == 1
    assert fifo(channel) == []


@each_call
@pytest.mark.parametrize("given", ["callback", "on_error"])
def test_nowait_refuses_a_callback(call: Call, given: str) -> None:
    client, channel = ready()
    if call.takes_nowait:
        with pytest.raises(BadArgument, match="nowait"):
            perform(channel, call, nowait=True, **{given: print})
    assert client.sent() == []
    assert channel._machine.next_tag == 0


def _closing(client: Client, channel: Channel) -> None:
    channel.close()


def _closed(client: Client, channel: Channel) -> None:
    client.feed(channel_close(1))


def _connection_closing(client: Client, channel: Channel) -> None:
    client.connection.close()


def _lost(client: Client, channel: Channel) -> None:
    client.lose()


ENDS = [_closing, _closed, _connection_closing, _lost]


@each_call
@pytest.mark.parametrize("end", ENDS)
def test_on_a_channel_that_ends_or_has_ended_it_raises_wrong_state(
    call: Call, end: Callable[[Client, Channel], None]
) -> None:
    client, channel = ready()
    end(client, channel)
    client.taken()
    waiting = fifo(channel)
    with pytest.raises(WrongState, match=rf"{call.name} on channel 1: channel is CLOS"):
        perform(channel, call)
    if call.takes_nowait:
        with pytest.raises(WrongState):
            perform(channel, call, nowait=True)
    assert fifo(channel) == waiting
    assert client.sent() == []


@each_call
def test_at_the_output_cap_it_raises_and_changes_nothing(call: Call) -> None:
    client = opened(output_max=4096, output_high_water=1024)
    channel = client.channel()
    client.fill(channel)
    before = client.connection.output_size, fifo(channel), channel._machine.next_tag
    with pytest.raises(OutputFull):
        perform(channel, call)
    after = client.connection.output_size, fifo(channel), channel._machine.next_tag
    assert after == before


OTHERS: list[tuple[str, tuple[Any, ...]]] = [
    ("basic_publish", ("", "q", b"x")),
    ("basic_consume", ("q", print)),
    ("basic_ack", (1,)),
    ("basic_nack", (1,)),
    ("basic_reject", (1,)),
    ("wait_for_confirms", ()),
]


@pytest.mark.parametrize(("method", "arguments"), OTHERS)
@pytest.mark.parametrize("end", ENDS)
def test_what_is_no_plain_request_raises_wrong_state_as_well(
    method: str, arguments: tuple[Any, ...], end: Callable[[Client, Channel], None]
) -> None:
    client, channel = ready()
    end(client, channel)
    client.taken()
    with pytest.raises(WrongState):
        getattr(channel, method)(*arguments)
    assert client.sent() == []
    assert not channel._machine.consumers


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception]]] = [
    ("exchange_declare", (5,), {}, BadType),
    ("exchange_declare", ("e" * 256,), {}, BadArgument),
    ("exchange_declare", ("e",), {"durable": "yes"}, BadType),
    ("exchange_declare", ("e",), {"arguments": {"a": object()}}, BadType),
    ("exchange_declare", ("e",), {"arguments": [1]}, BadType),
    ("exchange_delete", (None,), {}, BadType),
    ("exchange_bind", ("a", None), {}, BadType),
    ("exchange_unbind", ("a", b"b"), {}, BadType),
    ("queue_declare", (b"q",), {}, BadType),
    ("queue_declare", ("é" * 128,), {}, BadArgument),
    ("queue_declare", ("q",), {"arguments": {"a": 2**64}}, BadArgument),
    ("queue_bind", ("q", 1), {}, BadType),
    ("queue_unbind", ("q", "e", 1), {}, BadType),
    ("queue_purge", (None,), {}, BadType),
    ("queue_delete", ("q", "no"), {}, BadType),
    ("basic_cancel", (None,), {}, BadType),
    ("basic_get", ("q", "no"), {}, BadType),
    ("basic_qos", (65_536,), {}, BadArgument),
    ("basic_qos", (-1,), {}, BadArgument),
    ("basic_qos", ("1",), {}, BadType),
    ("basic_recover", ("yes",), {}, BadType),
    ("flow", (None,), {}, BadType),
    ("basic_publish", ("", "q", "text"), {}, BadType),
    ("basic_publish", ("", "q", None), {}, BadType),
    ("basic_publish", ("", "q", 5), {}, BadType),
    ("basic_publish", (None, "q", b""), {}, BadType),
    ("basic_publish", ("", b"q", b""), {}, BadType),
    ("basic_publish", ([], "q", b""), {}, BadType),
    ("basic_publish", ("", {}, b""), {}, BadType),
    ("basic_publish", ("", "k" * 256, b""), {}, BadArgument),
    ("basic_publish", ("e" * 256, "k", b""), {}, BadArgument),
    ("basic_publish", ("", "q", b"", {"headers": {}}), {}, BadType),
    ("basic_publish", ("", "q", b"", None, "yes"), {}, BadType),
    ("basic_consume", (5, print), {}, BadType),
    ("basic_consume", ("q", None), {}, BadType),
    ("basic_consume", ("q", print), {"consumer_tag": 5}, BadType),
    ("basic_consume", ("q", print), {"consumer_tag": "t" * 256}, BadArgument),
    ("basic_ack", (-1,), {}, BadArgument),
    ("basic_ack", (2**64,), {}, BadArgument),
    ("basic_ack", ("1",), {}, BadType),
    ("basic_nack", (-1,), {}, BadArgument),
    ("basic_nack", (None,), {}, BadType),
    ("basic_reject", (2**64,), {}, BadArgument),
    ("basic_reject", (1.5,), {}, BadType),
    ("close", ("x",), {}, BadType),
    ("close", (65_536,), {}, BadArgument),
    ("close", (-1,), {}, BadArgument),
    ("close", (200, 5), {}, BadType),
]


@pytest.mark.parametrize(("method", "arguments", "keywords", "error"), BAD)
def test_a_bad_argument_sends_nothing_and_changes_nothing(
    method: str, arguments: tuple[Any, ...], keywords: dict[str, Any], error: type[Exception]
) -> None:
    client = opened()
    channel = client.confirming_channel()
    with pytest.raises(error) as caught:
        getattr(channel, method)(*arguments, **keywords)
    assert str(caught.value)
    assert client.sent() == []
    assert fifo(channel) == []
    assert not channel._machine.consumers
    assert not channel._machine.cancelling
    assert channel.is_open
    assert channel.basic_publish("", "q", b"x") == 1


def test_a_second_positional_of_qos_is_a_type_error() -> None:
    _, channel = ready()
    with pytest.raises(TypeError):
        getattr(channel, "basic_qos")(0, 5)  # noqa: B009  (a type checker knows better)


# --- publishing


@pytest.mark.parametrize(
    "size", [0, 1, 4096, 16 * 1024, 16 * 1024 + 1, 131_072 - 8, 131_072, 300_000]
)
def test_a_publish_is_a_method_a_header_and_its_body_in_frames(size: int) -> None:
    client, channel = ready()
    body = os.urandom(size)
    properties = Properties(content_type="text/plain", headers={"a": 1})
    assert channel.basic_publish("e", "key", body, properties, mandatory=True) == 0
    method, header, *bodies = client.sent()
    assert method == Sent(1, "basic.publish", ("e", "key", True, False))
    assert header == Sent(1, "header", (size, properties.raw))
    assert b"".join(frame.arguments[0] for frame in bodies) == body
    assert all(0 < len(frame.arguments[0]) <= 131_072 - 8 for frame in bodies)
    assert len(bodies) == -(-size // (131_072 - 8))


@pytest.mark.parametrize(
    "body",
    [bytearray(b"hello"), memoryview(b"hello"), memoryview(b"h.e.l.l.o")[::2]],
    ids=["bytearray", "memoryview", "strided"],
)
def test_a_body_that_may_change_is_copied_at_the_call(body: Any) -> None:
    client, channel = ready()
    channel.basic_publish("", "q", body)
    if isinstance(body, bytearray):
        body[:] = b"HELLO"
    assert client.sent()[2].arguments == (b"hello",)


def test_a_big_bytearray_is_copied_at_the_call() -> None:
    client, channel = ready()
    body = bytearray(200_000)
    channel.basic_publish("", "q", body)
    body[:] = b"x" * 200_000
    assert client.sent()[2].arguments[0].count(0) == 131_064


def test_frame_max_bounds_the_frames_of_a_publish() -> None:
    client = opened(frame_max=4096)
    channel = client.channel()
    for size in (4088, 4089, 10_000):
        channel.basic_publish("", "q", bytes(size))
        sizes = [len(f.arguments[0]) for f in client.sent() if f.name == "body"]
        assert sum(sizes) == size
        assert max(sizes) == 4088


def fitting(frame_max: int) -> Properties:
    """Properties whose content header takes a frame of ``frame_max`` bytes."""
    empty = Properties(headers={"k": ""})
    return Properties(headers={"k": "x" * (frame_max - 8 - 12 - len(empty.raw))})


@pytest.mark.parametrize("frame_max", [4096, 10_000, 131_072])
@pytest.mark.parametrize("body", [b"", b"x", bytes(200_000)])
@pytest.mark.parametrize("received", [False, True])
def test_properties_that_do_not_fit_a_frame_are_refused_and_take_no_tag(
    frame_max: int, body: bytes, received: bool
) -> None:
    client = opened(frame_max=frame_max)
    channel = client.confirming_channel()
    fits, above = fitting(frame_max), fitting(frame_max + 1)
    if received:
        fits, above = Properties.from_raw(fits.raw), Properties.from_raw(above.raw)
    for _ in range(2):
        with pytest.raises(BadArgument, match=f"a frame of {frame_max} bytes, the frame_max"):
            channel.basic_publish("", "q", body, above)
    assert client.sent() == []
    assert channel.basic_publish("", "q", body, fits) == 1
    assert channel.basic_publish("", "q", body, fits) == 2
    headers = [frame for frame in client.sent() if frame.name == "header"]
    assert [len(frame.arguments[1]) for frame in headers] == [frame_max - 20] * 2


BROKEN = {
    "no headers": "2000",
    "headers cut short": "2000 00000005 016b",
    "bytes behind": "0008 0161 00",
    "flags beyond the fourteen": "0001 0000",
    "a value of unknown type": "2000 00000003 016b55",
    "a float that is none": "2000 0000000b 016b64 7ff8000000000000",
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("body", [b"", b"x", bytes(200_000)])
def test_broken_properties_of_a_broker_are_refused_when_published(raw: str, body: bytes) -> None:
    client = opened()
    channel = client.confirming_channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1, properties=bytes.fromhex(raw)))
    (message,) = client.recorder.messages
    for _ in range(2):
        with pytest.raises(MalformedData):
            channel.basic_publish("", "q", body, message.properties)
    assert client.sent() == []
    assert channel.basic_publish("", "q", body) == 1


def test_received_properties_are_published_as_they_came() -> None:
    client = opened()
    channel = client.channel()
    client.consumer(channel)
    raw = Properties(app_id="a", headers={"k": [1, None, {"x": 2.5}]}).raw
    client.feed(deliver(1, "tag", 1, properties=raw))
    (message,) = client.recorder.messages
    for _ in range(2):
        channel.basic_publish("", "q", b"x", message.properties)
        assert client.sent()[1] == Sent(1, "header", (1, raw))


LARGE: list[Callable[[Channel, str], object]] = [
    lambda channel, text: channel.queue_declare("q", arguments={"k": text}),
    lambda channel, text: channel.queue_declare("q", arguments={"k": text}, nowait=True),
    lambda channel, text: channel.exchange_declare("e", arguments={"k": text}),
    lambda channel, text: channel.queue_bind("q", "e", arguments={"k": text}),
    lambda channel, text: channel.basic_consume("q", print, arguments={"k": text}),
    lambda channel, text: channel.connection.update_secret(text),
]


@pytest.mark.parametrize("call", LARGE)
def test_a_method_that_does_not_fit_a_frame_is_refused_and_changes_nothing(
    call: Callable[[Channel, str], object],
) -> None:
    client = opened(frame_max=4096)
    channel = client.channel()
    with pytest.raises(BadArgument, match="do not fit a frame of 4096"):
        call(channel, "x" * 5000)
    assert client.connection.output_size == 0
    room = 4096 - _size(call, "")
    with pytest.raises(BadArgument):
        call(channel, "x" * (room + 1))
    call(channel, "x" * room)
    assert client.connection.output_size == 4096


def _size(call: Callable[[Channel, str], object], text: str) -> int:
    client = opened()
    call(client.channel(), text)
    return client.connection.output_size


def test_many_routing_keys_are_all_sent_right() -> None:
    client, channel = ready()
    for number in range(300):
        channel.basic_publish("", f"key-{number}", b"x")
    keys = [frame.arguments[1] for frame in client.sent() if frame.name == "basic.publish"]
    assert keys == [f"key-{number}" for number in range(300)]


def test_publishes_and_requests_leave_in_program_order() -> None:
    client, channel = ready()
    channel.queue_declare("q")
    channel.basic_publish("", "q", b"1")
    channel.queue_bind("q", "e")
    channel.basic_publish("", "q", bytes(100_000))
    sent = names(client.sent())
    assert [name for name in sent if name not in ("header", "body")] == [
        "queue.declare",
        "basic.publish",
        "queue.bind",
        "basic.publish",
    ]


def test_a_stopped_flow_refuses_publishes_and_nothing_else() -> None:
    client = opened()
    channel = client.confirming_channel()
    client.feed(method_frame(1, "channel.flow", False))
    assert client.serve() == [Sent(1, "channel.flow-ok", (False,))]
    with pytest.raises(OutputFull, match="flow"):
        channel.basic_publish("", "q", b"x")
    channel.queue_declare("q")
    assert not client.writable()
    client.feed(method_frame(1, "channel.flow", True))
    assert channel.basic_publish("", "q", b"x") == 1
    client.turn()
    assert client.log == [("on_writable", False), ("on_writable", True)]


def test_a_flow_resumed_that_was_never_stopped_changes_nothing() -> None:
    client, channel = ready()
    client.feed(method_frame(1, "channel.flow", True))
    assert client.log == []
    assert channel.is_open


def test_a_channel_that_ends_with_its_flow_stopped_sets_writing_free() -> None:
    client, channel = ready()
    client.feed(method_frame(1, "channel.flow", False))
    channel.close()
    client.serve()
    assert client.writable()
    assert [entry[:2] for entry in client.log if entry[0] == "on_writable"] == [
        ("on_writable", False),
        ("on_writable", True),
    ]


# --- consuming


def test_basic_consume_returns_its_tag_at_once_and_replies_with_it() -> None:
    client, channel = ready()
    replies: list[str] = []
    tag = channel.basic_consume(
        "q", print, True, True, "mine", {"x-priority": 1}, callback=replies.append
    )
    assert tag == "mine"
    arguments = ("q", "mine", False, True, True, False, {"x-priority": 1})
    assert client.serve() == [Sent(1, "basic.consume", arguments)]
    assert replies == ["mine"]


def test_consumer_tags_are_made_by_the_client_and_differ() -> None:
    _, channel = ready()
    tags = {channel.basic_consume("q", print) for _ in range(5)}
    assert len(tags) == 5
    assert "" not in tags


def test_a_consumer_tag_of_ones_own_is_stepped_over() -> None:
    _, channel = ready()
    assert channel.basic_consume("q", print, consumer_tag="ctag-1") == "ctag-1"
    assert channel.basic_consume("q", print) == "ctag-2"


def test_a_consumer_tag_in_use_is_refused() -> None:
    client, channel = ready()
    channel.basic_consume("q", print, consumer_tag="tag")
    client.sent()
    with pytest.raises(BadArgument, match="tag"):
        channel.basic_consume("q", print, consumer_tag="tag")
    assert client.sent() == []


def test_an_async_on_message_is_refused() -> None:
    client, channel = ready()

    async def on_message(message: Message) -> None:
        """Nothing."""

    class Bound:
        async def on_message(self, message: Message) -> None:
            """Nothing."""

    for function in (on_message, Bound().on_message):
        with pytest.raises(BadType, match="async"):
            channel.basic_consume("q", function)
    assert client.sent() == []


def test_callables_of_any_kind_take_messages() -> None:
    client, channel = ready()
    seen: list[Message] = []

    class Callable_:
        def __call__(self, message: Message) -> None:
            seen.append(message)

    channel.basic_consume("q", Callable_(), consumer_tag="a")
    channel.basic_consume("q", seen.append, consumer_tag="b")
    client.serve()
    client.feed(deliver(1, "a", 1), deliver(1, "b", 2))
    assert [message.delivery_tag for message in seen] == [1, 2]


def test_a_message_has_everything_that_came() -> None:
    client, channel = ready()
    client.consumer(channel)
    properties = Properties(content_type="a/b", headers={"n": 1}).raw
    for _ in range(2):  # the plain path, then the fused one
        client.feed(
            deliver(
                1, "tag", 2**63, b"body", redelivered=True, exchange="ex", routing_key="kéy",
                properties=properties,
            )
        )  # fmt: skip
    for message in client.recorder.messages:
        assert message.body == b"body"
        assert message.delivery_tag == 2**63
        assert message.redelivered is True
        assert (message.exchange, message.routing_key) == ("ex", "kéy")
        assert message.consumer_tag == "tag"
        assert message.message_count is None
        assert message.channel is channel
        assert message.properties.headers == {"n": 1}
        assert message.properties is message.properties
        assert message.properties.raw == properties
        assert "ex" in repr(message)


def test_a_message_from_basic_get_has_the_same() -> None:
    client, channel = ready()
    requests = [channel.basic_get("q"), channel.basic_get("q")]
    client.sent()
    client.feed(got(1, 9, b"body", left=70_000), method_frame(1, "basic.get-empty"))
    message = outcome(requests[0])
    assert (message.body, message.delivery_tag, message.routing_key) == (b"body", 9, "queue")
    assert (message.exchange, message.consumer_tag, message.redelivered) == ("", "", False)
    assert message.message_count == 70_000
    assert message.properties.raw == NO_PROPERTIES
    assert message.ack() is True
    assert client.sent() == [Sent(1, "basic.ack", (9, False))]
    assert outcome(requests[1]) is None


SETTLEMENTS: list[tuple[str, tuple[Any, ...], str, tuple[Any, ...]]] = [
    ("ack", (), "basic.ack", (7, False)),
    ("nack", (), "basic.nack", (7, False, True)),
    ("nack", (False,), "basic.nack", (7, False, False)),
    ("reject", (), "basic.reject", (7, True)),
    ("reject", (False,), "basic.reject", (7, False)),
]


@pytest.mark.parametrize(("verb", "arguments", "name", "sent"), SETTLEMENTS)
def test_a_message_settles_once(
    verb: str, arguments: tuple[Any, ...], name: str, sent: tuple[Any, ...]
) -> None:
    client, channel = ready()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 7))
    (message,) = client.recorder.messages
    assert getattr(message, verb)(*arguments) is True
    assert client.sent() == [Sent(1, name, sent)]
    for again in (message.ack, message.nack, message.reject):
        with pytest.raises(AlreadySettled):
            again()
    assert client.sent() == []


@pytest.mark.parametrize("verb", ["ack", "nack", "reject"])
def test_a_message_of_an_auto_ack_consumer_cannot_be_settled(verb: str) -> None:
    client, channel = ready()
    client.consumer(channel, auto_ack=True)
    client.feed(deliver(1, "tag", 7), deliver(1, "tag", 8))
    for message in client.recorder.messages:
        with pytest.raises(AlreadySettled):
            getattr(message, verb)()
    assert client.sent() == []


@pytest.mark.parametrize("verb", ["ack", "nack", "reject"])
@pytest.mark.parametrize("end", ENDS)
def test_settling_after_the_end_is_a_counted_no_op(
    verb: str, end: Callable[[Client, Channel], None]
) -> None:
    client, channel = ready()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 7))
    end(client, channel)
    client.taken()
    (message,) = client.recorder.messages
    assert getattr(message, verb)() is False
    assert client.connection.stats.stale_acks == 1
    assert client.sent() == []
    with pytest.raises(AlreadySettled):
        message.ack()


def test_settling_by_number_is_raw() -> None:
    client, channel = ready()
    channel.basic_ack(5, multiple=True)
    channel.basic_ack()
    channel.basic_nack(6, True, False)
    channel.basic_nack()
    channel.basic_reject(7, False)
    assert client.sent() == [
        Sent(1, "basic.ack", (5, True)),
        Sent(1, "basic.ack", (0, False)),
        Sent(1, "basic.nack", (6, True, False)),
        Sent(1, "basic.nack", (0, False, True)),
        Sent(1, "basic.reject", (7, False)),
    ]


def test_acks_above_the_flush_mark_are_all_sent() -> None:
    client, channel = ready()
    client.consumer(channel)
    count = 4000  # of 21 bytes
    for tag in range(1, count + 1):
        client.feed(deliver(1, "tag", tag))
        client.recorder.messages.pop().ack()
    assert [frame.arguments[0] for frame in client.sent()] == list(range(1, count + 1))


# --- threads and forks


def thread_calls(client: Client, channel: Channel) -> dict[str, Callable[[], object]]:
    """Every call that belongs to the loop's thread."""
    connection = client.connection
    (message,) = client.recorder.messages
    calls: dict[str, Callable[[], object]] = {
        "channel": connection.channel,
        "connection.close": connection.close,
        "wait_open": connection.wait_open,
        "wait_closed": connection.wait_closed,
        "wait_writable": connection.wait_writable,
        "pause_reading": connection.pause_reading,
        "resume_reading": connection.resume_reading,
        "update_secret": lambda: connection.update_secret("t"),
        "channel.close": channel.close,
        "channel.wait_closed": channel.wait_closed,
        "message.ack": message.ack,
        "message.nack": message.nack,
        "message.reject": message.reject,
    }
    for call in CALLS:
        calls[call.method] = lambda call=call: perform(channel, call)  # type: ignore[misc]
    for method, arguments in OTHERS:
        calls[method] = lambda m=method, a=arguments: getattr(channel, m)(*a)  # type: ignore[misc]
    return calls


def armed(**parameters: Any) -> tuple[Client, Channel]:
    """A client with a message at hand and nothing to send."""
    client = opened(**parameters)
    channel = client.confirming_channel()
    client.consumer(channel)
    client.feed(deliver(1, "tag", 1))
    return client, channel


def refusals(calls: dict[str, Callable[[], object]]) -> dict[str, str]:
    """What each call said."""
    said = {}
    for name, call in calls.items():
        try:
            call()
        except WrongThread as error:
            said[name] = str(error)
        except BaseException as error:
            said[name] = f"{type(error).__name__}: {error}"
        else:
            said[name] = "nothing"
    return said


def test_every_call_from_another_thread_raises_and_changes_nothing() -> None:
    client, channel = armed()
    calls = thread_calls(client, channel)
    said: dict[str, str] = {}
    thread = threading.Thread(target=lambda: said.update(refusals(calls)))
    thread.start()
    thread.join()
    assert {name: text for name, text in said.items() if "call_soon_threadsafe" not in text} == {}
    assert client.sent() == []
    assert fifo(channel) == []
    assert channel.is_open
    (message,) = client.recorder.messages
    assert message.ack()


def test_thread_that_binds_the_connection_may_use_it_and_the_one_before_may_not() -> None:
    client, channel = ready()

    def take_over() -> None:
        client.connection.bind_thread()
        channel.basic_publish("", "q", b"1")

    thread = threading.Thread(target=take_over)
    thread.start()
    thread.join()
    assert channel.published == 1
    with pytest.raises(WrongThread):
        channel.basic_publish("", "q", b"2")
    client.connection.bind_thread()
    channel.basic_publish("", "q", b"3")
    assert channel.published == 2


def test_bytes_that_another_thread_brings_are_not_taken() -> None:
    client, _ = armed()
    thread = threading.Thread(target=client.connection.receive_data, args=(deliver(1, "tag", 2),))
    thread.start()
    thread.join()
    assert len(client.recorder.messages) == 1


def test_the_threadsafe_entry_leads_to_the_loop() -> None:
    client, channel = armed()
    thread = threading.Thread(
        target=client.connection.call_soon_threadsafe,
        args=(lambda: channel.basic_publish("", "q", b"x"),),
    )
    thread.start()
    thread.join()
    assert client.sent() == []
    client.turn()
    assert names(client.sent()) == ["basic.publish", "header", "body"]


def test_threadsafe_functions_wake_the_loop_once_for_many() -> None:
    client = opened()
    for number in range(100):
        client.connection.call_soon_threadsafe(client.recorder.note(f"{number}"))
    assert len(client.runtime.calls) == 1
    client.turn()
    assert client.recorder.names == [f"{number}" for number in range(100)]


def test_a_threadsafe_function_may_bring_another() -> None:
    client = opened()
    note = client.recorder.note
    client.recorder.inside("a", lambda: client.connection.call_soon_threadsafe(note("b")))
    client.connection.call_soon_threadsafe(note("a"))
    client.turn()
    assert client.recorder.names == ["a", "b"]


def test_the_thread_of_the_first_callback_owns_the_connection() -> None:
    client = Client()
    thread = threading.Thread(target=client.connect)
    thread.start()
    thread.join()
    with pytest.raises(WrongThread):
        client.connection.close()


def in_a_child(function: Callable[[], str]) -> str:
    """What ``function`` returns in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, function().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("size", [10, 5000])
def test_every_call_in_a_forked_child_raises_and_touches_nothing(size: int) -> None:
    client, channel = armed(output_high_water=1000)
    channel.basic_publish("", "q", bytes(size))
    client.turn()
    calls = thread_calls(client, channel)
    calls["call_soon_threadsafe"] = lambda: client.connection.call_soon_threadsafe(print)
    before = client.runtime.ready_count

    def child() -> str:
        said = refusals(calls)
        wrong = {name: text for name, text in said.items() if "forked" not in text}
        connection = client.connection
        touched = client.runtime.ready_count - before + len(client.runtime.calls)
        return f"{wrong} {touched} {connection.data_to_send()!r} {connection.next_deadline()}"

    assert in_a_child(child) == "{} 0 b'' None"
    assert names(client.sent()) == ["basic.publish", "header", "body"]
    assert channel.basic_publish("", "q", b"x")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_hears_nothing_and_says_nothing() -> None:
    client, _ = armed()
    client.recorder.take()

    def child() -> str:
        client.connection.receive_data(deliver(1, "tag", 2))
        client.runtime.now += 1000
        client.connection.handle_timer()
        client.connection.connection_lost(None)
        return f"{client.log} {client.taken()!r}"

    assert in_a_child(child) == "[] b''"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_connection_that_has_ended_is_also_barred_in_a_child() -> None:
    client, channel = armed()
    client.lose()
    calls = thread_calls(client, channel)
    assert "nothing" not in in_a_child(lambda: str(set(refusals(calls).values())))


# --- what is shown


def test_reprs_show_where_things_stand() -> None:
    client, channel = ready()
    request = channel.queue_declare("q")
    assert repr(channel) == "<Channel 1 OPEN>"
    assert repr(request) == "<Request queue.declare on channel 1 pending>"
    client.serve()
    assert repr(request) == "<Request queue.declare on channel 1 done>"
    assert repr(client.connection) == "<Connection guest@localhost:5672 vhost / OPEN>"
    failed = channel.queue_declare("q")
    client.lose()
    assert "NotExecuted" in repr(failed)
    assert repr(Client().connection) == "<Connection CONNECTING>"
    assert repr(client.connection.stats).startswith("<Stats {")


def test_stats_count_what_passed() -> None:
    client = Client()
    client.connect()
    header = len(client.taken())
    client.open_from_start()
    channel = client.confirming_channel()
    client.consumer(channel)
    before = client.connection.stats
    for tag in range(1, 4):
        client.feed(deliver(1, "tag", tag))
    channel.basic_publish("", "q", b"x")
    stats = client.connection.stats
    assert stats.messages_received - before.messages_received == 3
    assert stats.frames_received - before.frames_received == 9
    assert stats.bytes_received - before.bytes_received == 3 * len(deliver(1, "tag", 1))
    assert stats.messages_published == 1
    data = client.taken()
    assert client.connection.stats.bytes_sent - stats.bytes_sent == len(data)
    assert client.connection.stats.bytes_sent > header == len(PROTOCOL_HEADER)
    channel.close()
    client.serve()
    assert client.connection.stats.messages_published == 1
    assert stats.as_dict()["messages_published"] == 1
