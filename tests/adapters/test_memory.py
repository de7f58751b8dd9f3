"""The laws of the memory adapter: its clock, its wire and the faults of both.

No socket may be opened here and nothing may sleep; the clock is advanced.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from evamqp.abc import Adapter, Endpoint, Handle, Listener, Transport
from evamqp.adapters.memory import MemoryAdapter, MemoryTransport, Peer
from evamqp.errors import BadArgument, BadType, ConnectFailed, RequestCancelled, WrongState
from evamqp.testing.contract import ListenerContract, LoopContract, RecordingStream


class TestMemory(LoopContract, ListenerContract):
    """The contract, as far as it needs no sockets of the test's own."""

    def make_adapter(self) -> Adapter:
        self.threads_before = set(threading.enumerate())
        return MemoryAdapter()

    def pump(self, adapter: Adapter, done: Callable[[], object], seconds: float) -> bool:
        # Virtual seconds pass at once; a check's threads, which it waits for, need real ones.
        def let_threads_end() -> bool:
            for thread in set(threading.enumerate()) - self.threads_before:
                thread.join()
            return bool(done())

        return super().pump(adapter, let_threads_end, seconds)


class StrictStream(RecordingStream):
    """A stream that records data as a call too, and fails at the first fault.

    Attributes:
        sizes: Bytes of each piece of data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def data_received(self, data: bytes) -> None:
        self.calls.append("data")
        self.sizes.append(len(data))
        super().data_received(data)

    def _check(self, name: str) -> None:
        super()._check(name)
        assert not self.faults


@pytest.fixture
def adapter() -> MemoryAdapter:
    return MemoryAdapter()


def dial(adapter: MemoryAdapter, host: str = "broker") -> tuple[StrictStream, Handle]:
    stream = StrictStream()
    attempts: list[Handle] = []
    endpoint = Endpoint(host, 5672, timeout=10.0)
    stream.during("connect", lambda: attempts.append(adapter.connect(endpoint, stream)))
    return stream, attempts[0]


def connect(adapter: MemoryAdapter) -> tuple[StrictStream, Peer]:
    peer = Peer()
    listener = adapter.listen("broker", 5672, lambda: peer)
    stream, _ = dial(adapter)
    adapter.run_until_idle()
    listener.cancel()
    return stream, peer


def test_it_is_an_adapter_and_a_listener(adapter: MemoryAdapter) -> None:
    as_adapter: Adapter = adapter
    as_listener: Listener = adapter
    assert as_adapter is not None
    assert as_listener is not None


def test_it_imports_no_socket_and_no_loop() -> None:
    code = (
        "import sys, evamqp.adapters.memory\n"
        "print(sorted({'asyncio', 'selectors', 'socket', 'ssl'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the clock


def test_clock_stands_still_unless_advanced(adapter: MemoryAdapter) -> None:
    adapter.call_later(1.0, lambda: None)
    adapter.run_until_idle()
    assert adapter.time() == 0.0
    adapter.advance(0.25)
    assert adapter.time() == 0.25


def test_timers_run_in_order_each_at_its_own_time(adapter: MemoryAdapter) -> None:
    log: list[tuple[str, float]] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: log.append((name, adapter.time()))

    for delay, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.5, "late")):
        adapter.call_later(delay, note(name))
    adapter.advance(3.0)
    assert log == [("a", 1.0), ("b", 1.0), ("c", 2.0)]
    assert adapter.time() == 3.0


def test_timer_set_by_a_timer_runs_in_the_same_advance(adapter: MemoryAdapter) -> None:
    log: list[float] = []

    def tick() -> None:
        log.append(adapter.time())
        adapter.call_later(1.0, tick)

    tick()
    adapter.advance(3.0)
    assert log == [0.0, 1.0, 2.0, 3.0]


def test_negative_delay_runs_at_once(adapter: MemoryAdapter) -> None:
    log: list[float] = []
    adapter.advance(5.0)
    adapter.call_later(-1.0, lambda: log.append(adapter.time()))
    adapter.run_until_idle()
    assert log == [5.0]


def test_time_does_not_run_backwards(adapter: MemoryAdapter) -> None:
    with pytest.raises(BadArgument):
        adapter.advance(-1.0)


def test_cancelled_call_does_not_run_and_cancel_is_idempotent(adapter: MemoryAdapter) -> None:
    log: list[str] = []
    calls = [
        adapter.call_soon(lambda: log.append("soon")),
        adapter.call_later(1.0, lambda: log.append("later")),
    ]
    for call in calls * 2:
        call.cancel()
    adapter.advance(2.0)
    for call in calls:
        call.cancel()
    assert log == []


def test_callback_that_raises_discards_no_other(adapter: MemoryAdapter) -> None:
    log: list[str] = []
    adapter.call_later(1.0, lambda: 1 // 0)
    adapter.call_later(1.0, lambda: log.append("next"))
    with pytest.raises(ZeroDivisionError):
        adapter.advance(1.0)
    adapter.run_until_idle()
    assert log == ["next"]


def test_loop_cannot_be_run_inside_a_callback(adapter: MemoryAdapter) -> None:
    def run_until() -> None:
        adapter.run_until(adapter.create_future().future)

    for nested in (adapter.run, adapter.run_until_idle, run_until):
        adapter.call_soon(nested)
        with pytest.raises(WrongState):
            adapter.run_until_idle()


def test_run_ends_at_stop_or_when_nothing_is_left(adapter: MemoryAdapter) -> None:
    log: list[float] = []

    def tick() -> None:
        log.append(adapter.time())
        adapter.call_later(60.0, tick)

    tick()
    adapter.call_later(150.0, adapter.stop)
    adapter.run()
    assert log == [0.0, 60.0, 120.0]
    MemoryAdapter().run()


def test_stop_before_run_lets_run_return_at_once(adapter: MemoryAdapter) -> None:
    log: list[str] = []
    adapter.call_soon(lambda: log.append("ran"))
    adapter.stop()
    adapter.stop()
    adapter.run()
    assert log == []
    adapter.run()
    assert log == ["ran"]


def test_threadsafe_call_runs_on_the_next_turn(adapter: MemoryAdapter) -> None:
    log: list[str] = []
    adapter.call_soon_threadsafe(lambda: log.append("ran"))
    assert log == []
    adapter.run_until_idle()
    assert log == ["ran"]


# --- results


def test_result_settles_once(adapter: MemoryAdapter) -> None:
    promise = adapter.create_future()
    promise.resolve(7)
    promise.resolve(8)
    promise.reject(OSError())
    assert not promise.future.cancel()
    assert promise.future.result() == 7
    assert promise.future.exception() is None
    assert adapter.run_until(promise.future) == 7


def test_rejected_result_raises_each_time_without_growing_a_traceback(
    adapter: MemoryAdapter,
) -> None:
    promise = adapter.create_future()
    promise.reject(KeyError("k"))

    def depth() -> int:
        with pytest.raises(KeyError) as caught:
            adapter.run_until(promise.future)
        return len(caught.traceback)

    assert depth() == depth() == depth()


def test_pending_result_says_so(adapter: MemoryAdapter) -> None:
    result = adapter.create_future().future
    assert not result.done()
    with pytest.raises(WrongState):
        result.result()


def test_cancelled_result_raises_request_cancelled(adapter: MemoryAdapter) -> None:
    result = adapter.create_future().future
    assert result.cancel()
    with pytest.raises(RequestCancelled):
        adapter.run_until(result)


def test_done_callback_comes_from_the_loop_only(adapter: MemoryAdapter) -> None:
    log: list[object] = []
    promise = adapter.create_future()
    promise.future.add_done_callback(lambda result: log.append(result.result()))
    promise.resolve(1)
    promise.future.add_done_callback(lambda result: log.append(result.result()))
    assert log == []
    adapter.run_until_idle()
    assert log == [1, 1]


def test_run_until_drives_a_coroutine_through_virtual_time(adapter: MemoryAdapter) -> None:
    async def sleep(seconds: float) -> float:
        promise = adapter.create_future()
        adapter.call_later(seconds, lambda: promise.resolve(None))
        await promise.future
        await promise.future
        return adapter.time()

    async def both() -> list[float]:
        return [await sleep(3600), await sleep(1800)]

    assert adapter.run_until(both()) == [3600.0, 5400.0]


def test_coroutine_sees_the_exception_and_may_handle_it(adapter: MemoryAdapter) -> None:
    async def resilient() -> str:
        promise = adapter.create_future()
        adapter.call_later(1.0, lambda: promise.reject(OSError("lost")))
        try:
            await promise.future
        except OSError as exc:
            return str(exc)
        return "nothing raised"

    assert adapter.run_until(resilient()) == "lost"


def test_awaiting_something_foreign_is_a_type_error(adapter: MemoryAdapter) -> None:
    class Foreign:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield "what only another loop understands"

    async def wait() -> None:
        await Foreign()

    with pytest.raises(BadType, match="another loop"):
        adapter.run_until(wait())
    with pytest.raises(BadType):
        adapter.run_until(Foreign())


def test_run_until_what_can_never_happen_raises_instead_of_hanging(adapter: MemoryAdapter) -> None:
    with pytest.raises(TimeoutError):
        adapter.run_until(adapter.create_future().future)


def test_stop_before_the_result_is_there_says_so(adapter: MemoryAdapter) -> None:
    adapter.call_later(1.0, adapter.stop)
    with pytest.raises(WrongState, match="stop"):
        adapter.run_until(adapter.create_future().future)


def test_coroutine_that_run_until_gives_up_is_closed(adapter: MemoryAdapter) -> None:
    log: list[str] = []

    async def wait() -> None:
        try:
            await adapter.create_future().future
        finally:
            log.append("closed")

    with pytest.raises(TimeoutError):
        adapter.run_until(wait())
    assert log == ["closed"]


def test_keyboard_interrupt_in_a_coroutine_ends_the_loop(adapter: MemoryAdapter) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapter.run_until(interrupted())


# --- connecting


def test_connection_is_made_from_the_loop_and_carries_bytes_both_ways(
    adapter: MemoryAdapter,
) -> None:
    stream, peer = connect(adapter)
    assert stream.calls == ["made"]
    assert peer.is_connected
    stream.during("a call", lambda: stream.transport.write(b"ping"))
    peer.send(b"pong")
    adapter.run_until_idle()
    assert (bytes(peer.received), bytes(stream.data)) == (b"ping", b"pong")


def test_connecting_to_nothing_is_refused(adapter: MemoryAdapter) -> None:
    stream, _ = dial(adapter)
    adapter.run_until_idle()
    assert stream.calls == ["lost"]
    assert isinstance(stream.error, ConnectFailed)
    assert isinstance(stream.error.__cause__, ConnectionRefusedError)


def test_unresolvable_name_is_lost(adapter: MemoryAdapter) -> None:
    adapter.listen("broker", 5672, Peer)
    adapter.unresolvable.add("broker")
    stream, _ = dial(adapter)
    adapter.run_until_idle()
    assert stream.calls == ["lost"]
    assert "broker" in str(stream.error)


def test_host_that_does_not_answer_times_out(adapter: MemoryAdapter) -> None:
    adapter.unanswering.add("broker")
    stream, _ = dial(adapter)
    adapter.advance(4.9)
    assert stream.calls == []
    adapter.advance(0.2)
    assert stream.calls == ["lost"]
    assert stream.error is not None
    assert isinstance(stream.error.__cause__, TimeoutError)


def test_peer_that_is_silent_in_tls_times_out(adapter: MemoryAdapter) -> None:
    peer = Peer()
    adapter.listen("broker", 5671, lambda: peer)
    stream = StrictStream()
    adapter.connect(Endpoint("broker", 5671, tls=ssl.create_default_context()), stream)
    adapter.advance(9.9)
    assert stream.calls == []
    assert peer.received[:1] == b"\x16"  # the client's first TLS record, and nothing else
    adapter.advance(0.2)
    assert stream.calls == ["lost"]
    assert not peer.is_connected


@pytest.mark.parametrize("host", ["broker", "nobody", "asleep"])
def test_cancelled_connect_is_lost_once_and_never_made(adapter: MemoryAdapter, host: str) -> None:
    adapter.listen("broker", 5672, Peer)
    adapter.unanswering.add("asleep")
    stream, attempt = dial(adapter, host)
    stream.during("a call", attempt.cancel)
    attempt.cancel()
    adapter.advance(60)
    attempt.cancel()
    adapter.run_until_idle()
    assert stream.calls == ["lost"]
    assert isinstance(stream.error, ConnectionAbortedError)


def test_cancel_after_connecting_changes_nothing(adapter: MemoryAdapter) -> None:
    adapter.listen("broker", 5672, Peer)
    stream, attempt = dial(adapter)
    adapter.run_until_idle()
    attempt.cancel()
    adapter.run_until_idle()
    assert stream.calls == ["made"]


def test_cancelled_listener_refuses_and_leaves_connections_alone(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    late, _ = dial(adapter)
    stream.transport.write(b"still here")
    adapter.run_until_idle()
    assert late.calls == ["lost"]
    assert peer.received == b"still here"


def test_port_zero_picks_a_free_port_and_a_taken_one_is_refused(adapter: MemoryAdapter) -> None:
    first, second = adapter.listen("broker", 0, Peer), adapter.listen("broker", 0, Peer)
    assert first.port != second.port
    with pytest.raises(BadArgument):
        adapter.listen("broker", second.port, Peer)


def test_every_connection_gets_a_stream_of_its_own(adapter: MemoryAdapter) -> None:
    adapter.listen("broker", 5672, Peer)
    (one, _), (two, _) = dial(adapter), dial(adapter)
    adapter.run_until_idle()
    first, second = adapter.accepted
    first.write(b"1")
    second.write(b"2")
    adapter.run_until_idle()
    assert (bytes(one.data), bytes(two.data)) == (b"1", b"2")


# --- ends


def test_close_sends_what_is_queued_and_both_ends_are_lost_without_error(
    adapter: MemoryAdapter,
) -> None:
    stream, peer = connect(adapter)

    def leave() -> None:
        stream.transport.write(b"x" * 300_000)
        stream.transport.close()
        stream.transport.close()
        stream.transport.write(b"too late")

    stream.during("a call", leave)
    adapter.run_until_idle()
    assert peer.received == b"x" * 300_000
    assert (stream.calls[-1], stream.calls.count("lost"), stream.error) == ("lost", 1, None)
    assert (peer.is_connected, peer.reason) == (False, None)


def test_abort_drops_what_is_queued_and_the_peer_sees_a_reset(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)

    def leave() -> None:
        stream.transport.write(b"x")
        stream.transport.abort()
        stream.transport.abort()

    stream.during("a call", leave)
    adapter.run_until_idle()
    assert stream.calls == ["made", "lost"]
    assert stream.error is None
    assert not peer.received
    assert isinstance(peer.reason, ConnectionResetError)


def test_abort_ends_a_close_that_waits_for_a_stalled_peer(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    peer.transport.pause_reading()
    stream.transport.write(b"x")
    stream.transport.close()
    adapter.advance(3600)
    assert stream.calls == ["made"]
    stream.during("a call", stream.transport.abort)
    adapter.run_until_idle()
    assert stream.calls == ["made", "lost"]


def test_peer_close_delivers_its_bytes_before_the_end(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    peer.send(b"bye")
    peer.transport.close()
    adapter.run_until_idle()
    assert stream.calls == ["made", "data", "lost"]
    assert stream.error is None


def test_peer_reset_delivers_its_bytes_before_the_error(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    peer.send(b"320 going down")
    peer.transport.reset()
    adapter.run_until_idle()
    assert stream.data == b"320 going down"
    assert stream.calls[-1] == "lost"
    assert isinstance(stream.error, ConnectionResetError)


def test_closing_inside_data_received_is_legal(adapter: MemoryAdapter) -> None:
    class Hasty(StrictStream):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.during("a call", self.transport.abort)

    stream = Hasty()
    peer = Peer()
    adapter.listen("broker", 5672, lambda: peer)
    adapter.connect(Endpoint("broker", 5672), stream)
    adapter.run_until_idle()
    peer.send(b"x" * 200_000)
    adapter.run_until_idle()
    assert stream.calls.count("lost") == 1
    assert stream.calls[-1] == "lost"
    assert not peer.is_connected


# --- flow and faults


def test_stalled_peer_pauses_writing_until_it_reads_again(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    peer.transport.pause_reading()
    stream.during("a call", lambda: stream.transport.write(b"x" * 100_000))
    adapter.run_until_idle()
    assert stream.calls == ["made", "pause"]
    assert not peer.received
    peer.transport.resume_reading()
    adapter.run_until_idle()
    assert stream.calls == ["made", "pause", "resume"]
    assert len(peer.received) == 100_000


def test_peer_hears_of_backpressure_too(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    stream.transport.pause_reading()
    peer.send(b"x" * 100_000)
    adapter.run_until_idle()
    assert not peer.writable
    stream.transport.resume_reading()
    adapter.run_until_idle()
    assert peer.writable


def test_paused_reading_delivers_nothing_not_even_the_end(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    stream.transport.pause_reading()
    stream.transport.pause_reading()
    peer.send(b"bye")
    peer.transport.close()
    adapter.advance(60)
    assert stream.calls == ["made"]
    stream.during("a call", stream.transport.resume_reading)
    adapter.run_until_idle()
    assert stream.calls == ["made", "data", "lost"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunk_size_bounds_every_delivery_and_changes_no_byte(
    adapter: MemoryAdapter, size: int
) -> None:
    stream, peer = connect(adapter)
    peer.transport.peer.chunk_size = size
    peer.send(bytes(range(100)))
    peer.transport.close()
    adapter.run_until_idle()
    assert stream.data == bytes(range(100))
    assert max(stream.sizes) == min(size, 100)


def test_wire_cut_after_n_bytes_delivers_exactly_those(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    peer.transport.peer.cut_after(5)
    peer.send(b"abc")
    adapter.run_until_idle()
    assert stream.calls == ["made", "data"]
    peer.send(b"defgh")
    adapter.run_until_idle()
    assert stream.data == b"abcde"
    assert isinstance(stream.error, ConnectionResetError)
    assert isinstance(peer.reason, ConnectionResetError)


def test_wire_cut_after_nothing_breaks_without_traffic(adapter: MemoryAdapter) -> None:
    stream, peer = connect(adapter)
    peer.transport.cut_after(0)
    adapter.run_until_idle()
    assert stream.calls == ["made", "lost"]
    assert not peer.is_connected


def test_silent_wire_loses_bytes_and_ends_and_own_close_still_ends(
    adapter: MemoryAdapter,
) -> None:
    stream, peer = connect(adapter)
    stream.transport.write(b"never arrives")
    peer.transport.silence()
    stream.transport.write(b"nor this")
    peer.send(b"nor that")
    peer.transport.close()
    adapter.advance(3600)
    assert stream.calls == ["made"]
    assert not peer.received
    stream.transport.abort()
    adapter.run_until_idle()
    assert stream.calls == ["made", "lost"]


def test_peer_that_nobody_reached_says_so() -> None:
    peer = Peer()
    with pytest.raises(WrongState):
        peer.send(b"x")


def test_same_script_gives_the_same_events() -> None:
    def play() -> list[tuple[str, float]]:
        adapter = MemoryAdapter()
        log: list[tuple[str, float]] = []

        class Logger(StrictStream):
            def _note(self, event: str) -> None:
                log.append((event, adapter.time()))

        peer = Peer()
        adapter.listen("broker", 5672, lambda: peer)
        adapter.connect(Endpoint("broker", 5672), Logger())
        adapter.call_later(1.0, lambda: peer.send(b"x" * 100_000))
        adapter.call_later(2.0, lambda: peer.transport.reset())
        adapter.advance(10.0)
        return log

    events = play()
    assert events[0] == ("made", 0.0)
    assert events[-1] == ("lost", 2.0)
    assert play() == events


def test_transport_is_one_to_the_type_checker(adapter: MemoryAdapter) -> None:
    _, peer = connect(adapter)
    as_transport: Transport = peer.transport
    assert isinstance(as_transport, MemoryTransport)
