"""The broker of a test, by its URL; parametrize ``url`` by BROKERS."""

from __future__ import annotations

import pytest

from tests.support.broker_url import url, vhosts

pytest.register_assert_rewrite("tests.compat.pika.rig")

__all__ = ["url", "vhosts"]
