"""A TCP proxy on loopback that does to a connection what networks do, on demand and by a seed.

Bytes are all it knows: no AMQP, no TLS, nothing of evamqp.  It runs in a thread of its own; every
public method may be called from any other thread, and has taken effect when it returns.
"""

from __future__ import annotations

import errno
import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal, NamedTuple, TypeVar

T = TypeVar("T")
Direction = Literal["to broker", "to client"]
End = Literal["reset", "finish", "hole"]
DIRECTIONS: tuple[Direction, Direction] = ("to broker", "to client")
ENDS: tuple[End, End, End] = ("reset", "finish", "hole")

HOST = "127.0.0.1"
READ_SIZE = 64 * 1024
# Bytes of one direction that may wait here; then its source is read no more.
BUFFER_MAX = 256 * 1024
# One-byte writes of one direction in one turn.
CHOPS_PER_TURN = 256
# Seconds between two looks at bytes that wait for their time.
TICK = 0.002
BACKLOG = 1024
# A listener and an accepted socket that closes with this on sends a reset instead of an end.
NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Faults:
    """What is done to every byte, and to every new connection.

    Args:
        delay: Seconds that bytes are late, at most; at least half of it.
        throttle: Bytes per second and direction; 0 means no limit.
        chop: Every byte in a write of its own.
        stall: Nothing is read, written or accepted; nothing is lost either.
        hole: Bytes are read and lost.  A connection that was in the hole stays there.
        refuse: Nobody listens.
    """

    delay: float = 0.0
    throttle: int = 0
    chop: bool = False
    stall: bool = False
    hole: bool = False
    refuse: bool = False


class Cut(NamedTuple):
    """The end of one connection: when so many bytes have passed in that direction."""

    direction: Direction
    after: int
    end: End


@dataclass
class Recording:
    """What passed through one connection, to the broker and to the client."""

    to_broker: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, record: bytearray | None):
        self.source = source
        self.sink = sink
        self.record = record
        self.waiting: deque[tuple[float, bytes]] = deque()  # with the time at which they may go
        self.ready = bytearray()
        self.size = 0
        self.passed = 0
        self.cut_after: int | None = None
        self.budget = 0.0  # bytes that a throttle allows
        self.budget_at = 0.0
        self.has_ended = False  # the source has
        self.told_end = False  # to the sink

    def take(self, data: bytes, due: float) -> None:
        self.waiting.append((due, data))
        self.size += len(data)

    def ripen(self, now: float) -> None:
        while self.waiting and self.waiting[0][0] <= now:
            self.ready += self.waiting.popleft()[1]

    def limit(self, now: float, throttle: int) -> int:
        """Bytes that may go at this moment."""
        if not throttle:
            return len(self.ready)
        self.budget = min(throttle / 10, self.budget + (now - self.budget_at) * throttle)
        self.budget_at = now
        return min(len(self.ready), int(self.budget))

    def write(self, limit: int, chop: bool) -> None:
        """Write as much as the sink takes.

        Raises:
            OSError: The sink is gone.
        """
        left = limit if self.cut_after is None else min(limit, self.cut_after - self.passed)
        step = 1 if chop else left
        for _ in range(CHOPS_PER_TURN):
            if left <= 0:
                return
            try:
                count = self.sink.send(self.ready[: min(step, left)])
            except BlockingIOError:
                return
            if self.record is not None:
                self.record += self.ready[:count]
            del self.ready[:count]
            self.size -= count
            self.passed += count
            self.budget -= count
            left -= count

    @property
    def is_cut(self) -> bool:
        return self.cut_after is not None and self.passed >= self.cut_after


class _Wire:
    """One client's connection and ours to the broker."""

    def __init__(
        self, client: socket.socket, broker: socket.socket, cut: Cut | None, recording: Recording
    ) -> None:
        self.client = client
        self.broker = broker
        self.cut = cut
        self.in_hole = False
        self.is_connecting = True
        self.pipes = (
            _Pipe(client, broker, recording.to_broker),
            _Pipe(broker, client, recording.to_client),
        )
        if cut is not None:
            self.pipes[DIRECTIONS.index(cut.direction)].cut_after = cut.after

    def is_late(self, throttled: bool) -> bool:
        """Whether bytes wait for their time, not for a socket."""
        return any(pipe.waiting or (throttled and pipe.ready) for pipe in self.pipes)


class ChaosProxy:
    """Passes bytes between clients and one broker, and does to them what it is told.

    Args:
        upstream: Port of the broker on this host.
        port: Where to listen; it stays the same while ``refuse`` comes and goes.
        seed: Of the chance in delays.
        record: Keep every byte in ``recordings``.

    Attributes:
        attempts: When each connection was accepted, monotonic seconds, in order.
        recordings: One for each of them, if ``record``.
    """

    def __init__(self, upstream: int, port: int, *, seed: int = 0, record: bool = False) -> None:
        self.port = port
        self.attempts: list[float] = []
        self.recordings: list[Recording] = []
        self._upstream = upstream
        self._record = record
        self._chance = random.Random(seed)
        self._faults = Faults()
        self._cuts: deque[Cut | None] = deque()
        self._wires: set[_Wire] = set()
        self._late: set[_Wire] = set()  # with bytes that wait for their time
        self._orphans: set[socket.socket] = set()  # accepted in the hole
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callable[[], object]] = deque()
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._is_closing = False
        self._open_listener()
        self._thread = threading.Thread(target=self._run, name="chaos proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> ChaosProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What others say

    @property
    def faults(self) -> Faults:
        """What is being done now."""
        return self._faults

    def inflict(self, **changes: float | bool) -> None:
        """Change some of the faults; see ``Faults``."""
        self._do(lambda: self._set(replace(self._faults, **changes)))  # type: ignore[arg-type]

    def clear(self) -> None:
        """No faults any more.  What is in the hole stays there."""
        self._do(lambda: self._set(Faults()))

    def reset(self) -> int:
        """Reset every connection, to both sides; returns how many."""
        return self._do(lambda: self._end_all("reset"))

    def finish(self) -> int:
        """End every connection in order, to both sides; returns how many."""
        return self._do(lambda: self._end_all("finish"))

    def swallow(self) -> int:
        """Put every connection in the hole, not those that come; returns how many."""
        return self._do(lambda: self._end_all("hole"))

    def cut_next(self, *cuts: Cut | None) -> None:
        """What becomes of the next connections, one by one; None leaves one whole."""
        self._do(lambda: self._cuts.extend(cuts))

    def cut_all(self, direction: Direction, after: int, end: End) -> None:
        """Cut every connection when so many further bytes have passed."""

        def plan() -> None:
            for wire in self._wires:
                wire.cut = Cut(direction, after, end)
                pipe = wire.pipes[DIRECTIONS.index(direction)]
                pipe.cut_after = pipe.passed + after

        self._do(plan)

    def close(self) -> None:
        """End everything.  Idempotent."""
        if self._thread.is_alive():
            self._do(self._close)
            self._thread.join()

    def _do(self, work: Callable[[], T]) -> T:
        """Have work done in the thread, and wait for it."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._calls.append(call)
        self._waker.send(b"\0")
        return future.result()

    # In the thread

    def _run(self) -> None:
        while not self._is_closing:
            touched = self._wait()
            while self._calls:
                self._calls.popleft()()
                touched |= self._wires
            if not self._faults.stall and not self._is_closing:
                self._turn(touched | self._late, time.monotonic())
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _wait(self) -> set[_Wire]:
        """Sleep until something happens; returns the connections to which it happened."""
        if self._faults.stall:
            self._woken.setblocking(True)  # nobody else is listened to
            self._woken.recv(READ_SIZE)
            self._woken.setblocking(False)
            return set()
        events = self._selector.select(TICK if self._late else None)
        for key, _ in events:
            if key.fileobj is self._woken:
                self._woken.recv(READ_SIZE)
        return {key.data for key, _ in events if isinstance(key.data, _Wire)}

    def _turn(self, touched: set[_Wire], now: float) -> None:
        if self._listener is not None:
            self._accept(now, touched)
        for wire in touched:
            if wire in self._wires:
                self._serve(wire, now)
        for orphan in list(self._orphans):
            self._drop_input(orphan)
        for wire in touched & self._wires:
            self._watch(wire)
        throttled = bool(self._faults.throttle or self._faults.chop)
        late = {wire for wire in touched if wire.is_late(throttled)}
        self._late = (self._late - touched | late) & self._wires

    def _accept(self, now: float, touched: set[_Wire]) -> None:
        assert self._listener is not None
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            self.attempts.append(now)
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._faults.hole:
                self._orphans.add(client)
                self._selector.register(client, selectors.EVENT_READ)
            else:
                touched.add(self._join(client))

    def _join(self, client: socket.socket) -> _Wire:
        broker = socket.socket()
        broker.setblocking(False)
        broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        recording = Recording()
        if self._record:
            self.recordings.append(recording)
        cut = self._cuts.popleft() if self._cuts else None
        wire = _Wire(client, broker, cut, recording)
        if not self._record:
            for pipe in wire.pipes:
                pipe.record = None
        self._wires.add(wire)
        broker.connect_ex((HOST, self._upstream))
        return wire

    def _serve(self, wire: _Wire, now: float) -> None:
        try:
            if wire.is_connecting and not self._is_connected(wire):
                return
            for pipe in wire.pipes:
                self._read(wire, pipe, now)
            for pipe in wire.pipes:
                self._pass_on(wire, pipe, now)
                if wire not in self._wires:
                    return
        except OSError:
            # One side was reset, so the other is.
            if wire.in_hole:
                self._remove(wire)
            else:
                self._reset(wire)
            return
        if wire.in_hole and not self._faults.hole and wire.pipes[0].has_ended:
            self._reset(wire)  # else a broker without heartbeats would keep it for ever
        elif all(pipe.has_ended for pipe in wire.pipes) and (
            wire.in_hole or all(pipe.told_end for pipe in wire.pipes)
        ):
            self._remove(wire)

    def _is_connected(self, wire: _Wire) -> bool:
        failure = wire.broker.connect_ex((HOST, self._upstream))
        if failure in (errno.EINPROGRESS, errno.EALREADY):
            return False
        if failure not in (0, errno.EISCONN):
            raise OSError(failure, "the broker refused")
        wire.is_connecting = False
        return True

    def _read(self, wire: _Wire, pipe: _Pipe, now: float) -> None:
        while not pipe.has_ended and pipe.size < BUFFER_MAX:
            try:
                data = pipe.source.recv(READ_SIZE)
            except BlockingIOError:
                return
            if not data:
                pipe.has_ended = True
            elif not (wire.in_hole or self._faults.hole):
                delay = self._faults.delay * (1 + self._chance.random()) / 2
                # Never before what came earlier, though its delay was longer.
                earliest = pipe.waiting[-1][0] if pipe.waiting else 0.0
                pipe.take(data, max(earliest, now + delay))
            else:
                wire.in_hole = True

    def _pass_on(self, wire: _Wire, pipe: _Pipe, now: float) -> None:
        if wire.in_hole:
            return
        pipe.ripen(now)
        pipe.write(pipe.limit(now, self._faults.throttle), self._faults.chop)
        if pipe.is_cut:
            assert wire.cut is not None
            pipe.cut_after = None
            self._end(wire, wire.cut.end)
        elif pipe.has_ended and not pipe.size and not pipe.told_end:
            pipe.told_end = True
            pipe.sink.shutdown(socket.SHUT_WR)

    def _drop_input(self, orphan: socket.socket) -> None:
        try:
            while orphan.recv(READ_SIZE):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass  # reset by its client: as good as an end
        self._orphans.discard(orphan)
        self._selector.unregister(orphan)
        orphan.close()

    def _watch(self, wire: _Wire) -> None:
        """Wait for what each socket of a wire can do next."""
        throttled = self._faults.throttle or self._faults.chop
        for pipe, back in (wire.pipes, wire.pipes[::-1]):
            sock = pipe.source
            events = 0
            if not pipe.has_ended and pipe.size < BUFFER_MAX and not wire.is_connecting:
                events |= selectors.EVENT_READ
            if (back.ready and not throttled) or (wire.is_connecting and sock is wire.broker):
                events |= selectors.EVENT_WRITE
            self._register(sock, events, wire)

    def _register(self, sock: socket.socket, events: int, wire: _Wire) -> None:
        known = self._selector.get_map().get(sock)
        if known is None:
            if events:
                self._selector.register(sock, events, wire)
        elif not events:
            self._selector.unregister(sock)
        elif known.events != events:
            self._selector.modify(sock, events, wire)

    # Ends

    def _end_all(self, end: End) -> int:
        wires = [wire for wire in self._wires if not wire.in_hole]
        for wire in wires:
            self._end(wire, end)
        return len(wires)

    def _end(self, wire: _Wire, end: End) -> None:
        if end == "reset":
            self._reset(wire)
        elif end == "hole":
            wire.in_hole = True
        else:
            self._finish_both(wire)

    def _finish_both(self, wire: _Wire) -> None:
        """Send an end to both; then wait for theirs, and lose what they still send."""
        wire.in_hole = True
        for pipe in wire.pipes:
            if not pipe.told_end:
                pipe.told_end = True
                try:
                    pipe.sink.shutdown(socket.SHUT_WR)
                except OSError:
                    pipe.has_ended = True  # it is not connected any more

    def _reset(self, wire: _Wire) -> None:
        for sock in (wire.client, wire.broker):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._remove(wire)

    def _remove(self, wire: _Wire) -> None:
        self._wires.discard(wire)
        for sock in (wire.client, wire.broker):
            self._register(sock, 0, wire)
            sock.close()

    def _set(self, faults: Faults) -> None:
        self._faults = faults
        if faults.refuse:
            self._close_listener()
        elif self._listener is None:
            self._open_listener()

    def _open_listener(self) -> None:
        listener = socket.create_server((HOST, self.port), backlog=BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _close(self) -> None:
        self._is_closing = True
        self._close_listener()
        for wire in list(self._wires):
            self._reset(wire)
        for orphan in self._orphans:
            self._selector.unregister(orphan)
            orphan.close()
