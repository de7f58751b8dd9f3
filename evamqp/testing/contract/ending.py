"""The ends of a plain connection: the peer's, our own, and the network's.

connection_lost comes once and last, which the rig checks; what TLS adds is not checked here.
"""

from __future__ import annotations

import socket

from evamqp.testing.contract.rig import TOO_MUCH, Contract, Rig, pattern


class EndingContract(Contract):
    """close(), abort(), end of file, resets, and what is still delivered before them."""

    def test_peers_end_of_file_is_a_loss_without_error(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        peer.send(b"last words")
        peer.sock.close()
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"last words"
        assert stream.error is None

    def test_peers_end_of_file_ends_the_connection_though_output_waits(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.write(pattern(TOO_MUCH))
        rig.until(lambda: "pause" in stream.calls)
        peer.sock.shutdown(socket.SHUT_WR)
        rig.until(lambda: stream.is_lost)

    def test_peers_reset_is_a_loss_with_an_error(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        peer.reset()
        rig.until(lambda: stream.is_lost)
        assert isinstance(stream.error, OSError)

    def test_close_sends_everything_first(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        stream.close()
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        assert peer.data == sent
        assert stream.error is None

    def test_close_sends_everything_though_input_is_unread(self, rig: Rig) -> None:
        # A socket that is closed with unread input sends a RST and drops its output.
        stream, peer = rig.pair()
        peer.send(b"unread")
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        stream.close()
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        assert len(peer.data) == len(sent)
        assert peer.error is None

    def test_close_and_abort_may_be_repeated(self, rig: Rig) -> None:
        stream, _ = rig.pair()
        stream.close()
        stream.close()
        stream.abort()
        stream.abort()
        rig.until(lambda: stream.is_lost)
        stream.close()
        stream.abort()
        rig.wait()
        assert stream.calls == ["made", "lost"]

    def test_write_after_close_is_dropped(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        stream.close()
        stream.write(b"too late")
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        stream.write(b"much too late")
        assert peer.data == sent

    def test_abort_ends_at_once_and_drops_output(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.write(pattern(TOO_MUCH))
        stream.abort()
        rig.until(lambda: stream.is_lost)
        rig.until(peer.has_ended)
        assert len(peer.data) < TOO_MUCH
        assert stream.error is None

    def test_abort_ends_a_close_that_waits_for_a_peer(self, rig: Rig) -> None:
        stream, _ = rig.pair()
        stream.write(pattern(TOO_MUCH))
        stream.close()
        rig.wait()
        assert not stream.is_lost
        stream.abort()
        rig.until(lambda: stream.is_lost)
        assert stream.error is None

    def test_nothing_is_delivered_after_abort(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.on_data = stream.abort
        peer.send(b"x" * 100_000)
        rig.until(lambda: stream.is_lost)
        received = len(stream.data)
        rig.wait()
        assert len(stream.data) == received

    def test_close_inside_data_received_is_legal(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.on_data = stream.close
        peer.send(b"x")
        rig.until(lambda: stream.is_lost)
        assert stream.calls == ["made", "lost"]
        assert stream.error is None

    def test_what_is_readable_is_delivered_after_a_write_error(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        peer.send(b"the reason")
        peer.reset()
        # The first write after a reset fails.
        stream.write(b"x")
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"the reason"
        assert isinstance(stream.error, OSError)

    def test_what_is_readable_is_delivered_when_waiting_output_fails(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.transport.pause_reading()
        stream.write(pattern(TOO_MUCH))
        rig.until(lambda: "pause" in stream.calls)
        peer.send(b"the reason")
        peer.reset()
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"the reason"
        assert isinstance(stream.error, OSError)
