"""The broker of a test, by its URL; parametrize ``url`` by BROKERS."""

from __future__ import annotations

from tests.support.broker_url import url, vhosts

__all__ = ["url", "vhosts"]
