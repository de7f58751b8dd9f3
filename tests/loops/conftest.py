"""A loop and a broker for every test: fixtures by which one law is checked on all loops.

It holds no tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.loops.rig import Rig
from tests.support.loops import LOOPS, Loop, opened


@pytest.fixture
def loop(loop_name: str) -> Iterator[Loop]:
    """A loop of that name."""
    with opened(loop_name) as loop:
        yield loop


@pytest.fixture
def rig(loop: Loop) -> Iterator[Rig]:
    """That loop, and the scripted broker."""
    rig = Rig(loop)
    try:
        yield rig
        rig.finish()
    finally:
        rig.stop()


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    """Every loop in turn, unless the test names its own."""
    name: str = request.param
    return name
