"""A virtual host of its own for every test, on the embedded broker and on RabbitMQ.

No test lives here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import evamqp.blocking
from tests.support.broker_url import BROKERS, url, vhosts

__all__ = ["url", "vhosts"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for a URL on each broker."""
    if "url" in metafunc.fixturenames:
        metafunc.parametrize("url", BROKERS, indirect=True)


@pytest.fixture
def connection(url: str) -> Iterator[evamqp.blocking.Connection]:
    """A connection to either broker."""
    with evamqp.blocking.connect(url) as connection:
        yield connection


@pytest.fixture
def channel(connection: evamqp.blocking.Connection) -> evamqp.blocking.Channel:
    """A channel with a queue ``q``."""
    channel = connection.channel()
    channel.queue_declare("q", exclusive=True)
    return channel
