"""``async with`` and ``async for`` of connections, channels and messages, on every loop.

The broker is the embedded one, so that what is consumed, settled and left over can be asked.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

import evamqp
from evamqp.testing import Broker
from tests.loops.rig import on
from tests.support.loops import ASYNCIO_LOOPS, Loop, MemoryLoop

Work = Coroutine[Any, Any, Any]


class Bench:
    """A loop, an embedded broker, and what it holds."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._connections: list[evamqp.Connection] = []
        if isinstance(loop, MemoryLoop):
            self.broker = Broker(loop.memory)
            self.broker.listen()
        else:
            self.broker = Broker().serve()

    def dial(self, **callbacks: Any) -> evamqp.Connection:
        url = f"{self.broker.url}?heartbeat=0"
        connection = evamqp.connect(url, Silent(), adapter=self.loop.adapter, **callbacks)
        self._connections.append(connection)
        return connection

    def connections_open(self) -> int:
        """Connections that have not ended, nor are about to."""
        return sum(connection.reason is None for connection in self._connections)

    def close(self) -> None:
        for connection in self._connections:
            closed = connection.close()
            self.loop.until(lambda: closed.is_done)  # noqa: B023
        self.broker.close()

    def run(self, work: Work) -> Any:
        return self.loop.run(work)

    def fill(self, count: int) -> None:
        for number in range(count):
            self.broker.publish("", "q", str(number).encode())

    def until_ready(self, count: int) -> None:
        """Turn the loop until so many messages are in the queue, none unsettled, no consumer."""

        def is_so() -> bool:
            queue = self.broker.queue("q")
            return (queue.ready, queue.unacked, queue.consumers) == (count, 0, 0)

        self.loop.until(is_so)

    async def sleep(self) -> None:
        """Let the loop turn for a moment."""
        promise = self.loop.adapter.create_future()
        self.loop.adapter.call_later(0.02, lambda: promise.resolve(None))
        await promise.future


class Silent(evamqp.Handler):
    """Logs no end."""

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """Not logged."""

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        """Not logged."""


@pytest.fixture
def bench(loop: Loop) -> Iterator[Bench]:
    bench = Bench(loop)
    try:
        yield bench
    finally:
        bench.close()


async def declared(connection: evamqp.Connection) -> evamqp.Channel:
    await connection.wait_open()
    channel = connection.channel()
    await channel.queue_declare("q", durable=True)
    return channel


def test_program_reads_from_top_to_bottom(bench: Bench) -> None:
    async def main() -> list[bytes]:
        bodies = []
        async with bench.dial() as connection:
            assert connection.is_open
            async with connection.channel() as channel:
                assert channel.is_open
                await channel.queue_declare("q", durable=True)
                bench.fill(5)
                async for message in channel.messages("q", prefetch=2):
                    async with message:
                        bodies.append(message.body)
                    if len(bodies) == 5:
                        break
            assert channel.reason is not None
        assert connection.reason is not None
        return bodies

    assert bench.run(main()) == [b"0", b"1", b"2", b"3", b"4"]
    bench.until_ready(0)


def test_reason_of_a_failed_open_is_raised(bench: Bench) -> None:
    url = bench.broker.url.replace("guest:guest", "guest:wrong")

    async def main() -> None:
        async with evamqp.connect(url, Silent(), adapter=bench.loop.adapter):
            raise AssertionError("it is not open")

    with pytest.raises(evamqp.AuthenticationFailed):
        bench.run(main())


def test_block_that_raises_closes_all_the_same(bench: Bench) -> None:
    ends: list[object] = []

    async def main() -> None:
        async with (
            bench.dial(on_close=lambda _, reason: ends.append(reason.by)) as connection,
            connection.channel(on_channel_close=lambda _, reason: ends.append(reason.by)),
        ):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        bench.run(main())
    assert ends == ["client", "client"]


@pytest.mark.parametrize("left", ["break", "raise", "block"])
def test_leaving_the_loop_ends_the_consumer_and_gives_back_what_waits(
    bench: Bench, left: str
) -> None:
    async def main() -> None:
        connection = bench.dial()
        channel = await declared(connection)
        bench.fill(10)
        messages = channel.messages("q", prefetch=5)
        with suppress(ValueError):
            if left == "block":
                async with messages as entered:
                    async for message in entered:
                        message.ack()
                        await bench.sleep()
                        break
                assert bench.broker.consumers() == []
            else:
                async for message in messages:
                    message.ack()
                    await bench.sleep()
                    if left == "raise":
                        raise ValueError
                    break
        await channel.queue_declare("other")  # the channel is as usable as before
        gc.collect()

    bench.run(main())
    bench.until_ready(9)


def test_no_more_than_prefetch_waits_here(bench: Bench) -> None:
    async def main() -> int:
        channel = await declared(bench.dial())
        bench.fill(20)
        iterator = aiter(channel.messages("q", prefetch=3))
        await bench.sleep()
        unacked = bench.broker.queue("q").unacked
        await iterator.aclose()
        return unacked

    assert bench.run(main()) == 3
    bench.until_ready(20)


def test_broker_that_ignores_prefetch_loses_the_channel(bench: Bench) -> None:
    bench.broker.faults.ignore_prefetch()

    async def main() -> None:
        channel = await declared(bench.dial())
        bench.fill(20)
        iterator = aiter(channel.messages("q", prefetch=2))
        await bench.sleep()
        async for _ in iterator:
            raise AssertionError("the channel is closed")

    with pytest.raises(evamqp.ChannelClosed, match="though prefetch is 2"):
        bench.run(main())
    bench.until_ready(20)


Ending = Callable[[Bench, evamqp.Channel, str], object]
OURS: dict[str, Ending] = {
    "basic_cancel": lambda bench, channel, tag: channel.basic_cancel(tag),
    "channel.close": lambda bench, channel, tag: channel.close(),
    "connection.close": lambda bench, channel, tag: channel.connection.close(),
}
THEIRS: dict[str, tuple[Ending, type[evamqp.AmqpError]]] = {
    "cancel": (
        lambda bench, *_: bench.broker.faults.cancel_consumers("q"),
        evamqp.ConsumerCancelled,
    ),
    "queue deleted": (
        lambda bench, *_: bench.broker.faults.delete_queue("q"),
        evamqp.ConsumerCancelled,
    ),
    "channel closed": (
        lambda bench, *_: bench.broker.faults.close_channels(541, "no more"),
        evamqp.ChannelClosed,
    ),
    "connection lost": (
        lambda bench, *_: bench.broker.faults.drop_connections(),
        evamqp.ConnectionClosed,
    ),
}


async def consume_until(bench: Bench, end: Ending) -> int:
    """Consume two messages, then have all end while the third is awaited."""
    channel = await declared(bench.dial())
    bench.fill(2)
    count = 0
    async for message in channel.messages("q"):
        message.ack()
        count += 1
        if count == 2:
            tag = message.consumer_tag
            bench.loop.adapter.call_later(0.01, lambda: end(bench, channel, tag))  # noqa: B023
    return count


@pytest.mark.parametrize("end", OURS)
def test_iteration_ends_where_we_end_consumer_channel_or_connection(bench: Bench, end: str) -> None:
    assert bench.run(consume_until(bench, OURS[end])) == 2


@pytest.mark.parametrize("end", THEIRS)
def test_iteration_raises_the_reason_where_all_ends_otherwise(bench: Bench, end: str) -> None:
    ending, error = THEIRS[end]
    with pytest.raises(error):
        bench.run(consume_until(bench, ending))


def test_iteration_raises_why_the_consumer_is_refused(bench: Bench) -> None:
    async def main() -> None:
        connection = bench.dial()
        await connection.wait_open()
        async for _ in connection.channel().messages("missing"):
            raise AssertionError("there is no such queue")

    with pytest.raises(evamqp.NotExecuted, match="404") as caught:
        bench.run(main())
    assert caught.value.is_culprit


@pytest.mark.parametrize("prefetch", [0, 65536, True, "1", None])
def test_prefetch_is_checked_at_the_call(bench: Bench, prefetch: Any) -> None:
    async def main() -> None:
        channel = await declared(bench.dial())
        with pytest.raises(evamqp.UsageError, match="prefetch"):
            channel.messages("q", prefetch=prefetch)

    bench.run(main())


async def settled(bench: Bench, error: BaseException | None, settle: str) -> bool | None:
    """Handle one message in a block, and return whether it came again, if it did."""
    connection = bench.dial()
    channel = await declared(connection)
    bench.fill(1)
    message = await channel.basic_get("q")
    assert message is not None
    with suppress(type(error) if error else ValueError):
        async with message:
            if settle:
                getattr(message, settle)()
            if error is not None:
                raise error
    again = await channel.basic_get("q")
    return None if again is None else again.redelivered


def test_message_is_acked_at_the_end_of_its_block_and_rejected_on_an_error(bench: Bench) -> None:
    assert bench.run(settled(bench, None, "")) is None
    assert bench.run(settled(bench, ValueError("mine"), "")) is None


def test_message_whose_block_is_cancelled_goes_back(bench: Bench) -> None:
    from twisted.internet.defer import CancelledError

    assert bench.run(settled(bench, CancelledError(), "")) is True
    bench.broker.faults.delete_queue("q")
    assert bench.run(settled(bench, evamqp.RequestCancelled("mine"), "")) is True


def test_message_settled_in_its_block_is_left_alone(bench: Bench) -> None:
    assert bench.run(settled(bench, None, "nack")) is True
    bench.broker.faults.delete_queue("q")
    assert bench.run(settled(bench, ValueError("mine"), "ack")) is None


# --- cancelling


async def everything(bench: Bench, seen: list[bytes]) -> None:
    """All awaits that there are, to be cancelled at each of them."""
    async with bench.dial() as connection, connection.channel() as channel:
        await channel.basic_qos(1)
        async with channel.messages("q", prefetch=2) as messages:
            async for message in messages:
                async with message:
                    await bench.sleep()
                    seen.append(message.body)
                if len(seen) == 3:
                    break


@on(*ASYNCIO_LOOPS)
@pytest.mark.parametrize("turns", range(0, 60, 3))
def test_cancelled_at_any_await_it_leaves_nothing_behind(bench: Bench, turns: int) -> None:
    async def main() -> int:
        keeper = bench.dial()
        channel = await declared(keeper)
        bench.fill(5)
        before = asyncio.all_tasks()
        seen: list[bytes] = []
        task = asyncio.ensure_future(everything(bench, seen))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await bench.sleep()
        assert bench.connections_open() <= 1  # the keeper's
        left = {other for other in asyncio.all_tasks() - before if not other.done()}
        assert left == set()
        await channel.queue_declare("q", durable=True)
        await keeper.close()
        return len(seen)

    done = bench.run(main())
    bench.until_ready(5 - done)


def test_cancelled_wait_takes_no_message(bench: Bench) -> None:
    async def main() -> list[bytes]:
        channel = await declared(bench.dial())
        iterator = aiter(channel.messages("q", prefetch=2))
        ends: list[BaseException | None] = []
        for _ in range(3):
            handle = bench.loop.adapter.run_awaitable(anext(iterator), ends.append)
            await bench.sleep()
            handle.cancel()
        await bench.sleep()
        assert len(ends) == 3
        bench.fill(2)
        bodies = [(await anext(iterator)).body, (await anext(iterator)).body]
        await iterator.aclose()
        return bodies

    assert bench.run(main()) == [b"0", b"1"]


def test_two_may_wait_and_each_message_goes_to_one(bench: Bench) -> None:
    async def main() -> list[bytes]:
        channel = await declared(bench.dial())
        iterator = aiter(channel.messages("q"))
        bodies: list[bytes] = []

        async def take() -> None:
            bodies.append((await anext(iterator)).body)

        ends: list[object] = []
        for _ in range(2):
            bench.loop.adapter.run_awaitable(take(), ends.append)
        await bench.sleep()
        bench.fill(2)
        while len(ends) < 2:
            await bench.sleep()
        await iterator.aclose()
        return sorted(bodies)

    assert bench.run(main()) == [b"0", b"1"]


@on("select")
def test_coroutine_that_run_until_closes_closes_its_connection(bench: Bench) -> None:
    from evamqp.adapters.select import SelectAdapter

    adapter = bench.loop.adapter
    assert isinstance(adapter, SelectAdapter)
    connection = bench.dial()

    async def main() -> None:
        async with connection, connection.channel() as channel:
            await channel.queue_declare("q", durable=True)
            async with channel.messages("q") as messages:
                async for _ in messages:
                    raise AssertionError("the queue is empty")

    with pytest.raises(TimeoutError):
        adapter.run_until(main(), timeout=0.1)
    assert adapter.run_until(connection.wait_closed()).by == "client"


# --- a callback that returns coroutines


def test_coroutines_that_on_message_returns_are_run(bench: Bench) -> None:
    errors: list[object] = []

    async def handle(message: evamqp.Message) -> None:
        async with message:
            if message.body == b"2":
                raise ValueError("mine")

    async def main() -> None:
        connection = bench.dial(on_callback_error=lambda context, error: errors.append(context))
        channel = await declared(connection)
        bench.fill(5)
        channel.basic_consume("q", lambda message: handle(message))
        while bench.broker.queue("q").unacked or not errors:
            await bench.sleep()
        await connection.close()

    bench.run(main())
    [context] = errors
    assert isinstance(context, evamqp.CallbackContext)
    assert context.message is not None
    assert (context.callback, context.message.body) == ("on_message", b"2")
