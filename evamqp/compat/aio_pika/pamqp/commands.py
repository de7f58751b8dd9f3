"""What a broker's answers are to programs: small objects by the names of the specification.

They hold values and compare by them; no codec belongs here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar


class Frame:
    """A method of AMQP with its arguments as attributes."""

    __slots__: tuple[str, ...] = ()
    #: The names of its arguments, in their order.
    fields: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str] = ""

    def __init__(self, *values: Any, **named: Any) -> None:
        for field, value in zip(self.fields, values, strict=False):
            setattr(self, field, value)
        for field in self.fields[len(values) :]:
            setattr(self, field, named.pop(field, None))
        if len(values) > len(self.fields) or named:
            raise TypeError(f"{self.name} has no such argument: {named or values}")

    def __iter__(self) -> Any:
        return iter([(field, getattr(self, field)) for field in self.fields])

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        fields = ", ".join(f"{field}={getattr(self, field)!r}" for field in self.fields)
        return f"<{self.name}({fields})>"


class Connection:
    """Methods of the connection."""

    class UpdateSecretOk(Frame):
        __slots__ = ()
        name = "Connection.UpdateSecretOk"


class Channel:
    """Methods of the channel."""

    class FlowOk(Frame):
        fields: ClassVar[tuple[str, ...]] = ("active",)
        __slots__ = fields
        name = "Channel.FlowOk"
        active: bool

    class CloseOk(Frame):
        __slots__ = ()
        name = "Channel.CloseOk"


class Exchange:
    """Methods of exchanges."""

    class DeclareOk(Frame):
        __slots__ = ()
        name = "Exchange.DeclareOk"

    class DeleteOk(Frame):
        __slots__ = ()
        name = "Exchange.DeleteOk"

    class BindOk(Frame):
        __slots__ = ()
        name = "Exchange.BindOk"

    class UnbindOk(Frame):
        __slots__ = ()
        name = "Exchange.UnbindOk"


class Queue:
    """Methods of queues."""

    class DeclareOk(Frame):
        fields: ClassVar[tuple[str, ...]] = ("queue", "message_count", "consumer_count")
        __slots__ = fields
        name = "Queue.DeclareOk"
        queue: str
        message_count: int
        consumer_count: int

    class BindOk(Frame):
        __slots__ = ()
        name = "Queue.BindOk"

    class UnbindOk(Frame):
        __slots__ = ()
        name = "Queue.UnbindOk"

    class PurgeOk(Frame):
        fields: ClassVar[tuple[str, ...]] = ("message_count",)
        __slots__ = fields
        name = "Queue.PurgeOk"
        message_count: int

    class DeleteOk(Frame):
        fields: ClassVar[tuple[str, ...]] = ("message_count",)
        __slots__ = fields
        name = "Queue.DeleteOk"
        message_count: int


class Confirm:
    """Methods of publisher confirms."""

    class SelectOk(Frame):
        __slots__ = ()
        name = "Confirm.SelectOk"


class Tx:
    """Methods of transactions."""

    class SelectOk(Frame):
        __slots__ = ()
        name = "Tx.SelectOk"

    class CommitOk(Frame):
        __slots__ = ()
        name = "Tx.CommitOk"

    class RollbackOk(Frame):
        __slots__ = ()
        name = "Tx.RollbackOk"


class Basic:
    """Methods of messages."""

    class QosOk(Frame):
        __slots__ = ()
        name = "Basic.QosOk"

    class ConsumeOk(Frame):
        fields: ClassVar[tuple[str, ...]] = ("consumer_tag",)
        __slots__ = fields
        name = "Basic.ConsumeOk"
        consumer_tag: str

    class CancelOk(Frame):
        fields: ClassVar[tuple[str, ...]] = ("consumer_tag",)
        __slots__ = fields
        name = "Basic.CancelOk"
        consumer_tag: str

    class Return(Frame):
        fields: ClassVar[tuple[str, ...]] = ("reply_code", "reply_text", "exchange", "routing_key")
        __slots__ = fields
        name = "Basic.Return"
        reply_code: int
        reply_text: str
        exchange: str
        routing_key: str

    class Deliver(Frame):
        fields: ClassVar[tuple[str, ...]] = (
            "consumer_tag",
            "delivery_tag",
            "redelivered",
            "exchange",
            "routing_key",
        )
        __slots__ = fields
        name = "Basic.Deliver"

    class GetOk(Frame):
        fields: ClassVar[tuple[str, ...]] = (
            "delivery_tag",
            "redelivered",
            "exchange",
            "routing_key",
            "message_count",
        )
        __slots__ = fields
        name = "Basic.GetOk"

    class GetEmpty(Frame):
        fields: ClassVar[tuple[str, ...]] = ("cluster_id",)
        __slots__ = fields
        name = "Basic.GetEmpty"

    class Ack(Frame):
        fields: ClassVar[tuple[str, ...]] = ("delivery_tag", "multiple")
        __slots__ = fields
        name = "Basic.Ack"
        delivery_tag: int
        multiple: bool

        # Its own, since there is one for each message published.
        def __init__(self, delivery_tag: int = 0, multiple: bool = False) -> None:
            self.delivery_tag = delivery_tag
            self.multiple = multiple

    class Nack(Frame):
        fields: ClassVar[tuple[str, ...]] = ("delivery_tag", "multiple", "requeue")
        __slots__ = fields
        name = "Basic.Nack"
        delivery_tag: int
        multiple: bool
        requeue: bool

        def __init__(
            self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True
        ) -> None:
            super().__init__(delivery_tag, multiple, requeue)

    class Reject(Frame):
        fields: ClassVar[tuple[str, ...]] = ("delivery_tag", "requeue")
        __slots__ = fields
        name = "Basic.Reject"
        delivery_tag: int
        requeue: bool

    class RecoverOk(Frame):
        __slots__ = ()
        name = "Basic.RecoverOk"

    class Properties(Frame):
        fields: ClassVar[tuple[str, ...]] = (
            "content_type",
            "content_encoding",
            "headers",
            "delivery_mode",
            "priority",
            "correlation_id",
            "reply_to",
            "expiration",
            "message_id",
            "timestamp",
            "message_type",
            "user_id",
            "app_id",
            "cluster_id",
        )
        __slots__ = fields
        name = "Basic.Properties"
        content_type: str | None
        content_encoding: str | None
        headers: dict[str, Any] | None
        delivery_mode: int | None
        priority: int | None
        correlation_id: str | None
        reply_to: str | None
        expiration: str | None
        message_id: str | None
        timestamp: datetime | None
        message_type: str | None
        user_id: str | None
        app_id: str | None
        cluster_id: str | None


__all__ = ["Basic", "Channel", "Confirm", "Connection", "Exchange", "Frame", "Queue", "Tx"]
