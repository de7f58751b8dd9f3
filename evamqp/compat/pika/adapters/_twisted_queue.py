"""The queue in which a consumer's messages wait for whoever asks for them."""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

LOGGER = logging.getLogger(__name__)


class ClosableDeferredQueue(defer.DeferredQueue[Any]):
    """A DeferredQueue that can be closed: from then on it gives only the reason.

    Attributes:
        closed: The reason; None while it is open.
    """

    def __init__(self, size: int | None = None, backlog: int | None = None) -> None:
        super().__init__(size, backlog)
        self.closed: Any = None

    def put(self, obj: Any) -> Any:
        """Hand it to whoever waits, or keep it; a Deferred that fails if the queue is closed."""
        if self.closed is not None:
            LOGGER.error("Impossible to put to the queue, it is closed.")
            return defer.fail(self.closed)
        if self.waiting:
            self.waiting.pop(0).callback(obj)
            return None
        return super().put(obj)

    def get(self) -> defer.Deferred[Any]:
        """A Deferred of the next message; it fails with the reason if the queue is closed."""
        if self.closed is not None:
            return defer.fail(self.closed)
        if self.pending or self.backlog is not None:
            return super().get()
        deferred: defer.Deferred[Any] = defer.Deferred(self._cancelGet)
        self.waiting.append(deferred)
        return deferred

    def close(self, reason: BaseException | Failure | None) -> None:
        """Fail whoever waits, and drop what is kept."""
        if self.closed is not None:
            LOGGER.warning("Queue was already closed with reason: %s.", self.closed)
        self.closed = reason
        while self.waiting:
            self.waiting.pop().errback(reason)
        self.pending: list[Any] = []
