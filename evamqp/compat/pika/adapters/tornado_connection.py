"""Connections on Tornado's IOLoop."""

from __future__ import annotations

from tornado.ioloop import IOLoop

from evamqp.adapters.tornado import TornadoAdapter

from ._native_loop import NativeLoopConnection


class TornadoConnection(NativeLoopConnection):
    """A connection on Tornado's IOLoop; without ``custom_ioloop`` on ``IOLoop.current()``.

    Its arguments are those of ``NativeLoopConnection``.
    """

    _current_loop = staticmethod(IOLoop.current)
    _adapter_of = staticmethod(TornadoAdapter)
