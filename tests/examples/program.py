"""An example as a process beside the test: what it prints, line by line, and its end.

No law and no example lives here; what is peculiar to one is in its test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from guard import death_signal

P = TypeVar("P", bound="Program")

ROOT = Path(__file__).resolve().parents[2]
#: Seconds for anything that a program is waited for.
TIMEOUT = 60.0


class Program:
    """A running Python program, which ends with the ``with`` block at the latest.

    Args:
        arguments: Python's, relative to the project's root.
        environment: Variables besides the test's own.

    Attributes:
        lines: What it printed so far, to either stream.
    """

    #: The statuses of a clean end, and how the last line then begins.
    clean: tuple[int, ...] = (0,)
    last_words = ""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-W", "default::ResourceWarning", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=death_signal(signal.SIGKILL),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self: P) -> P:
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

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def said(self, pattern: str) -> re.Match[str] | None:
        """The last line in which the pattern is found."""
        matches = (re.search(pattern, line) for line in reversed(self.lines))
        return next((match for match in matches if match), None)

    def count(self, field: str) -> int:
        """The last number printed for a field, 0 before the first."""
        match = self.said(rf"\b{field}=(\d+)")
        return int(match[1]) if match else 0

    def until(self, done: Callable[[], object]) -> None:
        """Wait until ``done()``, which has to be before its end or by what it said last."""
        deadline = time.monotonic() + TIMEOUT
        is_running = True
        while not done():
            assert is_running, self.text
            assert time.monotonic() < deadline, self.text
            is_running = self._reader.is_alive()
            time.sleep(0.02)

    def until_said(self, pattern: str) -> re.Match[str]:
        """Wait for a line in which the pattern is found."""
        self.until(lambda: self.said(pattern))
        match = self.said(pattern)
        assert match is not None
        return match

    def until_counted(self, field: str, count: int) -> None:
        self.until(lambda: self.count(field) >= count)

    def end(self) -> dict[str, int]:
        """Wait for its end, which has to be clean, and return the numbers in its last line."""
        status = self._process.wait(TIMEOUT)
        self._reader.join()
        assert status in self.clean, self.text
        assert not re.search("Traceback|ResourceWarning", self.text), self.text
        last = self.lines[-1]
        assert last.startswith(self.last_words), self.text
        return {field: int(number) for field, number in re.findall(r"(\w+)=(\d+)", last)}

    def stop(self, number: int = signal.SIGTERM) -> dict[str, int]:
        """Ask it to end, and return the numbers in its last line."""
        self._process.send_signal(number)
        return self.end()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))
