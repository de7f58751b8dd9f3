"""A part of all worlds, for every run of the tests; ``make simulate`` plays as many as you like."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest

from plant_bugs import ROOT, place_of
from planted_bugs import BUGS, Bug
from tests.simulation.audit import Audit
from tests.simulation.runs import again, report, run
from tests.simulation.world import World

WORLDS = 600
# In one test, so that a failure is told early and what is left still runs.
TOGETHER = 50


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log, and no garbage of other tests to be looked through after each world."""
    gc.collect()
    gc.freeze()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.unfreeze()


@pytest.mark.parametrize("first", range(0, WORLDS, TOGETHER))
def test_every_world_keeps_the_promises(first: int) -> None:
    failed = {seed: wrong[0] for seed in range(first, first + TOGETHER) if (wrong := run(seed))}
    if failed:
        seed = min(failed)
        _, story = report(seed)
        pytest.fail(f"{failed}\nthe story of {seed}:\n{story}", pytrace=False)


def test_the_same_seed_is_the_same_world() -> None:
    for seed in range(20):
        first, second = World(seed), World(seed)
        first.run()
        second.run()
        assert str(first.trace) == str(second.trace)


def test_a_failing_world_prints_its_story_and_how_to_have_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Audit, "complaints", lambda audit: ["something is wrong"])
    violations, story = report(7, frozenset({"fault0"}))
    assert violations == ["audit: something is wrong"]
    assert "*** something is wrong" in story
    assert "all faults end" in story
    assert story.endswith(again(7, frozenset({"fault0"})))
    assert again(7, frozenset({"fault0"})).endswith("--seed 7 --show --without fault0")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_to_be_planted_still_has_its_place(bug: Bug) -> None:
    """A change of the code that it would break must change the bug too."""
    assert place_of(bug, ROOT / "evamqp").exists()
