"""Non-blocking TCP on a selector: the built-in loop's transport, connector and listener.

Bytes and readiness only; the loop itself is select.py, and AMQP never belongs here.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from evamqp.abc import Callback, Endpoint, Handle, Stream
from evamqp.adapters._dial import Address

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: The loop watches the socket no more, whatever the other events find.
LOST = 4

#: Bytes per recv().  glibc serves requests of 128 KiB and more with an mmap of their own, which
#: costs more than the copy that a bigger read would save.
RECV_SIZE = 64 * 1024
#: Bytes of unsent output above which a stream is asked to pause, and at which to resume.
HIGH_WATER, LOW_WATER = 256 * 1024, 64 * 1024
#: Bytes read and forgotten before a close; a peer that sends more than that does not listen.
DISCARD_LIMIT = 8 * 1024 * 1024
#: Seconds without accepting after the process ran out of file descriptors or buffers.
ACCEPT_RETRY = 1.0
#: Connections taken per wake-up of a listener, so that a flood cannot starve the rest.
ACCEPT_BATCH = 64

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# EWOULDBLOCK is what Windows says for EINPROGRESS.
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_NOTHING = memoryview(b"")

CallSoon = Callable[[Callback], Handle]
CallLater = Callable[[float, Callback], Handle]


# SO_LINGER on, for no seconds.
_RESETS = struct.pack("ii", 1, 0)


def open_socket(address: Address, endpoint: Endpoint) -> socket.socket:
    """A non-blocking TCP socket for ``address``, with every option set, not yet connected."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        set_options(sock)
        if endpoint.user_timeout is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = max(1, round(endpoint.user_timeout * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    except BaseException:
        sock.close()
        raise
    return sock


def set_options(sock: socket.socket) -> None:
    """What every connection has: no blocking, no Nagle, keepalive."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def read_rest(sock: socket.socket, receive: Callable[[bytes], bool]) -> None:
    """Hand over what the kernel still holds for a connection that can no longer be written to.

    The peer's reason for hanging up is in there.  ``receive`` returns False to stop.
    """
    more = True
    while more:
        try:
            data = sock.recv(RECV_SIZE)
        except OSError:
            # Nothing left, or the error that the caller knows already.
            return
        more = bool(data) and receive(data)


def shut_down(sock: socket.socket) -> None:
    """End the connection itself: a close alone leaves it open where a forked child holds it too.

    A socket that lingers for no time is left to close(), which then sends a RST and no FIN.
    """
    with suppress(OSError):  # it has ended already
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESETS)) != _RESETS:
            sock.shutdown(socket.SHUT_RDWR)


def discard_input(sock: socket.socket) -> None:
    """Read and forget what has arrived, before an orderly close.

    A socket that is closed with unread input sends a RST, and drops the output that the kernel
    has taken and not delivered: our last words.
    """
    left = DISCARD_LIMIT

    def count(data: bytes) -> bool:
        nonlocal left
        left -= len(data)
        return left > 0

    read_rest(sock, count)


class SocketTransport:
    """One connected socket: a Transport for ``stream``, whose connection_made is the caller's."""

    __slots__ = (
        "_accepting",
        "_call_soon",
        "_error",
        "_events",
        "_full",
        "_head",
        "_is_lost",
        "_recv",
        "_selector",
        "_send",
        "_sock",
        "_stream",
        "_tail",
        "_telling",
        "_unsent",
    )

    def __init__(
        self,
        selector: selectors.BaseSelector,
        call_soon: CallSoon,
        sock: socket.socket,
        stream: Stream,
    ) -> None:
        self._selector = selector
        self._call_soon = call_soon
        self._sock = sock
        self._recv = sock.recv
        self._send = sock.send
        self._stream = stream
        self._accepting = True  # until close(), abort() or an error
        self._is_lost = False
        self._error: OSError | None = None
        # Unsent output: what send() works on, and what was written after that.  The tail is
        # joined only when the head is gone, so each byte is copied once however slow the peer is.
        self._head = _NOTHING
        self._tail: list[bytes] = []
        self._unsent = 0
        self._full = False  # what the stream was told
        self._telling = False  # whether it is about to be told
        self._events = 0
        self._watch(READ)

    # Transport: never calls the stream.

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes, and keep the rest."""
        if not self._accepting:
            return
        if self._unsent:
            self._tail.append(data)
            self._keep(len(data))
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(error)
            return
        if sent < len(data):
            self._head = memoryview(data)[sent:]
            self._keep(len(data) - sent)

    def pause_reading(self) -> None:
        """Deliver nothing more until resume_reading()."""
        self._watch(self._events & ~READ)

    def resume_reading(self) -> None:
        """Deliver again."""
        if self._accepting:
            self._watch(self._events | READ)

    def close(self) -> None:
        """Send what is kept, then close.  Nothing more is delivered."""
        if not self._accepting:
            return
        self._accepting = False
        self._watch(self._events & ~READ)
        if not self._unsent:
            self._call_soon(self._end)

    def abort(self) -> None:
        """Drop what is kept, and close on the next turn."""
        self._accepting = False
        self._watch(0)
        self._call_soon(self._lose)

    # The loop's side.

    def _on_event(self, events: int) -> None:
        accepting = self._accepting
        # The event may be older than a pause_reading() or abort() of this very turn.
        if events & self._events & READ:
            self._fill()
        if events & self._events & WRITE:
            self._flush()
        if events & LOST and not self._is_lost:
            self._lose_unwatched(accepting)

    def _lose_unwatched(self, accepting: bool) -> None:
        if not accepting:
            self._lose()
        else:
            self._error = self._error or ConnectionAbortedError("the loop has stopped")
            self._deliver_rest()

    def _fill(self) -> None:
        try:
            data = self._recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = error.with_traceback(None)  # whose frames would keep us alive
            self._lose()
            return
        if data:
            self._stream.data_received(data)
        else:
            self._lose()

    def _flush(self) -> None:
        try:
            sent = self._send(self._head)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        self._unsent -= sent
        self._head = self._head[sent:]
        if not self._head:
            self._head = memoryview(b"".join(self._tail))
            self._tail.clear()
        self._flushed()

    def _flushed(self) -> None:
        if not self._unsent:
            self._watch(self._events & ~WRITE)
            if not self._accepting:
                self._end()
                return
        if self._full and self._unsent <= LOW_WATER:
            self._full = False
            self._stream.resume_writing()

    def _keep(self, size: int) -> None:
        self._unsent += size
        self._watch(self._events | WRITE)
        if self._unsent > HIGH_WATER and not self._full and not self._telling:
            self._telling = True
            self._call_soon(self._tell_full)

    def _tell_full(self) -> None:
        self._telling = False
        if self._accepting and self._unsent > HIGH_WATER:
            self._full = True
            self._stream.pause_writing()

    def _break(self, error: OSError) -> None:
        """A send failed: no more output, but the input that is already here is still due."""
        self._error = error.with_traceback(None)
        self._watch(0)
        self._call_soon(self._deliver_rest if self._accepting else self._lose)
        self._accepting = False
        self._drop_output()

    def _deliver_rest(self) -> None:
        if not self._is_lost:
            read_rest(self._sock, self._receive)
            self._lose()

    def _receive(self, data: bytes) -> bool:
        self._stream.data_received(data)
        return not self._is_lost

    def _end(self) -> None:
        """The close that was asked for: everything is sent."""
        if not self._is_lost:
            discard_input(self._sock)
            self._lose()

    def _lose(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._accepting = False
        self._watch(0)
        self._drop_output()
        shut_down(self._sock)
        self._sock.close()
        self._stream.connection_lost(self._error)

    def _drop_output(self) -> None:
        self._head = _NOTHING
        self._tail.clear()
        self._unsent = 0

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        if not self._events:
            self._selector.register(self._sock, events, self._on_event)
        elif events:
            self._selector.modify(self._sock, events, self._on_event)
        else:
            self._selector.unregister(self._sock)
        self._events = events


class SocketConnector:
    """How the built-in loop opens a connection; ``_dial.HappyEyeballs`` decides which, and when."""

    __slots__ = ("_call_soon", "_endpoint", "_selector")

    def __init__(
        self, selector: selectors.BaseSelector, call_soon: CallSoon, endpoint: Endpoint
    ) -> None:
        self._selector = selector
        self._call_soon = call_soon
        self._endpoint = endpoint

    def connect(
        self,
        address: Address,
        connected: Callable[[socket.socket], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        """See ``_dial.Connector``."""
        sock = open_socket(address, self._endpoint)
        try:
            code = sock.connect_ex(address.sockaddr)
            if code not in _UNDER_WAY:
                raise OSError(code, os.strerror(code))
            return _Connecting(self._selector, sock, connected, failed)
        except BaseException:
            sock.close()
            raise

    def discard(self, connection: socket.socket) -> None:
        """See ``_dial.Connector``."""
        connection.close()

    def adopt(self, connection: socket.socket, stream: Stream) -> None:
        """See ``_dial.Connector``."""
        transport = SocketTransport(self._selector, self._call_soon, connection, stream)
        stream.connection_made(transport)


class _Connecting:
    """A connect under way; the socket becomes writable when it is decided."""

    __slots__ = ("_connected", "_failed", "_selector", "_sock")

    def __init__(
        self,
        selector: selectors.BaseSelector,
        sock: socket.socket,
        connected: Callable[[socket.socket], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._selector = selector
        self._sock: socket.socket | None = sock
        self._connected = connected
        self._failed = failed
        selector.register(sock, WRITE, self._on_event)

    def cancel(self) -> None:
        sock = self._release()
        if sock is not None:
            sock.close()

    def _on_event(self, events: int) -> None:
        sock = self._release()
        if sock is None:  # cancelled earlier in this turn
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and events & LOST:
            code = errno.ECONNABORTED
        if code:
            sock.close()
            self._failed(OSError(code, os.strerror(code)))
        else:
            self._connected(sock)

    def _release(self) -> socket.socket | None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._selector.unregister(sock)
        return sock


def open_listener(host: str, port: int) -> socket.socket:
    """A non-blocking listening socket on the first address of ``host``; may block in DNS."""
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


class SocketListener:
    """A listening socket of the built-in loop."""

    __slots__ = ("_call_later", "_call_soon", "_factory", "_retry", "_selector", "_sock", "port")

    def __init__(
        self,
        selector: selectors.BaseSelector,
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
