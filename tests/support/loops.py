"""Every loop under one roof: an adapter, and the ways to run it until something has happened.

``opened()`` is how tests open one.  Nothing of AMQP lives here but the waiting for a Request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from evamqp.abc import Adapter
from evamqp.core.request import Request

if TYPE_CHECKING:
    from twisted.logger import LogEvent

T = TypeVar("T")
Condition = Callable[[], object]

#: Seconds after which a test gives up waiting.
TIMEOUT = 30.0


class Loop:
    """A loop that runs only while a test waits.

    Attributes:
        adapter: The adapter on it.
        errors: What the loop logged because no code caught it.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.errors: list[object] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop's own way, to its end."""
        raise NotImplementedError

    def until(self, done: Condition, seconds: float = TIMEOUT) -> None:
        """Run until ``done()``; fail if it takes too long."""
        self._pump(done, time.monotonic() + seconds)
        assert done(), f"it never came, in {seconds:g} s; the loop logged {self.errors}"

    def wait(self, request: Request[T]) -> T:
        """Run until the request has its outcome, and return it or raise it."""
        outcomes: list[Any] = []
        self._when_done(request.future, outcomes.append)
        self.until(lambda: outcomes)
        return self._value(outcomes[0])  # type: ignore[no-any-return]

    def close(self) -> None:
        """Release the loop."""

    def _pump(self, done: Condition, deadline: float) -> None:
        adapter = self.adapter

        def look() -> None:
            if done() or time.monotonic() > deadline:
                adapter.stop()
            else:
                adapter.call_later(0.001, look)

        adapter.call_soon(look)
        adapter.run()

    def _when_done(self, future: Any, callback: Callable[[Any], object]) -> None:
        future.add_done_callback(callback)

    def _value(self, outcome: Any) -> Any:
        return outcome.result()


class SelectLoop(Loop):
    """The built-in loop; what escapes a callback escapes until() as well."""

    def __init__(self) -> None:
        from evamqp.adapters.select import SelectAdapter

        self._select = SelectAdapter()
        super().__init__(self._select)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._select.run_until(coroutine, TIMEOUT)

    def close(self) -> None:
        self._select.close()


class AsyncioLoop(Loop):
    """asyncio, or another loop with its interface."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from evamqp.adapters.asyncio import AsyncioAdapter

        super().__init__(AsyncioAdapter(loop))
        self._loop = loop
        loop.set_exception_handler(lambda _, context: self.errors.append(context))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, TIMEOUT))

    def close(self) -> None:
        self._loop.close()


class TornadoLoop(Loop):
    """Tornado's IOLoop."""

    def __init__(self) -> None:
        from tornado.ioloop import IOLoop

        from evamqp.adapters.tornado import TornadoAdapter

        self._io_loop = IOLoop(make_current=False)
        super().__init__(TornadoAdapter(self._io_loop))
        loop: asyncio.AbstractEventLoop = self._io_loop.asyncio_loop
        loop.set_exception_handler(lambda _, context: self.errors.append(context))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = self._io_loop.run_sync(lambda: coroutine, TIMEOUT)
        return result

    def close(self) -> None:
        self._io_loop.close()


class TwistedLoop(Loop):
    """A reactor of its own, turned by hand: one that ran cannot run again.

    Attributes:
        reactor: Twisted's.
    """

    def __init__(self) -> None:
        from twisted.logger import globalLogPublisher

        from evamqp.adapters.twisted import TwistedAdapter

        self.reactor = _new_reactor()
        self.reactor.startRunning(installSignalHandlers=False)
        super().__init__(TwistedAdapter(self.reactor))
        self._log: Any = globalLogPublisher  # whose own types come from zope, unknown to mypy
        self._log.addObserver(self._observe)  # type: ignore[arg-type]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        from twisted.internet.defer import ensureDeferred

        outcomes: list[Any] = []
        ensureDeferred(coroutine).addBoth(outcomes.append)
        self.until(lambda: outcomes)
        result: T = self._value(outcomes[0])
        return result

    def close(self) -> None:
        self._log.removeObserver(self._observe)
        self.reactor.fireSystemEvent("shutdown")
        self.reactor.removeAll()

    def _observe(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.errors.append(event["log_failure"])

    def _pump(self, done: Condition, deadline: float) -> None:
        while not done() and time.monotonic() < deadline:
            self.reactor.iterate(0.001)

    def _when_done(self, future: Any, callback: Callable[[Any], object]) -> None:
        future.addBoth(callback)

    def _value(self, outcome: Any) -> Any:
        from twisted.python.failure import Failure

        if isinstance(outcome, Failure):
            raise outcome.value  # type: ignore[misc]
        return outcome


def _new_reactor() -> Any:
    """The reactor that Twisted itself would choose."""
    try:
        from twisted.internet.epollreactor import EPollReactor
    except ImportError:  # not on Linux
        from twisted.internet.selectreactor import SelectReactor

        return SelectReactor()
    return EPollReactor()  # type: ignore[no-untyped-call]


class MemoryLoop(Loop):
    """The loop whose clock is moved by hand; it waits for nothing that is not under way."""

    def __init__(self) -> None:
        from evamqp.adapters.memory import MemoryAdapter

        self.memory = MemoryAdapter()
        super().__init__(self.memory)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.memory.run_until(coroutine)

    def _pump(self, done: Condition, deadline: float) -> None:
        self.memory.run_until_idle()


def _uvloop() -> Loop:
    uvloop = pytest.importorskip("uvloop")
    return AsyncioLoop(uvloop.new_event_loop())


#: How each loop is made.
LOOPS: dict[str, Callable[[], Loop]] = {
    "select": SelectLoop,
    "asyncio": lambda: AsyncioLoop(asyncio.new_event_loop()),
    "uvloop": _uvloop,
    "tornado": TornadoLoop,
    "twisted": TwistedLoop,
    "memory": MemoryLoop,
}
#: The loops that have sockets.
SOCKET_LOOPS = tuple(name for name in LOOPS if name != "memory")
#: Where ``request.future`` is an asyncio.Future.
ASYNCIO_LOOPS = ("asyncio", "uvloop", "tornado")


@contextmanager
def opened(name: str) -> Iterator[Loop]:
    """A loop of that name; what no code caught in it is an error at its end."""
    loop = LOOPS[name]()
    try:
        yield loop
        assert loop.errors == []
    finally:
        loop.close()
