"""RobustExchange: an exchange that is declared again on each new connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evamqp.compat.aio_pika.exchange import Exchange, ExchangeParamType, get_exchange_name
from evamqp.compat.aio_pika.pamqp import commands

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.robust_channel import RobustChannel


class RobustExchange(Exchange):
    """An exchange that comes back, with what is bound to it."""

    channel: RobustChannel

    async def bind(
        self,
        exchange: ExchangeParamType,
        routing_key: str = "",
        *,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
        robust: bool = True,
    ) -> commands.Exchange.BindOk:
        """Have it get messages of another exchange.

        Args:
            robust: Bind it again on each new connection.
        """
        bound = await super().bind(exchange, routing_key, arguments=arguments, timeout=timeout)
        if not robust:
            source = get_exchange_name(exchange)
            self.channel.topology.unbind("exchange", self.name, source, routing_key, arguments)
        return bound

    async def restore(self, channel: Any = None) -> None:
        """Declare it now."""
        await self.declare()


__all__ = ["RobustExchange"]
