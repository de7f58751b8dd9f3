"""The names of pika on evamqp: ``import evamqp.compat.pika as pika``.

Connections are loaded when they are first asked for, so that a program gets only its own loop.

Attributes:
    ERA: Which of pika's call styles to assume where a call does not show it: ``"1.x"``,
        ``"0.x"`` (0.10 to 0.13) or ``"0.9"``.  None: each connection finds out by itself.  The
        environment's ``EVAMQP_PIKA_ERA`` sets it for a program that is not to be edited.
"""

from __future__ import annotations

import os
from typing import Any

from . import adapters, exceptions, spec
from ._lazy import lazy_attribute
from .connection import ConnectionParameters, SSLOptions, URLParameters
from .credentials import ExternalCredentials, PlainCredentials
from .delivery_mode import DeliveryMode
from .exchange_type import ExchangeType
from .spec import BasicProperties

# The release whose API this is.
__version__ = "1.4.4"

ERA: str | None = os.environ.get("EVAMQP_PIKA_ERA") or None

__all__ = [
    "ERA",
    "AMQPConnectionWorkflow",
    "AsyncioConnection",
    "BaseConnection",
    "BasicProperties",
    "BlockingConnection",
    "ConnectionParameters",
    "DeliveryMode",
    "ExchangeType",
    "ExternalCredentials",
    "PlainCredentials",
    "SSLOptions",
    "SelectConnection",
    "TornadoConnection",
    "URLParameters",
    "__version__",
    "adapters",
    "exceptions",
    "spec",
]

_LAZY = {
    "AMQPConnectionWorkflow": "adapters.utils.connection_workflow",
    "AsyncioConnection": "adapters.asyncio_connection",
    "BaseConnection": "adapters.base_connection",
    "BlockingConnection": "adapters.blocking_connection",
    "Connection": "connection",
    "SelectConnection": "adapters.select_connection",
    "TornadoConnection": "adapters.tornado_connection",
}
# What is there after ``import pika`` alone.
_MODULES = (
    "amqp_object", "callback", "channel", "compat", "connection", "credentials", "data",
    "delivery_mode", "diagnostic_utils", "exchange_type", "frame", "heartbeat", "tcp_socket_opts",
    "validators",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    return lazy_attribute(globals(), name, _MODULES, _LAZY)
