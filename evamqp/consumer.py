"""A consumer that always resumes: after a lost connection, a closed channel, a deleted queue.

The broker keeps messages until they are settled; only the running handlers are kept here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evamqp.codec.fields import encode_shortstr
from evamqp.core.coroutines import is_interruption
from evamqp.core.request import Request
from evamqp.errors import (
    CONTENT_TOO_LARGE,
    RESOURCE_ERROR,
    BadArgument,
    BadType,
    ChannelClosed,
    OutputFull,
    WrongState,
    shown,
)
from evamqp.recovery.backoff import STABLE_AFTER, Backoff
from evamqp.recovery.failures import Failures
from evamqp.recovery.loop_bound import cancel_all
from evamqp.recovery.reconnecting_client import ChannelEvents, ReconnectingClient
from evamqp.recovery.reconnector import Reconnector, Target
from evamqp.recovery.topology import copy_table
from evamqp.recovery.work import Work, message_at_work

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel, Message
    from evamqp.errors import ConnectionClosed
    from evamqp.recovery.topology import Entity, Topology
    from evamqp.types import TableLike

log = logging.getLogger(__name__)

# Seconds before a message whose handler was interrupted goes back to its queue: a program that ends
# has ended by then, and one that lives on does not keep it for ever.
INTERRUPTED_DELAY = 1.0
# Times that a message above body_max is refused before on_error decides.
OVERSIZED = 2
# A broker ignores ``prefetch`` if more than this many times that number of messages is held here.
EXCESS = 2
# Seconds that asyncio may wait for threads when a program ends.
LONGEST_END = 300.0

#: Who acknowledges a message: the consumer when its handler has succeeded, or the handler.
AckMode: TypeAlias = Literal["auto", "manual"]
#: What to do with a message whose handler failed: drop or dead-letter it, have it delivered again
#: after a while, or leave it unsettled until the channel ends.
ErrorPolicy: TypeAlias = Literal["reject", "requeue", "leave"]


class Consumer(ReconnectingClient[int]):
    """Consumes a queue over reconnections.

    A message is acknowledged when its handler returns, or when the awaitable that it returned
    succeeds, unless the handler settled it before.  Delivery is at least once: after a loss the
    broker delivers again what was not acknowledged, at most ``prefetch`` messages.  Settling a
    message of a former connection is a no-op that is counted: the broker has requeued it.

    Forwarding takes one line: ``return publisher.publish(...)``, or a list of several.  Only
    CONFIRMED is success; every other Outcome fails the handler.  The publishes or outcomes that a
    handler returns decide.  If it returns none, an async handler fails if a publish that it awaited
    was not confirmed; to deal with that yourself, return the outcome that counts, or settle the
    message.  A publish that you neither return nor await does not count.

    A handler that is cancelled or interrupted, as when the program ends, has not failed: its
    message goes back to the queue.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        queue: Name of the queue.
        on_message: Called with each Message.  It may be an async function, or return an awaitable
            of the loop; at most ``prefetch`` of these run at a time, including those for messages
            of a former connection.
        adapter: The loop; None means the running asyncio loop, or the shared Reconnector's.
        topology: Declared on each connection before anything is consumed, and again after the
            queue was deleted.
        prefetch: Messages that may be unacknowledged, 1..65535.
        ack: ``"manual"`` leaves settling to the handler.
        on_error: What to do with a message whose handler failed; the error is logged.
            ``"requeue"`` holds it for 0.1 s first, doubled with each failure of the same message
            up to 30 s; it counts as unacknowledged meanwhile.  Quorum queues drop or dead-letter
            it after their ``x-delivery-limit``.  The policy also applies to messages above
            ``body_max``, from the third delivery on: ``"reject"`` rejects them unread; with the
            others the consumer logs an ERROR and stops until resume().
        exclusive: Refuse other consumers of the queue.
        arguments: For instance ``x-priority``.
        on_reconnecting: See Reconnector; a shared one has its own of these three.
        on_recovered: See Reconnector.
        on_topology_error: See Reconnector.
        backoff: See Reconnector.  Each client needs one of its own.

    Raises:
        BadArgument, BadType: An argument is wrong.
        WrongState: No adapter was given, and no asyncio loop runs.
    """

    def __init__(
        self,
        target: Target | Reconnector,
        queue: str,
        on_message: Callable[[Message], object],
        *,
        adapter: Adapter | None = None,
        topology: Topology | None = None,
        prefetch: int = 100,
        ack: AckMode = "auto",
        on_error: ErrorPolicy = "reject",
        exclusive: bool = False,
        arguments: TableLike | None = None,
        on_reconnecting: Callable[[int, float, ConnectionClosed], object] | None = None,
        on_recovered: Callable[[int, float], object] | None = None,
        on_topology_error: Callable[[Entity, ChannelClosed], object] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        _check(queue, on_message, prefetch, ack, on_error)
        arguments = copy_table(arguments)
        super().__init__(
            target,
            adapter,
            topology,
            on_reconnecting=on_reconnecting,
            on_recovered=on_recovered,
            on_topology_error=on_topology_error,
            backoff=backoff,
        )
        self.queue = queue
        self.handled = 0  # messages whose handler succeeded or failed
        self._on_message = on_message
        self._prefetch = prefetch
        self._ack = ack
        self._on_error = on_error
        self._exclusive = exclusive
        self._arguments = arguments
        self._tag = ""
        self._is_paused = False
        self._at_work: dict[Message, Handle] = {}
        # Messages whose handlers await our close(), and the requests that they await.
        self._closers: list[tuple[Message, Request[int]]] = []
        # Messages that came while ``prefetch`` handlers were running.
        self._waiting: deque[Message] = deque()
        # Messages that go back to the queue after a while.
        self._returning: dict[Message, Handle] = {}
        self._failures = Failures()
        self._oversized = 0  # messages refused because they exceed body_max
        # When a handler was last interrupted, and ``handled`` then.
        self._interrupted: tuple[float, int] | None = None
        self._backoff = Backoff()
        # When consuming last began; None once a retry is scheduled.
        self._since: float | None = None

    def __repr__(self) -> str:
        return f"<Consumer of {self.queue!r}, {self.reconnector.state.value}>"

    def _role(self) -> str:
        return f"queue {shown(self.queue)}"

    def _unfinished(self) -> tuple[int, str]:
        return len(self._at_work), "handlers were at work; their messages go back to the queue"

    @property
    def is_ready(self) -> bool:
        """Whether the broker has agreed to the consumer."""
        return self._is_served and self.is_consuming

    @property
    def is_consuming(self) -> bool:
        """Whether the consumer exists on the broker, as far as we know."""
        return bool(self._tag)

    @property
    def at_work(self) -> int:
        """Messages whose handlers are running."""
        return len(self._at_work)

    def pause(self) -> None:
        """Take no further messages until resume().  Idempotent.

        Messages that arrive meanwhile go back to the queue; running handlers go on.

        Raises:
            WrongThread: Not the thread of the loop.
        """
        self._check_caller("Consumer.pause")
        self._is_paused = True
        self._cancel()

    def resume(self) -> None:
        """Undo pause().  Idempotent.

        Raises:
            WrongState: The consumer is closed or closing.
            WrongThread: Not the thread of the loop.
        """
        self._check_open("Consumer.resume")
        self._is_paused = False
        self._consume()

    def close(self, timeout: float | None = None) -> Request[int]:
        """Take no further messages, let running handlers finish, then disconnect.

        Idempotent: every call returns the same report.  An async handler may await it: that
        handler resumes when all others have ended, and the consumer disconnects after it.

        Args:
            timeout: Seconds that handlers may take; then they are cancelled, and their messages
                go back to the queue.  None waits for ever.

        Returns:
            A request for the number of cancelled handlers; it never fails.

        Raises:
            BadArgument, BadType: The timeout is not a number.
            WrongThread: Not the thread of the loop.
        """
        request = self._close(timeout)
        message = message_at_work()
        if message is not None:
            self._close_for(message, request)
        return request

    def _close_for(self, message: Message, request: Request[int]) -> None:
        """A handler awaits our end, so our end must not wait for that handler."""
        # Deferred: Twisted starts a handler at once, before it counts as running.
        self._closers.append((message, request))
        self._defer(self._close_if_done)

    # Consuming

    def _open_channel(self) -> None:
        """Open a channel, set its prefetch and consume."""
        connection = None if self._is_closing else self._ready_connection()
        if connection is None:
            return
        try:
            channel = connection.channel(ChannelEvents(self))
        except (OutputFull, WrongState):  # no number is free, or the output is full
            self._come_back(self._open_channel)
            return
        self._channel = channel
        if self._oversized >= OVERSIZED:
            connection.context.channels.by_number[
                channel.number
            ].on_oversized_rejected = self._oversized_rejected
        try:
            channel.basic_qos(self._prefetch)
        except (OutputFull, WrongState):
            channel.close()
            return
        self._consume()

    def _consume(self) -> None:
        channel = self._channel
        if channel is None or self._tag or self._is_paused or self._is_closing:
            return
        self._since = self.adapter.time()
        self._is_served = False
        try:
            self._tag = channel.basic_consume(
                self.queue,
                self._deliver,
                exclusive=self._exclusive,
                arguments=self._arguments,
                on_cancel=self._cancelled,
                callback=self._consuming,
            )
        except (OutputFull, WrongState):
            channel.close()  # its end schedules a retry

    def _consuming(self, tag: str) -> None:
        if tag == self._tag and self._channel is not None:
            self._be_ready(self._channel)

    def _cancel(self) -> None:
        """Cancel the consumer; what waits here goes back to the queue."""
        tag, self._tag = self._tag, ""
        self._drop_waiting()
        if tag and self._channel is not None:
            try:
                self._channel.basic_cancel(tag)
            except (OutputFull, WrongState):
                self._channel.close()  # always possible, and ends the consumer too

    def _drop_waiting(self) -> None:
        """Return what waits here to the queue, unless it is there already."""
        waiting, self._waiting = self._waiting, deque()
        for message in waiting:
            message.nack()

    def _cancelled(self, tag: str) -> None:
        """The broker cancelled the consumer: its queue was deleted, or moved."""
        if tag != self._tag:
            return
        self._log.write(logging.WARNING, "cancel", "the broker cancelled the consumer")
        self._tag = ""
        # The queue has the messages of a consumer that timed out, and would deliver them twice.
        self._drop_waiting()
        self._come_back(partial(self._declare, self._consume))

    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel is not self._channel:
            return
        self._forget_channel()
        self._readiness.failed(reason)
        if reason.code == CONTENT_TOO_LARGE and reason.method == "basic.deliver":
            self._refused_oversized(reason)
        if channel.connection.is_open and not self._is_closing:
            self._log.write(logging.WARNING, "closed channel", f"its channel closed: {reason}")
            # The queue may be missing: declare it first.
            self._come_back(partial(self._declare, self._open_channel))

    def _refused_oversized(self, reason: ChannelClosed) -> None:
        """A message above body_max is first in the queue, and would be refused for ever."""
        self._oversized += 1
        if self._oversized < OVERSIZED:
            return
        if self._on_error == "reject":
            text = f"from now on what is too large is rejected: {reason}"
            self._log.write(logging.ERROR, "large message", text)
        else:
            text = f"stopped consuming until resume(): {reason}"
            self._log.write(logging.ERROR, "large message", text)
            self._oversized = 0
            self._is_paused = True

    def _oversized_rejected(self, why: str) -> None:
        self._log.write(logging.ERROR, "large message", f"a message was rejected: {why}")

    def _forget_channel(self) -> None:
        self._channel = None
        self._tag = ""
        # The broker requeues them.
        self._waiting.clear()
        cancel_all(*self._returning.values())
        self._returning.clear()

    def _come_back(self, step: Callable[[], object]) -> None:
        """Schedule ``step`` after the backoff."""
        since, self._since = self._since, None
        if since is not None and self.adapter.time() - since >= STABLE_AFTER:
            self._backoff.reset()
        self._try_later(self._backoff.next(), step)

    def _declare(self, step: Callable[[], object]) -> None:
        if not self._is_closing:
            self.reconnector.declare(self, self.reconnector.part_of(self.queue), step)

    # Messages

    def _deliver(self, message: Message) -> None:
        """Handle a message, or keep it until a handler ends.

        ``prefetch`` limits unacknowledged messages on the broker; a handler that acknowledges
        early, or whose connection was lost, still runs.
        """
        if len(self._at_work) < self._prefetch:
            self._handle(message)
            return
        self._waiting.append(message)
        self._check_prefetch()

    def _check_prefetch(self) -> None:
        """Close the channel of a broker that ignores ``prefetch``, before messages pile up."""
        held = len(self._waiting) + len(self._returning)
        if held <= EXCESS * self._prefetch or self._channel is None:
            return
        text = f"{held} messages are unacknowledged, though prefetch is {self._prefetch}"
        self._log.write(logging.ERROR, "ignored prefetch", f"the broker ignores prefetch: {text}")
        channel = self._channel
        self._forget_channel()
        channel.close(RESOURCE_ERROR, text)
        self._come_back(self._open_channel)

    def _handle(self, message: Message) -> None:
        try:
            result = self._on_message(message)
            work = None if result is None else Work(message, result)
            if work is not None and work.has_to_run:
                self._follow(message, work, result)
                return
        except (KeyboardInterrupt, SystemExit) as error:
            self._failed(message, error)
            raise
        except BaseException as error:
            self._failed(message, error)
        else:
            self._returned(message, work)

    def _follow(self, message: Message, work: Work, result: object) -> None:
        awaitable = result.future if isinstance(result, Request) else work.run()
        ended = partial(self._ended_work, message, work)
        self._at_work[message] = self.adapter.run_awaitable(awaitable, ended)
        if isinstance(result, Request) and result in self._closing:
            self._close_for(message, result)

    def _ended_work(self, message: Message, work: Work, error: BaseException | None) -> None:
        if error is not None:
            work.discard()
        if self._at_work.pop(message, None) is None:
            return  # cancelled by close(); the broker requeues the message
        if error is None:
            self._returned(message, work)
        else:
            self._failed(message, error)
        try:
            while self._waiting and len(self._at_work) < self._prefetch:
                self._handle(self._waiting.popleft())
        finally:  # also when one was interrupted
            self._close_if_done()

    def _returned(self, message: Message, work: Work | None) -> None:
        """The handler did not raise."""
        forward = None if work is None or message.is_settled else work.failed_forward
        if forward is not None:
            fate = self._fail(message)
            log.error("%s: could not forward %r: %r; %s", self.label, message, forward, fate)
            return
        self.handled += 1
        if self._ack == "auto" and not message.is_settled:
            message.ack()

    def _failed(self, message: Message, error: BaseException) -> None:
        """The handler raised."""
        if is_interruption(error):
            self._interrupted = (self.adapter.time(), self.handled)
        elif not self._is_ending:
            fate = self._fail(message)
            words = "%s: the handler of %r raised %r; %s"
            log.error(words, self.label, message, error, fate, exc_info=error)
            return
        words = "%s: the handler of %r was interrupted by %r; the message goes back to the queue"
        log.warning(words, self.label, message, error)
        self._return_later(message, INTERRUPTED_DELAY, message.nack)

    @property
    def _is_ending(self) -> bool:
        """Whether the program may be about to end.

        A handler was interrupted, and none has succeeded since.  Handlers that start now may find
        executors and pools closed, which says nothing about their messages.
        """
        if self._interrupted is None:
            return False
        at, handled = self._interrupted
        return self.handled == handled and self.adapter.time() - at < LONGEST_END

    def _fail(self, message: Message) -> str:
        """Do as ``on_error`` says; return what becomes of the message."""
        self.handled += 1
        if message.is_settled:
            return "the message was settled before"
        if self._on_error == "reject":
            message.reject(requeue=False)
            return "the message is rejected: dead-lettered if its queue says so, else dropped"
        if self._on_error == "requeue":
            delay = self._failures.next_delay(message)
            self._return_later(message, delay, message.reject)
            return f"the message goes back to the queue in {delay:.1f} s"
        return "the message stays unacknowledged until the channel ends"

    def _return_later(
        self, message: Message, delay: float, give_back: Callable[[], object]
    ) -> None:
        """Return a message to the queue after a while, unless it is settled by then.

        RabbitMQ counts a reject against the delivery limit of a quorum queue, but not a nack.
        """
        if message.is_settled or message.channel is not self._channel:
            return
        step = partial(self._give_back, message, give_back)
        self._returning[message] = self.adapter.call_later(delay, step)
        self._check_prefetch()

    def _give_back(self, message: Message, give_back: Callable[[], object]) -> None:
        del self._returning[message]
        if not message.is_settled:
            give_back()

    # Member of the reconnector

    def _disconnected(self, reason: ConnectionClosed) -> None:
        super()._disconnected(reason)
        self._forget_channel()

    def _needs(self, queue: str) -> bool:
        return queue == self.queue

    def _writable(self, writable: bool) -> None:
        """Do nothing: acknowledgements need no backpressure."""

    # The end

    def _stop(self) -> None:
        self._cancel()

    def _close_if_done(self) -> None:
        if not self._is_closing:
            return
        if not self._at_work:
            self._end(0)
        elif self._at_work.keys() <= {message for message, _ in self._closers}:
            for message, request in self._closers:
                if message in self._at_work:
                    request.resolve(0)

    def _give_up(self) -> None:
        if self._is_closed:
            return
        at_work, self._at_work = self._at_work, {}
        for handle in at_work.values():
            handle.cancel()
        self._end(len(at_work))

    def _end(self, cancelled: int) -> None:
        self._closers.clear()
        self._finish(cancelled)
        self._forget_channel()


def _check(queue: Any, on_message: Any, prefetch: Any, ack: Any, on_error: Any) -> None:
    encode_shortstr(queue, "queue")
    if not callable(on_message):
        raise BadType(f"on_message must be callable, not {on_message!r}")
    if isinstance(prefetch, bool) or not isinstance(prefetch, int):
        raise BadType(f"prefetch must be int, not {type(prefetch).__name__}")
    if not 1 <= prefetch <= 65535:
        raise BadArgument(f"prefetch must be 1..65535, not {prefetch}")
    if ack not in ("auto", "manual"):
        raise BadArgument(f"ack must be auto or manual, not {ack!r}")
    if on_error not in ("reject", "requeue", "leave"):
        raise BadArgument(f"on_error must be reject, requeue or leave, not {on_error!r}")
