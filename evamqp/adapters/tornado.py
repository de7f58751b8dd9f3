"""Tornado: an IOLoop is an asyncio loop inside, so this is the asyncio adapter on that loop.

Only what Tornado does differently belongs here; bytes and futures are asyncio.py's, and AMQP is
nobody's.  Futures are asyncio's, which are Tornado's too: ``yield`` them in a ``gen.coroutine``.
"""

from __future__ import annotations

from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop

from evamqp.adapters.asyncio import AsyncioAdapter
from evamqp.errors import BadType


class TornadoAdapter(AsyncioAdapter):
    """Runs on a Tornado IOLoop; see ``evamqp.abc.Adapter``.

    Inside an application the IOLoop is running, or will be by ``IOLoop.current().start()``.  In a
    script run() starts it and stop() stops it.  The IOLoop stays yours: close() leaves it open.

    Callbacks are asyncio's: an exception that leaves one goes to the asyncio loop's exception
    handler, which logs it, not to Tornado's application log.

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
        self.io_loop = io_loop
        super().__init__(io_loop.asyncio_loop)
