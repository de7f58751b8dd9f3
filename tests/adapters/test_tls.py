"""The TLS filter against OpenSSL itself, both in memory: every record in the test's own hands.

No socket and no loop here; the filter needs neither.
"""

from __future__ import annotations

import random
import ssl
from typing import Any

import pytest

from evamqp.abc import Transport
from evamqp.adapters._tls import TlsFilter
from evamqp.testing.contract import client_context, server_context


class Wire:
    """A Transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        self.sent += data

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


class Server:
    """A TLS server without a socket."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or server_context()).wrap_bio(
            self.incoming, self.outgoing, server_side=True
        )
        self.data = bytearray()
        self.is_closed = False
        self.error: ssl.SSLError | None = None
        self._is_open = False

    def receive(self, data: bytes) -> None:
        self.incoming.write(data)
        try:
            if not self._is_open:
                self.tls.do_handshake()
                self._is_open = True
            while piece := self.tls.read(1 << 16):
                self.data += piece
            self.is_closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_closed = True
        except ssl.SSLError as error:
            self.error = error


class Stream:
    """The stream above the filter."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.pieces: list[bytes] = []
        self.error: BaseException | None = None

    def connection_made(self, transport: Transport) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.error = exc


class Bench:
    """Stream, filter, wire and server in a row."""

    def __init__(
        self,
        client: ssl.SSLContext | None = None,
        server: ssl.SSLContext | None = None,
        name: str = "localhost",
    ) -> None:
        self.stream, self.wire, self.server = Stream(), Wire(), Server(server)
        self.handshakes: list[BaseException | None] = []
        self.filter = TlsFilter(
            client or client_context(), name, self.stream, self.handshakes.append
        )
        self.filter.connection_made(self.wire)

    def exchange(self) -> None:
        """Carry bytes both ways until both are silent."""
        while self.wire.sent or self.server.outgoing.pending:
            sent, self.wire.sent = bytes(self.wire.sent), bytearray()
            self.server.receive(sent)
            if self.server.outgoing.pending:
                self.filter.data_received(self.server.outgoing.read())

    def open(self) -> Bench:
        self.exchange()
        assert self.stream.calls == ["made"]
        return self


def versioned(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=_authority_pem())
    context.maximum_version = version
    return context


def _authority_pem() -> str:
    certificates = client_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates))


def test_stream_is_made_when_the_handshake_is_over() -> None:
    bench = Bench()
    assert bench.stream.calls == []
    assert bench.handshakes == []
    bench.exchange()
    assert bench.stream.calls == ["made"]
    assert bench.handshakes == [None]


def test_handshake_split_at_every_byte_is_the_same() -> None:
    bench = Bench()
    while bench.wire.sent or bench.server.outgoing.pending:
        sent, bench.wire.sent = bytes(bench.wire.sent), bytearray()
        bench.server.receive(sent)
        for byte in bench.server.outgoing.read():
            bench.filter.data_received(bytes([byte]))
    assert bench.stream.calls == ["made"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_carry_bytes_both_ways(version: ssl.TLSVersion) -> None:
    bench = Bench(versioned(version)).open()
    bench.filter.write(b"ping")
    bench.exchange()
    assert bench.server.data == b"ping"
    bench.server.tls.write(b"pong")
    bench.exchange()
    assert bench.stream.pieces == [b"pong"]


def test_data_that_comes_with_the_end_of_the_handshake_is_delivered_after_made() -> None:
    bench = Bench(versioned(ssl.TLSVersion.TLSv1_2))
    bench.server.receive(bytes(bench.wire.sent))
    bench.wire.sent.clear()
    bench.filter.data_received(bench.server.outgoing.read())
    bench.server.receive(bytes(bench.wire.sent))
    bench.wire.sent.clear()
    bench.server.tls.write(b"early")
    bench.filter.data_received(bench.server.outgoing.read())
    assert bench.stream.calls == ["made"]
    assert bench.stream.pieces == [b"early"]


def test_everything_that_one_read_completes_is_delivered_in_one_piece() -> None:
    bench = Bench().open()
    sent = random.Random(1).randbytes(100_000)
    view = memoryview(sent)
    while view:
        view = view[bench.server.tls.write(view) :]
    bench.exchange()
    assert bench.stream.pieces == [sent]


class Counting(ssl.SSLObject):
    """Counts what is asked of it."""

    reads = 0

    def read(self, *arguments: Any) -> bytes:
        type(self).reads += 1
        return super().read(*arguments)


def test_whole_records_are_read_without_asking_for_one_more() -> None:
    context = versioned(ssl.TLSVersion.TLSv1_3)
    context.sslobject_class = Counting
    bench = Bench(context).open()
    for count in (1, 3):
        before = Counting.reads
        for _ in range(count):
            bench.server.tls.write(b"record")
        bench.exchange()
        assert Counting.reads - before == count
    assert bench.stream.pieces == [b"record", b"record" * 3]


def test_write_of_any_size_arrives_whole() -> None:
    bench = Bench().open()
    sent = random.Random(2).randbytes(1_000_000)
    bench.filter.write(sent)
    bench.filter.write(b"")
    bench.exchange()
    assert bench.server.data == sent


def test_close_sends_close_notify_and_closes_the_wire_without_waiting() -> None:
    bench = Bench().open()
    bench.filter.write(b"last words")
    bench.filter.close()
    bench.filter.close()
    assert bench.wire.calls == ["close"]
    bench.exchange()
    assert bench.server.data == b"last words"
    assert bench.server.is_closed
    bench.filter.connection_lost(None)
    assert bench.stream.calls == ["made", "lost"]
    assert bench.stream.error is None


def test_nothing_is_sent_or_delivered_after_close() -> None:
    bench = Bench().open()
    bench.server.tls.write(b"too late")
    bench.filter.close()
    bench.wire.sent.clear()
    bench.filter.write(b"x")
    bench.filter.data_received(bench.server.outgoing.read())
    assert bench.wire.sent == b""
    assert bench.stream.pieces == []


def test_close_notify_of_the_peer_is_answered_and_a_clean_end() -> None:
    bench = Bench().open()
    bench.server.tls.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        bench.server.tls.unwrap()
    bench.filter.data_received(bench.server.outgoing.read())
    assert bench.stream.pieces == [b"last words"]
    assert bench.wire.calls == ["abort"]
    bench.server.receive(bytes(bench.wire.sent))
    assert bench.server.error is None
    bench.filter.connection_lost(None)
    assert bench.stream.error is None


def test_end_of_file_without_close_notify_is_an_error() -> None:
    bench = Bench().open()
    bench.filter.connection_lost(None)
    assert isinstance(bench.stream.error, ssl.SSLEOFError)
    assert "without a TLS close" in str(bench.stream.error)


def test_loss_keeps_the_transports_error() -> None:
    bench = Bench().open()
    reset = ConnectionResetError("reset")
    bench.filter.connection_lost(reset)
    assert bench.stream.error is reset


def test_end_of_file_in_the_handshake_is_reported_to_the_dialler_alone() -> None:
    bench = Bench()
    bench.filter.connection_lost(None)
    (error,) = bench.handshakes
    assert isinstance(error, ssl.SSLEOFError)
    assert bench.stream.calls == []


def test_corrupt_record_is_an_error_after_the_data_before_it() -> None:
    bench = Bench().open()
    bench.server.tls.write(b"good")
    good = bench.server.outgoing.read()
    bench.server.tls.write(b"bad")
    bad = bytearray(bench.server.outgoing.read())
    bad[-1] ^= 1
    bench.filter.data_received(good + bytes(bad))
    assert bench.stream.pieces == [b"good"]
    assert bench.wire.calls == ["abort"]
    bench.filter.connection_lost(None)
    assert isinstance(bench.stream.error, ssl.SSLError)


def test_refused_certificate_sends_the_alert_and_no_data() -> None:
    bench = Bench(ssl.create_default_context())
    bench.exchange()
    assert bench.wire.calls == ["close"]
    assert bench.server.error is not None
    assert "unknown ca" in str(bench.server.error).lower()
    bench.filter.connection_lost(None)
    assert isinstance(bench.handshakes[0], ssl.SSLCertVerificationError)
    assert bench.stream.calls == []


def test_wrong_host_name_is_refused() -> None:
    bench = Bench(name="elsewhere.example")
    bench.exchange()
    bench.filter.connection_lost(None)
    assert "elsewhere.example" in str(bench.handshakes[0])


def test_impossible_host_name_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"idna|server_hostname"):
        Bench(name=".example")


def test_missing_client_certificate_is_named() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    import trustme

    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context()
    authority.configure_trust(client)
    bench = Bench(client, server)
    bench.exchange()
    bench.filter.connection_lost(ConnectionResetError("reset"))
    assert bench.stream.calls == ["made", "lost"]
    assert "certificate required" in str(bench.stream.error).lower()


def test_only_the_first_failure_counts() -> None:
    bench = Bench()
    first = TimeoutError("first")
    bench.filter.fail(first)
    bench.filter.fail(TimeoutError("second"))
    bench.exchange()
    bench.filter.connection_lost(None)
    assert bench.handshakes == [first]
    assert bench.stream.calls == []


def test_backpressure_passes_through() -> None:
    bench = Bench().open()
    bench.filter.pause_writing()
    bench.filter.resume_writing()
    assert bench.stream.calls == ["made", "pause", "resume"]
    bench.filter.pause_reading()
    bench.filter.resume_reading()
    assert bench.wire.calls == ["pause", "resume"]
