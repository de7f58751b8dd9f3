"""An embedded broker for tests and demos, and the contract suite of adapters.

``Broker`` is loaded when it is asked for.  Production is RabbitMQ.

    broker/    the embedded broker
    contract/  the test suite of an adapter
    fixtures   what the pytest plugin hands to a test
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evamqp.testing.broker import Broker as Broker

__all__ = ["Broker"]


def __getattr__(name: str) -> object:
    if name == "Broker":
        from evamqp.testing.broker import Broker

        return Broker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
