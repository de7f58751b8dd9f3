"""``async with`` for a connection and for a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from evamqp.core.request import Request


class Openable(Protocol):
    """What a block waits for and closes."""

    def wait_open(self) -> Request[None]: ...
    def close(self) -> Request[Any]: ...


S = TypeVar("S", bound=Openable)


class AsyncBlock:
    """The ``async with`` of an Openable: it waits at its begin, and closes at its end."""

    __slots__ = ()

    async def __aenter__(self: S) -> S:
        """Wait until it is open."""
        try:
            await self.wait_open()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self: Openable,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it, and wait for that."""
        closing = self.close()
        if kind is not GeneratorExit:  # a coroutine that is closed may not wait
            await closing
