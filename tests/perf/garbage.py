"""Counts what connections leave for the garbage collector, on one loop: a program of its own.

``python garbage.py LOOP`` prints two numbers: unreachable objects of 20 bare connections of that
loop, opened and closed, and of 20 evamqp connections with a channel.  A process of its own, since
some loops run only once in one, and since nobody else's garbage may be counted.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import evamqp
from evamqp.abc import Adapter, Endpoint, Transport
from evamqp.adapters.memory import MemoryAdapter, Peer
from tests.support.frames import FrameBuffer, reply_to, start, tune

# Of each kind.
CONNECTIONS = 20
# Turns of the loop after the last one, in which the loop lets go of it.
TURNS = 5
HOST = "127.0.0.1"
FRAME_MAX = 131072

Done = Callable[[], object]
Open = Callable[[Done], object]


class Broker:
    """Answers what a client asks, in bytes."""

    def __init__(self) -> None:
        self._input = FrameBuffer(expects_header=True, frame_max=FRAME_MAX)

    def answer(self, data: bytes) -> bytes:
        has_greeted = self._input.has_header
        arrived = self._input.feed_sent(data)
        answers = [start()] if self._input.has_header and not has_greeted else []
        for sent in arrived:
            if sent.name == "connection.start-ok":
                answers.append(tune(heartbeat=0))
            answers.append(reply_to(sent))
        return b"".join(answers)


class BrokerPeer(Peer):
    """The broker at the other end of a wire made of memory."""

    __slots__ = ("_broker",)

    def __init__(self) -> None:
        super().__init__()
        self._broker = Broker()

    def data_received(self, data: bytes) -> None:
        self.send(self._broker.answer(data))


def serve(listener: socket.socket) -> None:
    """The broker in a thread, for one client after the other.  It leaves no garbage itself."""
    while True:
        connection, _ = listener.accept()
        broker = Broker()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(broker.answer(data))


class Opening(evamqp.Handler):
    """Opens a connection and a channel, and closes them."""

    def __init__(self, done: Done) -> None:
        self._done = done

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        channel.connection.close()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        assert reason.by == "client", reason
        self._done()


class Closing:
    """A stream that closes what was just opened."""

    def __init__(self, done: Done) -> None:
        self._done = done

    def connection_made(self, transport: Transport) -> None:
        transport.close()

    def data_received(self, data: bytes) -> None:
        """What comes is of no interest."""

    def pause_writing(self) -> None:
        """Nothing is written."""

    def resume_writing(self) -> None:
        """Nothing is written."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._done()


class ClosingProtocol(asyncio.Protocol):
    """The same as a protocol of asyncio's."""

    def __init__(self, done: Done) -> None:
        self._done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._done()


def open_asyncio(loop: asyncio.AbstractEventLoop, port: int, done: Done) -> None:
    """A bare connection of asyncio."""
    connecting = loop.create_connection(partial(ClosingProtocol, done), HOST, port)
    loop.create_task(connecting)


def twisted_opener(reactor: Any, port: int) -> Open:
    """What opens a bare connection of Twisted."""
    from twisted.internet import protocol

    class TwistedProtocol(protocol.Protocol):
        done: Done

        def connectionMade(self) -> None:
            transport: Any = self.transport
            transport.loseConnection()

        def connectionLost(self, reason: object = None) -> None:
            self.done()

    def open_twisted(done: Done) -> None:
        factory = protocol.ClientFactory()
        factory.protocol = TwistedProtocol
        factory.noisy = False
        TwistedProtocol.done = staticmethod(done)
        reactor.connectTCP(HOST, port, factory)

    return open_twisted


def make(name: str, port: int) -> tuple[Adapter, Open]:
    """The adapter, and what opens a bare connection of its loop."""
    if name == "asyncio":
        from evamqp.adapters.asyncio import AsyncioAdapter

        loop = asyncio.new_event_loop()
        return AsyncioAdapter(loop), partial(open_asyncio, loop, port)
    if name == "tornado":
        from tornado.ioloop import IOLoop

        from evamqp.adapters.tornado import TornadoAdapter

        tornado = TornadoAdapter(IOLoop(make_current=False))
        return tornado, partial(open_asyncio, tornado.loop, port)
    if name == "twisted":
        from evamqp.adapters.twisted import TwistedAdapter

        twisted = TwistedAdapter()
        return twisted, twisted_opener(twisted.reactor, port)
    adapter: Adapter
    if name == "select":
        from evamqp.adapters.select import SelectAdapter

        adapter = SelectAdapter()
    else:
        adapter = memory = MemoryAdapter()
        memory.listen(HOST, port, BrokerPeer)

    def open_bare(done: Done) -> None:
        adapter.connect(Endpoint(HOST, port), Closing(done))

    return adapter, open_bare


class Count:
    """Opens connections one after the other, and tells how much garbage they made."""

    def __init__(self, adapter: Adapter, stages: list[Open]) -> None:
        self._adapter = adapter
        self._stages = stages
        self._left = 0
        self.found: list[int] = []

    def run(self) -> list[int]:
        gc.disable()
        self._adapter.call_soon(self._begin)
        self._adapter.run()
        return self.found

    def _begin(self) -> None:
        gc.collect()
        self._left = CONNECTIONS
        self._open()

    def _open(self) -> None:
        self._left -= 1
        self._stages[0](self._opened)

    def _opened(self) -> None:
        if self._left:
            self._adapter.call_soon(self._open)
        else:
            self._wait(TURNS)

    def _wait(self, turns: int) -> None:
        if turns:
            self._adapter.call_soon(partial(self._wait, turns - 1))
            return
        self.found.append(gc.collect())
        del self._stages[0]
        if self._stages:
            self._adapter.call_soon(self._begin)
        else:
            self._adapter.stop()


def main(name: str) -> None:
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    adapter, open_bare = make(name, port)
    target = evamqp.Parameters(host=HOST, port=port)

    def open_ours(done: Done) -> None:
        evamqp.connect(target, Opening(done), adapter=adapter)

    # The first of each kind sets up what stays for the life of the process.
    found = Count(adapter, [open_bare, open_ours, open_bare, open_ours]).run()
    sys.stdout.write(f"{found[2]} {found[3]}\n")


if __name__ == "__main__":
    main(sys.argv[1])
