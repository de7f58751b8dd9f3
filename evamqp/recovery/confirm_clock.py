"""How long the oldest publish of a channel has waited for its confirm.

Nothing is kept per publish.  What is done about a lost confirm is the publisher's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evamqp.errors import BadArgument
from evamqp.recovery.loop_bound import cancel_all, checked_timeout

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel

# Seconds.  Long, since a quorum queue without a majority confirms nothing until it has one again,
# and each new channel publishes everything again.
CONFIRM_TIMEOUT = 120.0
# Doubled so often, for channels in a row that confirmed nothing.
HIGHEST_DOUBLING = 4


def check_confirm_timeout(timeout: float | None) -> None:
    """Raise BadArgument or BadType unless it is None, or seconds above 0."""
    if checked_timeout(timeout) == 0:
        raise BadArgument("confirm_timeout must be more than 0 seconds")


class ConfirmClock:
    """Looks twice in each timeout; what was sent before the last look but one is overdue.

    Args:
        adapter: The loop.
        timeout: Seconds; None means for ever.
        on_overdue: Called with the channel; the clock stands still then.
    """

    __slots__ = ("_adapter", "_channel", "_delay", "_marks", "_on_overdue", "_timeout", "_timer")

    def __init__(
        self, adapter: Adapter, timeout: float | None, on_overdue: Callable[[Channel], object]
    ) -> None:
        self._timeout = timeout
        self._adapter = adapter
        self._on_overdue = on_overdue
        self._channel: Channel | None = None
        self._delay = 0.0
        self._timer: Handle | None = None
        self._marks = (0, 0)  # the tags last sent at the last two looks

    def start(self, channel: Channel, doublings: int) -> None:
        """Watch a new channel, with a timeout that is doubled so often."""
        self.stop()
        if self._timeout is not None:
            self._channel = channel
            self._delay = self._timeout * (1 << min(doublings, HIGHEST_DOUBLING)) / 2
            self._timer = self._adapter.call_later(self._delay, self._look)

    def restart(self) -> None:
        """Count from now: the broker takes no publishes."""
        self._marks = (0, 0)

    def stop(self) -> None:
        """Watch nothing any more.  Idempotent."""
        cancel_all(self._timer)
        self._timer = self._channel = None
        self._marks = (0, 0)

    def end(self) -> None:
        """Watch nothing ever again."""
        self.stop()
        self._on_overdue = _nobody  # else no end would free the publisher

    def _look(self) -> None:
        channel = self._channel
        assert channel is not None
        overdue, recent = self._marks
        unconfirmed = channel.unconfirmed
        if unconfirmed and unconfirmed[0] <= overdue:
            self.stop()
            self._on_overdue(channel)
            return
        self._marks = (0, 0) if channel.connection.is_blocked else (recent, channel.published)
        self._timer = self._adapter.call_later(self._delay, self._look)


def _nobody(channel: Channel) -> None:
    """Whom a clock calls that has ended."""
