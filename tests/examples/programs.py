"""The examples of publisher and consumer as processes: their lines, their totals, their end.

No test lives here.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from guard import death_signal

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds for anything that an example is waited for.
PATIENCE = 60.0
NUMBER = re.compile(r"(\w+)=(\d+)")


class Program:
    """A running example."""

    def __init__(self, name: str, url: str, *options: str, style: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.counts: dict[str, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, f"examples/{style}_{name}.py", "--url", url, *options],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=death_signal(signal.SIGKILL),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, done: Callable[[], object]) -> None:
        """Wait until ``done()``, while it runs."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert self._process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.text)

    def until_counted(self, field: str, count: int) -> None:
        self.until(lambda: self.counts.get(field, 0) >= count)

    def end(self) -> dict[str, int]:
        """Wait for its end, which is clean, and return its totals."""
        assert self._process.wait(PATIENCE) == 0, self.text
        self._reader.join()
        last = self.lines[-1]
        assert last.startswith(f"{self.name}: "), self.text
        assert "Traceback" not in self.text, self.text
        return {field: int(number) for field, number in NUMBER.findall(last)}

    def stop(self, number: int = signal.SIGTERM) -> dict[str, int]:
        """Ask it to end, and return its totals."""
        self._process.send_signal(number)
        return self.end()

    def kill(self) -> None:
        """End it however it is.  Idempotent."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(line.rstrip())
                if line.startswith("progress "):
                    self.counts.update((name, int(text)) for name, text in NUMBER.findall(line))


@contextmanager
def running(name: str, url: str, *options: str, style: str = "async") -> Iterator[Program]:
    """An example that ends with the block at the latest.

    Args:
        name: ``publisher`` or ``consumer``.
        style: ``async`` are those that reconnect by themselves, ``callback`` the plain ones.
    """
    program = Program(name, url, *options, style=style)
    try:
        yield program
    finally:
        program.kill()
