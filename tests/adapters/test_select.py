"""The built-in loop beyond the contract: run_until, results, signals, and callbacks that raise.

What every loop owes is in test_contract.py.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import itertools
import math
import os
import select
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

import evamqp
from evamqp.abc import Endpoint, Handle, LoopCallback
from evamqp.adapters import _listener
from evamqp.adapters._socket import SocketTransport
from evamqp.adapters._timers import CANCELLED_TIMERS, Call, Timers
from evamqp.adapters.memory import Peer
from evamqp.adapters.select import Result, SelectAdapter
from evamqp.errors import BadType, RequestCancelled, WrongState
from evamqp.testing.contract import LoopbackServer, RecordingStream, pattern
from tests.adapters.conftest import Handler

TIMEOUT = 10.0


@pytest.fixture
def adapter() -> Iterator[SelectAdapter]:
    adapter = SelectAdapter()
    yield adapter
    adapter.close()


class Request:
    """What the core's requests look like to a loop: awaitable, with a native future."""

    def __init__(self, future: Result[int]) -> None:
        self.future = future

    def __await__(self) -> Generator[Any, Any, int]:
        return self.future.__await__()


# Callbacks that raise.


def test_raising_callback_leaves_run_and_loses_nothing_else(adapter: SelectAdapter) -> None:
    calls: list[str] = []
    adapter.call_soon(lambda: calls.append("before"))
    adapter.call_soon(_raiser(ValueError("mine")))
    adapter.call_soon(lambda: calls.append("after"))
    adapter.call_soon(adapter.stop)
    with pytest.raises(ValueError, match="mine"):
        adapter.run()
    assert calls == ["before"]
    adapter.run()
    assert calls == ["before", "after"]


def test_raising_timer_leaves_run_and_loses_nothing_else(adapter: SelectAdapter) -> None:
    calls: list[str] = []
    adapter.call_later(0, _raiser(KeyboardInterrupt()))
    adapter.call_later(0, lambda: calls.append("due as well"))
    adapter.call_later(0, adapter.stop)
    with pytest.raises(KeyboardInterrupt):
        adapter.run()
    adapter.run()
    assert calls == ["due as well"]


def test_raising_stream_leaves_the_connection_alive(adapter: SelectAdapter) -> None:
    server, stream = LoopbackServer(), RecordingStream()
    adapter.connect(Endpoint("127.0.0.1", server.port), stream)
    _run_while(adapter, lambda: not stream.is_made)
    peer = server.accept()
    stream.on_data = _raiser(ValueError("mine"))
    peer.send(b"first")
    with pytest.raises(ValueError, match="mine"):
        adapter.run()
    stream.on_data = adapter.stop
    peer.send(b"second")
    adapter.run()
    assert stream.data == b"firstsecond"
    stream.abort()
    _run_while(adapter, lambda: not stream.is_lost)
    server.close()


# run and stop.


def test_stop_before_run_ends_that_run_alone(adapter: SelectAdapter) -> None:
    calls: list[str] = []
    adapter.call_soon(lambda: calls.append("later"))
    adapter.stop()
    adapter.stop()
    adapter.run()
    assert calls == []
    adapter.call_soon(adapter.stop)
    adapter.run()
    assert calls == ["later"]


def test_stop_of_a_run_that_a_callback_left_does_not_end_the_next_one(
    adapter: SelectAdapter,
) -> None:
    adapter.call_soon(adapter.stop)
    adapter.call_soon(_raiser(ValueError("left")))
    with pytest.raises(ValueError, match="left"):
        adapter.run()
    calls: list[str] = []
    adapter.call_later(0, lambda: calls.append("later"))
    adapter.call_later(0.001, adapter.stop)
    adapter.run()
    assert calls == ["later"]


def test_run_inside_a_callback_is_refused(adapter: SelectAdapter) -> None:
    errors: list[BaseException] = []

    def nest() -> None:
        for call in (adapter.run, adapter.close, lambda: adapter.run_until(_result(adapter))):
            try:
                call()
            except WrongState as error:
                errors.append(error)
        adapter.stop()

    adapter.call_soon(nest)
    adapter.run()
    assert len(errors) == 3


def test_a_nested_loop_ends_by_itself_and_the_outer_one_goes_on(adapter: SelectAdapter) -> None:
    calls: list[str] = []

    def nest() -> None:
        adapter.call_later(0.01, lambda: calls.append("timer"))
        adapter.call_later(0.02, adapter.stop)
        adapter.run_nested()
        calls.append("nested is over")
        adapter.call_soon(adapter.stop)

    adapter.call_soon(nest)
    adapter.call_soon(lambda: calls.append("due in the same turn"))
    adapter.call_soon(lambda: calls.append("and so is this"))
    adapter.run()
    assert calls == ["due in the same turn", "and so is this", "timer", "nested is over"]


def test_a_stop_before_a_nested_loop_ends_the_outer_one(adapter: SelectAdapter) -> None:
    def nest() -> None:
        adapter.stop()
        adapter.call_soon(adapter.stop)
        adapter.run_nested()

    adapter.call_soon(nest)
    adapter.run()


def test_a_nested_loop_is_for_callbacks(adapter: SelectAdapter) -> None:
    with pytest.raises(WrongState, match="for its callbacks"):
        adapter.run_nested()


def test_stop_from_another_thread_wakes_the_loop(adapter: SelectAdapter) -> None:
    thread = threading.Thread(target=adapter.stop)
    adapter.call_soon(thread.start)
    adapter.run()
    thread.join()


def test_callbacks_that_never_end_do_not_starve_the_sockets(adapter: SelectAdapter) -> None:
    server, stream = LoopbackServer(), RecordingStream()
    adapter.connect(Endpoint("127.0.0.1", server.port), stream)

    def again() -> None:
        if not stream.is_made:
            adapter.call_soon(again)

    adapter.call_soon(again)
    _run_while(adapter, lambda: not stream.is_made)
    stream.abort()
    _run_while(adapter, lambda: not stream.is_lost)
    server.close()


def test_close_may_be_repeated_and_late_threads_do_no_harm() -> None:
    adapter = SelectAdapter()
    adapter.close()
    adapter.close()
    adapter.call_soon_threadsafe(lambda: None)
    adapter.stop()


# Signals.


def test_signal_handler_that_stops_wakes_a_loop_that_sleeps(
    adapter: SelectAdapter, on_signal: Callable[[Handler], int]
) -> None:
    number = on_signal(lambda *_: adapter.stop())
    thread = threading.Thread(target=os.kill, args=(os.getpid(), number))
    adapter.call_soon(thread.start)
    adapter.run()
    thread.join()


def test_signal_between_turns_and_sleep_is_not_missed(
    adapter: SelectAdapter, on_signal: Callable[[Handler], int]
) -> None:
    # The wake-up byte is written by the interpreter's C handler, before any Python runs.
    number = on_signal(lambda *_: adapter.stop())
    written: list[int] = []

    def look() -> None:
        descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(descriptor)
        written.append(descriptor)
        signal.raise_signal(number)

    adapter.call_soon(look)
    adapter.run()
    assert written[0] >= 0


def test_signal_handler_that_raises_leaves_run(
    adapter: SelectAdapter, on_signal: Callable[[Handler], int]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    number = on_signal(interrupt)
    adapter.call_soon(lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt):
        adapter.run()
    adapter.call_soon(adapter.stop)
    adapter.run()


class Interrupting:
    """Raises SIGINT before one instruction of the adapter: that with this number."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if "adapters" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGINT)
        return self


def test_a_ctrl_c_before_any_instruction_of_the_loop_loses_nothing(adapter: SelectAdapter) -> None:
    number = interrupts = 0
    while True:
        number += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        stream = Peer()
        transport = SocketTransport(adapter._selector, adapter.call_soon, ours, stream)
        stream.connection_made(transport)
        theirs.sendall(b"bytes")
        calls: list[str] = []
        adapter.call_soon(partial(calls.append, "soon"))
        adapter.call_later(0, partial(calls.append, "later"))
        interrupting = Interrupting(number)
        sys._getframe().f_trace_opcodes = True
        sys.settrace(interrupting)
        try:
            adapter.run_until(adapter_turns(adapter, 3))
        except KeyboardInterrupt:
            interrupts += 1
        finally:
            sys.settrace(None)
        adapter.run_until(adapter_turns(adapter, 3))
        assert sorted(calls) == ["later", "soon"], number
        assert stream.received == b"bytes", number
        transport.abort()
        theirs.close()
        adapter.run_until(adapter_turns(adapter, 1))
        if interrupting.left > 0:  # no instruction has this number any more
            break
    is_short = sys.version_info >= (3, 14) and evamqp.implementation == "compiled"
    assert interrupts > (50 if is_short else 100)


def adapter_turns(adapter: SelectAdapter, count: int) -> Any:
    """A future that is there after so many turns of the loop."""
    promise = adapter.create_future()

    def turn(left: int) -> None:
        if left:
            adapter.call_soon(lambda: turn(left - 1))
        else:
            promise.resolve(None)

    turn(count)
    return promise.future


def test_a_second_ctrl_c_interrupts_a_callback_that_does_not_end(adapter: SelectAdapter) -> None:
    seen: list[int] = []

    def endless() -> None:
        for number in itertools.count():
            seen.append(number)
            signal.raise_signal(signal.SIGINT)

    adapter.call_soon(endless)
    with pytest.raises(KeyboardInterrupt):
        adapter.run()
    assert seen == [0, 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_ctrl_c_in_the_last_callback_is_not_swallowed(adapter: SelectAdapter) -> None:
    def last() -> None:
        signal.raise_signal(signal.SIGINT)
        adapter.stop()

    adapter.call_soon(last)
    with pytest.raises(KeyboardInterrupt):
        adapter.run()
    adapter.stop()
    adapter.run()


def test_a_ctrl_c_while_no_python_code_runs_ends_the_sleep(adapter: SelectAdapter) -> None:
    # A compiled loop runs little else, and an interpreter calls handlers from Python code.
    too_late: list[int] = []

    def give_up() -> None:
        too_late.append(1)
        adapter.stop()

    adapter.call_soon(_thread.interrupt_main)
    adapter.call_later(10, give_up)
    with pytest.raises(KeyboardInterrupt):
        adapter.run()
    assert not too_late


def test_a_handler_of_yours_for_ctrl_c_is_left_alone(
    adapter: SelectAdapter,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        adapter.call_soon(lambda: signal.raise_signal(signal.SIGINT))
        adapter.call_soon(adapter.stop)
        adapter.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]


def test_wake_up_of_signals_is_given_back(adapter: SelectAdapter) -> None:
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    with reader, writer:
        before = signal.set_wakeup_fd(writer.fileno())
        try:
            adapter.call_soon(adapter.stop)
            adapter.run()
        finally:
            mine = signal.set_wakeup_fd(before)
        assert mine == writer.fileno()


def test_loop_runs_in_a_thread_without_touching_signals(adapter: SelectAdapter) -> None:
    calls: list[str] = []
    adapter.call_soon(lambda: calls.append("ran"))
    adapter.call_soon(adapter.stop)
    thread = threading.Thread(target=adapter.run)
    thread.start()
    thread.join()
    assert calls == ["ran"]


def test_a_subclass_decides_what_time_it_is_and_sees_what_is_scheduled() -> None:
    scheduled: list[float] = []

    class Shifted(SelectAdapter):
        def time(self) -> float:
            return SelectAdapter.time() + 1e6

        def call_later(self, delay: float, callback: LoopCallback) -> Handle:
            scheduled.append(delay)
            return super().call_later(delay, callback)

    adapter = Shifted()
    adapter.call_later(0.01, adapter.stop)
    adapter.run()
    with pytest.raises(TimeoutError):
        adapter.run_until(adapter.create_future().future, 0.01)
    assert scheduled == [0.01, 0.01]
    adapter.close()


# run_until.


def test_run_until_returns_the_value_of_a_result(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    adapter.call_later(0.001, lambda: promise.resolve(7))
    assert adapter.run_until(promise.future) == 7


def test_run_until_takes_a_request(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    adapter.call_soon(lambda: promise.resolve(7))
    assert adapter.run_until(Request(promise.future)) == 7


def test_run_until_drives_a_coroutine(adapter: SelectAdapter) -> None:
    first, second = adapter.create_future(), adapter.create_future()
    adapter.call_soon(lambda: first.resolve(3))
    adapter.call_later(0.001, lambda: second.resolve(4))

    async def add() -> int:
        return int(await first.future) + await Request(second.future)

    assert adapter.run_until(add()) == 7


def test_run_until_raises_what_the_coroutine_raised(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    promise.reject(KeyError("mine"))

    async def fail() -> None:
        await promise.future

    with pytest.raises(KeyError, match="mine"):
        adapter.run_until(fail())


def test_coroutine_may_handle_a_failure_and_go_on(adapter: SelectAdapter) -> None:
    failing, working = adapter.create_future(), adapter.create_future()
    adapter.call_soon(lambda: failing.reject(OSError("lost")))
    adapter.call_later(0.001, lambda: working.resolve("done"))

    async def retry() -> object:
        try:
            return await failing.future
        except OSError:
            return await working.future

    assert adapter.run_until(retry()) == "done"


def test_coroutine_of_another_loop_is_refused_inside_it(adapter: SelectAdapter) -> None:
    async def foreign() -> str:
        try:
            await asyncio.sleep(1)
        except BadType as error:
            return str(error)
        return "slept"

    async def yield_none() -> str:
        try:
            await asyncio.sleep(0)
        except BadType as error:
            return str(error)
        return "slept"

    assert "another loop" in adapter.run_until(yield_none())
    with pytest.raises(RuntimeError, match="no running event loop"):
        adapter.run_until(foreign())


def test_run_until_refuses_what_is_none_of_these(adapter: SelectAdapter) -> None:
    with pytest.raises(BadType, match="not int"):
        adapter.run_until(7)  # type: ignore[arg-type]


def test_run_until_closes_the_coroutine_when_time_is_up(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    ends: list[str] = []

    async def wait() -> None:
        try:
            await promise.future
        finally:
            ends.append("closed")

    with pytest.raises(TimeoutError):
        adapter.run_until(wait(), timeout=0.01)
    assert ends == ["closed"]
    promise.resolve(None)
    adapter.call_soon(adapter.stop)
    adapter.run()


def test_run_until_leaves_a_result_alone_when_time_is_up(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    with pytest.raises(TimeoutError):
        adapter.run_until(promise.future, timeout=0)
    adapter.call_soon(lambda: promise.resolve(7))
    assert adapter.run_until(promise.future) == 7


def test_stop_ends_run_until_with_an_error(adapter: SelectAdapter) -> None:
    adapter.call_soon(adapter.stop)
    with pytest.raises(WrongState, match="stop"):
        adapter.run_until(_result(adapter))


# Results.


def test_done_callbacks_come_from_the_loop_only(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    calls: list[Result[Any]] = []
    promise.future.add_done_callback(calls.append)
    promise.resolve(1)
    promise.future.add_done_callback(calls.append)
    assert calls == []
    adapter.call_soon(adapter.stop)
    adapter.run()
    assert calls == [promise.future, promise.future]


def test_pending_result_has_neither_value_nor_exception(adapter: SelectAdapter) -> None:
    result = _result(adapter)
    assert not result.done()
    with pytest.raises(WrongState):
        result.result()
    with pytest.raises(WrongState):
        result.exception()


def test_cancelled_result_is_settled_for_good(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    assert promise.future.cancel()
    assert not promise.future.cancel()
    promise.resolve(7)
    with pytest.raises(RequestCancelled):
        promise.future.result()


def test_failed_result_may_be_asked_often_without_growing(adapter: SelectAdapter) -> None:
    promise = adapter.create_future()
    promise.reject(OSError("lost"))
    depths = set()
    for _ in range(50):
        with pytest.raises(OSError, match="lost") as caught:
            promise.future.result()
        depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(depths) == 1


def test_failure_that_nobody_looks_at_never_logs(
    adapter: SelectAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    adapter.create_future().reject(OSError("unseen"))
    gc.collect()
    assert caplog.records == []


# Timers.


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    kept = timers.add(1.0, lambda: None)
    for number in range(100_000):
        timers.add(2.0 + number, lambda: None).cancel()
    assert len(timers) <= 2 * CANCELLED_TIMERS
    assert timers.due == 1.0
    kept.cancel()
    assert timers.due == math.inf


def test_cancelled_timers_wake_nobody() -> None:
    timers, ready = Timers(), deque[Call]()
    first, second = (timers.add(when, lambda: None) for when in (1.0, 2.0))
    timers.add(3.0, lambda: None)
    second.cancel()
    assert timers.due == 1.0
    timers.move_due(1.5, ready)
    assert (list(ready), timers.due) == ([first], 3.0)
    timers.add(2.5, lambda: None).cancel()
    assert timers.due == 3.0


def test_timer_may_be_due_never(adapter: SelectAdapter) -> None:
    adapter.call_later(float("inf"), _raiser(AssertionError("it fired")))
    adapter.call_later(1e12, _raiser(AssertionError("it fired")))
    adapter.call_later(0.001, adapter.stop)
    adapter.run()


# Sockets.


def test_descriptors_above_1023_work(adapter: SelectAdapter, thousand_files: None) -> None:
    server, stream = LoopbackServer(), RecordingStream()
    assert server.sock.fileno() > 1023
    adapter.connect(Endpoint("127.0.0.1", server.port), stream)
    _run_while(adapter, lambda: not stream.is_made)
    server.accept().send(b"far up")
    _run_while(adapter, lambda: stream.data != b"far up")
    stream.abort()
    _run_while(adapter, lambda: not stream.is_lost)
    server.close()


def test_listener_without_descriptors_rests_and_tries_again(
    adapter: SelectAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(_listener, "ACCEPT_RETRY", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    streams: list[RecordingStream] = []
    handle = adapter.listen("127.0.0.1", 0, lambda: _keep(streams, RecordingStream()))
    with socket.create_connection(("127.0.0.1", handle.port)) as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        try:
            adapter.call_later(0.05, adapter.stop)
            adapter.run()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert streams == []
        _run_while(adapter, lambda: not streams)
    _run_while(adapter, lambda: not streams[0].is_lost)
    handle.cancel()


def test_partly_sent_output_is_copied_once_however_slow_the_peer() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    selector = selectors.DefaultSelector()
    adapter = SelectAdapter()
    stream = RecordingStream()
    transport = SocketTransport(selector, adapter.call_soon, near, stream)
    sent = pattern(4 * 1024 * 1024)
    for start in range(0, len(sent), 100_000):
        transport.write(sent[start : start + 100_000])
    far.settimeout(10)
    received = bytearray()
    while len(received) < len(sent):
        for key, events in selector.select(0):
            key.data(events)
        received += far.recv(1000)
    assert received == sent
    transport.abort()
    _run_while(adapter, lambda: not stream.is_lost)
    far.close()
    selector.close()
    adapter.close()


# Turns of threads that share the loop.


def test_turn_runs_what_is_due_and_returns(adapter: SelectAdapter) -> None:
    calls: list[str] = []
    adapter.call_soon(lambda: calls.append("soon"))
    adapter.turn(0)
    adapter.call_later(0.01, lambda: calls.append("later"))
    while "later" not in calls:
        adapter.turn(TIMEOUT)
    adapter.turn(0)
    assert calls == ["soon", "later"]


def test_another_loop_can_watch_it(adapter: SelectAdapter) -> None:
    calls: list[str] = []
    adapter.turn(0)
    assert adapter.time_until_due() is None
    assert select.select([adapter], [], [], 0)[0] == []

    adapter.call_soon_threadsafe(lambda: calls.append("soon"))
    assert select.select([adapter], [], [], TIMEOUT)[0] == [adapter]
    assert adapter.time_until_due() == 0
    adapter.turn(0)
    assert calls == ["soon"]
    assert select.select([adapter], [], [], 0)[0] == []

    adapter.call_later(50, lambda: None)
    due = adapter.time_until_due()
    assert due is not None
    assert 0 < due <= 50


def test_lock_is_free_while_a_turn_sleeps_and_held_while_it_calls(adapter: SelectAdapter) -> None:
    lock = threading.Lock()
    calls: list[str] = []

    def other() -> None:
        with lock:
            calls.append("other")
            adapter.call_later(0, lambda: calls.append(f"called, locked={lock.locked()}"))

    thread = threading.Thread(target=other)
    with lock:
        thread.start()
        while len(calls) < 2:
            adapter.turn(TIMEOUT, lock=lock)
    thread.join()
    assert calls == ["other", "called, locked=True"]


def test_turn_that_is_refused_on_waking_makes_no_callback(adapter: SelectAdapter) -> None:
    calls: list[str] = []
    adapter.call_soon(lambda: calls.append("soon"))
    adapter.turn(0, on_wake=lambda: False)
    assert calls == []
    adapter.run_ready()
    assert calls == ["soon"]


def test_turn_inside_a_callback_is_refused(adapter: SelectAdapter) -> None:
    errors: list[WrongState] = []

    def nested() -> None:
        for call in (adapter.turn, adapter.run_ready):
            try:
                call()
            except WrongState as error:
                errors.append(error)

    adapter.call_soon(nested)
    adapter.turn(0)
    assert len(errors) == 2


def test_signal_ends_the_sleep_of_a_turn_that_leaves_its_lock_held(
    adapter: SelectAdapter, on_signal: Callable[[Handler], int]
) -> None:
    number = on_signal(lambda *_: _raiser(KeyboardInterrupt())())
    lock = threading.Lock()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
    timer.start()
    with lock:
        with pytest.raises(KeyboardInterrupt):
            adapter.turn(TIMEOUT, lock=lock)
        assert lock.locked()
    timer.join()


def test_loop_reports_whether_output_waits_for_its_sockets(adapter: SelectAdapter) -> None:
    server, stream = LoopbackServer(), RecordingStream()
    adapter.connect(Endpoint("127.0.0.1", server.port), stream)
    _run_while(adapter, lambda: not stream.is_made)
    peer = server.accept()
    sending = [adapter.is_sending]
    stream.transport.write(bytes(32 * 1024 * 1024))
    sending.append(adapter.is_sending)
    assert sending == [False, True]
    while adapter.is_sending:
        peer.read()
        adapter.turn(0.001)
    peer.read()
    assert len(peer.data) > 16 * 1024 * 1024
    stream.transport.abort()
    adapter.turn(0)
    server.close()


def _raiser(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def _result(adapter: SelectAdapter) -> Result[Any]:
    return adapter.create_future().future


def _keep(streams: list[RecordingStream], stream: RecordingStream) -> RecordingStream:
    streams.append(stream)
    return stream


def _run_while(adapter: SelectAdapter, condition: Callable[[], bool]) -> None:
    def look() -> None:
        if condition():
            adapter.call_later(0.001, look)
        else:
            adapter.stop()

    adapter.call_soon(look)
    adapter.run()
