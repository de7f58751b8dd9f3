"""The blocking channel: evamqp.Channel's verbs, each of which returns what came of it.

How a call waits is ``loop.py``; what a confirm settles is ``publishing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import evamqp
from evamqp.blocking._callbacks import ChannelCallbacks, checked
from evamqp.blocking.message import Message
from evamqp.blocking.publishing import Batch, Publication
from evamqp.blocking.subscription import Subscription
from evamqp.codec.properties import PERSISTENT

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from evamqp.blocking.connection import Connection
    from evamqp.types import Body, TableLike, Tags


class Channel:
    """A channel whose methods wait, and return plain values; ``Connection.channel()`` opens it.

    The verbs are those of evamqp.Channel, where their arguments are explained.  Each waits for the
    broker's answer and returns it.  Each raises what awaiting it would raise: NotExecuted if the
    channel or connection ends first (``reason`` says why), RequestTimeout, and UsageError if
    nothing was sent.  Any thread may call.
    """

    __slots__ = (
        "_completed",
        "_consumers",
        "_core",
        "_defer",
        "_is_confirming",
        "_loop",
        "_publications",
        "connection",
    )

    def __init__(
        self,
        connection: Connection,
        number: int | None,
        **callbacks: Unpack[ChannelCallbacks],
    ) -> None:
        functions = checked(callbacks, ChannelCallbacks)
        self.connection: Connection = connection
        self._loop = loop = connection._loop
        self._defer = connection._due.append
        self._consumers: dict[str, Subscription] = {}
        self._publications: dict[int, Publication] = {}
        self._is_confirming = False
        # The last properties with their completed form: many messages share theirs.
        self._completed: tuple[evamqp.Properties | None, evamqp.Properties | None]
        self._completed = (None, PERSISTENT)
        events = _Events(self, functions)
        with loop.lock:
            self._core = core = loop.perform(
                partial(connection._core.channel, events, number=number)
            )
            loop.drive(events.is_settled)
        if not core.is_open:
            raise self._ended()

    def __repr__(self) -> str:
        return f"<blocking {self._core!r}>"

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._loop.is_forked:
            self.close()

    # What it is

    @property
    def number(self) -> int:
        return self._core.number

    @property
    def is_open(self) -> bool:
        """Whether the broker has opened it, and neither side has closed it."""
        return self._core.is_open

    @property
    def reason(self) -> evamqp.ChannelClosed | None:
        """Why it ended, or is ending; None before."""
        return self._core.reason

    @property
    def unconfirmed(self) -> Tags:
        """Tags of publishes without an outcome, ascending.  Once closed: forever unknown."""
        with self._loop.lock:
            return self._core.unconfirmed

    @property
    def consumer_tags(self) -> list[str]:
        """The consumers that neither side has cancelled."""
        return [
            tag for tag, subscription in self._consumers.items() if not subscription.is_cancelled
        ]

    # Exchanges and queues

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: TableLike | None = None,
    ) -> None:
        """Create an exchange, or check that it exists as described."""
        self._ask(
            self._core.exchange_declare,
            exchange, exchange_type, passive, durable, auto_delete, internal, arguments,
        )  # fmt: skip

    def exchange_delete(self, exchange: str, if_unused: bool = False) -> None:
        """Delete an exchange; one that does not exist is no error."""
        self._ask(self._core.exchange_delete, exchange, if_unused)

    def exchange_bind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
    ) -> None:
        """Route messages from the exchange ``source`` to the exchange ``destination``."""
        self._ask(self._core.exchange_bind, destination, source, routing_key, arguments)

    def exchange_unbind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
    ) -> None:
        """Undo ``exchange_bind`` with the same arguments."""
        self._ask(self._core.exchange_unbind, destination, source, routing_key, arguments)

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: TableLike | None = None,
    ) -> evamqp.DeclareOk:
        """Create a queue, or check that it exists as described."""
        declared: evamqp.DeclareOk = self._ask(
            self._core.queue_declare, queue, passive, durable, exclusive, auto_delete, arguments
        )
        return declared

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: TableLike | None = None
    ) -> None:
        """Route messages from an exchange to a queue."""
        self._ask(self._core.queue_bind, queue, exchange, routing_key, arguments)

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: TableLike | None = None
    ) -> None:
        """Undo ``queue_bind`` with the same arguments."""
        self._ask(self._core.queue_unbind, queue, exchange, routing_key, arguments)

    def queue_purge(self, queue: str) -> int:
        """Drop the messages that are ready in a queue, and return how many there were."""
        count: int = self._ask(self._core.queue_purge, queue)
        return count

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue, and return how many messages it held; a missing one is no error."""
        count: int = self._ask(self._core.queue_delete, queue, if_unused, if_empty)
        return count

    # Publishing

    def confirm_select(self) -> None:
        """Ask the broker to confirm every publish from here on.  publish() does it by itself."""
        self._ask(self._core.confirm_select)
        self._is_confirming = True

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        properties: evamqp.Properties | None = None,
        mandatory: bool = True,
        persistent: bool = True,
    ) -> None:
        """Publish a message, and wait until the broker has taken it.

        The first call puts the channel into confirm mode.

        Args:
            exchange: Name; "" is the default exchange, which routes to the queue of that name.
            routing_key: Up to 255 bytes of UTF-8.
            body: Bytes-like.
            properties: None sends none but the delivery mode, if persistent.
            mandatory: Raise PublishReturned if no queue takes it.  False has the broker drop it
                and confirm it all the same.
            persistent: Give it ``delivery_mode`` 2 if it has none.  Without that, a broker that
                restarts loses it, confirmed or not.

        Raises:
            PublishReturned: No queue took it.
            PublishNacked: The broker refused it.
            NotExecuted: The channel or connection ended first; whether the broker has it is
                unknown.
            UsageError: As evamqp.Channel.basic_publish; nothing was sent.
        """
        loop = self._loop
        publication = Publication(exchange, routing_key, body)
        with loop.lock:
            loop.perform(self._send, publication, properties, mandatory, persistent)
            if not loop.drive(publication.has_ended):
                publication.settle(self._unknown())
        if publication.error is not None:
            raise publication.error

    def batch(self, window: int = 1000) -> Batch:
        """A batch of publishes that share the wait for their confirms: ``with channel.batch()``.

        Args:
            window: Publishes that may be unconfirmed at a time.
        """
        return Batch(self, window)

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        properties: evamqp.Properties | None = None,
        mandatory: bool = False,
    ) -> int:
        """Publish a message without waiting for its confirm; the kernel has it on return.

        Returns:
            The tag that ``on_delivery_confirmation`` will name; 0 outside confirm mode.

        Raises:
            UsageError: As evamqp.Channel.basic_publish; nothing was sent.
        """
        loop = self._loop
        with loop.lock:
            tag = loop.perform(
                self._core.basic_publish, exchange, routing_key, body, properties, mandatory
            )
            loop.flush()
        return tag

    def wait_for_confirms(self) -> list[int]:
        """Wait until every publish so far has its outcome, and return the tags refused."""
        refused: list[int] = self._ask(self._core.wait_for_confirms)
        return refused

    def _send(
        self,
        publication: Publication,
        properties: evamqp.Properties | None,
        mandatory: bool,
        persistent: bool,
    ) -> None:
        """Publish, and report the outcome to ``publication``.  Call with the lock held."""
        core = self._core
        if not self._is_confirming:
            core.confirm_select()
            self._is_confirming = True
        if persistent:
            given, completed = self._completed
            properties = completed if properties is given else self._made_persistent(properties)
        tag = core.basic_publish(
            publication.exchange, publication.routing_key, publication.body, properties, mandatory
        )
        self._publications[tag] = publication

    def _made_persistent(self, properties: evamqp.Properties | None) -> evamqp.Properties | None:
        completed = properties
        if properties is None:
            completed = PERSISTENT
        elif isinstance(properties, evamqp.Properties) and properties.delivery_mode is None:
            completed = properties.replace(delivery_mode=evamqp.DeliveryMode.PERSISTENT)
        self._completed = (properties, completed)
        return completed

    def _unknown(self) -> evamqp.NotExecuted:
        """What a publish gets whose confirm will not come."""
        return evamqp.NotExecuted(f"basic.publish on channel {self.number}", self._ended())

    # Consuming

    def consume(
        self,
        queue: str,
        *,
        prefetch: int = 100,
        inactivity_timeout: float | None = None,
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: TableLike | None = None,
    ) -> Iterator[Message]:
        """Iterate over the messages of a queue.

        Consuming begins with the first message asked for.  When the iteration is left it is
        cancelled, and what it had not handed out goes back to the queue; with ``auto_ack`` that
        is lost.

        Args:
            queue: Name.
            prefetch: Messages that may be unacknowledged, 1..65535; 0 means no limit.
            inactivity_timeout: Seconds without a message after which the iteration ends; None
                waits for ever.
            auto_ack: The broker forgets a message once sent.
            exclusive: Refuse (403) if the queue has consumers, and keep others away.
            consumer_tag: Unique on this channel; "" lets the client make one.
            arguments: For instance ``x-priority``.

        Raises:
            ConsumerCancelled: The broker ended it, for instance because the queue was deleted.
            ChannelClosed, ConnectionClosed: That ended it.
        """
        if prefetch:
            self.basic_qos(prefetch)
        subscription = self.subscribe(queue, auto_ack, exclusive, consumer_tag, arguments)
        try:
            while (message := subscription.get(inactivity_timeout)) is not None:
                yield message
        finally:
            try:
                if self.is_open:
                    subscription.cancel()
            except BaseException:  # of a signal handler
                self._abandon(subscription)
                raise

    def subscribe(
        self,
        queue: str,
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: TableLike | None = None,
    ) -> Subscription:
        """Start a consumer whose messages are asked for one by one; consume() is made of it."""
        return self._subscribe(
            Subscription(self, auto_ack, None), queue, exclusive, consumer_tag, arguments
        )

    def basic_consume(
        self,
        queue: str,
        on_message: Callable[[Message], object],
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: TableLike | None = None,
    ) -> str:
        """Start a consumer whose messages process_events() hands to ``on_message``.

        Returns:
            The consumer tag.
        """
        if not callable(on_message):
            raise evamqp.BadType(f"on_message must be callable, not {on_message!r}")
        subscription = Subscription(self, auto_ack, on_message)
        return self._subscribe(subscription, queue, exclusive, consumer_tag, arguments).tag

    def _subscribe(
        self,
        subscription: Subscription,
        queue: str,
        exclusive: bool,
        consumer_tag: str,
        arguments: TableLike | None,
    ) -> Subscription:
        loop = self._loop
        done: list[object] = []
        errors: list[Exception] = []
        try:
            with loop.lock:
                consume = partial(
                    self._core.basic_consume, callback=done.append, on_error=errors.append
                )
                subscription.tag = loop.call(
                    consume, queue, subscription.receiver(), subscription.auto_ack, exclusive,
                    consumer_tag, arguments,
                )  # fmt: skip
                self._consumers[subscription.tag] = subscription
                loop.drive(lambda: done or errors)
        except BaseException:  # of a signal handler
            self._abandon(subscription)
            raise
        if errors:
            del self._consumers[subscription.tag]
            raise errors[0]
        return subscription

    def _abandon(self, subscription: Subscription) -> None:
        """Cancel it without waiting: a signal ended the wait for it, and nobody else will."""
        loop = self._loop
        with suppress(evamqp.AmqpError), loop.lock:  # the signal may have cost the connection
            is_known = self._consumers.pop(subscription.tag, None) is not None
            if is_known:
                loop.call(self._core.basic_cancel, subscription.tag)
            self._give_back(subscription)
            if is_known:  # else no call was made that noticed an interrupted one
                loop.flush()

    def _give_back(self, subscription: Subscription) -> list[evamqp.Message]:
        """Requeue what nobody has taken; return what cannot be requeued."""
        left = subscription.waiting()
        if left and self._core.is_open and not left[0].is_settled:
            self._loop.call(_requeue, left)
            self._loop.flush()
            left = []
        subscription.clear()
        return left

    def basic_cancel(self, consumer_tag: str) -> list[Message]:
        """Stop a consumer.

        What the broker had sent and nobody has got goes back to the queue.

        Returns:
            Messages of an ``auto_ack`` consumer that nobody has got: they exist nowhere else.
        """
        loop = self._loop
        with loop.lock:
            future = loop.perform(self._core.basic_cancel, consumer_tag).future
            loop.drive(future.done)
            subscription = self._consumers.pop(consumer_tag, None)
            left = [] if subscription is None else self._give_back(subscription)
        future.result()
        return [Message(self, message) for message in left]

    def basic_get(self, queue: str, auto_ack: bool = False) -> Message | None:
        """Take one message from a queue; None if it is empty."""
        message: evamqp.Message | None = self._ask(self._core.basic_get, queue, auto_ack)
        return None if message is None else Message(self, message)

    def basic_qos(self, prefetch_count: int, *, across_consumers: bool = False) -> None:
        """Limit the messages the broker may send before they are acknowledged."""
        self._ask(self._core.basic_qos, prefetch_count, across_consumers=across_consumers)

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Acknowledge by number.  ``Message.ack`` is safer: it knows what was settled."""
        loop = self._loop
        with loop.lock:
            loop.perform(self._core.basic_ack, delivery_tag, multiple)
            loop.flush()

    def basic_nack(
        self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse by number."""
        loop = self._loop
        with loop.lock:
            loop.perform(self._core.basic_nack, delivery_tag, multiple, requeue)
            loop.flush()

    def basic_reject(self, delivery_tag: int, requeue: bool = True) -> None:
        """Refuse one message by number."""
        loop = self._loop
        with loop.lock:
            loop.perform(self._core.basic_reject, delivery_tag, requeue)
            loop.flush()

    def basic_recover(self, requeue: bool = True) -> None:
        """Have all unacknowledged messages of the channel delivered again."""
        self._ask(self._core.basic_recover, requeue)

    # Transactions, flow, close

    def tx_select(self) -> None:
        """Make the channel transactional."""
        self._ask(self._core.tx_select)

    def tx_commit(self) -> None:
        """Commit what was published and acknowledged since the last commit."""
        self._ask(self._core.tx_commit)

    def tx_rollback(self) -> None:
        """Drop what was published and acknowledged since the last commit."""
        self._ask(self._core.tx_rollback)

    def flow(self, active: bool) -> bool:
        """Ask the broker to stop or resume deliveries; returns which is now in force."""
        in_force: bool = self._ask(self._core.flow, active)
        return in_force

    def close(self, code: int = 200, text: str = "closed by the client") -> None:
        """Close the channel, and wait for its end; see evamqp.Channel.close.  Idempotent."""
        self._ask(self._core.close, code, text)

    def _ask(self, verb: Callable[..., Any], *arguments: object, **options: object) -> Any:
        return self.connection._ask(partial(verb, *arguments, **options))

    def _ended(self) -> evamqp.Closed:
        """Why it cannot be used any more."""
        if not self.connection.is_open:
            return self.connection._ended()
        reason = self._core.reason
        assert reason is not None
        return reason.copy()


def _requeue(messages: list[evamqp.Message]) -> None:
    for message in reversed(messages):  # so the queue gets them in order
        message.nack()


class _Events(evamqp.Handler):
    """Receives a channel's events; calls nothing of the user's."""

    def __init__(self, channel: Channel, callbacks: Mapping[str, Callable[..., object]]) -> None:
        self._channel = channel
        self._callbacks = callbacks
        self._is_settled = False

    def is_settled(self) -> bool:
        """Whether it is open, or never will be."""
        return self._is_settled

    def _defer(self, name: str, *arguments: object) -> None:
        function = self._callbacks.get(name)
        if function is not None:
            self._channel._defer(partial(function, self._channel, *arguments))

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self._is_settled = True

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self._is_settled = True
        publications = list(self._channel._publications.values())
        self._channel._publications.clear()
        for publication in publications:
            what = f"basic.publish on channel {channel.number}"
            publication.settle(evamqp.NotExecuted(what, reason))
        self._defer("on_channel_close", reason)
        if self._channel._consumers and self._channel.connection.is_open:
            self._channel.connection._wake()  # who waits for messages waits in vain

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        take = self._channel._publications.pop
        for tag in tags:
            publication = take(tag, None)
            if publication is not None:
                publication.settle(None if acked else evamqp.PublishNacked(f"publish {tag}"))
        if "on_delivery_confirmation" in self._callbacks:
            self._defer("on_delivery_confirmation", tags, acked)

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        for publication in self._channel._publications.values():
            if publication.is_returned(returned):
                publication.error = returned.as_error()
                return
        self._defer("on_return", returned)

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        subscription = self._channel._consumers.get(consumer_tag)
        if subscription is not None:
            subscription.is_cancelled = True
        self._defer("on_consumer_cancel", consumer_tag)
