"""A peer in memory whose wire is cut at one byte: the virtual twin of ``tools/chaos_proxy.py``.

No law lives here.
"""

from __future__ import annotations

from collections.abc import Callable

from chaos_proxy import DIRECTIONS, Cut, End
from evamqp.abc import Transport
from evamqp.adapters.memory import MemoryTransport
from tests.faults.peer import MemoryPeer, Store


class CutPeer(MemoryPeer):
    """A peer whose wire is cut at a byte; None leaves it whole and counts.

    Attributes:
        passed: Bytes to the broker, bytes to the client.
    """

    def __init__(self, store: Store, cut: Cut | None) -> None:
        super().__init__(store)
        self._cut = cut
        self.passed = [0, 0]

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self.peer.write = self._write
        self._pass(0, b"", lambda data: None)

    def data_received(self, data: bytes) -> None:
        self._pass(0, data, self.peer.receive)

    def _write(self, data: bytes) -> None:
        self._pass(1, data, self.transport.write)

    def _pass(self, index: int, data: bytes, on: Callable[[bytes], object]) -> None:
        cut = self._cut
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
        assert isinstance(self.transport, MemoryTransport)
        self.peer.end()
        {
            "reset": self.transport.reset,
            "finish": self.transport.close,
            "hole": self.transport.silence,
        }[end]()
