# bench: {"name": "evamqp-twisted", "order": 6, "knows": ["tls", "connections"]}
"""evamqp on Twisted's default reactor."""

from __future__ import annotations

from _evamqp import drive
from evamqp.adapters.twisted import TwistedAdapter

if __name__ == "__main__":
    drive(lambda config: TwistedAdapter())
