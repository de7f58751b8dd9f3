"""Fixtures for a module that restarts its broker: import both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitmq_node import RabbitNode, VhostPool


@pytest.fixture(scope="module")
def rabbit(rabbit: RabbitNode) -> Iterator[RabbitNode]:
    """A node of its own: the run's has hundreds of virtual hosts, and takes a minute to restart."""
    with RabbitNode() as node:
        yield node


@pytest.fixture(scope="module")
def vhost_pool(rabbit: RabbitNode) -> VhostPool:
    """Virtual hosts of that node."""
    return VhostPool(rabbit)
