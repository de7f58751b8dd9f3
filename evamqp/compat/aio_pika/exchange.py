"""Exchange: where messages are published to, and what may be bound to what."""

from __future__ import annotations

from collections.abc import Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from evamqp.compat.aio_pika.pamqp import commands
from evamqp.compat.aio_pika.publishing import PublishResult

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.channel import Channel
    from evamqp.compat.aio_pika.message import Message


class ExchangeType(str, Enum):
    """The types of exchanges; a plugin's may be given as a str."""

    FANOUT = "fanout"
    DIRECT = "direct"
    TOPIC = "topic"
    HEADERS = "headers"
    X_DELAYED_MESSAGE = "x-delayed-message"
    X_CONSISTENT_HASH = "x-consistent-hash"
    X_MODULUS_HASH = "x-modulus-hash"


ExchangeParamType: TypeAlias = Union["Exchange", str]


def get_exchange_name(value: ExchangeParamType) -> str:
    """The name of an exchange, be it an object or a name.

    Raises:
        ValueError: It is neither.
    """
    name = value if isinstance(value, str) else getattr(value, "name", None)
    if not isinstance(name, str):
        raise ValueError(f"exchange must be an Exchange or a str, not {value!r}")
    return name


class Exchange:
    """An exchange of a channel; ``channel.declare_exchange`` makes it."""

    def __init__(
        self,
        channel: Channel,
        name: str,
        type: ExchangeType | str = ExchangeType.DIRECT,
        *,
        auto_delete: bool = False,
        durable: bool = False,
        internal: bool = False,
        passive: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self.channel = channel
        self.name = name
        self._type = type.value if isinstance(type, ExchangeType) else str(type)
        self.auto_delete = auto_delete
        self.durable = durable
        self.internal = internal
        self.passive = passive
        self.arguments: dict[str, Any] = arguments or {}

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}({self}): auto_delete={self.auto_delete}, "
            f"durable={self.durable}, arguments={self.arguments!r}>"
        )

    async def declare(self, timeout: float | None = None) -> commands.Exchange.DeclareOk:
        """Create it, or (``passive``) check that it exists."""
        await self.channel.ask(
            lambda core: core.exchange_declare(
                self.name, self._type, self.passive, self.durable, self.auto_delete,
                self.internal, self.arguments,
            ),
            timeout,
        )  # fmt: skip
        return commands.Exchange.DeclareOk()

    async def bind(
        self,
        exchange: ExchangeParamType,
        routing_key: str = "",
        *,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> commands.Exchange.BindOk:
        """Have it get messages of another exchange."""
        source = get_exchange_name(exchange)
        await self.channel.ask(
            lambda core: core.exchange_bind(self.name, source, routing_key, arguments), timeout
        )
        return commands.Exchange.BindOk()

    async def unbind(
        self,
        exchange: ExchangeParamType,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> commands.Exchange.UnbindOk:
        """Undo ``bind``."""
        source = get_exchange_name(exchange)
        await self.channel.ask(
            lambda core: core.exchange_unbind(self.name, source, routing_key, arguments), timeout
        )
        return commands.Exchange.UnbindOk()

    def publish(
        self,
        message: Message,
        routing_key: str,
        *,
        mandatory: bool = True,
        immediate: bool = False,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, PublishResult]:
        """Publish a message, at the call; await it for what the broker says.

        Args:
            message: The message.
            routing_key: What the exchange's type makes of it.
            mandatory: Have it returned if no queue takes it.
            immediate: No broker implements it.
            timeout: Seconds to wait for the broker's word.

        Returns:
            Basic.Ack; what came back, if no queue took it; None on a channel without confirms.

        Raises:
            DeliveryError: The broker refused it.
            PublishError: No queue took it, on a channel with ``on_return_raises``.
            ChannelInvalidStateError: The channel is closed.
            ValueError: The exchange is internal.
        """
        if self.internal:
            raise ValueError(f"Can not publish to internal exchange: {self.name!r}")
        if immediate:
            raise ValueError("immediate: no broker implements it")
        return self.channel.publish(self.name, message, routing_key, mandatory, timeout)

    async def delete(
        self, if_unused: bool = False, timeout: float | None = None
    ) -> commands.Exchange.DeleteOk:
        """Delete it."""
        await self.channel.exchange_delete(self.name, timeout, if_unused)
        return commands.Exchange.DeleteOk()


__all__ = ["Exchange", "ExchangeParamType", "ExchangeType"]
