"""The older place of aiormq's types."""

from __future__ import annotations

from evamqp.compat.aio_pika.aiormq.abc import (
    ArgumentsType,
    ConfirmationFrameType,
    ConsumerCallback,
    DeliveredMessage,
    ExceptionType,
    FieldTable,
    FieldValue,
    ReturnCallback,
    TimeoutType,
)

__all__ = [
    "ArgumentsType",
    "ConfirmationFrameType",
    "ConsumerCallback",
    "DeliveredMessage",
    "ExceptionType",
    "FieldTable",
    "FieldValue",
    "ReturnCallback",
    "TimeoutType",
]
