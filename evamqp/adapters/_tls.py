"""TLS as a filter between a Transport and a Stream, over ``ssl.MemoryBIO``; the same on every loop.

No socket, no timer and no loop belong here: the dialler keeps the deadline.  No other module of
the package imports ``ssl`` when it is loaded, and only a TLS connection loads this one.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress

from evamqp.abc import Stream, Transport

#: Bytes asked for at a time: the most that one TLS record holds (RFC 8446, 5.1).
RECORD_SIZE = 16 * 1024


class TlsFilter:
    """A Stream for the transport below, a Transport for the stream above.

    Args:
        context: Verifies the peer; it holds our certificate if we have one.
        server_hostname: Sent as SNI, and checked as the context says.
        stream: Gets ``connection_made`` after the handshake.
        shook_hands: Called once: with None just before ``stream.connection_made``, or with the
            error if the connection ended earlier; then the stream is never called.

    Raises:
        ValueError: ``server_hostname`` cannot be a name in a certificate.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_failure",
        "_incoming",
        "_is_open",
        "_outgoing",
        "_shook_hands",
        "_stream",
        "_tls",
        "_transport",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        server_hostname: str,
        stream: Stream,
        shook_hands: Callable[[BaseException | None], object],
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._stream = stream
        self._shook_hands = shook_hands
        self._transport: Transport
        # What TLS did not take because it must read first (a renegotiation); nearly always empty.
        self._backlog: list[bytes | memoryview] = []
        self._is_open = False
        self._closing = False
        self._failure: BaseException | None = None

    # The Stream: called by the transport below, from the loop.

    def connection_made(self, transport: Transport) -> None:
        """TCP is connected: begin the handshake."""
        self._transport = transport
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Decrypt every record that these bytes complete, and pass the text on in one piece."""
        if self._closing:
            return
        self._incoming.write(data)
        if self._is_open or self._shake_hands():
            self._deliver()

    def pause_writing(self) -> None:
        """The transport is full; the stream should pause."""
        if self._is_open:
            self._stream.pause_writing()

    def resume_writing(self) -> None:
        """The transport has room again."""
        if self._is_open:
            self._stream.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport ended; report the cause that TLS knows, if any."""
        exc = self._failure or exc
        if exc is None and not self._closing:
            # Without the peer's close_notify an attacker may have cut the stream (RFC 8446, 6.1).
            exc = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, self._describe_cut())
        if self._is_open:
            self._stream.connection_lost(exc)
        else:
            self._shook_hands(exc)

    def _describe_cut(self) -> str:
        when = "without a TLS close" if self._is_open else "during the TLS handshake"
        return f"the peer closed the connection {when}"

    # The Transport: called by the stream above, which is never called from here.

    def write(self, data: bytes) -> None:
        """Encrypt and pass down.  After close() or abort() a no-op."""
        if self._closing or not data:
            return
        self._backlog.append(data)
        self._encrypt()

    def pause_reading(self) -> None:
        """Pause the transport: this filter never holds decrypted bytes back."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued and our close_notify, then close without waiting for the peer's."""
        if self._closing:
            return
        self._closing = True
        self._notify_close()
        self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._closing = True
        self._transport.abort()

    # For the dialler.

    def fail(self, error: BaseException) -> None:
        """Abort the connection; it ends with ``error``.  Only the first error counts."""
        if self._failure is None:
            self._failure = error
        self.abort()

    # The machine.

    def _shake_hands(self) -> bool:
        """Take the handshake as far as the received bytes allow; True if it is complete."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except (ssl.SSLError, ValueError) as error:
            self._refuse(error)
            return False
        self._flush()
        self._shook_hands(None)
        self._is_open = True
        self._stream.connection_made(self)
        return not self._closing

    def _refuse(self, error: BaseException) -> None:
        # The alert for the peer is queued.  close() rather than abort() sends it on loops that
        # write later; the dialler's deadline covers a peer that does not read.
        self._failure = error
        self._closing = True
        self._flush()
        self._transport.close()

    def _deliver(self) -> None:
        """Read until TLS has nothing left, or a record would wait for the next packet."""
        pieces: list[bytes] = []
        ending: Callable[[], None] | None = None
        try:
            # A read takes a whole record, and one that finds nothing raises, which costs as much
            # as a small record does.
            while self._incoming.pending:
                piece = self._tls.read(RECORD_SIZE)
                if not piece:
                    ending = self._answer_close
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ending = self._answer_close
        except ssl.SSLError as error:
            self._failure = error
            ending = self.abort
        if ending is None:
            self._encrypt()
        if pieces:
            self._stream.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ending is not None and not self._closing:
            self._flush()
            ending()

    def _answer_close(self) -> None:
        """The peer sent close_notify: a clean end, so close without lingering."""
        self._closing = True
        self._notify_close()
        self._transport.abort()

    def _notify_close(self) -> None:
        # Our close_notify is queued even if this raises: SSLWantReadError means that the peer's is
        # missing, which RFC 8446, 6.1 does not require us to wait for.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def _encrypt(self) -> None:
        """Encrypt the backlog, and pass down what TLS has to send, key updates included."""
        try:
            while self._backlog:
                # One call takes one record: ``ssl`` sets SSL_MODE_ENABLE_PARTIAL_WRITE.
                piece = self._backlog[0]
                taken = self._tls.write(piece)
                if taken < len(piece):
                    self._backlog[0] = memoryview(piece)[taken:]
                else:
                    del self._backlog[0]
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._failure = error
            self.abort()
            return
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())
