#!/usr/bin/env python3
"""Publish numbered messages with confirms, and live through the broker's restarts.

    python examples/callback_publisher.py --adapter tornado --interval 0.1

A plain connection never reconnects, so each attempt makes a new one.  What was under way when one
is lost is counted as unknown: the broker may have it or not.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
from collections.abc import Sequence

import evamqp
from evamqp.abc import Adapter, Handle

EXCHANGE = "evamqp-example"
QUEUE = "evamqp-example"
ROUTING_KEY = "example.numbers"
ADAPTERS = ("select", "asyncio", "tornado", "twisted")
PERSISTENT = evamqp.Properties(
    content_type="text/plain", delivery_mode=evamqp.DeliveryMode.PERSISTENT
)
DRAIN_TIME = 5.0  # seconds that the last confirms may take when we stop
MAX_DELAY = 5.0  # seconds between two attempts to connect


class Publisher(evamqp.Handler):
    """Publishes on a timer; the counts outlive every connection."""

    def __init__(self, adapter: Adapter, options: argparse.Namespace) -> None:
        self.adapter = adapter
        self.options = options
        self.connection: evamqp.Connection | None = None
        self.channel: evamqp.Channel | None = None
        self.timer: Handle | None = None  # the next message, or the next attempt to connect
        self.failures = 0
        self.is_stopping = False
        self.published = self.confirmed = self.nacked = self.unknown = 0

    def connect(self) -> None:
        self.connection = evamqp.connect(self.options.url, self, adapter=self.adapter)

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        # Requests leave in this order, publishes behind them; none has to wait for its answer.
        channel.confirm_select()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_bind(QUEUE, EXCHANGE, "example.*")
        self.channel = channel
        self.publish()

    def publish(self) -> None:
        """Publish the next message, unless the broker or the network asks us to wait."""
        assert self.channel is not None
        self.timer = self.adapter.call_later(self.options.interval, self.publish)
        if self.channel.connection.is_writable:
            body = f"number {self.published + 1}".encode()
            self.channel.basic_publish(EXCHANGE, ROUTING_KEY, body, PERSISTENT, mandatory=True)
            self.published += 1
            if self.published == self.options.count:
                self.stop()

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: Sequence[int], acked: bool
    ) -> None:
        if acked:
            self.confirmed += len(tags)
        else:
            self.nacked += len(tags)
        self.failures = 0
        if self.is_stopping and not channel.unconfirmed:
            channel.connection.close()

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        say(f"no queue took {returned.body.decode()}: {returned.text}")

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self.unknown += len(channel.unconfirmed)
        self.channel = None
        # If the channel alone was closed, we begin afresh as after a lost connection.
        channel.connection.close(text=f"the channel ended: {reason}")

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """The end of an open connection, and of one that could not be opened."""
        self.connection = None
        self.cancel_timer()
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
        """Publish nothing more, wait for the confirms under way, close.  Idempotent."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.cancel_timer()
        if self.connection is None:
            self.adapter.stop()
        elif self.channel is None or not self.channel.unconfirmed:
            self.connection.close()
        else:
            self.adapter.call_later(DRAIN_TIME, self.connection.close)

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def show_progress(self) -> None:
        say(f"progress confirmed={self.confirmed}")
        self.adapter.call_later(1.0, self.show_progress)


def say(text: str) -> None:
    print(text, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publish numbered messages with confirms.")
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
    adapter: Adapter = getattr(module, f"{options.adapter.capitalize()}Adapter")()
    publisher = Publisher(adapter, options)

    def interrupted(*_: object) -> None:
        adapter.call_soon_threadsafe(publisher.stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    publisher.connect()
    if options.progress:
        publisher.show_progress()
    adapter.run()
    say(
        f"publisher: published={publisher.published} confirmed={publisher.confirmed}"
        f" nacked={publisher.nacked} unknown={publisher.unknown}"
    )
    adapter.close()


if __name__ == "__main__":
    main()
