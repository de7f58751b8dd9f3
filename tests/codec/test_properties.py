"""Laws of message properties."""

from __future__ import annotations

import copy
import math
import pickle
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evamqp.codec.properties import Properties
from evamqp.errors import BadArgument, BadType, MalformedData
from evamqp.types import DeliveryMode
from tests.codec.strategies import as_read, damaged, short_strings, tables, times

STRINGS = [
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
]
# In the order of the wire, each with a value and its bytes.
SAMPLES: dict[str, tuple[Any, str]] = {
    "content_type": ("a/b", "03 612f62"),
    "content_encoding": ("", "00"),
    "headers": ({"k": 1}, "00000007 01 6b 49 00000001"),
    "delivery_mode": (2, "02"),
    "priority": (255, "ff"),
    "correlation_id": ("c", "01 63"),
    "reply_to": ("é", "02 c3a9"),
    "expiration": ("60000", "05 3630303030"),
    "message_id": ("m", "01 6d"),
    "timestamp": (datetime(2001, 9, 9, 1, 46, 40, tzinfo=timezone.utc), "000000003b9aca00"),
    "type": ("t", "01 74"),
    "user_id": ("u", "01 75"),
    "app_id": ("a", "01 61"),
    "cluster_id": ("z", "01 7a"),
}
NAMES = list(SAMPLES)
HEADERS_K_1 = bytes.fromhex("2000 00000007 01 6b 49 00000001")
FLAGS = {name: 1 << (15 - index) for index, name in enumerate(NAMES)}

keywords = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(STRINGS, short_strings),
        "headers": tables,
        "delivery_mode": st.sampled_from([1, 2, *DeliveryMode]),
        "priority": st.integers(0, 255),
        "timestamp": times | st.integers(0, 2**64 - 1),
    },
)


def read(properties: Properties) -> dict[str, object]:
    """All that is set."""
    values = {name: getattr(properties, name) for name in NAMES}
    return {name: value for name, value in values.items() if value is not None}


def raw_of(flags: int, values: str) -> bytes:
    return flags.to_bytes(2, "big") + bytes.fromhex(values)


@given(keywords)
def test_properties_come_back_as_they_were(given: dict[str, Any]) -> None:
    properties = Properties(**given)
    received = Properties.from_raw(properties.raw)
    expected = as_read(given)
    assert isinstance(expected, dict)
    for name, value in expected.items():
        actual = getattr(received, name)
        if isinstance(value, int) and isinstance(actual, datetime):
            actual = int(actual.timestamp())
        assert actual == value
    assert read(received).keys() == given.keys()
    assert received == properties
    assert repr(received) == repr(properties)


@given(keywords, keywords, st.sets(st.sampled_from(NAMES)))
def test_replace_changes_what_is_given_and_keeps_the_rest(
    before: dict[str, Any], changes: dict[str, Any], unset: set[str]
) -> None:
    changes |= dict.fromkeys(unset)
    merged = {k: v for k, v in {**before, **changes}.items() if v is not None}
    original = Properties(**before)
    raw = original.raw
    assert original.replace(**changes) == Properties(**merged)
    assert original.raw == raw


@pytest.mark.parametrize("name", NAMES)
def test_each_property_is_written_as_the_specification_says(name: str) -> None:
    value, written = SAMPLES[name]
    properties = Properties(**{name: value})
    assert properties.raw == raw_of(FLAGS[name], written)
    assert getattr(properties, name) == value
    assert read(properties) == {name: value}


def test_all_properties_stand_in_the_order_of_the_wire() -> None:
    properties = Properties(**{name: value for name, (value, _) in SAMPLES.items()})
    assert properties.raw == raw_of(0xFFFC, "".join(written for _, written in SAMPLES.values()))
    assert read(properties) == {name: value for name, (value, _) in SAMPLES.items()}


def test_unset_is_not_sent_and_empty_is() -> None:
    assert Properties().raw == b"\x00\x00"
    assert Properties(reply_to="", headers={}).raw == raw_of(0x2200, "00000000 00")
    assert Properties(reply_to="").reply_to == ""
    assert Properties().reply_to is None
    assert Properties().headers is None
    assert Properties().timestamp is None
    assert Properties().priority is None


def test_expiration_takes_milliseconds_and_is_read_as_text() -> None:
    assert Properties(expiration=60000) == Properties(expiration="60000")
    assert Properties(expiration=0).expiration == "0"


def test_timestamp_is_read_in_utc_and_as_a_number_where_datetime_cannot_go() -> None:
    there = datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    read_back = Properties(timestamp=there).timestamp
    assert read_back == there
    assert isinstance(read_back, datetime)
    assert read_back.tzinfo is timezone.utc
    assert Properties(timestamp=2**64 - 1).timestamp == 2**64 - 1


def test_delivery_mode_takes_the_enumeration() -> None:
    assert Properties(delivery_mode=DeliveryMode.PERSISTENT) == Properties(delivery_mode=2)


def test_headers_are_copied_and_read_as_the_same_mapping() -> None:
    headers = {"k": [1]}
    properties = Properties(headers=headers)
    headers["k"].append(2)
    assert properties.headers == {"k": [1]}
    assert properties.headers is properties.headers
    empty = Properties(headers={})
    assert empty.headers is empty.headers


def test_headers_are_read_only() -> None:
    for properties in (Properties(headers={"k": 1}), Properties.from_raw(HEADERS_K_1)):
        headers: Any = properties.headers
        with pytest.raises(TypeError):
            headers["k"] = 2
        with pytest.raises(TypeError):
            del headers["k"]
        with pytest.raises(AttributeError):
            headers.update(k=2)
        assert headers == {"k": 1}
        assert properties.raw == HEADERS_K_1
        assert repr(properties) == "Properties(headers={'k': 1})"


def test_with_headers_adds_and_replaces_and_keeps_the_rest() -> None:
    given = {"k": 2, "nothing": None}
    before = Properties(headers={"a": [1], "k": 1}, app_id="a")
    after = before.with_headers(given)
    given["k"] = 3
    assert after == Properties(headers={"a": [1], "k": 2, "nothing": None}, app_id="a")
    assert before == Properties(headers={"a": [1], "k": 1}, app_id="a")
    assert Properties().with_headers({"k": 1}).raw == HEADERS_K_1
    assert Properties().with_headers({}).headers == {}
    assert before.with_headers(after.headers or {}) == after


@pytest.mark.parametrize("headers", [None, [("k", 1)], "k"])
def test_with_headers_takes_a_mapping_only(headers: Any) -> None:
    with pytest.raises(BadType, match="headers must be a mapping, not "):
        Properties().with_headers(headers)


def test_with_headers_of_malformed_headers_says_so() -> None:
    with pytest.raises(MalformedData):
        Properties.from_raw(HEADERS_K_1[:-1]).with_headers({"b": 1})


REFUSED = [
    *((name, b"bytes", BadType, f"{name} must be str") for name in STRINGS),
    *((name, "x" * 256, BadArgument, f"{name} has 256 bytes") for name in STRINGS),
    ("headers", [("k", 1)], BadType, "headers must be a mapping, not list"),
    ("headers", {"a": {"b": [object()]}}, BadType, r"headers.a.b\[0\] is of type object"),
    ("delivery_mode", 0, BadArgument, "delivery_mode is 0, not within 1..2"),
    ("delivery_mode", 3, BadArgument, "delivery_mode is 3, not within 1..2"),
    ("delivery_mode", True, BadType, "delivery_mode must be int, not bool"),
    ("delivery_mode", "2", BadType, "delivery_mode must be int, not str"),
    ("priority", -1, BadArgument, "priority is -1, not within 0..255"),
    ("priority", 256, BadArgument, "priority is 256, not within 0..255"),
    ("priority", 1.0, BadType, "priority must be int, not float"),
    ("expiration", -1, BadArgument, "expiration is -1"),
    ("expiration", True, BadType, "expiration must be str or int, not bool"),
    ("expiration", 1.5, BadType, "expiration must be str or int, not float"),
    ("timestamp", datetime(2020, 1, 1), BadArgument, "timestamp is a naive"),  # noqa: DTZ001
    ("timestamp", -1, BadArgument, "timestamp must be within 64 bits"),
    ("timestamp", math.pi, BadType, "timestamp must be datetime or int, not float"),
]


@pytest.mark.parametrize(("name", "value", "kind", "text"), REFUSED)
def test_bad_value_is_refused_by_name(
    name: str, value: object, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        Properties(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(kind, match=text):
        Properties().replace(**{name: value})


def test_replace_refuses_names_that_are_no_properties() -> None:
    with pytest.raises(BadType, match="there is no property colour, taste"):
        Properties().replace(taste="sweet", colour="red")


@pytest.mark.parametrize("name", [*NAMES, "raw", "other"])
def test_properties_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Properties(), name, "x")


def test_equality_is_that_of_the_bytes() -> None:
    one, same, other = Properties(app_id="a"), Properties(app_id="a"), Properties(app_id="b")
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "a"


def test_properties_can_be_copied_and_pickled() -> None:
    properties = Properties(app_id="a", headers={"k": [1]})
    assert properties.headers == {"k": [1]}
    assert copy.copy(properties) == properties
    assert copy.deepcopy(properties) == properties
    assert pickle.loads(pickle.dumps(properties)) == properties


# --- malformed bytes ------------------------------------------------------------------------


@given(damaged(keywords.map(lambda given: Properties(**given).raw)) | st.binary())
def test_damaged_properties_hurt_only_the_reader_of_what_is_damaged(raw: bytes) -> None:
    properties = Properties.from_raw(raw)
    assert properties.raw == raw
    assert repr(properties).startswith("Properties(")
    for name in NAMES:
        with suppress(MalformedData):
            getattr(properties, name)
    try:
        replaced = properties.replace(app_id="here")
    except MalformedData:
        return
    assert replaced.app_id == "here"


@given(damaged(keywords.map(lambda given: Properties(**given).raw)) | st.binary())
def test_all_at_once_reads_what_reading_one_by_one_does(raw: bytes) -> None:
    one_by_one: dict[str, Any] | None = {}
    try:
        properties = Properties.from_raw(raw)
        values = {name: getattr(properties, name) for name in NAMES}
        one_by_one = {name: value for name, value in values.items() if value is not None}
    except MalformedData:
        one_by_one = None
    try:
        at_once: dict[str, Any] | None = Properties.from_raw(raw).to_dict()
    except MalformedData:
        at_once = None
    assert repr(at_once) == repr(one_by_one)  # a NaN in headers equals nothing


@given(keywords)
def test_every_truncation_is_malformed_for_the_last_property(given: dict[str, Any]) -> None:
    raw = Properties(**given).raw
    for size in range(len(raw)):
        cut = Properties.from_raw(raw[:size])
        with pytest.raises(MalformedData):
            read(cut)
        with pytest.raises(MalformedData):
            cut.replace(content_type="x")


@given(keywords)
def test_what_was_made_here_or_came_whole_passes_the_check(given: dict[str, Any]) -> None:
    properties = Properties(**given)
    assert properties.check() == properties.raw
    assert Properties.from_raw(properties.raw).check() == properties.raw
    with pytest.raises(MalformedData):
        Properties.from_raw(properties.raw + b"\0").check()
    for size in range(len(properties.raw)):
        with pytest.raises(MalformedData):
            Properties.from_raw(properties.raw[:size]).check()


@given(damaged(keywords.map(lambda given: Properties(**given).raw)) | st.binary())
def test_what_passes_the_check_can_be_read_and_what_cannot_be_read_does_not(raw: bytes) -> None:
    properties = Properties.from_raw(raw)
    try:
        read(Properties.from_raw(raw))
    except MalformedData:
        with pytest.raises(MalformedData):
            properties.check()
        return
    # Readable may also be what goes on behind the last property, or holds a float that is none.
    with suppress(MalformedData):
        assert properties.check() == raw


def test_headers_nested_deeper_than_can_be_read_pass_the_check() -> None:
    headers = b""
    for _ in range(5000):
        headers = b"\x01kF" + len(headers).to_bytes(4, "big") + headers
    raw = b"\x20\x00" + len(headers).to_bytes(4, "big") + headers
    properties = Properties.from_raw(raw)
    assert properties.check() == raw
    with pytest.raises(MalformedData, match="deep"):
        _ = properties.headers


def test_poisoned_headers_leave_the_other_properties_readable() -> None:
    poison = Properties.from_raw(raw_of(0xA080, "01 61 00000003 016255 01 6d"))
    assert poison.content_type == "a"
    assert poison.message_id == "m"
    with pytest.raises(MalformedData, match="headers: value of unknown type b'U'"):
        _ = poison.headers
    with pytest.raises(MalformedData):
        _ = poison.headers
    assert repr(poison) == ("Properties(content_type='a', headers=<malformed>, message_id='m')")
    assert poison.replace(message_id="n").raw == raw_of(0xA080, "01 61 00000003 016255 01 6e")


def test_headers_longer_than_the_properties_hurt_only_what_comes_behind() -> None:
    poison = Properties.from_raw(raw_of(0xB000, "01 61 000000ff 00 02"))
    assert poison.content_type == "a"
    with pytest.raises(MalformedData, match="headers"):
        _ = poison.headers
    with pytest.raises(MalformedData, match="properties end before the end of delivery_mode"):
        _ = poison.delivery_mode
    with pytest.raises(MalformedData, match="properties end before the end of headers"):
        poison.replace(delivery_mode=1)


@pytest.mark.parametrize("flags", [0x8001, 0x8002, 0x0001, 0x0003])
def test_flags_beyond_the_fourteen_are_malformed_when_read(flags: int) -> None:
    properties = Properties.from_raw(raw_of(flags, "01 61"))
    with pytest.raises(MalformedData, match="flags beyond the fourteen"):
        _ = properties.content_type
    with pytest.raises(MalformedData):
        properties.replace(app_id="a")
    assert "content_type=<malformed>" in repr(properties)


def test_string_that_is_not_utf8_stays_readable_and_is_sent_as_it_came() -> None:
    properties = Properties.from_raw(raw_of(0x0008, "02 ff61"))
    assert properties.app_id == "\udcffa"
    assert Properties(app_id=properties.app_id) == properties


def test_values_that_could_not_be_sent_can_be_read() -> None:
    assert Properties.from_raw(raw_of(0x1000, "07")).delivery_mode == 7
    assert Properties.from_raw(raw_of(0x0100, "01 78")).expiration == "x"
