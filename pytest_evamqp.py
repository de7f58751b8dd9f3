"""The pytest plugin: an embedded broker for each test that asks for one.

It is loaded with every run of pytest, so it stands outside the package and imports nothing of it
until a test asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from evamqp.testing.broker import Broker
    from evamqp.testing.fixtures import MemoryBroker, ServedVhost


@pytest.fixture(scope="session")
def _amqp_server() -> Iterator[list[Broker]]:
    """The run's broker on TCP, once a test has asked for it."""
    brokers: list[Broker] = []
    yield brokers
    for broker in brokers:
        broker.close()


@pytest.fixture
def amqp_broker(_amqp_server: list[Broker]) -> Iterator[ServedVhost]:
    """A virtual host of its own on an embedded broker, on TCP and for any AMQP client.

    The broker runs in a thread and serves the whole run; what a test did to it with ``faults`` is
    undone after it.
    """
    from evamqp.testing.broker import Broker
    from evamqp.testing.fixtures import ServedVhost

    if not _amqp_server:
        _amqp_server.append(Broker().serve())
    (broker,) = _amqp_server
    vhost = f"test{broker.count_vhosts()}"
    broker.add_vhost(vhost)
    yield ServedVhost(broker, vhost)
    broker.repair()
    broker.delete_vhost(vhost)


@pytest.fixture
def amqp_memory() -> Iterator[MemoryBroker]:
    """An embedded broker in virtual time: no thread, no socket, no sleep."""
    from evamqp.adapters.memory import MemoryAdapter
    from evamqp.testing.broker import Broker
    from evamqp.testing.fixtures import MemoryBroker

    adapter = MemoryAdapter()
    with Broker(adapter) as broker:
        broker.listen()
        yield MemoryBroker(adapter, broker)
    adapter.run_until_idle()
