"""Bytes that flow: their order, and the holding back of them in both directions.

The connections here are plain, and how they end is not checked here.
"""

from __future__ import annotations

import itertools
from contextlib import suppress

from evamqp.testing.contract.rig import TOO_MUCH, Contract, Rig, pattern


class FlowContract(Contract):
    """Much data, full output, paused reading."""

    def test_full_output_pauses_once_and_resumes_once(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        sent = pattern(TOO_MUCH)
        for start in range(0, TOO_MUCH, 1 << 20):
            stream.write(sent[start : start + (1 << 20)])
        rig.until(lambda: "pause" in stream.calls)
        rig.until(lambda: peer.read() == sent)
        rig.until(lambda: "resume" in stream.calls)
        assert stream.calls == ["made", "pause", "resume"]

    def test_many_small_writes_arrive_in_order(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        sent = pattern(4 * 1024 * 1024)
        for start in range(0, len(sent), 1000):
            stream.write(sent[start : start + 1000])
        rig.until(lambda: len(peer.read()) == len(sent))
        assert peer.data == sent

    def test_pieces_arrive_in_order_with_other_writes(self, rig: Rig) -> None:
        """What is written by ``writelines``, of a transport that has it."""
        stream, peer = rig.pair()
        sent = pattern(TOO_MUCH)
        rest, sizes = memoryview(sent), itertools.cycle((1, 0, 70_000, 3, 300_000, 20))
        while rest:
            pieces = []
            for size in itertools.islice(sizes, 4):
                pieces.append(rest[:size])
                rest = rest[size:]
            stream.writelines(pieces)
            stream.write(bytes(rest[:1000]))
            rest = rest[1000:]
        rig.until(lambda: len(peer.read()) == TOO_MUCH)
        assert peer.data == sent

    def test_much_input_arrives_in_order(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        rest = memoryview(pattern(4 * 1024 * 1024))
        sent = bytes(rest)

        def send_some() -> bool:
            nonlocal rest
            with suppress(BlockingIOError):
                rest = rest[peer.sock.send(rest) :] if rest else rest
            return len(stream.data) == len(sent)

        rig.until(send_some)
        assert stream.data == sent

    def test_paused_reading_delivers_nothing_until_resumed(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.during("pause_reading", stream.transport.pause_reading)
        stream.transport.pause_reading()
        peer.send(b"later")
        rig.wait()
        assert stream.data == b""
        stream.during("resume_reading", stream.transport.resume_reading)
        stream.transport.resume_reading()
        rig.until(lambda: stream.data == b"later")

    def test_pausing_inside_data_received_holds_the_next_piece(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.on_data = stream.transport.pause_reading
        peer.send(b"first")
        rig.until(lambda: stream.data == b"first")
        peer.send(b"second")
        rig.wait()
        assert stream.data == b"first"
        stream.transport.resume_reading()
        rig.until(lambda: stream.data == b"firstsecond")

    def test_pause_and_resume_after_the_end_do_nothing(self, rig: Rig) -> None:
        stream, _ = rig.pair()
        stream.close()
        stream.transport.pause_reading()
        stream.transport.resume_reading()
        rig.until(lambda: stream.is_lost)
        stream.transport.pause_reading()
        stream.transport.resume_reading()

    def test_writing_is_possible_while_reading_is_paused(self, rig: Rig) -> None:
        stream, peer = rig.pair()
        stream.transport.pause_reading()
        stream.write(b"still here")
        rig.until(lambda: peer.read() == b"still here")
