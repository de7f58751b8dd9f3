"""How long to wait before the next attempt.  Counts and chance only; no clock belongs here."""

from __future__ import annotations

import random
from collections.abc import Callable

from evamqp.errors import NOT_ALLOWED, NOT_IMPLEMENTED, ConnectionClosed, Retry

# Seconds.  Full jitter, so that a thousand clients of one broker do not come back at once.
FIRST_STEP = 0.1
LONGEST = 30.0
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
    """The delays of one series of attempts: none, then random up to a bound that doubles.

    Args:
        chance: Returns a float in 0..1; for tests.
    """

    __slots__ = ("_chance", "attempts")

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self.attempts = 0  # since the last reset

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
        return min(LONGEST, FIRST_STEP * (1 << power)) * self._chance()

    def reset(self) -> None:
        """Start a new series."""
        self.attempts = 0
