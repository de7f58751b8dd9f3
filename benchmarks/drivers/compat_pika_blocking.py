# bench: {"name": "compat-pika-blocking", "order": 8}
"""The same programs as pika-blocking's, on evamqp.compat.pika."""

from __future__ import annotations

import evamqp.compat.pika as pika
from _pika_blocking import drive

if __name__ == "__main__":
    drive(pika)
