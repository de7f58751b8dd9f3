# bench: {"name": "kombu-evamqp", "order": 20}
"""kombu on evamqp."""

from __future__ import annotations

import evamqp.integrations.kombu  # noqa: F401  makes evamqp:// known
from _kombu import runner
from _measure import main

if __name__ == "__main__":
    main(runner("evamqp"))
