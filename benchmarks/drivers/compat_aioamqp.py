# bench: {"name": "compat.aioamqp", "order": 24}
"""The driver of aioamqp as it is, on evamqp's facade."""

from __future__ import annotations

import runpy
from pathlib import Path

from evamqp.compat import substitute

if __name__ == "__main__":
    substitute("aioamqp")
    runpy.run_path(str(Path(__file__).parent / "peers" / "aio_amqp.py"), run_name="__main__")
