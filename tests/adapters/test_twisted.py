"""The adapter contract on Twisted's reactors, and what is Twisted's own: Deferreds, run and stop.

A reactor runs once, so the contract's reactors are turned by hand and shared by their tests; what
needs run() or the process's signals is a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from evamqp.abc import Adapter
from evamqp.adapters.twisted import TwistedAdapter
from evamqp.testing.contract import (
    TOO_MUCH,
    AdapterContract,
    ListenerContract,
    Rig,
    pattern,
)


@cache
def select_reactor() -> Any:
    return _started(SelectReactor())


@cache
def epoll_reactor() -> Any:
    from twisted.internet.epollreactor import EPollReactor

    return _started(EPollReactor())  # type: ignore[no-untyped-call]


@cache
def asyncio_reactor() -> Any:
    return _started(AsyncioSelectorReactor(asyncio.new_event_loop()))


def _started(reactor: Any) -> Any:
    reactor.startRunning(installSignalHandlers=False)
    return reactor


@pytest.fixture(scope="module", autouse=True)
def _reactors_end() -> Iterator[None]:
    yield
    for make in (select_reactor, epoll_reactor, asyncio_reactor):
        if make.cache_info().currsize:
            make().fireSystemEvent("shutdown")
            make().removeAll()
    if asyncio_reactor.cache_info().currsize:
        asyncio_reactor()._asyncioEventloop.close()


class TwistedContract(AdapterContract, ListenerContract):
    """The contract, on a reactor that never ran and never stops."""

    make_reactor: Callable[[], Any]

    def make_adapter(self) -> Adapter:
        return TwistedAdapter(type(self).make_reactor())

    def pump(self, adapter: Adapter, done: Callable[[], object], seconds: float) -> bool:
        assert isinstance(adapter, TwistedAdapter)
        deadline = adapter.time() + seconds
        while not done() and adapter.time() < deadline:
            adapter.reactor.iterate(0.001)
        return bool(done())

    def outcome(self, future: Any) -> object:
        outcomes: list[object] = []
        future.addBoth(outcomes.append)
        assert self.pump(self.make_adapter(), lambda: outcomes, 10.0)
        if isinstance(outcomes[0], Failure):
            raise outcomes[0].value  # type: ignore[misc]
        return outcomes[0]

    def test_close_sends_everything_though_input_is_unread(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.server())
        stream.transport.pause_reading()
        peer.send(b"never read")
        stream.write(pattern(TOO_MUCH))
        stream.close()
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        assert peer.error is None
        assert len(peer.data) == TOO_MUCH


class TestTwistedSelect(TwistedContract):
    make_reactor = staticmethod(select_reactor)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
class TestTwistedEpoll(TwistedContract):
    make_reactor = staticmethod(epoll_reactor)


class TestTwistedAsyncio(TwistedContract):
    make_reactor = staticmethod(asyncio_reactor)

    def pump(self, adapter: Adapter, done: Callable[[], object], seconds: float) -> bool:
        # iterate() of this reactor sleeps for 10 ms each time.
        loop = asyncio_reactor()._asyncioEventloop
        deadline = adapter.time() + seconds

        def look() -> None:
            if done() or adapter.time() > deadline:
                loop.stop()
            else:
                loop.call_later(0.001, look)

        loop.call_soon(look)
        loop.run_forever()
        return bool(done())


# --- time


def test_wall_clock_is_not_the_clock_of_the_connection() -> None:
    assert TwistedAdapter(select_reactor()).time is time.monotonic


def test_reactor_with_a_clock_of_its_own_keeps_it() -> None:
    clock = Clock()
    adapter = TwistedAdapter(clock)
    log: list[float] = []
    adapter.call_later(2.0, lambda: log.append(adapter.time()))
    clock.advance(1.0)
    clock.advance(1.5)
    assert log == [2.5]


def test_negative_delay_is_none() -> None:
    clock = Clock()
    log: list[str] = []
    TwistedAdapter(clock).call_later(-1.0, lambda: log.append("fired"))
    clock.advance(0)
    assert log == ["fired"]


def test_callback_that_raises_discards_no_other() -> None:
    clock = Clock()
    adapter = TwistedAdapter(clock)
    log: list[str] = []

    def fail() -> None:
        adapter.call_soon(lambda: log.append("third"))
        raise ZeroDivisionError

    adapter.call_soon(lambda: log.append("first"))
    adapter.call_soon(fail)
    adapter.call_soon(lambda: log.append("second"))
    with pytest.raises(ZeroDivisionError):  # a real reactor logs it
        clock.advance(0)
    clock.advance(0)
    assert log == ["first", "second", "third"]


# --- Deferreds


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("isError") or "log_failure" in event:
            events.append(event)

    # Twisted types its observers as zope interfaces, which mypy does not know.
    publisher: Any = globalLogPublisher
    publisher.addObserver(observe)
    yield events
    publisher.removeObserver(observe)


def test_deferred_fires_on_a_turn_of_its_own() -> None:
    clock = Clock()
    promise = TwistedAdapter(clock).create_future()
    log: list[object] = []
    promise.future.addCallback(log.append)
    promise.resolve(7)
    assert log == []
    clock.advance(0)
    assert log == [7]


def test_rejected_deferred_that_nobody_touched_logs_nothing(logged: list[LogEvent]) -> None:
    clock = Clock()
    promise = TwistedAdapter(clock).create_future()
    promise.reject(KeyError("nobody looks"))
    clock.advance(0)
    del promise
    gc.collect()
    assert logged == []


def test_cancelled_deferred_that_nobody_touched_logs_nothing(logged: list[LogEvent]) -> None:
    clock = Clock()
    promise = TwistedAdapter(clock).create_future()
    promise.future.cancel()
    promise.resolve(7)
    clock.advance(0)
    del promise
    gc.collect()
    assert logged == []


@pytest.mark.parametrize("late", [False, True])
def test_failure_left_unhandled_by_a_users_callback_is_logged(
    logged: list[LogEvent], late: bool
) -> None:
    clock = Clock()
    promise = TwistedAdapter(clock).create_future()
    promise.reject(KeyError("somebody looked"))
    if late:
        clock.advance(0)
    promise.future.addCallback(lambda value: value)
    clock.advance(0)
    del promise
    gc.collect()
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [KeyError]


def test_cancelling_fails_the_deferred_and_a_later_outcome_is_dropped() -> None:
    clock = Clock()
    promise = TwistedAdapter(clock).create_future()
    outcomes: list[Any] = []
    promise.future.addBoth(outcomes.append)
    promise.resolve(7)
    promise.future.cancel()
    clock.advance(0)
    assert [outcome.type for outcome in outcomes] == [defer.CancelledError]


def test_deferred_serves_ensure_deferred_and_inline_callbacks() -> None:
    clock = Clock()
    adapter = TwistedAdapter(clock)
    promises = [adapter.create_future() for _ in range(2)]

    async def new_style() -> object:
        return await promises[0].future

    @defer.inlineCallbacks
    def old_style() -> Generator[Any, Any, object]:
        value = yield promises[1].future
        return value

    outcomes: list[object] = []
    defer.ensureDeferred(new_style()).addBoth(outcomes.append)
    old_style().addBoth(outcomes.append)
    for promise in promises:
        promise.resolve(7)
    clock.advance(0)
    assert outcomes == [7, 7]


# --- run() and stop(), in processes of their own

INSTALL = {
    "default": "",
    "select": "from twisted.internet import selectreactor as r; r.install()",
    "asyncio": "from twisted.internet import asyncioreactor as r; r.install()",
}


def script(body: str, install: str = "default") -> str:
    """Run a script in which ``adapter`` is a TwistedAdapter; what it printed."""
    head = f"""
        {INSTALL[install]}
        import os, signal, threading
        from evamqp.adapters.twisted import TwistedAdapter
        adapter = TwistedAdapter()
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("install", INSTALL)
def test_stop_ends_run_and_may_be_repeated(install: str) -> None:
    body = """
        adapter.call_soon(adapter.stop)
        adapter.call_soon(adapter.stop)
        adapter.reactor.addSystemEventTrigger("before", "shutdown", adapter.stop)
        adapter.run()
        adapter.stop()
        print("ended")
    """
    assert script(body, install) == "ended"


@pytest.mark.parametrize("install", INSTALL)
def test_stop_before_run_lets_run_end(install: str) -> None:
    assert (
        script("adapter.stop(); adapter.stop(); adapter.run(); print('ended')", install) == "ended"
    )


@pytest.mark.parametrize("install", INSTALL)
def test_stop_in_a_signal_handler_of_ones_own_ends_run(install: str) -> None:
    body = """
        def handler(*_):
            print("handled")
            adapter.stop()
        signal.signal(signal.SIGTERM, handler)
        adapter.call_soon(lambda: os.kill(os.getpid(), signal.SIGTERM))
        adapter.run()
        print("ended")
    """
    assert script(body, install).split() == ["handled", "ended"]


def test_sigterm_without_a_handler_ends_run_and_reports_streams_the_connection_is_lost() -> None:
    body = """
        import socket
        from evamqp.abc import Endpoint
        server = socket.create_server(("127.0.0.1", 0))

        class Stream:
            def connection_made(self, transport):
                os.kill(os.getpid(), signal.SIGTERM)
            def data_received(self, data):
                print("received")
            def connection_lost(self, exc):
                print("lost", type(exc).__name__)
                adapter.stop()

        adapter.connect(Endpoint("127.0.0.1", server.getsockname()[1]), Stream())
        adapter.reactor.addSystemEventTrigger("after", "shutdown", lambda: print("shut down"))
        adapter.run()
    """
    assert script(body).splitlines() == ["lost ConnectionAbortedError", "shut down"]


def test_run_works_in_a_thread() -> None:
    body = """
        thread = threading.Thread(target=adapter.run)
        adapter.call_soon(lambda: print("running"))
        thread.start()
        adapter.stop()
        thread.join()
        print("ended")
    """
    assert script(body).split() == ["running", "ended"]
