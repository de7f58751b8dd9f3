"""A program that consumes, and ends amid its handlers: LOOP WAY URL.

Run by test_program_end.py.  Five handlers are at work, and say so, before it ends in its WAY.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import evamqp
from evamqp.abc import Adapter

MESSAGES = 5


class Failure(Exception):
    """What main() fails with."""


class Program:
    """Five handlers that wait for what never comes.

    Args:
        adapter: The loop.
        way: How the program ends.
    """

    def __init__(self, adapter: Adapter, way: str, url: str) -> None:
        self._adapter = adapter
        self._way = way
        self._at_work = 0
        self._never = threading.Event()
        self.ready = adapter.create_future()
        self.consumer = evamqp.Consumer(url, "q", self._handle, adapter=adapter, prefetch=MESSAGES)

    async def _handle(self, message: evamqp.Message) -> None:
        self._at_work += 1
        if self._at_work == MESSAGES:
            sys.stdout.write("at work\n")
            sys.stdout.flush()
            self._adapter.call_later(0, lambda: self.ready.resolve(None))
        if self._way == "exit in a handler" and self._at_work == MESSAGES:
            sys.exit(3)
        if self._way == "threads":
            # The loop runs on until the threads have ended, and refuses what is new to them.
            await asyncio.to_thread(self._never.wait, 2.5)
        await self._adapter.create_future().future

    async def main(self) -> None:
        await self.ready.future
        if self._way == "failure":
            raise Failure
        if self._way == "exit":
            sys.exit(3)
        if self._way == "cancel all":
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0.2)
        if self._way in ("interrupt", "threads"):
            await self._adapter.create_future().future


def run_asyncio(way: str, url: str) -> None:
    from evamqp.adapters.asyncio import AsyncioAdapter

    async def main() -> None:
        program = Program(AsyncioAdapter(), way, url)
        await program.main()

    asyncio.run(main())


def run_select(way: str, url: str) -> None:
    from evamqp.adapters.select import SelectAdapter

    adapter = SelectAdapter()
    adapter.run_until(Program(adapter, way, url).main())


def run_tornado(way: str, url: str) -> None:
    from tornado.ioloop import IOLoop

    from evamqp.adapters.tornado import TornadoAdapter

    loop = IOLoop()
    loop.run_sync(lambda: Program(TornadoAdapter(loop), way, url).main())


def run_twisted(way: str, url: str) -> None:
    from twisted.internet.task import react

    from evamqp.adapters.twisted import TwistedAdapter

    async def main(reactor: Any) -> None:
        await Program(TwistedAdapter(reactor), way, url).main()

    react(main)


PROGRAMS: dict[str, Callable[[str, str], None]] = {
    "asyncio": run_asyncio,
    "select": run_select,
    "tornado": run_tornado,
    "twisted": run_twisted,
}

if __name__ == "__main__":
    # A process in the background of a shell begins with the signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
