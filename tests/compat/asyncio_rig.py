"""What the tests of the asyncio facades share: a broker's URL, and programs under the runner.

It holds no tests.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.examples.program import ROOT, Program

T = TypeVar("T")

#: Seconds that one scenario may take.
TIMEOUT = 30.0


def run(scenario: Coroutine[Any, Any, T], seconds: float = TIMEOUT) -> T:
    """Run a scenario on a loop of its own; it has to leave no task behind and log no error."""

    async def watched() -> T:
        complaints: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        result = await asyncio.wait_for(scenario, seconds)
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        gc.collect()
        assert not complaints, complaints
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return asyncio.run(watched())


def launch(library: str, program: Path, *arguments: str, **environment: str) -> Program:
    """A program under ``python -m evamqp.compat``."""
    path = str(program.relative_to(ROOT))
    return Program("-m", "evamqp.compat", library, path, *arguments, **environment)


class Errors(logging.Handler):
    """Keeps the errors that are logged while it listens."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def listening(name: str) -> Iterator[Errors]:
    """Errors of a logger, for a fixture."""
    errors = Errors()
    logger = logging.getLogger(name)
    logger.addHandler(errors)
    yield errors
    logger.removeHandler(errors)
