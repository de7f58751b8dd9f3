"""Frames and bodies, cut, mixed or broken in any way; the fused path against the plain one.

What a peer may send is bounded, and each breach has its code.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evamqp.codec.frames import HEARTBEAT_FRAME, content_header_frame, frame, method_frame
from evamqp.codec.properties import Properties
from evamqp.core.channel import Channel
from evamqp.core.content import Content
from evamqp.core.parser import MAX_TEMPLATES, WAITS_WHOLE
from evamqp.core.state import TransportAction
from evamqp.errors import Closed, MalformedData, ProtocolError
from tests.support.client import Client, opened, other_parser, outcome
from tests.support.frames import NO_PROPERTIES, ack, content, deliver, got, nack, names, returned

ANNOUNCE = method_frame(1, "basic.deliver", "tag", 1, False, "", "q")


def consuming(**parameters: Any) -> tuple[Client, Channel]:
    """A client with a consumer ``tag`` on channel 1."""
    client = opened(**parameters)
    channel = client.channel()
    client.consumer(channel)
    client.recorder.take()
    return client, channel


def header(size: int, channel: int = 1, properties: bytes = NO_PROPERTIES) -> bytes:
    return content_header_frame(channel, properties, size)


def body(data: bytes, channel: int = 1) -> bytes:
    return frame(3, channel, data)


def bodies(client: Client) -> list[bytes]:
    return [message.body for message in client.recorder.messages]


def code_of(client: Client) -> int:
    """The code of the protocol error that has closed the connection, told by both sides of it."""
    (close,) = (sent for sent in client.sent() if sent.name == "connection.close")
    assert client.wants(TransportAction.CLOSE)
    client.lose()
    reason = client.log[-1][1]
    assert isinstance(reason, ProtocolError)
    assert isinstance(reason.__cause__, MalformedData)
    assert reason.code == close.arguments[0]
    assert isinstance(reason.code, int)
    return reason.code


# --- cut anywhere


@pytest.mark.parametrize("warm", [True, False])
def test_a_delivery_split_at_every_byte_is_the_same_delivery(warm: bool) -> None:
    data = deliver(1, "tag", 7, b"hello", properties=Properties(app_id="me").raw)
    for cut in range(1, len(data)):
        client, _ = consuming()
        if warm:
            client.feed(data)
            client.recorder.messages.clear()
        client.feed(data[:cut])
        assert bodies(client) == []
        client.feed(data[cut:])
        (message,) = client.recorder.messages
        assert (message.body, message.delivery_tag) == (b"hello", 7)
        assert message.properties.app_id == "me"


@pytest.mark.parametrize("size", [0, 1, 5, 4088, 4089, 20_000])
def test_a_body_of_any_size_comes_byte_by_byte(size: int) -> None:
    client, _ = consuming(frame_max=4096)
    payload = bytes(range(256)) * (size // 256 + 1)
    values = ("tag", 1, False, "", "q")
    data = b"".join(content(1, "basic.deliver", *values, body=payload[:size], frame_max=4096))
    for at in range(0, len(data), 1 if size < 5000 else 7):
        client.feed(data[at : at + (1 if size < 5000 else 7)])
    assert bodies(client) == [payload[:size]]
    assert client.connection.context.parser.body_bytes == 0


def test_a_body_in_frames_of_one_byte_is_gathered() -> None:
    client, _ = consuming()
    client.feed(ANNOUNCE, header(3000), *(body(b"x") for _ in range(3000)))
    assert bodies(client) == [b"x" * 3000]


def test_empty_body_frames_add_nothing() -> None:
    client, _ = consuming()
    client.feed(ANNOUNCE, header(2), body(b""), body(b"a"), body(b""), body(b"b"))
    assert bodies(client) == [b"ab"]


def test_a_message_without_a_body_needs_no_body_frame() -> None:
    client, _ = consuming()
    client.feed(deliver(1, "tag", 1, b""), deliver(1, "tag", 2, b""))
    assert bodies(client) == [b"", b""]


def test_bodies_of_several_channels_interleave() -> None:
    client = opened()
    for number in (1, 2, 3):
        client.consumer(client.channel(), f"tag{number}")
    client.recorder.take()
    streams = [
        content(
            number, "basic.deliver", f"tag{number}", 1, False, "", "q",
            body=bytes((number,)) * 10_000, frame_max=4096,
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    client.feed(*(piece for pieces in zip(*streams, strict=True) for piece in pieces))
    assert bodies(client) == [bytes((number,)) * 10_000 for number in (1, 2, 3)]


def test_heartbeats_and_confirms_may_come_between_the_frames_of_a_body() -> None:
    client, _ = consuming()
    other = client.confirming_channel()
    other.basic_publish("", "q", b"x")
    client.feed(
        ANNOUNCE, HEARTBEAT_FRAME, header(2), HEARTBEAT_FRAME, body(b"a"), ack(2, 1), body(b"b"),
        HEARTBEAT_FRAME,
    )  # fmt: skip
    assert client.recorder.names == ["on_delivery_confirmation", "on_message"]


def test_returns_and_gets_are_messages_too() -> None:
    client, channel = consuming()
    request = channel.basic_get("q")
    client.taken()
    client.feed(returned(1, b"r" * 5000), got(1, 1, b"g" * 5000))
    (back,) = client.recorder.returns
    assert (back.code, back.text, back.routing_key) == (312, "NO_ROUTE", "nowhere")
    assert (back.exchange, back.body) == ("", b"r" * 5000)
    assert back.properties == Properties()
    assert len(outcome(request).body) == 5000


def test_a_body_in_pieces_is_one() -> None:
    gathered = Content("basic.deliver", (), b"", lambda content: None)
    gathered.take_header(b"\x00\x3c\x00\x00" + (20_000).to_bytes(8, "big") + NO_PROPERTIES)
    for piece in [b"a", b"b" * 10, b"c" * 8000, b"d", b"e"]:
        gathered.expect(len(piece))
        gathered.append(b"\xce" + piece + b"\xce", 1, 1 + len(piece))
    assert gathered.body == b"a" + b"b" * 10 + b"c" * 8000 + b"de"
    assert gathered.received == len(gathered.body)


def test_bad_values_in_properties_do_not_hurt_until_they_are_read() -> None:
    client, _ = consuming()
    bad = b"\x20\x00" + (5).to_bytes(4, "big") + b"\x01a!!!"
    for _ in range(2):
        client.feed(deliver(1, "tag", 1, properties=bad))
    assert client.lives()
    for message in client.recorder.messages:
        assert message.properties.raw == bad
        with pytest.raises(MalformedData):
            _ = message.properties.headers
        assert message.ack()


# --- bounds


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("size", [999, 1000])
def test_a_body_up_to_the_limit_is_taken(size: int, warm: bool) -> None:
    client, _ = consuming(body_max=1000)
    if warm:
        client.feed(deliver(1, "tag", 1, b"x"))
    client.feed(deliver(1, "tag", 2, bytes(size)))
    assert bodies(client)[-1] == bytes(size)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("size", [1001, 2**63, 2**64 - 1])
def test_a_body_above_the_limit_closes_its_channel_and_is_not_read(size: int, warm: bool) -> None:
    client, channel = consuming(body_max=1000)
    if warm:
        client.feed(deliver(1, "tag", 1, b"x"))
    client.recorder.take()
    client.feed(ANNOUNCE, header(size), body(b"x" * 500))
    (close,) = client.sent()
    assert (close.name, close.arguments[0], close.arguments[2:]) == ("channel.close", 311, (60, 60))
    client.feed(method_frame(1, "channel.close-ok"))
    assert client.recorder.names == ["on_channel_close"]
    assert channel.reason is not None
    assert channel.reason.code == 311
    assert client.lives()
    assert client.connection.context.parser.body_bytes == 0


def test_partial_bodies_of_all_channels_share_twice_the_limit() -> None:
    client = opened(body_max=1000)
    for number in (1, 2, 3):
        client.consumer(client.channel(), "tag")
        client.feed(method_frame(number, "basic.deliver", "tag", 1, False, "", "q"))
        client.feed(header(1000, number))
    client.feed(body(bytes(999), 1), body(bytes(999), 2))
    assert client.lives()
    client.feed(body(bytes(2), 3))
    assert client.lives()
    client.feed(body(bytes(1), 3))
    assert code_of(client) == 506


def test_what_is_dropped_counts_no_more() -> None:
    client = opened(body_max=1000)
    channels = [client.channel() for _ in range(3)]
    for channel in channels:
        client.consumer(channel, "tag")
    for _ in range(3):
        for number in (1, 2):
            client.feed(method_frame(number, "basic.deliver", "tag", 1, False, "", "q"))
            client.feed(header(1000, number), body(bytes(900), number))
        for channel in channels[:2]:
            channel.close()
        client.serve()
        assert client.connection.context.parser.body_bytes == 0
        channels = [client.channel(), client.channel()]
        for channel in channels:
            client.consumer(channel, "tag")
        break
    assert client.lives()


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("warm", [True, False])
def test_header_max_bounds_a_content_header_and_frame_max_does_not(excess: int, warm: bool) -> None:
    client, _ = consuming(header_max=10_000, frame_max=4096)
    if warm:
        client.feed(deliver(1, "tag", 1, b"x"))
    properties = bytes(10_000 - 12 + excess)
    client.feed(deliver(1, "tag", 2, b"y", properties=properties))
    if excess:
        assert code_of(client) == 501
    else:
        assert bodies(client)[-1] == b"y"


@pytest.mark.parametrize("kind", [1, 3, 8, 0, 4, 255])
def test_a_frame_above_frame_max_is_refused_from_its_seven_bytes(kind: int) -> None:
    client, _ = consuming(frame_max=4096)
    client.feed(bytes((kind,)) + b"\x00\x01" + (4089).to_bytes(4, "big"))
    assert code_of(client) == 501


def test_a_frame_of_frame_max_is_taken() -> None:
    client, _ = consuming(frame_max=4096)
    client.feed(ANNOUNCE, header(4088), body(bytes(4088)))
    assert bodies(client) == [bytes(4088)]


def test_the_fused_path_learns_no_more_than_its_table_holds() -> None:
    client, _ = consuming()
    receiver = client.connection.context.parser
    for length in range(200):
        client.feed(deliver(1, "tag", 1, routing_key="k" * length))
    assert 0 < len(receiver._templates) <= MAX_TEMPLATES
    small = other_parser(client.connection, 3)
    client.connection.context.parser = small
    small.set_limits(131_072, 2**20, 2**20)
    small._greeted = True
    for length in range(20):
        client.feed(deliver(1, "tag", 1, routing_key="k" * length))
    assert len(small._templates) == 3
    assert len(client.recorder.messages) == 220


# --- out of order and out of shape

BROKEN: dict[str, tuple[Sequence[bytes], int]] = {
    "a bad frame end": ([ANNOUNCE[:-1] + b"\xcd"], 501),
    "a bad end of a header": ([ANNOUNCE, header(1)[:-1] + b"\x00"], 501),
    "a bad end of a body": ([ANNOUNCE, header(1), body(b"x")[:-1] + b"\x00"], 501),
    "an unknown frame type": ([frame(4, 1, b"")], 501),
    "a header for nothing": ([header(1)], 505),
    "a body for nothing": ([body(b"x")], 505),
    "a body before its header": ([ANNOUNCE, body(b"x")], 505),
    "a second header": ([ANNOUNCE, header(2), header(2)], 505),
    "a method inside a body": ([ANNOUNCE, header(2), body(b"a"), ack(1, 1)], 505),
    "a delivery inside a delivery": ([ANNOUNCE, header(2), deliver(1, "tag", 2)], 505),
    "a delivery before a header": ([ANNOUNCE, deliver(1, "tag", 2)], 505),
    "a body longer than announced": ([ANNOUNCE, header(3), body(b"four")], 502),
    "a body longer in its second frame": ([ANNOUNCE, header(3), body(b"ab"), body(b"cd")], 502),
    "a body frame behind a whole body": ([ANNOUNCE, header(1), body(b"a"), body(b"")], 505),
    "a header of another class": ([ANNOUNCE, frame(2, 1, b"\x00\x3d" + bytes(12))], 502),
    "a header with a weight": ([ANNOUNCE, frame(2, 1, b"\x00\x3c\x00\x01" + bytes(10))], 502),
    "a short header": ([ANNOUNCE, frame(2, 1, b"\x00\x3c" + bytes(11))], 502),
    "a heartbeat on a channel": ([frame(8, 1, b"")], 505),
    "a heartbeat with a payload": ([frame(8, 0, b"x")], 501),
    "a method without a method": ([frame(1, 1, b"\x00\x3c")], 502),
    "an unknown method": ([frame(1, 1, b"\x00\x3c\x03\xe7")], 503),
    "an unknown class": ([frame(1, 0, b"\x03\xe7\x00\x0a")], 503),
    "a method of clients only": ([method_frame(1, "queue.purge", "q", False)], 503),
    "arguments that end early": ([frame(1, 1, ANNOUNCE[7:-3])], 502),
    "arguments that end late": ([frame(1, 1, ANNOUNCE[7:-1] + b"x")], 502),
    "a header on channel 0": ([header(1, 0)], 504),
    "a body on channel 0": ([body(b"x", 0)], 504),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("one_by_one", [True, False])
def test_the_connection_is_closed_for(broken: str, warm: bool, one_by_one: bool) -> None:
    frames, code = BROKEN[broken]
    client, channel = consuming()
    if warm:
        client.feed(ANNOUNCE, header(1), body(b"x"), deliver(1, "tag", 2))
    client.recorder.take()
    # A delivery may be judged only when the bytes that it lets expect have come.
    data = b"".join(frames) + HEARTBEAT_FRAME * 4
    for piece in [bytes((byte,)) for byte in data] if one_by_one else [data]:
        client.feed(piece)
    assert code_of(client) == code
    assert client.recorder.names[-2:] == ["on_channel_close", "on_close"]
    assert channel.reason is not None
    assert channel.reason.code == code


def test_what_came_before_the_breach_was_delivered_and_nothing_after_it() -> None:
    client, _ = consuming()
    client.feed(deliver(1, "tag", 1), b"garbage!", deliver(1, "tag", 2))
    client.feed(deliver(1, "tag", 3))
    assert len(client.recorder.messages) == 1


def test_a_whole_delivery_behind_a_loss_is_still_handed_over() -> None:
    client, _ = consuming()
    client.feed(deliver(1, "tag", 1))
    data = deliver(1, "tag", 2) + ANNOUNCE
    client.feed(data)
    client.lose(ConnectionResetError("reset"))
    assert client.recorder.names == ["on_message"] * 2 + ["on_channel_close", "on_close"]


# --- any chunking, any mix, the fused path and the plain one


def session(max_templates: int) -> Client:
    """A client with consumers a (acked), b (auto_ack) on channels 1 and 2, and publishes out."""
    client = Client(frame_max=4096, body_max=30_000, heartbeat=0)
    client.connection.context.parser = other_parser(client.connection, max_templates)
    client.open()
    for _ in range(2):
        channel = client.confirming_channel()
        client.consumer(channel, "a")
        client.consumer(channel, "b", auto_ack=True)
        for _ in range(6):
            channel.basic_publish("", "q", b"x")
    client.recorder.inside("on_message", _settle)
    client.recorder.take()
    client.taken()
    return client


def _settle(message: Any) -> None:
    """Settle, raise, wait or ask something, as the message's number says."""
    number = message.delivery_tag
    if message.consumer_tag == "a":
        (message.ack, message.nack, message.reject)[number % 3]()
    if number % 5 == 0:
        raise ValueError(number)
    if number % 7 == 0:
        note = message.channel._machine.handler.note(f"waited on {message.channel.number}")
        message.channel.wait_for_confirms(callback=note)
    if number % 11 == 0:
        message.channel.basic_cancel("a")


def shown(value: Any) -> Any:
    """A log entry without identities."""
    return (type(value).__name__, str(value), value.code) if isinstance(value, Closed) else value


def played(client: Client, chunks: Sequence[bytes]) -> list[Any]:
    """All that a user sees of a session, and all that the broker gets."""
    for chunk in chunks:
        client.feed(chunk)
    client.lose()
    log = [tuple(shown(value) for value in entry) for entry in client.log]
    messages = [
        (m.delivery_tag, m.redelivered, m.exchange, m.routing_key, m.consumer_tag, m.properties.raw)
        for m in client.recorder.messages
    ]
    stats = client.connection.stats
    counts = (
        stats.messages_received,
        stats.frames_received,
        stats.unknown_confirms,
        stats.callback_errors,
    )
    return [log, messages, client.taken(), counts]


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [*chunks, data[at:]]


tags = st.integers(1, 40)
small = st.binary(max_size=40)
sizes = st.sampled_from([0, 1, 30, 4088, 4089, 9000])
plain_properties = st.sampled_from(
    [NO_PROPERTIES, Properties(app_id="x").raw, Properties(headers={"k": "v" * 50}).raw]
)
units = st.one_of(
    st.builds(
        lambda consumer, tag, size, redelivered, key, properties: (
            "basic.deliver",
            (consumer, tag, redelivered, "ex", key),
            bytes(size),
            properties,
        ),
        st.sampled_from(["a", "a", "b", "b", "gone"]),
        tags,
        sizes,
        st.booleans(),
        st.sampled_from(["key", "other", ""]),
        plain_properties,
    ),
    st.builds(
        lambda size: ("basic.return", (312, "NO_ROUTE", "", "q"), bytes(size), NO_PROPERTIES), sizes
    ),
    st.builds(lambda tag, multiple: ("basic.ack", (tag % 8, multiple)), tags, st.booleans()),
    st.builds(
        lambda tag, multiple: ("basic.nack", (tag % 8, multiple, False)), tags, st.booleans()
    ),
    st.just(("basic.cancel", ("b", True))),
    st.just(("channel.close", (404, "x", 60, 40))),
)


def frames_of(channel: int, unit: tuple[Any, ...]) -> list[bytes]:
    name, values, *rest = unit
    if not rest:
        return [method_frame(channel, name, *values)]
    data, properties = rest
    return content(channel, name, *values, body=data, properties=properties, frame_max=4096)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """The frames of two channels, interleaved, with heartbeats between."""
    queues = [
        [piece for unit in draw(st.lists(units, max_size=10)) for piece in frames_of(channel, unit)]
        for channel in (1, 2)
    ]
    pieces = []
    order = iter(draw(st.lists(st.sampled_from([0, 0, 0, 0, 0, 1, 1, 1, 1, 2]), max_size=60)))
    while any(queues):
        choice = next(order, 0)
        if choice == 2:
            pieces.append(HEARTBEAT_FRAME)
        queue = queues[choice % 2] or queues[1 - choice % 2]
        pieces.append(queue.pop(0))
    return b"".join(pieces)


# Bytes of a delivery up to which it waits for its rest; with few it is begun as a big one is.
waits = st.sampled_from([WAITS_WHOLE, 60, 0])


@contextmanager
def waiting_for(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evamqp.core.parser.WAITS_WHOLE", size)
        yield


chunk_sizes = st.lists(st.sampled_from([1, 2, 7, 20, 21, 22, 60, 300, 5000]), max_size=40)


@given(streams(), chunk_sizes, waits)
@settings(max_examples=200)
def test_any_chunking_gives_the_same_callbacks(data: bytes, pieces: list[int], waited: int) -> None:
    whole = played(session(MAX_TEMPLATES), [data])
    with waiting_for(waited):
        assert played(session(MAX_TEMPLATES), cut(data, pieces)) == whole


@given(streams(), chunk_sizes, waits)
@settings(max_examples=250)
def test_the_fused_path_and_the_plain_one_give_the_same_callbacks(
    data: bytes, pieces: list[int], waited: int
) -> None:
    warm = frames_of(1, ("basic.deliver", ("a", 1, False, "ex", "key"), b"x", NO_PROPERTIES))
    chunks = cut(b"".join(warm) + data, pieces)
    with waiting_for(waited):
        assert played(session(MAX_TEMPLATES), chunks) == played(session(0), chunks)


mutations = st.lists(
    st.tuples(
        st.sampled_from(["flip", "delete", "insert", "cut"]), st.integers(0), st.integers(0, 255)
    ),
    min_size=1,
    max_size=3,
)


def mutate(data: bytes, changes: Sequence[tuple[str, int, int]]) -> bytes:
    mutated = bytearray(data)
    for change, at, value in changes:
        at %= len(mutated) or 1
        if change == "flip" and mutated:
            mutated[at] = value
        elif change == "delete":
            del mutated[at : at + 1]
        elif change == "insert":
            mutated.insert(at, value)
        elif change == "cut":
            del mutated[at:]
    return bytes(mutated)


@given(streams(), chunk_sizes, mutations, waits)
@settings(max_examples=400)
def test_mutated_frames_give_the_same_callbacks_on_both_paths(
    data: bytes, pieces: list[int], changes: list[tuple[str, int, int]], waited: int
) -> None:
    warm = frames_of(1, ("basic.deliver", ("a", 1, False, "ex", "key"), b"x", NO_PROPERTIES))
    chunks = cut(b"".join(warm * 2) + mutate(data, changes), pieces)
    with waiting_for(waited):
        assert played(session(MAX_TEMPLATES), chunks) == played(session(0), chunks)


WRONG_BYTES = (0, 1, 2, 3, 4, 7, 60, 80, 127, 128, 206, 255)


@pytest.mark.parametrize("fused", [deliver(1, "a", 2), ack(1, 3), deliver(1, "b", 2, b"")])
@pytest.mark.parametrize("value", WRONG_BYTES)
def test_a_frame_with_one_wrong_byte_is_judged_alike_on_both_paths(
    fused: bytes, value: int
) -> None:
    for at in range(len(fused)):
        wrong = fused[:at] + bytes((value,)) + fused[at + 1 :]
        chunks = [deliver(1, "a", 1) + deliver(1, "b", 1), ack(1, 1)]
        chunks.append(b"".join((wrong, deliver(1, "a", 3), ack(1, 2), deliver(1, "a", 4)[:-9])))
        assert played(session(MAX_TEMPLATES), chunks) == played(session(0), chunks), at


@pytest.mark.parametrize("value", WRONG_BYTES)
def test_a_big_delivery_with_one_wrong_byte_is_judged_alike_on_both_paths(value: int) -> None:
    big = deliver(1, "a", 2, bytes(100))
    head = len(big) - 101
    for at in (*range(head), len(big) - 1):
        wrong = big[:at] + bytes((value,)) + big[at + 1 :]
        for size in (head - 1, head, head + 1, len(big) - 1):
            chunks = [deliver(1, "a", 1), wrong[:size], wrong[size:] + deliver(1, "a", 3)]
            with waiting_for(0):
                assert played(session(MAX_TEMPLATES), chunks) == played(session(0), chunks), at


def test_a_channel_closed_while_a_big_delivery_comes_gets_none_of_it() -> None:
    client, channel = consuming()
    client.feed(deliver(1, "tag", 1))
    big = deliver(1, "tag", 2, bytes(100_000))
    client.feed(big[:50_000])
    channel.close()
    client.feed(big[50_000:] + method_frame(1, "channel.close-ok"))
    assert [message.delivery_tag for message in client.recorder.messages] == [1]
    assert client.connection.context.parser.body_bytes == 0
    assert client.connection.context.parser.header_bytes == 0
    assert client.connection.context.parser.unfinished == 0


def test_a_consumer_cancelled_while_a_big_delivery_comes_sends_it_back() -> None:
    client, channel = consuming()
    client.feed(deliver(1, "tag", 1))
    big = deliver(1, "tag", 2, bytes(100_000))
    client.feed(big[:50_000])
    channel.basic_cancel("tag")
    client.taken()
    client.feed(big[50_000:])
    assert [message.delivery_tag for message in client.recorder.messages] == [1]
    assert names(client.sent()) == ["basic.nack"]


def test_unfinished_bodies_keep_little_more_in_memory_than_they_are() -> None:
    client = opened()
    for _ in range(10):
        client.consumer(client.channel(), "tag")
    half_body = bytes(20_000)
    tracemalloc.start()
    for number in range(1, 11):
        client.feed(method_frame(number, "basic.deliver", "tag", 1, False, "", "q"))
        client.feed(header(10_000_000, number))
        for _ in range(20):
            # A peer makes every read half a piece of body, which a view would keep all of.
            client.feed(body(half_body, number) + HEARTBEAT_FRAME * 2_500)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    received = client.connection.context.parser.body_bytes
    assert received == 10 * 20 * 20_000
    assert kept <= 1.25 * received
    client.lose()
    assert client.connection.context.parser.body_bytes == 0


@pytest.mark.parametrize("max_templates", [MAX_TEMPLATES, 0])
def test_what_a_callback_defers_is_reported_before_the_next_frame_is(max_templates: int) -> None:
    client = Client()
    client.connection.context.parser = other_parser(client.connection, max_templates)
    channel = client.open().confirming_channel()
    client.consumer(channel)
    client.recorder.inside(
        "on_message",
        lambda message: channel.wait_for_confirms(callback=client.recorder.note("waited")),
    )
    client.feed(*(deliver(1, "tag", number) for number in range(1, 4)))
    assert client.recorder.names == ["on_message", "waited"] * 3
    channel.basic_publish("", "q", b"x")
    channel.basic_publish("", "q", b"x")
    channel.wait_for_confirms(callback=client.recorder.note("confirmed"))
    client.recorder.take()
    client.recorder.actions.clear()
    client.feed(ack(1, 1), ack(1, 2), deliver(1, "tag", 4))
    assert client.recorder.names[-3:] == ["on_delivery_confirmation", "confirmed", "on_message"]


def test_a_delivery_that_waits_for_its_rest_holds_up_only_what_cannot_matter() -> None:
    client, _ = consuming()
    client.feed(deliver(1, "tag", 1))
    client.feed(deliver(1, "tag", 2, bytes(WAITS_WHOLE * 2))[:200])
    assert len(client.recorder.messages) == 1
    assert client.connection.context.parser._body_left > 0


def test_nacks_take_the_plain_path_and_mix_with_acks() -> None:
    client = opened()
    channel = client.confirming_channel()
    for _ in range(6):
        channel.basic_publish("", "q", b"x")
    client.recorder.take()
    client.feed(ack(1, 1), nack(1, 2), ack(1, 3), ack(1, 5, True), nack(1, 6))
    assert [(entry[2], entry[3]) for entry in client.log] == [
        ([1], True),
        ([2], False),
        ([3], True),
        ([4, 5], True),
        ([6], False),
    ]
    assert names(client.sent())[:3] == ["basic.publish", "header", "body"]
