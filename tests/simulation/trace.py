"""What happened in a world, line by line, for whoever has to find out why.

Law: the same seed writes the same lines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable


class Trace:
    """Lines of virtual time, who, and what."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._lines: list[tuple[float, str, str]] = []

    def __call__(self, who: str, what: str) -> None:
        self._lines.append((self._time(), who, what))

    def __str__(self) -> str:
        return "\n".join(f"{time:10.3f}  {who:<14} {what}" for time, who, what in self._lines)


class TracedLog(logging.Handler):
    """Writes what the library logs among the rest."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        name = record.name.removeprefix("evamqp.")
        self._trace(f"[{name}]", f"{record.levelname} {record.getMessage()}")
