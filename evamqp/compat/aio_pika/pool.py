"""Pool: connections or channels that tasks share, one at a time each."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from evamqp.compat.aio_pika.log import get_logger

log: logging.Logger = get_logger(__name__)


class PoolInstance(Protocol):
    """What a pool holds: something to be closed."""

    def close(self) -> Awaitable[None]: ...


T = TypeVar("T", bound=PoolInstance)
ConstructorType = Callable[..., Awaitable[Any]]


class PoolInvalidStateError(RuntimeError):
    """The pool is closed."""


class Pool(Generic[T]):
    """Makes things as they are wanted, and lends each to one task at a time.

    Args:
        constructor: A coroutine function that makes one.
        args: Its arguments.
        max_size: How many there may be; None means any number.
        loop: Means nothing but the loop that runs.
    """

    def __init__(
        self,
        constructor: Callable[..., Awaitable[T]],
        *args: Any,
        max_size: int | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop or asyncio.get_running_loop()
        self._constructor = constructor
        self._arguments = args
        self._max_size = max_size
        self._all: list[T] = []
        self._free: deque[T] = deque()
        self._making = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def acquire(self) -> PoolItemContextManager[T]:
        """For ``async with``: something to use within the block.

        Raises:
            PoolInvalidStateError: The pool is closed.
        """
        self._check("acquire")
        return PoolItemContextManager(self)

    def _check(self, what: str) -> None:
        if self._is_closed:
            raise PoolInvalidStateError(f"{what} operation on closed pool")

    async def get(self) -> T:
        """Take one, when there is one."""
        while True:
            self._check("get")
            if self._free:
                return self._free.popleft()
            if not self._max_size or len(self._all) + self._making < self._max_size:
                return await self._make()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # it was somebody's turn, and is not lost with us
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def _make(self) -> T:
        self._making += 1
        try:
            item = await self._constructor(*self._arguments)
        except BaseException:
            self._wake_one()
            raise
        finally:
            self._making -= 1
        if self._is_closed:
            await item.close()
            self._check("create item")
        self._all.append(item)
        return item

    def put(self, item: T) -> None:
        """Give one back."""
        self._check("put")
        self._free.append(item)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def close(self) -> None:
        """Close all that was made; who waits gets PoolInvalidStateError.  Idempotent."""
        self._is_closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        items, self._all = self._all, []
        self._free.clear()
        for result in await asyncio.gather(
            *(item.close() for item in items), return_exceptions=True
        ):
            if isinstance(result, Exception):
                log.warning("closing what a pool held failed: %r", result)

    async def __aenter__(self) -> Pool[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class PoolItemContextManager(Generic[T]):
    """Takes one of a pool's, and gives it back."""

    __slots__ = ("item", "pool")

    def __init__(self, pool: Pool[T]) -> None:
        self.pool: Pool[T] = pool
        self.item: T

    async def __aenter__(self) -> T:
        self.item = await self.pool.get()
        return self.item

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.pool.is_closed:
            self.pool.put(self.item)


__all__ = ["Pool", "PoolInstance", "PoolInvalidStateError", "PoolItemContextManager"]
