"""Messages that one call of a handler gets together.

It only collects; the consumer settles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from evamqp.errors import BadArgument, BadType
from evamqp.recovery.loop_bound import cancel_all, checked_timeout

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel, Message

#: What one call of a handler is about.
Unit: TypeAlias = "Message | Batch"


class Batch:
    """Several messages of one channel, settled as one where the handler has not settled them.

    Args:
        messages: At least one.
    """

    __slots__ = ("messages",)

    def __init__(self, messages: list[Message]) -> None:
        self.messages: list[Message] = messages

    def __repr__(self) -> str:
        return f"<Batch of {len(self.messages)}, the first {self.messages[0]!r}>"

    @property
    def channel(self) -> Channel:
        """The channel that all of them came on."""
        return self.messages[0].channel

    @property
    def unsettled(self) -> list[Message]:
        """Those that nobody has settled."""
        return [message for message in self.messages if not message.is_settled]

    @property
    def is_settled(self) -> bool:
        """Whether none is left to be settled."""
        return not self.unsettled

    def ack(self) -> None:
        """Acknowledge what is left."""
        for message in self.unsettled:
            message.ack()

    def nack(self) -> None:
        """Return to the queue what is left."""
        for message in self.unsettled:
            message.nack()

    def reject(self, requeue: bool = True) -> None:
        """Refuse what is left."""
        for message in self.unsettled:
            message.reject(requeue)


class Collector:
    """Collects messages until a batch is full, or has waited long enough.

    Args:
        adapter: The loop.
        size: Messages of a full batch.
        wait: Seconds from the first message until a batch goes as it is.
        on_batch: Called with each batch.
    """

    __slots__ = ("_adapter", "_messages", "_on_batch", "_timer", "_wait", "size")

    def __init__(
        self, adapter: Adapter, size: int, wait: float, on_batch: Callable[[Batch], object]
    ) -> None:
        self._adapter = adapter
        self.size: int = size
        self._wait = wait
        self._on_batch = on_batch
        self._messages: list[Message] = []
        self._timer: Handle | None = None

    def __len__(self) -> int:
        """Messages collected and not handed over."""
        return len(self._messages)

    def add(self, message: Message) -> None:
        """Collect a message."""
        self._messages.append(message)
        if len(self._messages) == self.size:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._adapter.call_later(self._wait, self._hand_over)

    def take(self) -> list[Message]:
        """Return what is collected, and begin anew."""
        cancel_all(self._timer)
        self._timer = None
        messages, self._messages = self._messages, []
        return messages

    def _hand_over(self) -> None:
        self._on_batch(Batch(self.take()))


def check_batch(batch: int | None, wait: float, prefetch: int) -> None:
    """Check a consumer's options.

    Raises:
        BadType: Not numbers.
        BadArgument: A batch never gets full with this prefetch, or waits for ever.
    """
    if batch is not None:
        if isinstance(batch, bool) or not isinstance(batch, int):
            raise BadType(f"batch must be int, not {type(batch).__name__}")
        if not 1 <= batch <= prefetch:
            raise BadArgument(f"batch must be 1..prefetch ({prefetch}), not {batch}")
    if checked_timeout(wait) is None or not 0 <= wait < math.inf:
        raise BadArgument(f"batch_wait must be seconds, 0 or more, not {wait}")


def size_of(unit: Unit) -> int:
    """How many messages it is."""
    return len(unit.messages) if isinstance(unit, Batch) else 1


def count_of(units: Iterable[Unit]) -> int:
    """How many messages they are."""
    return sum(map(size_of, units))


def messages_of(unit: Unit) -> Iterable[Message]:
    """Its messages."""
    return unit.messages if isinstance(unit, Batch) else (unit,)


def unsettled_of(unit: Unit) -> list[Message]:
    """Those of its messages that nobody has settled."""
    return unit.unsettled if isinstance(unit, Batch) else [unit]
