"""The types in signatures.

Only aliases and small value types live here; nothing with behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

#: A value of a field table, as read.
FieldValue: TypeAlias = (
    bool
    | int
    | float
    | Decimal
    | str
    | bytes
    | datetime
    | list["FieldValue"]
    | dict[str, "FieldValue"]
    | None
)
#: A field table, as read.
Table: TypeAlias = dict[str, FieldValue]
#: A field table, as accepted: any mapping to the values above, tuples included.
TableLike: TypeAlias = Mapping[str, object]
#: A message body, as accepted.
Body: TypeAlias = bytes | bytearray | memoryview

#: What a request calls with its result.
Callback: TypeAlias = Callable[[T], object]
#: What a request calls with the exception that ended it.
ErrorCallback: TypeAlias = Callable[[Exception], object]

#: Delivery tags in ascending order; a ``range`` when they are contiguous.
Tags: TypeAlias = Sequence[int]


class DeliveryMode(IntEnum):
    """``Properties.delivery_mode``: whether a durable queue keeps a message on disk."""

    TRANSIENT = 1
    PERSISTENT = 2


class DeclareOk(NamedTuple):
    """The reply to ``queue_declare``: the queue's name, its ready messages and its consumers."""

    queue: str
    message_count: int
    consumer_count: int
