"""A session recorded against RabbitMQ: however its bytes are cut, it replays the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evamqp.codec.frames import PROTOCOL_HEADER
from evamqp.core.parser import MAX_TEMPLATES
from tests.core.sessions import BODIES, RECORDED, SETTINGS, Tour
from tests.support.client import Client, other_parser
from tests.support.frames import decode, names


def replayed(
    chunks: Iterable[bytes], max_templates: int = MAX_TEMPLATES
) -> tuple[list[Any], bytes]:
    """All that the tour was told, and all that it sent."""
    tour = Tour()
    client = Client(handler=tour, **SETTINGS)
    client.connection.context.parser = other_parser(client.connection, max_templates)
    client.connect()
    for chunk in chunks:
        client.feed(chunk)
    client.lose()
    log = [tuple(map(str, entry)) for entry in tour.log]
    return log, client.taken()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.fixture(scope="module")
def recorded() -> bytes:
    return RECORDED.read_bytes()


@pytest.fixture(scope="module")
def whole(recorded: bytes) -> tuple[list[Any], bytes]:
    return replayed([recorded])


def test_the_recorded_session_visits_what_a_broker_says(
    recorded: bytes, whole: tuple[list[Any], bytes]
) -> None:
    log, sent = whole
    told = [entry[0] for entry in log]
    assert told.count("on_message") >= 2 * len(BODIES)
    assert told.count("on_channel_close") == 4
    assert told[-2:] == ["on_channel_close", "on_close"]
    for callback in (
        "on_return",
        "on_delivery_confirmation",
        "on_consumer_cancel",
        "secret updated",
        "deleted",
        "missing",
        "never",
        "transaction",
    ):
        assert callback in told
    assert "on_callback_error" not in told
    assert "by client" in log[-1][1]
    assert sent.startswith(PROTOCOL_HEADER)
    assert names(decode(sent.removeprefix(PROTOCOL_HEADER))).count("basic.publish") == 10


@pytest.mark.parametrize("size", [1, 2, 7, 21, 100, 4096])
def test_it_replays_identically_in_pieces(
    recorded: bytes, whole: tuple[list[Any], bytes], size: int
) -> None:
    assert replayed(cut(recorded, size)) == whole


def test_it_replays_identically_on_the_plain_path(
    recorded: bytes, whole: tuple[list[Any], bytes]
) -> None:
    assert replayed([recorded], max_templates=0) == whole
    assert replayed(cut(recorded, 1), max_templates=0) == whole


@given(st.lists(st.integers(1, 3000), max_size=60))
@settings(max_examples=25)
def test_it_replays_identically_in_any_pieces(sizes: list[int]) -> None:
    data = RECORDED.read_bytes()
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    assert replayed([*chunks, data[at:]]) == replayed([data])


@given(st.integers(0))
@settings(max_examples=25)
def test_cut_off_anywhere_it_ends_once_and_completely(at: int) -> None:
    data = RECORDED.read_bytes()
    log, _ = replayed([data[: at % len(data)]])
    told = [entry[0] for entry in log]
    assert told.count("on_close") + told.count("on_open_error") == 1
    assert told[-1] in ("on_close", "on_open_error")
