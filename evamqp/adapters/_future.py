"""Futures: ``Result`` for the loops that have none of their own, and the writing end of any.

A CoroutineRunner runs a coroutine on Results.  No clock, no socket and no loop belongs here: a
Result takes the ``call_soon`` of its loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

from evamqp.abc import Handle, LoopCallback
from evamqp.errors import BadType, RequestCancelled, WrongState

T = TypeVar("T")
CallSoon = Callable[[LoopCallback], object]


class Result(Generic[T]):
    """A value that arrives later; it belongs to the loop's thread.

    ``await`` it in a coroutine that you pass to the adapter's run_until(), or pass it to
    run_until() itself.  A failure that is never retrieved is dropped without a log record.
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
            BaseException: Its error.
        """
        if self.exception() is not None:
            # The original traceback: otherwise each retrieval would extend it.
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
        """Settle it with RequestCancelled; False if it is done already."""
        if self._done:
            return False
        self._settle(None, RequestCancelled("the Result was cancelled"))
        return True

    def add_done_callback(self, callback: Callable[[Result[T]], object]) -> None:
        """Call back with this Result, on a turn of the loop after it is done."""
        if self._done:
            self._call_soon(lambda: callback(self))
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Result[T], None, T]:
        if not self._done:
            yield self
        return self.result()

    def set_result(self, value: T) -> None:
        """Give it its value; it must be pending.  Reserved for its Promise."""
        self._settle(value, None)

    def set_exception(self, exc: BaseException) -> None:
        """Give it its error; it must be pending.  Reserved for its Promise."""
        self._settle(None, exc)

    def _settle(self, value: T | None, exc: BaseException | None) -> None:
        self._done = True
        self._value = value
        self._exception = exc
        self._traceback = None if exc is None else exc.__traceback__
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.add_done_callback(callback)


class Future(Protocol):
    """What a Promise needs of a future; asyncio's has it too."""

    def done(self) -> bool: ...
    def set_result(self, value: Any, /) -> object: ...
    def set_exception(self, exc: BaseException, /) -> object: ...
    def exception(self) -> BaseException | None: ...


F = TypeVar("F", bound=Future)


class Promise(Generic[F]):
    """The writing end of a Result or an ``asyncio.Future``."""

    __slots__ = ("future",)

    def __init__(self, future: F) -> None:
        self.future: F = future

    def resolve(self, value: object) -> bool:
        """See ``evamqp.abc.Promise``."""
        if self.future.done():
            return False
        self.future.set_result(value)
        return True

    def reject(self, exc: BaseException) -> None:
        """See ``evamqp.abc.Promise``."""
        if not self.future.done():
            self.future.set_exception(exc)
            self.future.exception()  # retrieved, so that asyncio does not log an unused failure


class CoroutineRunner(Generic[T]):
    """Runs a coroutine from one awaited Result to the next, beginning on the next turn.

    It runs in a copy of its creator's context, as the tasks of other loops do.
    """

    __slots__ = ("_awaited", "_context", "_coroutine", "_is_closed", "_promise", "result")

    def __init__(self, coroutine: Coroutine[Any, Any, T], call_soon: CallSoon) -> None:
        self.result: Result[T] = Result(call_soon)
        self._promise = Promise(self.result)
        self._context = copy_context()
        self._coroutine = coroutine
        self._awaited: Result[Any] | None = None
        self._is_closed = False
        call_soon(self._step)

    def close(self) -> None:
        """Close the coroutine unless it has ended; its ``finally`` blocks run now."""
        self._is_closed = True
        self._context.run(self._coroutine.close)
        if self._awaited is not None:
            self._awaited.cancel()  # as other loops' tasks do

    def cancel(self) -> None:
        """Close the coroutine; its result gets RequestCancelled, or what the close raises.

        Idempotent.
        """
        try:
            self.close()
        except (KeyboardInterrupt, SystemExit) as exc:
            self._promise.reject(exc)
            raise
        except BaseException as exc:
            self._promise.reject(exc)
        else:
            self.result.cancel()

    def interrupt(self, error: BaseException) -> bool:
        """Raise an error in the coroutine where it waits; whether it has yet to end."""
        awaited, self._awaited = self._awaited, None
        if awaited is None or self.result.done():
            return False
        self._run(lambda: self._coroutine.throw(error))
        awaited.cancel()
        return not self.result.done()

    def _step(self) -> None:
        if not self._is_closed:
            self._run(lambda: self._coroutine.send(None))

    def _run(self, step: Callable[[], object]) -> None:
        try:
            awaited = self._context.run(step)
        except StopIteration as stop:
            self._promise.resolve(stop.value)
        except (KeyboardInterrupt, SystemExit) as exc:
            self._promise.reject(exc)
            raise
        except BaseException as exc:
            self._promise.reject(exc)
        else:
            self._wait_for(awaited)

    def _resume(self, awaited: Result[Any]) -> None:
        if awaited is self._awaited:  # or it was interrupted
            self._step()

    def _wait_for(self, awaited: object) -> None:
        if isinstance(awaited, Result):
            self._awaited = awaited
            awaited.add_done_callback(self._resume)
        else:
            foreign = BadType(f"run_until() cannot await {awaited!r}; it belongs to another loop")
            self._run(lambda: self._coroutine.throw(foreign))


def run_awaitable(
    awaitable: Any, done: Callable[[BaseException | None], object], call_soon: CallSoon
) -> Handle:
    """Run a coroutine, or wait for a Result or Request; then call ``done`` from the loop."""
    handle: Handle
    if isinstance(awaitable, Coroutine):
        handle = runner = CoroutineRunner(awaitable, call_soon)
        result = runner.result
    else:
        handle = result = result_of(awaitable)
    result.add_done_callback(lambda result: done(result.exception()))
    return handle


@contextmanager
def started(
    awaited: Awaitable[T], call_soon: CallSoon, finish: Callable[[Result[T]], object]
) -> Iterator[Result[T]]:
    """Start what run_until() was given; yield its Result, and close a coroutine at the end.

    On KeyboardInterrupt a coroutine gets it where it waits; ``finish`` runs the loop until it ends.
    """
    if not isinstance(awaited, Coroutine):
        yield result_of(awaited)
        return
    runner: CoroutineRunner[T] = CoroutineRunner(awaited, call_soon)
    try:
        yield runner.result
    except KeyboardInterrupt as interrupt:
        if runner.interrupt(interrupt):
            finish(runner.result)
        raise
    finally:
        runner.close()


def result_of(awaited: object) -> Result[Any]:
    """Return the Result itself, or the one of a Request.

    Raises:
        BadType: ``awaited`` is neither.
    """
    result = awaited if isinstance(awaited, Result) else getattr(awaited, "future", None)
    if not isinstance(result, Result):
        kind = type(awaited).__name__
        raise BadType(f"run_until() takes a Request, a Result or a coroutine, not {kind}")
    return result
