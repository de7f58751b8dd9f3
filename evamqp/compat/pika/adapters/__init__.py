"""pika's adapters; each is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_LAZY = {
    "AsyncioConnection": "asyncio_connection",
    "BaseConnection": "base_connection",
    "BlockingConnection": "blocking_connection",
    "GeventConnection": "gevent_connection",
    "IOLoop": "select_connection",
    "SelectConnection": "select_connection",
    "TornadoConnection": "tornado_connection",
    "TwistedProtocolConnection": "twisted_connection",
}
# Programs of the 0.x era read these as attributes, without importing them.
_MODULES = (*dict.fromkeys(_LAZY.values()), "thread_safe_connection", "utils")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    except ImportError as error:  # its loop's package is not installed
        raise AttributeError(f"{__name__}.{name}: {error}") from error
    globals()[name] = value
    return value
