"""``async with`` for what has a close() that waits for what is under way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from evamqp.core.coroutines import is_interruption

if TYPE_CHECKING:
    from types import TracebackType

    from evamqp.core.request import Request

S = TypeVar("S", bound="ClosedAtExit")

# Seconds after the timeout of a close in which the broker may answer connection.close.
CLOSE_GRACE = 0.5
# Seconds that close() may take when the block of an ``async with`` raised.
CLOSE_AFTER_ERROR = 5.0


class ClosedAtExit(ABC):
    """Something that ``async with`` closes at the end of its block.

    The block begins at once, whether there is a connection or not.  Its end waits for what is under
    way, as close() does; for 5 seconds at most if the block raised, not at all if it was cancelled.
    """

    @abstractmethod
    def _close_within(self, timeout: float | None) -> Request[Any]:
        """Close it, within seconds; None means however long it takes."""

    async def __aenter__(self: S) -> S:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self._close_within(None)
        elif kind is GeneratorExit:  # a coroutine that is closed may not wait
            self._close_within(0)
        else:
            await self._close_within(0 if is_interruption(error) else CLOSE_AFTER_ERROR)
