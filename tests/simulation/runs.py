"""Running a world, again and with less in it, and telling what happened."""

from __future__ import annotations

import logging
import re
import signal
import traceback

from tests.simulation.faults import FAULTS_MAX
from tests.simulation.world import World, logging_to

# Seconds of real time: a world in which one moment never ends is stopped.
TIMEOUT = 60


class Hangs(KeyboardInterrupt):
    """A world does not go on.  An interrupt, so that no handler of the library's takes it."""


def run(seed: int, without: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with the world of this seed."""
    return play(World(seed, without))


def play(world: World) -> list[str]:
    """Run a world; what is wrong with it, which may be that it hangs."""
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.alarm(TIMEOUT)
    try:
        return world.run()
    except Hangs as hang:
        where = traceback.extract_tb(hang.__traceback__)[-1]
        world.books.wrong("world", f"hangs in {where.name}, {where.filename}:{where.lineno}")
        return world.books.violations
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _interrupt(number: int, frame: object) -> None:
    raise Hangs


def again(seed: int, without: frozenset[str] = frozenset()) -> str:
    """The command that shows this world."""
    rest = f" --without {','.join(sorted(without))}" if without else ""
    return f"python -m tests.simulation --seed {seed} --show{rest}"


def report(seed: int, without: frozenset[str] = frozenset()) -> tuple[list[str], str]:
    """What is wrong with a world, and the story of it."""
    world = World(seed, without)
    logging.disable(logging.NOTSET)
    try:
        with logging_to(world.trace):
            violations = play(world)
    finally:
        logging.disable(logging.CRITICAL)
    lines = [str(world.trace), "", *violations, again(seed, without)]
    return violations, "\n".join(lines)


def minimise(seed: int, without: frozenset[str] = frozenset(), about: str = "") -> frozenset[str]:
    """The names that can be left out so that the first thing that was wrong still is.

    Args:
        about: Words of the one that is meant; "" takes any.
    """
    world = World(seed, without)
    violations = [violation for violation in play(world) if about in violation]
    if not violations:
        return without
    wrong = {kind_of(violations[0])}
    names = [actor.name for actor in world.actors]
    for name in [*(f"fault{number}" for number in range(FAULTS_MAX)), *names]:
        if wrong <= {kind_of(violation) for violation in run(seed, without | {name})}:
            without = without | {name}
    return without


def kind_of(violation: str) -> str:
    """A violation without the names and numbers of its world."""
    return re.sub(r"(consumer|publisher|bystander|\d)[\d.:]*(\.out)?", "N", violation)
