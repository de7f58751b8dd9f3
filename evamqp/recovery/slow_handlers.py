"""Messages that a consumer has had for so long that the broker is about to take them back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evamqp.recovery.loop_bound import cancel_all

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.recovery.batch import Unit
    from evamqp.recovery.client_log import ClientLog
    from evamqp.recovery.handlers import Handlers

# Seconds.  RabbitMQ takes back what is unacknowledged for 30 minutes, unless configured otherwise:
# it closes the channel; 4.3 cancels the consumer of a quorum queue.  What three checks find has
# been here for at least 20 minutes, and for less than 30.
INTERVAL = 600.0
CHECKS = 3


class SlowHandlers:
    """Checks every 10 minutes what is unsettled, and warns of it once.

    Args:
        adapter: The loop.
        handlers: Whose messages.
        log: Of the consumer.
    """

    __slots__ = ("_adapter", "_checks", "_handlers", "_log", "_timer")

    def __init__(self, adapter: Adapter, handlers: Handlers, log: ClientLog) -> None:
        self._adapter = adapter
        self._handlers = handlers
        self._log = log
        self._checks: dict[Unit, int] = {}  # how many have found it
        self._timer: Handle | None = None

    def start(self) -> None:
        """Begin to check, at the first channel.  Idempotent."""
        if self._timer is None:
            self._timer = self._adapter.call_later(INTERVAL, self._check)

    def forget(self) -> None:
        """The channel is gone, and the broker delivers its messages again."""
        self._checks.clear()

    def end(self) -> None:
        """Check no more.  Idempotent."""
        cancel_all(self._timer)
        self._timer = None
        self._checks.clear()

    def _check(self) -> None:
        self._timer = self._adapter.call_later(INTERVAL, self._check)
        found: Iterable[Unit] = (*self._handlers.at_work, *self._handlers.waiting)
        checks = {unit: self._checks.get(unit, 0) + 1 for unit in found if not unit.is_settled}
        self._checks = checks
        slow = [unit for unit, count in checks.items() if count == CHECKS]
        if slow:
            text = (
                f"{slow[0]!r} is unacknowledged for more than 20 minutes, and {len(slow) - 1} more:"
                " after its consumer_timeout, 30 minutes by default, the broker closes the channel"
                " or cancels the consumer, and delivers them again"
            )
            self._log.write(logging.WARNING, "slow handler", text)
