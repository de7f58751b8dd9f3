"""The stage on which recovery is tested.  It holds no tests."""

from __future__ import annotations

import pytest

from tests.recovery.stage import Stage


@pytest.fixture
def stage() -> Stage:
    """A memory loop with a scripted broker."""
    return Stage()
