"""The contract of ``evamqp.adapters.base`` as a test suite that every adapter passes unchanged.

Only what is true of all loops belongs here; a loop's own habits have tests of their own.  To check
an adapter, subclass in a pytest module and say how it is made:

    class TestMyAdapter(AdapterContract):
        def make_adapter(self):
            return MyAdapter()

``AdapterContract`` needs real sockets (on 127.0.0.1), and ``trustme`` for its TLS checks.  Add
``ListenerContract`` if the adapter has ``listen()``; an adapter without sockets takes that one and
``LoopContract`` alone.  A loop whose run() cannot be called twice overrides pump(), and one whose
futures have no ``result()`` overrides outcome().
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from evamqp.adapters.base import Adapter, Callback, Endpoint, Handle, Listener, Transport
from evamqp.errors import ConnectFailed

if TYPE_CHECKING:
    import ssl

    import trustme

#: Seconds after which a check that still waits has failed.
PATIENCE = 10.0
#: Seconds of looking, where the law is that something does not happen.
A_WHILE = 0.05
#: Bytes that no pair of loopback socket buffers takes without a reader.
TOO_MUCH = 16 * 1024 * 1024

LOCALHOST = "127.0.0.1"


class Recorder:
    """A Stream that writes down what it is told, and whether it was told at the wrong time."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self.error: BaseException | None = None
        self.faults: list[str] = []
        self.on_made: Callable[[], object] | None = None
        self.on_data: Callable[[], object] | None = None
        self._transport: Transport | None = None
        self._inside: str | None = None

    @property
    def transport(self) -> Transport:
        """What connection_made brought."""
        assert self._transport is not None
        return self._transport

    @property
    def is_made(self) -> bool:
        return self._transport is not None

    @property
    def is_lost(self) -> bool:
        return "lost" in self.calls

    def during(self, verb: str, call: Callable[[], object]) -> None:
        """Make ``call``; a callback that comes from inside it is a fault."""
        self._inside = verb
        try:
            call()
        finally:
            self._inside = None

    def write(self, data: bytes) -> None:
        self.during("write", lambda: self.transport.write(data))

    def close(self) -> None:
        self.during("close", self.transport.close)

    def abort(self) -> None:
        self.during("abort", self.transport.abort)

    # The Stream.

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._note("made")
        if self.on_made is not None:
            self.on_made()

    def data_received(self, data: bytes) -> None:
        if type(data) is not bytes or not data:
            self.faults.append(f"data_received got {data!r}")
        self.data += data
        self._check("data")
        if self.on_data is not None:
            self.on_data()

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self._note("lost")

    def _note(self, name: str) -> None:
        self._check(name)
        self.calls.append(name)

    def _check(self, name: str) -> None:
        if self._inside is not None:
            self.faults.append(f"{name} was told inside {self._inside}()")
        if self.is_lost:
            self.faults.append(f"{name} came after the loss")


class Peer:
    """The other end of a connection, played by the test itself on a non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.data = bytearray()
        self.is_ended = False
        self.error: OSError | None = None

    def read(self, limit: int = 1 << 30) -> bytearray:
        """Take what has arrived, and return all that has arrived so far."""
        try:
            while not self.is_ended and len(self.data) < limit:
                piece = self.sock.recv(256 * 1024)
                self.data += piece
                self.is_ended = not piece
        except BlockingIOError:
            pass
        except OSError as error:
            # A TLS socket that wants more to read says so with an OSError that has no such type.
            if not _wants_read(error):
                self.is_ended = True
                self.error = error
        return self.data

    def has_ended(self) -> bool:
        """Did the connection end?  Reads whatever is there."""
        self.read()
        return self.is_ended

    def send(self, data: bytes) -> None:
        """Send a little."""
        self.sock.sendall(data)

    def reset(self) -> None:
        """End the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def shake_hands(self) -> bool:
        """Play the server in TLS a step further; True when that is over, for good or ill."""
        try:
            cast("ssl.SSLSocket", self.sock).do_handshake()
        except OSError as error:
            if _wants_read(error):
                return False
            self.error = error
        return True


def _is_ready(sock: socket.socket, event: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        return bool(selector.select(seconds))


def _wants_read(error: OSError) -> bool:
    import ssl

    return isinstance(error, ssl.SSLWantReadError)


class Harbour:
    """A listening socket of the test's own."""

    def __init__(self, host: str = LOCALHOST) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.sock.bind((host, 0))
        except OSError:
            self.sock.close()
            raise
        self.sock.listen(16)
        self.sock.settimeout(PATIENCE)
        self.port: int = self.sock.getsockname()[1]
        self._opened: list[socket.socket] = [self.sock]

    def fall_silent(self) -> None:
        """Fill the queue of connections, so that further ones get no answer at all."""
        self.sock.listen(0)
        for _ in range(8):
            filler = socket.socket(self.sock.family, socket.SOCK_STREAM)
            self._opened.append(filler)
            filler.setblocking(False)
            filler.connect_ex(self.sock.getsockname())
            if not _is_ready(filler, selectors.EVENT_WRITE, A_WHILE):
                return
        pytest.skip("this system answers even when the queue is full")

    def is_called(self) -> bool:
        """Does a connection wait for accept()?"""
        return _is_ready(self.sock, selectors.EVENT_READ, 0)

    def accept(self) -> Peer:
        sock, _ = self.sock.accept()
        self._opened.append(sock)
        return Peer(sock)

    def accept_tls(self, context: ssl.SSLContext) -> Peer:
        plain, _ = self.sock.accept()
        sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._opened.append(sock)
        return Peer(sock)

    def close(self) -> None:
        for sock in self._opened:
            sock.close()


class Rig:
    """One adapter under test, what was opened with it, and the laws that hold in every check."""

    def __init__(self, adapter: Adapter, pump: Callable[[Callable[[], object]], None]) -> None:
        self.adapter = adapter
        self.until = pump
        self._recorders: list[Recorder] = []
        self._harbours: list[Harbour] = []
        self._handles: list[Handle] = []

    def harbour(self, host: str = LOCALHOST) -> Harbour:
        """A port for the adapter to connect to."""
        harbour = Harbour(host)
        self._harbours.append(harbour)
        return harbour

    def recorder(self) -> Recorder:
        recorder = Recorder()
        self._recorders.append(recorder)
        return recorder

    def dial(self, port: int, host: str = LOCALHOST, **options: Any) -> tuple[Recorder, Handle]:
        """Begin to connect; ``options`` are Endpoint's."""
        stream = self.recorder()
        handles: list[Handle] = []
        endpoint = Endpoint(host, port, **options)
        stream.during("connect", lambda: handles.append(self.adapter.connect(endpoint, stream)))
        self._handles += handles
        return stream, handles[0]

    def connect(self, port: int, host: str = LOCALHOST, **options: Any) -> Recorder:
        """Connect, and wait for the outcome."""
        stream, _ = self.dial(port, host, **options)
        self.until(lambda: stream.calls)
        return stream

    def pair(self, harbour: Harbour, **options: Any) -> tuple[Recorder, Peer]:
        """A plain connection: our stream and the other end."""
        stream = self.connect(harbour.port, **options)
        assert stream.calls == ["made"], stream.error
        return stream, harbour.accept()

    def tls_pair(self, harbour: Harbour, **options: Any) -> tuple[Recorder, Peer]:
        """A TLS connection, as far as the handshake goes: it may have failed."""
        stream, _ = self.dial(harbour.port, **options)
        self.until(harbour.is_called)
        peer = harbour.accept_tls(server_context())
        self.until(peer.shake_hands)
        self.until(lambda: stream.calls)
        return stream, peer

    def listen(self, factory: Callable[[], Recorder]) -> tuple[int, Handle]:
        """Let the adapter accept connections."""
        handle = cast(Listener, self.adapter).listen(LOCALHOST, 0, factory)
        self._handles.append(handle)
        return handle.port, handle

    def wait(self, seconds: float = A_WHILE) -> None:
        """Let the loop run for a while."""
        over: list[bool] = []
        self.adapter.call_later(seconds, lambda: over.append(True))
        self.until(lambda: over)

    def finish(self) -> None:
        """End everything, then check the laws that hold for every stream."""
        for handle in self._handles:
            handle.cancel()
        for stream in self._recorders:
            if stream.is_made and not stream.is_lost:
                stream.abort()
        self.until(lambda: all(stream.is_lost for stream in self._recorders))
        self.wait(0)  # connections that lost a race are closed a turn later
        for harbour in self._harbours:
            harbour.close()
        for stream in self._recorders:
            assert stream.faults == []
            assert stream.calls.count("lost") == 1
            assert stream.calls.count("made") <= 1


def failure_of(stream: Recorder) -> BaseException:
    """What the last attempt of a connect that never succeeded failed with."""
    assert stream.calls == ["lost"]
    assert isinstance(stream.error, ConnectFailed)
    assert str(stream.error)
    return stream.error.attempts[-1][1]


def closed_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    harbour = Harbour()
    harbour.close()
    return harbour.port


def our_end(peer: Peer) -> socket.socket:
    """A copy of the adapter's socket at the other end of ``peer``, found among our own files."""
    for fd in range(4096):
        if _is_socket(fd):
            sock = socket.socket(fileno=os.dup(fd))
            if _is_other_end(sock, peer):
                return sock
            sock.close()
    raise AssertionError("no socket of this process is the other end")


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def _is_other_end(sock: socket.socket, peer: Peer) -> bool:
    try:
        ends = (sock.getsockname(), sock.getpeername())
    except OSError:
        return False
    return ends == (peer.sock.getpeername(), peer.sock.getsockname())


T = TypeVar("T")


def _keep(items: list[T], item: T) -> T:
    items.append(item)
    return item


def _appender(items: list[T], item: T) -> Callback:
    return lambda: items.append(item)


def pattern(size: int) -> bytes:
    """Bytes in which a lost, doubled or displaced piece shows."""
    block = b"".join(number.to_bytes(4, "big") for number in range(64 * 1024))
    return (block * (size // len(block) + 1))[:size]


@cache
def _authority() -> trustme.CA:
    import trustme

    return trustme.CA()


@cache
def server_context() -> ssl.SSLContext:
    """A TLS server whose certificate is for ``localhost``."""
    return _new_server_context()


def _new_server_context() -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert("localhost").configure_cert(context)
    return context


@cache
def client_context() -> ssl.SSLContext:
    """A TLS client that trusts server_context()."""
    import ssl

    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context


class _Contract:
    """What a subclass says about its loop."""

    def make_adapter(self) -> Adapter:
        """A new adapter, on a loop that does not run."""
        raise NotImplementedError

    def dispose(self, adapter: Adapter) -> None:
        """Release what make_adapter() made."""
        close = getattr(adapter, "close", None)
        if close is not None:
            close()

    def pump(self, adapter: Adapter, done: Callable[[], object], seconds: float) -> bool:
        """Run the loop until ``done()`` or until ``seconds`` have passed; was it done?"""
        deadline = adapter.time() + seconds

        def look() -> None:
            if done() or adapter.time() > deadline:
                adapter.stop()
            else:
                adapter.call_later(0.001, look)

        adapter.call_soon(look)
        adapter.run()
        return bool(done())

    def outcome(self, future: Any) -> object:
        """The value of a settled native future, or raise its exception."""
        return future.result()

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        adapter = self.make_adapter()

        def until(done: Callable[[], object]) -> None:
            condition = _Condition(done)
            assert self.pump(adapter, condition, PATIENCE), "it never came"
            condition.raise_error()

        rig = Rig(adapter, until)
        try:
            yield rig
            rig.finish()
        finally:
            self.dispose(adapter)


class _Condition:
    """A check's condition, called on the loop, where an exception of its own would be lost."""

    def __init__(self, done: Callable[[], object]) -> None:
        self._done = done
        self._error: BaseException | None = None

    def __call__(self) -> bool:
        try:
            return self._error is not None or bool(self._done())
        except BaseException as error:
            self._error = error
            return True

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


class LoopContract(_Contract):
    """Timers, callbacks, threads and futures: what needs no connection."""

    def test_call_soon_never_calls_from_inside(self, rig: Rig) -> None:
        calls: list[str] = []
        rig.adapter.call_soon(lambda: calls.append("soon"))
        assert calls == []
        rig.until(lambda: calls)

    def test_call_soon_keeps_the_order(self, rig: Rig) -> None:
        calls: list[int] = []
        for number in range(100):
            rig.adapter.call_soon(_appender(calls, number))
        rig.until(lambda: len(calls) == 100)
        assert calls == list(range(100))

    def test_cancelled_call_soon_never_calls(self, rig: Rig) -> None:
        calls: list[str] = []
        handle = rig.adapter.call_soon(lambda: calls.append("cancelled"))
        rig.adapter.call_soon(lambda: calls.append("kept"))
        handle.cancel()
        handle.cancel()
        rig.until(lambda: calls)
        assert calls == ["kept"]

    def test_timers_fire_in_the_order_of_their_times(self, rig: Rig) -> None:
        calls: list[str] = []
        rig.adapter.call_later(0.03, lambda: calls.append("last"))
        rig.adapter.call_later(0.01, lambda: calls.append("first"))
        rig.adapter.call_later(0.02, lambda: calls.append("second"))
        rig.until(lambda: "last" in calls)
        assert calls == ["first", "second", "last"]

    def test_timer_never_fires_early(self, rig: Rig) -> None:
        fired: list[float] = []
        due = rig.adapter.time() + 0.02
        rig.adapter.call_later(0.02, lambda: fired.append(rig.adapter.time()))
        rig.until(lambda: fired)
        # asyncio lets a timer pass that is due within the resolution of the clock.
        assert fired[0] >= due - 0.001

    def test_timer_without_delay_never_calls_from_inside(self, rig: Rig) -> None:
        calls: list[str] = []
        rig.adapter.call_later(0, lambda: calls.append("timer"))
        assert calls == []
        rig.until(lambda: calls)

    def test_cancelled_timer_never_fires(self, rig: Rig) -> None:
        calls: list[str] = []
        handle = rig.adapter.call_later(0.01, lambda: calls.append("cancelled"))
        rig.adapter.call_later(0.02, lambda: calls.append("kept"))
        handle.cancel()
        handle.cancel()
        rig.until(lambda: calls)
        assert calls == ["kept"]

    def test_cancelling_a_timer_that_fired_does_nothing(self, rig: Rig) -> None:
        calls: list[str] = []
        handle = rig.adapter.call_later(0, lambda: calls.append("fired"))
        rig.until(lambda: calls)
        handle.cancel()
        rig.adapter.call_later(0, lambda: calls.append("next"))
        rig.until(lambda: calls == ["fired", "next"])

    def test_timer_can_cancel_another_that_is_due_as_well(self, rig: Rig) -> None:
        calls: list[str] = []
        handles: list[Handle] = []
        rig.adapter.call_later(0, lambda: handles[0].cancel())
        handles.append(rig.adapter.call_later(0.000_001, lambda: calls.append("cancelled")))
        rig.adapter.call_later(0.02, lambda: calls.append("kept"))
        rig.until(lambda: calls)
        assert calls == ["kept"]

    def test_time_does_not_go_back(self, rig: Rig) -> None:
        before = rig.adapter.time()
        rig.wait(0.001)
        assert rig.adapter.time() > before

    def test_threadsafe_call_runs_on_the_loops_thread(self, rig: Rig) -> None:
        idents: list[int] = []
        thread = threading.Thread(
            target=rig.adapter.call_soon_threadsafe,
            args=(lambda: idents.append(threading.get_ident()),),
        )
        thread.start()
        thread.join()
        rig.until(lambda: idents)
        assert idents == [threading.get_ident()]

    def test_threadsafe_call_wakes_a_loop_that_sleeps(self, rig: Rig) -> None:
        calls: list[str] = []
        thread = threading.Thread(
            target=rig.adapter.call_soon_threadsafe, args=(lambda: calls.append("woken"),)
        )
        # The loop starts the thread and then has nothing to do but wait for it.
        rig.adapter.call_soon(thread.start)
        rig.until(lambda: calls)
        thread.join()

    def test_threadsafe_calls_keep_each_threads_order_and_lose_none(self, rig: Rig) -> None:
        calls: list[tuple[int, int]] = []

        def call_often(thread_number: int) -> None:
            for number in range(1000):
                rig.adapter.call_soon_threadsafe(_appender(calls, (thread_number, number)))

        threads = [threading.Thread(target=call_often, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        rig.until(lambda: len(calls) == 4000)
        for thread in threads:
            thread.join()
        for thread_number in range(4):
            mine = [number for owner, number in calls if owner == thread_number]
            assert mine == list(range(1000))

    def test_threadsafe_call_never_blocks_while_the_loop_stands_still(self, rig: Rig) -> None:
        calls: list[int] = []
        for number in range(10_000):
            rig.adapter.call_soon_threadsafe(_appender(calls, number))
        rig.until(lambda: len(calls) == 10_000)

    @pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals here")
    def test_threadsafe_call_is_legal_in_a_signal_handler(self, rig: Rig) -> None:
        calls: list[str] = []
        before = signal.signal(
            signal.SIGUSR1,
            lambda *_: rig.adapter.call_soon_threadsafe(lambda: calls.append("signal")),
        )
        try:
            rig.adapter.call_soon(lambda: os.kill(os.getpid(), signal.SIGUSR1))
            rig.until(lambda: calls)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert calls == ["signal"]

    def test_future_settles_once_with_a_value(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        assert promise.resolve(7)
        assert not promise.resolve(8)
        promise.reject(OSError("late"))
        assert self.outcome(promise.future) == 7

    def test_future_settles_once_with_an_exception(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        promise.reject(KeyError("first"))
        promise.reject(OSError("late"))
        promise.resolve(7)
        with pytest.raises(KeyError, match="first"):
            self.outcome(promise.future)

    def test_promise_tells_that_its_future_was_cancelled(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        promise.future.cancel()
        assert not promise.resolve(7)

    def test_promise_has_one_future(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        assert promise.future is promise.future
        promise.resolve(None)

    def test_followed_coroutine_runs_to_its_end(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        work = _Work(promise.future)
        ended = _follow(rig, work.run())
        rig.until(lambda: work.steps == ["begun"])
        assert ended == []
        promise.resolve(7)
        rig.until(lambda: ended)
        assert work.steps == ["begun", 7, "ended"]
        assert ended == [None]

    def test_followed_coroutine_tells_what_it_raises(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        ended = _follow(rig, _Work(promise.future).run())
        promise.reject(KeyError("mine"))
        rig.until(lambda: ended)
        assert isinstance(ended[0], KeyError)

    def test_followed_future_tells_its_outcome(self, rig: Rig) -> None:
        promises = [rig.adapter.create_future() for _ in range(2)]
        value, error = (_follow(rig, promise.future) for promise in promises)
        promises[0].resolve(7)
        promises[1].reject(OSError("mine"))
        rig.until(lambda: value and error)
        assert value == [None]
        assert isinstance(error[0], OSError)

    def test_followed_future_that_has_its_outcome_never_tells_it_from_inside(
        self, rig: Rig
    ) -> None:
        promises = [rig.adapter.create_future() for _ in range(2)]
        promises[0].resolve(7)
        promises[1].reject(OSError("mine"))
        value, error = (_follow(rig, promise.future) for promise in promises)
        rig.until(lambda: value and error)
        assert value == [None]
        assert isinstance(error[0], OSError)

    def test_followed_coroutine_that_ends_at_once_never_tells_it_from_inside(
        self, rig: Rig
    ) -> None:
        async def nothing() -> None:
            """Ends before it waits for anything."""

        ended = _follow(rig, nothing())
        rig.until(lambda: ended)
        assert ended == [None]

    def test_cancelled_coroutine_is_left_at_its_await_and_told_once(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        work = _Work(promise.future)
        ended = _Ended()
        handle = ended.follow(rig, work.run())
        rig.until(lambda: work.steps)
        ended.during(handle.cancel)
        ended.during(handle.cancel)
        rig.until(lambda: ended.errors)
        rig.wait(0)
        assert work.steps == ["begun", "ended"]
        assert len(ended.errors) == 1
        assert ended.errors[0] is not None

    def test_coroutine_cancelled_before_it_began_is_told_once(self, rig: Rig) -> None:
        ended = _Ended()
        handle = ended.follow(rig, _Work(rig.adapter.create_future().future).run())
        ended.during(handle.cancel)
        rig.until(lambda: ended.errors)
        rig.wait(0)
        assert len(ended.errors) == 1
        assert ended.errors[0] is not None

    def test_coroutine_that_raises_when_cancelled_tells_that(self, rig: Rig) -> None:
        begun: list[bool] = []

        async def stubborn(future: Any) -> None:
            begun.append(True)
            try:
                await future
            finally:
                raise KeyError("mine")

        ended = _Ended()
        handle = ended.follow(rig, stubborn(rig.adapter.create_future().future))
        rig.until(lambda: begun)
        ended.during(handle.cancel)
        rig.until(lambda: ended.errors)
        assert isinstance(ended.errors[0], KeyError)

    def test_cancelled_future_is_told_once(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        ended = _Ended()
        handle = ended.follow(rig, promise.future)
        ended.during(handle.cancel)
        rig.until(lambda: ended.errors)
        promise.resolve(7)
        rig.wait(0)
        assert len(ended.errors) == 1
        assert ended.errors[0] is not None

    def test_cancelling_what_has_ended_does_nothing(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        ended = _Ended()
        handle = ended.follow(rig, promise.future)
        promise.resolve(7)
        rig.until(lambda: ended.errors)
        handle.cancel()
        rig.wait(0)
        assert ended.errors == [None]

    def test_what_cannot_be_awaited_is_not_followed(self, rig: Rig) -> None:
        ended = _Ended()
        with pytest.raises((TypeError, ValueError)):
            ended.follow(rig, object())
        rig.wait(0)
        assert ended.errors == []


class _Work:
    """A coroutine that waits for one future, and notes how far it has come."""

    def __init__(self, future: Any) -> None:
        self._future = future
        self.steps: list[object] = []

    async def run(self) -> None:
        self.steps.append("begun")
        try:
            self.steps.append(await self._future)
        finally:
            self.steps.append("ended")


class _Ended:
    """What follow() told, and whether it came from inside a call."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []
        self._is_inside = False

    def follow(self, rig: Rig, awaitable: Any) -> Handle:
        handles: list[Handle] = []
        self.during(lambda: handles.append(rig.adapter.follow(awaitable, self._done)))
        return handles[0]

    def during(self, call: Callable[[], object]) -> None:
        """Make a call in which nothing may be told."""
        self._is_inside = True
        try:
            call()
        finally:
            self._is_inside = False

    def _done(self, error: BaseException | None) -> None:
        assert not self._is_inside, "done() came from inside a call"
        self.errors.append(error)


def _follow(rig: Rig, awaitable: Any) -> list[BaseException | None]:
    """Follow an awaitable; the list gets its end."""
    ended = _Ended()
    ended.follow(rig, awaitable)
    return ended.errors


class ConnectionContract(_Contract):
    """Connections through real sockets, and all that can go wrong with them."""

    # Connecting.

    def test_connection_carries_bytes_both_ways(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.write(b"to the peer")
        rig.until(lambda: peer.read() == b"to the peer")
        peer.send(b"and back")
        rig.until(lambda: stream.data == b"and back")

    def test_name_is_resolved_and_each_address_is_tried(self, rig: Rig) -> None:
        # ``localhost`` is often ::1 first, where nobody listens.
        stream = rig.connect(rig.harbour().port, "localhost")
        assert stream.calls == ["made"], stream.error

    def test_ipv6_literal_is_an_address(self, rig: Rig) -> None:
        try:
            harbour = rig.harbour("::1")
        except OSError:
            pytest.skip("this machine has no IPv6")
        stream = rig.connect(harbour.port, "::1")
        assert stream.calls == ["made"], stream.error

    def test_address_literal_needs_no_thread(self, rig: Rig) -> None:
        before = threading.active_count()
        harbour = rig.harbour()
        stream, _ = rig.dial(harbour.port)
        counts: list[int] = []
        stream.on_made = lambda: counts.append(threading.active_count())
        rig.until(lambda: stream.calls)
        assert counts[0] <= before

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
        harbour = rig.harbour()
        harbour.fall_silent()
        stream = rig.connect(harbour.port, address_timeout=0.1)
        assert isinstance(failure_of(stream), TimeoutError)
        assert f"127.0.0.1:{harbour.port}" in str(stream.error)

    def test_connect_without_an_answer_meets_the_deadline(self, rig: Rig) -> None:
        harbour = rig.harbour()
        harbour.fall_silent()
        stream = rig.connect(harbour.port, timeout=0.1)
        assert isinstance(failure_of(stream), TimeoutError)

    def test_connect_without_an_answer_can_be_cancelled(self, rig: Rig) -> None:
        harbour = rig.harbour()
        harbour.fall_silent()
        stream, handle = rig.dial(harbour.port)
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
        stream, handle = rig.dial(rig.harbour().port)
        stream.during("cancel", handle.cancel)
        handle.cancel()
        rig.until(lambda: stream.calls)
        rig.wait()
        assert stream.calls == ["lost"]
        assert isinstance(stream.error, ConnectionAbortedError)

    def test_connect_by_name_cancelled_is_lost_once(self, rig: Rig) -> None:
        stream, handle = rig.dial(rig.harbour().port, "localhost")
        rig.adapter.call_soon(lambda: stream.during("cancel", handle.cancel))
        rig.until(lambda: stream.calls)
        rig.wait()
        assert stream.calls == ["lost"]

    @pytest.mark.parametrize("turns", range(6))
    def test_connect_cancelled_after_any_turn_ends_once(self, rig: Rig, turns: int) -> None:
        stream, handle = rig.dial(rig.harbour().port)

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
        stream, handle = rig.dial(rig.harbour().port)
        rig.until(lambda: stream.calls)
        handle.cancel()
        rig.wait()
        assert stream.calls == ["made"]

    def test_connect_in_a_callback_is_legal(self, rig: Rig) -> None:
        harbour = rig.harbour()
        streams: list[Recorder] = []
        rig.adapter.call_soon(lambda: streams.append(rig.dial(harbour.port)[0]))
        rig.until(lambda: streams and streams[0].calls)
        assert streams[0].calls == ["made"]

    def test_socket_has_no_delay_and_keepalive(self, rig: Rig) -> None:
        _, peer = rig.pair(rig.harbour())
        with our_end(peer) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    @pytest.mark.skipif(
        not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT"
    )
    def test_user_timeout_reaches_the_socket(self, rig: Rig) -> None:
        harbour = rig.harbour()
        _, peer = rig.pair(harbour, user_timeout=12.5)
        _, other = rig.pair(harbour)
        with our_end(peer) as sock, our_end(other) as unset:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_500
            assert unset.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0

    # Ending.

    def test_peers_end_of_file_is_a_loss_without_error(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        peer.send(b"last words")
        peer.sock.close()
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"last words"
        assert stream.error is None

    def test_peers_end_of_file_ends_the_connection_though_output_waits(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.write(pattern(TOO_MUCH))
        rig.until(lambda: "pause" in stream.calls)
        peer.sock.shutdown(socket.SHUT_WR)
        rig.until(lambda: stream.is_lost)

    def test_peers_reset_is_a_loss_with_an_error(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        peer.reset()
        rig.until(lambda: stream.is_lost)
        assert isinstance(stream.error, OSError)

    def test_close_sends_everything_first(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        stream.close()
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        assert peer.data == sent
        assert stream.error is None

    def test_close_sends_everything_though_input_is_unread(self, rig: Rig) -> None:
        # A socket that is closed with unread input sends a RST and drops its output.
        stream, peer = rig.pair(rig.harbour())
        peer.send(b"unread")
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        stream.close()
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        assert len(peer.data) == len(sent)
        assert peer.error is None

    def test_close_and_abort_may_be_repeated(self, rig: Rig) -> None:
        stream, _ = rig.pair(rig.harbour())
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
        stream, peer = rig.pair(rig.harbour())
        sent = pattern(TOO_MUCH)
        stream.write(sent)
        stream.close()
        stream.write(b"too late")
        rig.until(peer.has_ended)
        rig.until(lambda: stream.is_lost)
        stream.write(b"much too late")
        assert peer.data == sent

    def test_abort_ends_at_once_and_drops_output(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.write(pattern(TOO_MUCH))
        stream.abort()
        rig.until(lambda: stream.is_lost)
        rig.until(peer.has_ended)
        assert len(peer.data) < TOO_MUCH
        assert stream.error is None

    def test_abort_ends_a_close_that_waits_for_a_peer(self, rig: Rig) -> None:
        stream, _ = rig.pair(rig.harbour())
        stream.write(pattern(TOO_MUCH))
        stream.close()
        rig.wait()
        assert not stream.is_lost
        stream.abort()
        rig.until(lambda: stream.is_lost)
        assert stream.error is None

    def test_nothing_is_delivered_after_abort(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.on_data = stream.abort
        peer.send(b"x" * 100_000)
        rig.until(lambda: stream.is_lost)
        received = len(stream.data)
        rig.wait()
        assert len(stream.data) == received

    def test_close_inside_data_received_is_legal(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.on_data = stream.close
        peer.send(b"x")
        rig.until(lambda: stream.is_lost)
        assert stream.calls == ["made", "lost"]
        assert stream.error is None

    def test_what_is_readable_is_delivered_after_a_write_error(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        peer.send(b"the reason")
        peer.reset()
        # The first write after a reset fails.
        stream.write(b"x")
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"the reason"
        assert isinstance(stream.error, OSError)

    def test_what_is_readable_is_delivered_when_waiting_output_fails(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.transport.pause_reading()
        stream.write(pattern(TOO_MUCH))
        rig.until(lambda: "pause" in stream.calls)
        peer.send(b"the reason")
        peer.reset()
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"the reason"
        assert isinstance(stream.error, OSError)

    # Flow.

    def test_full_output_pauses_once_and_resumes_once(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        sent = pattern(TOO_MUCH)
        for start in range(0, TOO_MUCH, 1 << 20):
            stream.write(sent[start : start + (1 << 20)])
        rig.until(lambda: "pause" in stream.calls)
        rig.until(lambda: peer.read() == sent)
        rig.until(lambda: "resume" in stream.calls)
        assert stream.calls == ["made", "pause", "resume"]

    def test_many_small_writes_arrive_in_order(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        sent = pattern(4 * 1024 * 1024)
        for start in range(0, len(sent), 1000):
            stream.write(sent[start : start + 1000])
        rig.until(lambda: len(peer.read()) == len(sent))
        assert peer.data == sent

    def test_much_input_arrives_in_order(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
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
        stream, peer = rig.pair(rig.harbour())
        stream.during("pause_reading", stream.transport.pause_reading)
        stream.transport.pause_reading()
        peer.send(b"later")
        rig.wait()
        assert stream.data == b""
        stream.during("resume_reading", stream.transport.resume_reading)
        stream.transport.resume_reading()
        rig.until(lambda: stream.data == b"later")

    def test_pausing_inside_data_received_holds_the_next_piece(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.on_data = stream.transport.pause_reading
        peer.send(b"first")
        rig.until(lambda: stream.data == b"first")
        peer.send(b"second")
        rig.wait()
        assert stream.data == b"first"
        stream.transport.resume_reading()
        rig.until(lambda: stream.data == b"firstsecond")

    def test_pause_and_resume_after_the_end_do_nothing(self, rig: Rig) -> None:
        stream, _ = rig.pair(rig.harbour())
        stream.close()
        stream.transport.pause_reading()
        stream.transport.resume_reading()
        rig.until(lambda: stream.is_lost)
        stream.transport.pause_reading()
        stream.transport.resume_reading()

    def test_writing_is_possible_while_reading_is_paused(self, rig: Rig) -> None:
        stream, peer = rig.pair(rig.harbour())
        stream.transport.pause_reading()
        stream.write(b"still here")
        rig.until(lambda: peer.read() == b"still here")


class TlsContract(_Contract):
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
        import ssl

        stream, peer = self._secure(rig)
        peer.send(b"last words")
        with suppress(ssl.SSLWantReadError):
            cast("ssl.SSLSocket", peer.sock).unwrap()
        rig.until(lambda: stream.is_lost)
        assert stream.data == b"last words"
        assert stream.error is None

    def test_tls_cut_short_is_a_loss_with_an_error(self, rig: Rig) -> None:
        import ssl

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
        import ssl

        stream, peer = rig.tls_pair(
            rig.harbour(), tls=ssl.create_default_context(), server_hostname="localhost"
        )
        rig.until(lambda: stream.is_lost)
        assert isinstance(failure_of(stream), ssl.SSLCertVerificationError)
        rig.until(peer.has_ended)
        assert peer.data == b""

    def test_certificate_for_another_host_is_refused(self, rig: Rig) -> None:
        import ssl

        stream, _ = rig.tls_pair(
            rig.harbour(), tls=client_context(), server_hostname="elsewhere.example"
        )
        rig.until(lambda: stream.is_lost)
        failure = failure_of(stream)
        assert isinstance(failure, ssl.SSLCertVerificationError)
        assert "elsewhere.example" in str(failure)

    def test_host_is_the_name_that_is_checked(self, rig: Rig) -> None:
        stream, _ = rig.tls_pair(rig.harbour(), host="localhost", tls=client_context())
        assert stream.calls == ["made"], stream.error

    def test_server_hostname_is_sent_as_sni(self, rig: Rig) -> None:
        names: list[str] = []
        context = _new_server_context()
        context.sni_callback = lambda _sock, name, _context: names.append(name)
        harbour = rig.harbour()
        stream, _ = rig.dial(harbour.port, tls=client_context(), server_hostname="localhost")
        rig.until(harbour.is_called)
        rig.until(harbour.accept_tls(context).shake_hands)
        rig.until(lambda: stream.calls)
        assert names == ["localhost"]

    def test_peer_silent_in_tls_meets_the_deadline(self, rig: Rig) -> None:
        stream = rig.connect(
            rig.harbour().port, tls=client_context(), server_hostname="localhost", timeout=0.2
        )
        assert isinstance(failure_of(stream), TimeoutError)

    def test_peer_that_hangs_up_in_tls_is_a_loss_with_an_error(self, rig: Rig) -> None:
        import ssl

        harbour = rig.harbour()
        stream, _ = rig.dial(harbour.port, tls=client_context(), server_hostname="localhost")
        rig.until(harbour.is_called)
        peer = harbour.accept()
        rig.until(peer.read)
        peer.sock.close()
        rig.until(lambda: stream.calls)
        assert isinstance(failure_of(stream), (ssl.SSLError, ConnectionError))

    def test_peer_that_speaks_no_tls_is_a_loss_with_an_error(self, rig: Rig) -> None:
        import ssl

        harbour = rig.harbour()
        stream, _ = rig.dial(harbour.port, tls=client_context(), server_hostname="localhost")
        rig.until(harbour.is_called)
        peer = harbour.accept()
        rig.until(peer.read)
        peer.send(b"AMQP\x00\x00\x09\x01")
        rig.until(lambda: stream.calls)
        assert isinstance(failure_of(stream), ssl.SSLError)

    def test_cancel_in_the_tls_handshake_is_lost_once(self, rig: Rig) -> None:
        harbour = rig.harbour()
        stream, handle = rig.dial(harbour.port, tls=client_context(), server_hostname="localhost")
        rig.until(harbour.is_called)
        peer = harbour.accept()
        rig.until(peer.read)
        stream.during("cancel", handle.cancel)
        handle.cancel()
        rig.until(lambda: stream.calls)
        rig.until(peer.has_ended)
        assert stream.calls == ["lost"]
        assert isinstance(stream.error, ConnectionAbortedError)

    def test_name_that_tls_refuses_is_a_loss_with_an_error(self, rig: Rig) -> None:
        stream = rig.connect(rig.harbour().port, tls=client_context(), server_hostname=".example")
        assert isinstance(failure_of(stream), ValueError)

    def _secure(self, rig: Rig) -> tuple[Recorder, Peer]:
        stream, peer = rig.tls_pair(
            rig.harbour(), tls=client_context(), server_hostname="localhost"
        )
        assert stream.calls == ["made"], stream.error
        assert peer.error is None
        return stream, peer


class ListenerContract(_Contract):
    """What an adapter with ``listen()`` owes besides; it needs no sockets of the test's own."""

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
        accepted: list[Recorder] = []
        port, _ = rig.listen(lambda: _keep(accepted, rig.recorder()))
        streams = [rig.connect(port) for _ in range(3)]
        rig.until(lambda: len(accepted) == 3 and all(far.is_made for far in accepted))
        for number, stream in enumerate(streams):
            stream.write(bytes([number]))
        rig.until(lambda: all(far.data for far in accepted))
        assert sorted(bytes(far.data) for far in accepted) == [b"\x00", b"\x01", b"\x02"]

    def test_cancelled_listener_accepts_no_more_and_keeps_what_it_accepted(self, rig: Rig) -> None:
        accepted: list[Recorder] = []
        port, handle = rig.listen(lambda: _keep(accepted, rig.recorder()))
        near = rig.connect(port)
        rig.until(lambda: accepted and accepted[0].is_made)
        handle.cancel()
        handle.cancel()
        rig.wait()
        assert isinstance(failure_of(rig.connect(port)), ConnectionRefusedError)
        near.write(b"still here")
        rig.until(lambda: accepted[0].data == b"still here")

    def test_listener_may_be_cancelled_at_once(self, rig: Rig) -> None:
        port, handle = rig.listen(rig.recorder)
        handle.cancel()
        rig.wait()
        assert isinstance(failure_of(rig.connect(port)), ConnectionRefusedError)

    def _join(self, rig: Rig) -> tuple[Recorder, Recorder]:
        accepted: list[Recorder] = []
        port, _ = rig.listen(lambda: _keep(accepted, rig.recorder()))
        near = rig.connect(port)
        rig.until(lambda: accepted and accepted[0].is_made)
        return near, accepted[0]


class AdapterContract(LoopContract, ConnectionContract, TlsContract):
    """All that an adapter with real sockets owes; add ListenerContract if it listens."""
