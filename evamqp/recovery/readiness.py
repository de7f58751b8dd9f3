"""Waits for a client to become ready, the last obstacle, and the client's health.

The client itself decides whether it is ready.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from evamqp.checks import flag
from evamqp.core.request import Request
from evamqp.errors import RESOURCE_LOCKED, AmqpError, ConnectionClosed, NotReady
from evamqp.recovery.backoff import retry_of
from evamqp.recovery.closed_at_exit import ClosedAtExit
from evamqp.recovery.health import Health, HealthState
from evamqp.recovery.loop_bound import LoopBound, LoopHost, cancel_all, checked_timeout

if TYPE_CHECKING:
    from evamqp.abc import Handle
    from evamqp.core.connection import Connection
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
        last_error: The last error that kept it from being ready, also once it is ready again.
        since: When it last became ready, or ceased to be; the loop's time.
    """

    __slots__ = (
        "_check",
        "_end",
        "_host",
        "_is_up",
        "_waits",
        "last_error",
        "since",
    )

    def __init__(self, host: LoopHost, check: Callable[[], bool]) -> None:
        self._host = host
        self._check = check
        self._waits: list[Wait] = []
        self._end: AmqpError | None = None
        self.last_error: AmqpError | None = None
        self.since: float = host.adapter.time()
        self._is_up = False

    @property
    def _obstacle(self) -> AmqpError | None:
        """Why it is not ready; None if it is, or if nothing has failed yet."""
        return self._end or (None if self._is_up else self.last_error)

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
        elif fail_fast and self._obstacle is not None and not may_pass(self._obstacle):
            self._host.defer(self._fail, wait, "trying again does not help")
        elif timeout is not None:
            expire = partial(self._fail, wait, f"not ready in {timeout:g} seconds")
            wait.timer = self._host.adapter.call_later(timeout, expire)
        return wait

    def ready(self) -> None:
        """The client is ready: resolve every wait."""
        self._turn(True)
        waits, self._waits = self._waits, []
        for wait in waits:
            cancel_all(wait.timer)
            wait.resolve(None)

    def failed(self, error: AmqpError) -> None:
        """Something is in the way of becoming ready; the client goes on trying."""
        if self._end is not None:
            return
        self.last_error = error
        self._turn(False)
        if not may_pass(error):
            for wait in [wait for wait in self._waits if wait.fail_fast]:
                self._fail(wait, "trying again does not help")

    def end(self, reason: AmqpError) -> None:
        """The client will never be ready again.  Idempotent."""
        if self._end is None:
            self._end = reason
            self._turn(False)
            for wait in list(self._waits):
                self._fail(wait, "it has ended")

    def _fail(self, wait: Wait, why: str) -> None:
        if wait not in self._waits:
            return
        self._waits.remove(wait)
        cancel_all(wait.timer)
        cause = self._obstacle
        because = "" if cause is None else f"; the last error was {type(cause).__name__}: {cause}"
        error = NotReady(f"{wait}: {why}{because}")
        error.__cause__ = cause
        wait.fail(error)


class CanBeReady(LoopBound, ClosedAtExit):
    """Something that becomes ready, ceases to be and becomes so again."""

    def __init__(self, host: LoopHost) -> None:
        super().__init__(host)
        self._readiness = Readiness(host, partial(_is_ready, ref(self)))

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it is served now."""

    @property
    @abstractmethod
    def _current(self) -> Connection | None:
        """Its connection; None between two."""

    @property
    @abstractmethod
    def _health_state(self) -> HealthState:
        """How it is doing, in a word."""

    def wait_ready(
        self,
        timeout: float | None = None,
        *,
        fail_fast: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Wait until it is ready; optional, for it may be used at any time.

        A Reconnector is ready once it is connected and its topology is declared, a Publisher once
        its topology is declared and its channel confirms publishes, a Consumer once it consumes, an
        RpcClient once it gets replies.

        Args:
            timeout: Seconds; None waits until it is ready or has ended.
            fail_fast: Fail at the first error that a retry does not cure: credentials or a
                virtual host that the broker refuses, an entity that conflicts with its own.
            callback: Called with None once it is ready.
            on_error: Called with the NotReady.

        Returns:
            A request that fails with NotReady, whose ``__cause__`` is the last obstacle.
            The client itself goes on trying; close it if you give up.

        Raises:
            BadArgument, BadType: The timeout is not a number, or fail_fast no bool.
            WrongThread: Not the thread of the loop.
        """
        return self._readiness.wait(
            f"{type(self).__name__}.wait_ready",
            timeout,
            fail_fast=fail_fast,
            callback=callback,
            on_error=on_error,
        )

    def health(self) -> Health:
        """Return how it is doing now."""
        connection = self._current
        return Health(
            self._health_state,
            self.adapter.time() - self._readiness.since,
            self._readiness.last_error,
            silence=None if connection is None else connection.silence,
        )


def _is_ready(client: ref[CanBeReady]) -> bool:
    alive = client()
    return alive is not None and alive.is_ready


def may_pass(error: AmqpError) -> bool:
    """Whether the same attempt may succeed in a while, with nothing changed."""
    if isinstance(error, ConnectionClosed):
        return retry_of(error) == "soon"
    # A channel's end over a declaration: only an exclusive queue of a connection that is going away
    # becomes free.
    return getattr(error, "code", None) in (None, RESOURCE_LOCKED)
