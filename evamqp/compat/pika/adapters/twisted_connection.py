"""Twisted: a protocol for endpoints and factories, channels that answer by Deferreds.

The transport is the program's, made by whatever endpoint it likes; AMQP on it is evamqp's.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet import defer, protocol
from twisted.python.failure import Failure

import evamqp
from evamqp.adapters.twisted import TwistedAdapter

from .. import exceptions, spec
from .._channel_events import confirmation
from .._properties import BasicProperties
from ..channel import Channel
from ..connection import Connection, Parameters
from ..frame import Method
from ._twisted_queue import ClosableDeferredQueue as ClosableDeferredQueue
from ._twisted_transport import ConnectionOnTransport, GivenTransport, TransportGiven

LOGGER = logging.getLogger(__name__)

_new_tuple: Any = tuple.__new__


class ReceivedMessage(NamedTuple):
    """A message that came: of a consumer, of basic_get, or returned."""

    channel: Any
    method: Any
    properties: BasicProperties
    body: bytes


class _Publish:
    """A mandatory publish that is not confirmed yet: what its return would look like."""

    __slots__ = ("body", "exchange", "returned", "routing_key")

    def __init__(self, exchange: str, routing_key: str, body: bytes) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.returned: ReceivedMessage | None = None

    def is_that(self, message: ReceivedMessage) -> bool:
        method = message.method
        return (
            self.returned is None
            and self.body == message.body
            and self.routing_key == method.routing_key
            and self.exchange == method.exchange
        )


def _asking(original: Callable[..., None]) -> Callable[..., defer.Deferred[Any]]:
    """The method of Channel, with a Deferred of its reply in the place of a callback."""

    @functools.wraps(original)
    def ask(self: TwistedChannel, *args: Any, **kwargs: Any) -> defer.Deferred[Any]:
        return self._ask(original, *args, **kwargs)

    return ask


class TwistedChannel:
    """A channel whose requests return Deferreds of the reply's frame.

    Attributes:
        on_closed: A Deferred of the reason, when it has ended.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reason: BaseException | None = None
        self._waiting: dict[defer.Deferred[Any], None] = {}
        self._queues: dict[str, ClosableDeferredQueue] = {}
        self._confirms: dict[int, defer.Deferred[Any]] | None = None
        self._mandatory: dict[int, _Publish] = {}
        self.on_closed: defer.Deferred[Any] = defer.Deferred()
        # So that nothing stands between.
        vars(self)["basic_ack"] = channel.basic_ack
        channel.add_on_close_callback(self._ended)
        channel.add_callback(self._cancelled_by_broker, [spec.Basic.Cancel], one_shot=False)
        channel.callbacks.add(channel.channel_number, "_on_return", self._returned, one_shot=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} channel={self._channel!r}>"

    @property
    def channel_number(self) -> int:
        return self._channel.channel_number

    @property
    def connection(self) -> Connection:
        return self._channel.connection

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    @property
    def is_closing(self) -> bool:
        return self._channel.is_closing

    @property
    def is_open(self) -> bool:
        return self._channel.is_open

    @property
    def flow_active(self) -> bool:
        return self._channel.flow_active

    @property
    def consumer_tags(self) -> list[str]:
        return self._channel.consumer_tags

    # Requests

    exchange_bind: Callable[..., Any] = _asking(Channel.exchange_bind)
    exchange_declare: Callable[..., Any] = _asking(Channel.exchange_declare)
    exchange_delete: Callable[..., Any] = _asking(Channel.exchange_delete)
    exchange_unbind: Callable[..., Any] = _asking(Channel.exchange_unbind)
    queue_bind: Callable[..., Any] = _asking(Channel.queue_bind)
    queue_declare: Callable[..., Any] = _asking(Channel.queue_declare)
    queue_purge: Callable[..., Any] = _asking(Channel.queue_purge)
    queue_unbind: Callable[..., Any] = _asking(Channel.queue_unbind)
    basic_qos: Callable[..., Any] = _asking(Channel.basic_qos)
    basic_recover: Callable[..., Any] = _asking(Channel.basic_recover)
    flow: Callable[..., Any] = _asking(Channel.flow)
    tx_select: Callable[..., Any] = _asking(Channel.tx_select)
    tx_commit: Callable[..., Any] = _asking(Channel.tx_commit)
    tx_rollback: Callable[..., Any] = _asking(Channel.tx_rollback)

    def _ask(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> defer.Deferred[Any]:
        if self._reason is not None:
            return defer.fail(self._reason)
        deferred: defer.Deferred[Any] = defer.Deferred()
        try:
            original(self._channel, *args, callback=functools.partial(self._fire, deferred),
                     **kwargs)  # fmt: skip
        except Exception:
            return defer.fail(Failure())  # type: ignore[no-untyped-call]
        self._waiting[deferred] = None
        return deferred

    def _fire(self, deferred: defer.Deferred[Any], outcome: Any = None) -> None:
        self._waiting.pop(deferred, None)
        if not deferred.called:
            deferred.callback(outcome)

    def callback_deferred(self, deferred: defer.Deferred[Any], replies: Sequence[Any]) -> None:
        """Fire the Deferred with the next frame of any of these methods."""
        self._waiting[deferred] = None
        self._channel.add_callback(functools.partial(self._fire, deferred), replies)

    def queue_delete(self, queue: str, *args: Any, **kwargs: Any) -> defer.Deferred[Any]:
        """Delete a queue; its consumers' queues are closed by the broker's cancel."""
        return self._ask(Channel.queue_delete, queue, *args, **kwargs)

    def confirm_delivery(self) -> defer.Deferred[Any]:
        """From here basic_publish returns a Deferred of the broker's ``Basic.Ack``."""
        if self._confirms is not None:
            return defer.succeed(None)
        deferred = self._ask(Channel._confirm_delivery, _ignore)
        if self._channel._handler is not None and deferred in self._waiting:
            self._confirms = {}
            vars(self._channel._handler)["on_delivery_confirmation"] = self._confirmed
        return deferred

    def basic_get(self, queue: str, auto_ack: bool = False, **old: Any) -> defer.Deferred[Any]:
        """A Deferred of a ReceivedMessage, or of None if the queue is empty."""
        if self._reason is not None:
            return defer.fail(self._reason)
        deferred: defer.Deferred[Any] = defer.Deferred()

        def got(channel: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
            self._fire(deferred, ReceivedMessage(self, method, properties, body))

        def empty(frame: Method) -> None:
            self._fire(deferred, None)

        try:
            self._channel.basic_get(queue, got, old.get("no_ack", auto_ack))
        except Exception:
            return defer.fail(Failure())  # type: ignore[no-untyped-call]
        # Only one can be under way.
        self._channel.callbacks.remove_all(self.channel_number, spec.Basic.GetEmpty)
        self._channel.add_callback(empty, [spec.Basic.GetEmpty])
        self._waiting[deferred] = None
        return deferred

    def basic_consume(
        self,
        queue: str = "",
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: dict[str, Any] | None = None,
        **old: Any,
    ) -> defer.Deferred[Any]:
        """A Deferred of ``(queue, consumer_tag)``; ``queue.get()`` is one of the next message."""
        if self._reason is not None:
            return defer.fail(self._reason)
        auto_ack = old.pop("no_ack", auto_ack)
        if old:
            return defer.fail(TypeError(f"basic_consume: unexpected arguments {sorted(old)}"))
        messages = ClosableDeferredQueue()
        deferred: defer.Deferred[Any] = defer.Deferred()

        def started(frame: Method) -> None:
            self._fire(deferred, (messages, frame.method.consumer_tag))

        try:
            tag = self._channel.basic_consume(
                queue, self._parser(messages), auto_ack, exclusive, consumer_tag, arguments,
                started,
            )  # fmt: skip
        except Exception:
            return defer.fail(Failure())  # type: ignore[no-untyped-call]
        self._queues[tag] = messages
        self._waiting[deferred] = None
        return deferred

    def _parser(self, messages: ClosableDeferredQueue) -> Callable[..., None]:
        put = messages.put

        def receive(channel: Channel, method: Any, properties: Any, body: bytes) -> None:
            if messages.closed is None:
                # The constructor itself costs twice as much.
                put(_new_tuple(ReceivedMessage, (self, method, properties, body)))

        return receive

    def basic_cancel(self, consumer_tag: str = "") -> defer.Deferred[Any]:
        """Stop a consumer; who waits at its queue gets ConsumerCancelled."""
        deferred = self._ask(Channel.basic_cancel, consumer_tag)
        self._close_queue(consumer_tag)
        if deferred in self._waiting and consumer_tag not in self._channel._cancelled:
            self._fire(deferred)  # there is no such consumer, and nothing will answer
        return deferred

    def _close_queue(self, consumer_tag: str) -> None:
        messages = self._queues.pop(consumer_tag, None)
        if messages is not None:
            messages.close(exceptions.ConsumerCancelled())

    def _cancelled_by_broker(self, frame: Method) -> None:
        self._close_queue(frame.method.consumer_tag)

    # Publishing

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None = None,
        mandatory: bool = False,
    ) -> defer.Deferred[Any]:
        """Publish.

        Returns:
            A Deferred of None; after confirm_delivery() of the broker's ``Basic.Ack``.  It fails
            with UnroutableError if this message was returned, with NackError if it was refused.
        """
        if self._reason is not None:
            return defer.fail(self._reason)
        tag = self._channel._send(exchange, routing_key, body, properties, mandatory)
        confirms = self._confirms
        if confirms is None:
            return defer.succeed(None)
        if mandatory:
            sent = body.encode() if isinstance(body, str) else bytes(body)
            self._mandatory[tag] = _Publish(exchange, routing_key, sent)
        deferred = confirms[tag] = defer.Deferred()
        return deferred

    def _confirmed(self, core: evamqp.Channel, tags: Sequence[int], acked: bool) -> None:
        assert self._confirms is not None
        method = confirmation(tags, acked)
        confirms, mandatory = self._confirms, self._mandatory
        for tag in tags:
            deferred = confirms.pop(tag)
            if deferred.called:  # cancelled by its user
                mandatory.pop(tag, None)
            elif acked and not mandatory:
                deferred.callback(method)
            else:
                self._settle(deferred, mandatory.pop(tag, None), method, acked)

    def _settle(
        self, deferred: defer.Deferred[Any], publish: _Publish | None, method: Any, acked: bool
    ) -> None:
        returned = [] if publish is None or publish.returned is None else [publish.returned]
        if not acked:
            deferred.errback(exceptions.NackError(returned))
        elif returned:
            deferred.errback(exceptions.UnroutableError(returned))
        else:
            deferred.callback(method)

    def _returned(
        self, channel: Channel, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        message = ReceivedMessage(self, method, properties, body)
        for publish in self._mandatory.values():
            if publish.is_that(message):
                publish.returned = message
                break

    def add_on_return_callback(self, callback: Callable[[ReceivedMessage], object]) -> None:
        """Have it called with each message that the broker returns."""

        def returned(channel: Channel, method: Any, properties: Any, body: bytes) -> None:
            callback(ReceivedMessage(self, method, properties, body))

        self._channel.add_on_return_callback(returned)

    # Settling, the end

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Acknowledge a message, or all up to the tag."""
        self._channel.basic_ack(delivery_tag, multiple)

    def basic_nack(
        self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse a message, or all up to the tag."""
        self._channel.basic_nack(delivery_tag, multiple, requeue)

    def basic_reject(self, delivery_tag: int, requeue: bool = True) -> None:
        """Refuse a message."""
        self._channel.basic_reject(delivery_tag, requeue)

    def open(self) -> None:
        """Nothing: TwistedProtocolConnection.channel() has asked for it."""

    def close(self, reply_code: int = 0, reply_text: str = "Normal shutdown") -> None:
        """Close it; ``on_closed`` is called when that is done."""
        self._channel.close(reply_code, reply_text)

    def _ended(self, channel: Channel, reason: BaseException) -> None:
        self._reason = reason
        confirms, self._confirms = self._confirms or {}, None
        waiting, self._waiting = self._waiting, {}
        for deferred in (*waiting, *confirms.values()):
            if not deferred.called:
                deferred.errback(reason)
        for messages in self._queues.values():
            messages.close(reason)
        self._queues.clear()
        self._mandatory.clear()
        self.on_closed.callback(reason)


def _ignore(frame: Method) -> None:
    """Confirms are taken from evamqp, which reports each tag."""


class TwistedProtocolConnection(protocol.Protocol):
    """A connection as a Twisted protocol, for endpoints, ClientCreator and client factories.

    Override ``connectionReady`` to be called when it may be used.

    Args:
        parameters: What to ask of the broker; host, port and TLS are the endpoint's.
        custom_reactor: The reactor; None means the installed one.

    Attributes:
        ready: A Deferred of what ``connectionReady`` returns; None once it has fired.
        closed: A Deferred of the reason, once it was open; None before and after.
    """

    def __init__(self, parameters: Parameters | None = None, custom_reactor: Any = None) -> None:
        self.ready: defer.Deferred[Any] | None = defer.Deferred()
        self.closed: defer.Deferred[Any] | None = None
        self._adapter = TransportGiven(TwistedAdapter(custom_reactor))
        self._impl = ConnectionOnTransport(parameters, self._adapter)
        self._impl.add_on_close_callback(self._ended)
        self._given: GivenTransport | None = None
        self._opening: dict[defer.Deferred[Any], None] = {}

    # Called by Twisted

    def makeConnection(self, transport: Any) -> None:
        """The transport is there: shake hands."""
        self._given = self._adapter.take(transport)
        self._impl.begin(self._dialled)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the broker."""
        if self._given is not None:
            self._given.receive(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """The transport is gone."""
        if self._given is not None:
            self._given.lost(reason)

    # For programs

    @property
    def is_open(self) -> bool:
        return self._impl.is_open

    @property
    def is_closed(self) -> bool:
        return self._impl.is_closed

    def connectionReady(self) -> Any:
        """The connection may be used.  What it returns is what ``ready`` fires with."""
        return self

    def channel(self, channel_number: int | None = None) -> defer.Deferred[Any]:
        """A Deferred of an open TwistedChannel.

        Raises:
            ConnectionWrongStateError: The connection is not open.
        """
        deferred: defer.Deferred[Any] = defer.Deferred()

        def opened(channel: Channel) -> None:
            self._opening.pop(deferred, None)
            if not deferred.called:
                deferred.callback(TwistedChannel(channel))

        def failed(channel: Channel, reason: BaseException) -> None:
            if self._opening.pop(deferred, 0) is None and not deferred.called:
                deferred.errback(reason)

        channel = self._impl.channel(channel_number, opened)
        self._opening[deferred] = None
        channel.add_on_close_callback(failed)
        return deferred

    def close(
        self, reply_code: int = 200, reply_text: str = "Normal shutdown"
    ) -> defer.Deferred[Any] | None:
        """Close it; returns ``closed``.

        Raises:
            ConnectionWrongStateError: It is closing or closed.
        """
        self._impl.close(reply_code, reply_text)
        return self.closed

    # Inner

    def _dialled(self, result: Any) -> None:
        ready = self.ready
        if isinstance(result, BaseException):
            self._impl.connection_state = self._impl.CONNECTION_CLOSED
            self.ready = None
            if ready is not None:
                ready.errback(_cause(result))
            return
        self.closed = defer.Deferred()
        # On the next turn of evamqp's, as for every loop: the state is complete by then.
        self._impl.add_on_open_callback(self._tell_ready)

    def _tell_ready(self, connection: Connection) -> None:
        ready, self.ready = self.ready, None
        if ready is not None:
            defer.maybeDeferred(self.connectionReady).chainDeferred(ready)

    def _ended(self, connection: Connection, reason: BaseException) -> None:
        closed, self.closed = self.closed, None
        if closed is not None:
            closed.callback(reason)


def _cause(failed: BaseException) -> BaseException:
    """Of an attempt that failed the AMQP error itself."""
    cause = getattr(failed, "exception", failed)
    if isinstance(cause, exceptions.AMQPError):
        return cause
    return exceptions.AMQPConnectionError(cause)
