"""What the adapters' tests share: many open files, and signals put back.

No law and no adapter lives here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

Handler = Callable[[int, FrameType | None], object]


@pytest.fixture
def thousand_files() -> Iterator[None]:
    """Every descriptor below 1100 is taken, so a new socket is beyond what select() can watch."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"the system allows {hard} open files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] < 1100:
            taken.append(os.dup(taken[0]))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def on_signal() -> Iterator[Callable[[Handler], int]]:
    """Install a handler for a signal that nobody else uses; returns its number."""
    if not hasattr(signal, "SIGUSR2"):
        pytest.skip("there are no such signals here")
    before = signal.getsignal(signal.SIGUSR2)

    def install(handler: Handler) -> int:
        signal.signal(signal.SIGUSR2, handler)
        return signal.SIGUSR2

    yield install
    signal.signal(signal.SIGUSR2, before)
