"""A program of each facade that is cancelled at any of its awaits leaves nothing behind.

Each await is cancelled once, at the moment it suspends, on the embedded broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import evamqp.compat.aio_pika as aio_pika
import evamqp.compat.aioamqp as aioamqp
from evamqp.testing.fixtures import ServedVhost
from tests.compat.asyncio_rig import run
from tests.support.cancelling import WAITING, Program, survive_every_cancelling


async def with_aio_pika(
    connect: Callable[[str], Awaitable[Any]], url: str, seen: list[bytes]
) -> None:
    """Most awaits that aio-pika has."""
    async with await connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(2)
        queue = await channel.declare_queue("q", durable=True)
        exchange = await channel.declare_exchange("e", auto_delete=True)
        other = await channel.declare_queue("other", exclusive=True)
        await other.bind(exchange, "key")
        await exchange.publish(aio_pika.Message(b"x"), "key")
        incoming = await queue.get()
        async with incoming.process():
            await asyncio.sleep(0)
            seen.append(incoming.body)
        async with queue.iterator() as iterator:
            async for incoming in iterator:
                async with incoming.process():
                    await asyncio.sleep(0)
                    seen.append(incoming.body)
                break
        tag = await other.consume(_drop, no_ack=True)
        await other.cancel(tag)
        await other.purge()
        await other.unbind(exchange, "key")
        await other.delete(if_unused=False, if_empty=False)
        await channel.close()


async def _drop(incoming: Any) -> None:
    """Do nothing."""


async def plain(url: str, seen: list[bytes]) -> None:
    await with_aio_pika(aio_pika.connect, url, seen)


async def robust(url: str, seen: list[bytes]) -> None:
    await with_aio_pika(aio_pika.connect_robust, url, seen)


async def transactions(url: str, seen: list[bytes]) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        async with channel.transaction():
            await channel.default_exchange.publish(aio_pika.Message(b"x"), "nowhere")
        for _ in WAITING:
            incoming = await (await channel.get_queue("q")).get()
            async with channel.transaction():
                await incoming.nack(requeue=True)


async def old(url: str, seen: list[bytes]) -> None:
    """Most awaits that aioamqp has."""
    _, protocol = await aioamqp.from_url(url)
    try:
        channel = await protocol.channel()
        await channel.basic_qos(0, 2, False)
        await channel.queue_declare("q", durable=True)
        await channel.exchange_declare("e", "fanout", auto_delete=True)
        await channel.queue_declare("other", exclusive=True)
        await channel.queue_bind("other", "e", "")
        await channel.confirm_select()
        await channel.publish(b"x", "e", "")
        got = await channel.basic_get("q")
        seen.append(got["message"])
        await channel.basic_client_ack(got["delivery_tag"])
        came: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()

        async def take(of: Any, body: bytes, envelope: Any, properties: Any) -> None:
            came.put_nowait((body, envelope.delivery_tag))

        started = await channel.basic_consume(take, "q")
        body, tag = await came.get()
        seen.append(body)
        await channel.basic_client_ack(tag)
        await channel.basic_cancel(started["consumer_tag"])
        await channel.queue_purge("other")
        await channel.queue_unbind("other", "e", "")
        await channel.queue_delete("other")
        await channel.close()
    finally:
        await protocol.close()


@pytest.mark.parametrize("program", [plain, robust, transactions, old])
def test_no_await_that_is_cancelled_leaves_anything(
    amqp_broker: ServedVhost, program: Program
) -> None:
    assert run(survive_every_cancelling(amqp_broker, program), seconds=120) > 10
