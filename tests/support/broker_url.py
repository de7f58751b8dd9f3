"""Fixtures for tests that need only a broker's URL, with an empty virtual host behind it.

Import both into a conftest.py.  ``BROKERS`` parametrizes ``url`` by the embedded one and RabbitMQ.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitmq_node import RabbitNode, VhostPool

BROKERS = ["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]

__all__ = ["BROKERS", "url", "vhosts"]


@pytest.fixture(scope="session")
def vhosts(rabbit: RabbitNode) -> VhostPool:
    """Virtual hosts of RabbitMQ, made ahead."""
    return VhostPool(rabbit)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a virtual host that no test used before."""
    if request.param == "embedded":
        yield request.getfixturevalue("amqp_broker").url
        return
    node: RabbitNode = request.getfixturevalue("rabbit")
    pool: VhostPool = request.getfixturevalue("vhosts")
    vhost = pool.take()
    yield vhost.url
    node.repair()
    pool.give_back(vhost)
