"""The delays between attempts, as tables."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evamqp.errors import (
    AuthenticationFailed,
    BadArgument,
    BadType,
    BlockedTimeout,
    ConnectFailed,
    ConnectionClosed,
    HandshakeTimeout,
    HeartbeatTimeout,
    ProtocolError,
    ProtocolMismatch,
    Retry,
    VhostRefused,
)
from evamqp.recovery.backoff import Backoff, retry_of
from tests.recovery.stage import Stage


def delays(retry: Retry, chance: float, count: int) -> list[float]:
    backoff = Backoff(chance=lambda: chance)
    return [round(backoff.next(retry), 6) for _ in range(count)]


def test_the_first_attempt_comes_at_once_and_the_bound_doubles_up_to_thirty_seconds() -> None:
    expected = [0, 0.2, 0.4, 0.8, 1.6, 3.2, *[4] * 14, 30, 30]
    assert delays("soon", 1.0, 22) == expected


def test_the_jitter_is_full() -> None:
    assert delays("soon", 0.0, 12) == [0] * 12
    assert delays("soon", 0.5, 4) == [0, 0.1, 0.2, 0.4]


def test_slow_ends_begin_slowly_and_wait_up_to_sixty_seconds() -> None:
    assert delays("slow", 1.0, 8) == [2, 4, 8, 16, 32, 60, 60, 60]
    assert delays("slow", 0.0, 8) == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_million_attempts_do_not_overflow() -> None:
    backoff = Backoff(chance=lambda: 1.0)
    backoff.attempts = 10**6
    backoff._waited = 10.0**6
    assert backoff.next() == 30
    assert backoff.next("slow") == 60


def test_a_reset_begins_anew() -> None:
    backoff = Backoff(chance=lambda: 1.0)
    for _ in range(20):
        backoff.next()
    backoff.reset()
    assert [backoff.next(), backoff.next()] == [0, 0.2]


@given(st.lists(st.sampled_from(["soon", "slow", "never"]), max_size=40))
def test_every_delay_is_within_its_bound(series: list[Retry]) -> None:
    backoff = Backoff()
    for number, retry in enumerate(series):
        delay = backoff.next(retry)
        assert 0 <= delay <= (30 if retry == "soon" else 60)
        if retry != "soon":
            assert delay >= 1
        elif not number:
            assert delay == 0


@pytest.mark.parametrize("code", [402, 403, 502, 503, 530, 540])
def test_what_the_broker_refused_is_not_asked_again_soon(code: int) -> None:
    assert retry_of(ConnectionClosed("refused", code=code, by="broker")) == "slow"


@pytest.mark.parametrize("code", [None, 311, 320, 501, 504, 505, 506, 541])
def test_other_ends_are_retried_soon(code: int | None) -> None:
    assert retry_of(ConnectionClosed("ended", code=code, by="broker")) == "soon"


def test_our_own_close_is_no_refusal() -> None:
    assert retry_of(ConnectionClosed("ours", code=530, by="client")) == "soon"


@pytest.mark.parametrize(
    ("reason", "retry"),
    [
        (ConnectFailed("nobody there"), "soon"),
        (HandshakeTimeout("silent", by="network"), "soon"),
        (HeartbeatTimeout("dead", by="network"), "soon"),
        (BlockedTimeout("blocked", by="broker"), "soon"),
        (ProtocolError("frames", code=501, by="broker"), "soon"),
        (ProtocolMismatch("HTTP", by="broker"), "slow"),
        (AuthenticationFailed("who", code=403, by="broker"), "slow"),
        (AuthenticationFailed("probably", by="broker"), "slow"),
        (VhostRefused("where", code=530, by="broker"), "slow"),
    ],
)
def test_each_kind_of_end_has_its_pace(reason: ConnectionClosed, retry: Retry) -> None:
    assert retry_of(reason) == retry


def test_settings_of_ones_own() -> None:
    backoff = Backoff(1.0, 3.0, 0.0)
    assert [backoff.next() for _ in range(4)] == [0, 2, 3, 3]
    half = Backoff(1.0, 100.0, 0.5, chance=lambda: 0.0)
    assert [half.next() for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("wrong", [(0,), (1, 0), (1, 1, 2), (1, float("nan")), (1, 1, -1)])
def test_impossible_settings_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(BadArgument):
        Backoff(*wrong)


@pytest.mark.parametrize("wrong", [("x",), (1, None), (1, 1, "x")])
def test_settings_of_the_wrong_type_are_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(BadType):
        Backoff(*wrong)


def test_a_broker_that_was_away_for_less_than_a_minute_is_published_to_within_five_seconds(
    stage: Stage,
) -> None:
    chance = random.Random(14)
    worst = 0.0
    stage.server.on_publish = lambda publish: publish.ack()
    publisher = stage.publisher(backoff=Backoff(chance=chance.random))
    for _ in range(200):
        stage.advance(20)
        stage.server.down()
        stage.advance(chance.uniform(0.1, 59.9))
        stage.server.up()
        back = stage.adapter.time()
        publication = publisher.publish("", "work", b"x")
        while not publication.is_done:
            stage.advance(0.05)
        worst = max(worst, stage.adapter.time() - back)
    assert worst <= 5.0


def test_the_herd_is_spread() -> None:
    """A thousand clients whose broker was away for half a minute: no tenth second gets many."""
    chance = random.Random(14)
    arrivals: Counter[int] = Counter()
    for _ in range(1000):
        backoff, time = Backoff(chance=chance.random), 0.0
        while time < 30:
            time += backoff.next()
        arrivals[int((time - 30) * 10)] += 1
    assert max(arrivals.values()) <= 80
    assert max(arrivals) < 40
