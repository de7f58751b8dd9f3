"""An embedded broker for tests and demos, and the contract suite of adapters.

``Broker`` is loaded when it is asked for.  It is for tests and demos; production is RabbitMQ.
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
