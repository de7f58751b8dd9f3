"""A listening socket on a selector, for the built-in loop and for Twisted.

It accepts; serving the connection is the stream's business.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from evamqp.abc import Handle, LoopCallback, Stream
from evamqp.adapters._selector import READ, Selector
from evamqp.adapters._socket import CallSoon, SocketTransport
from evamqp.adapters._tcp import set_options

#: Seconds without accepting after the process ran out of file descriptors or buffers.
ACCEPT_RETRY = 1.0
#: Connections taken per wake-up, so that a flood cannot starve the other sockets.
ACCEPT_BATCH = 64

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

CallLater = Callable[[float, LoopCallback], Handle]


class SocketListener:
    """A listening socket on a selector."""

    __slots__ = ("_call_later", "_call_soon", "_factory", "_retry", "_selector", "_sock", "port")

    def __init__(
        self,
        selector: Selector,
        call_soon: CallSoon,
        call_later: CallLater,
        sock: socket.socket,
        factory: Callable[[], Stream],
    ) -> None:
        self._selector = selector
        self._call_soon = call_soon
        self._call_later = call_later
        self._sock: socket.socket | None = sock
        self._factory = factory
        self._retry: Handle | None = None
        self.port: int = sock.getsockname()[1]
        selector.register(sock, READ, self._on_event)

    def cancel(self) -> None:
        """Stop accepting.  Idempotent."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._retry is None:
            self._selector.unregister(sock)
        else:
            self._retry.cancel()
        sock.close()

    def _on_event(self, _: int) -> None:
        for _ in range(ACCEPT_BATCH):
            if self._sock is None:  # cancelled, perhaps by a stream that was just made
                return
            try:
                connection, _address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._could_not_accept(self._sock, error)
                return
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            set_options(connection)
        except OSError:  # gone again already
            connection.close()
            return
        stream = self._factory()
        transport = SocketTransport(self._selector, self._call_soon, connection, stream)
        stream.connection_made(transport)

    def _could_not_accept(self, sock: socket.socket, error: OSError) -> None:
        # Other errors belong to the connection that was not made.  These stay, and the loop
        # would spin on a listener that remains readable.
        if error.errno in _EXHAUSTED:
            self._selector.unregister(sock)
            self._retry = self._call_later(ACCEPT_RETRY, self._listen_again)

    def _listen_again(self) -> None:
        self._retry = None
        if self._sock is not None:
            self._selector.register(self._sock, READ, self._on_event)
