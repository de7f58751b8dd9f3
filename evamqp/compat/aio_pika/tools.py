"""What channels, queues and programs share: collections of callbacks, and calls that act at once.

No AMQP lives here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, MutableSet
from itertools import chain
from typing import Any, Generic, TypeVar
from weakref import ReferenceType, WeakSet, ref

from evamqp.compat.aio_pika.log import get_logger

log: logging.Logger = get_logger(__name__)

S = TypeVar("S")
T = TypeVar("T")


class Act(Coroutine[Any, Any, T]):
    """A call that acts at once, and may be awaited for what came of it.

    It passes for a coroutine, so that it goes wherever one does: ``create_task``, ``gather``.  Not
    awaiting it is no fault.
    """

    __slots__ = ("_iterator",)

    _iterator: Any

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for what came of it."""

    def send(self, value: object) -> Any:
        try:
            iterator = self._iterator
        except AttributeError:
            iterator = self._iterator = self.__await__()
        return next(iterator)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        error = kind if value is None else value
        throw = getattr(getattr(self, "_iterator", None), "throw", None)
        if throw is None:
            raise error
        return throw(error)

    def close(self) -> None:
        """What was done stays done."""


class Done(Act[T]):
    """A call whose value is known."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, T]:
        yield from ()
        return self._value


class _Nothing(Act[None]):
    """A call that has been done and says nothing; one serves them all, so it keeps no iterator."""

    __slots__ = ()

    def __await__(self) -> Any:
        return iter(())

    def send(self, value: object) -> Any:
        raise StopIteration


#: A call that has been done and says nothing.
DONE: Coroutine[Any, Any, None] = _Nothing()


class Waiting(Act[T]):
    """A call that is done; awaiting it waits for something else as well.

    Args:
        wait: Gives what is waited for, when somebody waits.
    """

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Awaitable[T]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()


class CallbackCollection(MutableSet[Any], Generic[S]):
    """Callbacks ``(sender, ...)``, called in one go; plain functions or coroutine functions.

    Args:
        sender: Their first argument; held weakly.
    """

    __slots__ = ("__weakref__", "_callbacks", "_is_frozen", "_sender", "_weak")

    def __init__(self, sender: S | ReferenceType[S]) -> None:
        self._sender: ReferenceType[S] = (
            sender if isinstance(sender, ReferenceType) else ref(sender)
        )
        self._callbacks: set[Any] = set()
        self._weak: WeakSet[Any] = WeakSet()
        self._is_frozen = False

    def add(self, callback: Any, weak: bool = False) -> None:
        """Add a callback, or another collection.

        Args:
            weak: Do not keep it alive.

        Raises:
            ValueError: It is not callable.
            RuntimeError: The collection is frozen.
        """
        self._check()
        if not callable(callback):
            raise ValueError("Callback is not callable")
        kept: Any = (
            self._weak if weak or isinstance(callback, CallbackCollection) else self._callbacks
        )
        kept.add(callback)

    def remove(self, callback: Any) -> None:
        """Take a callback out.

        Raises:
            KeyError: It is not here.
        """
        if callback not in self:
            raise KeyError(callback)
        self.discard(callback)

    def discard(self, callback: Any) -> None:
        self._check()
        self._callbacks.discard(callback)
        self._weak.discard(callback)

    def clear(self) -> None:
        self._check()
        self._callbacks.clear()
        self._weak.clear()

    def _check(self) -> None:
        if self._is_frozen:
            raise RuntimeError("Collection frozen")

    @property
    def is_frozen(self) -> bool:
        return self._is_frozen

    def freeze(self) -> None:
        """Let nobody change it."""
        self._check()
        self._is_frozen = True

    def unfreeze(self) -> None:
        if not self._is_frozen:
            raise RuntimeError("Collection is not frozen")
        self._is_frozen = False

    def __contains__(self, callback: object) -> bool:
        return callback in self._callbacks or callback in self._weak

    def __iter__(self) -> Iterator[Any]:
        return chain(self._callbacks, self._weak)

    def __len__(self) -> int:
        return len(self._callbacks) + len(self._weak)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __copy__(self) -> CallbackCollection[S]:
        twin: CallbackCollection[S] = CallbackCollection(self._sender)
        twin._callbacks.update(self._callbacks)
        twin._weak.update(self._weak)
        twin._is_frozen = self._is_frozen
        return twin

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call them all; awaiting the result waits for those that are coroutines.

        One that raises is logged, and the others are called.
        """
        sender = self._sender()
        waiting = []
        for callback in tuple(self):
            try:
                if isinstance(callback, CallbackCollection):
                    result = callback(*args, **kwargs)
                    if result is DONE:
                        continue
                else:
                    result = callback(sender, *args, **kwargs)
                if inspect.isawaitable(result):
                    waiting.append(asyncio.ensure_future(_reported(callback, result)))
            except Exception:
                log.exception("callback %r raised", callback)
        if not waiting:
            return DONE
        return asyncio.gather(*waiting, return_exceptions=True)


async def _reported(callback: object, result: Awaitable[T]) -> T | None:
    try:
        return await result
    except Exception:
        log.exception("callback %r raised", callback)
        return None


def create_task(
    func: Callable[..., Any],
    *args: Any,
    loop: asyncio.AbstractEventLoop | None = None,
    **kwargs: Any,
) -> asyncio.Future[Any]:
    """Call a function, plain or not, on the next turn of the loop."""
    return (loop or asyncio.get_event_loop()).create_task(ensure_awaitable(func)(*args, **kwargs))


def ensure_awaitable(func: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A coroutine function that does what ``func`` does, be it plain, partial or async."""
    if inspect.iscoroutinefunction(func):
        return func

    async def call(*args: Any, **kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return call


def iscoroutinepartial(fn: Callable[..., Any]) -> bool:
    """Whether it is a coroutine function, or a partial of one."""
    return inspect.iscoroutinefunction(fn)


async def within(timeout: float | None, awaitable: Awaitable[T]) -> T:
    """Await something for so many seconds; None means for ever.

    Raises:
        asyncio.TimeoutError: It took longer.
    """
    return await (awaitable if timeout is None else asyncio.wait_for(awaitable, timeout))


__all__ = [
    "CallbackCollection",
    "create_task",
    "ensure_awaitable",
    "iscoroutinepartial",
]
