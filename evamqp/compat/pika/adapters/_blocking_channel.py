"""pika's BlockingChannel on ``evamqp.blocking.Channel``: names, defaults, checks and results."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import evamqp
from evamqp import blocking

from .. import _reasons, exceptions, spec, validators
from .._eras import two_styles
from .._old_reasons import of_era
from .._properties import BasicProperties, from_message, from_wire, to_wire
from .._verbs import VERBS, Verb
from ..channel import _as_bytes
from ..exchange_type import ExchangeType
from ..frame import Method

if TYPE_CHECKING:
    from .blocking_connection import BlockingConnection

T = TypeVar("T")
Delivery = tuple[Any, Any, Any]

_new: Any = object.__new__
_Deliver = spec.Basic.Deliver
_GetOk = spec.Basic.GetOk
_table = Verb.table


class ReturnedMessage:
    """A message that the broker returned.

    Attributes:
        method: The ``Basic.Return``.
        properties: The message's properties.
        body: Its body.
    """

    __slots__ = ("body", "method", "properties")

    def __init__(self, method: Any, properties: BasicProperties, body: bytes) -> None:
        self.method: Any = method
        self.properties: BasicProperties = properties
        self.body: bytes = body


class BlockingChannel:
    """A channel whose calls wait.  ``BlockingConnection.channel`` makes it."""

    def __init__(self, connection: BlockingConnection, channel_number: int | None) -> None:
        self._connection = connection
        self._era = connection._era
        self._on_return: list[Callable[..., object]] = []
        self._on_cancel: list[Callable[[Method], object]] = []
        self._consumers: set[str] = set()
        self._generator: tuple[tuple[str, bool, bool], blocking.Subscription] | None = None
        self._is_confirming = False
        self._is_closed_by_us = False
        self._has_told = False  # whether a call has raised why it ended
        self._impl: blocking.Channel = connection._translate(
            connection._impl.channel, number=channel_number, **self._events()
        )

    def _events(self) -> dict[str, Callable[..., object]]:
        """Who hears what of the channel.

        Reports wait until the program serves the connection, which it may never do.
        """
        return {"on_return": self._returned, "on_consumer_cancel": self._cancelled}

    def __int__(self) -> int:
        return self.channel_number

    def __repr__(self) -> str:
        return f"<{type(self).__name__} impl={self._impl!r}>"

    def __enter__(self) -> BlockingChannel:
        return self

    def __exit__(self, exc_type: Any, value: Any, traceback: Any) -> None:
        if self.is_open:
            self.close()

    # What it is

    @property
    def channel_number(self) -> int:
        """Its number."""
        return self._impl.number

    @property
    def connection(self) -> BlockingConnection:
        """Its connection."""
        return self._connection

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return not self._impl.is_open

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._impl.is_open

    @property
    def consumer_tags(self) -> list[str]:
        """The tags of its consumers."""
        own = [] if self._generator is None else [self._generator[1].tag]
        return [*self._consumers, *own]

    # Callbacks

    def add_on_cancel_callback(self, callback: Callable[[Method], object]) -> None:
        """Have it called with the frame by which the broker cancels a consumer."""
        validators.require_callback(callback)
        self._on_cancel.append(callback)

    def add_on_return_callback(self, callback: Callable[..., object]) -> None:
        """Have it called with returned messages: ``(channel, method, properties, body)``."""
        validators.require_callback(callback)
        self._on_return.append(callback)

    def _returned(self, impl: blocking.Channel, returned: evamqp.Returned) -> None:
        message = _returned_message(returned)
        for callback in self._on_return:
            self._connection._run(callback, self, message.method, message.properties, message.body)

    def _cancelled(self, impl: blocking.Channel, consumer_tag: str) -> None:
        if consumer_tag in self._consumers:
            self._consumers.discard(consumer_tag)
            frame = Method(self.channel_number, spec.Basic.Cancel(consumer_tag, True))
            for callback in self._on_cancel:
                self._connection._run(callback, frame)

    # Publishing

    def confirm_delivery(self, callback: Any = None, nowait: bool = False) -> None:
        """Have every publish wait for its confirm.  The arguments are 0.9's, and not used."""
        self._translate(self._impl.confirm_select)
        self._is_confirming = True

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None = None,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> bool:
        """Publish a message; after ``confirm_delivery`` wait until the broker has taken it.

        Returns:
            True; in 0.x's era False if the broker did not take it.

        Raises:
            UnroutableError: No queue takes it, and it is mandatory.
            NackError: The broker refused it.
        """
        if immediate:
            raise exceptions.MethodNotImplemented(
                "immediate: brokers have refused it since RabbitMQ 3.0"
            )
        try:
            self._publish(exchange, routing_key, body, properties, mandatory)
        except evamqp.PublishFailed as error:
            if self._era.is_old:
                return False
            raise _publish_failed(error, properties, body) from error
        return True

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None = None,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        """0.x: ``basic_publish`` that raises."""
        if not self._is_confirming:
            self.basic_publish(exchange, routing_key, body, properties, mandatory, immediate)
            return
        try:
            self._publish(exchange, routing_key, body, properties, mandatory)
        except evamqp.PublishFailed as error:
            raise _publish_failed(error, properties, body) from error

    def _publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None,
        mandatory: bool,
    ) -> None:
        if type(body) is not bytes:
            self._raise_if_not_open()
            body = _as_bytes(body)
        mandatory = True if mandatory else False  # noqa: SIM210  bool() costs three times as much
        try:
            raw = to_wire(properties) if properties else None
            if self._is_confirming:  # pika leaves the delivery mode to the program
                self._impl.publish(exchange, routing_key, body, raw, mandatory, False)
            else:
                self._impl.basic_publish(exchange, routing_key, body, raw, mandatory)
        except (evamqp.NotExecuted, evamqp.WrongState) as error:
            raise self._translated(error) from error
        except evamqp.UsageError as error:
            spec.Basic.Publish(
                0, exchange, routing_key
            ).encode()  # says in pika's words what is bad
            raise exceptions.AMQPChannelError(str(error)) from error

    # Consuming

    @two_styles("consumer_callback queue no_ack exclusive consumer_tag arguments")
    def basic_consume(
        self,
        queue: str = "",
        on_message_callback: Any = None,
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> str:
        """Start a consumer.

        Args:
            on_message_callback: Called with channel, method, properties and body, while the
                connection is being served.

        Returns:
            The consumer's tag.

        Raises:
            DuplicateConsumerTag: The channel has one of that tag.
        """
        validators.require_string(queue, "queue")
        validators.require_callback(on_message_callback, "on_message_callback")
        tag = self._new_tag(consumer_tag)
        self._translate(
            self._impl.basic_consume,
            queue,
            self._parser(on_message_callback),
            bool(auto_ack),
            bool(exclusive),
            tag,
            _table(arguments),
        )
        self._consumers.add(tag)
        return tag

    def _new_tag(self, consumer_tag: str | None) -> str:
        self._raise_if_not_open()
        if consumer_tag and consumer_tag in self._consumers:
            raise exceptions.DuplicateConsumerTag(consumer_tag)
        return consumer_tag or f"ctag{self.channel_number}.{uuid.uuid4().hex}"

    def _parser(self, on_message: Callable[..., object]) -> Callable[[blocking.Message], object]:
        """What is called with each message: the callback with views of it."""
        connection = self._connection

        def receive(message: blocking.Message) -> None:
            method = _new(_Deliver)
            method._message = message
            connection._dispatching += 1
            try:
                on_message(self, method, from_message(message), message.body)
            finally:
                connection._dispatching -= 1

        return receive

    def basic_cancel(self, consumer_tag: str) -> Sequence[Delivery]:
        """Stop a consumer; of an unknown tag nothing happens.

        Returns:
            What had come for an ``auto_ack`` consumer and was not handed over; other messages go
            back to the queue.
        """
        validators.require_string(consumer_tag, "consumer_tag")
        if consumer_tag not in self._consumers:
            return []
        left = self._translate(self._impl.basic_cancel, consumer_tag)
        self._consumers.discard(consumer_tag)
        return [_delivery(message) for message in left]

    def start_consuming(self) -> None:
        """Serve the connection until no consumer is left.

        Raises:
            ReentrancyError: Called inside a callback.
            AMQPError: Why the channel or the connection has ended.
        """
        self._raise_if_not_open()
        if self._connection._dispatching:
            raise exceptions.ReentrancyError(
                "start_consuming may not be called from the scope of another BlockingConnection or "
                "BlockingChannel callback"
            )
        while self._consumers:
            self._serve(None)

    def stop_consuming(self, consumer_tag: str | None = None) -> None:
        """Cancel one consumer, or all."""
        if self._connection._impl.is_interrupted:  # a signal handler inside another call
            self._connection._impl.call_soon_threadsafe(lambda: self.stop_consuming(consumer_tag))
            return
        for tag in [consumer_tag] if consumer_tag else list(self._consumers):
            self.basic_cancel(tag)
        if self._consumers or self.is_closed:
            return
        # It may have been called while start_consuming() waits, by a signal handler.
        self._connection._impl.call_soon_threadsafe(_nothing)

    def _serve(self, time_limit: float | None) -> None:
        try:
            self._connection.process_data_events(time_limit)
        except exceptions.ConnectionWrongStateError:
            if not self._connection._is_closed_by_us:
                raise
            self._consumers.clear()
        if self.is_closed and not (self._is_closed_by_us or self._connection._is_closed_by_us):
            raise self._why()

    def consume(
        self,
        queue: str = "",
        auto_ack: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        inactivity_timeout: float | None = None,
        consumer_tag: str | None = None,
        no_ack: bool | None = None,
    ) -> Iterator[Any]:
        """Iterate over the messages of a queue: ``(method, properties, body)``.

        Leaving the iteration leaves the consumer; ``cancel()`` ends it.

        Args:
            inactivity_timeout: Seconds without a message after which three None are yielded
                (in 0.x's era one); None waits for ever.
            no_ack: 0.x's name of ``auto_ack``.

        Raises:
            ValueError: There is an iteration with other arguments.
        """
        if no_ack is not None:
            self._era.saw_old()
            auto_ack = no_ack
        self._raise_if_not_open()
        params = (queue, bool(auto_ack), bool(exclusive))
        if self._generator is None:
            subscription = self._translate(
                self._impl.subscribe, *params, self._new_tag(consumer_tag), _table(arguments)
            )
            self._generator = (params, subscription)
        elif self._generator[0] != params:
            raise ValueError(
                "Consume with different params not allowed on existing queue consumer generator; "
                f"previous params: {self._generator[0]!r}; new params: {params!r}"
            )
        while self._generator is not None:
            subscription = self._generator[1]
            try:
                message = self._translate(subscription.get, inactivity_timeout)
            except evamqp.ConsumerCancelled:
                self._generator = None
                return
            if message is not None:
                yield _delivery(message)
            else:
                yield None if self._era.is_old else (None, None, None)

    def get_waiting_message_count(self) -> int:
        """Messages of ``consume()`` that have come and were not handed out."""
        return 0 if self._generator is None else len(self._generator[1])

    def cancel(self) -> int:
        """End ``consume()``.

        Returns:
            How many messages had come and were not handed out; they go back to the queue.
        """
        if self._generator is None:
            return 0
        (_, subscription), self._generator = self._generator, None
        waiting = len(subscription)
        if self.is_open and not subscription.is_cancelled:
            self._translate(subscription.cancel)
        return waiting

    def basic_get(
        self, queue: str = "", auto_ack: bool = False, no_ack: bool | None = None
    ) -> Delivery:
        """Take one message: ``(method, properties, body)``; three None if the queue is empty."""
        if no_ack is not None:
            self._era.saw_old()
            auto_ack = no_ack
        validators.require_string(queue, "queue")
        message = self._translate(self._impl.basic_get, queue, bool(auto_ack))
        if message is None:
            return None, None, None
        method = _new(_GetOk)
        method._message = message
        return method, from_message(message), message.body

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Acknowledge a message, or all up to the tag."""
        try:
            self._impl.basic_ack(delivery_tag, True if multiple else False)  # noqa: SIM210
        except evamqp.UsageError as error:
            self._settle_refused(error, spec.Basic.Ack(delivery_tag, multiple))

    def basic_nack(
        self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse a message, or all up to the tag."""
        try:
            self._impl.basic_nack(delivery_tag, bool(multiple), bool(requeue))
        except evamqp.UsageError as error:
            self._settle_refused(error, spec.Basic.Nack(delivery_tag, multiple, requeue))

    def basic_reject(self, delivery_tag: int = 0, requeue: bool = True) -> None:
        """Refuse a message."""
        self._raise_if_not_open()
        if not isinstance(delivery_tag, int):
            raise TypeError("delivery_tag must be an integer")
        try:
            self._impl.basic_reject(delivery_tag, bool(requeue))
        except evamqp.UsageError as error:
            self._settle_refused(error, spec.Basic.Reject(delivery_tag, requeue))

    def _settle_refused(self, error: evamqp.UsageError, method: Any) -> None:
        if isinstance(error, evamqp.WrongState):
            raise self._translated(error) from error
        method.encode()  # says in pika's words what is bad
        raise exceptions.AMQPChannelError(str(error)) from error

    def basic_qos(
        self,
        prefetch_size: int = 0,
        prefetch_count: int = 0,
        global_qos: bool = False,
        all_channels: bool | None = None,
    ) -> None:
        """Limit what the broker sends before it is acknowledged.

        ``prefetch_size`` other than 0 is refused by RabbitMQ, and is not sent.
        """
        if all_channels is not None:
            self._era.saw_old()
            global_qos = all_channels
        self._raise_if_not_open()
        validators.zero_or_greater("prefetch_size", prefetch_size)
        validators.zero_or_greater("prefetch_count", prefetch_count)
        if prefetch_size:
            raise exceptions.MethodNotImplemented("prefetch_size: RabbitMQ refuses all but 0")
        self._ask(spec.Basic.Qos(prefetch_size, int(prefetch_count), bool(global_qos)))

    def basic_recover(self, requeue: bool = False) -> None:
        """Have what is not acknowledged delivered again; RabbitMQ wants ``requeue``."""
        self._ask(spec.Basic.Recover(requeue))

    # Exchanges and queues

    def exchange_declare(
        self,
        exchange: Any = None,
        exchange_type: str = ExchangeType.direct,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: dict[str, Any] | None = None,
        type: str | None = None,
    ) -> Method:
        """Create an exchange, or check that it is there.  ``type`` is 0.x's."""
        if type is not None:
            self._era.saw_old()
            exchange_type = type
        validators.require_string(exchange, "exchange")
        return self._ask(
            spec.Exchange.Declare(
                0, exchange, exchange_type, passive, durable, auto_delete, internal, False,
                arguments,
            )
        )  # fmt: skip

    def exchange_delete(self, exchange: str | None = None, if_unused: bool = False) -> Method:
        """Delete an exchange."""
        return self._ask(spec.Exchange.Delete(0, exchange, if_unused))

    def exchange_bind(
        self,
        destination: Any = None,
        source: Any = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> Method:
        """Route messages from one exchange to another."""
        validators.require_string(destination, "destination")
        validators.require_string(source, "source")
        return self._ask(spec.Exchange.Bind(0, destination, source, routing_key, False, arguments))

    def exchange_unbind(
        self,
        destination: str | None = None,
        source: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> Method:
        """Undo exchange_bind."""
        return self._ask(
            spec.Exchange.Unbind(0, destination, source, routing_key, False, arguments)
        )

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> Method:
        """Create a queue, or check that it is there; the reply names one that has no name."""
        validators.require_string(queue, "queue")
        return self._ask(
            spec.Queue.Declare(0, queue, passive, durable, exclusive, auto_delete, False, arguments)
        )

    def queue_bind(
        self,
        queue: Any = "",
        exchange: Any = None,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> Method:
        """Route messages from an exchange to a queue; without a key, by the queue's name."""
        validators.require_string(queue, "queue")
        validators.require_string(exchange, "exchange")
        key = queue if routing_key is None else routing_key
        return self._ask(spec.Queue.Bind(0, queue, exchange, key, False, arguments))

    def queue_unbind(
        self,
        queue: Any = "",
        exchange: str | None = None,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> Method:
        """Undo queue_bind."""
        validators.require_string(queue, "queue")
        key = queue if routing_key is None else routing_key
        return self._ask(spec.Queue.Unbind(0, queue, exchange, key, arguments))

    def queue_purge(self, queue: str = "") -> Method:
        """Drop what stands ready in a queue."""
        validators.require_string(queue, "queue")
        return self._ask(spec.Queue.Purge(0, queue))

    def queue_delete(
        self, queue: str = "", if_unused: bool = False, if_empty: bool = False
    ) -> Method:
        """Delete a queue."""
        validators.require_string(queue, "queue")
        return self._ask(spec.Queue.Delete(0, queue, if_unused, if_empty))

    # Transactions, flow, the end

    def tx_select(self) -> Method:
        """Make the channel transactional."""
        return self._ask(spec.Tx.Select())

    def tx_commit(self) -> Method:
        """Commit."""
        return self._ask(spec.Tx.Commit())

    def tx_rollback(self) -> Method:
        """Roll back."""
        return self._ask(spec.Tx.Rollback())

    def flow(self, active: bool) -> bool:
        """Ask the broker to stop or resume deliveries; returns which is in force."""
        return self._translate(self._impl.flow, bool(active))

    def close(self, reply_code: int = 0, reply_text: str = "Normal shutdown") -> None:
        """Close it.

        Raises:
            ChannelWrongStateError: It is closed; in 0.x's era nothing is raised.
        """
        if self._era.is_old and self.is_closed:
            return
        self._raise_if_not_open()
        self._connection_closing()
        self._is_closed_by_us = True
        self._translate(self._impl.close, reply_code, reply_text)
        reason = self._impl.reason
        if reason is not None and reason.by != "client":  # it had ended, and nobody had noticed
            raise of_era(why_closed(reason), self._era)

    # Inner

    def _connection_closing(self) -> None:
        self._consumers.clear()
        self._generator = None

    def _ask(self, method: Any) -> Method:
        """Carry out a request, and return the frame that answers it."""
        self._raise_if_not_open()
        verb = VERBS[type(method)]
        method.encode()  # refuses in pika's words what cannot be sent
        result = self._translate(getattr(self._impl, verb.name), **verb.arguments(method))
        if result is None:
            reply = verb.reply()
        else:
            reply = verb.reply(*result) if isinstance(result, tuple) else verb.reply(result)
        return Method(self.channel_number, reply)

    def _translate(self, verb: Callable[..., T], *arguments: Any, **options: Any) -> T:
        try:
            return verb(*arguments, **options)
        except (evamqp.NotExecuted, evamqp.WrongState, evamqp.Closed) as error:
            raise self._translated(error) from error

    def _translated(self, error: evamqp.AmqpError) -> BaseException:
        """pika's exception for one of ours."""
        if isinstance(error, (evamqp.NotExecuted, evamqp.Closed)):
            return self._why()
        if isinstance(error, evamqp.WrongThread) or self.is_open:
            return self._wrong_state(str(error))
        return self._why_once()

    def _why(self) -> BaseException:
        connection = self._connection
        reason: evamqp.Closed | None = self._impl.reason
        if self._is_closed_by_us or connection._is_closed_by_us or reason is None:
            return self._wrong_state()
        if reason.by == "client":  # a channel's reason does not say that blocked_connection_timeout
            reason = connection._impl.reason or reason  # ended its connection
        why = why_closed(reason)
        if isinstance(why, exceptions.AMQPConnectionError):
            connection._has_told = True
        self._has_told = True
        return of_era(why, self._era)

    def _why_once(self) -> BaseException:
        """Why it ended, unless a call has raised that before; then only that it is closed."""
        has_told = self._has_told or self._connection._has_told
        return self._wrong_state() if has_told else self._why()

    def _raise_if_not_open(self) -> None:
        if not self._impl.is_open:
            raise self._why_once()

    def _wrong_state(self, text: str = "Channel is closed.") -> BaseException:
        return of_era(exceptions.ChannelWrongStateError(text), self._era)


def why_closed(reason: evamqp.Closed) -> exceptions.AMQPError:
    """Why a connection or a channel has ended; what ended the connection ended its channels."""
    cause = reason.__cause__ if isinstance(reason, evamqp.ChannelClosed) else reason
    if isinstance(cause, evamqp.ConnectionClosed):
        return _reasons.connection_closed(cause)
    assert isinstance(reason, evamqp.ChannelClosed)
    return _reasons.channel_closed(reason)


def _nothing() -> None:
    """Makes who serves the connection look whether a consumer is left."""


def _delivery(message: blocking.Message) -> Delivery:
    method = _new(_Deliver)
    method._message = message
    return method, from_message(message), message.body


def _publish_failed(
    error: evamqp.PublishFailed, properties: BasicProperties | None, body: bytes | str
) -> exceptions.AMQPError:
    if not isinstance(error, evamqp.PublishReturned):
        return exceptions.NackError([])
    method = spec.Basic.Return(error.code, error.text, error.exchange, error.routing_key)
    message = ReturnedMessage(method, properties or BasicProperties(), _as_bytes(body))
    return exceptions.UnroutableError([message])


def _returned_message(returned: evamqp.Returned) -> ReturnedMessage:
    method = spec.Basic.Return(*returned[:4])
    return ReturnedMessage(method, from_wire(returned.properties), returned.body)
