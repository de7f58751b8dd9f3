"""A RabbitMQ to be hurt, and a virtual host of it for each test.

No test lives here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rabbitmq_node import RabbitNode, Vhost, VhostPool
from tests.conftest import Certificates

SCHEME = os.environ.get("EVAMQP_CELERY_SCHEME", "evamqp")  # pyamqp, to compare


@pytest.fixture(scope="module")
def node(rabbit: RabbitNode, certificates: Certificates) -> Iterator[RabbitNode]:
    """A node to be killed; ``rabbit`` tells whether there is one at all."""
    with RabbitNode(tls=certificates.server, external=True) as node:
        yield node


@pytest.fixture(scope="module")
def vhosts(node: RabbitNode) -> VhostPool:
    """Its virtual hosts."""
    return VhostPool(node, "celery")


@pytest.fixture
def vhost(node: RabbitNode, vhosts: VhostPool) -> Iterator[Vhost]:
    """A virtual host that no test used before; the node is whole again after the test."""
    node.repair()
    vhost = vhosts.take()
    yield vhost
    node.repair()
    vhosts.give_back(vhost)


@pytest.fixture
def broker(vhost: Vhost) -> str:
    """Its URL, as Celery takes it."""
    return vhost.url.replace("amqp", SCHEME, 1)
