"""How long the oldest publish of a channel has waited for its confirm.

It keeps nothing per publish.  The publisher decides what to do about a missing confirm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evamqp.errors import BadArgument
from evamqp.recovery.loop_bound import cancel_all, checked_timeout

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel

# Seconds.  Long, because a quorum queue without a majority confirms nothing until it has one again,
# and each new channel publishes everything again.
CONFIRM_TIMEOUT = 120.0
# The timeout doubles at most this often, for channels in a row that confirmed nothing.
HIGHEST_DOUBLING = 4


def check_confirm_timeout(timeout: float | None) -> None:
    """Raise BadArgument or BadType unless it is None, or seconds above 0."""
    if checked_timeout(timeout) == 0:
        raise BadArgument("confirm_timeout must be more than 0 seconds")


class ConfirmClock:
    """Checks twice per timeout; what was sent before the last check but one is overdue.

    Args:
        adapter: The loop.
        timeout: Seconds; None means for ever.
        on_overdue: Called with the channel; the clock stops first.
    """

    __slots__ = (
        "_adapter",
        "_channel",
        "_delay",
        "_last_tags",
        "_on_overdue",
        "_timeout",
        "_timer",
    )

    def __init__(
        self, adapter: Adapter, timeout: float | None, on_overdue: Callable[[Channel], object]
    ) -> None:
        self._timeout = timeout
        self._adapter = adapter
        self._on_overdue = on_overdue
        self._channel: Channel | None = None
        self._delay = 0.0
        self._timer: Handle | None = None
        self._last_tags = (0, 0)  # the last tag sent, at each of the last two checks

    def start(self, channel: Channel, doublings: int) -> None:
        """Watch a new channel, with the timeout doubled ``doublings`` times."""
        self.stop()
        if self._timeout is not None:
            self._channel = channel
            self._delay = self._timeout * (1 << min(doublings, HIGHEST_DOUBLING)) / 2
            self._timer = self._adapter.call_later(self._delay, self._check)

    def restart(self) -> None:
        """Count from now: the broker takes no publishes."""
        self._last_tags = (0, 0)

    def stop(self) -> None:
        """Stop watching.  Idempotent."""
        cancel_all(self._timer)
        self._timer = self._channel = None
        self._last_tags = (0, 0)

    def end(self) -> None:
        """Stop for good."""
        self.stop()
        self._on_overdue = _ignore  # or this reference would keep the publisher alive

    def _check(self) -> None:
        channel = self._channel
        assert channel is not None
        overdue, recent = self._last_tags
        unconfirmed = channel.unconfirmed
        if unconfirmed and unconfirmed[0] <= overdue:
            self.stop()
            self._on_overdue(channel)
            return
        self._last_tags = (0, 0) if channel.connection.is_blocked else (recent, channel.published)
        self._timer = self._adapter.call_later(self._delay, self._check)


def _ignore(channel: Channel) -> None:
    """The callback after end()."""
