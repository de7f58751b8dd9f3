"""How long to wait before the next attempt.  It knows counts and chance, no clock."""

from __future__ import annotations

import random
from collections.abc import Callable

from evamqp.errors import NOT_ALLOWED, NOT_IMPLEMENTED, ConnectionClosed, Retry

# Seconds.  Full jitter: a thousand clients whose broker restarts must not come back as one.
FIRST_STEP = 0.1
LONGEST = 30.0
# For ends that a human probably has to mend: a refused login, a missing virtual host.
FIRST_SLOW_STEP = 2.0
LONGEST_SLOW = 60.0
# 0.1 * 2**9 is past the cap; without a limit the power overflows after 1,024 attempts.
HIGHEST_POWER = 9
# Seconds that a connection must have lasted for the next loss to count as the first.
STABLE_AFTER = 10.0

# The broker refused what we asked for: asking again at once asks for the same refusal.
_SLOW_CODES = (402, 403, 502, 503, NOT_ALLOWED, NOT_IMPLEMENTED)


def retry_of(reason: ConnectionClosed) -> Retry:
    """What the end of a connection says about the next attempt."""
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
            # Half of the bound is certain, so that chance cannot make it hot.
            bound = min(LONGEST_SLOW, FIRST_SLOW_STEP * (1 << power))
            return bound * (1 + self._chance()) / 2
        if not attempt:
            return 0.0
        return min(LONGEST, FIRST_STEP * (1 << power)) * self._chance()

    def reset(self) -> None:
        """Begin a new series."""
        self.attempts = 0
