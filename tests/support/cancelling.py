"""Cancel a coroutine of asyncio at each of its suspensions in turn.

It holds no tests.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from typing import Any

import evamqp.blocking
from evamqp.testing import Broker
from evamqp.testing.fixtures import ServedVhost

#: Takes a URL, and adds to a list the bodies of what it has acknowledged out of the queue "q".
Program = Callable[[str, list[bytes]], Coroutine[Any, Any, None]]
#: What is in that queue when a program begins.
WAITING = [b"one", b"two"]
#: Far more suspensions than any program here has.
MOST = 500


@types.coroutine
def _cancelled_at(
    coroutine: Coroutine[Any, Any, Any], suspension: int, reached: list[int]
) -> Generator[Any, Any, Any]:
    task = asyncio.current_task()
    assert task is not None
    error: BaseException | None = None
    for number in count():
        try:
            future = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        if number == suspension:
            reached.append(number)
            task.cancel()  # the task cancels the future that it is about to wait for
        try:
            error = None
            yield future
        except BaseException as raised:
            error = raised


async def cancel_everywhere(
    program: Callable[[], Coroutine[Any, Any, Any]],
    check: Callable[[object], Coroutine[Any, Any, None]],
) -> int:
    """Run a program again and again, cancelled at its first suspension, its second, and so on.

    Args:
        program: Makes the coroutine.
        check: Called after each run with its result, or with what it raised.

    Returns:
        How many suspensions there were.
    """
    for suspension in range(MOST):
        reached: list[int] = []
        run = _run(_cancelled_at(program(), suspension, reached))
        task = asyncio.ensure_future(run)
        result: object = (await asyncio.gather(task, return_exceptions=True))[0]
        if not isinstance(result, asyncio.CancelledError) and isinstance(result, BaseException):
            raise result
        await check(result)
        if not reached:
            return suspension
    raise AssertionError(f"more than {MOST} suspensions")


async def _run(awaitable: Any) -> Any:
    return await awaitable


async def survive_every_cancelling(served: ServedVhost, program: Program) -> int:
    """Cancel a program everywhere: no task, no connection is left, and no message is lost.

    Returns:
        How many suspensions there were.
    """
    broker, vhost = served.broker, served.vhost
    tasks = asyncio.all_tasks()
    done: list[bytes] = []

    def is_left_alone(broker: Broker) -> bool:
        return not [each for each in broker.connections() if each.vhost == vhost]

    async def check(result: object) -> None:
        await asyncio.to_thread(broker.wait_until, is_left_alone)
        left = [task for task in asyncio.all_tasks() - tasks if not task.done()]
        assert left == []
        queue = broker.queue("q", vhost)
        assert queue.unacked == 0
        assert sorted([*queue.bodies, *done]) == sorted(WAITING)
        for body in done:
            broker.publish("", "q", body, vhost=vhost)
        done.clear()

    await asyncio.to_thread(_declare, served.url)
    for body in WAITING:
        broker.publish("", "q", body, vhost=vhost)
    return await cancel_everywhere(lambda: program(served.url, done), check)


def _declare(url: str) -> None:
    with evamqp.blocking.connect(url) as connection:
        connection.channel().queue_declare("q", durable=True)
