"""The loops that have sockets, for the attacks that need one.

No attack lives here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.loops import SOCKET_LOOPS, Loop, opened


@pytest.fixture(params=SOCKET_LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """Every loop in turn; what nobody caught in it fails the test."""
    with opened(request.param) as loop:
        yield loop
