"""Connecting: names and addresses, failures, deadlines, cancelling, and the socket's options.

What happens on a connection once it is made is not checked here, nor is TLS.
"""

from __future__ import annotations

import socket
import threading

import pytest

from evamqp.errors import ConnectFailed
from evamqp.testing.contract.loopback_server import closed_port, our_end
from evamqp.testing.contract.recording_stream import RecordingStream
from evamqp.testing.contract.rig import Contract, Rig, failure_of


class ConnectingContract(Contract):
    """From ``connect()`` to ``connection_made``, or to the one ``connection_lost``."""

    def test_connection_carries_bytes_both_ways(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.write(b"to the peer")
        rig.until(lambda: peer.read() == b"to the peer")
        peer.send(b"and back")
        rig.until(lambda: stream.data == b"and back")

    def test_name_is_resolved_and_each_address_is_tried(self, rig: Rig) -> None:
        # ``localhost`` is often ::1 first, where no socket listens.
        stream = rig.connect(rig.server().port, "localhost")
        assert stream.calls == ["made"], stream.error

    def test_ipv6_literal_is_an_address(self, rig: Rig) -> None:
        try:
            server = rig.server("::1")
        except OSError:
            pytest.skip("this machine has no IPv6")
        stream = rig.connect(server.port, "::1")
        assert stream.calls == ["made"], stream.error

    def test_address_literal_needs_no_thread(self, rig: Rig) -> None:
        before = set(threading.enumerate())
        server = rig.server()
        stream, _ = rig.dial(server.port)
        started: list[set[threading.Thread]] = []
        stream.on_made = lambda: started.append(set(threading.enumerate()) - before)
        rig.until(lambda: stream.calls)
        assert started == [set()]

    def test_refused_connect_is_lost_once_and_names_the_address(self, rig: Rig) -> None:
        port = closed_port()
        stream = rig.connect(port)
        assert isinstance(failure_of(stream), ConnectionRefusedError)
        assert f"127.0.0.1:{port}" in str(stream.error)

    def test_failure_lists_every_address_that_was_tried(self, rig: Rig) -> None:
        port = closed_port()
        found = socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
        addresses = {str(entry[4][0]) for entry in found}
        stream = rig.connect(port, "localhost")
        failure_of(stream)
        assert isinstance(stream.error, ConnectFailed)
        tried = {where.rpartition(":")[0].strip("[]") for where, _ in stream.error.attempts}
        assert tried == addresses

    def test_address_that_does_not_answer_meets_its_timeout(self, rig: Rig) -> None:
        server = rig.server()
        server.fall_silent()
        stream = rig.connect(server.port, address_timeout=0.1)
        assert isinstance(failure_of(stream), TimeoutError)
        assert f"127.0.0.1:{server.port}" in str(stream.error)

    def test_connect_without_an_answer_meets_the_deadline(self, rig: Rig) -> None:
        server = rig.server()
        server.fall_silent()
        stream = rig.connect(server.port, timeout=0.1)
        assert isinstance(failure_of(stream), TimeoutError)

    def test_connect_without_an_answer_can_be_cancelled(self, rig: Rig) -> None:
        server = rig.server()
        server.fall_silent()
        stream, handle = rig.dial(server.port)
        rig.wait()
        assert stream.calls == []
        stream.during("cancel", handle.cancel)
        rig.until(lambda: stream.calls)
        assert isinstance(stream.error, ConnectionAbortedError)

    def test_unknown_name_is_lost_once(self, rig: Rig) -> None:
        # Without a working resolver it is the timeout that ends this.
        stream = rig.connect(5672, "no-such-host.invalid", timeout=3.0)
        assert isinstance(failure_of(stream), OSError)
        assert "no-such-host.invalid:5672" in str(stream.error)

    def test_impossible_name_is_lost_once(self, rig: Rig) -> None:
        stream = rig.connect(5672, "a" * 64 + ".invalid")
        assert failure_of(stream)

    def test_cancelled_connect_is_lost_once(self, rig: Rig) -> None:
        stream, handle = rig.dial(rig.server().port)
        stream.during("cancel", handle.cancel)
        handle.cancel()
        rig.until(lambda: stream.calls)
        rig.wait()
        assert stream.calls == ["lost"]
        assert isinstance(stream.error, ConnectionAbortedError)

    def test_connect_by_name_cancelled_is_lost_once(self, rig: Rig) -> None:
        stream, handle = rig.dial(rig.server().port, "localhost")
        rig.adapter.call_soon(lambda: stream.during("cancel", handle.cancel))
        rig.until(lambda: stream.calls)
        rig.wait()
        assert stream.calls == ["lost"]

    @pytest.mark.parametrize("turns", range(6))
    def test_connect_cancelled_after_any_turn_ends_once(self, rig: Rig, turns: int) -> None:
        stream, handle = rig.dial(rig.server().port)

        def count_down(left: int) -> None:
            if left:
                rig.adapter.call_soon(lambda: count_down(left - 1))
            else:
                stream.during("cancel", handle.cancel)

        count_down(turns)
        rig.until(lambda: stream.calls)
        rig.wait()
        assert stream.calls in (["made"], ["lost"])

    def test_cancelling_after_the_connection_was_made_does_nothing(self, rig: Rig) -> None:
        stream, handle = rig.dial(rig.server().port)
        rig.until(lambda: stream.calls)
        handle.cancel()
        rig.wait()
        assert stream.calls == ["made"]

    def test_connect_in_a_callback_is_legal(self, rig: Rig) -> None:
        server = rig.server()
        streams: list[RecordingStream] = []
        rig.adapter.call_soon(lambda: streams.append(rig.dial(server.port)[0]))
        rig.until(lambda: streams and streams[0].calls)
        assert streams[0].calls == ["made"]

    def test_socket_has_no_delay_and_keepalive(self, rig: Rig) -> None:
        _, peer = rig.pair()
        with our_end(peer) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    @pytest.mark.skipif(
        not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT"
    )
    def test_user_timeout_reaches_the_socket(self, rig: Rig) -> None:
        server = rig.server()
        _, peer = rig.pair(server, user_timeout=12.5)
        _, other = rig.pair(server)
        with our_end(peer) as sock, our_end(other) as unset:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_500
            assert unset.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
