"""The stage on which recovery is tested.  No law lives here."""

from __future__ import annotations

import pytest

from tests.recovery.stage import Stage


@pytest.fixture
def stage() -> Stage:
    """A memory loop with a scripted broker."""
    return Stage()
