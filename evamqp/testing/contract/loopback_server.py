"""The other end of a connection, played by the test itself: a listening socket, and its peers.

Sockets of the test's own and nothing of the adapter's; only ``our_end`` goes looking for that.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import struct
from contextlib import suppress
from typing import cast

import pytest

#: Seconds after which a check that still waits has failed.
TIMEOUT = 10.0
#: Seconds of looking, where the law is that something does not happen.
A_WHILE = 0.05

LOCALHOST = "127.0.0.1"


class Peer:
    """The other end of a connection, on a non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.data: bytearray = bytearray()
        self.is_ended: bool = False
        self.error: OSError | None = None

    def read(self) -> bytearray:
        """Take what has arrived, and return all that has arrived so far."""
        try:
            while not self.is_ended:
                piece = self.sock.recv(256 * 1024)
                self.data += piece
                self.is_ended = not piece
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self.is_ended = True
            self.error = error
        return self.data

    def has_ended(self) -> bool:
        """Did the connection end?  Reads whatever is there."""
        self.read()
        return self.is_ended

    def send(self, data: bytes) -> None:
        """Send a little."""
        self.sock.sendall(data)

    def reset(self) -> None:
        """End the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def shake_hands(self) -> bool:
        """Play the server in TLS a step further; True when that is over, for good or ill."""
        try:
            cast(ssl.SSLSocket, self.sock).do_handshake()
        except ssl.SSLWantReadError:
            return False
        except OSError as error:
            self.error = error
        return True


class LoopbackServer:
    """A listening socket of the test's own."""

    def __init__(self, host: str = LOCALHOST) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock: socket.socket = socket.create_server((host, 0), family=family, backlog=16)
        self.sock.settimeout(TIMEOUT)
        self.port: int = self.sock.getsockname()[1]
        self._opened: list[socket.socket] = [self.sock]

    def fall_silent(self) -> None:
        """Fill the queue of connections, so that further ones get no answer at all."""
        self.sock.listen(0)
        for _ in range(8):
            filler = socket.socket(self.sock.family, socket.SOCK_STREAM)
            self._opened.append(filler)
            filler.setblocking(False)
            filler.connect_ex(self.sock.getsockname())
            if not _is_ready(filler, selectors.EVENT_WRITE, A_WHILE):
                return
        pytest.skip("this system answers even when the queue is full")

    def is_called(self) -> bool:
        """Does a connection wait for accept()?"""
        return _is_ready(self.sock, selectors.EVENT_READ, 0)

    def accept(self, tls: ssl.SSLContext | None = None) -> Peer:
        """The next connection; with ``tls``, its handshake is still to come."""
        sock, _ = self.sock.accept()
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._opened.append(sock)
        return Peer(sock)

    def close(self) -> None:
        for sock in self._opened:
            sock.close()


def closed_port() -> int:
    """A port of 127.0.0.1 where no socket listens."""
    server = LoopbackServer()
    server.close()
    return server.port


def our_end(peer: Peer) -> socket.socket:
    """A copy of the adapter's socket at the other end of ``peer``, found among our own files."""
    ends = (peer.sock.getpeername(), peer.sock.getsockname())
    for fd in range(4096):
        with suppress(OSError):  # no file, no socket, or one that is not connected
            sock = socket.socket(fileno=fd)
            try:
                if (sock.getsockname(), sock.getpeername()) == ends:
                    return socket.socket(fileno=os.dup(fd))
            finally:
                sock.detach()
    raise AssertionError("no socket of this process is the other end")


def _is_ready(sock: socket.socket, event: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        return bool(selector.select(seconds))
