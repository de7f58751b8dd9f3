"""Celery's worker as a process of its own, and the books of what its tasks did.

No test lives here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from celery import Celery

from tests.integrations.kombu.tasks import make_app

P = TypeVar("P", bound="Program")

ROOT = Path(__file__).resolve().parents[3]
TASKS = "tests.integrations.kombu.tasks"
NAME = "tested@here"
#: Seconds after which a test gives up waiting.
TIMEOUT = 60.0


class Program:
    """One of Celery's commands as a process.

    Args:
        broker: URL.
        folder: Where its log and its tasks' notes go.
        arguments: Its command line.
        settings: Celery's, in place of those in tasks.py; JSON has to do.
    """

    def __init__(
        self, broker: str, folder: Path, *arguments: str, settings: Mapping[str, Any]
    ) -> None:
        self.log = folder / f"{arguments[0]}.log"
        self.notes = folder / "notes"
        self.notes.touch()
        environment = {
            **os.environ,
            "TASKS_BROKER": broker,
            "TASKS_NOTES": str(self.notes),
            "TASKS_SETTINGS": json.dumps(settings),
            "AUTOSCALE_KEEPALIVE": "1",  # seconds
        }
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", TASKS, *arguments],
                cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def done(self) -> Counter[int]:
        """How often each number was written."""
        return Counter(map(int, self.notes.read_text().split()))

    def printed(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """The end of that."""
        return self.printed()[-4000:]

    def wait_for(
        self,
        done: Callable[[], object],
        seconds: float = TIMEOUT,
        missing: Callable[[], object] = lambda: "it",
    ) -> None:
        """Wait; the process must live on.  ``missing`` says what has not come, if it fails."""
        deadline = time.monotonic() + seconds
        while not done():
            assert self._process.poll() is None, f"it has ended: {self.tail()}"
            assert time.monotonic() < deadline, f"{missing()} never came: {self.tail()}"
            time.sleep(0.05)

    def stop(self) -> int:
        """End it as an operator does, and return its status."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended, and return its status."""
        return self._process.wait(TIMEOUT)

    def kill(self) -> None:
        """End it and its children at once, if they have not ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(TIMEOUT)


class Worker(Program):
    """``celery worker`` on a broker.

    Args:
        pool: Celery's name of it.
        options: More of its command line.
    """

    def __init__(
        self,
        broker: str,
        folder: Path,
        pool: str = "prefork",
        options: Sequence[str] = ("-c", "2"),
        **settings: Any,
    ) -> None:
        arguments = ("worker", "-P", pool, "-l", "INFO", "-n", NAME, *options)
        super().__init__(broker, folder, *arguments, settings=settings)


@contextmanager
def running(program: P) -> Iterator[P]:
    """End it when the test has ended."""
    try:
        yield program
    finally:
        program.kill()


@contextmanager
def opened(broker: str, **settings: Any) -> Iterator[Celery]:
    """The application in the test's own process."""
    app = make_app(broker, **settings)
    try:
        yield app
    finally:
        consumer = getattr(app.backend, "result_consumer", None)
        if consumer is not None and consumer._consumer is not None:
            consumer.stop()
        app.close()


def send(app: Celery, name: str, *arguments: object, **options: Any) -> Any:
    """Call a task of tasks.py by name."""
    return app.send_task(f"{TASKS}.{name}", arguments, **options)
