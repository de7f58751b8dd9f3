"""TCP sockets before and after they carry a connection: options, listening, the orderly end.

Every loop on real sockets uses these functions.  No selector and no loop belongs here.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from evamqp.abc import Endpoint
from evamqp.adapters._happy_eyeballs import Address

#: Bytes per recv().  glibc serves requests of 128 KiB and more with an mmap of their own, which
#: costs more than the copy that a bigger read would save.
RECV_SIZE = 64 * 1024
#: Bytes read and dropped before a close; a peer that sends more than that does not listen.
DISCARD_LIMIT = 8 * 1024 * 1024
#: SO_LINGER on, for no seconds.
_RESETS = struct.pack("ii", 1, 0)


def open_socket(address: Address, endpoint: Endpoint) -> socket.socket:
    """Make a non-blocking TCP socket for ``address``, with every option set, not yet connected."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        set_options(sock)
        if endpoint.user_timeout is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = max(1, round(endpoint.user_timeout * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    except BaseException:
        sock.close()
        raise
    return sock


def set_options(sock: socket.socket) -> None:
    """Set what every connection has: no Nagle, keepalive."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def read_rest(sock: socket.socket, receive: Callable[[bytes], bool]) -> None:
    """Pass on what the kernel still holds for a connection that can no longer be written to.

    The peer's reason for hanging up may be in there.  ``receive`` returns False to stop.
    """
    more = True
    while more:
        try:
            data = sock.recv(RECV_SIZE)
        except OSError:
            # Nothing is left, or it is the error that the caller has seen.
            return
        more = bool(data) and receive(data)


def shut_down(sock: socket.socket) -> None:
    """End the connection itself: close() alone leaves it open while a forked child holds it too.

    Skip a socket whose SO_LINGER is zero seconds: close() sends a RST for it, not a FIN.
    """
    with suppress(OSError):  # it has ended already
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESETS)) != _RESETS:
            sock.shutdown(socket.SHUT_RDWR)


def discard_input(sock: socket.socket) -> None:
    """Read and drop what has arrived, before an orderly close.

    Closing a socket with unread input sends a RST, and the kernel drops the output that it has
    not delivered yet: our last frames.
    """
    left = DISCARD_LIMIT

    def count(data: bytes) -> bool:
        nonlocal left
        left -= len(data)
        return left > 0

    read_rest(sock, count)


def open_listener(host: str, port: int) -> socket.socket:
    """Make a non-blocking socket that listens on the first address of ``host``; DNS may block."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, sockaddr = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere the option lets two listeners share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(sockaddr)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock
