"""The compiled build does what the pure one does: the same bytes, callbacks and words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import evamqp
from evamqp.codec import fields, properties
from tests.codec.strategies import as_read, short_strings, tables, text, times
from tests.compiled import work
from tests.core import test_replay
from tests.core.sessions import RECORDED
from tests.hostile import corpus, mutator, targets
from tests.support.builds import on_source

pytestmark = pytest.mark.compiled

KEPT = sorted((Path(__file__).parent.parent / "hostile" / "regressions").glob("*.bin"))
pure_targets = on_source("tests.hostile.targets")
pure_fields = on_source("evamqp.codec.fields")
pure_properties = on_source("evamqp.codec.properties")
pure_replay = on_source("tests.core.test_replay")
pure_work = on_source("tests.compiled.work")


def test_both_builds_are_there() -> None:
    assert evamqp.implementation == "compiled"
    assert not str(fields.__file__).endswith(".py")
    assert str(pure_fields.__file__).endswith(".py")


@pytest.mark.parametrize("name", targets.TARGETS)
def test_they_see_the_same_in_the_kept_corpus(name: str) -> None:
    see, expect = targets.TARGETS[name], pure_targets.TARGETS[name]
    inputs = corpus.read(name)
    assert len(inputs) > 50
    for data in inputs:
        assert see(data) == expect(data)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_they_see_the_same_in_what_once_broke_something(path: Path) -> None:
    name, data = path.name.partition("-")[0], path.read_bytes()
    assert targets.TARGETS[name](data) == pure_targets.TARGETS[name](data)


@given(st.integers(0, 2**64), st.lists(st.sampled_from(mutator.FRAMES), max_size=6))
@settings(max_examples=150)
def test_they_see_the_same_in_any_session(chance: int, frames: list[bytes]) -> None:
    data = bytes((chance & 255, chance >> 8 & 255)) + b"".join(frames)
    assert targets.session(data) == pure_targets.session(data)


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1000, 2**20])
def test_a_recorded_session_is_told_and_answered_alike(size: int) -> None:
    chunks = test_replay.cut(RECORDED.read_bytes(), size)
    assert test_replay.replayed(chunks) == pure_replay.replayed(chunks)


# Tables.  The compiled build reads and writes plain ones in C, so these are held to be whole.


def encoded(module: ModuleType, table: Mapping[str, object]) -> bytes | str:
    try:
        made: bytes = module.encode_table(table, "headers")
    except Exception as error:
        return f"{type(error).__name__}: {error}"  # the other build's is another class
    return made


PLAIN = st.dictionaries(
    text | st.text("abc", max_size=300),
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-(2**31) - 2, -(2**31) + 2)
    | st.integers(2**31 - 2, 2**31 + 2)
    | st.floats()
    | text
    | st.text("abc", max_size=1200)
    | st.builds(object),
    max_size=12,
)


@given(tables | PLAIN)
@example({})
@example({"": ""})
@example({"k" * 255: "v", "k" * 256: "v"})
@example({"true": True, "one": 1, "float": 1.0})
@example({"nan": math.nan})
@example({"big": 2**63, "text": "x"})
@settings(max_examples=500)
def test_tables_are_written_alike(table: Mapping[str, object]) -> None:
    assert _without_address(encoded(fields, table)) == _without_address(encoded(pure_fields, table))


def _without_address(made: bytes | str) -> bytes | str:
    return made.partition(" at 0x")[0] if isinstance(made, str) else made


@given(tables)
@settings(max_examples=300)
def test_tables_are_read_alike(table: Mapping[str, object]) -> None:
    raw = fields.encode_table(table)
    found, end = fields.decode_table(raw)
    assert (found, end) == pure_fields.decode_table(raw)
    assert list(map(type, found.values())) == [type(as_read(value)) for value in table.values()]


@given(st.binary(max_size=80))
@settings(max_examples=1000)
def test_nonsense_is_read_alike(data: bytes) -> None:
    assert targets.tables(data) == pure_targets.tables(data)
    assert targets.properties(data) == pure_targets.properties(data)


@pytest.mark.parametrize("count", range(70))
def test_a_table_cut_anywhere_is_refused_alike(count: int) -> None:
    sent = datetime(2024, 2, 29, tzinfo=timezone.utc)
    table = {"s": "text", "n": 1, "l": 2**40, "b": True, "d": 0.5, "t": sent, "u": "\xe9"}
    raw = fields.encode_table(table)[4:]
    assert targets.tables(raw[:count]) == pure_targets.tables(raw[:count])


@given(st.integers(0, 2**64 - 1) | st.integers(253402300700, 253402300900))
@example(253402300799)
@example(253402300800)
@example(951782400)  # 29 February 2000
@example(4107542400)  # 1 March 2100, which has no 29 February
@settings(max_examples=1000)
def test_timestamps_are_read_alike(seconds: int) -> None:
    raw = b"\x00\x00\x00\x0b\x01tT" + seconds.to_bytes(8, "big")
    assert fields.decode_table(raw) == pure_fields.decode_table(raw)


STRINGS = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)
ALL = {name: st.none() | short_strings | text | st.text("abc", max_size=300) for name in STRINGS}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **ALL,
            "headers": st.none() | tables | PLAIN,
            "delivery_mode": st.integers(0, 3) | st.booleans(),
            "priority": st.integers(-1, 256) | st.just(2**70),
            "expiration": st.integers(-1, 2**40) | st.text("0123456789", max_size=4),
            "timestamp": st.integers(-1, 2**64) | times,
        },
    )
)
@settings(max_examples=600)
def test_properties_are_written_alike(given: dict[str, object]) -> None:
    made, expected = (_properties(module, given) for module in (properties, pure_properties))
    assert _without_address(made) == _without_address(expected)


def _properties(module: ModuleType, given: dict[str, object]) -> bytes | str:
    try:
        raw: bytes = module.Properties(**given).check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return raw


# Publishing and settling.

PUBLISHES = st.tuples(
    st.sampled_from(["", "orders", "ev\xe9nements", "x" * 255]),
    st.text(max_size=40),
    st.integers(0, 20_000) | st.integers(130_000, 140_000),
    st.none() | st.dictionaries(st.sampled_from(["type", "app_id", "message_id"]), text),
    st.booleans(),
)


@given(st.lists(PUBLISHES, max_size=12))
@settings(max_examples=200)
def test_publishes_are_sent_alike(publishes: list[work.Publish]) -> None:
    assert work.published(publishes) == pure_work.published(publishes)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
@settings(max_examples=100)
def test_messages_are_told_and_settled_alike(bodies: list[bytes]) -> None:
    assert work.consumed(bodies) == pure_work.consumed(bodies)
