"""Messages: those to be published, those that came, and those that came back.

What came is read when it is asked for; how a message is sent is its channel's business.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from itertools import count
from pprint import pformat
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

import evamqp
from evamqp.compat.aio_pika.aiormq.abc import DeliveredMessage
from evamqp.compat.aio_pika.exceptions import ChannelInvalidStateError, MessageProcessError
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.pamqp.commands import Basic
from evamqp.compat.aio_pika.pamqp.header import ContentHeader
from evamqp.compat.aio_pika.tools import DONE

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.channel import Channel

log: logging.Logger = get_logger(__name__)

HeadersType: TypeAlias = dict[str, Any]
DateType: TypeAlias = int | float | datetime | timedelta | None
MessageInfo: TypeAlias = dict[str, Any]
MILLISECONDS = 1000


class DeliveryMode(IntEnum):
    """Whether a durable queue keeps a message on disk."""

    NOT_PERSISTENT = 1
    PERSISTENT = 2


def encode_expiration(value: DateType) -> str | None:
    """Milliseconds as text, of seconds, of a time to come, or of a span of time.

    Raises:
        ValueError: Of anything else.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        now = datetime.now(tz=value.tzinfo)
        value = value - now
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, (int, float)):
        raise ValueError(f"Invalid expiration type: {type(value).__name__}", value)
    return str(int(value * MILLISECONDS))


def decode_expiration(value: str | None) -> float | None:
    """Seconds."""
    return None if value is None else float(value) / MILLISECONDS


def encode_timestamp(value: DateType) -> datetime | None:
    """A time in whole seconds, of seconds since 1970, a time, or a span from now on.

    Raises:
        ValueError: Of anything else.
    """
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, timedelta):
        return datetime.now(tz=timezone.utc) + value
    if not isinstance(value, (int, float)):
        raise ValueError(f"Invalid timestamp type: {type(value).__name__}", value)
    return datetime.fromtimestamp(value, tz=timezone.utc)


def _optional_text(value: Any) -> str | None:
    return str(value) if value else None


# Message ids of our own: a number, and a name for this process.
_ids: Callable[[], int] = count().__next__
_process = ""
# Multiplied by an odd number, numbers stay unique and look different from their first digit on,
# which is as much of an id as logs tend to show.
_SPREAD = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _rename_process() -> None:
    global _process
    _process = uuid4().hex[:16]


_rename_process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rename_process)


class Message:
    """A message to be published.

    Args:
        body: Bytes-like.
        headers: Table of the application.
        content_type: MIME type of the body.
        content_encoding: MIME encoding of the body.
        delivery_mode: None means NOT_PERSISTENT.
        priority: 0..255; None means 0.
        correlation_id: Of the request that this answers; anything but a str is made one.
        reply_to: Queue that an answer should go to.
        expiration: Seconds until a queue drops it, or a time or span.
        message_id: None has one made when it is published.
        timestamp: Seconds since 1970, a time, or a span from now on.
        type: Name of the message's kind.
        user_id: RabbitMQ refuses any name but the connection's own.
        app_id: Name of the sending application.

    Raises:
        ValueError: No delivery mode, expiration or timestamp.
    """

    __slots__ = (
        "_is_locked",
        "app_id",
        "body",
        "content_encoding",
        "content_type",
        "correlation_id",
        "delivery_mode",
        "expiration",
        "headers",
        "message_id",
        "priority",
        "reply_to",
        "timestamp",
        "type",
        "user_id",
    )

    _is_locked: bool
    body: bytes
    headers: HeadersType
    content_type: str | None
    content_encoding: str | None
    delivery_mode: DeliveryMode
    priority: int
    correlation_id: str | None
    reply_to: str | None
    expiration: DateType
    message_id: str | None
    timestamp: datetime | None
    type: str | None
    user_id: str | None
    app_id: str | None

    def __init__(
        self,
        body: bytes,
        *,
        headers: Mapping[str, Any] | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        delivery_mode: DeliveryMode | int | None = None,
        priority: int | None = None,
        correlation_id: Any = None,
        reply_to: str | None = None,
        expiration: DateType = None,
        message_id: str | None = None,
        timestamp: DateType = None,
        type: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
    ) -> None:
        # Set past __setattr__, which asks each time whether the message is locked.
        _set_locked(self, False)
        _set_body(self, body if isinstance(body, bytes) else bytes(body))
        _set_headers(self, headers or {})
        _set_content_type(self, content_type)
        _set_content_encoding(self, content_encoding)
        _set_delivery_mode(self, _MODES[delivery_mode] if delivery_mode in _MODES
                           else DeliveryMode(int(delivery_mode)))  # type: ignore[arg-type]  # fmt: skip
        _set_priority(self, int(priority) if priority else 0)
        _set_correlation_id(self, str(correlation_id) if correlation_id else None)
        _set_reply_to(self, str(reply_to) if reply_to else None)
        _set_expiration(self, expiration)
        _set_message_id(self, str(message_id) if message_id else None)
        _set_timestamp(self, None if timestamp is None else encode_timestamp(timestamp))
        _set_type(self, str(type) if type else None)
        _set_user_id(self, str(user_id) if user_id else None)
        _set_app_id(self, str(app_id) if app_id else None)

    def __setattr__(self, name: str, value: Any) -> None:
        if self.locked and not name.startswith("_"):
            raise ValueError("Message is locked")
        object.__setattr__(self, name, value)

    @property
    def body_size(self) -> int:
        return len(self.body)

    @property
    def headers_raw(self) -> HeadersType:
        """The older name of ``headers``."""
        return self.headers

    @property
    def locked(self) -> bool:
        """Whether attributes may be set no more."""
        return self._is_locked

    def lock(self) -> None:
        """Let nobody set an attribute."""
        _set_locked(self, True)

    @property
    def properties(self) -> Basic.Properties:
        """The properties as pamqp's class has them."""
        return Basic.Properties(
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=self.headers,
            delivery_mode=self.delivery_mode,
            priority=self.priority,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
            expiration=encode_expiration(self.expiration),
            message_id=self.message_id,
            timestamp=self.timestamp,
            message_type=self.type,
            user_id=self.user_id,
            app_id=self.app_id,
            cluster_id="",
        )

    def id_to_send(self) -> str:
        """Its id; one that is made now if it has none."""
        return self.message_id or f"{_ids() * _SPREAD & _MASK:016x}{_process}"

    def encode(self, message_id: str) -> evamqp.Properties:
        """The properties as they are sent."""
        timestamp = self.timestamp
        if timestamp is not None and timestamp.tzinfo is None:
            timestamp = timestamp.replace(tzinfo=timezone.utc)
        return evamqp.Properties(
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=self.headers,
            delivery_mode=self.delivery_mode,
            priority=self.priority,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
            expiration=None if self.expiration is None else encode_expiration(self.expiration),
            message_id=message_id,
            timestamp=timestamp,
            type=self.type,
            user_id=self.user_id,
            app_id=self.app_id,
        )

    def info(self) -> MessageInfo:
        """All of the message but its body, as a dict."""
        return {
            "app_id": self.app_id,
            "body_size": self.body_size,
            "cluster_id": None,
            "consumer_tag": None,
            "content_encoding": self.content_encoding,
            "content_type": self.content_type,
            "correlation_id": self.correlation_id,
            "delivery_mode": self.delivery_mode,
            "delivery_tag": None,
            "exchange": None,
            "expiration": self.expiration,
            "headers": self.headers,
            "message_id": self.message_id,
            "priority": self.priority,
            "redelivered": None,
            "reply_to": self.reply_to,
            "routing_key": None,
            "timestamp": self.timestamp,
            "type": str(self.type),
            "user_id": self.user_id,
        }

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}:{pformat(self.info())}"

    def __iter__(self) -> Iterator[int]:
        return iter(self.body)

    def __copy__(self) -> Message:
        return Message(
            self.body,
            headers=self.headers,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            delivery_mode=self.delivery_mode,
            priority=self.priority,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
            expiration=self.expiration,
            message_id=self.message_id,
            timestamp=self.timestamp,
            type=self.type,
            user_id=self.user_id,
            app_id=self.app_id,
        )


def _setter(name: str, owner: type[Message] = Message) -> Callable[[Message, Any], None]:
    setter: Callable[[Message, Any], None] = getattr(owner, name).__set__
    return setter


_set_locked = _setter("_is_locked")
_set_body = _setter("body")
_set_headers = _setter("headers")
_set_content_type = _setter("content_type")
_set_content_encoding = _setter("content_encoding")
_set_delivery_mode = _setter("delivery_mode")
_set_priority = _setter("priority")
_set_correlation_id = _setter("correlation_id")
_set_reply_to = _setter("reply_to")
_set_expiration = _setter("expiration")
_set_message_id = _setter("message_id")
_set_timestamp = _setter("timestamp")
_set_type = _setter("type")
_set_user_id = _setter("user_id")
_set_app_id = _setter("app_id")

# 0 and None mean the default, as they do in aio-pika.
_MODES: dict[int | None, DeliveryMode] = {
    None: DeliveryMode.NOT_PERSISTENT,
    0: DeliveryMode.NOT_PERSISTENT,
    1: DeliveryMode.NOT_PERSISTENT,
    2: DeliveryMode.PERSISTENT,
}


class IncomingMessage(Message):
    """A message that came.  ``ack()`` and its kind act at the call, awaited or not.

    Args:
        message: A delivery of a test's own making; those of a broker are made by their queue.
        no_ack: Whether it needs no acknowledgement.
    """

    __slots__ = (
        "_acts_on",
        "_channel",
        "_is_processed",
        "_source",
        "cluster_id",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "message_count",
        "redelivered",
        "routing_key",
    )

    # What it is settled by: a message of evamqp, or a channel of the test that made it.
    _acts_on: evamqp.Message | None
    _channel: Any
    _is_processed: bool
    # What it is read from.
    _source: Any
    cluster_id: str | None
    consumer_tag: str | None
    delivery_tag: int | None
    exchange: str | None
    message_count: int | None
    redelivered: bool | None
    routing_key: str | None

    def __init__(self, message: DeliveredMessage, no_ack: bool = False) -> None:
        _set_locked(self, False)
        _set_source(self, _Delivered(message))
        _set_acts_on(self, None)
        _set_channel(self, message.channel)
        _set_processed(self, no_ack or not message.delivery_tag)
        _set_body(self, message.body)

    def __getattr__(self, name: str) -> Any:
        # A slot that is not filled yet ends here.
        read = _READERS.get(name)
        if read is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = read(self._source)
        object.__setattr__(self, name, value)
        return value

    @property
    def locked(self) -> bool:
        return self._is_locked or self.processed

    @property
    def processed(self) -> bool:
        """Whether it was acknowledged or refused, or needs neither."""
        message = self._acts_on
        return self._is_processed if message is None else message.is_settled

    @property
    def channel(self) -> Any:
        """The channel it came on.

        Raises:
            ChannelInvalidStateError: It is closed, and the message with it.
        """
        message = self._acts_on
        if message is not None and message.channel.reason is not None:
            raise ChannelInvalidStateError(f"{self._channel!r} closed")
        return self._channel

    def process(
        self,
        requeue: bool = False,
        reject_on_redelivered: bool = False,
        ignore_processed: bool = False,
    ) -> ProcessContext:
        """For ``async with`` and ``with``: ack at the end, reject when the block raises.

        Args:
            requeue: Have what is rejected delivered again.
            reject_on_redelivered: But only once.
            ignore_processed: Leave alone what the block has settled itself.
        """
        return ProcessContext(
            self,
            requeue=requeue,
            reject_on_redelivered=reject_on_redelivered,
            ignore_processed=ignore_processed,
        )

    def ack(self, multiple: bool = False) -> Coroutine[Any, Any, None]:
        """Acknowledge it.

        Args:
            multiple: All that came before it on its channel as well.

        Raises:
            MessageProcessError: It was settled before.
            TypeError: It needs none (``no_ack``).
            ChannelInvalidStateError: Its channel is gone; the broker delivers it again.
        """
        message = self._acts_on
        if message is None:
            return self._settle_by_channel("basic_ack", multiple=multiple)
        if message.is_settled:
            raise self._settled()
        if not multiple:
            if message.ack():
                return DONE
            raise ChannelInvalidStateError(f"{self._channel!r} closed")
        self._settle_many(message)
        message.channel.basic_ack(message.delivery_tag, True)
        return DONE

    def reject(self, requeue: bool = False) -> Coroutine[Any, Any, None]:
        """Refuse it.  Raises as ``ack`` does.

        Args:
            requeue: Have it delivered again; else it is dropped, or goes to a dead letter exchange.
        """
        message = self._acts_on
        if message is None:
            return self._settle_by_channel("basic_reject", requeue=requeue)
        if message.is_settled:
            raise self._settled()
        if not message.reject(requeue):
            raise ChannelInvalidStateError(f"{self._channel!r} closed")
        return DONE

    def nack(self, multiple: bool = False, requeue: bool = True) -> Coroutine[Any, Any, None]:
        """Refuse it.  Raises as ``ack`` does.

        Args:
            multiple: All that came before it on its channel as well.
            requeue: Have it delivered again; else it is dropped, or goes to a dead letter exchange.
        """
        message = self._acts_on
        if message is None:
            return self._settle_by_channel("basic_nack", multiple=multiple, requeue=requeue)
        if message.is_settled:
            raise self._settled()
        if multiple:
            self._settle_many(message)
            message.channel.basic_nack(message.delivery_tag, True, requeue)
        elif not message.nack(requeue):
            raise ChannelInvalidStateError(f"{self._channel!r} closed")
        return DONE

    def _settle_many(self, message: evamqp.Message) -> None:
        """Note that it is settled by its number, with those before it."""
        if message.channel.reason is not None:
            raise ChannelInvalidStateError(f"{self._channel!r} closed")
        object.__setattr__(self, "_acts_on", None)
        object.__setattr__(self, "_is_processed", True)

    def _settled(self) -> Exception:
        if self._acts_on is not None and self._is_processed:
            return TypeError('the message has the "no_ack" flag: it cannot be settled')
        return MessageProcessError("Message already processed", self)

    def _settle_by_channel(self, method: str, **flags: bool) -> Coroutine[Any, Any, None]:
        if self._is_processed:
            raise self._settled()
        object.__setattr__(self, "_is_processed", True)
        return getattr(self._channel, method)(  # type: ignore[no-any-return]
            delivery_tag=self.delivery_tag, **flags
        )

    def info(self) -> MessageInfo:
        return {
            **super().info(),
            "cluster_id": self.cluster_id,
            "consumer_tag": self.consumer_tag,
            "delivery_tag": self.delivery_tag,
            "exchange": self.exchange,
            "redelivered": self.redelivered,
            "routing_key": self.routing_key,
        }


_set_source = _setter("_source", IncomingMessage)
_set_acts_on = _setter("_acts_on", IncomingMessage)
_set_channel = _setter("_channel", IncomingMessage)
_set_processed = _setter("_is_processed", IncomingMessage)
_new = object.__new__


def incoming(message: evamqp.Message, channel: Channel) -> IncomingMessage:
    """What a queue hands over, of what evamqp does."""
    made = _new(IncomingMessage)
    _set_locked(made, False)
    _set_source(made, message)
    _set_acts_on(made, message)
    _set_channel(made, channel)
    _set_processed(made, message.is_settled)  # from the beginning: it needs no ack
    _set_body(made, message.body)
    return made


class ReturnedMessage(IncomingMessage):
    """A message that no queue took."""

    __slots__ = ()


def returned(back: evamqp.Returned, channel: Channel) -> ReturnedMessage:
    """What return callbacks get."""
    return ReturnedMessage(delivered(back, channel), no_ack=True)


def delivered(back: evamqp.Returned, channel: Channel) -> DeliveredMessage:
    """What came back, as aiormq's class has it."""
    properties = back.properties
    names = [name for name in Basic.Properties.fields if name != "message_type"]
    header = ContentHeader(
        0,
        len(back.body),
        Basic.Properties(
            **{name: getattr(properties, name) for name in names}, message_type=properties.type
        ),
    )
    frame = Basic.Return(back.code, back.text, back.exchange, back.routing_key)
    return DeliveredMessage(frame, header, back.body, channel)


class _Delivered:
    """A DeliveredMessage, read as one of evamqp."""

    __slots__ = ("_message", "properties")

    def __init__(self, message: DeliveredMessage) -> None:
        self._message = message
        self.properties = _Named(message.header.properties)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


class _Named:
    """pamqp's properties under evamqp's names."""

    __slots__ = ("_properties",)

    def __init__(self, properties: Any) -> None:
        self._properties = properties

    def __getattr__(self, name: str) -> Any:
        return getattr(self._properties, "message_type" if name == "type" else name)


def _read_mode(source: Any) -> DeliveryMode:
    is_persistent = source.properties.delivery_mode == DeliveryMode.PERSISTENT
    return DeliveryMode.PERSISTENT if is_persistent else DeliveryMode.NOT_PERSISTENT


# How each attribute is read; what the broker says is the truth, so nothing here may be refused.
_READERS: dict[str, Callable[[Any], Any]] = {
    "headers": lambda source: dict(source.properties.headers or {}),
    "content_type": lambda source: source.properties.content_type,
    "content_encoding": lambda source: source.properties.content_encoding,
    "delivery_mode": _read_mode,
    "priority": lambda source: source.properties.priority or 0,
    "correlation_id": lambda source: _optional_text(source.properties.correlation_id),
    "reply_to": lambda source: _optional_text(source.properties.reply_to),
    "expiration": lambda source: decode_expiration(source.properties.expiration),
    "message_id": lambda source: _optional_text(source.properties.message_id),
    "timestamp": lambda source: source.properties.timestamp,
    "type": lambda source: _optional_text(source.properties.type),
    "user_id": lambda source: _optional_text(source.properties.user_id),
    "app_id": lambda source: _optional_text(source.properties.app_id),
    "cluster_id": lambda source: source.properties.cluster_id or "",
    "consumer_tag": lambda source: source.consumer_tag or None,
    "delivery_tag": lambda source: source.delivery_tag,
    "exchange": lambda source: source.exchange,
    "message_count": lambda source: source.message_count,
    "redelivered": lambda source: source.redelivered,
    "routing_key": lambda source: source.routing_key,
}


class ProcessContext:
    """Settles a message at the end of a block; for ``async with`` and ``with``."""

    __slots__ = ("ignore_processed", "message", "reject_on_redelivered", "requeue")

    def __init__(
        self,
        message: IncomingMessage,
        *,
        requeue: bool,
        reject_on_redelivered: bool,
        ignore_processed: bool,
    ) -> None:
        self.message: IncomingMessage = message
        self.requeue: bool = requeue
        self.reject_on_redelivered: bool = reject_on_redelivered
        self.ignore_processed: bool = ignore_processed

    def __enter__(self) -> IncomingMessage:
        return self.message

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _ = self._settle(kind)  # it acts at the call

    async def __aenter__(self) -> IncomingMessage:
        return self.message

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._settle(kind)

    def _settle(self, kind: type[BaseException] | None) -> Coroutine[Any, Any, None]:
        message = self.message
        if self.ignore_processed and message.processed:
            return DONE
        if kind is None:
            return message.ack()
        once_more = self.requeue and not (self.reject_on_redelivered and message.redelivered)
        # A block that was cancelled has not failed: its message goes back.
        once_more = once_more or not issubclass(kind, Exception)
        try:
            return message.reject(requeue=once_more)
        except ChannelInvalidStateError:
            # What the block raised is what its caller has to see.
            log.warning("a message was not rejected, since its channel is closed")
            return DONE


__all__ = ["IncomingMessage", "Message", "ReturnedMessage"]
