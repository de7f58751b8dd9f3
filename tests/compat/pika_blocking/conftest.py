"""A virtual host of its own for every test, on the embedded broker and on RabbitMQ.

No test lives here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import evamqp.compat.pika as pika
from evamqp.compat.pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from evamqp.testing.fixtures import ServedVhost
from rabbitmq_node import RabbitNode, VhostPool

BROKERS = ("embedded", "rabbitmq")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for a URL on each broker."""
    if "url" in metafunc.fixturenames:
        params = [
            pytest.param(name, marks=pytest.mark.rabbitmq if name == "rabbitmq" else ())
            for name in BROKERS
        ]
        metafunc.parametrize("url", params, indirect=True)


@pytest.fixture(scope="session")
def program_vhosts(rabbit: RabbitNode) -> VhostPool:
    """Virtual hosts made ahead."""
    return VhostPool(rabbit)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a virtual host that no test used before."""
    if request.param == "rabbitmq":
        pool: VhostPool = request.getfixturevalue("program_vhosts")
        vhost = pool.take()
        yield vhost.url
        pool.give_back(vhost)
    else:
        served: ServedVhost = request.getfixturevalue("amqp_broker")
        yield served.url


@pytest.fixture
def connection(url: str) -> Iterator[BlockingConnection]:
    """The facade's connection to either broker."""
    with BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection


@pytest.fixture
def channel(connection: BlockingConnection) -> BlockingChannel:
    """A channel with a queue ``q``."""
    channel = connection.channel()
    channel.queue_declare("q", exclusive=True)
    return channel
