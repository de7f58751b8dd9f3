#!/usr/bin/env python3
"""Consume what callback_publisher.py publishes, acknowledge it, and live through broker restarts.

    python examples/callback_consumer.py --adapter asyncio

A plain connection never reconnects, so each attempt makes a new one.  What was not acknowledged
when one is lost comes again: a message may come twice, but none is skipped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
from functools import partial

import evamqp
from evamqp.abc import Adapter, Handle

EXCHANGE = "evamqp-example"
QUEUE = "evamqp-example"
ADAPTERS = ("select", "asyncio", "tornado", "twisted")
PREFETCH = 100  # messages that the broker sends ahead of our acknowledgements
MAX_DELAY = 5.0  # seconds between two attempts to connect


class Consumer(evamqp.Handler):
    """Consumes and acknowledges; the count outlives every connection."""

    def __init__(self, adapter: Adapter, options: argparse.Namespace) -> None:
        self.adapter = adapter
        self.options = options
        self.connection: evamqp.Connection | None = None
        self.timer: Handle | None = None  # the next attempt to connect
        self.failures = 0
        self.is_stopping = False
        self.consumed = 0

    def connect(self) -> None:
        self.connection = evamqp.connect(self.options.url, self, adapter=self.adapter)

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        # Requests leave in this order; none has to wait for the answer to the one before.
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_bind(QUEUE, EXCHANGE, "example.*")
        channel.basic_qos(PREFETCH)
        channel.basic_consume(QUEUE, self.on_message, callback=self.on_consuming)

    def on_consuming(self, consumer_tag: str) -> None:
        self.failures = 0

    def on_message(self, message: evamqp.Message) -> None:
        if self.options.interval:
            self.adapter.call_later(self.options.interval, partial(self.finish, message))
        else:
            self.finish(message)

    def finish(self, message: evamqp.Message) -> None:
        """Acknowledge what was worked on, never before."""
        if message.ack():  # else its channel is gone, and the broker hands it out again
            self.consumed += 1
        if self.consumed == self.options.count:
            self.stop()

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        # The queue was deleted, for instance.  Beginning afresh declares it again.
        channel.connection.close(text="the broker cancelled the consumer")

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        # If the channel alone was closed, we begin afresh as after a lost connection.
        channel.connection.close(text=f"the channel ended: {reason}")

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """The end of an open connection, and of one that could not be opened."""
        self.connection = None
        if self.is_stopping:
            self.adapter.stop()
            return
        # Growing, so that a broker in trouble is left alone; random, so that its clients do not
        # all come back at the same moment.
        delay = random.uniform(0, min(MAX_DELAY, 0.1 * 2 ** min(self.failures, 10)))
        self.failures += 1
        say(f"{reason}; the next attempt is in {delay:.1f} s")
        self.timer = self.adapter.call_later(delay, self.connect)

    def stop(self) -> None:
        """Close; the broker keeps what was not acknowledged.  Idempotent."""
        if self.is_stopping:
            return
        self.is_stopping = True
        if self.connection is not None:
            self.connection.close()
            return
        if self.timer is not None:
            self.timer.cancel()
        self.adapter.stop()

    def show_progress(self) -> None:
        say(f"progress consumed={self.consumed}")
        self.adapter.call_later(1.0, self.show_progress)


def say(text: str) -> None:
    print(text, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Consume messages and acknowledge them.")
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
    adapter: Adapter = getattr(module, f"{options.adapter.capitalize()}Adapter")()
    consumer = Consumer(adapter, options)

    def interrupted(*_: object) -> None:
        adapter.call_soon_threadsafe(consumer.stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    consumer.connect()
    if options.progress:
        consumer.show_progress()
    adapter.run()
    say(f"consumer: consumed={consumer.consumed}")
    adapter.close()


if __name__ == "__main__":
    main()
