"""A hundred thousand random sessions: no law is broken in any of them."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.hostile import mutator
from tests.hostile.victim import Victim

SESSIONS = 100_000
BATCH = 10_000
#: Where the seeds begin; another number plays other sessions.
FIRST = int(os.environ.get("EVAMQP_SEED", "0"))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, FIRST + SESSIONS, BATCH))
def test_no_session_breaks_a_law(first: int) -> None:
    for seed in range(first, first + BATCH):
        try:
            mutator.play(seed)
        except BaseException as error:
            error.args = (f"python -m tests.hostile.mutator {seed}: {error}",)
            raise


def test_a_seed_gives_the_same_session_again() -> None:
    for seed in range(200):
        first, second = mutator.play(seed), mutator.play(seed)
        assert shown(first) == shown(second)


def test_sessions_reach_every_callback_and_every_end() -> None:
    names: Counter[str] = Counter()
    ends: Counter[object] = Counter()
    for seed in range(3000):
        victim = mutator.play(seed)
        names.update(victim.witness.names)
        assert victim.witness.reason is not None
        ends[victim.witness.reason.code] += 1
    assert {
        "on_open", "on_open_error", "on_close", "on_blocked", "on_unblocked", "on_writable",
        "on_channel_open", "on_channel_close", "on_delivery_confirmation", "on_return",
        "on_consumer_cancel", "on_message", "queue_declare answered", "queue_declare failed",
        "basic_get answered",
    } <= set(names)  # fmt: skip
    assert {None, 200, 320, 501, 502, 503, 504, 505} <= set(ends)


def shown(victim: Victim) -> tuple[object, ...]:
    return victim.witness.names, victim.witness.bodies, str(victim.witness.reason)
