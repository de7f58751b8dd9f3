"""TLS on the adapter's connections: the same laws inside it, and what it refuses.

No plain connection is checked here.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import cast

from evamqp.abc import Handle
from evamqp.testing.contract.certificates import client_context, new_server_context
from evamqp.testing.contract.loopback_server import Peer
from evamqp.testing.contract.recording_stream import RecordingStream
from evamqp.testing.contract.rig import TOO_MUCH, Contract, Rig, failure_of, pattern


class TlsContract(Contract):
    """The same connections inside TLS, and what TLS refuses."""

    def test_tls_carries_bytes_both_ways(self, rig: Rig) -> None:
        stream, peer = self._secure(rig)
        sent = pattern(1024 * 1024)
        stream.write(sent)
        rig.until(lambda: len(peer.read()) == len(sent))
        assert peer.data == sent
        peer.send(pattern(50_000))
        rig.until(lambda: len(stream.data) == 50_000)
        assert stream.data == pattern(50_000)

    def test_tls_close_sends_everything_and_says_so(self, rig: Rig) -> None:
        stream, peer = self._secure(rig)
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        stream.close()
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        assert len(peer.data) == len(sent)
        assert peer.data == sent
        assert peer.error is None  # so our close_notify came
        assert stream.error is None

    def test_tls_close_does_not_wait_for_a_silent_peer(self, rig: Rig) -> None:
        stream, _ = self._secure(rig)
        stream.close()
        rig.until(lambda: stream.is_lost)
        assert stream.error is None

    def test_tls_end_by_the_peer_is_a_loss_without_error(self, rig: Rig) -> None:
        stream, peer = self._secure(rig)
        peer.send(b"last words")
        with suppress(ssl.SSLWantReadError):
            cast(ssl.SSLSocket, peer.sock).unwrap()
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"last words"
        assert stream.error is None

    def test_tls_cut_short_is_a_loss_with_an_error(self, rig: Rig) -> None:
        stream, peer = self._secure(rig)
        peer.send(b"last words")
        peer.sock.close()
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"last words"
        assert isinstance(stream.error, ssl.SSLError)

    def test_tls_abort_ends_at_once(self, rig: Rig) -> None:
        stream, _ = self._secure(rig)
        stream.write(pattern(TOO_MUCH))
        stream.abort()
        rig.until(lambda: stream.is_lost)
        assert stream.error is None

    def test_tls_full_output_pauses_and_resumes(self, rig: Rig) -> None:
        stream, peer = self._secure(rig)
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        rig.until(lambda: "pause" in stream.calls)
        rig.until(lambda: len(peer.read()) == len(sent))
        rig.until(lambda: "resume" in stream.calls)
        assert stream.calls == ["made", "pause", "resume"]

    def test_tls_paused_reading_delivers_nothing_until_resumed(self, rig: Rig) -> None:
        stream, peer = self._secure(rig)
        stream.transport.pause_reading()
        peer.send(b"later")
        rig.wait()
        assert stream.data == b""
        stream.transport.resume_reading()
        rig.until(lambda: stream.data == b"later")

    def test_untrusted_certificate_is_refused(self, rig: Rig) -> None:
        stream, peer = rig.tls_pair(tls=ssl.create_default_context())
        rig.until(lambda: stream.is_lost)
        assert isinstance(failure_of(stream), ssl.SSLCertVerificationError)
        rig.until(peer.has_ended)
        assert peer.data == b""

    def test_certificate_for_another_host_is_refused(self, rig: Rig) -> None:
        stream, _ = rig.tls_pair(server_hostname="elsewhere.example")
        rig.until(lambda: stream.is_lost)
        failure = failure_of(stream)
        assert isinstance(failure, ssl.SSLCertVerificationError)
        assert "elsewhere.example" in str(failure)

    def test_host_is_the_name_that_is_checked(self, rig: Rig) -> None:
        stream, _ = rig.tls_pair(host="localhost", server_hostname=None)
        assert stream.calls == ["made"], stream.error

    def test_server_hostname_is_sent_as_sni(self, rig: Rig) -> None:
        names: list[str] = []
        context = new_server_context()
        context.sni_callback = lambda _sock, name, _context: names.append(name)
        rig.tls_pair(context)
        assert names == ["localhost"]

    def test_peer_silent_in_tls_meets_the_deadline(self, rig: Rig) -> None:
        stream = rig.connect(
            rig.server().port, tls=client_context(), server_hostname="localhost", timeout=0.2
        )
        assert isinstance(failure_of(stream), TimeoutError)

    def test_peer_that_hangs_up_in_tls_is_a_loss_with_an_error(self, rig: Rig) -> None:
        stream, _, peer = self._greet(rig)
        peer.sock.close()
        rig.until(lambda: stream.calls)
        assert isinstance(failure_of(stream), (ssl.SSLError, ConnectionError))

    def test_peer_that_speaks_no_tls_is_a_loss_with_an_error(self, rig: Rig) -> None:
        stream, _, peer = self._greet(rig)
        peer.send(b"AMQP\x00\x00\x09\x01")
        rig.until(lambda: stream.calls)
        assert isinstance(failure_of(stream), ssl.SSLError)

    def test_cancel_in_the_tls_handshake_is_lost_once(self, rig: Rig) -> None:
        stream, handle, peer = self._greet(rig)
        stream.during("cancel", handle.cancel)
        handle.cancel()
        rig.until(lambda: stream.calls)
        rig.until(peer.has_ended)
        assert stream.calls == ["lost"]
        assert isinstance(stream.error, ConnectionAbortedError)

    def test_name_that_tls_refuses_is_a_loss_with_an_error(self, rig: Rig) -> None:
        stream = rig.connect(rig.server().port, tls=client_context(), server_hostname=".example")
        assert isinstance(failure_of(stream), ValueError)

    def _greet(self, rig: Rig) -> tuple[RecordingStream, Handle, Peer]:
        """A peer that got the first message of the handshake and has not answered."""
        stream, handle, server = rig.dial_tls()
        peer = server.accept()
        rig.until(peer.read)
        return stream, handle, peer

    def _secure(self, rig: Rig) -> tuple[RecordingStream, Peer]:
        """A TLS connection that is made."""
        stream, peer = rig.tls_pair()
        assert stream.calls == ["made"], stream.error
        assert peer.error is None
        return stream, peer
