# bench: {"name": "compat.aio_pika", "order": 22, "variants": {"robust": {"robust": 1}}}
"""The driver of aio-pika as it is, on evamqp's facade."""

from __future__ import annotations

import runpy
from pathlib import Path

from evamqp.compat import substitute

if __name__ == "__main__":
    substitute("aio_pika")
    runpy.run_path(str(Path(__file__).parent / "peers" / "aiopika.py"), run_name="__main__")
