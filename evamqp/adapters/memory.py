"""The fifth adapter: a virtual clock that the test advances, and a network made of memory.

For tests, yours included: one thread, no socket, no sleep, the same order of events every time.
Nothing here may read the real clock, open a socket or know AMQP.

    adapter = MemoryAdapter()
    peer = Peer()
    adapter.listen("broker", 5672, lambda: peer)
    adapter.connect(Endpoint("broker", 5672), stream)
    adapter.run_until_idle()              # connected: peer.received holds what the stream wrote
    peer.send(b"...")
    peer.transport.chunk_size = 1         # from now on the peer reads byte by byte
    adapter.advance(3600)                 # an hour passes; every timer due in it runs, in order
    peer.transport.reset()                # the stream's connection_lost gets ConnectionResetError
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from evamqp.abc import Endpoint, Handle, ListenHandle, LoopCallback, Stream
from evamqp.adapters._dial import Dial
from evamqp.adapters._future import Promise, Result, run_awaitable, started
from evamqp.adapters._happy_eyeballs import Address
from evamqp.adapters._memory_transport import MemoryTransport, Peer, join
from evamqp.adapters._timers import Call, Timers
from evamqp.errors import BadArgument, WrongState

__all__ = ["MemoryAdapter", "MemoryTransport", "Peer"]

T = TypeVar("T")
Listeners = dict[tuple[str, int], "_Listener"]

FIRST_FREE_PORT = 49152

MOST_ACCEPTED = 10_000


class MemoryAdapter:
    """An event loop with a virtual clock, which only advance() and the run methods move.

    Connections are made inside one adapter: between ``connect()`` and ``listen()``.

    Attributes:
        unresolvable: Host names that no resolver knows.
        unanswering: Hosts that lose all packets: connecting to them times out.
        accepted: The listener's end of the connections made last, in order, 10,000 at the most.
    """

    __slots__ = (
        "_listeners", "_now", "_ready", "_running", "_stopping", "_timers",
        "accepted", "unanswering", "unresolvable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.unresolvable: set[str] = set()
        self.unanswering: set[str] = set()
        self.accepted: deque[MemoryTransport] = deque(maxlen=MOST_ACCEPTED)
        self._listeners: Listeners = {}
        self._ready: deque[Call] = deque()
        self._timers = Timers()
        self._now = 0.0
        self._running = False
        self._stopping = False

    def time(self) -> float:
        """Virtual seconds since the adapter was made."""
        return self._now

    def call_soon(self, callback: LoopCallback) -> Handle:
        """Call back on the next turn of the loop."""
        call = Call(callback)
        self._ready.append(call)
        return call

    def call_later(self, delay: float, callback: LoopCallback) -> Handle:
        """Call back when ``delay`` virtual seconds have passed."""
        return self._timers.add(self._now + max(0.0, delay), callback)

    def call_soon_threadsafe(self, callback: LoopCallback) -> None:
        """Call back on the next turn."""
        self._ready.append(Call(callback))

    def create_future(self) -> Promise[Result[Any]]:
        """A Promise whose future is a Result, for ``await`` and run_until()."""
        return Promise(Result(self.call_soon))

    def run_awaitable(
        self, awaitable: Any, done: Callable[[BaseException | None], object]
    ) -> Handle:
        """Run a coroutine, or wait for a Result or Request; then call ``done``."""
        return run_awaitable(awaitable, done, self.call_soon)

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        """Connect to the listener at the endpoint; without one the connection is refused."""
        return _Dial(self, endpoint, stream)

    def listen(self, host: str, port: int, factory: Callable[[], Stream]) -> ListenHandle:
        """Accept connections to exactly this host and port; port 0 picks a free one."""
        if port == 0:
            taken = {port for name, port in self._listeners if name == host}
            port = next(port for port in itertools.count(FIRST_FREE_PORT) if port not in taken)
        if (host, port) in self._listeners:
            raise BadArgument(f"something listens at {host}:{port} already")
        listener = _Listener(self._listeners, (host, port), factory)
        self._listeners[host, port] = listener
        return listener

    def advance(self, seconds: float) -> None:
        """Advance the clock and run whatever becomes due, in order, each at its own time.

        Raises:
            BadArgument: ``seconds`` is negative.
            WrongState: Called inside a callback.
        """
        if seconds < 0:
            raise BadArgument(f"time does not run backwards: {seconds}")
        with self._looping():
            end = self._now + seconds
            self._exhaust()
            while self._timers.due <= end:
                self._now = self._timers.due
                self._exhaust()
            self._now = end

    def run_until_idle(self) -> None:
        """Run until nothing is due any more; the clock does not move."""
        self.advance(0)

    def run_until(self, awaited: Awaitable[T]) -> T:
        """Run until a Request, a Result or a coroutine awaiting those has ended; its value.

        The clock jumps from timer to timer, as fast as it can.

        Raises:
            TimeoutError: Nothing is scheduled any more, so it would never end.
            WrongState: Called inside a callback, or stop() came first.
            BadType: ``awaited`` belongs to another loop.
            Exception: Whatever ``awaited`` failed with.
        """
        with self._looping(), started(awaited, self.call_soon, self._run_until) as result:
            return self._run_until(result)

    def run(self) -> None:
        """Run until stop(), or until nothing is scheduled; the clock jumps to each timer."""
        with self._looping():
            while not self._stopping and self._step():
                pass
            self._stopping = False

    def stop(self) -> None:
        """End run() after this turn, or the next run() at once."""
        self._stopping = True

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def listener_at(self, host: str, port: int) -> _Listener | None:
        """Return the listener there; None if there is none."""
        return self._listeners.get((host, port))

    @contextmanager
    def _looping(self) -> Iterator[None]:
        if self._running:
            raise WrongState("the memory loop is running; it cannot be run inside a callback")
        self._running = True
        try:
            yield
        finally:
            self._running = False

    def _run_until(self, result: Result[T]) -> T:
        while not result.done():
            if self._stopping:
                self._stopping = False
                raise WrongState("stop() was called before the result was there")
            if not self._step():
                raise TimeoutError("nothing is left to happen, and the result is pending")
        return result.result()

    def _step(self) -> bool:
        """One turn, at the time of the next timer if there is nothing to do before it."""
        if not self._ready:
            due = self._timers.due
            if due == math.inf:
                return False
            self._now = max(self._now, due)
        self._turn()
        return True

    def _exhaust(self) -> None:
        while self._ready or self._timers.due <= self._now:
            self._turn()

    def _turn(self) -> None:
        self._timers.move_due(self._now, self._ready)
        for _ in range(len(self._ready)):
            self._ready.popleft().run()


class _Listener:
    """A host and port that accept."""

    __slots__ = ("_key", "_listeners", "factory", "port")

    def __init__(
        self, listeners: Listeners, key: tuple[str, int], factory: Callable[[], Stream]
    ) -> None:
        self._listeners = listeners
        self._key = key
        self.factory: Callable[[], Stream] = factory
        self.port: int = key[1]

    def cancel(self) -> None:
        if self._listeners.get(self._key) is self:
            del self._listeners[self._key]


class _Dial(Dial[_Listener]):
    """The shared Dial, with a resolver that knows every name but some."""

    __slots__ = ("_unresolvable",)

    def __init__(self, adapter: MemoryAdapter, endpoint: Endpoint, stream: Stream) -> None:
        super().__init__(adapter, _Connector(adapter), endpoint, stream)
        self._unresolvable = adapter.unresolvable

    def _resolve(self) -> None:
        host, port = self._endpoint.host, self._endpoint.port
        if host in self._unresolvable:
            self._resolved(OSError(f"no resolver knows the name {host!r}"))
        else:
            self._resolved([Address(0, (host, port))])


class _Connector:
    """Finds the listener of an address."""

    __slots__ = ("_adapter",)

    def __init__(self, adapter: MemoryAdapter) -> None:
        self._adapter = adapter

    def connect(
        self,
        address: Address,
        connected: Callable[[_Listener], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        host, port = address.sockaddr[:2]
        if host in self._adapter.unanswering:
            return Call(lambda: None)
        listener = self._adapter.listener_at(host, port)
        if listener is None:
            refusal = ConnectionRefusedError(f"nothing listens at {address}")
            return self._adapter.call_soon(lambda: failed(refusal))
        return self._adapter.call_soon(lambda: connected(listener))

    def discard(self, connection: _Listener) -> None:
        """Nothing was opened."""

    def adopt(self, connection: _Listener, stream: Stream) -> None:
        accepting = connection.factory()
        self._adapter.accepted.append(join(self._adapter.call_soon, stream, accepting))
