"""How much is read at once, and where to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from evamqp.adapters import _flow
from evamqp.adapters._asyncio_transport import AsyncioTransport
from evamqp.adapters._flow import QUICK, RECV_MUCH
from evamqp.adapters._socket import SocketTransport
from evamqp.adapters._tcp import RECV_SIZE
from evamqp.adapters.select import SelectAdapter
from evamqp.testing.contract import RecordingStream, pattern


class Clock:
    """A stream's clock, and a stream that takes ``seconds`` for each read."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now = 0.0
        self.pieces: list[bytes] = []
        self.seconds = seconds
        self.stream = RecordingStream()
        self.stream.data_received = self.receive  # type: ignore[method-assign]
        patch.setattr(_flow, "monotonic", lambda: self.now)

    def receive(self, data: bytes) -> None:
        self.pieces.append(data)
        self.now += self.seconds * len(data) / RECV_SIZE


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize(("seconds", "then"), [(QUICK / 2, RECV_MUCH), (QUICK * 2, RECV_SIZE)])
def test_more_is_read_at_once_of_much_that_is_taken_quickly(
    monkeypatch: pytest.MonkeyPatch, seconds: float, then: int
) -> None:
    clock = Clock(monkeypatch, seconds)
    adapter = SelectAdapter()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    rest = memoryview(pattern(1024 * 1024))
    transport = SocketTransport(adapter._selector, adapter.call_soon, ours, clock.stream)
    while rest:
        with suppress(BlockingIOError):
            while rest:
                rest = rest[theirs.send(rest) :]
        while sum(map(len, clock.pieces)) + len(rest) < 1024 * 1024:
            adapter.turn(1)
    assert b"".join(clock.pieces) == pattern(1024 * 1024)
    assert len(clock.pieces[0]) == RECV_SIZE
    assert RECV_SIZE <= max(map(len, clock.pieces)) <= then
    assert (max(map(len, clock.pieces)) > RECV_SIZE) is (then == RECV_MUCH)
    theirs.send(b"little")
    adapter.turn(1)
    assert transport._room == RECV_SIZE
    transport.abort()
    theirs.close()
    adapter.turn(0)
    adapter.close()


def read(transport: AsyncioTransport, data: bytes) -> int:
    """Do what asyncio does for a read; return how much it could have read."""
    view = transport.get_buffer(-1)
    view[: len(data)] = data
    transport.buffer_updated(len(data))
    return len(view)


@pytest.mark.parametrize(("seconds", "then"), [(QUICK / 2, RECV_MUCH), (QUICK * 2, RECV_SIZE)])
def test_asyncio_reads_as_much_into_a_buffer_that_all_connections_share(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop, seconds: float, then: int
) -> None:
    clock = Clock(monkeypatch, seconds)
    transports = [AsyncioTransport(loop, lambda made: None) for _ in range(2)]
    for transport in transports:
        transport._stream = clock.stream
    one, other = transports
    much = pattern(RECV_SIZE)
    assert [read(one, much), read(one, b"last"), read(one, b"little")] == [
        RECV_SIZE,
        then,
        RECV_SIZE,
    ]
    assert read(other, b"other") == RECV_SIZE
    assert clock.pieces == [much, b"last", b"little", b"other"]
    assert one.get_buffer(-1).obj is other.get_buffer(-1).obj
