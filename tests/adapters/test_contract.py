"""The adapter contract on the loops whose adapters this package brings and asyncio can run.

Every law is in ``evamqp.testing.contract``; here is only how each adapter is made.
"""

from __future__ import annotations

import sys

import pytest

from evamqp.abc import Adapter
from evamqp.adapters.asyncio import AsyncioAdapter
from evamqp.adapters.select import SelectAdapter
from evamqp.testing.contract import AdapterContract, ListenerContract


class TestSelect(AdapterContract, ListenerContract):
    def make_adapter(self) -> Adapter:
        return SelectAdapter()


class TestAsyncio(AdapterContract, ListenerContract):
    def make_adapter(self) -> Adapter:
        return AsyncioAdapter()


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run on Windows")
class TestUvloop(AdapterContract, ListenerContract):
    def make_adapter(self) -> Adapter:
        import uvloop

        return AsyncioAdapter(uvloop.new_event_loop())

    def dispose(self, adapter: Adapter) -> None:
        assert isinstance(adapter, AsyncioAdapter)
        adapter.loop.close()
