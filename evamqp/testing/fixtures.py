"""What the fixtures of the pytest plugin hand to a test; the plugin itself is ``pytest_evamqp``.

No pytest here.
"""

from __future__ import annotations

from evamqp.adapters.memory import MemoryAdapter
from evamqp.testing.broker import Broker


class ServedVhost:
    """A virtual host of its own on a broker that serves on TCP.

    Attributes:
        broker: The broker: ``faults``, and what it holds by ``vhost``.
        vhost: The name of the virtual host.
        url: How ``guest`` reaches it.
    """

    def __init__(self, broker: Broker, vhost: str) -> None:
        self.broker = broker
        self.vhost = vhost
        self.url: str = broker.url_of(vhost)


class MemoryBroker:
    """A broker and a loop in virtual time, in the test's own thread.

    Attributes:
        adapter: The loop: ``run_until()``, ``advance()``, ``time()``.
        broker: The broker.
        url: How ``guest`` reaches it; good for clients on the same adapter.
    """

    def __init__(self, adapter: MemoryAdapter, broker: Broker) -> None:
        self.adapter = adapter
        self.broker = broker
        self.url: str = broker.url
