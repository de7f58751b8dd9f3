"""A wire of memory that is cut at one byte: the virtual twin of ``tools/chaos_proxy.py``.

It holds no tests, and no word of a broker.
"""

from __future__ import annotations

from collections.abc import Callable

from chaos_proxy import DIRECTIONS, Cut, End
from evamqp.abc import Stream, Transport
from evamqp.adapters.memory import MemoryTransport


class CutWire:
    """A Stream to the adapter, a Transport to the broker's Stream, cut between the two.

    Args:
        stream: The broker's.
        cut: Where; None leaves it whole and counts.

    Attributes:
        passed: Bytes to the broker, bytes to the client.
    """

    def __init__(self, stream: Stream, cut: Cut | None) -> None:
        self._stream = stream
        self._cut = cut
        self._is_cut = False
        self.passed = [0, 0]

    # Stream: called by the adapter

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._stream.connection_made(self)
        self._pass(0, b"", lambda data: None)

    def data_received(self, data: bytes) -> None:
        self._pass(0, data, self._stream.data_received)

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stream.connection_lost(exc)

    # Transport: called by the broker

    def write(self, data: bytes) -> None:
        self._pass(1, data, self._transport.write)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _pass(self, index: int, data: bytes, on: Callable[[bytes], object]) -> None:
        cut = self._cut
        if self._is_cut:
            return
        if cut is None or DIRECTIONS[index] != cut.direction:
            self.passed[index] += len(data)
            on(data)
            return
        data = data[: cut.after - self.passed[index]]
        self.passed[index] += len(data)
        if data:
            on(data)
        if self.passed[index] >= cut.after:
            self._end(cut.end)

    def _end(self, end: End) -> None:
        if self._is_cut:
            return
        self._is_cut = True
        assert isinstance(self._transport, MemoryTransport)
        self._stream.connection_lost(None)
        {
            "reset": self._transport.reset,
            "finish": self._transport.close,
            "hole": self._transport.silence,
        }[end]()
