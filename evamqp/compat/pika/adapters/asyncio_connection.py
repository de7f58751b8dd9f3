"""Connections on asyncio's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evamqp.adapters.asyncio import AsyncioAdapter

from ..connection import Parameters
from ._native import current_asyncio_loop
from .base_connection import BaseConnection


class AsyncioConnection(BaseConnection):
    """A connection on asyncio's loop, which ``ioloop`` is.

    Args:
        parameters: The broker; None means a local one.
        on_open_callback: ``(connection)``.
        on_open_error_callback: ``(connection, exception)``.
        on_close_callback: ``(connection, exception)``, or as 0.x had it.
        custom_ioloop: The loop; None means the running one, else the thread's.
        internal_connection_workflow: Connect at once.
        stop_ioloop_on_close: 0.x: stop the loop when the connection has ended.
    """

    def __init__(
        self,
        parameters: Parameters | None = None,
        on_open_callback: Callable[[Any], object] | None = None,
        on_open_error_callback: Callable[[Any, BaseException], object] | None = None,
        on_close_callback: Callable[..., object] | None = None,
        custom_ioloop: Any = None,
        internal_connection_workflow: bool = True,
        stop_ioloop_on_close: bool | None = None,
    ) -> None:
        if isinstance(custom_ioloop, bool):  # 0.x's fifth argument
            stop_ioloop_on_close, custom_ioloop = custom_ioloop, None
        self._stop_on_close = stop_ioloop_on_close
        self._ioloop = current_asyncio_loop() if custom_ioloop is None else custom_ioloop
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            AsyncioAdapter(self._ioloop),
            internal_connection_workflow,
        )

    @property
    def ioloop(self) -> Any:
        """asyncio's loop."""
        return self._ioloop

    def _after_end(self) -> None:
        if self._stop_on_close:
            self._ioloop.stop()
