"""Futures that settle once, and awaitables that are followed to their end.

Everything here happens on the loop alone; no connection is checked here.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

import pytest

from evamqp.errors import RequestCancelled
from evamqp.testing.contract.rig import Contract, Rig


class _Work:
    """A coroutine that waits for one future, and notes how far it has come."""

    def __init__(self, future: Any) -> None:
        self._future = future
        self.steps: list[object] = []

    async def run(self) -> None:
        self.steps.append("begun")
        try:
            self.steps.append(await self._future)
        finally:
            self.steps.append("ended")


class _Followed:
    """An awaitable that runs, its ends, and whether one was reported inside a call."""

    def __init__(self, rig: Rig, awaitable: Any) -> None:
        self.ends: list[BaseException | None] = []
        self._is_inside = True
        self._handle = rig.adapter.run_awaitable(awaitable, self._done)
        self._is_inside = False

    def cancel(self) -> None:
        """Call it off."""
        self._is_inside = True
        self._handle.cancel()
        self._is_inside = False

    def _done(self, error: BaseException | None) -> None:
        assert not self._is_inside, "done() came from inside a call"
        self.ends.append(error)


class FuturesContract(Contract):
    """``create_future`` and ``run_awaitable()``."""

    def test_future_settles_once_with_a_value(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        assert promise.resolve(7)
        assert not promise.resolve(8)
        promise.reject(OSError("late"))
        assert self.outcome(promise.future) == 7

    def test_future_settles_once_with_an_exception(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        promise.reject(KeyError("first"))
        promise.reject(OSError("late"))
        promise.resolve(7)
        with pytest.raises(KeyError, match="first"):
            self.outcome(promise.future)

    def test_promise_reports_that_its_future_was_cancelled(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        promise.future.cancel()
        assert not promise.resolve(7)

    def test_promise_has_one_future(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        assert promise.future is promise.future
        promise.resolve(None)

    def test_followed_coroutine_runs_to_its_end(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        work = _Work(promise.future)
        followed = _Followed(rig, work.run())
        rig.until(lambda: work.steps == ["begun"])
        assert followed.ends == []
        promise.resolve(7)
        rig.until(lambda: followed.ends)
        assert work.steps == ["begun", 7, "ended"]
        assert followed.ends == [None]

    def test_followed_coroutine_reports_what_it_raises(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        followed = _Followed(rig, _Work(promise.future).run())
        promise.reject(KeyError("mine"))
        rig.until(lambda: followed.ends)
        assert isinstance(followed.ends[0], KeyError)

    def test_followed_future_reports_its_outcome(self, rig: Rig) -> None:
        promises = [rig.adapter.create_future() for _ in range(2)]
        value, error = (_Followed(rig, promise.future) for promise in promises)
        promises[0].resolve(7)
        promises[1].reject(OSError("mine"))
        rig.until(lambda: value.ends and error.ends)
        assert value.ends == [None]
        assert isinstance(error.ends[0], OSError)

    def test_followed_future_that_has_its_outcome_never_reports_it_from_inside(
        self, rig: Rig
    ) -> None:
        promises = [rig.adapter.create_future() for _ in range(2)]
        promises[0].resolve(7)
        promises[1].reject(OSError("mine"))
        value, error = (_Followed(rig, promise.future) for promise in promises)
        rig.until(lambda: value.ends and error.ends)
        assert value.ends == [None]
        assert isinstance(error.ends[0], OSError)

    def test_followed_coroutine_that_ends_at_once_never_reports_it_from_inside(
        self, rig: Rig
    ) -> None:
        async def nothing() -> None:
            """Ends before it waits for anything."""

        followed = _Followed(rig, nothing())
        rig.until(lambda: followed.ends)
        assert followed.ends == [None]

    def test_cancelled_coroutine_is_left_at_its_await_and_reported_once(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        work = _Work(promise.future)
        followed = _Followed(rig, work.run())
        rig.until(lambda: work.steps)
        followed.cancel()
        followed.cancel()
        rig.until(lambda: followed.ends)
        rig.wait(0)
        assert work.steps == ["begun", "ended"]
        assert len(followed.ends) == 1
        assert followed.ends[0] is not None

    def test_coroutine_cancelled_before_it_began_is_reported_once(self, rig: Rig) -> None:
        followed = _Followed(rig, _Work(rig.adapter.create_future().future).run())
        followed.cancel()
        rig.until(lambda: followed.ends)
        rig.wait(0)
        assert len(followed.ends) == 1
        assert followed.ends[0] is not None

    def test_coroutine_that_raises_when_cancelled_reports_that(self, rig: Rig) -> None:
        begun: list[bool] = []

        async def stubborn(future: Any) -> None:
            begun.append(True)
            try:
                await future
            finally:
                raise KeyError("mine")

        followed = _Followed(rig, stubborn(rig.adapter.create_future().future))
        rig.until(lambda: begun)
        followed.cancel()
        rig.until(lambda: followed.ends)
        assert isinstance(followed.ends[0], KeyError)

    def test_cancelled_future_is_reported_once(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        followed = _Followed(rig, promise.future)
        followed.cancel()
        rig.until(lambda: followed.ends)
        promise.resolve(7)
        rig.wait(0)
        assert len(followed.ends) == 1
        error = followed.ends[0]
        # A cancelled awaitable must not look like one that failed.
        assert isinstance(error, RequestCancelled) or not isinstance(error, (Exception, NoneType))

    def test_cancelling_what_has_ended_does_nothing(self, rig: Rig) -> None:
        promise = rig.adapter.create_future()
        followed = _Followed(rig, promise.future)
        promise.resolve(7)
        rig.until(lambda: followed.ends)
        followed.cancel()
        rig.wait(0)
        assert followed.ends == [None]

    def test_what_cannot_be_awaited_is_not_followed(self, rig: Rig) -> None:
        ends: list[BaseException | None] = []
        with pytest.raises((TypeError, ValueError)):
            rig.adapter.run_awaitable(object(), ends.append)
        rig.wait(0)
        assert ends == []
