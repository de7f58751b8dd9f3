"""What the embedded broker does: its start, its messages a second, and what connections leave.

    python benchmarks/embedded.py

The broker is a process of its own, as ``python -m evamqp.testing`` is; publisher and consumer are
one client on the select loop.  Every publish is confirmed, every message acknowledged.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import evamqp
from evamqp.adapters.select import SelectAdapter
from evamqp.testing import Broker

WINDOW = 1000  # publishes that may be unconfirmed
BODY = b"x" * 100


class Traffic(evamqp.Handler):
    """Publishes, confirms, consumes and acknowledges; stops the loop when all are acknowledged."""

    def __init__(self, adapter: SelectAdapter, count: int) -> None:
        self.adapter = adapter
        self.count = count
        self.published = self.confirmed = self.consumed = 0
        self.started = 0.0
        self.seconds = 0.0

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        channel.confirm_select()
        channel.basic_qos(200)
        channel.queue_declare("traffic", callback=lambda _: self.begin(channel))

    def begin(self, channel: evamqp.Channel) -> None:
        self.started = time.perf_counter()
        channel.basic_consume("traffic", self.consume)
        self.publish(channel)

    def publish(self, channel: evamqp.Channel) -> None:
        while self.published < self.count and self.published - self.confirmed < WINDOW:
            channel.basic_publish("", "traffic", BODY)
            self.published += 1

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: evamqp.types.Tags, acked: bool
    ) -> None:
        self.confirmed += len(tags)
        self.publish(channel)

    def consume(self, message: evamqp.Message) -> None:
        message.ack()
        self.consumed += 1
        if self.consumed == self.count:
            self.seconds = time.perf_counter() - self.started
            message.channel.connection.close()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.adapter.stop()


def visit(broker: Broker, adapter: SelectAdapter) -> float:
    """Open a connection and close it; the time at which it was open."""
    connection = evamqp.connect(broker.url, adapter=adapter)
    adapter.run_until(connection.wait_open(), timeout=10)
    opened = time.perf_counter()
    adapter.run_until(connection.close(), timeout=10)
    return opened


def start_up() -> float:
    """Milliseconds until a broker in this process answers a connection."""
    started = time.perf_counter()
    with Broker().serve() as broker:
        adapter = SelectAdapter()
        opened = visit(broker, adapter)
        adapter.close()
    return (opened - started) * 1e3


def rate(url: str, count: int) -> float:
    """Messages a second, each published, confirmed, consumed and acknowledged."""
    adapter = SelectAdapter()
    traffic = Traffic(adapter, count)
    evamqp.connect(url, traffic, adapter=adapter)
    adapter.run()
    adapter.close()
    assert traffic.confirmed == traffic.consumed == count, vars(traffic)
    return count / traffic.seconds


def left_behind(count: int) -> tuple[int, int, int]:
    """What connections opened and closed leave: descriptors, objects, KiB of memory."""
    with Broker().serve() as broker:
        adapter = SelectAdapter()
        for _ in range(count // 10):
            visit(broker, adapter)
        before = _held()
        for _ in range(count):
            visit(broker, adapter)
        broker.wait_until(lambda broker: not broker.connections())
        after = _held()
        adapter.close()
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


def _held() -> tuple[int, int, int]:
    gc.collect()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return len(os.listdir("/proc/self/fd")), len(gc.get_objects()), memory


@contextmanager
def served() -> Iterator[str]:
    """The URL of a broker in a process of its own."""
    command = [sys.executable, "-m", "evamqp.testing", "--port", "0"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            yield next(word for word in process.stdout.readline().split() if "://" in word)
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    starts = sorted(start_up() for _ in range(21))
    median, worst = starts[10], starts[-1]
    print(f"start to first connection: {median:.1f} ms in the median, {worst:.1f} at worst")
    with served() as url:
        rates = sorted(rate(url, options.messages) for _ in range(5))
    print(f"messages a second over TCP: {rates[2]:,.0f} in the median, {rates[0]:,.0f} at worst")
    descriptors, objects, memory = left_behind(options.connections)
    print(
        f"{options.connections:,} connections left {descriptors} descriptors,"
        f" {objects} objects, {memory} KiB"
    )


if __name__ == "__main__":
    main()
