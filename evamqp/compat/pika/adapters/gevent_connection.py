"""pika's GeventConnection: the select adapter, whose waits gevent makes its own.

It needs ``gevent.monkey.patch_all()`` before evamqp is imported; then each loop runs in a greenlet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..connection import Parameters
from .select_connection import SelectConnection

LOGGER = logging.getLogger(__name__)


class GeventConnection(SelectConnection):
    """A connection whose ``ioloop.start()`` blocks its greenlet alone.

    Raises:
        RuntimeError: gevent has not patched ``selectors``, so a wait would stop every greenlet.
    """

    def __init__(
        self,
        parameters: Parameters | None = None,
        on_open_callback: Callable[[Any], object] | None = None,
        on_open_error_callback: Callable[[Any, BaseException], object] | None = None,
        on_close_callback: Callable[..., object] | None = None,
        custom_ioloop: Any = None,
        internal_connection_workflow: Any = True,
        stop_ioloop_on_close: bool | None = None,
    ) -> None:
        from gevent import monkey

        if not monkey.is_module_patched("selectors"):
            raise RuntimeError("GeventConnection needs gevent.monkey.patch_all(), before imports")
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            custom_ioloop,
            internal_connection_workflow,
            stop_ioloop_on_close,
        )
