"""A Celery worker as a process of its own, and the books of what its tasks did.

No test lives here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TASKS = "tests.integrations.kombu.tasks"
#: Seconds after which a test gives up waiting.
TIMEOUT = 60.0


class Worker:
    """``celery worker`` on a broker.

    Args:
        broker: URL.
        folder: Where its log and its tasks' notes go.
        pool: Celery's name of it.
        options: More of its command line.
        queue_type: Of the tasks' queue.
    """

    def __init__(
        self, broker: str, folder: Path, pool: str, *options: str, queue_type: str = "classic"
    ) -> None:
        self.log = folder / "worker.log"
        self.notes = folder / "notes"
        self.notes.touch()
        environment = {
            **os.environ,
            "TASKS_BROKER": broker,
            "TASKS_NOTES": str(self.notes),
            "TASKS_QUEUE_TYPE": queue_type,
        }
        command = [sys.executable, "-m", "celery", "-A", TASKS, "worker", "-P", pool, "-c", "2"]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [*command, "-l", "INFO", "-n", "tested@here", *options],
                cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def done(self) -> Counter[int]:
        """How often each number was written."""
        return Counter(map(int, self.notes.read_text().split()))

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def wait_for(self, done: Callable[[], object], seconds: float = TIMEOUT) -> None:
        """Wait; the worker must live on."""
        deadline = time.monotonic() + seconds
        while not done():
            assert self._process.poll() is None, f"the worker has ended: {self.tail()}"
            assert time.monotonic() < deadline, f"it never came: {self.tail()}"
            time.sleep(0.05)

    def stop(self) -> int:
        """End it as an operator does, and return its status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(TIMEOUT)

    def kill(self) -> None:
        """End it and its children at once, if they have not ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(TIMEOUT)


@contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """End it when the test has ended."""
    try:
        yield worker
    finally:
        worker.kill()
