"""The broker of a test: the embedded one, then RabbitMQ, each with an empty virtual host.

It holds no tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from rabbitmq_node import RabbitNode

pytest.register_assert_rewrite("tests.compat.pika.rig")

_numbers = itertools.count()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a broker is; parametrize it by BROKERS."""
    if request.param == "embedded":
        yield request.getfixturevalue("amqp_broker").url
        return
    node: RabbitNode = request.getfixturevalue("rabbit")
    name = f"pika{next(_numbers)}"
    node.add_vhost(name)
    yield node.url_of(name)
    node.delete_vhost(name)
