"""What a handler returned and awaited, and whether that means success.

The loop runs it, and the consumer settles the message.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from evamqp.core.request import Request
from evamqp.errors import BadType
from evamqp.recovery.ledger import Outcome, Publication, observe_failures

if TYPE_CHECKING:
    from evamqp.core.channel import Message
    from evamqp.recovery.batch import Batch

# The message whose async handler runs in this context.
_handled: ContextVar[Message | Batch | None] = ContextVar("handled", default=None)

#: A handler may return several publishes or outcomes in these.
_SEVERAL = (list, tuple)
_FORWARD = (Publication, Outcome)


def message_at_work() -> Message | Batch | None:
    """The message, or batch, of the async handler that calls this; None outside of one."""
    return _handled.get()


class Work:
    """One handler's result.

    Args:
        message: What the handler handles.
        result: What it returned: an awaitable, a publish or its outcome, or a list or tuple of
            these; anything else is success.

    Raises:
        BadType: It returned a generator, of which nothing has run.
    """

    __slots__ = ("_failed", "_message", "_result")

    def __init__(self, message: Message | Batch, result: object) -> None:
        if isinstance(result, (Generator, AsyncGenerator)) and not isinstance(result, Awaitable):
            raise BadType("a handler returned a generator, of which nothing has run")
        self._message = message
        self._result = result  # of the awaitable, once it has one
        self._failed: list[Publication] = []  # the first one awaited and not confirmed

    @property
    def has_to_run(self) -> bool:
        """Whether there is something to await."""
        return isinstance(self._result, (Awaitable, *_SEVERAL))

    async def run(self) -> None:
        """Await what the handler returned, and the publishes in the result."""
        _handled.set(self._message)
        observe_failures(self._failed)
        if isinstance(self._result, Awaitable) and not isinstance(self._result, Request):
            self._result = await self._result
        for request in _items(self._result):
            if isinstance(request, Request):
                await request

    def discard(self) -> None:
        """It was cancelled, maybe before it began: then close the handler's coroutine."""
        if isinstance(self._result, Coroutine) and not isinstance(self._result, Request):
            self._result.close()

    @property
    def failed_forward(self) -> Publication | Outcome | None:
        """The publish, or outcome, that makes the handler a failure; None if there is none.

        The outcomes that a handler returned decide; if it returned none, those that it awaited.
        """
        returned = [item for item in _items(self._result) if isinstance(item, _FORWARD)]
        for item in returned or self._failed:
            outcome = item.outcome if isinstance(item, Publication) else item
            if outcome is not Outcome.CONFIRMED:
                return item
        return None


def _items(result: object) -> Sequence[object]:
    return result if isinstance(result, _SEVERAL) else (result,)
