"""The names that programs annotate with, each the class that it stands for.

Nothing is abstract about them here: there is one implementation of each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from evamqp.compat.aio_pika.channel import Channel as AbstractChannel
from evamqp.compat.aio_pika.connection import Connection as AbstractConnection
from evamqp.compat.aio_pika.exchange import Exchange as AbstractExchange
from evamqp.compat.aio_pika.exchange import ExchangeParamType, ExchangeType, get_exchange_name
from evamqp.compat.aio_pika.message import (
    MILLISECONDS,
    DateType,
    DeliveryMode,
    HeadersType,
    MessageInfo,
)
from evamqp.compat.aio_pika.message import IncomingMessage as AbstractIncomingMessage
from evamqp.compat.aio_pika.message import Message as AbstractMessage
from evamqp.compat.aio_pika.message import ProcessContext as AbstractProcessContext
from evamqp.compat.aio_pika.pamqp.commands import Queue as _Queue
from evamqp.compat.aio_pika.publishing import PublishResult as PublishResultType
from evamqp.compat.aio_pika.queue import ConsumerTag
from evamqp.compat.aio_pika.queue import Queue as AbstractQueue
from evamqp.compat.aio_pika.queue import QueueIterator as AbstractQueueIterator
from evamqp.compat.aio_pika.robust_channel import RobustChannel as AbstractRobustChannel
from evamqp.compat.aio_pika.robust_connection import RobustConnection as AbstractRobustConnection
from evamqp.compat.aio_pika.robust_exchange import RobustExchange as AbstractRobustExchange
from evamqp.compat.aio_pika.robust_queue import RobustQueue as AbstractRobustQueue
from evamqp.compat.aio_pika.transaction import Transaction as AbstractTransaction
from evamqp.compat.aio_pika.transaction import TransactionState

DeclarationResult = _Queue.DeclareOk
TimeoutType: TypeAlias = float | int | None
HeadersValue: TypeAlias = Any
Arguments: TypeAlias = dict[str, Any] | None
SSLOptions: TypeAlias = dict[str, Any]
ExceptionType: TypeAlias = BaseException | type[BaseException]
CallbackType: TypeAlias = Callable[..., Any]
ChannelCloseCallback: TypeAlias = Callable[[AbstractChannel, BaseException | None], Any]
ConnectionCloseCallback: TypeAlias = Callable[[AbstractConnection, BaseException | None], Any]
GetMessageCallback: TypeAlias = Callable[[AbstractIncomingMessage], Awaitable[Any]]

__all__ = [
    "MILLISECONDS",
    "AbstractChannel",
    "AbstractConnection",
    "AbstractExchange",
    "AbstractIncomingMessage",
    "AbstractMessage",
    "AbstractProcessContext",
    "AbstractQueue",
    "AbstractQueueIterator",
    "AbstractRobustChannel",
    "AbstractRobustConnection",
    "AbstractRobustExchange",
    "AbstractRobustQueue",
    "AbstractTransaction",
    "Arguments",
    "CallbackType",
    "ChannelCloseCallback",
    "ConnectionCloseCallback",
    "ConsumerTag",
    "DateType",
    "DeclarationResult",
    "DeliveryMode",
    "ExceptionType",
    "ExchangeParamType",
    "ExchangeType",
    "GetMessageCallback",
    "HeadersType",
    "HeadersValue",
    "MessageInfo",
    "PublishResultType",
    "SSLOptions",
    "TimeoutType",
    "TransactionState",
    "get_exchange_name",
]
