"""A consumer that always comes back: after a lost connection, a closed channel, a deleted queue.

Messages are the broker's until they are settled; nothing is kept here but who is at work.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evamqp.codec.fields import encode_shortstr
from evamqp.core.request import Request
from evamqp.errors import (
    CONTENT_TOO_LARGE,
    RESOURCE_ERROR,
    BadArgument,
    BadType,
    ChannelClosed,
    OutputFull,
    WrongState,
)
from evamqp.recovery.backoff import STABLE_AFTER, Backoff
from evamqp.recovery.failures import Failures
from evamqp.recovery.loop_bound import cancel_all
from evamqp.recovery.reconnecting_client import ChannelEvents, ReconnectingClient
from evamqp.recovery.reconnector import Reconnector, Target
from evamqp.recovery.topology import copy_table
from evamqp.recovery.work import Work, is_interruption, message_at_work

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.message import Message
    from evamqp.errors import ConnectionClosed
    from evamqp.recovery.topology import Entity, Topology
    from evamqp.types import TableLike

log = logging.getLogger(__name__)

# Seconds until a message whose handler was interrupted goes back to its queue: by then a program
# that ends has ended, and one that lives on does not keep it for ever.
INTERRUPTED_DELAY = 1.0
# So often a message above body_max is refused before on_error decides.
OVERSIZED = 2
# So many times ``prefetch`` may be held here before the broker counts as one that ignores it.
EXCESS = 2
# Seconds: so long asyncio may wait for threads when a program ends.
LONGEST_END = 300.0

#: When a message is acknowledged: when its handler has succeeded, or by the handler itself.
AckMode: TypeAlias = Literal["auto", "manual"]
#: What becomes of a message whose handler failed: dropped or dead-lettered, delivered again after
#: a while, or left unsettled until the channel ends.
ErrorPolicy: TypeAlias = Literal["reject", "requeue", "leave"]


class Consumer(ReconnectingClient[int]):
    """Consumes a queue over reconnections.

    A message is acknowledged when its handler has returned, or when the awaitable that it returned
    has succeeded, unless the handler has settled it already.  Delivery is at least once: what was
    not acknowledged when a connection was lost is delivered again, so at most ``prefetch``
    messages per loss come twice.  Settling a message of a former connection is a no-op that is
    counted, since the broker has requeued it.

    Forwarding takes one line: ``return publisher.publish(...)``, also in a list with others.  Only
    CONFIRMED is success; every other Outcome is a failure of the handler.  What a handler returns,
    publishes or their outcomes, decides.  If it returns none, an async handler has failed when a
    publish that it awaited was not confirmed; one that deals with that itself returns the outcome
    that counts, or settles the message.  A publish neither returned nor awaited does not count.

    A handler that is cancelled or interrupted, as when the program ends, has not failed: its
    message goes back to the queue.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        queue: Name of the queue.
        on_message: Called with each Message.  It may be an async function, or return an awaitable
            of the loop; at most ``prefetch`` of these run at a time, those that work on messages
            of a former connection included.
        adapter: The loop; None means the running asyncio loop, or the shared Reconnector's.
        topology: Declared before anything is consumed, on each connection, and again when the
            queue was deleted.
        prefetch: Messages that may be unacknowledged, 1..65535.
        ack: ``"manual"`` leaves settling to the handler.
        on_error: What becomes of a message whose handler failed; the error is logged.  With
            ``"requeue"`` it is held for 0.1 s first, which doubles with each failure of the same
            message up to 30 s, and counts as unacknowledged meanwhile.  Quorum queues drop or
            dead-letter it after their ``x-delivery-limit``.  It also decides about messages above
            ``body_max``: with ``"reject"`` they are rejected unread, from the third time on that
            one comes; with the others the consumer stops then, with an ERROR, until resume().
        exclusive: Refuse other consumers of the queue.
        arguments: For instance ``x-priority``.
        on_reconnecting: See Reconnector, which gets these three unless it is shared.
        on_recovered: See Reconnector.
        on_topology_error: See Reconnector.

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
        )
        self.queue = queue
        self.handled = 0  # messages whose handler has succeeded or failed
        self._on_message = on_message
        self._prefetch = prefetch
        self._ack = ack
        self._on_error = on_error
        self._exclusive = exclusive
        self._arguments = arguments
        self._tag = ""
        self._is_paused = False
        self._at_work: dict[Message, Handle] = {}
        # Those whose handlers wait for our end, and by what.
        self._closers: list[tuple[Message, Request[int]]] = []
        # Messages that came while as many were at work as may be.
        self._waiting: deque[Message] = deque()
        self._returning: dict[Message, Handle] = {}  # those that go back after a while
        self._failures = Failures()
        self._oversized = 0  # messages that were refused for being above body_max
        # When a handler was last interrupted, and ``handled`` at that time.
        self._interrupted: tuple[float, int] | None = None
        self._backoff = Backoff()
        self._since: float | None = None  # when we last began to consume; None if it ended

    def __repr__(self) -> str:
        return f"<Consumer of {self.queue!r}, {self.reconnector.state.value}>"

    @property
    def is_consuming(self) -> bool:
        """Whether a consumer stands on the broker, as far as we know."""
        return bool(self._tag)

    @property
    def at_work(self) -> int:
        """Messages whose awaitable handlers have not ended."""
        return len(self._at_work)

    def pause(self) -> None:
        """Take no further messages until resume().  Idempotent.

        Those that are under way go back to the queue; handlers at work go on.

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
        """Take nothing more, let the handlers at work finish, then disconnect.

        Idempotent: every call gets the same report.  An async handler may await it, and is not
        waited for itself: it goes on when the others have ended, and we disconnect behind it.

        Args:
            timeout: Seconds that handlers may take; then they are cancelled, and their messages
                go back to the queue.  None waits for ever.

        Returns:
            A request for the number of handlers that were cancelled; it never fails.

        Raises:
            BadArgument, BadType: The timeout is no number.
            WrongThread: Not the thread of the loop.
        """
        request = self._close(timeout)
        message = message_at_work()
        if message is not None:
            self._close_for(message, request)
        return request

    def _close_for(self, message: Message, request: Request[int]) -> None:
        """A handler waits for our end, which must not wait for that handler."""
        # Twisted begins it at once, when it does not count as at work yet.
        self._closers.append((message, request))
        self._defer(self._close_if_done)

    # Consuming

    def _open_channel(self) -> None:
        """A channel of our own, for prefetch and consumer."""
        connection = None if self._is_closing else self._ready_connection()
        if connection is None:
            return
        try:
            channel = connection.channel(ChannelEvents(self))
        except (OutputFull, WrongState):  # no number is free, or no room for so much output
            self._come_back(self._open_channel)
            return
        self._channel = channel
        if self._oversized >= OVERSIZED:
            channel._on_oversized_rejected = self._oversized_rejected
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
        try:
            self._tag = channel.basic_consume(
                self.queue,
                self._deliver,
                exclusive=self._exclusive,
                arguments=self._arguments,
                on_cancel=self._cancelled,
            )
        except (OutputFull, WrongState):
            channel.close()  # its end brings us back

    def _cancel(self) -> None:
        """Have what is under way, and what waits here, go back to the queue."""
        tag, self._tag = self._tag, ""
        self._drop_waiting()
        if tag and self._channel is not None:
            try:
                self._channel.basic_cancel(tag)
            except (OutputFull, WrongState):
                self._channel.close()  # which is always possible, and cancels as well

    def _drop_waiting(self) -> None:
        """Have what waits here go back to the queue, unless it is there already."""
        waiting, self._waiting = self._waiting, deque()
        for message in waiting:
            message.nack()

    def _cancelled(self, tag: str) -> None:
        """The broker cancelled the consumer: its queue was deleted, or moved."""
        if tag != self._tag:
            return
        log.warning("the broker cancelled the consumer of %s", self.queue)
        self._tag = ""
        # Those of a consumer that timed out are in the queue again, and would be handled twice.
        self._drop_waiting()
        self._come_back(partial(self._declare, self._consume))

    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel is not self._channel:
            return
        self._forget_channel()
        if reason.code == CONTENT_TOO_LARGE and reason.method == "basic.deliver":
            self._refused_oversized(reason)
        if channel.connection.is_open and not self._is_closing:
            log.warning("the channel of the consumer of %s closed: %s", self.queue, reason)
            # The queue may be missing, so declare first.
            self._come_back(partial(self._declare, self._open_channel))

    def _refused_oversized(self, reason: ChannelClosed) -> None:
        """A message above body_max heads the queue, and would be refused for ever."""
        self._oversized += 1
        if self._oversized < OVERSIZED:
            return
        if self._on_error == "reject":
            log.error("from now on %s has what is too large rejected: %s", self.queue, reason)
        else:
            log.error("stopped consuming %s until resume(): %s", self.queue, reason)
            self._oversized = 0
            self._is_paused = True

    def _oversized_rejected(self, why: str) -> None:
        log.error("a message of %s was rejected: %s", self.queue, why)

    def _forget_channel(self) -> None:
        self._channel = None
        self._tag = ""
        # They are the broker's again.
        self._waiting.clear()
        cancel_all(*self._returning.values())
        self._returning.clear()

    def _come_back(self, step: Callable[[], object]) -> None:
        """Try again, sooner or later."""
        since, self._since = self._since, None
        if since is not None and self.adapter.time() - since >= STABLE_AFTER:
            self._backoff.reset()
        self._try_later(self._backoff.next(), step)

    def _declare(self, step: Callable[[], object]) -> None:
        if not self._is_closing:
            self.reconnector.declare(self, self.reconnector.part_of(self.queue), step)

    # Messages

    def _deliver(self, message: Message) -> None:
        """A message has come.

        ``prefetch`` makes the broker wait for acks; a handler that acks before it has ended, or
        whose connection was lost, is still at work.
        """
        if len(self._at_work) < self._prefetch:
            self._handle(message)
            return
        self._waiting.append(message)
        self._check_prefetch()

    def _check_prefetch(self) -> None:
        """What a broker sends beyond ``prefetch`` must not pile up here: close the channel."""
        held = len(self._waiting) + len(self._returning)
        if held <= EXCESS * self._prefetch or self._channel is None:
            return
        text = f"{held} messages are unacknowledged, though prefetch is {self._prefetch}"
        log.error("the broker ignores what it was asked for %s: %s", self.queue, text)
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
        if self._at_work.pop(message, None) is None:
            return  # cancelled by close(), which left the message to the broker
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
        """The handler has not raised."""
        forward = None if work is None or message.is_settled else work.failed_forward
        if forward is not None:
            log.error("the handler of %r could not forward it: %r", message, forward)
            self._fail(message)
            return
        self.handled += 1
        if self._ack == "auto" and not message.is_settled:
            message.ack()

    def _failed(self, message: Message, error: BaseException) -> None:
        """The handler has raised."""
        if is_interruption(error):
            self._interrupted = (self.adapter.time(), self.handled)
        elif not self._is_ending:
            log.error("the handler of %r raised %r", message, error, exc_info=error)
            self._fail(message)
            return
        log.warning("the handler of %r was interrupted: %r", message, error)
        self._return_later(message, INTERRUPTED_DELAY, message.nack)

    @property
    def _is_ending(self) -> bool:
        """Whether the program may be about to end.

        A handler was interrupted, and none has succeeded since.  Those that begin now may find
        executors and pools closed, which says nothing about their messages.
        """
        if self._interrupted is None:
            return False
        at, handled = self._interrupted
        return self.handled == handled and self.adapter.time() - at < LONGEST_END

    def _fail(self, message: Message) -> None:
        self.handled += 1
        if self._on_error == "reject" and not message.is_settled:
            message.reject(requeue=False)
        elif self._on_error == "requeue":
            self._return_later(message, self._failures.next_delay(message), message.reject)

    def _return_later(
        self, message: Message, delay: float, give_back: Callable[[], object]
    ) -> None:
        """Give a message back after a while, unless it is settled by then.

        RabbitMQ counts a reject against the delivery limit of a quorum queue, a nack it does not.
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
        """Acknowledgements are not held back."""

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
