# bench: {"name": "evamqp-tornado", "order": 5, "knows": ["tls", "connections"]}
"""evamqp on Tornado's IOLoop."""

from __future__ import annotations

from tornado.ioloop import IOLoop

from _evamqp import drive
from evamqp.adapters.tornado import TornadoAdapter

if __name__ == "__main__":
    drive(lambda config: TornadoAdapter(IOLoop(make_current=False)))
