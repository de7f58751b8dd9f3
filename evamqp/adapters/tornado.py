"""Tornado: an IOLoop wraps an asyncio loop, so this is the asyncio adapter on that loop.

Only what Tornado does differently belongs here; bytes and futures are asyncio.py's.  Tornado's
futures are asyncio's: ``yield`` them in a ``gen.coroutine``.
"""

from __future__ import annotations

from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop

from evamqp.adapters.asyncio import AsyncioAdapter
from evamqp.errors import BadType


class TornadoAdapter(AsyncioAdapter):
    """Runs on a Tornado IOLoop; see ``evamqp.abc.Adapter``.

    An application starts the IOLoop itself; in a script run() starts it and stop() stops it.
    close() leaves the IOLoop open: it is yours.

    Callbacks are asyncio's: the asyncio loop's exception handler logs an exception that leaves
    one, not Tornado's application log.

    Args:
        io_loop: The IOLoop; None means ``IOLoop.current()``.

    Raises:
        BadType: ``io_loop`` is no IOLoop on top of asyncio.
    """

    def __init__(self, io_loop: IOLoop | None = None) -> None:
        if io_loop is None:
            io_loop = IOLoop.current()
        if not isinstance(io_loop, BaseAsyncIOLoop):
            raise BadType(f"TornadoAdapter runs on an IOLoop, not on {io_loop!r}")
        self.io_loop: IOLoop = io_loop
        super().__init__(io_loop.asyncio_loop)
