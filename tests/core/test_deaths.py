"""What headers tell of former deliveries, whoever wrote them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from evamqp.core.deaths import Death, deaths, delivery_count


@pytest.mark.parametrize(
    ("headers", "redelivered", "count"),
    [
        (None, False, 0),
        (None, True, 1),
        ({"x-delivery-count": 3}, True, 3),
        ({"x-delivery-count": 1, "x-acquired-count": 4}, True, 4),
        ({"x-delivery-count": "many"}, False, 0),
        ({"x-delivery-count": -1}, True, 1),
    ],
)
def test_the_delivery_count(
    headers: dict[str, object] | None, redelivered: bool, count: int
) -> None:
    assert delivery_count(headers, redelivered) == count


def test_deaths_are_typed_and_what_is_malformed_is_left_out() -> None:
    time = datetime(2026, 1, 1, tzinfo=timezone.utc)
    entry = {
        "queue": "q", "reason": "expired", "count": 2, "exchange": "", "routing-keys": ["q"],
        "time": time,
    }  # fmt: skip
    headers: dict[str, object] = {"x-death": [entry, {}, "nonsense"]}
    assert deaths(headers) == (
        Death("q", "expired", 2, "", ("q",), time),
        Death("", "", 1, "", (), None),
    )
    assert deaths(None) == deaths({"x-death": 5}) == ()
