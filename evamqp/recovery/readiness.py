"""Who waits until a client is ready, and what was last in the way.

Whether it is ready is the client's business.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from evamqp.checks import flag
from evamqp.core.request import Request
from evamqp.errors import RESOURCE_LOCKED, AmqpError, ConnectionClosed, NotReady
from evamqp.recovery.backoff import retry_of
from evamqp.recovery.loop_bound import LoopHost, cancel_all, checked_timeout

if TYPE_CHECKING:
    from evamqp.abc import Handle
    from evamqp.types import Callback, ErrorCallback


class Wait(Request[None]):
    """One wait_ready()."""

    __slots__ = ("fail_fast", "timer")

    fail_fast: bool
    timer: Handle | None


class Readiness:
    """The waits of one client.

    Args:
        host: The client's.
        check: Whether the client is ready now.

    Attributes:
        last_error: Why it last was not; None if nothing has failed since it was ready.
        latest_error: The same, but kept when it is ready again.
        since: When it last became ready, or ceased to be; the loop's time.
    """

    __slots__ = (
        "_check",
        "_end",
        "_host",
        "_is_up",
        "_waits",
        "last_error",
        "latest_error",
        "since",
    )

    def __init__(self, host: LoopHost, check: Callable[[], bool]) -> None:
        self._host = host
        self._check = check
        self._waits: list[Wait] = []
        self._end: AmqpError | None = None
        self.last_error: AmqpError | None = None
        self.latest_error: AmqpError | None = None
        self.since = host.adapter.time()
        self._is_up = False

    def _turn(self, is_up: bool) -> None:
        if is_up is not self._is_up:
            self._is_up = is_up
            self.since = self._host.adapter.time()

    def wait(
        self,
        what: str,
        timeout: float | None,
        *,
        fail_fast: bool,
        callback: Callback[None] | None,
        on_error: ErrorCallback | None,
    ) -> Request[None]:
        """Return a request that succeeds once the client is ready; see ``Publisher.wait_ready``."""
        self._host.check_caller(what)
        timeout = checked_timeout(timeout)
        flag(f"{what}: fail_fast", fail_fast)
        wait = Wait(self._host, what, callback=callback, on_error=on_error)
        wait.fail_fast = fail_fast
        wait.timer = None
        if self._end is None and self._check():
            self._host.defer(wait.resolve, None)
            return wait
        self._waits.append(wait)
        if self._end is not None:
            self._host.defer(self._fail, wait, "it has ended")
        elif fail_fast and self.last_error is not None and not may_pass(self.last_error):
            self._host.defer(self._fail, wait, "trying again does not help")
        elif timeout is not None:
            expire = partial(self._fail, wait, f"not ready in {timeout:g} seconds")
            wait.timer = self._host.adapter.call_later(timeout, expire)
        return wait

    def ready(self) -> None:
        """The client is ready: resolve every wait."""
        self.last_error = None
        self._turn(True)
        waits, self._waits = self._waits, []
        for wait in waits:
            cancel_all(wait.timer)
            wait.resolve(None)

    def failed(self, error: AmqpError) -> None:
        """Something is in the way of becoming ready; the client goes on trying."""
        if self._end is not None:
            return
        self.last_error = self.latest_error = error
        self._turn(False)
        if not may_pass(error):
            for wait in [wait for wait in self._waits if wait.fail_fast]:
                self._fail(wait, "trying again does not help")

    def end(self, reason: AmqpError) -> None:
        """The client will never be ready again.  Idempotent."""
        if self._end is None:
            self._end = self.last_error = reason
            self._turn(False)
            for wait in list(self._waits):
                self._fail(wait, "it has ended")

    def _fail(self, wait: Wait, why: str) -> None:
        if wait not in self._waits:
            return
        self._waits.remove(wait)
        cancel_all(wait.timer)
        cause = self.last_error
        because = "" if cause is None else f"; the last error was {type(cause).__name__}: {cause}"
        error = NotReady(f"{wait}: {why}{because}")
        error.__cause__ = cause
        wait.fail(error)


def may_pass(error: AmqpError) -> bool:
    """Whether the same attempt may succeed in a while, with nothing changed."""
    if isinstance(error, ConnectionClosed):
        return retry_of(error) == "soon"
    # A channel's end over a declaration: only an exclusive queue of a connection that is going away
    # becomes free.
    return getattr(error, "code", None) in (None, RESOURCE_LOCKED)
