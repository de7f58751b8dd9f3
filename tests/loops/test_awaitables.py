"""Requests as awaitables, in each loop's own way: the same coroutine on every loop.

The broker is the small one of this folder, so that what it answers, and when, is the test's choice.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import evamqp
from tests.loops.rig import Rig, on
from tests.support.loops import ASYNCIO_LOOPS

QUIET = evamqp.Handler()


class Quiet(evamqp.Handler):
    """Tells nobody, so that whatever is logged comes from somewhere else."""

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """Not logged."""

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        """Not logged."""


# --- one coroutine


async def conversation(connection: evamqp.Connection) -> list[object]:
    """What a user writes; nothing in it knows the loop."""
    await connection.wait_open()
    channel = connection.channel()
    declared = await channel.queue_declare("q")
    await channel.confirm_select()
    channel.basic_publish("", declared.queue, b"one")
    nacked = await channel.wait_for_confirms()
    message = await channel.basic_get("q")
    assert message is not None
    message.ack()
    empty = await channel.basic_get("q")
    await connection.wait_writable()
    channel_reason = await channel.close()
    reason = await connection.close()
    return [declared, nacked, message.body, empty, channel_reason.by, reason.code]


def test_same_coroutine_runs_on_every_loop(rig: Rig) -> None:
    rig.broker.fill("q", b"waiting")
    seen = rig.loop.run(conversation(rig.dial(Quiet())))
    assert seen == [evamqp.DeclareOk("q", 0, 0), [], b"waiting", None, "client", 200]
    assert rig.broker.bodies == [b"one"]


def test_failure_is_raised_where_it_is_awaited(rig: Rig) -> None:
    rig.broker.refuse("queue.declare", 404)
    channel = rig.open(Quiet())

    async def declare() -> None:
        await channel.queue_declare("q", passive=True)

    with pytest.raises(evamqp.NotExecuted) as caught:
        rig.loop.run(declare())
    assert caught.value.is_culprit
    assert isinstance(caught.value.__cause__, evamqp.ChannelClosed)
    assert caught.value.reason.code == 404


def test_connection_that_cannot_be_opened_fails_the_await(rig: Rig) -> None:
    rig.broker.held.add("connection.open")
    connection = rig.dial(Quiet(), handshake_timeout=0.05)

    async def wait() -> None:
        await connection.wait_open()

    with pytest.raises(evamqp.HandshakeTimeout):
        rig.loop.run(wait())


def test_coroutine_may_catch_a_failure_and_go_on(rig: Rig) -> None:
    rig.broker.refuse("queue.declare", 406)
    connection = rig.connect(Quiet())

    async def declare() -> int:
        try:
            await connection.channel().queue_declare("q")
        except evamqp.NotExecuted:
            return await connection.channel().queue_purge("q")
        raise AssertionError("it was refused")

    assert rig.loop.run(declare()) == 7


# --- twice and late


def test_request_may_be_awaited_twice(rig: Rig) -> None:
    channel = rig.open()

    async def twice() -> list[object]:
        request = channel.queue_declare("q")
        return [await request, await request]

    first, second = rig.loop.run(twice())
    assert first is second
    assert isinstance(first, evamqp.DeclareOk)


def test_request_serves_its_callback_its_future_and_an_await_at_once(rig: Rig) -> None:
    channel = rig.open()
    seen: list[object] = []
    request = channel.queue_purge("q", callback=seen.append)
    assert request.future is request.future
    if hasattr(request.future, "add_done_callback"):
        request.future.add_done_callback(lambda future: seen.append(future.result()))
    else:
        request.future.addCallback(seen.append)

    async def wait() -> int:
        return await request

    seen.append(rig.loop.run(wait()))
    rig.loop.until(lambda: len(seen) == 3)
    assert seen == [7, 7, 7]


def test_request_may_be_awaited_long_after_its_reply(rig: Rig) -> None:
    channel = rig.open()
    request = channel.queue_purge("q")
    rig.settle(request)
    rig.settle(channel.connection.close())

    async def late() -> int:
        return await request

    assert rig.loop.run(late()) == 7


def test_request_may_be_awaited_long_after_its_failure(rig: Rig) -> None:
    rig.broker.held.add("queue.purge")
    channel = rig.open(Quiet())
    request = channel.queue_purge("q")
    rig.settle(channel.connection.close())

    async def late() -> int:
        return await request

    for _ in range(2):
        with pytest.raises(evamqp.NotExecuted, match=r"queue.purge on channel 1"):
            rig.loop.run(late())


def test_each_await_gets_an_exception_of_its_own(rig: Rig) -> None:
    rig.broker.refuse("queue.purge", 404)
    channel = rig.open(Quiet())
    request = channel.queue_purge("q")
    rig.settle(request)
    caught: list[BaseException] = []

    async def again_and_again() -> None:
        for _ in range(200):
            try:
                await request
            except evamqp.NotExecuted as error:
                caught.append(error)

    rig.loop.run(again_and_again())
    depths = {len(traceback.extract_tb(error.__traceback__)) for error in caught}
    assert len({id(error) for error in caught}) == 200
    assert len(depths) == 1


# --- cancelling


def test_cancelled_request_discards_its_reply_and_later_ones_still_match(rig: Rig) -> None:
    channel = rig.open()
    rig.broker.held.add("queue.declare")
    called: list[object] = []
    request = channel.queue_declare("q", callback=called.append, on_error=called.append)
    request.cancel()

    async def wait() -> None:
        await request

    with pytest.raises(evamqp.RequestCancelled):
        rig.loop.run(wait())
    after = channel.queue_purge("q")
    rig.loop.until(lambda: "queue.declare" in rig.broker.names)
    rig.release()
    rig.settle(after)

    async def result() -> int:
        return await after

    assert rig.loop.run(result()) == 7
    assert called == []


def test_cancelling_twice_or_after_the_outcome_changes_nothing(rig: Rig) -> None:
    channel = rig.open()
    request = channel.queue_purge("q")
    rig.settle(request)
    request.cancel()

    async def result() -> int:
        return await request

    assert rig.loop.run(result()) == 7
    early = channel.queue_purge("q")
    early.cancel()
    early.cancel()
    rig.settle(channel.queue_purge("q"))
    assert channel.is_open


def cancel_future(request: evamqp.Request[Any]) -> None:
    request.future.cancel()


def cancel_request(request: evamqp.Request[Any]) -> None:
    request.cancel()


@pytest.mark.parametrize("cancel", [cancel_future, cancel_request])
def test_message_of_a_cancelled_get_goes_back_to_its_queue(
    rig: Rig, cancel: Callable[[evamqp.Request[Any]], None]
) -> None:
    channel = rig.open()
    rig.broker.fill("q", b"kept")
    rig.broker.held.add("basic.get")
    request = channel.basic_get("q")
    _ignore_outcome(request.future)
    cancel(request)
    rig.loop.until(lambda: "basic.get" in rig.broker.names)
    rig.release()
    rig.loop.until(lambda: "basic.nack" in rig.broker.names)
    assert rig.broker.queues["q"].bodies == [b"kept"]
    assert channel.is_open


def test_cancelled_future_discards_its_reply_and_later_ones_still_match(rig: Rig) -> None:
    channel = rig.open()
    request = channel.queue_declare("q")
    _ignore_outcome(request.future)
    request.future.cancel()
    after = channel.queue_purge("q")

    async def result() -> int:
        return await after

    assert rig.loop.run(result()) == 7
    assert request.is_done


def _ignore_outcome(future: Any) -> None:
    """A Deferred whose failure has no errback logs it, as it should."""
    if hasattr(future, "addErrback"):
        future.addErrback(lambda failure: None)


@on(*ASYNCIO_LOOPS)
def test_cancelled_task_of_asyncio_harms_nothing(rig: Rig) -> None:
    rig.broker.fill("q", b"kept")
    channel = rig.open()

    async def get() -> None:
        await channel.basic_get("q")

    async def main() -> int:
        task = asyncio.ensure_future(get())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await channel.queue_purge("q")

    assert rig.loop.run(main()) == 7
    rig.loop.until(lambda: "basic.nack" in rig.broker.names)
    assert rig.broker.queues["q"].bodies == [b"kept"]


@on("twisted")
def test_cancelled_coroutine_of_twisted_harms_nothing(rig: Rig) -> None:
    from twisted.internet.defer import CancelledError, ensureDeferred

    rig.broker.fill("q", b"kept")
    channel = rig.open()

    async def get() -> None:
        await channel.basic_get("q")

    failures: list[Any] = []
    waiting = ensureDeferred(get())
    waiting.addErrback(failures.append)
    waiting.cancel()
    assert failures[0].check(CancelledError)

    async def purge() -> int:
        return await channel.queue_purge("q")

    assert rig.loop.run(purge()) == 7
    rig.loop.until(lambda: "basic.nack" in rig.broker.names)
    assert rig.broker.queues["q"].bodies == [b"kept"]


@on("select")
def test_coroutine_closed_by_run_until_gives_its_message_back(rig: Rig) -> None:
    from evamqp.adapters.select import SelectAdapter

    rig.broker.held.add("basic.get")
    rig.broker.fill("q", b"kept")
    channel = rig.open()
    adapter = rig.loop.adapter
    assert isinstance(adapter, SelectAdapter)

    async def get() -> None:
        await channel.basic_get("q")

    with pytest.raises(TimeoutError):
        adapter.run_until(get(), timeout=0.01)
    rig.loop.until(lambda: "basic.get" in rig.broker.names)
    rig.release()
    rig.loop.until(lambda: "basic.nack" in rig.broker.names)
    assert rig.broker.queues["q"].bodies == [b"kept"]


@on("select")
def test_run_until_that_gives_up_harms_nothing(rig: Rig) -> None:
    from evamqp.adapters.select import SelectAdapter

    rig.broker.held.add("queue.declare")
    channel = rig.open()
    adapter = rig.loop.adapter
    assert isinstance(adapter, SelectAdapter)
    declared = channel.queue_declare("q")

    async def declare() -> evamqp.DeclareOk:
        return await declared

    with pytest.raises(TimeoutError):
        adapter.run_until(declare(), timeout=0.01)
    with pytest.raises(TimeoutError):
        adapter.run_until(declared, timeout=0.01)
    purged = channel.queue_purge("q")
    rig.release()
    assert adapter.run_until(purged) == 7
    assert adapter.run_until(declared).queue == "q"


# --- the loop's own futures


@on(*ASYNCIO_LOOPS)
def test_asyncio_waits_gathers_and_times_out(rig: Rig) -> None:
    channel = rig.open()
    rig.broker.held.add("queue.declare")

    async def main() -> list[object]:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.queue_declare("q").future, 0.01)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.queue_declare("q"), 0.01)
        purges = [channel.queue_purge("q") for _ in range(3)]
        rig.release()
        assert isinstance(purges[0].future, asyncio.Future)
        gathered: list[object] = [
            *await asyncio.gather(*purges),
            *await asyncio.gather(*(purge.future for purge in purges)),
        ]
        done, _ = await asyncio.wait([purges[0].future], timeout=1)
        return [*gathered, *(future.result() for future in done)]

    assert rig.loop.run(main()) == [7] * 7


@on("tornado")
def test_tornado_coroutine_yields_requests_and_futures(rig: Rig) -> None:
    from tornado import gen

    channel = rig.open()

    @gen.coroutine
    def main() -> Generator[Any, Any, list[object]]:
        one = yield channel.queue_purge("q").future
        two = yield channel.queue_purge("q")
        several = yield [channel.queue_purge("q").future, channel.queue_declare("q").future]
        return [one, two, *several]

    async def outer() -> list[object]:
        result: list[object] = await main()
        return result

    assert rig.loop.run(outer()) == [7, 7, 7, evamqp.DeclareOk("q", 0, 0)]


@on("twisted")
def test_inline_callbacks_yield_futures(rig: Rig) -> None:
    from twisted.internet import defer

    channel = rig.open()

    @defer.inlineCallbacks
    def main() -> Generator[Any, Any, list[object]]:
        one = yield channel.queue_purge("q").future
        several = yield defer.gatherResults(
            [channel.queue_purge("q").future, channel.queue_declare("q").future]
        )
        return [one, *several]

    async def outer() -> list[object]:
        result: list[object] = await main()
        return result

    assert rig.loop.run(outer()) == [7, 7, evamqp.DeclareOk("q", 0, 0)]


@on("twisted")
def test_inline_callbacks_wait_for_requests_themselves(rig: Rig) -> None:
    from twisted.internet import defer

    rig.broker.fill("q")
    rig.broker.refuse("queue.delete", 404)
    channel = rig.open(Quiet())

    @defer.inlineCallbacks
    def main() -> Generator[Any, Any, list[object]]:
        purge = channel.queue_purge("q")
        seen = [(yield purge), (yield purge), (yield channel.queue_declare("q"))]
        assert (yield channel.basic_consume("q", print).request) == "ctag-1"
        twice = channel.queue_purge("q")

        @defer.inlineCallbacks
        def other() -> Generator[Any, Any, object]:
            return (yield twice)

        waiting = other()
        seen += [(yield twice), (yield waiting), (yield defer.ensureDeferred(twice))]
        with pytest.raises(evamqp.NotExecuted):
            yield channel.queue_delete("q")
        return seen

    async def outer() -> list[object]:
        result: list[object] = await main()
        return result

    assert rig.loop.run(outer()) == [7, 7, evamqp.DeclareOk("q", 0, 0), 7, 7, 7]


@on("twisted")
def test_cancelled_inline_callbacks_give_their_message_back(rig: Rig) -> None:
    from twisted.internet import defer

    rig.broker.fill("q", b"kept")
    rig.broker.held.add("basic.get")
    channel = rig.open()
    failures: list[Any] = []

    @defer.inlineCallbacks
    def get() -> Generator[Any, Any, None]:
        yield channel.basic_get("q")

    waiting = get()
    waiting.addErrback(failures.append)
    waiting.cancel()
    assert failures[0].check(defer.CancelledError)
    rig.loop.until(lambda: "basic.get" in rig.broker.names)
    rig.release()
    rig.loop.until(lambda: "basic.nack" in rig.broker.names)
    assert rig.broker.queues["q"].bodies == [b"kept"]


@on(*ASYNCIO_LOOPS)
def test_request_is_what_create_task_takes(rig: Rig) -> None:
    channel = rig.open()

    async def main() -> list[object]:
        request: Any = channel.queue_purge("q")
        return [await asyncio.create_task(request), await asyncio.create_task(request)]

    assert rig.loop.run(main()) == [7, 7]


def test_consumer_tag_is_awaited_for_the_brokers_consent(rig: Rig) -> None:
    rig.broker.fill("q")
    rig.broker.refuse("basic.consume", 403)
    channel = rig.open(Quiet())
    tag = channel.basic_consume("q", print)
    assert (tag, hash(tag), f"{tag}") == ("ctag-1", hash("ctag-1"), "ctag-1")
    assert type(copy.copy(tag)) is str

    async def consume() -> str:
        return await tag

    with pytest.raises(evamqp.NotExecuted, match="403"):
        rig.loop.run(consume())
    rig.broker.refusals.clear()
    other = channel.connection.channel()

    async def consume_elsewhere() -> str:
        return await other.basic_consume("q", print)

    assert rig.loop.run(consume_elsewhere()) == "ctag-2"


@on("twisted")
def test_errback_gets_the_error_as_it_is(rig: Rig) -> None:
    rig.broker.refuse("queue.purge", 404)
    channel = rig.open(Quiet())
    failures: list[Any] = []
    channel.queue_purge("q").future.addErrback(failures.append)
    rig.loop.until(lambda: failures)
    assert failures[0].check(evamqp.NotExecuted)


# --- requests that nobody looks at


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[list[object]]:
    """Everything that is logged, by logging or by Twisted, or raised where nobody can catch it."""
    complaints: list[object] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: complaints.append(unraisable.exc_value)
    handler = logging.Handler(logging.INFO)
    handler.emit = complaints.append  # type: ignore[method-assign, assignment]
    logging.getLogger().addHandler(handler)
    from twisted.logger import globalLogPublisher

    publisher: Any = globalLogPublisher

    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            complaints.append(event)

    publisher.addObserver(observe)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield complaints
    publisher.removeObserver(observe)
    logging.getLogger().removeHandler(handler)
    sys.unraisablehook = before


def never_touched(request: evamqp.Request[Any]) -> None:
    """The request is dropped as it is."""


def future_touched(request: evamqp.Request[Any]) -> None:
    assert request.future is not None


def future_cancelled(request: evamqp.Request[Any]) -> None:
    request.future.cancel()


@pytest.mark.parametrize("look", [never_touched, future_touched, future_cancelled, cancel_request])
def test_failed_request_that_nobody_awaits_logs_nothing(
    rig: Rig,
    complaints: list[object],
    capfd: pytest.CaptureFixture[str],
    look: Callable[[evamqp.Request[Any]], None],
) -> None:
    rig.broker.refuse("queue.purge", 404)
    channel = rig.open(Quiet())
    for _ in range(3):
        look(channel.queue_purge("q"))
    look(channel.queue_declare("q"))
    rig.settle(channel.wait_closed())
    rig.settle(channel.connection.close())
    del channel
    gc.collect()
    rig.loop.until(lambda: True)
    assert complaints == []
    assert capfd.readouterr() == ("", "")


def test_late_look_at_a_failure_that_is_dropped_logs_nothing(
    rig: Rig, complaints: list[object]
) -> None:
    rig.broker.refuse("queue.purge", 404)
    channel = rig.open(Quiet())
    request = channel.queue_purge("q")
    rig.settle(request)
    assert request.future is not None
    rig.loop.until(lambda: True)
    del request
    gc.collect()
    assert complaints == []


def test_connection_dropped_with_everything_pending_logs_nothing(
    rig: Rig, complaints: list[object]
) -> None:
    rig.broker.held.add("queue.purge")
    channel = rig.open(Quiet())
    pending = [channel.queue_purge("q").future for _ in range(3)]
    for future in pending:
        _ignore_outcome(future)
    rig.settle(channel.connection.close())
    del pending, channel
    gc.collect()
    assert complaints == []


# --- types


def test_type_checkers_know_the_results() -> None:
    api = pytest.importorskip("mypy.api")
    path = Path(__file__).with_name("result_types.py")
    root = path.parents[2]
    output, errors, status = api.run(
        ["--strict", "--config-file", str(root / "pyproject.toml"), str(path)]
    )
    assert status == 0, output + errors


def test_type_checkers_refuse_a_wrong_use_of_a_result() -> None:
    api = pytest.importorskip("mypy.api")
    root = Path(__file__).parents[2]
    snippet = (
        "import evamqp\n"
        "async def f(channel: evamqp.Channel) -> None:\n"
        "    (await channel.basic_get('q')).ack()\n"
        "    (await channel.queue_declare('q')).nonsense\n"
        "    wrong: str = await channel.queue_purge('q')\n"
        "def connected(connection: evamqp.Connection, nonsense: int) -> None: ...\n"
        "evamqp.connect('amqp://localhost', on_opne=print)\n"
        "evamqp.connect('amqp://localhost', on_open=connected)\n"
    )
    output, _, status = api.run(
        ["--strict", "--config-file", str(root / "pyproject.toml"), "-c", snippet]
    )
    assert status == 1
    assert [line.split(":")[1] for line in output.splitlines() if ": error:" in line] == [
        "3", "4", "5", "7", "8",
    ]  # fmt: skip
