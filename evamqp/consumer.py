"""A consumer that always comes back: after a lost connection, a closed channel, a deleted queue.

Messages are the broker's until they are settled; nothing is kept here but who is at work.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evamqp.codec.fields import encode_shortstr, encode_table
from evamqp.core.handler import Handler
from evamqp.core.request import Request
from evamqp.errors import BadArgument, BadType, ChannelClosed, WrongState
from evamqp.recovery.backoff import STABLE_AFTER, Backoff
from evamqp.recovery.client import Client
from evamqp.recovery.reconnector import Reconnector, Target, as_reconnector

if TYPE_CHECKING:
    from evamqp.adapters.base import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection
    from evamqp.core.message import Message
    from evamqp.errors import Closed, ConnectionClosed, TopologyFailed
    from evamqp.recovery.topology import Entity, Topology
    from evamqp.types import TableLike

log = logging.getLogger(__name__)

#: When a message is acknowledged: when its handler has succeeded, or by the handler itself.
AckMode: TypeAlias = Literal["auto", "manual"]
#: What becomes of a message whose handler failed: dropped or dead-lettered, delivered again, or
#: left unsettled until the channel ends.
ErrorPolicy: TypeAlias = Literal["reject", "requeue", "leave"]


class Consumer(Client):
    """Consumes a queue over reconnections.

    A message is acknowledged when its handler has returned, or when the awaitable that it returned
    has succeeded, unless the handler has settled it already.  Delivery is at least once: what was
    not acknowledged when a connection was lost is delivered again, so at most ``prefetch``
    messages per loss come twice.  Settling a message of a former connection is a no-op that is
    counted, since the broker has requeued it.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        queue: Name of the queue.
        on_message: Called with each Message.  It may be an async function, or return an awaitable
            of the loop; at most ``prefetch`` messages are at work at a time.
        adapter: The loop; None means the running asyncio loop, or the shared Reconnector's.
        topology: Declared before anything is consumed, on each connection, and again when the
            queue was deleted.
        prefetch: Messages that may be unacknowledged, 1..65535.
        ack: ``"manual"`` leaves settling to the handler.
        on_error: What becomes of a message whose handler raised; the error is logged.
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
        encode_table(arguments, "arguments")
        reconnector, self._is_owner = as_reconnector(
            target,
            adapter,
            on_reconnecting=on_reconnecting,
            on_recovered=on_recovered,
            on_topology_error=on_topology_error,
        )
        super().__init__(reconnector.adapter)
        self.reconnector = reconnector
        self.queue = queue
        self.handled = 0  # handlers that have ended, one way or the other
        self._on_message = on_message
        self._topology = topology
        self._prefetch = prefetch
        self._ack = ack
        self._on_error = on_error
        self._exclusive = exclusive
        self._arguments = arguments
        self._channel: Channel | None = None
        self._tag = ""
        self._is_paused = False
        self._is_closing = False
        self._is_closed = False
        self._at_work: dict[Message, Handle] = {}
        self._backoff = Backoff()
        self._since = 0.0
        self._retry: Handle | None = None
        self._closing: list[Request[int]] = []
        self._close_timer: Handle | None = None
        reconnector.join(self, topology)

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
        """
        self._check_caller("Consumer.pause")
        self._is_paused = True
        self._cancel()

    def resume(self) -> None:
        """Undo pause().  Idempotent.

        Raises:
            WrongState: The consumer is closed or closing.
        """
        self._check_caller("Consumer.resume")
        if self._is_closing:
            raise WrongState("resume: the consumer is closed")
        self._is_paused = False
        self._consume()

    def close(self, timeout: float | None = None) -> Request[int]:
        """Take nothing more, let the handlers at work finish, then disconnect.

        Args:
            timeout: Seconds that handlers may take; then they are cancelled, and their messages
                go back to the queue.  None waits for ever.

        Returns:
            A request for the number of handlers that were cancelled; it never fails.
        """
        self._check_caller("Consumer.close")
        request: Request[int] = Request(self, "Consumer.close")
        if self._is_closed:
            self._owe(request.resolve, 0)
            return request
        self._closing.append(request)
        if timeout is not None:
            if self._close_timer is not None:
                self._close_timer.cancel()
            self._close_timer = self.adapter.call_later(max(0.0, timeout), self._give_up)
        if not self._is_closing:
            self._is_closing = True
            self._cancel()
            self._owe(self._close_if_idle)
        return request

    # Consuming

    def _open_channel(self) -> None:
        """A channel of our own, for prefetch and consumer."""
        self._retry = None
        connection = self.reconnector.connection
        if (
            connection is None
            or not (self.reconnector.is_ready and connection.is_open)
            or self._channel is not None
            or self._is_closed
        ):
            return
        channel = self._channel = connection.channel(_Events(self))
        channel.basic_qos(self._prefetch)
        self._consume()

    def _consume(self) -> None:
        if self._channel is None or self._tag or self._is_paused or self._is_closing:
            return
        self._since = self.adapter.time()
        self._tag = self._channel.basic_consume(
            self.queue,
            self._deliver,
            exclusive=self._exclusive,
            arguments=self._arguments,
            on_cancel=self._cancelled,
        )

    def _cancel(self) -> None:
        tag, self._tag = self._tag, ""
        if tag and self._channel is not None:
            self._channel.basic_cancel(tag)

    def _cancelled(self, tag: str) -> None:
        """The broker cancelled the consumer: its queue was deleted, or moved."""
        if tag != self._tag:
            return
        log.warning("the broker cancelled the consumer of %s", self.queue)
        self._tag = ""
        self._come_back(partial(self._declare_again, self.reconnector.epoch))

    def _come_back(self, step: Callable[[], object]) -> None:
        """Try again, sooner or later."""
        if self.adapter.time() - self._since >= STABLE_AFTER:
            self._backoff.reset()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self.adapter.call_later(self._backoff.next(), step)

    def _declare_again(self, epoch: int) -> None:
        self._retry = None
        if epoch == self.reconnector.epoch and self.reconnector.is_ready:
            self.reconnector.declare(self.reconnector.topology, self._consume)

    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._tag = ""
        connection = self.reconnector.connection
        if connection is not None and connection.is_open and not self._is_closed:
            log.warning("the channel of the consumer of %s closed: %s", self.queue, reason)
            self._come_back(partial(self._reopen, self.reconnector.epoch))

    def _reopen(self, epoch: int) -> None:
        """After a channel error the queue may be missing, so declare first."""
        self._retry = None
        if epoch == self.reconnector.epoch and self.reconnector.is_ready:
            self.reconnector.declare(self.reconnector.topology, self._open_channel)

    # Messages

    def _deliver(self, message: Message) -> None:
        try:
            result = self._on_message(message)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._failed(message, error)
            return
        if isinstance(result, Request):
            result = result.future
        if result is None or not isinstance(result, Awaitable):
            self._succeeded(message)
            return
        # Entered before it starts: an awaitable that has ended already may say so at once.
        self._at_work[message] = _NOTHING
        handle = self.adapter.follow(result, partial(self._ended_work, message))
        if message in self._at_work:
            self._at_work[message] = handle

    def _ended_work(self, message: Message, error: BaseException | None) -> None:
        if self._at_work.pop(message, None) is None:
            return  # cancelled by close(), which left the message to the broker
        if error is None:
            self._succeeded(message)
        else:
            self._failed(message, error)
        self._close_if_idle()

    def _succeeded(self, message: Message) -> None:
        self.handled += 1
        if self._ack == "auto" and not message.is_settled:
            message.ack()

    def _failed(self, message: Message, error: BaseException) -> None:
        self.handled += 1
        log.error("the handler of %r raised %r", message, error, exc_info=error)
        if self._on_error == "leave" or message.is_settled:
            return
        message.reject(requeue=self._on_error == "requeue")

    # Member of the reconnector

    def _connected(self, connection: Connection) -> None:
        self._bind_owner()
        self._open_channel()

    def _disconnected(self, reason: ConnectionClosed) -> None:
        self._bind_owner()
        self._channel = None
        self._tag = ""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _writable(self, writable: bool) -> None:
        """Acknowledgements are not held back."""

    def _ended(self, reason: Closed | TopologyFailed) -> None:
        self._is_closing = True
        self._give_up()

    # The end

    def _close_if_idle(self) -> None:
        if self._is_closing and not self._is_closed and not self._at_work:
            self._finish(0)

    def _give_up(self) -> None:
        if self._is_closed:
            return
        at_work, self._at_work = self._at_work, {}
        for handle in at_work.values():
            handle.cancel()
        self._finish(len(at_work))

    def _finish(self, cancelled: int) -> None:
        self._is_closed = True
        for timer in (self._retry, self._close_timer):
            if timer is not None:
                timer.cancel()
        self.reconnector.leave(self)
        channel, self._channel = self._channel, None
        self._tag = ""
        requests, self._closing = self._closing, []

        def tell(reason: object) -> None:
            for request in requests:
                request.resolve(cancelled)

        if channel is not None:
            channel.close()
        if self._is_owner:
            self.reconnector.close(callback=tell)
        else:
            tell(None)


class _Events(Handler):
    """What a consumer hears of its channel."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        self._consumer._channel_closed(channel, reason)

    def on_consumer_cancel(self, channel: Channel, consumer_tag: str) -> None:
        """Told by the consumer itself."""


class _Nothing:
    """The handle of work that has not started."""

    def cancel(self) -> None:
        """Nothing to cancel."""


_NOTHING = _Nothing()


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
