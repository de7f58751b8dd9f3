#!/usr/bin/env python3
"""Publish numbered messages, and lose none of them whatever happens to the broker.

    python examples/async_publisher.py --adapter tornado --interval 0.1

Every message ends in one outcome.  The Publisher reconnects by itself, and publishes again what
was not confirmed when a connection was lost; a consumer may then see it twice.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal

import evamqp
from evamqp.abc import Adapter

EXCHANGE = "evamqp-example"
QUEUE = "evamqp-example"
ROUTING_KEY = "example.numbers"
ADAPTERS = ("select", "asyncio", "tornado", "twisted")
DRAIN_TIME = 5.0  # seconds that the last confirms may take when we stop


def topology() -> evamqp.Topology:
    """What has to exist; it is declared on every connection."""
    topology = evamqp.Topology()
    topology.exchange(EXCHANGE, "topic", durable=True)
    topology.queue(QUEUE, durable=True)
    topology.bind(QUEUE, EXCHANGE, "example.*")
    return topology


class Numbers:
    """Publishes on a timer and counts the outcomes."""

    def __init__(self, adapter: Adapter, options: argparse.Namespace) -> None:
        self.adapter = adapter
        self.options = options
        self.publisher = evamqp.Publisher(options.url, adapter=adapter, topology=topology())
        self.run = f"{random.getrandbits(32):08x}"  # marks our numbers
        self.is_stopping = False
        self.published = self.confirmed = self.nacked = self.unknown = 0
        adapter.call_soon(self.publish)

    def publish(self) -> None:
        """Publish the next message, unless broker, network or the limits ask us to wait."""
        if self.is_stopping:
            return
        if self.publisher.is_writable:
            self.published += 1
            body = f"{self.run} {self.published}".encode()
            self.publisher.publish(EXCHANGE, ROUTING_KEY, body, callback=self.on_outcome)
        if self.published == self.options.count:
            self.stop()
        self.adapter.call_later(self.options.interval, self.publish)

    def on_outcome(self, publication: evamqp.Publication) -> None:
        if publication.outcome is evamqp.Outcome.CONFIRMED:
            self.confirmed += 1
        elif publication.outcome is evamqp.Outcome.ABANDONED:
            self.unknown += 1  # we stopped before the broker had answered
        else:
            self.nacked += 1
            say(f"{publication.body.decode()}: {publication.outcome}, {publication.detail}")

    def stop(self) -> None:
        """Publish nothing more, wait for the last outcomes, close.  Idempotent."""
        if not self.is_stopping:
            self.is_stopping = True
            self.publisher.close(DRAIN_TIME)

    def show_progress(self) -> None:
        say(f"progress confirmed={self.confirmed}")
        self.adapter.call_later(1.0, self.show_progress)


def say(text: str) -> None:
    print(text, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publish numbered messages, losing none.")
    parser.add_argument("--adapter", choices=ADAPTERS, default="select", help="the event loop")
    parser.add_argument(
        "--url", default=os.environ.get("AMQP_URL") or "amqp://guest:guest@localhost:5672/%2F"
    )
    parser.add_argument("--count", type=int, help="stop after this many messages")
    parser.add_argument("--interval", type=float, default=0.01, help="seconds between messages")
    parser.add_argument("--progress", action="store_true", help="print a line every second")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    module = importlib.import_module(f"evamqp.adapters.{options.adapter}")
    adapter = getattr(module, f"{options.adapter.capitalize()}Adapter")()
    numbers = Numbers(adapter, options)

    def interrupted(*_: object) -> None:
        adapter.call_soon_threadsafe(numbers.stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    if options.progress:
        numbers.show_progress()
    adapter.run_until(numbers.publisher.reconnector.wait_closed())
    say(
        f"publisher: published={numbers.published} confirmed={numbers.confirmed}"
        f" nacked={numbers.nacked} unknown={numbers.unknown}"
    )
    adapter.close()


if __name__ == "__main__":
    main()
