"""Numbered messages through random faults, for as long as you like: is anything lost?

    python tools/soak.py --messages 100000 --faults 60 --adapter select --seed 7

A private RabbitMQ is started, hurt and removed.  Prints how to have the same run again, and one
line of figures; exit status 1 means that a promise was broken.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from broker_faults import Recovery, Stage, schedule, stage
from evamqp.abc import Adapter
from rabbitmq_node import RabbitFailed, RabbitNode, RabbitNotFound, end_on_signal
from traffic import Impatient, wait_until

ADAPTERS = ("select", "asyncio", "tornado", "twisted")
VHOST = "soak"
# Seconds between two lines of progress.
PROGRESS = 10.0


class Soak:
    """One run: the loop in the main thread, the faults in another."""

    def __init__(self, options: argparse.Namespace, adapter: Adapter, stage: Stage) -> None:
        self._adapter = adapter
        self._name = options.adapter
        self._stage = stage
        self._minutes = options.minutes
        self._start = time.monotonic()
        self._next_line = self._start + PROGRESS
        self._failure: BaseException | None = None
        self.recovery = Recovery(stage, schedule(options.faults, stage.chance))
        self._thread = threading.Thread(target=self._hurt, name="faults", daemon=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def run(self) -> bool:
        """To the end; returns whether every promise was kept."""
        self._thread.start()
        self._adapter.call_soon(self._watch)
        self._adapter.run()
        account = self._stage.traffic.account()
        print(f"soak: {self._figures()} {account}", flush=True)
        if self._failure is not None:
            print(f"soak: {self._failure!r} after {self.recovery.done[-1:]}", flush=True)
        return self._failure is None and account.is_clean

    def _hurt(self) -> None:
        traffic = self._stage.traffic
        try:
            self.recovery.run(lambda: self._minutes is None or self.seconds < 60 * self._minutes)
            wait_until(lambda: traffic.is_done, "all is confirmed and consumed", 600.0)
        except (Impatient, RabbitFailed) as error:
            self._failure = error
        self._adapter.call_soon_threadsafe(traffic.close)

    def _watch(self) -> None:
        traffic = self._stage.traffic
        if traffic.is_over:
            self._adapter.stop()
            return
        if time.monotonic() > self._next_line:
            self._next_line += PROGRESS
            faults = len(self.recovery.done)
            print(
                f"{self.seconds:6.0f} s  faults {faults:5}  published {traffic.published:10,}"
                f"  consumed {traffic.consumed:10,}",
                flush=True,
            )
        self._adapter.call_later(0.05, self._watch)

    def _figures(self) -> str:
        done = Counter(self.recovery.done)
        times = sorted(self.recovery.times) or [(0.0, "none")]
        traffic = self._stage.traffic
        return (
            f"adapter={self._name} seconds={self.seconds:.0f} faults={done.total()}"
            f" kills={done['kill']} alarms={done['alarm']} disconnects={traffic.publishing.losses}"
            f"+{traffic.consuming.losses} back={statistics.median_low(times)[0]:.3f}s"
            f" worst={times[-1][0]:.3f}s ({times[-1][1]})"
        )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Lose a message, if you can.")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--minutes", type=float, help="begin no fault after so many")
    parser.add_argument("--adapter", choices=ADAPTERS, default="select", help="the event loop")
    parser.add_argument("--seed", type=int, help="of all chance; None is one by chance")
    parser.add_argument("--verbose", action="store_true", help="show what the clients log")
    return parser.parse_args()


@contextmanager
def running_node() -> Iterator[RabbitNode]:
    with RabbitNode() as node:
        node.add_vhost(VHOST)
        yield node


def run(options: argparse.Namespace) -> bool:
    """Set the stage and play."""
    module = importlib.import_module(f"evamqp.adapters.{options.adapter}")
    adapter: Adapter = getattr(module, f"{options.adapter.capitalize()}Adapter")()
    with (
        running_node() as node,
        stage(node, VHOST, adapter, total=options.messages, seed=options.seed) as set_stage,
    ):
        return Soak(options, adapter, set_stage).run()


def main() -> int:
    options = parse_options()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL)
    print(
        f"again: make soak N={options.messages} FAULTS={options.faults}"
        f" ADAPTER={options.adapter} SEED={options.seed}",
        flush=True,
    )
    signal.signal(signal.SIGTERM, end_on_signal)
    try:
        return 0 if run(options) else 1
    except (RabbitNotFound, RabbitFailed) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 69  # EX_UNAVAILABLE of <sysexits.h>
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
