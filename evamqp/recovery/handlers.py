"""The handlers of one consumer: which are at work, what waits for them, what becomes of a message.

No channel is opened and nothing is consumed here; the consumer does that.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from evamqp.core.coroutines import is_interruption
from evamqp.core.request import Request
from evamqp.recovery.batch import Unit, count_of, size_of, unsettled_of
from evamqp.recovery.failures import Failures
from evamqp.recovery.loop_bound import cancel_all
from evamqp.recovery.work import Work

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Message

log: logging.Logger = logging.getLogger(__name__)

# Seconds before a message whose handler was interrupted goes back to its queue: a program that ends
# has ended by then, and one that lives on does not keep it for ever.
INTERRUPTED_DELAY = 1.0
# Interruptions of the same message before another is a failure: a program that ends makes one.
MOST_INTERRUPTIONS = 3
# Seconds that asyncio may wait for threads when a program ends.
LONGEST_END = 300.0

#: Who acknowledges a message: the consumer when its handler has succeeded, or the handler.
AckMode: TypeAlias = Literal["auto", "manual"]
#: What to do with a message whose handler failed: drop or dead-letter it, have it delivered again
#: after a while, or leave it unsettled until the channel ends.
ErrorPolicy: TypeAlias = Literal["reject", "requeue", "leave"]


class Consuming(Protocol):
    """What the handlers need of their consumer."""

    @property
    def label(self) -> str: ...
    @property
    def has_retry(self) -> bool: ...
    def is_current(self, unit: Unit) -> bool:
        """Whether a message came on the channel that there is now."""

    def send_copy(self, message: Message, error: BaseException | None) -> str:
        """Publish a copy, as ``retry`` says; return what becomes of the message."""

    def give_back(self, unit: Unit) -> object:
        """Have a message delivered again."""

    def holds_more(self) -> None:
        """More messages wait here, unsettled."""

    def handler_awaits(self, unit: Unit, request: Request[Any]) -> None:
        """A handler awaits a request of ours, perhaps the consumer's end."""

    def handler_ended(self) -> None:
        """A handler has ended, and no other has begun in its place."""


class Ended:
    """What a handler that closes its own consumer goes on with, in the consumer's place."""

    has_retry = False

    def __init__(self, label: str) -> None:
        self.label = label

    def is_current(self, unit: Unit) -> bool:
        """No: its channel is gone."""
        return False

    def send_copy(self, message: Message, error: BaseException | None) -> str:
        """Publish nothing: there are no retries here."""
        return "the broker delivers it again"

    def give_back(self, unit: Unit) -> None:
        """The broker has requeued it."""

    def holds_more(self) -> None:
        """Nothing is delivered any more."""

    def handler_awaits(self, unit: Unit, request: Request[Any]) -> None:
        """The consumer has closed."""

    def handler_ended(self) -> None:
        """The consumer has closed."""


class Handlers:
    """Calls a consumer's handler, so many at a time, and settles what they handled.

    Args:
        consumer: Whose they are.
        adapter: The loop.
        on_message: The handler; it gets a Message or a Batch.
        ack: Who acknowledges.
        on_error: What to do with a message whose handler failed.

    Attributes:
        limit: Handlers that may run at a time.
        at_work: Messages whose handlers run, and what cancels each.
        waiting: Messages that wait for a handler to end.
        returning: Messages that go back to the queue after a while, and their timers.
        delivered: Messages given to a handler.
        handled: Messages whose handler has ended, and was not interrupted.
        failed: Messages whose handler has failed.
        delivered_at: When the last was given to a handler; None before the first.
    """

    __slots__ = (
        "_ack",
        "_adapter",
        "_consumer",
        "_failures",
        "_interrupted",
        "_interruptions",
        "_on_error",
        "_on_message",
        "at_work",
        "delivered",
        "delivered_at",
        "failed",
        "handled",
        "limit",
        "returning",
        "waiting",
    )

    def __init__(
        self,
        consumer: Consuming,
        adapter: Adapter,
        on_message: Callable[[Any], object],
        ack: AckMode,
        on_error: ErrorPolicy,
    ) -> None:
        self._consumer = consumer
        self._adapter = adapter
        self._on_message = on_message
        self._ack = ack
        self._on_error = on_error
        self._failures = Failures()
        self._interruptions = Failures()
        # When a handler was last interrupted, and ``handled`` then.
        self._interrupted: tuple[float, int] | None = None
        self.limit: int = 1
        self.at_work: dict[Unit, Handle] = {}
        self.waiting: deque[Unit] = deque()
        self.returning: dict[Unit, Handle] = {}
        self.delivered: int = 0
        self.handled: int = 0
        self.failed: int = 0
        self.delivered_at: float | None = None

    def deliver(self, unit: Unit) -> None:
        """Handle a message or batch, or keep it until a handler ends."""
        if len(self.at_work) < self.limit:
            self._handle(unit)
            return
        self.waiting.append(unit)
        self._consumer.holds_more()

    def take_waiting(self) -> None:
        """Handle what waits, as far as handlers may run."""
        while self.waiting and len(self.at_work) < self.limit:
            self._handle(self.waiting.popleft())

    def detach(self) -> None:
        """The consumer has ended: let go of it, so that no reference cycle is left."""
        self._consumer = Ended(self._consumer.label)

    def forget(self) -> None:
        """The channel is gone: the broker requeues what is not at work."""
        self.waiting.clear()
        cancel_all(*self.returning.values())
        self.returning.clear()

    def cancel(self) -> int:
        """Cancel all that are at work; return for how many messages."""
        at_work, self.at_work = self.at_work, {}
        for handle in at_work.values():
            handle.cancel()
        return count_of(at_work)

    def return_later(self, unit: Unit, delay: float, give_back: Callable[[], object]) -> None:
        """Return a message to the queue after a while, unless it is settled by then.

        RabbitMQ counts a reject against the delivery limit of a quorum queue, but not a nack.
        """
        if unit.is_settled or not self._consumer.is_current(unit):
            return
        step = partial(self._give_back, unit, give_back)
        self.returning[unit] = self._adapter.call_later(delay, step)
        self._consumer.holds_more()

    def _give_back(self, unit: Unit, give_back: Callable[[], object]) -> None:
        del self.returning[unit]
        if not unit.is_settled:
            give_back()

    def _handle(self, unit: Unit) -> None:
        self.delivered_at = self._adapter.time()
        self.delivered += size_of(unit)
        try:
            result = self._on_message(unit)
            work = None if result is None else Work(unit, result)
            if work is not None and work.has_to_run:
                self._follow(unit, work, result)
                return
        except (KeyboardInterrupt, SystemExit) as error:
            self._failed(unit, error)
            raise
        except BaseException as error:
            self._failed(unit, error)
        else:
            self._returned(unit, work)

    def _follow(self, unit: Unit, work: Work, result: object) -> None:
        awaitable = result.future if isinstance(result, Request) else work.run()
        ended = partial(self._ended_work, unit, work)
        self.at_work[unit] = self._adapter.run_awaitable(awaitable, ended)
        if isinstance(result, Request):
            self._consumer.handler_awaits(unit, result)

    def _ended_work(self, unit: Unit, work: Work, error: BaseException | None) -> None:
        if error is not None:
            work.discard()
        if self.at_work.pop(unit, None) is None:
            return  # cancelled by close(); the broker requeues the message
        if error is None:
            self._returned(unit, work)
        else:
            self._failed(unit, error)
        try:
            self.take_waiting()
        finally:  # also when one was interrupted
            self._consumer.handler_ended()

    def _returned(self, unit: Unit, work: Work | None) -> None:
        """The handler did not raise."""
        forward = None if work is None or unit.is_settled else work.failed_forward
        if forward is not None:
            fate = self._fail(unit, None)
            label = self._consumer.label
            log.error("%s: could not forward %r: %r; %s", label, unit, forward, fate)
            return
        self.handled += size_of(unit)
        if self._ack == "auto" and not unit.is_settled:
            unit.ack()

    def _failed(self, unit: Unit, error: BaseException) -> None:
        """The handler raised."""
        label = self._consumer.label
        is_interrupted = is_interruption(error)
        if is_interrupted and not self._was_interrupted_often(unit):
            self._interrupted = (self._adapter.time(), self.handled)
        elif is_interrupted or not self._is_ending:
            fate = self._fail(unit, error)
            words = "%s: the handler of %r raised %r; %s"
            log.error(words, label, unit, error, fate, exc_info=error)
            return
        words = "%s: the handler of %r was interrupted by %r; the message goes back to the queue"
        log.warning(words, label, unit, error)
        give_back = partial(self._consumer.give_back, unit)
        self.return_later(unit, INTERRUPTED_DELAY, give_back)

    def _was_interrupted_often(self, unit: Unit) -> bool:
        """Count an interruption; whether it must be the handler's own doing."""
        counts = [self._interruptions.count(message) for message in unsettled_of(unit)]
        return max(counts, default=0) >= MOST_INTERRUPTIONS

    @property
    def _is_ending(self) -> bool:
        """Whether the program may be about to end.

        A handler was interrupted, and none has succeeded since.  Handlers that start now may find
        executors and pools closed, which says nothing about their messages.
        """
        if self._interrupted is None:
            return False
        at, handled = self._interrupted
        return self.handled == handled and self._adapter.time() - at < LONGEST_END

    def _fail(self, unit: Unit, error: BaseException | None) -> str:
        """Do as ``retry`` or ``on_error`` says; return what becomes of the message."""
        self.handled += size_of(unit)
        self.failed += size_of(unit)
        if unit.is_settled:
            return "the message was settled before"
        if self._consumer.has_retry:
            fates = dict.fromkeys(
                self._consumer.send_copy(each, error) for each in unsettled_of(unit)
            )
            return "; ".join(fates)
        if self._on_error == "reject":
            unit.reject(requeue=False)
            return "the message is rejected: dead-lettered if its queue says so, else dropped"
        if self._on_error == "requeue":
            delay = max(self._failures.next_delay(each) for each in unsettled_of(unit))
            self.return_later(unit, delay, unit.reject)
            return f"the message goes back to the queue in {delay:.1f} s"
        return "the message stays unacknowledged until the channel ends"
