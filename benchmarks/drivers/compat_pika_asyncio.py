# bench: {"name": "compat.pika-asyncio", "order": 15}
"""compat.pika's AsyncioConnection, under the program for pika's select loop."""

from __future__ import annotations

import asyncio

import _compat_pika


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop, started by the name that pika's has."""

    start = asyncio.SelectorEventLoop.run_forever


if __name__ == "__main__":
    _compat_pika.put_on(_compat_pika.facade().AsyncioConnection, Loop())
    _compat_pika.run("pika_select")
