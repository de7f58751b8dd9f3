"""What pika 1.5 adds: callbacks that were added can be removed, and errors have names."""

from __future__ import annotations

import struct
from datetime import datetime, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

import evamqp.compat.pika as pika
from evamqp.compat.pika.callback import CallbackManager
from evamqp.compat.pika.data import encode_table

CONNECTION = (
    "add_on_open_callback", "add_on_close_callback", "add_on_open_error_callback",
    "add_on_connection_blocked_callback", "add_on_connection_unblocked_callback",
)  # fmt: skip


class Core:
    """Enough of a connection for callbacks to be added to it."""

    def connection(self) -> Any:
        return pika.SelectConnection(custom_ioloop=pika.adapters.IOLoop())


def taking_one(frame: object) -> None:
    """A close callback of 0.9."""


def taking_two(closed: object, error: object) -> None:
    """A close callback of 1.x."""


def taking_three(closed: object, code: object, text: object) -> None:
    """A close callback of 0.x."""


@pytest.mark.parametrize("add", CONNECTION)
@pytest.mark.parametrize("callback", [taking_one, taking_two, taking_three, partial(print, "x")])
def test_what_was_added_to_a_connection_can_be_removed_once(add: str, callback: Any) -> None:
    connection = Core().connection()
    remove = getattr(connection, add.replace("add", "remove"))
    assert remove(callback) is False
    getattr(connection, add)(callback)
    assert remove(print) is isinstance(callback, partial)
    if not isinstance(callback, partial):
        assert remove(callback) is True
    assert remove(callback) is False
    connection.close()


def test_a_manager_says_what_is_waited_for_and_forgets_what_matches() -> None:
    manager = CallbackManager()
    manager.add(1, "a", print)
    manager.add(1, "b", print)
    manager.add(1, "b", len)
    assert manager.keys(1) == ["a", "b"]
    assert manager.keys("none") == []
    assert manager.remove_matching(1, "b", lambda added: added is print) is True
    assert manager.remove_matching(1, "b", lambda added: added is print) is False
    assert manager.pending(1, "b") == 1
    assert manager.remove_matching(1, "b", callable) is True
    assert manager.keys(1) == ["a"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (2**63, "UnencodableLongError"),
        (Decimal(2**31), "UnencodableDecimalError"),
        (Decimal("NaN"), "UnencodableDecimalError"),
        (datetime(1969, 1, 1, tzinfo=timezone.utc), "UnencodableTimestampError"),
    ],
)
def test_what_fits_no_table_has_an_exception_of_its_own(value: Any, name: str) -> None:
    with pytest.raises(getattr(pika.exceptions, name)) as caught:
        encode_table([], {"key": [value]})
    assert caught.value.args == (value,) or value != value
    assert isinstance(caught.value, (pika.exceptions.AMQPError, struct.error))
    assert name in repr(caught.value)
