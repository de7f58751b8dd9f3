"""A fresh virtual host of the run's RabbitMQ for every test, and the broker whole again after it.

No test lives here.  ``rabbit`` itself, one node for the whole run, is in tests/conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitmq_node import RabbitNode, Vhost, VhostPool

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs RabbitMQ."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.rabbitmq)


@pytest.fixture(scope="session")
def vhost_pool(rabbit: RabbitNode) -> VhostPool:
    """Virtual hosts made ahead, since making one at a time costs more than most tests."""
    return VhostPool(rabbit)


@pytest.fixture
def vhost(rabbit: RabbitNode, vhost_pool: VhostPool) -> Iterator[Vhost]:
    """A virtual host that no test used before.

    Whatever the test did to the node (alarm, freeze, stop, kill) is undone after it.
    """
    rabbit.repair()
    vhost = vhost_pool.take()
    yield vhost
    rabbit.repair()
    vhost_pool.give_back(vhost)
