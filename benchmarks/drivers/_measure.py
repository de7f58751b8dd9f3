"""What every driver needs of a harness: its configuration, a meter, and the line of results.

No client library may be imported here, and nothing may be measured but the driver's own process.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from typing import Any

Result = dict[str, float]
Run = Callable[["Config", "Meter"], "Result | None"]

SENT = datetime(2024, 2, 29, 12, 0, tzinfo=timezone.utc)
# What the sink sends and a driver must read back, entry by entry, when ``headers`` is set.
HEADERS: dict[str, object] = {
    "request-id": "8a6e0804-2bd0-4672-b79d-d97027f9071a",
    "origin": "checkout",
    "region": "eu-central",
    "attempt": 2,
    "sequence": 9_000_000_001,
    "sampled": True,
    "score": 2.0,  # whole, since pika cuts off the rest
    "sent": SENT,
}
COMPARED = [(key, value) for key, value in HEADERS.items() if value is not SENT]


class Config:
    """The command line of a driver: ``key=value`` for each of these attributes.

    Attributes:
        op: connect, publish, confirm, latency, consume, idle or delete.
        n: Messages.
        body: Bytes of a message.
        window: Publishes that may be unconfirmed at a time.
        repeat: Connections, of ``connect``; ``idle`` opens ``n``, at most ``window`` at a time.
        varied: 10,000 routing keys and sizes up to 2 * body instead of one of each.
        fresh: New properties with headers for each publish.
        exact: Whether the broker counts publishes without delay, so that they can be checked.
        ca: The certificate of the broker's authority, where it speaks TLS.
        loop: ``"uvloop"`` where the driver knows it.
        robust: A connection that reconnects, where the driver knows one.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.op = "publish"
        self.host, self.port = "127.0.0.1", 5672
        self.user = self.password = "guest"
        self.queue = "bench"
        self.n, self.body = 1000, 100
        self.window, self.repeat = 1000, 20
        self.no_ack, self.prefetch, self.headers, self.channels = 1, 0, 0, 1
        self.varied = self.fresh = self.robust = 0
        self.exact = 1
        self.ca = ""
        self.loop = ""
        for argument in arguments:
            key, _, value = argument.partition("=")
            setattr(self, key, type(getattr(self, key))(value))
        self.payload = bytes(range(256)) * (self.body // 256) + bytes(range(self.body % 256))


class Meter:
    """CPU time of this process, user and system together, between start() and stop().

    The result has the growth of its memory in KiB as well.
    """

    def __init__(self) -> None:
        self.result: Result = {}
        self._started: tuple[float, float, int] = (0.0, 0.0, 0)

    def start(self) -> None:
        gc.collect()
        self._started = self.mark()

    def stop(self) -> None:
        names = ("wall", "cpu", "memory")
        pairs = zip(self.mark(), self._started, strict=True)
        self.result = {name: end - start for name, (end, start) in zip(names, pairs, strict=True)}

    def mark(self) -> tuple[float, float, int]:
        """Wall seconds, CPU seconds and KiB of memory, now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm", encoding="ascii") as statm:
            pages = int(statm.read().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") // 1024
        return time.perf_counter(), usage.ru_utime + usage.ru_stime, memory


def read_headers(headers: Mapping[str, object]) -> int:
    """How many of the entries are what the sink sent; each is read by its key.

    Some clients give a time without its zone, so of that the year has to do.
    """
    sent = headers["sent"]
    right = 1 if isinstance(sent, datetime) and sent.year == SENT.year else 0
    for key, value in COMPARED:
        if headers[key] == value:
            right += 1
    return right


def percentiles(seconds: list[float]) -> Result:
    """Microseconds."""
    ordered = sorted(seconds)
    return {
        "p50": ordered[len(ordered) // 2] * 1e6,
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e6,
    }


async def time_connects(
    config: Config, meter: Meter, connect: Callable[[Config], Awaitable[Any]]
) -> Result:
    """Connect and open a channel, again and again, with a client whose calls are awaited."""
    times = []
    for number in range(config.repeat + 1):
        if number == 1:
            meter.start()
        started = time.perf_counter()
        connection = await connect(config)
        await connection.channel()
        times.append(time.perf_counter() - started)
        await connection.close()
    meter.stop()
    return percentiles(times[1:])


def check(holds: bool, what: str) -> None:
    """A driver's own check of what it did; it fails the run."""
    if not holds:
        raise AssertionError(what)


def main(run: Run) -> None:
    """Run one driver, and print its results as one line of JSON."""
    config, meter = Config(sys.argv[1:]), Meter()
    try:
        found = run(config, meter) or {}
        line: dict[str, object] = {"ok": True, **meter.result, **found}
    except Exception as error:
        traceback.print_exc()
        line = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(line), flush=True)
