"""The types of exchange that every broker has."""

from __future__ import annotations

from enum import Enum


class ExchangeType(str, Enum):
    """Values of ``exchange_type``; a member is the ``str`` that goes to the broker."""

    direct = "direct"
    fanout = "fanout"
    headers = "headers"
    topic = "topic"

    def __str__(self) -> str:
        return f"ExchangeType.{self.name}"
