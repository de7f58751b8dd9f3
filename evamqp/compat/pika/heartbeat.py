"""Heartbeats are evamqp's; pika's name for who checks them is here for programs that patch it."""

from __future__ import annotations

from typing import Any


class HeartbeatChecker:
    """A view of the heartbeats of one connection.  evamqp sends and checks them by itself.

    Args:
        connection: The connection.
        timeout: Seconds agreed on.
    """

    def __init__(self, connection: Any, timeout: float) -> None:
        if timeout < 1:
            raise ValueError(f"timeout must be at least 1 second, but got {timeout}")
        self._connection = connection
        self._timeout = timeout
        self._seen = self.bytes_received_on_connection

    @property
    def bytes_received_on_connection(self) -> int:
        """Bytes that have come so far."""
        received: int = self._connection.bytes_received
        return received

    @property
    def connection_is_idle(self) -> bool:
        """Whether nothing has come since this object was made, or since ``received``."""
        return self.bytes_received_on_connection == self._seen

    def received(self) -> None:
        """Take what has come for the peer's sign of life."""
        self._seen = self.bytes_received_on_connection

    def stop(self) -> None:
        """Nothing runs that would have to be stopped."""
