"""What carries a behaviour client's bytes: a blocking socket, or the memory adapter.

No AMQP here.
"""

from __future__ import annotations

import socket
import time

from evamqp.abc import Endpoint
from evamqp.adapters.memory import MemoryAdapter, Peer

RECEIVE_SIZE = 256 * 1024


class SocketWire:
    """A blocking socket to 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, seconds: float) -> bytes:
        self._socket.settimeout(max(0.001, seconds))
        return self._socket.recv(RECEIVE_SIZE)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        self._socket.close()


class MemoryWire:
    """A connection of the memory adapter; waiting for it moves the virtual clock."""

    #: Virtual seconds of one step while waiting.
    STEP = 0.01

    def __init__(self, adapter: MemoryAdapter, host: str, port: int) -> None:
        self._adapter = adapter
        self._peer = Peer()
        adapter.connect(Endpoint(host, port), self._peer)
        adapter.run_until_idle()
        if not self._peer.is_connected:
            raise ConnectionRefusedError(self._peer.reason)

    def send(self, data: bytes) -> None:
        self._peer.transport.write(data)

    def receive(self, seconds: float) -> bytes:
        self._adapter.run_until_idle()
        end = self._adapter.time() + seconds
        while not self._peer.received:
            if not self._peer.is_connected:
                if self._peer.reason is not None:
                    raise self._peer.reason
                return b""
            if self._adapter.time() >= end:
                raise TimeoutError
            self._adapter.advance(self.STEP)
        data = bytes(self._peer.received)
        self._peer.received.clear()
        return data

    def sleep(self, seconds: float) -> None:
        self._adapter.advance(seconds)

    def close(self) -> None:
        self._peer.transport.close()
        self._adapter.run_until_idle()
