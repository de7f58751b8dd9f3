"""What a store costs a Publisher: per message, beside none and beside SQLite's own group commit.

    python benchmarks/outbox.py --folder /var/tmp

The broker is a process of its own.  Every message of 100 bytes is confirmed; at most 1000 are
unconfirmed.  ``sqlite`` inserts and deletes the same messages in one thread, as many in a
transaction as the Publisher's store had, with the same settings, and nothing else.  CPU is that of
this process, all threads; the time is mostly the disk's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from embedded import served

import evamqp
from evamqp import Outcome, SqliteStore, StoredMessage, StoredOutcome
from evamqp.adapters.select import SelectAdapter

WINDOW = 1000
BODY = b"x" * 100
PROPERTIES = evamqp.Properties(delivery_mode=2)
QUEUE = evamqp.Topology()
QUEUE.queue("outbox")


class Counted(SqliteStore):
    """Counts its transactions."""

    commits = 0

    def commit(
        self, added: Sequence[StoredMessage], ended: Sequence[StoredOutcome]
    ) -> Sequence[int]:
        self.commits += 1
        return super().commit(added, ended)


class Traffic:
    """Publishes so many messages, at most WINDOW at a time, until all are confirmed."""

    def __init__(self, url: str, count: int, store: SqliteStore | None) -> None:
        self._adapter = SelectAdapter()
        self._left = self._unconfirmed = count
        self._publisher = evamqp.Publisher(
            url, adapter=self._adapter, topology=QUEUE, store=store, max_messages=WINDOW
        )

    def run(self) -> None:
        self._adapter.run_until(self._publisher.wait_ready(10), timeout=20)
        self._fill()
        self._adapter.run()
        self._adapter.run_until(self._publisher.close(10), timeout=20)
        self._adapter.close()

    def _fill(self) -> None:
        while self._left and self._publisher.pending < WINDOW:
            self._left -= 1
            self._publisher.publish("", "outbox", BODY, callback=self._done)

    def _done(self, publication: evamqp.Publication) -> None:
        assert publication.outcome is Outcome.CONFIRMED
        self._unconfirmed -= 1
        if not self._unconfirmed:
            self._adapter.stop()
        self._fill()


def bare(store: SqliteStore, count: int, group: int) -> None:
    """Insert each message, and delete it with the next group, in groups of this size."""
    message = StoredMessage("", "outbox", BODY, PROPERTIES.raw, True)
    store.open()
    ended: list[StoredOutcome] = []
    for first in range(0, count, group):
        keys = store.commit([message] * min(group, count - first), ended)
        ended = [StoredOutcome(key, Outcome.CONFIRMED, "") for key in keys]
    store.commit([], ended)
    store.close()


def measure(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Microseconds per message: of CPU, and by the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    return (time.process_time() - cpu) * 1e6 / count, (time.perf_counter() - clock) * 1e6 / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="messages a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    count = options.count
    figures: dict[str, list[tuple[float, float]]] = {"no store": [], "store": [], "sqlite": []}
    groups: list[float] = []
    with served() as url, tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for number in range(options.rounds):
            store = Counted(Path(folder, f"store-{number}"))
            own = SqliteStore(Path(folder, f"bare-{number}"))
            figures["no store"].append(measure(Traffic(url, count, None).run, count))
            figures["store"].append(measure(Traffic(url, count, store).run, count))
            groups.append(count / store.commits)
            group = max(1, round(groups[-1]))
            figures["sqlite"].append(measure(partial(bare, own, count, group), count))
    print(
        f"{count} messages, {options.rounds} rounds, {statistics.median(groups):.0f} a transaction"
    )
    print(f"{'':10} {'CPU us':>8} {'clock us':>9}")
    for name, runs in figures.items():
        cpu, clock = (statistics.median(run[part] for run in runs) for part in (0, 1))
        print(f"{name:10} {cpu:8.1f} {clock:9.1f}")


if __name__ == "__main__":
    main()
