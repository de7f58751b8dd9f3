"""Non-blocking TCP on a selector: a transport, and how to open one.

Bytes and readiness only; the loop belongs to its adapter, and AMQP never belongs here.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence

from evamqp.abc import Endpoint, Handle, LoopCallback, Stream
from evamqp.adapters._flow import HIGH_WATER, LOW_WATER, WriteFlow, deliver_much
from evamqp.adapters._happy_eyeballs import Address
from evamqp.adapters._selector import LOST, READ, WRITE, Selector
from evamqp.adapters._tcp import RECV_SIZE, discard_input, open_socket, read_rest, shut_down

# EWOULDBLOCK is what Windows says for EINPROGRESS.
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
# Pieces per sendmsg(), below what every kernel takes.
_PIECES = 256

CallSoon = Callable[[LoopCallback], Handle]


class SocketTransport:
    """One connected socket: a Transport for ``stream``.  The caller calls ``connection_made``."""

    __slots__ = (
        "_accepting",
        "_call_soon",
        "_error",
        "_events",
        "_flow",
        "_is_lost",
        "_recv",
        "_room",
        "_selector",
        "_send",
        "_sock",
        "_stream",
        "_unsent",
        "_unsent_size",
    )

    def __init__(
        self,
        selector: Selector,
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
        self._room = RECV_SIZE  # bytes to read next
        self._unsent: list[bytes | memoryview] = []  # at most some HIGH_WATER
        self._unsent_size = 0
        self._flow = WriteFlow(call_soon, stream)
        self._events = 0
        self._watch(READ)

    # Transport: never calls the stream.

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes, and keep the rest."""
        if not self._accepting:
            return
        if self._unsent:
            self._keep(data)
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(error)
            return
        if sent < len(data):
            self._keep(memoryview(data)[sent:])

    def writelines(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send as ``write`` does, without joining; the pieces must not change."""
        if not self._accepting:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = _send_first(self._sock, pieces)
            except BlockingIOError:
                pass
            except OSError as error:
                self._break(error)
                return
        for piece in _behind(pieces, sent):
            self._keep(piece)

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
        self._stop_accepting()
        self._watch(self._events & ~READ)
        if not self._unsent:
            self._call_soon(self._end)

    def abort(self) -> None:
        """Drop what is kept, and close on the next turn."""
        self._stop_accepting()
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
            data = self._recv(self._room)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = error.with_traceback(None)  # whose frames would keep us alive
            self._lose()
            return
        if len(data) >= RECV_SIZE:
            self._room = deliver_much(self._stream, data)
        elif data:
            self._room = RECV_SIZE
            self._stream.data_received(data)
        else:
            self._lose()

    def _flush(self) -> None:
        try:
            sent = _send_first(self._sock, self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        self._unsent = _behind(self._unsent, sent)
        self._unsent_size -= sent
        self._flushed()

    def _flushed(self) -> None:
        if not self._unsent:
            self._watch(self._events & ~WRITE)
            if not self._accepting:
                self._end()
                return
        if self._flow.is_full and self._unsent_size <= LOW_WATER:
            self._flow.drain()

    def _keep(self, data: bytes | memoryview) -> None:
        self._unsent.append(data)
        self._unsent_size += len(data)
        self._watch(self._events | WRITE)
        if self._unsent_size > HIGH_WATER:
            self._flow.fill()

    def _stop_accepting(self) -> None:
        self._accepting = False
        self._flow.stop()

    def _break(self, error: OSError) -> None:
        """A send failed: drop the output, and deliver the input that has arrived already."""
        self._error = error.with_traceback(None)
        self._watch(0)
        self._call_soon(self._deliver_rest if self._accepting else self._lose)
        self._stop_accepting()
        self._drop_output()

    def _deliver_rest(self) -> None:
        if not self._is_lost:
            read_rest(self._sock, self._receive)
            self._lose()

    def _receive(self, data: bytes) -> bool:
        self._stream.data_received(data)
        return not self._is_lost

    def _end(self) -> None:
        """Finish a close(): all output is sent."""
        if not self._is_lost:
            discard_input(self._sock)
            self._lose()

    def _lose(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._stop_accepting()
        self._watch(0)
        self._drop_output()
        shut_down(self._sock)
        self._sock.close()
        self._stream.connection_lost(self._error)

    def _drop_output(self) -> None:
        self._unsent.clear()
        self._unsent_size = 0

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


def _behind(pieces: Sequence[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """The pieces without their first ``sent`` bytes."""
    for index, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[index + 1 :]]
        sent -= len(piece)
    return []


if sys.platform == "win32":

    def _send_first(sock: socket.socket, pieces: Sequence[bytes | memoryview]) -> int:
        return sock.send(pieces[0])

else:

    def _send_first(sock: socket.socket, pieces: Sequence[bytes | memoryview]) -> int:
        """Send what the kernel takes of the first pieces; how many bytes that is."""
        return sock.sendmsg(pieces[:_PIECES])


class SocketConnector:
    """How the built-in loop opens a connection; ``HappyEyeballs`` decides which, and when."""

    __slots__ = ("_call_soon", "_endpoint", "_selector")

    def __init__(self, selector: Selector, call_soon: CallSoon, endpoint: Endpoint) -> None:
        self._selector = selector
        self._call_soon = call_soon
        self._endpoint = endpoint

    def connect(
        self,
        address: Address,
        connected: Callable[[socket.socket], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        """See ``Connector``."""
        sock = open_socket(address, self._endpoint)
        try:
            code = sock.connect_ex(address.sockaddr)
            if code not in _IN_PROGRESS:
                raise OSError(code, os.strerror(code))
            return _Connecting(self._selector, sock, connected, failed)
        except BaseException:
            sock.close()
            raise

    def discard(self, connection: socket.socket) -> None:
        """See ``Connector``."""
        connection.close()

    def adopt(self, connection: socket.socket, stream: Stream) -> None:
        """See ``Connector``."""
        transport = SocketTransport(self._selector, self._call_soon, connection, stream)
        stream.connection_made(transport)


class _Connecting:
    """A connect in progress; the socket becomes writable when it has succeeded or failed."""

    __slots__ = ("_connected", "_failed", "_selector", "_sock")

    def __init__(
        self,
        selector: Selector,
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
