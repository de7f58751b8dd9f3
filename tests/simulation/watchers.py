"""Who watches a reconnector: the events that an operator hears, and their order.

Law: attempts count from 1 after each loss until all is up again, and no two connections are open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import evamqp

if TYPE_CHECKING:
    from tests.simulation.world import World


class Watcher(evamqp.Handler):
    """The handler and the events of one reconnector."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._attempt = 0
        self._open: evamqp.Connection | None = None

    @property
    def events(self) -> dict[str, Any]:
        """What a Reconnector, or a client with one of its own, takes by name."""
        return {
            "on_reconnecting": self._reconnecting,
            "on_recovered": self._recovered,
            "on_topology_error": self._topology_error,
        }

    def _wrong(self, what: str) -> None:
        self._world.books.wrong(self._name, what)

    # Of the reconnector

    def _reconnecting(self, attempt: int, delay: float, reason: evamqp.ConnectionClosed) -> None:
        self._world.trace(self._name, f"attempt {attempt} in {delay:.2f} s: {reason}")
        if attempt != self._attempt + 1 or not 0 <= delay <= 60:
            self._wrong(f"attempt {attempt} in {delay} s comes after {self._attempt}")
        self._attempt = attempt

    def _recovered(self, attempts: int, seconds: float) -> None:
        self._world.trace(self._name, f"recovered after {seconds:.2f} s")
        if attempts != self._attempt:
            self._wrong(f"recovered by {attempts} attempts, not {self._attempt}")
        self._attempt = 0

    def _topology_error(self, entity: object, reason: evamqp.ChannelClosed) -> None:
        if reason.by != "broker":
            self._wrong(f"{entity} failed, and not by the broker: {reason}")

    # Of its connections

    def on_open(self, connection: evamqp.Connection) -> None:
        if self._open is not None or not connection.is_open:
            self._wrong(f"{connection!r} opens, but {self._open!r} is open")
        self._open = connection

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        if self._open is not None:
            self._wrong(f"{connection!r} fails to open, but {self._open!r} is open")

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        if self._open not in (None, connection):
            self._wrong(f"{connection!r} closes, but {self._open!r} is open")
        self._open = None
