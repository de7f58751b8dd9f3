"""Every law once per broker: the embedded one on memory and on TCP, and RabbitMQ.

It holds no tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evamqp.adapters.memory import MemoryAdapter
from evamqp.testing import Broker
from evamqp.testing.broker import RELEASE
from evamqp.testing.broker.release import RELEASES
from rabbitmq_node import RabbitNode
from tests.behaviour.brokers import MEMORY_HOST, Embedded, Rabbit, RabbitVhosts, UnderTest
from tests.behaviour.rig import Rig

# The embedded broker on memory imitates each release, so that its table of differences is held
# against the same answers as the releases themselves.
BROKERS = ("memory", *(f"memory-{release}" for release in RELEASES if release != RELEASE))
BROKERS += ("tcp", "rabbitmq")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for a broker on each of them."""
    if "under_test" in metafunc.fixturenames:
        params = [
            pytest.param(name, marks=pytest.mark.rabbitmq if name == "rabbitmq" else ())
            for name in BROKERS
        ]
        metafunc.parametrize("under_test", params, indirect=True)


@pytest.fixture(scope="session")
def behaviour_vhosts(rabbit: RabbitNode) -> RabbitVhosts:
    """Virtual hosts of RabbitMQ, made ahead."""
    return RabbitVhosts(rabbit)


@pytest.fixture(scope="session")
def tcp_broker() -> Iterator[Broker]:
    """One embedded broker on TCP for the run."""
    with Broker().serve() as broker:
        yield broker


@pytest.fixture
def under_test(request: pytest.FixtureRequest) -> Iterator[UnderTest]:
    """The broker of that name, with an empty virtual host."""
    if request.param == "rabbitmq":
        node: RabbitNode = request.getfixturevalue("rabbit")
        node.repair()
        pool: RabbitVhosts = request.getfixturevalue("behaviour_vhosts")
        yield Rabbit(pool)
        node.repair()
    elif request.param == "tcp":
        broker: Broker = request.getfixturevalue("tcp_broker")
        broker.add_vhost("behaviour")
        yield Embedded(broker, None)
        broker.delete_vhost("behaviour")
        broker.faults.unblock()
    else:
        adapter = MemoryAdapter()
        _, _, release = request.param.partition("-")
        with Broker(adapter, release=release or RELEASE) as broker:
            broker.listen(MEMORY_HOST)
            broker.add_vhost("behaviour")
            yield Embedded(broker, adapter)


@pytest.fixture
def rig(under_test: UnderTest) -> Iterator[Rig]:
    """Clients of that broker, all closed at the end."""
    rig = Rig(under_test)
    yield rig
    rig.close()
