#!/usr/bin/env python3
"""Consume what async_publisher.py publishes, and report whether any number is missing.

    python examples/async_consumer.py --adapter asyncio

The Consumer comes back by itself after every kind of loss.  A message is acknowledged when its
handler is done, so one that was under way when a connection was lost comes again.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
from functools import partial

import evamqp
from evamqp.abc import Adapter

EXCHANGE = "evamqp-example"
QUEUE = "evamqp-example"
ADAPTERS = ("select", "asyncio", "tornado", "twisted")
PREFETCH = 100  # messages that the broker sends ahead of our acknowledgements
DRAIN_TIME = 5.0  # seconds that handlers may take when we stop


def topology() -> evamqp.Topology:
    """What has to exist; it is declared on every connection."""
    topology = evamqp.Topology()
    topology.exchange(EXCHANGE, "topic", durable=True)
    topology.queue(QUEUE, durable=True)
    topology.bind(QUEUE, EXCHANGE, "example.*")
    return topology


class Seen:
    """The numbers of one publisher: which came, from the first that we saw on."""

    def __init__(self, first: int) -> None:
        self.next = first  # all below came
        self.early: set[int] = set()

    @property
    def missing(self) -> int:
        return max(self.early, default=self.next - 1) - self.next + 1 - len(self.early)

    def add(self, number: int) -> bool:
        """Whether it is new."""
        if number < self.next or number in self.early:
            return False
        self.early.add(number)
        while self.next in self.early:
            self.early.remove(self.next)
            self.next += 1
        return True


class Numbers:
    """Consumes, and keeps the books."""

    def __init__(self, adapter: Adapter, options: argparse.Namespace) -> None:
        self.adapter = adapter
        self.options = options
        self.consumed = self.duplicates = 0
        self.seen: dict[str, Seen] = {}
        self.is_stopping = False
        self.consumer = evamqp.Consumer(
            options.url,
            QUEUE,
            self.on_message,
            adapter=adapter,
            topology=topology(),
            prefetch=PREFETCH,
        )

    def on_message(self, message: evamqp.Message) -> object:
        """Work on a message.  It is acknowledged when this returns, or when its future is done."""
        if not self.options.interval:
            self.finish(message)
            return None
        done = self.adapter.create_future()
        self.adapter.call_later(self.options.interval, partial(self.finish, message))
        self.adapter.call_later(self.options.interval, partial(done.resolve, None))
        return done.future

    def finish(self, message: evamqp.Message) -> None:
        run, _, digits = message.body.decode().partition(" ")
        number = int(digits)
        if not self.seen.setdefault(run, Seen(number)).add(number):
            self.duplicates += 1
        self.consumed += 1
        if self.consumed == self.options.count:
            self.stop()

    def stop(self) -> None:
        """Let what is at work finish, and close; the broker keeps the rest.  Idempotent."""
        if not self.is_stopping:
            self.is_stopping = True
            self.consumer.close(DRAIN_TIME)

    def show_progress(self) -> None:
        say(f"progress consumed={self.consumed}")
        self.adapter.call_later(1.0, self.show_progress)


def say(text: str) -> None:
    print(text, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Consume messages, missing none.")
    parser.add_argument("--adapter", choices=ADAPTERS, default="select", help="the event loop")
    parser.add_argument(
        "--url", default=os.environ.get("AMQP_URL") or "amqp://guest:guest@localhost:5672/%2F"
    )
    parser.add_argument("--count", type=int, help="stop after this many messages")
    parser.add_argument(
        "--interval", type=float, default=0.0, help="seconds of work that each message takes"
    )
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
    adapter.run_until(numbers.consumer.reconnector.wait_closed())
    missing = sum(seen.missing for seen in numbers.seen.values())
    say(f"consumer: consumed={numbers.consumed} duplicates={numbers.duplicates} missing={missing}")
    adapter.close()


if __name__ == "__main__":
    main()
