"""Consuming by the aio_pika facade: callbacks of every kind, iterators, gets, acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from evamqp.compat import aio_pika
from evamqp.compat.aio_pika.exceptions import (
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    DuplicateConsumerTag,
    QueueEmpty,
)
from tests.compat.aio_pika.test_publishing import (
    Connect,
    connecting,
    embedded,
    everywhere,
    message,
)
from tests.compat.asyncio_rig import run


async def fill(channel: aio_pika.Channel, count: int, name: str = "q") -> aio_pika.Queue:
    """A queue with so many messages."""
    queue = await channel.declare_queue(name, durable=True)
    for number in range(count):
        await channel.default_exchange.publish(message(str(number).encode()), name)
    return queue


class Taker:
    """Callbacks of every kind, which count and acknowledge."""

    def __init__(self, count: int) -> None:
        self.bodies: list[bytes] = []
        self.done = asyncio.Event()
        self._count = count

    def plain(self, incoming: aio_pika.IncomingMessage) -> None:
        self.bodies.append(incoming.body)
        _ = incoming.ack()
        if len(self.bodies) == self._count:
            self.done.set()

    async def coroutine(self, incoming: aio_pika.IncomingMessage) -> None:
        await asyncio.sleep(0)
        self.plain(incoming)

    def with_more(self, more: object, incoming: aio_pika.IncomingMessage) -> None:
        self.plain(incoming)

    async def coroutine_with_more(self, more: object, incoming: aio_pika.IncomingMessage) -> None:
        self.plain(incoming)

    def with_block(self, incoming: aio_pika.IncomingMessage) -> None:
        with incoming.process():
            self.bodies.append(incoming.body)
        if len(self.bodies) == self._count:
            self.done.set()

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        return {
            "plain": self.plain,
            "coroutine": self.coroutine,
            "lambda": lambda incoming: self.coroutine(incoming),
            "partial": partial(self.with_more, 1),
            "async partial": partial(self.coroutine_with_more, 1),
            "with": self.with_block,
        }


KINDS = ["plain", "coroutine", "lambda", "partial", "async partial", "with"]


@everywhere
@connecting
@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_of_every_kind_get_messages(url: str, connect: Connect, kind: str) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await fill(channel, 10)
            taker = Taker(10)
            tag = await queue.consume(taker.callbacks()[kind])
            await taker.done.wait()
            assert taker.bodies == [str(number).encode() for number in range(10)]
            cancelled = await queue.cancel(tag)
            assert cancelled is not None
            assert cancelled.consumer_tag == tag
            assert (await queue.declare()).message_count == 0

    run(scenario())


@embedded
def test_handlers_run_side_by_side_up_to_the_prefetch(url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=3)
            queue = await fill(channel, 9)
            running = most = done = 0
            end = asyncio.Event()

            async def handle(incoming: aio_pika.IncomingMessage) -> None:
                nonlocal running, most, done
                async with incoming.process():
                    running += 1
                    most = max(most, running)
                    await channel.declare_queue("q", durable=True)  # a round trip
                    running -= 1
                done += 1
                if done == 9:
                    end.set()

            await queue.consume(handle)
            await end.wait()
            assert most == 3

    run(scenario())


@embedded
@connecting
def test_handler_that_raises_is_logged_and_the_next_message_comes(
    url: str, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await fill(channel, 4)
            seen: list[bytes] = []
            end = asyncio.Event()

            def plain(incoming: aio_pika.IncomingMessage) -> None:
                seen.append(incoming.body)
                raise LookupError("plain")

            async def handle(incoming: aio_pika.IncomingMessage) -> None:
                seen.append(incoming.body)
                if len(seen) == 8:
                    end.set()
                raise LookupError("async")

            tag = await queue.consume(plain, no_ack=True)
            while len(seen) < 4:
                await asyncio.sleep(0)
            await queue.cancel(tag)
            await fill(channel, 4)
            await queue.consume(handle, no_ack=True)
            await end.wait()

    run(scenario())
    assert caplog.text.count("LookupError: plain") == 4
    assert "LookupError: async" in caplog.text


@everywhere
@connecting
def test_iterator_gives_messages_and_leaving_it_gives_back_the_rest(
    url: str, connect: Connect
) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await fill(channel, 10)
            seen = []
            async with queue.iterator() as iterator:
                async for incoming in iterator:
                    async with incoming.process():
                        seen.append(incoming.body)
                    if len(seen) == 3:
                        break
            assert seen == [b"0", b"1", b"2"]
            declared = await queue.declare()
            assert (declared.message_count, declared.consumer_count) == (7, 0)
            async for incoming in queue:
                await incoming.ack()
                if incoming.body == b"9":
                    break

    run(scenario())


@embedded
@connecting
def test_iterator_times_out_and_leaves_no_consumer(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)
            with pytest.raises(asyncio.TimeoutError):
                async for _ in queue.iterator(timeout=0.01):
                    pass
            assert (await queue.declare()).consumer_count == 0

    run(scenario())


@embedded
@connecting
def test_cancelled_iterator_leaves_no_consumer(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)

            async def read() -> None:
                async for _ in queue:
                    pass

            for turns in (0, 1, 3, 20):
                task = asyncio.create_task(read())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert (await queue.declare()).consumer_count == 0

    run(scenario())


@everywhere
def test_iterator_ends_when_its_queue_its_channel_or_its_connection_does(url: str) -> None:
    async def scenario() -> None:
        async def read(queue: aio_pika.Queue) -> int:
            return len([incoming async for incoming in queue])

        async with await aio_pika.connect(url) as connection:
            channel, other = await connection.channel(), await connection.channel()
            readers = []
            for of, name in ((other, "deleted"), (channel, "a"), (other, "b")):
                queue = await of.declare_queue(name, durable=True)
                readers.append(asyncio.create_task(read(queue)))
                while not (await queue.declare()).consumer_count:
                    pass
            await other.queue_delete("deleted")
            assert await readers[0] == 0
            await channel.close()
            assert await readers[1] == 0
            assert not readers[2].done()
        assert await readers[2] == 0

    run(scenario())


@everywhere
@connecting
def test_get_takes_one_message(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await fill(channel, 3)
            first = await queue.get()
            assert (first.body, first.message_count, first.redelivered) == (b"0", 2, False)
            assert (first.exchange, first.routing_key, first.consumer_tag) == ("", "q", None)
            assert repr(first).startswith("IncomingMessage:")
            await first.ack()
            second = await queue.get(no_ack=True, timeout=3)
            assert second.locked
            with pytest.raises(TypeError, match="no_ack"):
                await second.ack()
            await (await queue.get()).reject()
            with pytest.raises(QueueEmpty):
                await queue.get()
            assert await queue.get(fail=False) is None

    run(scenario())


@everywhere
def test_message_is_settled_once(url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await fill(channel, 4)
            incoming = await queue.get()
            await incoming.nack()
            again = await queue.get()
            assert again.redelivered
            await again.reject(requeue=True)
            again = await queue.get()
            states = [again.processed]
            await again.ack()
            states.append(again.processed)
            assert states == [False, True]
            for settle in (again.ack, again.nack, again.reject):
                with pytest.raises(aio_pika.MessageProcessError):
                    await settle()
            with pytest.raises(ValueError, match="locked"):
                again.body = b""
            rest = [await queue.get() for _ in range(3)]
            await rest[1].ack(multiple=True)
            await rest[2].nack(multiple=True, requeue=False)
            assert await queue.get(fail=False) is None
            # The acks were right: the channel lives.
            assert not channel.is_closed

    run(scenario())


@everywhere
def test_process_acks_or_rejects(url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await fill(channel, 2)
            with pytest.raises(LookupError):
                async with (await queue.get()).process(requeue=True):
                    raise LookupError
            again = await queue.get()
            assert again.redelivered
            with pytest.raises(LookupError):
                async with again.process(requeue=True, reject_on_redelivered=True):
                    raise LookupError
            last = await queue.get()
            async with last.process(ignore_processed=True):
                await last.reject(requeue=False)
            assert await queue.get(fail=False) is None
            await fill(channel, 2)
            incoming, other = await queue.get(), await queue.get()
            await channel.close()
            with pytest.raises(LookupError):  # the block's own error, not the closed channel's
                async with incoming.process():
                    raise LookupError
            with pytest.raises(ChannelInvalidStateError):
                await other.ack()

    run(scenario())


@everywhere
def test_ack_of_what_is_unknown_closes_the_channel_and_callbacks_hear_why(url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            told: list[tuple[Any, ...]] = []
            channel.close_callbacks.add(lambda *arguments: told.append(arguments))
            core = await channel.get_underlay_channel()
            core.basic_ack(99)
            await channel.closed()
            assert told[0][0] is channel
            assert isinstance(told[0][1], ChannelPreconditionFailed)
            await channel.reopen()
            await fill(channel, 1)

    run(scenario())


@embedded
@connecting
def test_two_consumers_of_one_tag_are_refused(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)
            assert await queue.consume(print, consumer_tag="tag") == "tag"
            with pytest.raises(DuplicateConsumerTag):
                await queue.consume(print, consumer_tag="tag")
            await queue.cancel("tag", nowait=True)
            assert (await queue.declare()).consumer_count == 0

    run(scenario())


@embedded
@connecting
def test_close_cancels_handlers_but_not_the_one_that_closes(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        connection = await connect(url)
        channel = await connection.channel()
        queue = await channel.declare_queue("q", durable=True)
        ends: list[str] = []
        closed = asyncio.Event()

        async def handle(incoming: aio_pika.IncomingMessage) -> None:
            try:
                if incoming.body == b"1":
                    await connection.close()
                    closed.set()
                else:
                    await asyncio.sleep(60)
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        await queue.consume(handle)
        await fill(channel, 2)
        await closed.wait()
        await asyncio.sleep(0)
        assert ends == ["cancelled"]
        assert connection.is_closed

    run(scenario())


@embedded
@connecting
def test_cancelled_await_leaves_the_channel_usable(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await fill(channel, 1)
            consumed = await channel.declare_queue("consumed", durable=True)

            def calls() -> list[Any]:
                return [
                    channel.declare_queue("q", durable=True),
                    channel.declare_exchange("e"),
                    channel.set_qos(5),
                    queue.get(),
                    consumed.consume(print),
                    queue.bind("amq.fanout"),
                    connection.channel().initialize(),
                ]

            for turns in range(6):
                for call in calls():
                    task = asyncio.ensure_future(call)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    result: Any = (await asyncio.gather(task, return_exceptions=True))[0]
                    if isinstance(result, str):  # it was done before it was cancelled
                        await consumed.cancel(result)
                    elif isinstance(result, aio_pika.IncomingMessage):
                        await result.nack()
            assert (await consumed.declare()).consumer_count == 0
            assert (await queue.get()).body == b"0"

    run(scenario())
