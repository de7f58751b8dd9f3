#!/usr/bin/env python3
"""Consume in a plain loop, as slowly as the work takes, and connect again after a loss.

    python examples/blocking_consumer.py --work 0.5

The connection keeps its heartbeats while the work goes on, however long it takes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import evamqp
import evamqp.blocking

QUEUE = "evamqp-blocking-example"
LONGEST_PAUSE = 5.0  # seconds between two attempts to connect


def consume(url: str, count: int, idle: float | None, work: float) -> int:
    """Take up to ``count`` messages; fewer if none comes for ``idle`` seconds."""
    done = 0
    with evamqp.blocking.connect(url) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        print("connected", flush=True)
        for message in channel.consume(QUEUE, prefetch=20, inactivity_timeout=idle):
            time.sleep(work)  # whatever has to be done
            message.ack()
            done += 1
            if done == count:
                break
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default=os.environ.get("AMQP_URL", "amqp://localhost"))
    parser.add_argument("--count", type=int, default=0, help="messages; 0 means no end")
    parser.add_argument("--idle", type=float, help="end after this many seconds without one")
    parser.add_argument("--work", type=float, default=0.0, help="seconds for each")
    options = parser.parse_args()
    pause = 0.1
    try:
        while True:
            try:
                done = consume(options.url, options.count, options.idle, options.work)
                break
            except (evamqp.Closed, evamqp.NotExecuted) as error:
                print(f"connecting again in {pause:.1f} s: {error}", file=sys.stderr)
                time.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
    except KeyboardInterrupt:
        print("interrupted")
        return 0
    print(f"consumed={done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
