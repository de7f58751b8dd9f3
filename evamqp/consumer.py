"""A consumer that always resumes: after a lost connection, a closed channel, a deleted queue.

The broker keeps messages until they are settled; only the running handlers are kept here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, cast

from evamqp import checks
from evamqp.codec.fields import encode_shortstr
from evamqp.codec.methods import read_flag
from evamqp.core.message import STREAM_OFFSET
from evamqp.core.request import Request
from evamqp.errors import (
    CONTENT_TOO_LARGE,
    RESOURCE_ERROR,
    BadArgument,
    BadType,
    ChannelClosed,
    ConsumerCancelled,
    OutputFull,
    WrongState,
    shown,
)
from evamqp.recovery.backoff import STABLE_AFTER, Backoff
from evamqp.recovery.batch import Batch, Collector, Unit, check_batch, count_of, messages_of
from evamqp.recovery.confirm_clock import CONFIRM_TIMEOUT, ConfirmClock
from evamqp.recovery.handlers import AckMode, ErrorPolicy, Handlers
from evamqp.recovery.health import ConsumerStats, Health, HealthState, ago
from evamqp.recovery.reconnecting_client import ChannelEvents, ReconnectingClient
from evamqp.recovery.reconnector import Reconnector, Target
from evamqp.recovery.retry import Copies, Retry
from evamqp.recovery.slow_handlers import SlowHandlers
from evamqp.recovery.stream import StreamOffset, StreamPosition, offset_of
from evamqp.recovery.topology import Topology, copy_table
from evamqp.recovery.work import message_at_work

if TYPE_CHECKING:
    from evamqp.abc import Adapter
    from evamqp.core.channel import Channel, Message
    from evamqp.core.message import Returned
    from evamqp.errors import ConnectionClosed
    from evamqp.recovery.topology import Entity
    from evamqp.types import TableLike, Tags

log: logging.Logger = logging.getLogger(__name__)

# Times that a message above body_max is refused before on_error decides.
OVERSIZED = 2
# A broker ignores ``prefetch`` if more than this many times that number of messages is held here.
EXCESS = 2
# Seconds before another copy of a failed message that the broker did not take.
COPY_DELAY = 0.5


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
    message goes back to the queue.  A fourth time for the same message is a failure.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        queue: Name of the queue.
        on_message: Called with each Message.  It may be an async function, or return an awaitable
            of the loop; at most ``prefetch`` of these run at a time, including those for messages
            of a former connection.  With ``batch`` it is called with a list of them.
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
        batch: Call the handler with lists of up to so many messages, at most ``prefetch``; None
            means one message at a time.  Handlers run at a time as far as ``prefetch`` allows full
            batches.  What the handler has not settled is acknowledged when it succeeds, and all of
            it meets ``on_error`` or ``retry`` when it fails.
        batch_wait: Seconds that the first message of a batch waits for others.
        retry: Where failed messages wait and end, in place of ``on_error``.  A message is
            acknowledged when the broker has confirmed its copy.  While an alarm blocks publishers
            the copies wait, and so do acknowledgements behind them.
        offset: Where to begin in a stream, see StreamOffset; None where the queue is none.  After a
            reconnection the consumer goes on at the first message that is not settled.  A stream
            drops nothing: a rejected message stays there, and the consumer passes it.
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
        on_message: Callable[[Message], object] | Callable[[list[Message]], object],
        *,
        adapter: Adapter | None = None,
        topology: Topology | None = None,
        prefetch: int = 100,
        ack: AckMode = "auto",
        on_error: ErrorPolicy = "reject",
        batch: int | None = None,
        batch_wait: float = 1.0,
        retry: Retry | None = None,
        offset: StreamOffset | None = None,
        exclusive: bool = False,
        arguments: TableLike | None = None,
        on_reconnecting: Callable[[int, float, ConnectionClosed], object] | None = None,
        on_recovered: Callable[[int, float], object] | None = None,
        on_topology_error: Callable[[Entity, ChannelClosed], object] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        _check(queue, on_message, prefetch, ack, on_error)
        check_batch(batch, batch_wait, prefetch)
        read_flag(exclusive, "exclusive")
        arguments = copy_table(arguments)
        position = _position(queue, offset, arguments, topology, on_error)
        if retry is not None:
            topology = _with_retry(target, queue, topology, retry, on_error)
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
        handler: Callable[[Any], object] = on_message
        self._collector: Collector | None = None
        if batch is not None:
            handler = partial(_handle_list, on_message)
            self._collector = Collector(self.adapter, batch, batch_wait, self._deliver)
        self._copies: Copies | None = None
        if retry is not None:
            clock = ConfirmClock(self.adapter, CONFIRM_TIMEOUT, self._miss_confirms)
            self._copies = Copies(retry, queue, clock, self._copy_later)
        self._handlers = Handlers(self, self.adapter, handler, ack, on_error)
        self._slow = SlowHandlers(self.adapter, self._handlers, self._log)
        self._on_error = on_error
        self._exclusive = exclusive
        self._arguments = arguments
        self._position = position
        self._has_looked = False
        self._has_left = False  # its stream, so that it has no channel
        self._tag = ""
        self._is_paused = False
        # Messages whose handlers await our close(), and the requests that they await.
        self._closers: list[tuple[Unit, Request[int]]] = []
        self._spare = 0  # messages that the broker may have sent by an earlier prefetch
        self._set_prefetch(prefetch)
        self._oversized = 0  # messages refused because they exceed body_max
        self._backoff = Backoff()
        # When consuming last began; None once a retry is scheduled.
        self._since: float | None = None

    def __repr__(self) -> str:
        return f"<Consumer of {self.queue!r}, {self.reconnector.state.value}>"

    def _role(self) -> str:
        return f"queue {shown(self.queue)}"

    def _unfinished(self) -> tuple[int, str]:
        words = "handlers were at work; their messages go back to the queue"
        return len(self._handlers.at_work), words

    @property
    def is_ready(self) -> bool:
        """Whether the broker has agreed to the consumer."""
        return self._is_served and self.is_consuming

    @property
    def _health_state(self) -> HealthState:
        state = super()._health_state
        return "PAUSED" if self._is_paused and state == "OPENING" else state

    def health(self) -> Health:
        """Return how it is doing now."""
        last_delivery = ago(self.adapter.time(), self._handlers.delivered_at)
        return super().health()._replace(at_work=self.at_work, last_delivery=last_delivery)

    @property
    def stats(self) -> ConsumerStats:
        """What its handlers have done so far, over all connections."""
        retried = 0 if self._copies is None else self._copies.confirms
        handlers = self._handlers
        return ConsumerStats(handlers.delivered, handlers.handled, handlers.failed, retried)

    @property
    def is_consuming(self) -> bool:
        """Whether the consumer exists on the broker, as far as we know."""
        return bool(self._tag)

    @property
    def next_offset(self) -> int | None:
        """Where in the stream it would go on: the offset of the first message that is not settled.

        Store it to begin there in the next run.  None before the first message, unless ``offset``
        is a number; None without ``offset``.
        """
        return None if self._position is None else self._position.resume_at

    @property
    def at_work(self) -> int:
        """Messages whose handlers are running."""
        return count_of(self._handlers.at_work)

    @property
    def handled(self) -> int:
        """Messages whose handler has succeeded or failed."""
        return self._handlers.handled

    @property
    def prefetch(self) -> int:
        """Messages that may be unacknowledged."""
        return self._prefetch

    def set_prefetch(self, prefetch: int) -> None:
        """Change ``prefetch``, now and for all connections to come.

        The consumer leaves its queue and comes back at once, since RabbitMQ applies a prefetch to
        new consumers alone.  Messages that are here already count beside the new limit until they
        are settled; no more handlers than it allows begin.

        Raises:
            BadArgument, BadType: Not 1..65535, or below ``batch``; nothing was changed.
            WrongState: The consumer is closed or closing.
            WrongThread: Not the thread of the loop.
        """
        self._check_open("Consumer.set_prefetch")
        checks.prefetch("prefetch", prefetch)
        if self._collector is not None:
            check_batch(self._collector.size, 0.0, prefetch)
        if prefetch == self._prefetch:
            return
        self._set_prefetch(prefetch)
        channel = self._channel
        if channel is None:
            return
        if self._position is not None:
            self._restart_stream()
            return
        self._spare = self._held + self.at_work
        tag, self._tag = self._tag, ""
        try:
            channel.basic_qos(prefetch)
            if tag:
                channel.basic_cancel(tag)
        except (OutputFull, WrongState):
            channel.close()  # its end schedules a retry
            return
        self._consume()
        self._handlers.take_waiting()

    def _set_prefetch(self, prefetch: int) -> None:
        self._prefetch = prefetch
        size = 1 if self._collector is None else self._collector.size
        self._handlers.limit = prefetch // size

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
        if self._has_left:
            self._open_channel()
        else:
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

    def _close_for(self, message: Unit, request: Request[int]) -> None:
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
            channel = connection.channel(_Events(self))
        except (OutputFull, WrongState):  # no number is free, or the output is full
            self._come_back(self._open_channel)
            return
        self._channel = channel
        self._slow.start()
        self._has_left = False
        if self._position is not None:
            self._position.rewind()
        if self._oversized >= OVERSIZED:
            connection.context.channels.by_number[
                channel.number
            ].on_oversized_rejected = self._oversized_rejected
        try:
            channel.basic_qos(self._prefetch)
            if self._copies is not None:
                channel.confirm_select()
                self._copies.clock.start(channel, self._backoff.attempts)
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
        arguments = self._arguments
        if self._position is not None:
            arguments = self._position.arguments(arguments)
        try:
            self._tag = channel.basic_consume(
                self.queue,
                self._deliver if self._collector is None else self._collector.add,
                exclusive=self._exclusive,
                arguments=arguments,
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
        if tag and self._position is not None:
            self._leave_stream()
        elif tag and self._channel is not None:
            try:
                self._channel.basic_cancel(tag)
            except (OutputFull, WrongState):
                self._channel.close()  # always possible, and ends the consumer too
        self._drop_waiting()  # behind the cancel, so that they do not come to us again

    def _leave_stream(self) -> None:
        """End the channel, as a cancel for a stream; what is unsettled comes again on the next.

        RabbitMQ 3.x may end the connection (541) over what follows a basic.cancel.
        """
        channel = self._channel
        self._forget_channel()
        if channel is not None:
            channel.close()
            self._has_left = True

    def _restart_stream(self) -> None:
        """Consume again, from the first message that is not settled."""
        self._leave_stream()
        self._open_channel()

    def _drop_waiting(self) -> None:
        """Return what waits here to the queue, unless it is there already."""
        waiting = list(self._handlers.waiting)
        self._handlers.waiting.clear()
        for unit in (*waiting, *(() if self._collector is None else self._collector.take())):
            unit.nack()

    def _cancelled(self, tag: str) -> None:
        """The broker cancelled the consumer: its queue was deleted, or moved."""
        if tag != self._tag:
            return
        self._log.write(logging.WARNING, "cancel", "the broker cancelled the consumer")
        self._readiness.failed(ConsumerCancelled("the broker cancelled the consumer"))
        if self._position is not None and self._channel is not None:
            self._replace_channel(self._channel)
            return
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
        self._slow.forget()
        # The broker requeues them.
        self._handlers.forget()
        if self._collector is not None:
            self._collector.take()
        self._spare = 0
        if self._copies is not None and self._copies.clear():
            self._defer(self._close_if_done)

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

    def _deliver(self, unit: Unit) -> None:
        """Handle a message or batch, or keep it until a handler ends.

        ``prefetch`` limits unacknowledged messages on the broker; a handler that acknowledges
        early, or whose connection was lost, still runs.
        """
        if self._position is not None:
            self._position.add(messages_of(unit))
        elif not self._has_looked:
            self._look(unit)
        self._handlers.deliver(unit)

    def _look(self, unit: Unit) -> None:
        """Warn if the first message seems to come from a stream, whose offset nobody keeps."""
        self._has_looked = True
        if any(offset_of(message) is not None for message in messages_of(unit)):
            text = "its queue seems to be a stream: give offset=, or a reconnection misses messages"
            self._log.write(logging.WARNING, "stream", text)

    @property
    def _held(self) -> int:
        """Messages that are here, unsettled, and not at work."""
        waiting, returning = self._handlers.waiting, self._handlers.returning
        if self._collector is None:
            return len(waiting) + len(returning)
        return len(self._collector) + count_of(waiting) + count_of(returning)

    def holds_more(self) -> None:
        """Close the channel of a broker that ignores ``prefetch``, before messages pile up."""
        held = self._held
        if self._position is not None:
            return  # RabbitMQ 3.x sends whole chunks of a stream, however long
        if held <= EXCESS * self._prefetch + self._spare or self._channel is None:
            return
        text = f"{held} messages are unacknowledged, though prefetch is {self._prefetch}"
        self._log.write(logging.ERROR, "ignored prefetch", f"the broker ignores prefetch: {text}")
        channel = self._channel
        self._forget_channel()
        channel.close(RESOURCE_ERROR, text)
        self._come_back(self._open_channel)

    # What its handlers need

    @property
    def has_retry(self) -> bool:
        """Whether failed messages go by ``retry``.  For the handlers."""
        return self._copies is not None

    def is_current(self, unit: Unit) -> bool:
        """Whether a message came on the channel that there is now.  For the handlers."""
        return unit.channel is self._channel

    def give_back(self, unit: Unit) -> None:
        """Have a message delivered again.  For the handlers."""
        if self._position is None:
            unit.nack()
        else:
            self._restart_stream()

    def handler_awaits(self, unit: Unit, request: Request[Any]) -> None:
        """A handler awaits a request, perhaps our own close().  For the handlers."""
        if request in self._closing:
            self._close_for(unit, request)

    def handler_ended(self) -> None:
        """A handler has ended.  For the handlers."""
        self._close_if_done()

    def send_copy(self, message: Message, error: BaseException | None) -> str:
        """Publish a copy, whose confirm acknowledges the message; return what becomes of it."""
        assert self._copies is not None
        channel = self._channel
        if channel is None or message.channel is not channel:
            return "its connection is gone: the broker delivers it again"
        return self._copies.send(channel, message, error)

    def _copy_later(self, message: Message, error: BaseException | None) -> None:
        """The broker did not take a copy, or there is no room to send it."""
        self._handlers.return_later(message, COPY_DELAY, partial(self.send_copy, message, error))

    def _confirmed(self, channel: Channel, tags: Tags, acked: bool) -> None:
        if self._copies is not None and channel is self._channel:
            self._copies.confirmed(tags, acked)
            self._close_if_done()

    def _copy_returned(self, channel: Channel, returned: Returned) -> None:
        """A queue of ``retry`` is gone: declare all of them, and have the messages again."""
        if channel is not self._channel:
            return
        text = f"no queue took a copy of a failed message: {returned.text}"
        self._log.write(logging.ERROR, "returned copy", text)
        self._replace_channel(channel)

    def _miss_confirms(self, channel: Channel) -> None:
        count = len(channel.unconfirmed)
        text = f"no confirm for {count} copies in time: their messages come again"
        self._log.write(logging.WARNING, "missing confirm", text)
        self._replace_channel(channel)

    def _replace_channel(self, channel: Channel) -> None:
        """Declare everything again, and have again what is unsettled."""
        self._forget_channel()
        channel.close()
        self._come_back(partial(self._declare, self._open_channel))

    # Member of the reconnector

    def _disconnected(self, reason: ConnectionClosed) -> None:
        super()._disconnected(reason)
        self._has_left = False
        self._forget_channel()

    def _needs(self, queue: str) -> bool:
        return queue == self.queue

    def _writable(self, writable: bool) -> None:
        """Acknowledgements need no backpressure; what is blocked is not confirmed in time."""
        channel, copies = self._channel, self._copies
        if copies is not None and channel is not None and channel.connection.is_blocked:
            copies.clock.restart()

    # The end

    def _stop(self) -> None:
        self._cancel()

    def _close_if_done(self) -> None:
        if not self._is_closing:
            return
        at_work = self._handlers.at_work
        if not at_work and not self._copies:
            self._end(0)
        elif at_work and at_work.keys() <= {message for message, _ in self._closers}:
            for message, request in self._closers:
                if message in at_work:
                    request.resolve(0)

    def _give_up(self) -> None:
        if self._is_closed:
            return
        self._end(self._handlers.cancel())

    def _end(self, cancelled: int) -> None:
        self._closers.clear()
        if self._copies is not None:
            self._copies.clock.end()
        self._finish(cancelled)
        self._forget_channel()
        self._slow.end()
        self._handlers.detach()


class _Events(ChannelEvents):
    """Passes the events of its channel to a consumer."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer)
        self._consumer = consumer

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        self._consumer._confirmed(channel, tags, acked)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        self._consumer._copy_returned(channel, returned)


def _handle_list(on_message: Callable[[Any], object], batch: Batch) -> object:
    return on_message(batch.messages)


def _with_retry(
    target: Target | Reconnector,
    queue: str,
    topology: Topology | None,
    retry: Retry,
    on_error: ErrorPolicy,
) -> Topology:
    """What a consumer brings, and what its retries need."""
    if not isinstance(retry, Retry):
        raise BadType(f"retry must be a Retry, not {type(retry).__name__}")
    if on_error != "reject":
        raise BadArgument("retry decides about failed messages: leave out on_error")
    if topology is not None and not isinstance(topology, Topology):
        raise BadType(f"topology must be a Topology, not {type(topology).__name__}")
    shared = target.topology if isinstance(target, Reconnector) else None
    brought = Topology()
    if topology is not None and topology is not shared:
        brought.update(topology)
    brought.merge(retry.topology(queue, shared, topology))
    return brought


def _position(
    queue: str,
    offset: StreamOffset | None,
    arguments: TableLike | None,
    topology: Topology | None,
    on_error: ErrorPolicy,
) -> StreamPosition | None:
    """Where a consumer of a stream begins; None if the queue is none, as far as is known."""
    if arguments and STREAM_OFFSET in arguments:
        if offset is not None:
            raise BadArgument(f"give either offset or the argument {STREAM_OFFSET}")
        offset = cast(StreamOffset, arguments[STREAM_OFFSET])
    if offset is None:
        declared = topology.get_queue(queue) if isinstance(topology, Topology) else None
        if declared is None or (declared.arguments or {}).get("x-queue-type") != "stream":
            return None
        offset = "next"  # as the broker does, but once only
    position = StreamPosition(offset)
    if on_error == "requeue":
        raise BadArgument('a stream requeues nothing: on_error must be "reject" or "leave"')
    return position


def _check(queue: Any, on_message: Any, prefetch: Any, ack: Any, on_error: Any) -> None:
    encode_shortstr(queue, "queue")
    if not callable(on_message):
        raise BadType(f"on_message must be callable, not {on_message!r}")
    if isgeneratorfunction(on_message) or isasyncgenfunction(on_message):
        raise BadType("on_message must not yield: calling a generator function runs nothing of it")
    checks.prefetch("prefetch", prefetch)
    if ack not in ("auto", "manual"):
        raise BadArgument(f"ack must be auto or manual, not {ack!r}")
    if on_error not in ("reject", "requeue", "leave"):
        raise BadArgument(f"on_error must be reject, requeue or leave, not {on_error!r}")
