"""Types of aiormq that programs annotate with, and DeliveredMessage, which tests are made with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from evamqp.compat.aio_pika.pamqp.commands import Basic, Frame
from evamqp.compat.aio_pika.pamqp.header import ContentHeader

ConfirmationFrameType: TypeAlias = Basic.Ack | Basic.Nack | Basic.Reject
ExceptionType: TypeAlias = BaseException | type[BaseException]
TimeoutType: TypeAlias = float | int | None
ArgumentsType: TypeAlias = dict[str, Any]
FieldTable: TypeAlias = dict[str, Any]
FieldValue: TypeAlias = Any
ConsumerCallback: TypeAlias = Callable[["DeliveredMessage"], Awaitable[Any]]
ReturnCallback: TypeAlias = Callable[["DeliveredMessage"], Any]


@dataclass(frozen=True)
class DeliveredMessage:
    """A message as it came.

    Attributes:
        delivery: Basic.Deliver, Basic.GetOk or Basic.Return.
        header: Its properties.
        body: Its payload.
        channel: Where it came; its ``basic_ack``, ``basic_nack`` and ``basic_reject`` are awaited.
    """

    delivery: Frame
    header: ContentHeader
    body: bytes
    channel: Any

    @property
    def exchange(self) -> str | None:
        return getattr(self.delivery, "exchange", None)

    @property
    def routing_key(self) -> str | None:
        return getattr(self.delivery, "routing_key", None)

    @property
    def consumer_tag(self) -> str | None:
        return getattr(self.delivery, "consumer_tag", None)

    @property
    def delivery_tag(self) -> int | None:
        return getattr(self.delivery, "delivery_tag", None)

    @property
    def redelivered(self) -> bool | None:
        return getattr(self.delivery, "redelivered", None)

    @property
    def message_count(self) -> int | None:
        return getattr(self.delivery, "message_count", None)
