"""Counts what reconnecting leaves behind, on one loop: a program of its own.

``python leaks.py LOOP PORT COUNT`` has a publisher and a consumer reconnect so often, each time
because the peer at that port resets them, and prints ``key=number`` pairs.  A process of its own,
since nobody else's garbage, descriptors and memory may be counted.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import evamqp
from evamqp.abc import Adapter
from evamqp.recovery.backoff import Backoff
from tests.perf.garbage import Done, make

HOST = "127.0.0.1"
QUEUE = "leaks"
# Reconnections before the first count: buffers, caches and free lists have their size by then.
WARM = 50
# Reconnections, and bare connections, whose garbage is counted.
COUNTED = 50
# Connections in a row at which is counted, at the start and at the end: the least counts, because
# what is under way differs by some objects.
SAMPLES = 30
# Turns of the loop in which it lets go of what has ended.
TURNS = 10
PAGE = os.sysconf("SC_PAGE_SIZE")


class Count(NamedTuple):
    """What the process holds."""

    descriptors: int
    objects: int
    memory: int  # bytes

    @classmethod
    def take(cls) -> Count:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(len(os.listdir("/proc/self/fd")), len(gc.get_objects()), pages * PAGE)


class Clients(evamqp.Handler):
    """A publisher and a consumer on one connection, which the peer resets again and again."""

    def __init__(self, adapter: Adapter, port: int) -> None:
        self.connections = 0
        self.is_open = False
        self.when: dict[int, Callable[[], object]] = {}  # by number of connections
        self._adapter = adapter
        topology = evamqp.Topology()
        topology.queue(QUEUE)
        target = evamqp.Parameters(HOST, port)
        self.reconnector = evamqp.Reconnector(
            target,
            adapter=adapter,
            topology=topology,
            handler=self,
            backoff=Backoff(chance=lambda: 0.0),
        )
        self._publisher = evamqp.Publisher(self.reconnector)
        evamqp.Consumer(self.reconnector, QUEUE, lambda message: None)

    def on_open(self, connection: evamqp.Connection) -> None:
        self.connections += 1
        self.is_open = True
        work = self.when.pop(self.connections, None)
        if work is not None:
            work()
        else:
            self.go_on()

    def go_on(self) -> None:
        """Publish until the peer has enough."""
        while self._publisher.pending < 3:
            self._publisher.publish("", QUEUE, b"body")

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.is_open = False


class Counting:
    """The whole count, step by step in the loop."""

    def __init__(self, name: str, port: int, count: int) -> None:
        self._adapter, self._open_bare = make(name, port)
        self._name = name
        self._count = count
        self._bare_left = COUNTED
        self._least: Count | None = None
        self._start: Count | None = None
        self.figures: dict[str, int] = {}
        self._port = port

    def run(self) -> dict[str, int]:
        self._adapter.call_soon(self._begin_bare)
        self._adapter.run()
        return self.figures

    def _after_turns(self, work: Done, turns: int = TURNS) -> None:
        step = work if not turns else partial(self._after_turns, work, turns - 1)
        self._adapter.call_soon(step)

    # What the bare loop leaves

    def _begin_bare(self) -> None:
        self._open_bare(self._begin_counting_bare)  # the first sets up what stays

    def _begin_counting_bare(self) -> None:
        gc.collect()
        gc.disable()
        self._next_bare()

    def _next_bare(self) -> None:
        if self._bare_left:
            self._bare_left -= 1
            self._open_bare(partial(self._adapter.call_soon, self._next_bare))
        else:
            self._after_turns(self._end_bare)

    def _end_bare(self) -> None:
        self.figures["bare"] = gc.collect()
        gc.enable()
        self._begin_ours()

    # What we leave

    def _begin_ours(self) -> None:
        self._clients = Clients(self._adapter, self._port)
        self._clients.when = {
            WARM: self._pause(self._begin_garbage),
            WARM + COUNTED: self._pause(self._end_garbage),
            self._count // 4: self._pause(partial(self._sample, SAMPLES, self._begin_ends)),
        }

    def _begin_ends(self) -> None:
        self._least, self._start = None, self._least
        first = max(self._count - SAMPLES, self._clients.connections + 1)
        self._clients.when[first] = self._pause(partial(self._sample, SAMPLES, self._compare))

    def _sample(self, left: int, done: Done) -> None:
        """Count at this connection and at those that follow; keep the least of each."""
        if not self._clients.is_open:  # reset already, on a busy machine; the next one counts
            left += 1
        else:
            now = Count.take()
            self._least = Count(*map(min, now, self._least or now))
        if left == 1:
            done()
        else:
            following = self._clients.connections + 1
            self._clients.when[following] = self._pause(partial(self._sample, left - 1, done))

    def _pause(self, work: Done) -> Done:
        """Count while a connection is open and the one before it has been let go."""

        def step() -> None:
            work()
            # Three that wait while there is no connection would have the next one reset at once.
            if self._clients.is_open:
                self._clients.go_on()

        return partial(self._after_turns, step)

    def _begin_garbage(self) -> None:
        gc.collect()
        gc.disable()

    def _end_garbage(self) -> None:
        self.figures["garbage"] = gc.collect()
        gc.enable()

    def _compare(self) -> None:
        assert self._least is not None
        assert self._start is not None
        for key, first, last in zip(Count._fields, self._start, self._least, strict=True):
            self.figures[key] = last - first
        if self.figures["descriptors"]:
            sys.stderr.write("\n".join(sorted(descriptors())) + "\n")
        self._adapter.stop()


def descriptors() -> Iterator[str]:
    """What each descriptor of this process is."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that listed them
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    target = repr(sock)
            yield f"{name}: {target}"


def main(name: str, port: str, count: str) -> None:
    logging.disable(logging.CRITICAL)
    figures = Counting(name, int(port), int(count)).run()
    sys.stdout.write(" ".join(f"{key}={value}" for key, value in figures.items()) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
