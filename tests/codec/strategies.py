"""Hypothesis strategies for what the codec takes, and what comes back of it.

No test lives here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal

from hypothesis import strategies as st

from evamqp.codec.spec import Method

# Surrogates U+DC80..U+DCFF stand for bytes that are not UTF-8; others have no encoding at all.
text = st.text(st.characters(exclude_categories=["Cs"]))
short_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
raw_text = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
short_strings = short_text | raw_text

times = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001  (Hypothesis wants bounds without a zone)
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.timezones() | st.just(timezone.utc),
)
decimals = st.builds(
    lambda unscaled, scale: Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -scale)),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 255),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-(2**31) - 2, -(2**31) + 2)
    | st.integers(2**31 - 2, 2**31 + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | decimals
    | text
    | raw_text
    | st.binary()
    | st.binary().map(bytearray)
    | times
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(short_text, inner, max_size=4)
    ),
    max_leaves=12,
)
tables = st.dictionaries(short_strings, values, max_size=6)


def as_read(value: object) -> object:
    """What decoding gives of what was encoded."""
    if isinstance(value, Mapping):
        return {key: as_read(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_read(item) for item in value]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).replace(microsecond=0)
    return value


_ARGUMENTS: dict[str, st.SearchStrategy[object]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "shortstr": short_strings,
    "longstr": st.binary(),
    "table": tables,
}


def arguments_of(method: Method) -> st.SearchStrategy[tuple[object, ...]]:
    """Values for all arguments that callers give to a method."""
    return st.tuples(*(_ARGUMENTS[kind] for _, kind in method.arguments))


def damaged(intact: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes of which some were overwritten, removed or inserted."""

    def damage(raw: bytes, position: int, width: int, filler: bytes) -> bytes:
        start = position % (len(raw) + 1)
        return raw[:start] + filler + raw[start + width :]

    return st.builds(
        damage, intact, st.integers(0, 2**16), st.integers(0, 8), st.binary(max_size=8)
    )
