"""Connections on Tornado's IOLoop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

from evamqp.adapters.tornado import TornadoAdapter

from ..connection import Parameters
from .base_connection import BaseConnection


class TornadoConnection(BaseConnection):
    """A connection on Tornado's IOLoop, which ``ioloop`` is.

    Args:
        parameters: The broker; None means a local one.
        on_open_callback: ``(connection)``.
        on_open_error_callback: ``(connection, exception)``.
        on_close_callback: ``(connection, exception)``, or as 0.x had it.
        custom_ioloop: The IOLoop; None means ``IOLoop.current()``.
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
        self._ioloop: IOLoop = IOLoop.current() if custom_ioloop is None else custom_ioloop
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            TornadoAdapter(self._ioloop),
            internal_connection_workflow,
        )

    @property
    def ioloop(self) -> IOLoop:
        """Tornado's IOLoop."""
        return self._ioloop

    def _after_end(self) -> None:
        if self._stop_on_close:
            self._ioloop.stop()
