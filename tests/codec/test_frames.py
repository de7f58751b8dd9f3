"""Laws of frames, written and split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evamqp.codec.frames import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    body_frames,
    content_header_frame,
    frame,
    method_frame,
    split_frames,
)
from evamqp.errors import FRAME_ERROR, MalformedData
from tests.codec.strategies import damaged

FRAME_MAX = 4096
HEADER_MAX = 8192

channels = st.integers(0, 65535)
frames = st.tuples(
    st.sampled_from([FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT]),
    channels,
    st.binary(max_size=40),
)


def split(data: bytes, offset: int = 0) -> tuple[list[tuple[int, int, bytes]], int]:
    return split_frames(data, offset, FRAME_MAX, HEADER_MAX)


def test_constants_are_those_of_the_specification() -> None:
    assert PROTOCOL_HEADER == b"AMQP\x00\x00\x09\x01"
    assert frame(FRAME_HEARTBEAT, 0, b"") == HEARTBEAT_FRAME == bytes.fromhex("08 0000 00000000 ce")


def test_frames_are_written_as_the_specification_says() -> None:
    assert method_frame(7, "tx.select") == bytes.fromhex("01 0007 00000004 005a000a ce")
    assert content_header_frame(1, b"\x00\x00", 5) == bytes.fromhex(
        "02 0001 0000000e 003c 0000 0000000000000005 0000 ce"
    )
    assert body_frames(1, b"hi", FRAME_MAX) == [bytes.fromhex("03 0001 00000002 6869 ce")]


@given(st.lists(frames), st.binary(max_size=5))
def test_frames_come_back_as_they_were(
    written: list[tuple[int, int, bytes]], before: bytes
) -> None:
    data = before + b"".join(frame(*one) for one in written)
    assert split(data, len(before)) == (written, len(data))


@given(st.lists(frames), st.integers(0, 400))
def test_frame_that_is_not_whole_stays(written: list[tuple[int, int, bytes]], cut: int) -> None:
    data = b"".join(frame(*one) for one in written)
    head = data[:cut]
    first, offset = split(head)
    rest, end = split(data, offset)
    assert offset <= len(head)
    assert first + rest == written
    assert end == len(data)


@given(damaged(st.lists(frames).map(lambda many: b"".join(frame(*one) for one in many))))
def test_damaged_frames_give_a_frame_error_or_frames(data: bytes) -> None:
    code = None
    try:
        whole, offset = split(data)
    except MalformedData as error:
        code = error.code
    if code is not None:
        assert code == FRAME_ERROR
        return
    assert b"".join(frame(*one) for one in whole) == data[:offset]


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (FRAME_METHOD, FRAME_MAX - FRAME_OVERHEAD),
        (FRAME_BODY, FRAME_MAX - FRAME_OVERHEAD),
        (FRAME_HEARTBEAT, FRAME_MAX - FRAME_OVERHEAD),
        (FRAME_HEADER, HEADER_MAX),
    ],
)
def test_frame_above_its_limit_is_refused_from_its_first_seven_bytes(kind: int, limit: int) -> None:
    largest = frame(kind, 1, bytes(limit))
    assert split(largest) == ([(kind, 1, bytes(limit))], len(largest))
    larger = frame(kind, 1, bytes(limit + 1))
    assert split(larger[:6]) == ([], 0)
    with pytest.raises(MalformedData, match=f"with {limit + 1} bytes, above") as caught:
        split(larger[:7])
    assert caught.value.code == FRAME_ERROR


@pytest.mark.parametrize("kind", [0, 4, 7, 9, 72, 255])
def test_unknown_kind_is_refused_from_the_first_seven_bytes(kind: int) -> None:
    with pytest.raises(MalformedData, match=f"unknown kind {kind}") as caught:
        split(bytes((kind,)) + bytes(6))
    assert caught.value.code == FRAME_ERROR


def test_wrong_end_octet_is_refused() -> None:
    with pytest.raises(MalformedData, match="0xcf") as caught:
        split(HEARTBEAT_FRAME[:-1] + b"\xcf")
    assert caught.value.code == FRAME_ERROR


@given(channels, st.binary(max_size=300), st.integers(9, 80))
def test_body_comes_back_from_frames_no_larger_than_frame_max(
    channel: int, body: bytes, frame_max: int
) -> None:
    data = b"".join(body_frames(channel, body, frame_max))
    parts, end = split_frames(data, 0, frame_max, frame_max)
    assert end == len(data)
    assert b"".join(payload for _, _, payload in parts) == body
    assert {(kind, number) for kind, number, _ in parts} <= {(FRAME_BODY, channel)}
    assert all(len(payload) == frame_max - FRAME_OVERHEAD for _, _, payload in parts[:-1])
    assert all(payload for _, _, payload in parts)


def test_empty_body_has_no_frame() -> None:
    assert body_frames(1, b"", FRAME_MAX) == []
    assert body_frames(1, memoryview(b""), FRAME_MAX) == []


@pytest.mark.parametrize("size", [10, 5_000, 300_000])
def test_bodies_of_every_type_give_the_same_frames(size: int) -> None:
    body = bytes(range(250)) * (size // 250) + b"x"
    expected = b"".join(body_frames(1, body, 131072))
    words = memoryview(body[: len(body) // 4 * 4]).cast("I")
    assert b"".join(body_frames(1, bytearray(body), 131072)) == expected
    assert b"".join(body_frames(1, memoryview(body), 131072)) == expected
    assert b"".join(body_frames(1, words, 131072)) == b"".join(body_frames(1, bytes(words), 131072))


@pytest.mark.parametrize("size", [100_000, 300_000])
def test_big_body_is_not_copied(size: int) -> None:
    body = bytes(size)
    whole = [memoryview(piece) for piece in body_frames(1, body, 131072) if len(piece) > 100]
    assert sum(map(len, whole)) == size
    assert all(piece.obj is body for piece in whole)
