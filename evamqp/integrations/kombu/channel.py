"""The channel that kombu's entities call: py-amqp's verbs and argument order on evamqp.Channel.

How a call waits is ``connection.py``; what a message looks like, ``message.py`` if it came and
``publishing.py`` if it goes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from amqp import exceptions as kinds
from kombu.transport.base import StdChannel, to_rabbitmq_queue_arguments

import evamqp
from evamqp.integrations.kombu.consumer import Consumer
from evamqp.integrations.kombu.errors import translate_unasked
from evamqp.integrations.kombu.message import Message
from evamqp.integrations.kombu.publishing import OutgoingMessage, Publication

if TYPE_CHECKING:
    from evamqp.integrations.kombu.connection import Connection
    from evamqp.types import Tags


class Channel(StdChannel):  # type: ignore[misc]
    """A channel; each call waits for the broker's answer, unless ``nowait`` says otherwise.

    Attributes:
        connection: The connection; None once the channel has ended, unless the broker closed it.
        channel_id: Its number.
        events: Functions by event; ``basic_return`` is called with the exception, exchange,
            routing key and message of what no queue took.
        no_ack_consumers: Tags of consumers whose messages need no acknowledgement.
        is_reported: Whether a call has raised why the channel ended.
    """

    connection: Connection | None

    def __init__(self, connection: Connection, number: int | None = None) -> None:
        self.connection = self._connection = connection
        self.events: defaultdict[str, set[Callable[..., object]]] = defaultdict(set)
        self.no_ack_consumers: set[str] = set()
        self._consumers: dict[str, Consumer] = {}
        self._publications: dict[int, Publication] = {}
        self._prefetch = 0
        # Whether it may be opened anew: nothing that it has handed out would mean another message.
        self._may_reopen = True
        self._open(number)

    def _open(self, number: int | None = None) -> None:
        connection = self._connection
        self._is_confirming = self._is_transactional = False
        self.is_reported: bool = False
        events = _Events(self)
        self.core: evamqp.Channel = connection.begin(
            partial(connection.core.channel, events, number=number), events.is_settled
        )
        if not self.core.is_open:
            assert self.core.reason is not None
            raise connection.translate(self.core.reason) from self.core.reason
        self._is_usable = True
        self.channel_id: int = self.core.number
        connection.channels[self.channel_id] = self

    def __repr__(self) -> str:
        return f"<kombu {self.core!r}>"

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        if self.connection is None:
            return False
        return self.core.is_open or (self._may_reopen and self._connection.connected)

    # Exchanges and queues

    def exchange_declare(
        self,
        exchange: str,
        type: str,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Create an exchange, or check that it exists as described."""
        self._ask(
            "exchange_declare", exchange, type, bool(passive), bool(durable), bool(auto_delete),
            False, arguments, nowait=nowait,
        )  # fmt: skip

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange."""
        self._ask("exchange_delete", exchange, bool(if_unused), nowait=nowait)

    def exchange_bind(
        self,
        destination: str,
        source: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Route messages from the exchange ``source`` to the exchange ``destination``."""
        self._ask("exchange_bind", destination, source, routing_key or "", arguments, nowait=nowait)

    def exchange_unbind(
        self,
        destination: str,
        source: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Undo exchange_bind with the same arguments."""
        self._ask(
            "exchange_unbind", destination, source, routing_key or "", arguments, nowait=nowait
        )

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> evamqp.DeclareOk | None:
        """Create a queue, or check that it exists as described; returns name and counts."""
        declared: evamqp.DeclareOk | None = self._ask(
            "queue_declare", queue, bool(passive), bool(durable), bool(exclusive),
            bool(auto_delete), arguments, nowait=nowait,
        )  # fmt: skip
        return declared

    def queue_bind(
        self,
        queue: str,
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Route messages from an exchange to a queue."""
        self._ask("queue_bind", queue, exchange, routing_key or "", arguments, nowait=nowait)

    def queue_unbind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Undo queue_bind with the same arguments."""
        self._ask("queue_unbind", queue, exchange, routing_key or "", arguments)

    def queue_delete(
        self,
        queue: str = "",
        if_unused: bool = False,
        if_empty: bool = False,
        nowait: bool = False,
    ) -> int | None:
        """Delete a queue, and return how many messages it held."""
        count: int | None = self._ask(
            "queue_delete", queue, bool(if_unused), bool(if_empty), nowait=nowait
        )
        return count

    def queue_purge(self, queue: str = "", nowait: bool = False) -> int | None:
        """Drop the messages that are ready in a queue, and return how many there were."""
        count: int | None = self._ask("queue_purge", queue, nowait=nowait)
        return count

    def prepare_queue_arguments(self, arguments: Any, **options: Any) -> Any:
        """kombu's names for RabbitMQ's arguments of queues, such as ``message_ttl``."""
        return to_rabbitmq_queue_arguments(arguments, **options)

    # Publishing

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, object] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> OutgoingMessage:
        """A message for basic_publish()."""
        return OutgoingMessage(
            body,
            {
                "priority": priority,
                "content_type": content_type,
                "content_encoding": content_encoding,
                "application_headers": headers,
                **(properties or {}),
            },
        )

    def basic_publish(
        self,
        msg: OutgoingMessage,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
    ) -> None:
        """Publish a message; with ``confirm_publish``, return when the broker has taken it.

        Args:
            msg: From prepare_message().
            exchange: Name; "" is the default exchange.
            routing_key: Up to 255 bytes of UTF-8.
            mandatory: Tell if no queue takes it: to the functions of ``events["basic_return"]``,
                or, if there are none, by ChannelError.
            immediate: Not offered by RabbitMQ.
            timeout: Seconds to wait at most; None waits for as long as the connection lives.
            confirm_timeout: The same; it comes before ``timeout``.

        Raises:
            MessageNacked: The broker refused it.
            TimeoutError: The confirm did not come in time; whether the broker has it is unknown.
            RecoverableConnectionError: The connection is closed, or ended before the confirm.
            ChannelError: The broker closed the channel over it, or no queue took it.
        """
        if immediate:
            raise kinds.AMQPNotImplementedError("RabbitMQ knows no immediate publishes")
        connection = self._connection if self._is_usable else self._usable()
        body, properties = msg.encode()
        mandatory, routing_key = bool(mandatory), routing_key or ""  # kombu's None means neither
        if self._is_transactional or not connection.confirm_publish:
            try:
                connection.send(
                    self.core.basic_publish, exchange, routing_key, body, properties, mandatory
                )
            except kinds.RecoverableConnectionError:
                if connection.connected and self.core.reason is not None:
                    self._has_ended(self.core.reason)  # if nobody has been told
                raise
        else:
            seconds = timeout if confirm_timeout is None else confirm_timeout
            publication = self._publish(exchange, routing_key, body, properties, mandatory, seconds)
            if publication.returned is not None:
                self._on_return(publication.returned, msg)
        if connection.notices:
            connection.deliver_notices()

    basic_publish_confirm = basic_publish

    def _publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: evamqp.Properties,
        mandatory: bool,
        seconds: float | None,
    ) -> Publication:
        """Publish, and wait for the confirm."""
        connection = self._connection
        publication = Publication(connection.notices)
        loop = connection.loop
        deadline = None if seconds is None else monotonic() + seconds
        try:
            with loop.lock:
                loop.perform(
                    self._send, publication, exchange, routing_key, body, properties, mandatory
                )
                loop.drive(publication.is_due, deadline)
            while connection.notices:
                connection.resume(publication.is_due, deadline)
        except evamqp.AmqpError as error:
            raise connection.translate(error) from error
        if publication.error is not None:
            self.is_reported = True
            raise connection.translate(publication.error) from publication.error
        if not publication.is_settled:
            if loop.is_over:
                raise connection.ended()
            raise TimeoutError(f"basic_publish: no confirm within {seconds:g} s")
        return publication

    def _send(
        self,
        publication: Publication,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: evamqp.Properties,
        mandatory: bool,
    ) -> None:
        core = self.core
        if not self._is_confirming:
            core.confirm_select()
            self._is_confirming = True
        tag = core.basic_publish(exchange, routing_key, body, properties, mandatory)
        self._publications[tag] = publication

    def _on_return(self, returned: evamqp.Returned, message: OutgoingMessage | None = None) -> None:
        error = kinds.ChannelError(returned.text, None, "Basic.return", returned.code)
        functions = self.events["basic_return"]
        if not functions:
            raise error
        if message is None:
            properties = {"application_headers": returned.properties.headers}
            message = OutgoingMessage(returned.body, properties)
        for function in list(functions):
            function(error, returned.exchange, returned.routing_key, message)

    def confirm_select(self, nowait: bool = False) -> None:
        """Ask the broker to confirm publishes."""
        self._ask("confirm_select")
        self._is_confirming = True

    # Consuming

    def basic_consume(
        self,
        queue: str = "",
        consumer_tag: str = "",
        no_local: bool = False,
        no_ack: bool = False,
        exclusive: bool = False,
        nowait: bool = False,
        callback: Callable[[Message], object] | None = None,
        arguments: Mapping[str, object] | None = None,
        on_cancel: Callable[[str], object] | None = None,
    ) -> str:
        """Start a consumer, whose messages come in drain_events(); returns its tag.

        Args:
            queue: Name.
            consumer_tag: Unique on this channel; "" has one made.
            no_local: RabbitMQ has no such thing.
            no_ack: The broker forgets a message once sent.
            exclusive: Refuse (403) if the queue has consumers, and keep others away.
            nowait: Do not wait for the answer; a refusal comes in drain_events().
            callback: Called with each message.
            arguments: For instance ``x-priority``.
            on_cancel: Called with the tag if the broker cancels it; without one, drain_events()
                raises ConsumerCancelled.
        """
        self._usable()
        consumer = Consumer(
            self, queue, consumer_tag, bool(no_ack), bool(exclusive), callback, arguments
        )
        consumer.on_cancel = on_cancel
        consumer.start(self._prefetch, nowait)
        self._may_reopen = False
        self._consumers[consumer.tag] = consumer
        if no_ack:
            self.no_ack_consumers.add(consumer.tag)
        return consumer.tag

    def basic_cancel(self, consumer_tag: str, nowait: bool = False) -> None:
        """Stop a consumer; what it had not handed over goes back to the queue."""
        self._usable()
        consumer = self._forget(consumer_tag)
        if consumer is not None:
            consumer.stop(nowait)

    def basic_get(self, queue: str = "", no_ack: bool = False) -> Message | None:
        """Take one message from a queue; None if it is empty."""
        raw = self._ask("basic_get", queue, bool(no_ack))
        self._may_reopen = self._may_reopen and raw is None
        return None if raw is None else Message(raw, self)

    def message_to_python(self, raw_message: Message) -> Message:
        """The message itself, which is kombu's already."""
        return raw_message

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool) -> None:
        """Limit the messages that may be unacknowledged, also for consumers that run.

        Args:
            prefetch_size: 0; RabbitMQ knows no limit in bytes.
            prefetch_count: Messages, 0..65535; 0 means no limit.
            a_global: One limit for the channel, which a quorum queue refuses.  Otherwise each
                consumer has its own.  The broker keeps the one that a consumer began with, so
                each is started anew.  What it holds already does not count for the new limit.
        """
        if prefetch_size:
            raise kinds.AMQPNotImplementedError("RabbitMQ knows no prefetch_size")
        self._ask("basic_qos", prefetch_count, across_consumers=bool(a_global))
        if not a_global:
            self._prefetch = prefetch_count
            for consumer in list(self._consumers.values()):
                consumer.limit(prefetch_count)

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge; the kernel has it when this returns."""
        connection = self._connection if self._is_usable else self._usable()
        connection.send(self.core.basic_ack, delivery_tag, bool(multiple))

    def basic_nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """Refuse, one or many."""
        self._usable().send(self.core.basic_nack, delivery_tag, bool(multiple), bool(requeue))

    def basic_reject(self, delivery_tag: int, requeue: bool) -> None:
        """Refuse one message."""
        self._usable().send(self.core.basic_reject, delivery_tag, bool(requeue))

    def basic_recover(self, requeue: bool = False) -> None:
        """Have all unacknowledged messages delivered again."""
        self._ask("basic_recover", bool(requeue))

    # Transactions, flow, close

    def tx_select(self) -> None:
        """Make the channel transactional; its publishes are then confirmed by tx_commit()."""
        self._ask("tx_select")
        self._may_reopen = False
        self._is_transactional = True

    def tx_commit(self) -> None:
        """Commit what was published and acknowledged."""
        self._ask("tx_commit")

    def tx_rollback(self) -> None:
        """Drop what was published and acknowledged since the last commit."""
        self._ask("tx_rollback")

    def flow(self, active: bool) -> bool:
        """Ask the broker to stop or resume deliveries."""
        in_force: bool = self._ask("flow", active)
        return in_force

    def close(self) -> None:
        """Close it, and wait for its end.  Idempotent; in a forked child nothing is sent."""
        connection = self.connection
        self.end()
        if connection is not None and connection.connected and self.core.is_open:
            connection.ask(self.core.close)

    def collect(self) -> None:
        """Let go of it; nothing is sent."""
        self.end()

    # Inside

    def end(self) -> None:
        """It cannot be used any more."""
        self.connection = None
        self.suspend()

    def suspend(self) -> None:
        """The broker has closed it; the next call opens it anew, if nothing was delivered."""
        self._is_usable = False
        self._consumers.clear()
        self.no_ack_consumers.clear()
        self._connection.channels.pop(getattr(self, "channel_id", 0), None)

    def _usable(self) -> Connection:
        if not self._is_usable:
            if self.connection is None or not self._may_reopen:
                raise kinds.RecoverableConnectionError("the channel is closed")
            self._open()
        return self._connection

    def _ask(self, name: str, *arguments: Any, nowait: bool = False, **options: Any) -> Any:
        connection = self._usable()
        verb = getattr(self.core, name)
        if nowait:
            connection.send(partial(verb, *arguments, nowait=True, **options))
            return None
        try:
            return connection.ask(verb, *arguments, **options)
        except kinds.AMQPError:
            self.is_reported = True
            raise

    def _forget(self, tag: str) -> Consumer | None:
        self.no_ack_consumers.discard(tag)
        return self._consumers.pop(tag, None)

    def _has_ended(self, reason: evamqp.ChannelClosed) -> None:
        """drain_events() has come to the channel's end."""
        if not self.is_reported:
            self.is_reported = True
            raise translate_unasked(reason) from reason

    def _is_cancelled(self, wire_tag: str) -> None:
        """drain_events() has come to a consumer that the broker cancelled."""
        for tag, consumer in list(self._consumers.items()):
            if consumer.wire_tag == wire_tag:
                self._forget(tag)
                if consumer.on_cancel is None:
                    raise kinds.ConsumerCancelled(tag, (60, 30))
                consumer.on_cancel(tag)


class _Events(evamqp.Handler):
    """Receives a channel's events."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._is_settled = False

    def is_settled(self) -> bool:
        """Whether it is open, or never will be."""
        return self._is_settled

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self._is_settled = True

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self._is_settled = True
        ours = self._channel
        publications = list(ours._publications.values())
        ours._publications.clear()
        for publication in publications:
            publication.error = evamqp.NotExecuted("basic.publish", reason)
            publication.is_settled = True
        if reason.by == "broker" and ours._connection.core.is_open:
            ours.suspend()
            ours._connection.push(ours._has_ended, reason)
        else:
            ours.end()

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        take = self._channel._publications.pop
        for tag in tags:
            publication = take(tag, None)
            if publication is not None:
                if not acked:
                    publication.error = evamqp.PublishNacked(f"publish {tag}")
                publication.is_settled = True

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        ours = self._channel
        # RabbitMQ returns a message right before it confirms it, so it is the oldest one.
        for publication in ours._publications.values():
            if publication.returned is None:
                publication.returned = returned
                return
        ours._connection.push(ours._on_return, returned)

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        self._channel._connection.push(self._channel._is_cancelled, consumer_tag)
