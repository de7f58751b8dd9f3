"""Async functions as callbacks, on every loop: run, and what they raise told.

Those of a Consumer, which settle messages, are the consumer's own tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

import evamqp
from tests.loops.rig import Rig

Work = Callable[..., Coroutine[Any, Any, None]]


class Collector(evamqp.Handler):
    """Notes what callbacks raised."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.errors.append((context.callback, error))

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """Not logged."""


class AsyncCall:
    """A callable whose call is a coroutine."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def __call__(self, *arguments: object) -> None:
        await self._work(*arguments)


def as_async_function(work: Work) -> Callable[..., object]:
    return work


def as_partial(work: Work) -> Callable[..., object]:
    return partial(partial(work))


def as_lambda(work: Work) -> Callable[..., object]:
    return lambda *arguments: work(*arguments)


def as_async_call(work: Work) -> Callable[..., object]:
    return AsyncCall(work)


shapes = pytest.mark.parametrize("shape", [as_async_function, as_partial, as_lambda, as_async_call])
Shape = Callable[[Work], Callable[..., object]]


class Everything(evamqp.Handler):
    """A handler whose methods are coroutines, from the first to the last."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    async def on_open(self, connection: evamqp.Connection) -> None:
        channel = connection.channel()
        await channel.confirm_select()
        channel.basic_publish("", "q", b"one")

    async def on_channel_open(self, channel: evamqp.Channel) -> None:
        self.seen.append((await channel.queue_declare("q")).queue)

    async def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: Any, acked: bool
    ) -> None:
        self.seen.append((*tags, acked, await channel.queue_purge("q")))
        channel.connection.close()

    async def on_close(
        self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed
    ) -> None:
        self.seen.append((await connection.wait_closed()).by)


def test_methods_of_a_handler_may_be_async(rig: Rig) -> None:
    handler = Everything()
    rig.dial(handler)
    rig.loop.until(lambda: len(handler.seen) == 3)
    assert handler.seen == ["q", (1, True, 7), "client"]


def test_async_on_close_runs_where_the_connection_never_opened(rig: Rig) -> None:
    rig.broker.held.add("connection.open")
    handler = Everything()
    rig.dial(handler).close()
    rig.loop.until(lambda: handler.seen)
    assert handler.seen == ["client"]


@shapes
def test_async_callback_of_a_request_is_run(rig: Rig, shape: Shape) -> None:
    channel = rig.open()
    seen: list[object] = []

    async def purged(count: int) -> None:
        seen.append((count, await channel.queue_purge("q")))

    channel.queue_purge("q", callback=shape(purged))
    rig.loop.until(lambda: seen)
    assert seen == [(7, 7)]


@shapes
def test_error_of_an_async_callback_goes_to_on_callback_error(rig: Rig, shape: Shape) -> None:
    rig.broker.refuse("queue.delete", 406)
    handler = Collector()
    channel = rig.open(handler)

    async def purged(count: int) -> None:
        await channel.queue_declare("q")
        raise ValueError("mine")

    channel.queue_purge("q", callback=shape(purged))
    rig.loop.until(lambda: handler.errors)
    [(name, error)] = handler.errors
    assert (name, str(error)) == ("queue.purge callback", "mine")
    assert channel.connection.stats.callback_errors == 1
    assert channel.is_open


def test_async_on_callback_error_is_run_and_its_own_error_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Collector):
        async def on_callback_error(  # type: ignore[override]
            self, context: evamqp.CallbackContext, error: BaseException
        ) -> None:
            await context.connection.wait_open()
            self.errors.append((context.callback, error))
            raise ValueError("again")

    handler = Failing()
    channel = rig.open(handler)

    async def purged(count: int) -> None:
        raise ValueError("mine")

    with caplog.at_level(logging.ERROR):
        channel.queue_purge("q", callback=purged)
        rig.loop.until(lambda: "on_callback_error raised" in caplog.text)
    assert [str(error) for _, error in handler.errors] == ["mine"]
    assert "again" in caplog.text


def test_request_that_a_callback_returns_is_its_own_affair(rig: Rig) -> None:
    rig.broker.refuse("queue.delete", 406)
    handler = Collector()
    channel = rig.open(handler)
    channel.queue_purge("q", callback=lambda count: channel.queue_delete("q"))
    rig.settle(channel.wait_closed())
    rig.settle(channel.connection.close())
    assert handler.errors == []


@pytest.mark.parametrize("shape", [as_async_function, as_partial, as_async_call])
def test_async_on_message_is_refused_at_basic_consume(rig: Rig, shape: Shape) -> None:
    channel = rig.open()

    async def on_message(message: evamqp.Message) -> None:
        message.ack()

    with pytest.raises(evamqp.BadType, match=r"async.*Consumer"):
        channel.basic_consume("q", shape(on_message))


def test_async_callback_of_a_reconnector_is_run_and_its_error_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    async def fail(attempt: int, delay: float, reason: evamqp.ConnectionClosed) -> None:
        attempts.append(attempt)
        raise ValueError("mine")

    nobody = evamqp.Parameters("127.0.0.1", 1)
    reconnector = evamqp.Reconnector(nobody, adapter=rig.loop.adapter, on_reconnecting=fail)
    rig.loop.until(lambda: "on_reconnecting raised ValueError('mine')" in caplog.text)
    rig.settle(reconnector.close())
    assert attempts[0] == 1
