"""Whether a durable queue keeps a message on disk."""

from __future__ import annotations

from enum import Enum


class DeliveryMode(Enum):
    """Values of ``BasicProperties.delivery_mode``."""

    Transient = 1
    Persistent = 2
