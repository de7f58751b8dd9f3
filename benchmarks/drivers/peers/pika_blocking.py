# bench: {"name": "pika-blocking", "order": 22}
"""pika's BlockingConnection."""

from __future__ import annotations

import pika

from _pika_blocking import drive

if __name__ == "__main__":
    drive(pika)
