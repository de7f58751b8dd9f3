"""What holds for every count."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collector_at_rest() -> Iterator[None]:
    """Nothing is collected but by us: garbage of other tests would be counted, with its end."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
