"""A broker small enough to be read: it answers what the tests of the loops ask, over TCP or memory.

It speaks by the codec and follows a script: what to hold back, what to refuse, when to stop
reading.  Routing, durability and everything else that makes a broker is RabbitMQ's.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from evamqp.abc import Transport
from evamqp.codec.frames import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_METHOD,
    PROTOCOL_HEADER,
    body_frames,
    content_header_frame,
    method_frame,
    split_frames,
)
from evamqp.codec.methods import decode_arguments
from evamqp.codec.spec import BY_KEY, BY_NAME, Method

HOST = "127.0.0.1"
FRAME_MAX = 131_072
TIMEOUT = 10.0
NO_PROPERTIES = b"\x00\x00"
START = (0, 9, {"product": "a small broker"}, b"PLAIN", b"en_US")
TUNE = (2047, FRAME_MAX, 0)
# What a method is answered with, where the answer has arguments.
ANSWERS: dict[str, tuple[object, ...]] = {
    "queue.declare": ("q", 0, 0),
    "queue.purge": (7,),
    "queue.delete": (7,),
    "channel.flow": (True,),
}


class Broker:
    """The broker's side of one connection.  ``write`` is what sends; set it before ``receive``.

    Attributes:
        methods: Names of the methods that came, in order.
        bodies: What was published, in order.
        keeps_bodies: Whether it is noted there.
        queue: What basic_get takes, and where a requeued message goes.
        held: Methods that are not answered until release().
        refused: Methods that close their channel with this code.
    """

    def __init__(self) -> None:
        self.write: Callable[[bytes], object] = lambda data: None
        self.methods: list[str] = []
        self.bodies: list[bytes] = []
        self.keeps_bodies = True
        self.queue: deque[bytes] = deque()
        self.held: set[str] = set()
        self.refused: dict[str, int] = {}
        self._kept_back: list[bytes] = []
        self._lock = threading.RLock()  # over TCP it is fed by a thread of its own
        self._input = b""
        self._greeted = False
        self._publish: list[bytes] | None = None  # the pieces of the body that is coming
        self._missing = 0
        self._published = 0  # on the channel in confirm mode
        self._confirms = False
        self._delivered = 0
        self._unsettled: dict[int, bytes] = {}

    def receive(self, data: bytes) -> None:
        """Take bytes, and answer them."""
        with self._lock:
            self._input += data
            if not self._greeted:
                self._greet()
            frames, used = split_frames(self._input, 0, FRAME_MAX, FRAME_MAX)
            self._input = self._input[used:]
            for kind, channel, payload in frames:
                self._frame(kind, channel, payload)

    def release(self) -> None:
        """Send the answers held back so far, and hold back nothing more."""
        with self._lock:
            self.held.clear()
            kept, self._kept_back = self._kept_back, []
            self.write(b"".join(kept))

    def _greet(self) -> None:
        if len(self._input) >= len(PROTOCOL_HEADER):
            assert self._input.startswith(PROTOCOL_HEADER)
            self._input = self._input[len(PROTOCOL_HEADER) :]
            self._greeted = True
            self.write(method_frame(0, "connection.start", *START))

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == FRAME_METHOD:
            method = BY_KEY[int.from_bytes(payload[:4], "big")]
            self.methods.append(method.name)
            self._method(channel, method, decode_arguments(method, payload))
        elif kind == FRAME_HEADER:
            self._missing = int.from_bytes(payload[4:12], "big")
            self._body(channel, b"")
        elif kind == FRAME_BODY:
            self._body(channel, payload)

    def _method(self, channel: int, method: Method, arguments: tuple[object, ...]) -> None:
        if method.name in self.refused:
            code = self.refused[method.name]
            ids = (method.class_id, method.method_id)
            answer = method_frame(channel, "channel.close", code, "refused", *ids)
        else:
            answer = self._answer(channel, method, arguments)
        if method.name in self.held or (self._kept_back and channel):
            self._kept_back.append(answer)  # and all behind it, since answers keep their order
        elif answer:
            self.write(answer)

    def _answer(self, channel: int, method: Method, arguments: tuple[object, ...]) -> bytes:
        if method.name == "connection.start-ok":
            return method_frame(0, "connection.tune", *TUNE)
        if method.name == "basic.publish":
            self._publish = []
        elif method.name == "basic.get":
            return self._get(channel)
        elif method.name == "basic.ack":
            self._unsettled.pop(int(str(arguments[0])), None)
        elif method.name == "basic.nack":
            self.queue.append(self._unsettled.pop(int(str(arguments[0])), b""))
        elif method.name == "confirm.select":
            self._confirms = True
            self._published = 0
        if not method.replies:
            return b""
        values = ANSWERS.get(method.name, ())
        if method.name == "basic.consume":
            values = arguments[1:2]  # the consumer tag
        elif method.name == "basic.cancel":
            values = arguments[:1]
        assert len(BY_NAME[method.replies[0]].arguments) == len(values), method
        return method_frame(channel, method.replies[0], *values)

    def _get(self, channel: int) -> bytes:
        if not self.queue:
            return method_frame(channel, "basic.get-empty")
        body = self.queue.popleft()
        self._delivered += 1
        self._unsettled[self._delivered] = body
        get_ok = method_frame(
            channel, "basic.get-ok", self._delivered, False, "", "q", len(self.queue)
        )
        header = content_header_frame(channel, NO_PROPERTIES, len(body))
        return b"".join((get_ok, header, *body_frames(channel, body, FRAME_MAX)))

    def _body(self, channel: int, piece: bytes) -> None:
        assert self._publish is not None
        self._publish.append(piece)
        self._missing -= len(piece)
        if self._missing:
            return
        if self.keeps_bodies:
            self.bodies.append(b"".join(self._publish))
        self._publish = None
        if self._confirms:
            self._published += 1
            self.write(method_frame(channel, "basic.ack", self._published, False))


class MemoryEnd:
    """Puts a Broker behind a listener of the memory adapter."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def connection_made(self, transport: Transport) -> None:
        self._broker.write = transport.write

    def data_received(self, data: bytes) -> None:
        self._broker.receive(data)

    def pause_writing(self) -> None:
        """Everything asked here is small."""

    def resume_writing(self) -> None:
        """Everything asked here is small."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._broker.write = lambda data: None


class TcpEnd:
    """Puts a Broker behind a port of 127.0.0.1, in a thread of its own.

    Attributes:
        port: Where it listens.
        reading: Clear it, and the broker reads no more until it is set.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._listener = socket.create_server((HOST, 0))
        # A small window, so that a broker that stops reading is soon felt; accepted sockets
        # inherit it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.port: int = self._listener.getsockname()[1]
        self.reading = threading.Event()
        self.reading.set()
        self._accepted: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name="small broker")
        self._thread.start()

    def close(self) -> None:
        """End everything.  Idempotent."""
        self._shut(self._listener)  # wakes accept()
        if self._accepted is not None:
            self._shut(self._accepted)
        self.reading.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self._listener.close()

    def _shut(self, sock: socket.socket) -> None:
        with suppress(OSError):  # not connected any more
            sock.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with suppress(OSError):
            sock, _ = self._listener.accept()
            with sock:
                self._accepted = sock
                self._broker.write = sock.sendall
                self._read(sock)

    def _read(self, sock: socket.socket) -> None:
        while True:
            data = sock.recv(FRAME_MAX)
            self.reading.wait()
            if not data:
                return
            self._broker.receive(data)
