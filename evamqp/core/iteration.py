"""Messages for ``async for``: one consumer for each loop over ``channel.messages()``.

What a channel is asked and what it calls back is ``channel.py`` and ``channel_machine.py``.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from evamqp.core.message import Delivery
from evamqp.errors import (
    RESOURCE_ERROR,
    AmqpError,
    ChannelClosed,
    ConnectionClosed,
    ConsumerCancelled,
    OutputFull,
    WrongState,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from evamqp.abc import Promise
    from evamqp.core.callbacks import CallbackDispatcher
    from evamqp.core.request import ConsumerTag

# So many times ``prefetch`` may wait here before the broker counts as one that ignores it.
EXCESS = 2
# Seconds before a consumer that could not be cancelled, since the output was full, is again.
CANCEL_DELAY = 0.1

M = TypeVar("M", bound=Delivery)


class ConsumingConnection(Protocol):
    """What an inbox needs of its channel's connection."""

    @property
    def reason(self) -> ConnectionClosed | None: ...
    def call_soon_threadsafe(self, function: Callable[[], object]) -> None: ...


class ConsumingChannel(Protocol):
    """What an inbox needs of its channel."""

    @property
    def connection(self) -> ConsumingConnection: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def reason(self) -> ChannelClosed | None: ...
    def basic_cancel(self, consumer_tag: str) -> object: ...
    def close(self, code: int, text: str) -> object: ...


class Messages(Generic[M]):
    """What ``channel.messages()`` returns: each ``async for`` over it is a consumer of its own.

    Leaving the loop ends the consumer.  With ``async with`` leaving the block does, and waits for
    the broker's answer.
    """

    __slots__ = ("_entered", "_start")

    def __init__(self, start: Callable[[], MessageIterator[M]]) -> None:
        self._start = start
        self._entered: list[MessageIterator[M]] = []

    def __aiter__(self) -> MessageIterator[M]:
        return self._start()

    async def __aenter__(self) -> MessageIterator[M]:
        iterator = self._start()
        self._entered.append(iterator)
        return iterator

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        iterator = self._entered.pop()
        if kind is GeneratorExit:  # a coroutine that is closed may not wait
            iterator.cancel()
        else:
            await iterator.aclose()


class MessageIterator(Generic[M]):
    """The messages of one consumer, in order.  ``Channel.messages()`` makes it.

    It ends when the consumer, the channel or the connection is closed from this side, and raises
    the reason if they end otherwise: NotExecuted (the broker refused the consumer),
    ConsumerCancelled, ChannelClosed or ConnectionClosed.  Messages that nobody has taken by then
    are the broker's again.  A cancelled wait takes no message.  One that is dropped ends its
    consumer.
    """

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Inbox[M]) -> None:
        self._inbox = inbox

    def __aiter__(self) -> MessageIterator[M]:
        return self

    async def __anext__(self) -> M:
        inbox = self._inbox
        while not inbox.has_message:
            await inbox.wait()
        return inbox.take()

    @property
    def consumer_tag(self) -> ConsumerTag:
        """The consumer's tag."""
        return self._inbox.tag

    def cancel(self) -> None:
        """End the consumer, and give back what nobody has taken.  Idempotent.

        Raises:
            WrongThread: Not the thread that owns the connection.
        """
        self._inbox.callbacks.check_caller("MessageIterator.cancel")
        self._inbox.cancel()

    async def aclose(self) -> None:
        """cancel(), and wait until the broker has ended the consumer."""
        self.cancel()
        while not self._inbox.has_ended:
            await self._inbox.wait_event()

    def __del__(self) -> None:
        inbox = self._inbox
        # Perhaps in another thread, or inside the core: so from the loop, if there still is one.
        if not inbox.is_over and not inbox.callbacks.is_forked:
            with suppress(RuntimeError):
                inbox.channel.connection.call_soon_threadsafe(inbox.cancel)


class Inbox(Generic[M]):
    """A consumer's messages that nobody has taken yet, and those who wait for them."""

    __slots__ = (
        "_has_cancelled",
        "_messages",
        "_prefetch",
        "_promises",
        "_reason",
        "callbacks",
        "channel",
        "has_ended",
        "is_over",
        "tag",
    )

    tag: ConsumerTag

    def __init__(
        self, channel: ConsumingChannel, callbacks: CallbackDispatcher, prefetch: int
    ) -> None:
        self.channel: ConsumingChannel = channel
        self.callbacks: CallbackDispatcher = callbacks
        self.is_over: bool = False  # nothing more is taken from here
        self.has_ended: bool = False  # the broker has no such consumer any more
        self._prefetch = prefetch
        self._messages: deque[M] = deque()
        self._promises: list[Promise] = []
        self._has_cancelled = False
        self._reason: Exception | None = None  # why it is over; None where we asked for it

    @property
    def has_message(self) -> bool:
        """Whether take() has one; none that the channel could not settle any more."""
        return bool(self._messages) and self.channel.is_open

    def take(self) -> M:
        """The oldest message."""
        return self._messages.popleft()

    async def wait(self) -> None:
        """Wait for a message.

        Raises:
            StopAsyncIteration: There will be none, as we asked for.
            AmqpError: There will be none.
        """
        if self.is_over:
            if self._reason is None:
                raise StopAsyncIteration
            raise self._reason.copy() if isinstance(self._reason, AmqpError) else self._reason
        await self.wait_event()

    async def wait_event(self) -> None:
        """Wait until a message has come, or an end."""
        promise = self.callbacks.create_future()
        self._promises.append(promise)
        try:
            await promise.future
        finally:
            if promise in self._promises:
                self._promises.remove(promise)

    def cancel(self) -> None:
        """Have the consumer cancelled, and what waits here requeued.  Idempotent."""
        self._finish(None)
        if self._has_cancelled or self.has_ended:
            return
        try:
            self.channel.basic_cancel(self.tag)
        except OutputFull:
            self.callbacks.adapter.call_later(CANCEL_DELAY, self.cancel)
        except WrongState:  # the channel is ending, and the consumer with it
            self._messages.clear()
        else:
            self._has_cancelled = True
            self._give_back()

    # Called by the channel

    def deliver(self, message: M) -> None:
        """A message has come."""
        self._messages.append(message)
        if len(self._messages) > EXCESS * self._prefetch and not self._has_cancelled:
            count = len(self._messages)
            text = f"{count} messages wait, though prefetch is {self._prefetch}"
            self._finish(ChannelClosed(text, code=RESOURCE_ERROR, by="broker"))
            self.channel.close(RESOURCE_ERROR, text)
        self._wake()

    def refused(self, error: Exception) -> None:
        """basic.consume has failed, and with it the channel."""
        self._finish(error)

    def broker_cancelled(self, tag: str) -> None:
        """The broker has cancelled the consumer."""
        self.has_ended = True
        self._finish(ConsumerCancelled(f"the broker cancelled consumer {tag}"))

    def ended(self) -> None:
        """The consumer is gone: cancelled, or its channel has ended."""
        self.has_ended = True
        self._finish(_reason_of(self.channel))

    def _finish(self, reason: Exception | None) -> None:
        if not self.is_over:
            self.is_over = True
            self._reason = reason
        if self.has_ended:
            self._give_back()
        self._wake()

    def _give_back(self) -> None:
        messages, self._messages = self._messages, deque()
        for message in messages if self.channel.is_open else ():
            message.nack()

    def _wake(self) -> None:
        promises, self._promises = self._promises, []
        for promise in promises:
            promise.resolve(None)


def _reason_of(channel: ConsumingChannel) -> AmqpError | None:
    """Why a channel has ended; None if it is open, or was closed from this side."""
    reason = channel.connection.reason or channel.reason
    if reason is None or (reason.by == "client" and reason.__cause__ is None):
        return None
    return reason
