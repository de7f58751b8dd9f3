"""The loops of the interop tests, each with its own way to run a coroutine, and the one of memory.

No law lives here; and no AMQP, so that whatever differs between loops shows in one place.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from evamqp.abc import Adapter
from tests.interop import loops

T = TypeVar("T")

TIMEOUT = loops.TIMEOUT
#: The loops that have sockets.
SOCKET_LOOPS = tuple(loops.LOOPS)
#: Where ``request.future`` is an asyncio.Future.
ASYNCIO_LOOPS = ("asyncio", "uvloop", "tornado")


class Loop(Protocol):
    """One loop with its adapter.

    Attributes:
        errors: What the loop logged because nobody caught it.
    """

    adapter: Adapter
    errors: list[object]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop's own way, to its end."""

    def until(self, done: Callable[[], object]) -> None:
        """Turn the loop until ``done()``; fail if that never comes."""

    def close(self) -> None:
        """Release the loop."""


class SelectLoop(loops.SelectLoop):
    """The loop of the standard library's selectors."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._select.run_until(coroutine, TIMEOUT)


class AsyncioLoop(loops.AsyncioLoop):
    """An asyncio loop, or uvloop's."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, TIMEOUT))


class TornadoLoop(loops.TornadoLoop):
    """Tornado's IOLoop."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = self._io_loop.run_sync(lambda: coroutine, TIMEOUT)
        return result


class TwistedLoop(loops.TwistedLoop):
    """The reactor that Twisted itself would choose."""

    def _new_reactor(self) -> Any:
        if not sys.platform.startswith("linux"):
            return super()._new_reactor()
        from twisted.internet.epollreactor import EPollReactor

        return EPollReactor()  # type: ignore[no-untyped-call]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        from twisted.internet.defer import ensureDeferred

        outcomes: list[Any] = []
        ensureDeferred(coroutine).addBoth(outcomes.append)
        self.until(lambda: outcomes)
        result: T = self._value(outcomes[0])
        return result


class MemoryLoop:
    """The loop whose clock is moved by hand; it waits for nothing that is not under way."""

    def __init__(self) -> None:
        from evamqp.adapters.memory import MemoryAdapter

        self.memory = MemoryAdapter()
        self.adapter: Adapter = self.memory
        self.errors: list[object] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.memory.run_until(coroutine)

    def until(self, done: Callable[[], object]) -> None:
        self.memory.run_until_idle()
        assert done(), "it never came"

    def close(self) -> None:
        """Nothing is open."""


def _uvloop() -> Loop:
    import uvloop

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


@contextmanager
def opened(name: str) -> Iterator[Loop]:
    """A loop of that name; what nobody caught in it is raised at its end."""
    loop = LOOPS[name]()
    try:
        yield loop
        assert loop.errors == []
    finally:
        loop.close()
