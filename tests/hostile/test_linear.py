"""Decoding takes steps in proportion to the bytes, whatever they are; no time is measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from evamqp.codec.fields import decode_table
from evamqp.codec.properties import Properties
from evamqp.errors import MalformedData
from tests.hostile import states
from tests.hostile.states import ANNOUNCE, body, header
from tests.hostile.test_cases import nested


def steps_of(action: Callable[[], object]) -> int:
    """Lines run and functions called, those of C included."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += 1

    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        action()
    except MalformedData:
        pass
    finally:
        sys.setprofile(None)
        sys.settrace(None)
    return count


def keys(count: int) -> bytes:
    return b"".join(b"\x03" + number.to_bytes(3, "big") + b"t\x01" for number in range(count))


def array(items: bytes) -> bytes:
    return b"\x01kA" + len(items).to_bytes(4, "big") + items


EMPTY_TABLE = b"F\x00\x00\x00\x00"
# The entries of a table, so many times.
SHAPES: dict[str, Callable[[int], bytes]] = {
    "keys": keys,
    "one key": lambda count: b"\x01kV" * count,
    "no key": lambda count: b"\x00V" * count,
    "items": lambda count: array(b"V" * count),
    "empty tables": lambda count: array(EMPTY_TABLE * count),
    "empty strings": lambda count: array(b"S\x00\x00\x00\x00" * count),
    "decimals": lambda count: array(b"D\xff\x7f\xff\xff\xff" * count),
    "timestamps": lambda count: array(b"T\xff\xff\xff\xff\xff\xff\xff\xff" * count),
    "depth": nested,
    "a long string": lambda count: b"\x01kS" + (10 * count).to_bytes(4, "big") + count * bytes(10),
    "strings that lie": lambda count: b"\x01kS\x00\x00\x00\x01\xff" * count + b"\x01kS\xff",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_is_decoded_in_linear_steps(shape: str) -> None:
    def steps(count: int) -> int:
        entries = SHAPES[shape](count)
        data = len(entries).to_bytes(4, "big") + entries
        return steps_of(lambda: decode_table(data))

    steps(2000)
    # By differences, since names are remembered between tables, up to a number.
    at_2000, at_4000, at_6000 = steps(2000), steps(4000), steps(6000)
    assert at_6000 - at_4000 <= 1.1 * (at_4000 - at_2000) + 200


def test_every_property_is_found_in_a_bounded_number_of_steps() -> None:
    raw = Properties(headers={"k": "x" * 60_000}, app_id="x", content_type="y").raw
    small = Properties(headers={"k": "x"}, app_id="x", content_type="y").raw

    def steps(data: bytes) -> int:
        properties = Properties.from_raw(data)
        return steps_of(lambda: (properties.app_id, properties.content_type))

    steps(small)  # what lies before a property is remembered
    assert steps(raw) == steps(small)


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_body_is_gathered_in_linear_steps(size: int) -> None:
    def steps(count: int) -> int:
        victim = states.consuming()
        frames = ANNOUNCE + header(count * size) + body(b"x" * size) * count
        return steps_of(lambda: victim.feed(frames))

    count = 8000 // size
    assert steps(count) <= 2.1 * steps(count // 2) + 1000


def test_drips_of_a_frame_are_gathered_in_linear_steps() -> None:
    def steps(count: int) -> int:
        victim = states.consuming()
        frames = ANNOUNCE + header(1, properties=bytes(count))

        def drip() -> None:
            for at in range(len(frames)):
                victim.feed(frames[at : at + 1])

        return steps_of(drip)

    assert steps(4000) <= 2.1 * steps(2000) + 1000
