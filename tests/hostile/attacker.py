"""A peer on 127.0.0.1 that follows a script instead of a protocol, in a thread of its own.

What the scripts do to a connection is judged elsewhere.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from evamqp.codec.frames import PROTOCOL_HEADER, method_frame
from tests.support.frames import FRAME_MAX, OPEN_OK, FrameBuffer, Sent, reply_to, start, tune

HOST = "127.0.0.1"
TIMEOUT = 5.0


class Talk:
    """The attacker's side of one connection.

    Attributes:
        received: Bytes that came from the client.
    """

    def __init__(self, sock: socket.socket, over: threading.Event, patience: float) -> None:
        sock.settimeout(patience)
        self._socket = sock
        self._patience = patience
        self._over = over
        self._input = FrameBuffer()
        self._methods: deque[Sent] = deque()  # what came and was not expected yet
        self.received = 0

    def send(self, *data: bytes) -> None:
        """Send all of it, or raise OSError when the client is gone."""
        self._socket.sendall(b"".join(data))

    def read(self) -> bytes:
        """What the client says next; b"" if it has hung up."""
        data = self._socket.recv(FRAME_MAX)
        self.received += len(data)
        return data

    def expect(self, method: str) -> None:
        """Read until the client has sent this method; ConnectionResetError if it never does."""
        while True:
            if self.next_method().name == method:
                return

    def next_method(self) -> Sent:
        """The next method of the client; ConnectionResetError if it hangs up first."""
        while not self._methods:
            data = self.read()
            if not data:
                raise ConnectionResetError("the client hung up")
            self._methods += [
                sent
                for sent in self._input.feed_sent(data.removeprefix(PROTOCOL_HEADER))
                if sent.is_method
            ]
        return self._methods.popleft()

    def shake_hands(self, heartbeat: int = 0) -> None:
        """An honest handshake."""
        self.send(start())
        self.expect("connection.start-ok")
        self.send(tune(heartbeat=heartbeat))
        self.expect("connection.open")
        self.send(OPEN_OK)

    def serve_a_consumer(self) -> None:
        """An honest channel with an honest consumer ``tag``."""
        self.expect("channel.open")
        self.send(method_frame(1, "channel.open-ok"))
        self.expect("basic.consume")
        self.send(method_frame(1, "basic.consume-ok", "tag"))

    def serve_any_consumer(self) -> str:
        """Answer whatever a client asks until it consumes; returns its consumer tag."""
        while True:
            sent = self.next_method()
            self.send(reply_to(sent))
            if sent.name == "basic.consume":
                return str(sent.arguments[1])

    def wait(self) -> None:
        """Do nothing, until the test is over."""
        self._over.wait(self._patience)

    def pause(self, seconds: float) -> bool:
        """Do nothing for a while; False when the test is over."""
        return not self._over.wait(seconds)

    def drain(self) -> None:
        """Read until the client hangs up."""
        while self.read():
            pass

    def reset(self) -> None:
        """End by RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def hang_up(self) -> None:
        """End by FIN, and read on."""
        self._socket.shutdown(socket.SHUT_WR)


class Attacker:
    """Listens, accepts one connection and plays a script on it.

    Args:
        script: Called with the Talk; OSError in it is the client's hanging up.
        accepts: False leaves the connection to the kernel, which answers and never reads.
        patience: Seconds after which the script is given up.
    """

    def __init__(
        self,
        script: Callable[[Talk], object],
        *,
        accepts: bool = True,
        patience: float = TIMEOUT,
    ) -> None:
        self._script = script
        self._patience = patience
        self._listener = socket.create_server((HOST, 0))
        # A small window, so that a peer that reads nothing is soon felt.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self.port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._accepted: socket.socket | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="attacker")
        if accepts:
            self._thread.start()

    def _play(self) -> None:
        try:
            with suppress(OSError):
                sock, _ = self._listener.accept()
                self._accepted = sock
                with sock:
                    self._script(Talk(sock, self._over, self._patience))
        except BaseException as error:
            self.failure = error

    def close(self) -> None:
        """End everything; raises what the script failed with."""
        self._over.set()
        for sock in (self._listener, self._accepted):
            if sock is not None:
                with suppress(OSError):  # not connected, or closed by the script
                    sock.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join(TIMEOUT)
            assert not self._thread.is_alive()
        self._listener.close()
        if self.failure is not None:
            raise self.failure
