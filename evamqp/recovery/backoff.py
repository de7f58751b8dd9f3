"""How long to wait before the next attempt.  It counts and draws random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

from evamqp import checks
from evamqp.errors import (
    NOT_ALLOWED,
    NOT_IMPLEMENTED,
    BadArgument,
    BadType,
    ConnectionClosed,
    Retry,
)

# Seconds.  Full jitter, so that a thousand clients of one broker do not come back at once.
FIRST_STEP = 0.1
LONGEST = 30.0
# A broker that restarts is away for less than this, and then no delay is longer than that.
SHORT_OUTAGE = 60.0
LONGEST_IN_SHORT = 4.0
# For ends that probably need a human: a refused login, a missing virtual host.
FIRST_SLOW_STEP = 2.0
LONGEST_SLOW = 60.0
# 0.1 * 2**9 is past the cap; without a limit the power overflows after 1,024 attempts.
HIGHEST_POWER = 9
# Seconds after which the loss of a connection counts as the first again.
STABLE_AFTER = 10.0

# The broker refused our request, and would refuse it again at once.
_SLOW_CODES = (402, 403, 502, 503, NOT_ALLOWED, NOT_IMPLEMENTED)


def retry_of(reason: ConnectionClosed) -> Retry:
    """How soon to try again after the end of a connection."""
    if reason.by == "broker" and reason.code in _SLOW_CODES:
        return "slow"
    return reason.retry


class Backoff:
    """The delays of one client's attempts: none, then random up to a bound that doubles.

    While the waits of one outage add up to less than a minute the bound stays at 4 seconds, so that
    a broker that restarts is served again within 5 seconds of its return.

    Args:
        first: Seconds; the bound of the first delay that is not 0 is twice that.
        limit: Seconds that a delay may take at the most.
        jitter: The part of each delay that is random, 0..1; 1 spreads many clients best.
        chance: Returns a float in 0..1; for tests.

    Raises:
        BadType: A value is not a number.
        BadArgument: ``first`` or ``limit`` is not above 0, or ``jitter`` not within 0..1.
    """

    __slots__ = ("_chance", "_first", "_jitter", "_limit", "_waited", "attempts")

    def __init__(
        self,
        first: float = FIRST_STEP,
        limit: float = LONGEST,
        jitter: float = 1.0,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        checks.seconds("first", first)
        checks.seconds("limit", limit)
        if not isinstance(jitter, (int, float)):
            raise BadType(f"jitter must be a number, not {type(jitter).__name__}")
        if not 0 <= jitter <= 1:
            raise BadArgument(f"jitter must be within 0..1, not {jitter}")
        self._first = first
        self._limit = limit
        self._jitter = jitter
        self._chance = chance
        self._waited = 0.0  # seconds, since the last reset
        self.attempts: int = 0  # since the last reset

    def next(self, retry: Retry = "soon") -> float:
        """Seconds to wait before the next attempt."""
        attempt = self.attempts
        self.attempts += 1
        power = min(attempt, HIGHEST_POWER)
        if retry != "soon":
            # At least half of the bound, so that chance cannot make the retries frequent.
            bound = min(LONGEST_SLOW, FIRST_SLOW_STEP * (1 << power))
            return bound * (1 + self._chance()) / 2
        if not attempt:
            return 0.0
        bound = min(self._limit, self._first * (1 << power))
        if self._waited < SHORT_OUTAGE:
            bound = min(bound, LONGEST_IN_SHORT)
        delay = bound * (1 - self._jitter * (1 - self._chance()))
        self._waited += delay
        return delay

    def reset(self) -> None:
        """Start a new series."""
        self.attempts = 0
        self._waited = 0.0
