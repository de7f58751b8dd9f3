"""One loop, one scripted broker and the connections between them: what a law is checked on.

It holds no tests and no fixtures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import evamqp
from tests.support.loops import SOCKET_LOOPS, Loop, MemoryLoop
from tests.support.scripted_broker import Publish, ScriptedBroker
from tests.support.server_thread import HOST, ServerThread

#: Where an answer tells more than that it came.
ANSWERS: dict[str, tuple[object, ...]] = {"queue.declare": ("q", 0, 0), "queue.purge": (7,)}


def confirm(publish: Publish) -> None:
    """Take a publish and queue it nowhere."""
    if publish.channel.is_confirming:
        publish.ack()


class Rig:
    """One loop, the scripted broker, and the connections between them.

    Attributes:
        server: Where the broker listens with sockets; None in memory.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.broker = ScriptedBroker(confirm)
        self.broker.answers = dict(ANSWERS)
        self.server: ServerThread | None = None
        self._connections: list[evamqp.Connection] = []
        if isinstance(loop, MemoryLoop):
            loop.memory.listen(HOST, 5672, self.broker.accept)
            self.port = 5672
        else:
            self.server = ServerThread(self.broker.accept, receive_buffer=64 * 1024)
            self.port = self.server.port

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

    def release(self) -> None:
        """Have the broker send the answers that it holds back, and hold back nothing more."""
        if self.server is None:
            self.broker.release()
        else:
            self.server.call(self.broker.release)

    def finish(self) -> None:
        """Close what is open."""
        if self.server is not None:
            self.server.resume_reading()
        for connection in self._connections:
            self.settle(connection.close())
        self.stop()

    def stop(self) -> None:
        """End the broker.  Idempotent."""
        if self.server is not None:
            self.server.close()


def on(*names: str) -> Callable[[Any], Any]:
    """Mark a test as one for these loops only."""
    return pytest.mark.parametrize("loop_name", names)


on_sockets = on(*SOCKET_LOOPS)
