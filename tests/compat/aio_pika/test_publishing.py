"""Publishing by the aio_pika facade: at the call, with one word of the broker for each message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from evamqp.compat import aio_pika
from evamqp.compat.aio_pika.aiormq.abc import DeliveredMessage
from evamqp.compat.aio_pika.exceptions import (
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)
from evamqp.compat.aio_pika.pamqp.commands import Basic
from tests.compat.asyncio_rig import run
from tests.support.broker_url import BROKERS

everywhere = pytest.mark.parametrize("url", BROKERS, indirect=True)
embedded = pytest.mark.parametrize("url", ["embedded"], indirect=True)
connecting = pytest.mark.parametrize("connect", [aio_pika.connect, aio_pika.connect_robust])
Connect = Callable[..., Awaitable[Any]]


def message(body: bytes = b"m", **options: Any) -> aio_pika.Message:
    return aio_pika.Message(body, **options)


@everywhere
@connecting
def test_awaited_publish_gives_the_brokers_ack(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)
            acks = await asyncio.gather(
                *(channel.default_exchange.publish(message(), "q") for _ in range(100))
            )
            assert all(isinstance(ack, Basic.Ack) for ack in acks)
            assert len({ack.delivery_tag for ack in acks}) == 100
            assert (await queue.declare()).message_count == 100

    run(scenario())


@everywhere
@connecting
def test_publish_acts_at_the_call_and_need_not_be_awaited(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)
            came = asyncio.Event()
            bodies: list[bytes] = []

            def take(incoming: aio_pika.IncomingMessage) -> None:
                bodies.append(incoming.body)
                _ = incoming.ack()
                if incoming.body == b"0":
                    _ = channel.default_exchange.publish(message(b"1"), routing_key="q")
                else:
                    came.set()

            await queue.consume(take)
            channel.default_exchange.publish(message(b"0"), "q")
            await came.wait()
            assert bodies == [b"0", b"1"]

    run(scenario())


@everywhere
@connecting
def test_publish_passes_for_a_coroutine(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q", durable=True)
            publish = channel.default_exchange.publish
            assert isinstance(await asyncio.create_task(publish(message(), "q")), Basic.Ack)
            assert isinstance(await asyncio.wait_for(publish(message(), "q"), 5), Basic.Ack)
            assert isinstance(await publish(message(), "q", timeout=5), Basic.Ack)
            async with connection.channel(publisher_confirms=False) as plain:
                done = asyncio.create_task(plain.default_exchange.publish(message(), "q"))
                assert await done is None

    run(scenario())


@everywhere
@connecting
def test_return_is_tied_to_its_message(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel(on_return_raises=True)
            returned: list[bytes] = []
            channel.return_callbacks.add(lambda sender, back: returned.append(back.body))
            await channel.declare_queue("q", durable=True)
            publish = channel.default_exchange.publish
            results: Any = await asyncio.gather(
                publish(message(b"0"), "q"),
                publish(message(b"1"), "nowhere"),
                publish(message(b"2"), "q"),
                publish(message(b"3"), "nowhere", mandatory=False),
                # What brokers rewrite: they sort headers, and strip BCC.
                publish(message(b"4", headers={"z": 1, "BCC": ["no"], "a": 2}), "nowhere"),
                return_exceptions=True,
            )
            kinds = [type(result) for result in results]
            assert kinds == [Basic.Ack, PublishError, Basic.Ack, Basic.Ack, PublishError]
            assert results[1].frame.routing_key == "nowhere"
            assert results[1].message.body == b"1"
            assert returned == [b"1", b"4"]

    run(scenario())


@everywhere
@connecting
def test_return_is_a_value_unless_it_raises(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            back = await channel.default_exchange.publish(message(type="t"), "nowhere")
            assert isinstance(back, DeliveredMessage)
            assert back.header.properties.message_type == "t"
            assert isinstance(back.delivery, Basic.Return)
            assert back.delivery.reply_code == 312

    run(scenario())


@everywhere
@connecting
def test_nack_raises_delivery_error(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
            await channel.declare_queue("q", durable=True, arguments=arguments)
            await channel.default_exchange.publish(message(), "q")
            with pytest.raises(DeliveryError) as caught:
                await channel.default_exchange.publish(message(), "q")
            assert isinstance(caught.value.frame, Basic.Nack)

    run(scenario())


@everywhere
def test_publish_to_a_missing_exchange_closes_a_channel_and_no_robust_one(url: str) -> None:
    async def scenario() -> None:
        for connect in (aio_pika.connect, aio_pika.connect_robust):
            async with await connect(url) as connection:
                channel = await connection.channel()
                await channel.declare_queue("q", durable=True)
                missing = await channel.get_exchange("missing", ensure=False)
                results = await asyncio.gather(
                    *(channel.default_exchange.publish(message(), "q") for _ in range(3)),
                    missing.publish(message(), "q"),
                    *(channel.default_exchange.publish(message(), "q") for _ in range(3)),
                    return_exceptions=True,
                )
                assert isinstance(results[3], ChannelNotFoundEntity)
                if connect is aio_pika.connect_robust:
                    others = results[:3] + results[4:]
                    assert [type(result) for result in others] == [Basic.Ack] * 6
                    await channel.default_exchange.publish(message(), "q")
                else:
                    with pytest.raises(ChannelInvalidStateError):
                        await channel.default_exchange.publish(message(), "q")

    run(scenario())


async def fail_within(transaction: aio_pika.abc.AbstractTransaction) -> None:
    async with transaction:
        await transaction.channel.default_exchange.publish(message(), "q")
        raise LookupError


@everywhere
def test_transaction_commits_or_rolls_back(url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(url) as connection:
            with pytest.raises(RuntimeError):
                (await connection.channel()).transaction()
            channel = await connection.channel(publisher_confirms=False)
            queue = await channel.declare_queue("q", durable=True)
            async with channel.transaction():
                await channel.default_exchange.publish(message(), "q")
            assert (await queue.declare()).message_count == 1
            transaction = channel.transaction()
            with pytest.raises(LookupError):
                await fail_within(transaction)
            assert str(transaction) == "rolled back"
            assert (await queue.declare()).message_count == 1
            transaction = channel.transaction()
            await transaction.select()
            await channel.default_exchange.publish(message(), "q")
            await transaction.commit()
            assert (await queue.declare()).message_count == 2

    run(scenario())


@embedded
@connecting
def test_cancelled_publish_leaves_the_channel_usable(url: str, connect: Connect) -> None:
    async def scenario() -> None:
        async with await connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q", durable=True)
            for turns in range(5):
                task = asyncio.create_task(channel.default_exchange.publish(message(), "q"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert isinstance(await channel.default_exchange.publish(message(), "q"), Basic.Ack)

    run(scenario())


@embedded
def test_what_cannot_be_published_is_refused_at_the_call(url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            inner = await channel.declare_exchange("inner", internal=True)
            with pytest.raises(ValueError, match="internal"):
                inner.publish(message(), "q")
            with pytest.raises(ValueError, match="immediate"):
                channel.default_exchange.publish(message(), "q", immediate=True)
            with pytest.raises(RuntimeError):
                connection.channel(publisher_confirms=False, on_return_raises=True)
            await channel.close()
            with pytest.raises(ChannelInvalidStateError):
                channel.default_exchange.publish(message(), "q")

    run(scenario())


@embedded
def test_flood_that_nobody_awaits_is_sent_in_order(url: str) -> None:
    async def scenario() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(publisher_confirms=False)
            queue = await channel.declare_queue("q", durable=True)
            size, count = 1024 * 1024, 100
            for number in range(count):  # more than the output buffer takes
                channel.default_exchange.publish(message(bytes([number]) * size), "q")
            seen = []
            async with queue.iterator(no_ack=True) as iterator:
                async for incoming in iterator:
                    seen.append(incoming.body[0])
                    if len(seen) == count:
                        break
            assert seen == list(range(count))

    run(scenario())
