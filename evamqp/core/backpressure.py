"""Whether publishing is welcome: the output buffer, the transport, alarms and stopped flows.

Nothing is sent here and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evamqp.core.callbacks import CallbackDispatcher
from evamqp.core.output import Output
from evamqp.core.request import Request


class Backpressure:
    """Derives ``is_writable`` from its causes, and reports each change.

    Args:
        output: Full, or paused by the transport.
        callbacks: Defers the reports.
        report: Called with each new value, on the next turn of the loop.

    Attributes:
        is_active: Whether the connection is open; nothing is writable else.
        is_writable: Whether publishing now will not just pile up.
        blocked_since: When the broker raised an alarm; None without one.
    """

    __slots__ = (
        "_callbacks",
        "_output",
        "_report",
        "_stopped_channels",
        "_waiters",
        "blocked_since",
        "is_active",
        "is_writable",
    )

    def __init__(
        self, output: Output, callbacks: CallbackDispatcher, report: Callable[[bool], object]
    ) -> None:
        self._output = output
        self._callbacks = callbacks
        self._report = report
        self._stopped_channels: set[int] = set()
        self._waiters: list[Request[None]] = []
        self.blocked_since: float | None = None
        self.is_active: bool = False
        self.is_writable: bool = False

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has an alarm."""
        return self.blocked_since is not None

    def _is_pressed(self) -> bool:
        output = self._output
        return bool(output.is_full or output.paused or self._stopped_channels or self.is_blocked)

    def open(self) -> None:
        """The connection is open.  That itself is reported by on_open."""
        self.is_active = True
        self.is_writable = not self._is_pressed()
        if self.is_writable:
            self._callbacks.defer(self._resolve_waiters)

    def close(self) -> None:
        """The connection closes.  That itself is reported by on_close."""
        self.is_active = self.is_writable = False

    def block(self, now: float) -> None:
        """The broker raised an alarm, or says again that it has one."""
        if self.blocked_since is None:
            self.blocked_since = now

    def unblock(self, now: float) -> float:
        """The alarm is over; returns how many seconds it lasted."""
        since, self.blocked_since = self.blocked_since, None
        return 0.0 if since is None else now - since

    def set_flow(self, number: int, active: bool) -> None:
        """The broker stopped a channel's flow, or lets it run."""
        if active and number not in self._stopped_channels:
            return
        if active:
            self._stopped_channels.discard(number)
        else:
            self._stopped_channels.add(number)
        self.changed()

    def changed(self) -> None:
        """A cause may have changed: report each change on the next turn.

        Each, not only the last: whoever saw False and stopped must see True.
        """
        writable = self.is_active and not self._is_pressed()
        if writable is not self.is_writable:
            self.is_writable = writable
            self._callbacks.defer(self._notify, writable)

    def _notify(self, writable: bool) -> None:
        if writable:
            self._resolve_waiters()
        if self.is_active:
            self._report(writable)

    def wait(self, request: Request[None]) -> None:
        """Resolve the request at the next True."""
        self._waiters.append(request)

    def _resolve_waiters(self) -> None:
        for waiter in self.take_waiters():
            waiter.resolve(None)

    def take_waiters(self) -> list[Request[Any]]:
        """Return the waiting requests, and forget them."""
        waiters, self._waiters = self._waiters, []
        return list(waiters)

    def detach(self) -> None:
        """Report nothing more, so that no reference cycle is left."""
        self._report = _ignore


def _ignore(writable: bool) -> None:
    """What a detached Backpressure reports to."""
