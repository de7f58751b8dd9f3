"""Listening, for adapters that can: accepted connections are like connected ones.

Both ends are the adapter's, so that one without sockets can be checked; no socket lives here.
"""

from __future__ import annotations

from evamqp.testing.contract.recording_stream import RecordingStream
from evamqp.testing.contract.rig import TOO_MUCH, Contract, Rig, failure_of, pattern


class ListenerContract(Contract):
    """What an adapter with ``listen()`` must do besides; it needs no sockets of the test's own."""

    def test_accepted_connection_carries_bytes_both_ways(self, rig: Rig) -> None:
        near, far = self._join(rig)
        near.write(b"ping")
        rig.until(lambda: far.data == b"ping")
        far.write(b"pong")
        rig.until(lambda: near.data == b"pong")

    def test_close_reaches_the_other_end_after_the_data(self, rig: Rig) -> None:
        near, far = self._join(rig)
        near.write(b"last words")
        near.close()
        rig.until(lambda: near.is_lost and far.is_lost)
        assert far.data == b"last words"
        assert near.error is None
        assert far.error is None

    def test_abort_reaches_the_other_end(self, rig: Rig) -> None:
        near, far = self._join(rig)
        far.abort()
        rig.until(lambda: near.is_lost and far.is_lost)
        assert far.error is None

    def test_full_output_pauses_until_the_other_end_reads(self, rig: Rig) -> None:
        near, far = self._join(rig)
        far.transport.pause_reading()
        near.write(pattern(TOO_MUCH))
        rig.until(lambda: "pause" in near.calls)
        far.transport.resume_reading()
        rig.until(lambda: "resume" in near.calls)
        rig.until(lambda: len(far.data) == TOO_MUCH)
        assert near.calls == ["made", "pause", "resume"]

    def test_each_connection_gets_a_stream_of_its_own(self, rig: Rig) -> None:
        handle, accepted = rig.listen()
        streams = [rig.connect(handle.port) for _ in range(3)]
        rig.until(lambda: len(accepted) == 3 and all(far.is_made for far in accepted))
        for number, stream in enumerate(streams):
            stream.write(bytes([number]))
        rig.until(lambda: all(far.data for far in accepted))
        assert sorted(bytes(far.data) for far in accepted) == [b"\x00", b"\x01", b"\x02"]

    def test_cancelled_listener_accepts_no_more_and_keeps_what_it_accepted(self, rig: Rig) -> None:
        handle, accepted = rig.listen()
        near = rig.connect(handle.port)
        rig.until(lambda: accepted and accepted[0].is_made)
        handle.cancel()
        handle.cancel()
        rig.wait()
        assert isinstance(failure_of(rig.connect(handle.port)), ConnectionRefusedError)
        near.write(b"still here")
        rig.until(lambda: accepted[0].data == b"still here")

    def test_listener_may_be_cancelled_at_once(self, rig: Rig) -> None:
        handle, _ = rig.listen()
        handle.cancel()
        rig.wait()
        assert isinstance(failure_of(rig.connect(handle.port)), ConnectionRefusedError)

    def _join(self, rig: Rig) -> tuple[RecordingStream, RecordingStream]:
        handle, accepted = rig.listen()
        near = rig.connect(handle.port)
        rig.until(lambda: accepted and accepted[0].is_made)
        return near, accepted[0]
