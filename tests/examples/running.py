"""A program that runs beside the test: its output line by line, and its end.

No law lives here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

R = TypeVar("R", bound="Running")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE = 40.0  # seconds after which what is waited for will not come
POLL_INTERVAL = 0.02


def until(done: Callable[[], object], what: str) -> None:
    """Look again and again until ``done()``."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(POLL_INTERVAL)


class Running:
    """A Python program, started with AMQP_URL set and ended with the ``with`` block at the latest.

    Attributes:
        lines: What it printed so far, to either stream.
    """

    def __init__(self, arguments: Sequence[str], url: str) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "AMQP_URL": url, "PYTHONPATH": str(EXAMPLES.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self: R) -> R:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def printed(self, pattern: str) -> re.Match[str] | None:
        """The last line in which the pattern is found."""
        matches = (re.search(pattern, line) for line in reversed(self.lines))
        return next((match for match in matches if match), None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line in which the pattern is found."""
        until(lambda: self.printed(pattern) or self._has_ended(), f"a line with {pattern!r}")
        match = self.printed(pattern)
        assert match is not None, self.lines
        return match

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the status with which it ends."""
        self._process.send_signal(number)
        status = self._process.wait(PATIENCE)
        self._reader.join()
        return status

    def _has_ended(self) -> bool:
        return self._process.poll() is not None and not self._reader.is_alive()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
