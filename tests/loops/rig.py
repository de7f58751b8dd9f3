"""One loop, one small broker and the connections between them: what a law is checked on.

No law and no fixture lives here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import evamqp
from tests.loops.broker import HOST, Broker, MemoryEnd, TcpEnd
from tests.support.loops import SOCKET_LOOPS, Loop, MemoryLoop


class Rig:
    """One loop, the small broker, and the connections between them."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.broker = Broker()
        self.tcp: TcpEnd | None = None
        self._connections: list[evamqp.Connection] = []
        if isinstance(loop, MemoryLoop):
            loop.memory.listen(HOST, 5672, lambda: MemoryEnd(self.broker))
            self.port = 5672
        else:
            self.tcp = TcpEnd(self.broker)
            self.port = self.tcp.port

    def dial(
        self, handler: evamqp.Handler | None = None, *, adapter: Any = None, **parameters: Any
    ) -> evamqp.Connection:
        """Begin to connect."""
        target = evamqp.Parameters(HOST, self.port, **parameters)
        connection = evamqp.connect(target, handler, adapter=adapter or self.loop.adapter)
        self._connections.append(connection)
        return connection

    def connect(self, handler: evamqp.Handler | None = None, **options: Any) -> evamqp.Connection:
        """Connect, and wait until it is open."""
        connection = self.dial(handler, **options)
        self.loop.until(lambda: connection.is_open)
        return connection

    def open(self, handler: evamqp.Handler | None = None, **options: Any) -> evamqp.Channel:
        """Connect, and open a channel."""
        channel = self.connect(handler, **options).channel()
        self.loop.until(lambda: channel.is_open)
        return channel

    def settle(self, request: evamqp.Request[Any]) -> None:
        """Turn the loop until the request has its outcome."""
        self.loop.until(lambda: request.is_done)

    def finish(self) -> None:
        """Close what is open."""
        if self.tcp is not None:
            self.tcp.reading.set()
        for connection in self._connections:
            self.settle(connection.close())
        if self.tcp is not None:
            self.tcp.close()


def on(*names: str) -> Callable[[Any], Any]:
    """Mark a test as one for these loops only."""
    return pytest.mark.parametrize("loop_name", names)


on_sockets = on(*SOCKET_LOOPS)
