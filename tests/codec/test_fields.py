"""Laws of field tables and strings."""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evamqp.codec import fields
from evamqp.codec.fields import (
    DEPTH_MAX,
    LONG_MAX,
    decode_longstr,
    decode_shortstr,
    decode_table,
    decode_timestamp,
    encode_longstr,
    encode_shortstr,
    encode_table,
    encode_timestamp,
    skip_table,
)
from evamqp.errors import BadArgument, BadType, MalformedData
from tests.codec.strategies import as_read, damaged, short_strings, tables


def entry(kind_and_value: bytes, key: bytes = b"k") -> bytes:
    """A table of one entry."""
    contents = bytes((len(key),)) + key + kind_and_value
    return len(contents).to_bytes(4, "big") + contents


def nested(depth: int, kind: bytes) -> bytes:
    """A table that holds tables or arrays in each other, ``depth`` containers in all."""
    inner = b""
    for _ in range(depth - 1):
        prefix = b"\x01k" if kind == b"F" else b""
        inner = prefix + kind + len(inner).to_bytes(4, "big") + inner
    if kind == b"A" and depth > 1:
        inner = b"\x01k" + inner
    return len(inner).to_bytes(4, "big") + inner


# --- round trips ----------------------------------------------------------------------------


@given(tables)
def test_table_comes_back_as_it_was(table: dict[str, object]) -> None:
    raw = encode_table(table)
    assert decode_table(raw) == (as_read(table), len(raw))


@given(tables, st.binary(max_size=9), st.binary(max_size=9))
def test_table_is_found_between_other_bytes(
    table: dict[str, object], before: bytes, after: bytes
) -> None:
    raw = encode_table(table)
    decoded, end = decode_table(before + raw + after, len(before))
    assert decoded == as_read(table)
    assert end == len(before) + len(raw)


@given(tables)
def test_table_as_read_encodes_to_what_it_was_read_from(table: dict[str, object]) -> None:
    raw = encode_table(as_read(table))  # type: ignore[arg-type]
    assert encode_table(decode_table(raw)[0]) == raw


@given(short_strings)
def test_short_string_comes_back_as_it_was(text: str) -> None:
    raw = encode_shortstr(text, "name")
    assert decode_shortstr(b"--" + raw + b"--", 2) == (text, 2 + len(raw))


@given(st.binary())
def test_long_string_comes_back_as_it_was(value: bytes) -> None:
    raw = encode_longstr(value, "response")
    assert decode_longstr(b"--" + raw + b"--", 2) == (value, 2 + len(raw))


def test_every_number_beyond_the_memory_still_comes_back() -> None:
    for turn in range(2):
        table = {f"{turn}-{number}": number for number in range(1500)}
        assert decode_table(encode_table(table))[0] == table
    assert len(fields._known_keys) <= fields._MEMORY_MAX
    assert len(fields._known_entries) <= fields._MEMORY_MAX


# --- known bytes ----------------------------------------------------------------------------

WRITTEN = [
    (True, "74 01"),
    (False, "74 00"),
    (0, "49 00000000"),
    (-1, "49 ffffffff"),
    (2**31 - 1, "49 7fffffff"),
    (-(2**31), "49 80000000"),
    (2**31, "6c 0000000080000000"),
    (-(2**31) - 1, "6c ffffffff7fffffff"),
    (2**63 - 1, "6c 7fffffffffffffff"),
    (-(2**63), "6c 8000000000000000"),
    (1.5, "64 3ff8000000000000"),
    (Decimal("-1.05"), "44 02 ffffff97"),
    (Decimal("3E+2"), "44 00 0000012c"),
    (Decimal("0E+999999"), "44 00 00000000"),
    (Decimal("1E-255"), "44 ff 00000001"),
    ("é", "53 00000002 c3a9"),
    ("\udcff", "53 00000001 ff"),
    (b"\x00\xff", "78 00000002 00ff"),
    (bytearray(b"ab"), "78 00000002 6162"),
    (datetime(2001, 9, 9, 1, 46, 40, 999999, tzinfo=timezone.utc), "54 000000003b9aca00"),
    (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "54 0000000000000000"),
    ([], "41 00000000"),
    (["x", [1]], "41 00000010 5300000001 78 41 00000005 49 00000001"),
    ((None, True), "41 00000003 56 7401"),
    ({}, "46 00000000"),
    ({"a": {"b": None}}, "46 0000000a 01 61 46 00000003 01 62 56"),
    (None, "56"),
]


@pytest.mark.parametrize(("value", "written"), WRITTEN)
def test_value_is_written_as_its_own_kind(value: object, written: str) -> None:
    assert encode_table({"k": value}) == entry(bytes.fromhex(written))


class Colour(IntEnum):
    RED = 1


class Word(str, Enum):
    ONE = "one"


class Name(str):
    __slots__ = ()


class Pair(NamedTuple):
    left: int
    right: str


class Tags(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class Stamp(datetime):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 1),
        (Word.ONE, "one"),
        (Name("n"), "n"),
        (Pair(1, "r"), [1, "r"]),
        (Tags(), {"a": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (MappingProxyType({"p": 1}), {"p": 1}),
        (Stamp(2020, 1, 1, tzinfo=timezone.utc), datetime(2020, 1, 1, tzinfo=timezone.utc)),
    ],
)
def test_instance_of_a_subclass_is_written_as_its_base(value: object, plain: object) -> None:
    assert encode_table({"k": value}) == encode_table({"k": plain})
    assert encode_table({"k": [value]}) == encode_table({"k": [plain]})


def test_none_is_an_empty_table() -> None:
    assert encode_table(None) == encode_table({}) == bytes(4)


def test_any_mapping_is_a_table() -> None:
    assert encode_table(Tags()) == encode_table({"a": 1})


def test_keys_stay_in_order_of_insertion() -> None:
    assert list(decode_table(encode_table({"z": 1, "a": 2, "m": 3}))[0]) == ["z", "a", "m"]


def test_key_of_a_str_subclass_is_a_key() -> None:
    assert encode_table({Name("subclass"): 1}) == encode_table({"subclass": 1})


def test_key_may_have_255_bytes() -> None:
    table = {"k" * 255: 1, "": 2}
    assert decode_table(encode_table(table))[0] == table


def test_numbers_that_are_not_finite_can_be_read() -> None:
    table, _ = decode_table(bytes.fromhex("0000000b 016b64 7ff8000000000000"))
    assert math.isnan(table["k"])  # type: ignore[arg-type]
    table, _ = decode_table(bytes.fromhex("0000000b 016b64 fff0000000000000"))
    assert table == {"k": -math.inf}


READ = [
    ("62 ff", -1),
    ("42 ff", 255),
    ("73 ffff", -1),
    ("75 ffff", 65535),
    ("49 ffffffff", -1),
    ("69 ffffffff", 2**32 - 1),
    ("6c ffffffffffffffff", -1),
    ("4c ffffffffffffffff", -1),
    ("66 3fc00000", 1.5),
    ("64 3ff8000000000000", 1.5),
    ("44 02 ffffff97", Decimal("-1.05")),
    ("44 ff 00000000", Decimal("0E-255")),
    ("74 02", True),
    ("74 00", False),
    ("53 00000002 c3a9", "é"),
    ("53 00000002 ffc3", "\udcff\udcc3"),
    ("78 00000001 ff", b"\xff"),
    ("54 000000003b9aca00", datetime(2001, 9, 9, 1, 46, 40, tzinfo=timezone.utc)),
    ("54 0000003afff44180", 253402300800),
    ("54 ffffffffffffffff", 2**64 - 1),
    ("56", None),
]


@pytest.mark.parametrize(("raw", "value"), READ)
def test_value_is_read_as_rabbitmq_signs_it(raw: str, value: object) -> None:
    written = bytes.fromhex(raw)
    assert decode_table(entry(written))[0] == {"k": value}
    array = b"A" + len(written).to_bytes(4, "big") + written
    assert decode_table(entry(array))[0] == {"k": [value]}


def test_key_that_is_not_utf8_stays_readable_and_is_sent_as_it_came() -> None:
    raw = entry(b"V", key=b"\xff\xfe")
    table, _ = decode_table(raw)
    assert table == {"\udcff\udcfe": None}
    assert encode_table(table) == raw


def test_of_a_key_that_comes_twice_the_last_value_stays() -> None:
    raw = bytes.fromhex("00000008 01 61 7400 01 61 7401")
    assert decode_table(raw)[0] == {"a": True}


def test_decimals_do_not_depend_on_the_context() -> None:
    with localcontext() as context:
        context.prec = 2
        table = {"k": Decimal("-21474.83648")}
        assert decode_table(encode_table(table))[0] == table


# --- what cannot be encoded -----------------------------------------------------------------

REFUSED = [
    ({"a": {"b": [0, 1, 2, object()]}}, BadType, "headers.a.b[3] is of type object"),
    ({"a": date(2020, 1, 1)}, BadType, "headers.a is of type date"),
    ({"a": {1, 2}}, BadType, "headers.a is of type set"),
    ({1: "x"}, BadType, "headers.1 is no key: keys are str, not int"),
    ({"a": [{b"k": 1}]}, BadType, "headers.a[0].b'k' is no key: keys are str, not bytes"),
    ({"k" * 256: 1}, BadArgument, "is a key of 256 bytes; at most 255 fit"),
    ({"é" * 128: 1}, BadArgument, "is a key of 256 bytes; at most 255 fit"),
    ({"\ud800": 1}, BadArgument, "has no UTF-8 form"),
    ({"a": "\ud800"}, BadArgument, "headers.a has no UTF-8 form"),
    ({"a": ["", "\ud800"]}, BadArgument, "headers.a[1] has no UTF-8 form"),
    ({"a": 2**63}, BadArgument, "headers.a is an int beyond 64 bits"),
    ({"a": [-(2**63) - 1]}, BadArgument, "headers.a[0] is an int beyond 64 bits"),
    ({"a": datetime(2020, 1, 1)}, BadArgument, "headers.a is a naive datetime"),  # noqa: DTZ001
    ({"a": datetime(1969, 12, 31, tzinfo=timezone.utc)}, BadArgument, "is before 1970"),
    ({"a": math.nan}, BadArgument, "only finite numbers"),
    ({"a": math.inf}, BadArgument, "only finite numbers"),
    ({"a": Decimal("NaN")}, BadArgument, "headers.a is NaN"),
    ({"a": Decimal("-Infinity")}, BadArgument, "headers.a is -Infinity"),
    ({"a": Decimal("1E-256")}, BadArgument, "up to 255 places"),
    ({"a": Decimal(2**31)}, BadArgument, "decimals have 32 bits"),
    ({"a": Decimal("1E+999999")}, BadArgument, "decimals have 32 bits"),
    ({"a": Decimal("1" * 5000)}, BadArgument, "decimals have 32 bits"),
    (["a"], BadType, "headers must be a mapping, not list"),
    (5, BadType, "headers must be a mapping, not int"),
]


@pytest.mark.parametrize(("table", "kind", "text"), REFUSED)
def test_what_no_table_can_hold_is_refused_by_its_path(
    table: Mapping[str, object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        encode_table(table, "headers")
    assert text in str(caught.value)
    assert str(caught.value).startswith("headers")


def test_encoding_nests_as_deep_as_decoding_and_no_deeper() -> None:
    table: dict[str, object] = {}
    for _ in range(DEPTH_MAX - 1):
        table = {"k": table}
    assert decode_table(encode_table(table))[0] == table
    with pytest.raises(BadArgument, match=f"nested more than {DEPTH_MAX} deep"):
        encode_table({"k": table})


def test_table_within_itself_is_a_bad_argument() -> None:
    table: dict[str, object] = {}
    table["k"] = [table]
    with pytest.raises(BadArgument, match="contains itself"):
        encode_table(table)


class Huge(bytes):
    """Says to be longer than the wire allows, without the memory for it."""

    def __len__(self) -> int:
        return LONG_MAX + 1


def test_value_above_four_gigabytes_is_refused() -> None:
    with pytest.raises(BadArgument, match="at most 4294967295 fit"):
        encode_longstr(Huge(), "response")
    with pytest.raises(BadArgument, match="value above 4294967295 bytes"):
        encode_table({"k": Huge()})


def test_bad_strings_are_named() -> None:
    with pytest.raises(BadType, match="queue must be str, not bytes"):
        encode_shortstr(b"q", "queue")  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="queue has 256 bytes; at most 255 fit"):
        encode_shortstr("é" * 128, "queue")
    with pytest.raises(BadArgument, match="queue has no UTF-8 form"):
        encode_shortstr("\ud800", "queue")
    with pytest.raises(BadType, match="response must be str or bytes, not int"):
        encode_longstr(5, "response")  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="response has no UTF-8 form"):
        encode_longstr("\ud800", "response")


def test_long_string_takes_text_and_bytes() -> None:
    written = bytes.fromhex("00000002 c3a9")
    assert encode_longstr("é", "response") == written
    assert encode_longstr(bytearray(b"\xc3\xa9"), "response") == written  # type: ignore[arg-type]


# --- timestamps -----------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1))
@example(253402300799)
@example(253402300800)
def test_timestamp_of_64_bits_comes_back(seconds: int) -> None:
    raw = encode_timestamp(seconds, "timestamp")
    assert raw == seconds.to_bytes(8, "big")
    value = decode_timestamp(seconds)
    assert encode_timestamp(value, "timestamp") == raw
    assert isinstance(value, datetime) == (seconds < 253402300800)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (-1, BadArgument, "timestamp must be within 64 bits"),
        (2**64, BadArgument, "timestamp must be within 64 bits"),
        (True, BadType, "timestamp must be datetime or int, not bool"),
        ("now", BadType, "timestamp must be datetime or int, not str"),
        (1.5, BadType, "timestamp must be datetime or int, not float"),
        (datetime(2020, 1, 1), BadArgument, "timestamp is a naive datetime"),  # noqa: DTZ001
    ],
)
def test_bad_timestamp_is_named(value: int, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        encode_timestamp(value, "timestamp")


# --- malformed bytes ------------------------------------------------------------------------


@given(tables)
def test_every_truncation_of_a_table_is_malformed(table: dict[str, object]) -> None:
    raw = encode_table(table)
    for size in range(len(raw)):
        with pytest.raises(MalformedData):
            decode_table(raw[:size])


@given(damaged(tables.map(encode_table)) | st.binary())
def test_a_table_is_skipped_where_it_can_be_decoded_unless_it_holds_what_no_broker_takes(
    raw: bytes,
) -> None:
    try:
        table, end = decode_table(raw)
    except MalformedData:
        with pytest.raises(MalformedData):
            skip_table(raw, 0)
        return
    if "nan" in repr(table) or "inf" in repr(table):  # or a key that only looks so
        with suppress(MalformedData):
            assert skip_table(raw, 0) == end
    else:
        assert skip_table(raw, 0) == end


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", "fd")
def test_a_table_with_a_float_that_is_not_finite_is_not_skipped(kind: str, value: float) -> None:
    raw = kind.encode() + struct.pack(f">{kind}", value)
    with pytest.raises(MalformedData, match="finite"):
        skip_table(entry(raw), 0)


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_a_table_of_any_depth_is_skipped(kind: bytes) -> None:
    raw = nested(20_000, kind)
    assert skip_table(b"??" + raw, 2) == len(raw) + 2


@given(damaged(tables.map(encode_table)))
def test_damaged_table_gives_malformed_data_or_a_table(raw: bytes) -> None:
    try:
        table, end = decode_table(raw)
    except MalformedData:
        return
    assert end <= len(raw)
    assert decode_table(raw[:end])[0].keys() == table.keys()


@given(st.binary())
def test_random_bytes_give_malformed_data_or_a_table(raw: bytes) -> None:
    framed = len(raw).to_bytes(4, "big") + raw
    try:
        _, end = decode_table(framed)
    except MalformedData:
        return
    assert end == len(framed)


MALFORMED = {
    "no length": "",
    "length cut short": "000000",
    "length beyond the data": "00000001",
    "length of four gigabytes": "ffffffff 01 61 56",
    "key beyond the table": "00000002 05 61 56565656565656",
    "key without a value": "00000002 01 61",
    "value beyond the table": "00000004 01 61 49 00 000001",
    "string beyond the table": "00000007 01 61 53 00000002 6162",
    "string of four gigabytes": "00000009 01 61 53 ffffffff 6162",
    "bytes beyond the table": "00000007 01 61 78 00000001 61",
    "decimal beyond the table": "00000003 01 61 44 00 00000001",
    "table beyond its table": "00000007 01 61 46 00000003 016256",
    "array beyond its table": "00000007 01 61 41 00000001 56",
    "array length beyond its table": "00000005 01 61 41 0000 0000",
    "item beyond its array": "00000008 01 61 41 00000001 49 00000001",
    "key beyond an inner table": "0000000a 01 61 46 00000002 0562 5656565656",
    "unknown kind": "00000003 01 61 55",
    "unknown kind in an array": "00000008 01 61 41 00000001 5a",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_length_is_held_against_what_holds_it(raw: str) -> None:
    with pytest.raises(MalformedData):
        decode_table(bytes.fromhex(raw))
    with pytest.raises(MalformedData):
        skip_table(bytes.fromhex(raw), 0)


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_nesting_deeper_than_the_limit_is_malformed(kind: bytes) -> None:
    decode_table(nested(DEPTH_MAX, kind))
    with pytest.raises(MalformedData, match="deep"):
        decode_table(nested(DEPTH_MAX + 1, kind))


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_no_depth_of_nesting_exhausts_the_stack(kind: bytes) -> None:
    with pytest.raises(MalformedData):
        decode_table(nested(20_000, kind))


@pytest.mark.parametrize("raw", ["", "02", "0561"])
def test_short_string_beyond_the_data_is_malformed(raw: str) -> None:
    with pytest.raises(MalformedData):
        decode_shortstr(bytes.fromhex(raw), 0)


@pytest.mark.parametrize("raw", ["", "0000", "00000001", "ffffffff61"])
def test_long_string_beyond_the_data_is_malformed(raw: str) -> None:
    with pytest.raises(MalformedData):
        decode_longstr(bytes.fromhex(raw), 0)
