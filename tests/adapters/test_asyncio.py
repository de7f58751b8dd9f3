"""asyncio and uvloop beyond the contract: whose loop it is, native futures, sockets closed once.

What every loop owes is in test_contract.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evamqp.abc import Endpoint
from evamqp.adapters.asyncio import AsyncioAdapter
from evamqp.errors import WrongState
from evamqp.testing.contract import LoopbackServer, RecordingStream
from tests.adapters.conftest import Handler

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def _uvloop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@pytest.fixture(params=[asyncio.new_event_loop, _uvloop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    make: NewLoop = request.param
    loop = make()
    yield loop
    loop.close()


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    yield server
    server.close()


async def _until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_adapter_takes_the_running_loop(loop: asyncio.AbstractEventLoop) -> None:
    async def make() -> AsyncioAdapter:
        return AsyncioAdapter()

    adapter = loop.run_until_complete(make())
    assert adapter.loop is loop
    adapter.close()
    assert not loop.is_closed()


def test_adapter_without_a_running_loop_makes_and_closes_one() -> None:
    adapter = AsyncioAdapter()
    calls: list[asyncio.AbstractEventLoop] = []
    adapter.call_soon(lambda: calls.append(asyncio.get_running_loop()))
    adapter.call_soon(adapter.stop)
    adapter.run()
    assert calls == [adapter.loop]
    adapter.close()
    adapter.close()
    assert adapter.loop.is_closed()


def test_closing_an_adapter_whose_loop_runs_is_refused_and_changes_nothing() -> None:
    adapter = AsyncioAdapter()
    ends: list[str] = []
    adapter.when_closed(lambda adapter: ends.append("closed"))

    async def close() -> None:
        with pytest.raises(WrongState):
            adapter.close()

    adapter.run_until(close())
    assert ends == []
    adapter.close()
    assert ends == ["closed"]


def test_stop_before_run_ends_that_run_alone(loop: asyncio.AbstractEventLoop) -> None:
    adapter = AsyncioAdapter(loop)
    calls: list[str] = []
    adapter.stop()
    adapter.stop()
    adapter.run()
    adapter.call_soon(lambda: calls.append("ran"))
    adapter.call_later(0.001, adapter.stop)
    adapter.run()
    assert calls == ["ran"]


def test_second_stop_does_not_end_the_next_run(loop: asyncio.AbstractEventLoop) -> None:
    adapter = AsyncioAdapter(loop)
    calls: list[str] = []
    adapter.call_soon(adapter.stop)
    adapter.call_soon(adapter.stop)
    adapter.run()
    adapter.call_later(0.001, lambda: calls.append("ran"))
    adapter.call_later(0.001, adapter.stop)
    adapter.run()
    assert calls == ["ran"]


def test_stop_in_a_signal_handler_wakes_a_loop_that_sleeps(
    loop: asyncio.AbstractEventLoop, on_signal: Callable[[Handler], int]
) -> None:
    adapter = AsyncioAdapter(loop)
    number = on_signal(lambda *_: adapter.stop())
    thread = threading.Thread(target=os.kill, args=(os.getpid(), number))
    adapter.call_soon(thread.start)
    adapter.run()
    thread.join()


def test_future_is_the_loops_own(loop: asyncio.AbstractEventLoop) -> None:
    adapter = AsyncioAdapter(loop)

    async def wait() -> Any:
        first, second = adapter.create_future(), adapter.create_future()
        adapter.call_soon(lambda: first.resolve(3))
        adapter.call_soon(lambda: second.resolve(4))
        return await asyncio.wait_for(asyncio.gather(first.future, second.future), 5)

    assert loop.run_until_complete(wait()) == [3, 4]


def test_settling_a_future_that_was_cancelled_does_nothing(
    loop: asyncio.AbstractEventLoop,
) -> None:
    promise = AsyncioAdapter(loop).create_future()
    promise.future.cancel()
    promise.resolve(1)
    promise.reject(OSError("late"))
    assert promise.future.cancelled()


def test_each_piece_is_bytes_of_its_own(
    loop: asyncio.AbstractEventLoop, server: LoopbackServer
) -> None:
    adapter, stream = AsyncioAdapter(loop), RecordingStream()
    pieces: list[bytes] = []

    def receive(data: bytes) -> None:
        pieces.append(data)

    stream.data_received = receive  # type: ignore[method-assign]

    async def talk() -> None:
        adapter.connect(Endpoint("127.0.0.1", server.port), stream)
        await _until(lambda: stream.is_made)
        peer = server.accept()
        peer.send(b"first")
        await _until(lambda: len(pieces) == 1)
        peer.send(b"other")
        await _until(lambda: len(pieces) == 2)
        stream.abort()
        await _until(lambda: stream.is_lost)

    loop.run_until_complete(talk())
    assert pieces == [b"first", b"other"]


def test_socket_is_closed_once_when_the_stream_ends_as_it_is_made(
    loop: asyncio.AbstractEventLoop, server: LoopbackServer
) -> None:
    adapter, stream = AsyncioAdapter(loop), RecordingStream()
    stream.on_made = stream.abort
    others: list[socket.socket] = []

    async def talk() -> None:
        adapter.connect(Endpoint("127.0.0.1", server.port), stream)
        await _until(lambda: stream.is_lost)
        # These take the number that was freed; a second close would hit one of them.
        others.extend(socket.socketpair())
        await asyncio.sleep(0.01)

    loop.run_until_complete(talk())
    for other in others:
        assert other.getsockname() is not None
        other.close()


def test_end_of_the_application_in_mid_dial_leaves_nothing_open(server: LoopbackServer) -> None:
    stream = RecordingStream()
    server.fall_silent()

    async def leave() -> None:
        AsyncioAdapter().connect(Endpoint("127.0.0.1", server.port), stream)
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert not stream.is_made


def test_descriptors_above_1023_work(loop: asyncio.AbstractEventLoop, thousand_files: None) -> None:
    adapter, stream, server = AsyncioAdapter(loop), RecordingStream(), LoopbackServer()
    assert server.sock.fileno() > 1023

    async def talk() -> None:
        adapter.connect(Endpoint("127.0.0.1", server.port), stream)
        await _until(lambda: stream.is_made)
        server.accept().send(b"far up")
        await _until(lambda: stream.data == b"far up")
        stream.abort()
        await _until(lambda: stream.is_lost)

    loop.run_until_complete(talk())
    server.close()


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_program_that_ends_while_it_dials_prints_nothing_of_asyncios(seconds: float) -> None:
    program = f"""
import asyncio, socket
import evamqp

with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    port = unused.getsockname()[1]

async def main():
    global publisher
    publisher = evamqp.Publisher(f"amqp://127.0.0.1:{{port}}")
    await asyncio.sleep({seconds})

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Traceback" not in ended.stderr
    assert "Task" not in ended.stderr
