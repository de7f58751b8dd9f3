"""pika's Channel on evamqp's: its names, defaults, checks and callback frames, in both styles.

What goes over the wire, and in which order, is evamqp's; which style a call has is ``_eras.py``'s.
"""

from __future__ import annotations

import logging
import struct
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import evamqp

from . import _reasons, exceptions, spec, validators
from ._channel_events import ChannelEvents
from ._channel_requests import ChannelRequests
from ._eras import close_callback, two_styles
from ._properties import BasicProperties, from_message, to_wire
from ._verbs import VERBS
from .frame import Method

if TYPE_CHECKING:
    from .callback import CallbackManager
    from .connection import Connection

LOGGER = logging.getLogger(__name__)

MAX_CHANNELS = 65535

_new: Any = object.__new__
_Deliver = spec.Basic.Deliver
_STATE_NAMES = ("CLOSED", "OPENING", "OPEN", "CLOSING")
# Events that are no method of the protocol.
_ON_CLOSE = "_on_channel_close"
_ON_FLOW = spec.Channel.Flow


class Channel(ChannelRequests):
    """A channel.  ``Connection.channel`` makes it.

    Attributes:
        connection: Its connection.
        channel_number: Its number; also ``int(channel)``.
        callbacks: Who waits for which method.
        flow_active: Whether the broker lets us publish.
    """

    def __init__(
        self,
        connection: Connection,
        channel_number: int,
        on_open_callback: Callable[[Channel], object] | None,
    ) -> None:
        validators.zero_or_greater("channel_number", channel_number)
        validators.rpc_completion_callback(on_open_callback)
        self.connection = connection
        self.channel_number: int = channel_number
        self.callbacks: CallbackManager = connection.callbacks
        self.flow_active = True
        self._era = connection._era
        self._on_open_callback = on_open_callback
        self._on_get: Callable[..., object] | None = None
        self._on_confirm: Callable[[Method], object] | None = None
        self._last_message: evamqp.Message | None = None
        self._last_tag: int | None = None  # of that, until it is acknowledged
        self._consumers: dict[str, None] = {}
        self._cancelled: set[str] = set()
        self._state = self.OPENING
        self._closing_reason: BaseException | None = None
        self._core: evamqp.Channel
        self._publish: Callable[..., int] = self._refuse_publish
        self._handler = ChannelEvents(self)

    def __int__(self) -> int:
        return self.channel_number

    def __repr__(self) -> str:
        state = _STATE_NAMES[self._state]
        return (
            f"<{type(self).__name__} number={self.channel_number} {state} conn={self.connection!r}>"
        )

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._state == self.CLOSED

    @property
    def is_closing(self) -> bool:
        """Whether we have asked for its end."""
        return self._state == self.CLOSING

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._state == self.OPEN

    @property
    def is_opening(self) -> bool:
        """Whether the broker has not opened it yet."""
        return self._state == self.OPENING

    @property
    def consumer_tags(self) -> list[str]:
        """The tags of its consumers."""
        return list(self._consumers)

    # Callbacks

    def add_callback(
        self,
        callback: Callable[..., object],
        replies: Sequence[Any],
        one_shot: bool = True,
    ) -> None:
        """Have ``callback`` called with the frame of any of these methods."""
        for reply in replies:
            self.callbacks.add(self.channel_number, reply, callback, one_shot)

    def add_on_cancel_callback(self, callback: Callable[[Method], object]) -> None:
        """Have it called with the frame by which the broker cancels a consumer."""
        validators.require_callback(callback)
        self.callbacks.add(self.channel_number, spec.Basic.Cancel, callback, one_shot=False)

    def add_on_close_callback(self, callback: Callable[..., object]) -> None:
        """Have it called when the channel has ended: ``(channel, exception)``."""
        validators.require_callback(callback)
        self.callbacks.add(
            self.channel_number, _ON_CLOSE, close_callback(callback, self._era), one_shot=False
        )

    def add_on_flow_callback(self, callback: Callable[[bool], object]) -> None:
        """Have it called when the broker stops publishing here, and when it lets it go on."""
        validators.require_callback(callback)
        self.callbacks.add(self.channel_number, _ON_FLOW, callback, one_shot=False)

    def add_on_return_callback(
        self, callback: Callable[[Channel, Any, BasicProperties, bytes], object]
    ) -> None:
        """Have it called with each message that the broker returns."""
        validators.require_callback(callback)
        self.callbacks.add(self.channel_number, "_on_return", callback, one_shot=False)

    def remove_callback(
        self, callback: Callable[..., object], replies: Sequence[Any] | None = None
    ) -> bool:
        """Undo ``add_callback``, for these methods or for all; whether there was anything."""
        keys = self.callbacks.keys(self.channel_number) if replies is None else replies
        removed = [self._remove(key, callback) for key in keys]
        return any(removed)

    def remove_on_cancel_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_cancel_callback``; whether it was there."""
        return self._remove(spec.Basic.Cancel, callback)

    def remove_on_close_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_close_callback``; whether it was there."""
        return self._remove(_ON_CLOSE, callback)

    def remove_on_flow_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_flow_callback``; whether it was there."""
        return self._remove(_ON_FLOW, callback)

    def remove_on_return_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_return_callback``; whether it was there."""
        return self._remove("_on_return", callback)

    def _remove(self, key: Any, callback: Callable[..., object]) -> bool:
        return self.callbacks.remove_added(self.channel_number, key, callback)

    # Publishing

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None = None,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        """Publish a message; a ``str`` body is sent in UTF-8."""
        if immediate:
            raise exceptions.MethodNotImplemented(
                "immediate: brokers have refused it since RabbitMQ 3.0"
            )
        self._send(exchange, routing_key, body, properties, mandatory)

    def _send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None = None,
        mandatory: bool = False,
    ) -> int:
        """Publish, and return the tag that a confirmation will name."""
        if type(body) is not bytes:
            body = _as_bytes(body)
        try:
            return self._publish(
                exchange,
                routing_key,
                body,
                None if not properties else to_wire(properties),
                True if mandatory else False,  # noqa: SIM210  bool() costs three times as much
            )
        except evamqp.UsageError as error:
            self._publish_refused(error, exchange, routing_key, body, properties, mandatory)
            return 0

    def _publish_refused(
        self, error: evamqp.UsageError, exchange: Any, routing_key: Any, body: bytes,
        properties: BasicProperties | None, mandatory: bool,
    ) -> None:  # fmt: skip
        if isinstance(error, evamqp.WrongThread):
            self._have_done(self.basic_publish, exchange, routing_key, body, properties, mandatory)
            return
        self._raise_if_not_open()
        spec.Basic.Publish(0, exchange, routing_key).encode()  # says in pika's words what is bad
        raise exceptions.AMQPChannelError(str(error)) from error

    def _refuse_publish(self, *arguments: Any) -> NoReturn:
        """In the place of the channel's own while there is nothing to publish on."""
        self._raise_if_not_open()
        raise AssertionError("a channel that is open publishes")

    def confirm_delivery(self, *args: Any, **kwargs: Any) -> None:
        """Have each publish confirmed.

        Args:
            ack_nack_callback: Called with a frame whose method is ``Basic.Ack`` or ``Basic.Nack``.
                A call with ``callback`` alone is 0.x's, and means this one.
            callback: Called with the frame of ``Confirm.SelectOk``.
        """
        if "ack_nack_callback" not in kwargs and "callback" in kwargs and not args:
            self._era.saw_old()
            kwargs["ack_nack_callback"] = kwargs.pop("callback")
        if "nowait" in kwargs or (len(args) == 2 and isinstance(args[1], bool)):
            self._era.saw_old()
            kwargs["callback"] = None
            kwargs.pop("nowait", None)
            args = args[:1]
        self._confirm_delivery(*args, **kwargs)

    def _confirm_delivery(
        self,
        ack_nack_callback: Callable[[Method], object],
        callback: Callable[[Method], object] | None = None,
    ) -> None:
        if not callable(ack_nack_callback):
            raise ValueError(
                "confirm_delivery requires a callback to receive Basic.Ack/Basic.Nack notifications"
            )
        self._raise_if_not_open()
        validators.rpc_completion_callback(callback)
        if not (self.connection.publisher_confirms and self.connection.basic_nack):
            raise exceptions.MethodNotImplemented("Confirm.Select not Supported by Server")
        self._handler.confirm_to(ack_nack_callback)
        self._request(spec.Confirm.Select(), callback)

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
        callback: Callable[[Method], object] | None = None,
    ) -> str:
        """Start a consumer.

        Args:
            on_message_callback: Called with channel, method, properties and body.

        Returns:
            The consumer's tag.

        Raises:
            DuplicateConsumerTag: The channel has one of that tag.
        """
        validators.require_string(queue, "queue")
        validators.require_callback(on_message_callback)
        self._raise_if_not_open()
        validators.rpc_completion_callback(callback)
        if not consumer_tag:
            consumer_tag = f"ctag{self.channel_number}.{uuid.uuid4().hex}"
        if consumer_tag in self._consumers or consumer_tag in self._cancelled:
            raise exceptions.DuplicateConsumerTag(consumer_tag)
        method = spec.Basic.Consume(
            0, queue, consumer_tag, False, auto_ack, exclusive, False, arguments
        )
        method.encode()
        self._call(
            self._core.basic_consume,
            queue,
            self._parser(on_message_callback, bool(auto_ack)),
            bool(auto_ack),
            bool(exclusive),
            consumer_tag,
            VERBS[spec.Basic.Consume].table(arguments),
            callback=partial(self._replied, callback, spec.Basic.ConsumeOk),
        )
        self._consumers[consumer_tag] = None
        return consumer_tag

    def _parser(
        self, on_message: Callable[..., object], auto_ack: bool
    ) -> Callable[[evamqp.Message], object]:
        """What evamqp calls with each message: the callback with views of it."""

        def receive(message: evamqp.Message) -> None:
            method = _new(_Deliver)
            method._message = message
            on_message(self, method, from_message(message), message.body)

        def receive_to_settle(message: evamqp.Message) -> None:
            method = _new(_Deliver)
            method._message = message
            # It will be asked for, to acknowledge this message: by its tag, and mostly at once.
            method.delivery_tag = self._last_tag = message.delivery_tag
            self._last_message = message
            on_message(self, method, from_message(message), message.body)

        return receive if auto_ack else receive_to_settle

    @two_styles("callback consumer_tag nowait")
    def basic_cancel(
        self,
        consumer_tag: str = "",
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Stop a consumer; of an unknown tag it is only warned."""
        validators.require_string(consumer_tag, "consumer_tag")
        self._raise_if_not_open()
        validators.rpc_completion_callback(callback)
        if consumer_tag in self._cancelled:
            return
        if consumer_tag not in self._consumers:
            LOGGER.warning("basic_cancel - consumer not found: %s", consumer_tag)
            return
        self._call(
            self._core.basic_cancel,
            consumer_tag,
            callback=partial(self._cancel_ok, None if nowait else callback),
        )
        self._cancelled.add(consumer_tag)

    def _cancel_ok(self, callback: Callable[[Method], object] | None, consumer_tag: str) -> None:
        self._consumers.pop(consumer_tag, None)
        self._cancelled.discard(consumer_tag)
        self._replied(callback, spec.Basic.CancelOk, consumer_tag)

    @two_styles("callback queue no_ack")
    def basic_get(self, queue: str = "", callback: Any = None, auto_ack: bool = False) -> None:
        """Take one message: ``callback(channel, method, properties, body)``.

        It is not called if the queue is empty; who wants to know adds a callback for
        ``spec.Basic.GetEmpty``.
        """
        validators.require_string(queue, "queue")
        validators.require_callback(callback)
        if self._on_get is not None:
            raise exceptions.DuplicateGetOkCallback()
        self._raise_if_not_open()
        spec.Basic.Get(0, queue, auto_ack).encode()
        self._call(self._core.basic_get, queue, bool(auto_ack), callback=self._got)
        self._on_get = callback

    def _got(self, message: evamqp.Message | None) -> None:
        callback, self._on_get = self._on_get, None
        if message is None:
            self._process(spec.Basic.GetEmpty())
            return
        method = _new(spec.Basic.GetOk)
        method._message = message
        if callback is not None:
            callback(self, method, from_message(message), message.body)

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Acknowledge a message, or all up to the tag."""
        try:
            if delivery_tag == self._last_tag and not multiple:
                # Mostly it is the one that came last, which knows how to be acknowledged fast.
                assert self._last_message is not None
                if not self._last_message.is_settled and self._last_message.ack():
                    self._last_tag = None
                    return
            self._core.basic_ack(delivery_tag, True if multiple else False)  # noqa: SIM210
        except evamqp.UsageError as error:
            self._settle_refused(error, self.basic_ack, spec.Basic.Ack(delivery_tag, multiple))

    def basic_nack(
        self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse a message, or all up to the tag."""
        try:
            self._core.basic_nack(delivery_tag, bool(multiple), bool(requeue))
        except evamqp.UsageError as error:
            method = spec.Basic.Nack(delivery_tag, multiple, requeue)
            self._settle_refused(error, self.basic_nack, method)

    def basic_reject(self, delivery_tag: int = 0, requeue: bool = True) -> None:
        """Refuse a message."""
        self._raise_if_not_open()
        if not isinstance(delivery_tag, int):
            raise TypeError("delivery_tag must be an integer")
        try:
            self._core.basic_reject(delivery_tag, bool(requeue))
        except evamqp.UsageError as error:
            method = spec.Basic.Reject(delivery_tag, requeue)
            self._settle_refused(error, self.basic_reject, method)

    def _settle_refused(
        self, error: evamqp.UsageError, again: Callable[..., None], method: Any
    ) -> None:
        if isinstance(error, evamqp.WrongThread):
            self._have_done(again, *vars(method).values())
            return
        self._raise_if_not_open()
        method.encode()
        raise struct.error(str(error)) from error

    def _have_done(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the loop do what another thread has called.

        pika lets such calls pass, and they mostly work.  Here they work always.
        """

        def call() -> None:
            # It may come too late, when there is no one left to report to.
            with suppress(exceptions.ChannelWrongStateError):
                function(*arguments)

        assert self.connection._core is not None
        self.connection._core.call_soon_threadsafe(call)

    # The end

    def open(self) -> None:
        """Nothing: ``Connection.channel`` has asked for it."""

    def close(self, reply_code: int = 0, reply_text: str = "Normal shutdown") -> None:
        """Close it; requests sent before still get their replies.

        Raises:
            ChannelWrongStateError: It is closing or closed; in 0.x's era nothing is raised.
        """
        if self._era.is_old and (self.is_closed or self.is_closing):
            return
        self._raise_if_not_open()
        self._close(reply_code, reply_text)

    def _close(self, reply_code: int, reply_text: str) -> None:
        self._closing_reason = exceptions.ChannelClosedByClient(reply_code, reply_text)
        self._call(self._core.close, reply_code, reply_text)
        self._enter(self.CLOSING)

    # Inner

    def _attach(self, core: evamqp.Channel) -> None:
        self._core = core
        self.channel_number = core.number

    def _enter(self, state: int) -> None:
        self._state = state
        self._publish = self._refuse_publish
        if state == self.OPEN:
            self._publish = self._core.basic_publish

    def _process(self, method: Any) -> bool:
        frame = Method(self.channel_number, method)
        return self.callbacks.process(self.channel_number, method, self, frame)

    def _opened(self) -> None:
        if self._state == self.OPENING:
            self._enter(self.OPEN)
            if self._on_open_callback is not None:
                self._on_open_callback(self)

    def _ended(self, reason: evamqp.ChannelClosed) -> None:
        error: BaseException = _reasons.channel_closed(reason)
        if isinstance(reason.__cause__, evamqp.ConnectionClosed):
            error = self.connection._reason_of(reason.__cause__)
        if self._closing_reason is not None and reason.by == "client":
            error = self._closing_reason
        elif isinstance(error, exceptions.ConnectionClosedByClient):
            # pika closes the channels of a connection that it closes one by one.
            error = exceptions.ChannelClosedByClient(error.reply_code, error.reply_text)
        self._enter(self.CLOSED)
        self._consumers.clear()
        self._last_message = None
        self._last_tag = None
        self._on_get = None
        try:
            if isinstance(error, exceptions.ChannelClosedByBroker):
                self._process(spec.Channel.Close(error.reply_code, error.reply_text, 0, 0))
            self.callbacks.process(self.channel_number, _ON_CLOSE, self, self, error)
        finally:
            self.callbacks.cleanup(self.channel_number)
            del self.connection._channels[self.channel_number]


def _as_bytes(body: Any) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise AttributeError(f"{type(body).__name__!r} object has no attribute 'encode'")
