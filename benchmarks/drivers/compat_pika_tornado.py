# bench: {"name": "compat.pika-tornado", "order": 15}
"""compat.pika's TornadoConnection, under the program for pika's select loop."""

from __future__ import annotations

from tornado.ioloop import IOLoop

import _compat_pika

if __name__ == "__main__":
    _compat_pika.put_on(_compat_pika.facade().TornadoConnection, IOLoop())
    _compat_pika.run("pika_select")
