# bench: {"name": "evamqp-asyncio", "order": 4, "variants": {"uvloop": {"loop": "uvloop"}}, "knows": ["tls", "connections"]}
"""evamqp on asyncio, and on uvloop with ``loop=uvloop``."""

from __future__ import annotations

import asyncio

from _evamqp import drive
from _measure import Config
from evamqp.adapters.asyncio import AsyncioAdapter


def make_adapter(config: Config) -> AsyncioAdapter:
    if config.loop != "uvloop":
        return AsyncioAdapter(asyncio.new_event_loop())
    import uvloop

    return AsyncioAdapter(uvloop.new_event_loop())


if __name__ == "__main__":
    drive(make_adapter)
