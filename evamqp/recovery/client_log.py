"""The log of a client for its operator: one format, and a bounded number of lines an hour.

Every line begins with the client it is about.  Nothing is decided here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from evamqp.core.log_limit import LogLimit
from evamqp.recovery.loop_bound import cancel_all

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.errors import ConnectionClosed

log: logging.Logger = logging.getLogger(__name__)

# An hour of outages takes 8 + 3600 / 120 lines at the most of a connection, 5 + 3600 / 240 of each
# publisher and consumer on it.
CONNECTION_BURST, CONNECTION_INTERVAL = 8, 120.0
MEMBER_BURST, MEMBER_INTERVAL = 5, 240.0
# During an outage, log each tenth attempt, and the first after a minute.
ATTEMPTS_PER_LINE = 10
SECONDS_PER_LINE = 60.0


class ClientLog:
    """Writes lines about one client.

    Lines beyond the limit are counted by their kind.  The next line gives the counts; and the last
    of those left out is written late, so that the log always ends with how things stand.

    Args:
        adapter: The loop, for time and timer.
        label: Returns the client's name in the lines.
        limit: How many lines are written.
    """

    __slots__ = ("_adapter", "_label", "_last", "_left_out", "_limit", "_timer")

    def __init__(self, adapter: Adapter, label: Callable[[], str], limit: LogLimit) -> None:
        self._adapter = adapter
        self._label = label
        self._limit = limit
        self._left_out: Counter[str] = Counter()
        self._last: tuple[int, str, str] | None = None
        self._timer: Handle | None = None

    def write(self, level: int, kind: str, text: str) -> None:
        """Write a line, or count it.

        Args:
            level: As in ``logging``.
            kind: What happened in a word or two; the lines left out are counted by it.
            text: The line behind the label.
        """
        now = self._adapter.time()
        if self._limit.admits(now):
            self._emit(level, text)
            return
        self._left_out[kind] += 1
        self._last = (level, kind, text)
        if self._timer is None:
            self._timer = self._adapter.call_later(self._limit.wait(now), self._write_last)

    def _write_last(self) -> None:
        self._timer = None
        if self._last is not None:
            level, kind, text = self._last
            self._left_out[kind] -= 1
            self._limit.admits(self._adapter.time())
            self._emit(level, text)

    def _emit(self, level: int, text: str) -> None:
        left_out, self._left_out = +self._left_out, Counter()
        self._last = None
        cancel_all(self._timer)
        self._timer = None
        before = ", ".join(f"{count} x {kind}" for kind, count in left_out.items())
        log.log(level, "%s: %s%s", self._label(), text, f"; before: {before}" if before else "")

    def end(self) -> None:
        """Write what was left out last; nothing follows.  Idempotent."""
        cancel_all(self._timer)
        self._timer = None
        if self._last is not None:
            self._write_last()


class OutageLog:
    """Reports the events of a Reconnector's connection to a ClientLog.

    Args:
        adapter: The loop.
        label: Returns the client's name in the lines.
    """

    __slots__ = ("_adapter", "_at", "_attempt", "_has_been_open", "_kind", "_log")

    def __init__(self, adapter: Adapter, label: Callable[[], str]) -> None:
        self._adapter = adapter
        self._log = ClientLog(adapter, label, LogLimit(CONNECTION_BURST, CONNECTION_INTERVAL))
        self._has_been_open = False
        self._attempt = 0  # that was logged last, in this outage
        self._at = 0.0  # when
        self._kind: object = None  # of its reason

    def connected(self, product: str, attempts: int, seconds: float | None) -> None:
        """A connection serves; ``seconds`` since the loss, or None at the first."""
        if self._has_been_open and seconds is not None:
            text = f"connected again to {product}, {seconds:.1f} s after the loss"
        else:
            text = f"connected to {product}"
        more = f", attempt {attempts}" if attempts > 1 else ""
        self._has_been_open = True
        self._attempt = 0
        self._log.write(logging.INFO, "connected", text + more)

    def failed(
        self, level: int, attempt: int, delay: float, reason: ConnectionClosed, was_open: bool
    ) -> None:
        """A connection was lost, or an attempt failed; another follows in so many seconds."""
        now = self._adapter.time()
        kind = (type(reason), reason.code)
        is_due = attempt - self._attempt >= ATTEMPTS_PER_LINE or now - self._at >= SECONDS_PER_LINE
        if self._attempt and kind == self._kind and not was_open and not is_due:
            return
        self._attempt, self._at, self._kind = attempt, now, kind
        what = "connection lost" if was_open else "could not connect"
        again = "reconnect" if self._has_been_open else "connect"
        text = f"{what}: {reason}; attempt {attempt} to {again} in {delay:.2f} s"
        self._log.write(level, what, text)

    def blocked(self, reason: str) -> None:
        """The broker stopped taking publishes."""
        self._log.write(logging.WARNING, "alarm", f"the broker takes no publishes: {reason}")

    def unblocked(self) -> None:
        """It takes them again."""
        self._log.write(logging.INFO, "end of alarm", "the broker takes publishes again")

    def write(self, level: int, kind: str, text: str) -> None:
        """Something else; see ``ClientLog.write``."""
        self._log.write(level, kind, text)

    def closed(self, level: int, reason: object) -> None:
        """There will be no further connection."""
        self._log.end()
        self._log.write(level, "closed", f"closed: {reason}")
        self._log.end()
