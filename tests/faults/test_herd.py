"""Many clients of one broker that crashes come back all, and not at the same moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

import evamqp
from evamqp.recovery.state import State
from rabbitmq_node import RabbitNode
from tests.faults.conftest import ALL
from tests.support.loops import Loop, opened

CLIENTS = 300 if ALL else 60
# Seconds.
BUCKET = 0.1
TIMEOUT = 120.0


class Member(evamqp.Handler):
    """One client, and when it tries to connect."""

    def __init__(self, loop: Loop, url: str) -> None:
        self.attempts: list[float] = []
        self._adapter = loop.adapter
        self.reconnector = evamqp.Reconnector(
            url, adapter=loop.adapter, handler=self, on_reconnecting=self._note
        )

    def _note(self, attempt: int, delay: float, reason: evamqp.ConnectionClosed) -> None:
        self.attempts.append(self._adapter.time() + delay)

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        """It will try again."""

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """It will connect again."""


@pytest.fixture
def herd(rabbit: RabbitNode) -> Iterator[tuple[Loop, list[Member]]]:
    rabbit.repair()
    with opened("select") as loop:
        members = [Member(loop, rabbit.url) for _ in range(CLIENTS)]
        try:
            loop.until(lambda: all(member.reconnector.is_ready for member in members), TIMEOUT)
            yield loop, members
        finally:
            for member in members:
                member.reconnector.close()
            rabbit.repair()
            loop.until(lambda: all(member.reconnector.state is State.CLOSED for member in members))


@pytest.mark.rabbitmq
@pytest.mark.slow
def test_herd_comes_back_whole_and_spread(
    rabbit: RabbitNode, herd: tuple[Loop, list[Member]]
) -> None:
    loop, members = herd
    rabbit.kill()
    loop.until(lambda: all(len(member.attempts) >= 4 for member in members), TIMEOUT)
    thread = threading.Thread(target=rabbit.start, name="broker")
    thread.start()
    loop.until(lambda: not thread.is_alive(), TIMEOUT)
    thread.join()
    loop.until(lambda: all(member.reconnector.is_ready for member in members), TIMEOUT)
    # The attempts that brought them back: in many different moments, few of them in each.
    buckets = Counter(int(member.attempts[-1] / BUCKET) for member in members)
    assert len(buckets) >= 8, buckets
    assert max(buckets.values()) <= CLIENTS / 3, buckets
