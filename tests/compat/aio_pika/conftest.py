"""The broker of a test: the embedded one, then RabbitMQ, each with an empty virtual host.

It holds no tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitmq_node import RabbitNode, VhostPool


@pytest.fixture(scope="session")
def vhosts(rabbit: RabbitNode) -> VhostPool:
    """Virtual hosts of RabbitMQ, made ahead."""
    return VhostPool(rabbit, "aio_pika")


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a broker is; parametrize it by BROKERS."""
    if request.param == "embedded":
        yield request.getfixturevalue("amqp_broker").url
        return
    pool: VhostPool = request.getfixturevalue("vhosts")
    vhost = pool.take()
    yield vhost.url
    pool.give_back(vhost)
