# bench: {"name": "kombu-pyamqp", "order": 23}
"""kombu on py-amqp, which is its default."""

from __future__ import annotations

from _kombu import runner
from _measure import main

if __name__ == "__main__":
    main(runner("pyamqp"))
