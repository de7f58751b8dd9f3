# bench: {"name": "compat.pika-blocking", "order": 15}
"""compat.pika's BlockingConnection."""

from __future__ import annotations

import _compat_pika

if __name__ == "__main__":
    _compat_pika.facade()
    _compat_pika.run("pika_blocking")
