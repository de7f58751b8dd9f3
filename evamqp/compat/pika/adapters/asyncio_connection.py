"""Connections on asyncio's loop."""

from __future__ import annotations

from evamqp.adapters.asyncio import AsyncioAdapter

from ._native import current_asyncio_loop
from ._native_loop import NativeLoopConnection


class AsyncioConnection(NativeLoopConnection):
    """A connection on asyncio's loop; without ``custom_ioloop`` the running one, else the thread's.

    Its arguments are those of ``NativeLoopConnection``.
    """

    _current_loop = staticmethod(current_asyncio_loop)
    _adapter_of = staticmethod(AsyncioAdapter)
