"""What connections on asyncio's loop and on Tornado's share: ``ioloop`` is the loop itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..connection import Parameters
from .base_connection import BaseConnection

if TYPE_CHECKING:
    from evamqp.abc import Adapter


class NativeLoopConnection(BaseConnection):
    """A connection on a loop that is not evamqp's.

    Args:
        parameters: The broker; None means a local one.
        on_open_callback: ``(connection)``.
        on_open_error_callback: ``(connection, exception)``.
        on_close_callback: ``(connection, exception)``, or as 0.x had it.
        custom_ioloop: The loop; None means the current one.
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
        self._ioloop = self._current_loop() if custom_ioloop is None else custom_ioloop
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            self._adapter_of(self._ioloop),
            internal_connection_workflow,
        )

    @staticmethod
    @abstractmethod
    def _current_loop() -> Any:
        """The loop of a program that names none."""

    @staticmethod
    @abstractmethod
    def _adapter_of(loop: Any, /) -> Adapter:
        """evamqp's adapter of a loop."""

    @property
    def ioloop(self) -> Any:
        """The loop."""
        return self._ioloop

    def _after_end(self) -> None:
        if self._stop_on_close:
            self._ioloop.stop()
