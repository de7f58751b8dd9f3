"""The brokers that the behaviour suite runs against, all with one face.

It holds no tests.
"""

from __future__ import annotations

import time
from typing import Protocol

from evamqp.adapters.memory import MemoryAdapter
from evamqp.testing import Broker
from rabbitmq_node import RabbitNode, Vhost
from tests.behaviour.client import Wire
from tests.behaviour.versions import Version, parse_version
from tests.behaviour.wires import MemoryWire, SocketWire

MEMORY_HOST = "broker"


class UnderTest(Protocol):
    """A broker with a virtual host that is empty, and what a law may do to it from outside."""

    @property
    def vhost(self) -> str: ...
    @property
    def version(self) -> Version:
        """The release of RabbitMQ that it is, or imitates."""

    def connect(self) -> Wire:
        """A connection whose handshake has not begun."""

    def sleep(self, seconds: float) -> None: ...
    def add_user(self, name: str, password: str, *permissions: str) -> None:
        """A user for this virtual host; without permissions it may not enter."""

    def set_alarm(self, alarmed: bool) -> None:
        """Raise the memory alarm, or end it."""

    def close_connections(self, reason: str) -> None:
        """Close every connection, as an operator does."""

    def restart(self) -> None:
        """Stop the broker gracefully, and start it again."""

    def give_back(self) -> None:
        """The virtual host is empty again."""


class Embedded:
    """evamqp.testing, on memory or on TCP."""

    def __init__(self, broker: Broker, adapter: MemoryAdapter | None) -> None:
        self.broker = broker
        self._adapter = adapter
        self.vhost = "behaviour"
        self.version = parse_version(broker.release.version)
        self._wires: list[SocketWire | MemoryWire] = []

    def connect(self) -> Wire:
        wire: SocketWire | MemoryWire
        if self._adapter is None:
            wire = SocketWire(self.broker.port)
        else:
            wire = MemoryWire(self._adapter, MEMORY_HOST, self.broker.port)
        self._wires.append(wire)
        return wire

    def sleep(self, seconds: float) -> None:
        self._wires[-1].sleep(seconds)

    def add_user(self, name: str, password: str, *permissions: str) -> None:
        self.broker.add_user(name, password, "nowhere")
        if permissions:
            self.broker.set_permissions(name, self.vhost, *permissions)

    def set_alarm(self, alarmed: bool) -> None:
        self.broker.faults.block() if alarmed else self.broker.faults.unblock()

    def close_connections(self, reason: str) -> None:
        self.broker.faults.close_connections(320, reason)

    def restart(self) -> None:
        self.broker.faults.restart()

    def give_back(self) -> None:
        """The next law gets a new one all the same: it costs nothing."""


class Rabbit:
    """The run's RabbitMQ."""

    def __init__(self, pool: RabbitVhosts) -> None:
        self._pool = pool
        self._vhost = vhost = pool.take()
        self.vhost = vhost.name
        self.version = pool.version

    def connect(self) -> Wire:
        return SocketWire(self._vhost.node.port)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def add_user(self, name: str, password: str, *permissions: str) -> None:
        self._vhost.node.ctl("add_user", name, password)
        if permissions:
            self._vhost.ctl("set_permissions", name, *permissions)

    def set_alarm(self, alarmed: bool) -> None:
        self._vhost.node.set_memory_alarm(alarmed)

    def close_connections(self, reason: str) -> None:
        self._vhost.ctl("close_all_connections", reason)

    def restart(self) -> None:
        self._vhost.node.restart()

    def give_back(self) -> None:
        self._pool.give_back(self._vhost)


class RabbitVhosts:
    """Virtual hosts of RabbitMQ, made in batches and used again: one costs more than most laws."""

    BATCH = 8

    def __init__(self, node: RabbitNode) -> None:
        self._node = node
        self._made = 0
        self._ready: list[Vhost] = []
        self.version = parse_version(node.version())

    def take(self) -> Vhost:
        """One that is empty."""
        if not self._ready:
            names = [f"behaviour{self._made + offset}" for offset in range(self.BATCH)]
            self._made += self.BATCH
            self._node.add_vhost(*names)
            self._ready = [Vhost(self._node, name) for name in names]
        return self._ready.pop()

    def give_back(self, vhost: Vhost) -> None:
        """One that is empty again."""
        self._ready.append(vhost)
