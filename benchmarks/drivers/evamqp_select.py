# bench: {"name": "evamqp-select", "order": 3, "knows": ["tls", "connections"]}
"""evamqp on its built-in loop."""

from __future__ import annotations

from _evamqp import drive
from evamqp.adapters.select import SelectAdapter

if __name__ == "__main__":
    drive(lambda config: SelectAdapter())
