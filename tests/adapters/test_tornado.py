"""The adapter contract on Tornado, and what is Tornado's own: its IOLoop, its coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
from tornado import gen
from tornado.ioloop import IOLoop

from evamqp.abc import Adapter
from evamqp.adapters.tornado import TornadoAdapter
from evamqp.errors import BadType
from evamqp.testing.contract import AdapterContract, ListenerContract


class TestTornado(AdapterContract, ListenerContract):
    def make_adapter(self) -> Adapter:
        self.io_loop = IOLoop(make_current=False)
        return TornadoAdapter(self.io_loop)

    def dispose(self, adapter: Adapter) -> None:
        self.io_loop.close()


def test_adapter_made_in_an_application_runs_on_its_io_loop() -> None:
    async def application() -> tuple[TornadoAdapter, IOLoop]:
        return TornadoAdapter(), IOLoop.current()

    adapter, io_loop = asyncio.run(application())
    assert adapter.io_loop is io_loop


def test_io_loop_started_by_hand_runs_the_adapter() -> None:
    io_loop = IOLoop(make_current=False)
    adapter = TornadoAdapter(io_loop)
    calls: list[str] = []
    adapter.call_soon(lambda: calls.append("soon"))
    adapter.call_later(0, io_loop.stop)
    io_loop.start()
    io_loop.close()
    assert calls == ["soon"]


def test_run_and_stop_serve_a_script() -> None:
    io_loop = IOLoop(make_current=False)
    adapter = TornadoAdapter(io_loop)
    calls: list[str] = []
    adapter.call_soon(lambda: calls.append("soon"))
    adapter.call_soon(adapter.stop)
    adapter.call_soon(adapter.stop)
    adapter.run()
    adapter.close()
    assert calls == ["soon"]
    assert not io_loop.asyncio_loop.is_closed()
    io_loop.close()


def test_future_can_be_yielded_in_a_tornado_coroutine_and_awaited() -> None:
    @gen.coroutine
    def old_style(future: Any) -> Generator[Any, Any, int]:
        value = yield future
        return int(value)

    async def application() -> list[int]:
        adapter = TornadoAdapter()
        promise = adapter.create_future()
        adapter.call_soon(lambda: promise.resolve(7))
        return [await old_style(promise.future), await promise.future]

    assert asyncio.run(application()) == [7, 7]


def test_rejected_future_raises_in_a_tornado_coroutine() -> None:
    @gen.coroutine
    def old_style(future: Any) -> Generator[Any, Any, None]:
        yield future

    async def application() -> None:
        adapter = TornadoAdapter()
        promise = adapter.create_future()
        adapter.call_soon(lambda: promise.reject(OSError("lost")))
        await old_style(promise.future)

    with pytest.raises(OSError, match="lost"):
        asyncio.run(application())


def test_something_that_is_no_io_loop_is_refused() -> None:
    with pytest.raises(BadType):
        TornadoAdapter(object())  # type: ignore[arg-type]
