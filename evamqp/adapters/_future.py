"""``Result``: the future of the loops that have none of their own, and what runs a coroutine on it.

The select and the memory adapter share it.  No clock, no socket and no loop belongs here: a
Result is handed the ``call_soon`` of the loop that it lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from evamqp.abc import Callback, Handle
from evamqp.errors import BadType, RequestCancelled, WrongState

T = TypeVar("T")
CallSoon = Callable[[Callback], object]


class Result(Generic[T]):
    """A value that arrives later; it belongs to the loop's thread.

    ``await`` it in a coroutine given to the adapter's run_until(), or give it to run_until()
    itself.  A failure that nobody looks at is dropped without a word.
    """

    __slots__ = ("_call_soon", "_callbacks", "_done", "_exception", "_traceback", "_value")

    def __init__(self, call_soon: CallSoon) -> None:
        self._call_soon = call_soon
        self._callbacks: list[Callable[[Result[T]], object]] = []
        self._done = False
        self._value: T | None = None
        self._exception: BaseException | None = None
        self._traceback: TracebackType | None = None

    def __repr__(self) -> str:
        state = "failed" if self._exception is not None else "done" if self._done else "pending"
        return f"<Result {state}>"

    def done(self) -> bool:
        """Whether it has a value or an exception."""
        return self._done

    def result(self) -> T:
        """The value.

        Raises:
            WrongState: It is pending.
            BaseException: What it was rejected with.
        """
        if self.exception() is not None:
            # The traceback as it came: else each look would add the lookers before it.
            raise cast(BaseException, self._exception).with_traceback(self._traceback)
        return cast(T, self._value)

    def exception(self) -> BaseException | None:
        """The exception; None if it has a value.

        Raises:
            WrongState: It is pending.
        """
        if not self._done:
            raise WrongState("the Result is pending; hand it to run_until()")
        return self._exception

    def cancel(self) -> bool:
        """Settle it with RequestCancelled; False if it was settled before."""
        return self.settle(None, RequestCancelled("the Result was cancelled"))

    def add_done_callback(self, callback: Callable[[Result[T]], object]) -> None:
        """Call back with this Result, on a turn of the loop after it has settled."""
        if self._done:
            self._call_soon(lambda: callback(self))
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Result[T], None, T]:
        if not self._done:
            yield self
        return self.result()

    def settle(self, value: T | None, exc: BaseException | None) -> bool:
        """For its Promise: give it its outcome; False if it had one."""
        if self._done:
            return False
        self._done = True
        self._value = value
        self._exception = exc
        self._traceback = None if exc is None else exc.__traceback__
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.add_done_callback(callback)
        return True


class Promise:
    """The writing end of a Result."""

    __slots__ = ("future",)

    def __init__(self, call_soon: CallSoon) -> None:
        self.future: Result[Any] = Result(call_soon)

    def resolve(self, value: object) -> bool:
        return self.future.settle(value, None)

    def reject(self, exc: BaseException) -> None:
        self.future.settle(None, exc)


class CoroutineRunner(Generic[T]):
    """Takes a coroutine from one Result that it awaits to the next, beginning on the next turn.

    It has a context of its own, a copy of its maker's, as the tasks of other loops have.
    """

    __slots__ = ("_awaited", "_context", "_coroutine", "_is_closed", "result")

    def __init__(self, coroutine: Coroutine[Any, Any, T], call_soon: CallSoon) -> None:
        self.result: Result[T] = Result(call_soon)
        self._context = copy_context()
        self._coroutine = coroutine
        self._awaited: Result[Any] | None = None
        self._is_closed = False
        call_soon(self._step)

    def close(self) -> None:
        """Give it up unless it has ended; its ``finally`` blocks run now."""
        self._is_closed = True
        self._context.run(self._coroutine.close)
        if self._awaited is not None:
            self._awaited.cancel()  # as the tasks of other loops do

    def cancel(self) -> None:
        """Give it up, and settle its result: with RequestCancelled, or what it raises at that.

        Idempotent.
        """
        try:
            self.close()
        except (KeyboardInterrupt, SystemExit) as exc:
            self.result.settle(None, exc)
            raise
        except BaseException as exc:
            self.result.settle(None, exc)
        else:
            self.result.cancel()

    def _step(self) -> None:
        if not self._is_closed:
            self._run(lambda: self._coroutine.send(None))

    def _run(self, step: Callable[[], object]) -> None:
        try:
            awaited = self._context.run(step)
        except StopIteration as stop:
            self.result.settle(stop.value, None)
        except (KeyboardInterrupt, SystemExit) as exc:
            self.result.settle(None, exc)
            raise
        except BaseException as exc:
            self.result.settle(None, exc)
        else:
            self._wait_for(awaited)

    def _wait_for(self, awaited: object) -> None:
        if isinstance(awaited, Result):
            self._awaited = awaited
            awaited.add_done_callback(lambda _: self._step())
        else:
            foreign = BadType(f"run_until() cannot await {awaited!r}; it is of another loop")
            self._run(lambda: self._coroutine.throw(foreign))


def run_awaitable(
    awaitable: Any, done: Callable[[BaseException | None], object], call_soon: CallSoon
) -> Handle:
    """Run a coroutine, or wait for a Result or Request; then call ``done`` from the loop."""
    handle: Handle
    if isinstance(awaitable, Coroutine):
        handle = drive = CoroutineRunner(awaitable, call_soon)
        result = drive.result
    else:
        handle = result = result_of(awaitable)
    result.add_done_callback(lambda result: done(result.exception()))
    return handle


def result_of(awaited: object) -> Result[Any]:
    """The Result itself, or that of a Request.

    Raises:
        BadType: It is neither.
    """
    result = awaited if isinstance(awaited, Result) else getattr(awaited, "future", None)
    if not isinstance(result, Result):
        kind = type(awaited).__name__
        raise BadType(f"run_until() takes a Request, a Result or a coroutine, not {kind}")
    return result
