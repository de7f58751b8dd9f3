"""pika's adapters; each is loaded when it is first asked for."""

from __future__ import annotations

from typing import Any

from .._lazy import lazy_attribute

_LAZY = {
    "AsyncioConnection": "asyncio_connection",
    "BaseConnection": "base_connection",
    "BlockingConnection": "blocking_connection",
    "Connection": "thread_safe_connection",
    "GeventConnection": "gevent_connection",
    "IOLoop": "select_connection",
    "SelectConnection": "select_connection",
    "TornadoConnection": "tornado_connection",
    "TwistedProtocolConnection": "twisted_connection",
}
# Programs of the 0.x era read these as attributes, without importing them.
_MODULES = (*dict.fromkeys(_LAZY.values()), "thread_safe_connection", "utils")


def __getattr__(name: str) -> Any:
    return lazy_attribute(globals(), name, _MODULES, _LAZY)
