#!/usr/bin/env python3
"""Publish numbered messages from a program that blocks, and connect again after a loss.

    python examples/blocking_publisher.py --count 1000 --threads 4

Each message is published until the broker has confirmed it, so a consumer may see one twice.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import threading
import time

import evamqp
import evamqp.blocking

QUEUE = "evamqp-blocking-example"
LONGEST_PAUSE = 5.0  # seconds between two attempts to connect


class Numbers:
    """Threads that publish over one connection; the first that finds it lost makes a new one."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._numbers = iter(range(count))
        self._lock = threading.Lock()  # guards the connection and the numbers
        self._connection: evamqp.blocking.Connection | None = None
        self._is_stopping = threading.Event()
        self.confirmed = 0

    def run(self) -> None:
        """Publish numbers until there are no more."""
        channel: evamqp.blocking.Channel | None = None
        while not self._is_stopping.is_set():
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            channel = self._publish(channel, number)

    def stop(self) -> None:
        """Let the threads end after what they are doing."""
        self._is_stopping.set()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _publish(
        self, channel: evamqp.blocking.Channel | None, number: int
    ) -> evamqp.blocking.Channel | None:
        """Publish until it is confirmed; returns the channel on which that was."""
        for attempt in itertools.count():
            try:
                if channel is None or not channel.is_open:
                    channel = self._open()
                channel.publish("", QUEUE, b"%d" % number)
            except evamqp.PublishFailed as error:
                print(f"number {number} was not taken: {error}", file=sys.stderr)
            except evamqp.AmqpError as error:
                print(f"trying again: {error}", file=sys.stderr)
            else:
                with self._lock:
                    self.confirmed += 1
                return channel
            if self._is_stopping.wait(min(LONGEST_PAUSE, 0.1 * 2**attempt)):
                return channel
        return channel

    def _open(self) -> evamqp.blocking.Channel:
        with self._lock:
            if self._connection is None or not self._connection.is_open:
                self._connection = evamqp.blocking.connect(self._url)
                print("connected", flush=True)
            connection = self._connection
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        return channel


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=os.environ.get("AMQP_URL", "amqp://localhost"))
    parser.add_argument("--count", type=int, default=1000, help="messages")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    numbers = Numbers(options.url, options.count)
    threads = [threading.Thread(target=numbers.run) for _ in range(options.threads)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        numbers.stop()
        for thread in threads:
            thread.join()
    numbers.close()
    print(f"confirmed={numbers.confirmed} in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
