"""Transaction: publishes and acks of a channel without confirms that count together or not."""

from __future__ import annotations

from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING

from evamqp.compat.aio_pika.pamqp.commands import Tx

if TYPE_CHECKING:
    from evamqp.compat.aio_pika.channel import Channel


class TransactionState(str, Enum):
    """Where a transaction stands."""

    CREATED = "created"
    COMMITED = "commited"
    ROLLED_BACK = "rolled back"
    STARTED = "started"


class Transaction:
    """A transaction; ``async with`` commits, or rolls back when the block raises.

    Args:
        channel: Opened with ``publisher_confirms=False``.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.state: TransactionState = TransactionState.CREATED

    @property
    def channel(self) -> Channel:
        """The channel.

        Raises:
            RuntimeError: It is closed.
        """
        if self._channel.is_closed:
            raise RuntimeError("Closed channel")
        return self._channel

    async def select(self, timeout: float | None = None) -> Tx.SelectOk:
        """Begin."""
        await self.channel.ask(lambda core: core.tx_select(), timeout)
        self.state = TransactionState.STARTED
        return Tx.SelectOk()

    async def commit(self, timeout: float | None = None) -> Tx.CommitOk:
        """Let what was done since count; the next transaction begins."""
        await self.channel.ask(lambda core: core.tx_commit(), timeout)
        self.state = TransactionState.COMMITED
        return Tx.CommitOk()

    async def rollback(self, timeout: float | None = None) -> Tx.RollbackOk:
        """Drop what was done since; the next transaction begins."""
        await self.channel.ask(lambda core: core.tx_rollback(), timeout)
        self.state = TransactionState.ROLLED_BACK
        return Tx.RollbackOk()

    async def __aenter__(self) -> Transaction:
        await self.select()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.commit()
        else:
            await self.rollback()

    def __str__(self) -> str:
        return self.state.value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.value}>"


__all__ = ["Transaction", "TransactionState"]
