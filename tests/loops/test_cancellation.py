"""A program that is cancelled at any of its awaits leaves nothing behind: each once, in turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import evamqp
from evamqp.testing.fixtures import ServedVhost
from tests.compat.asyncio_rig import run
from tests.support.cancelling import Program, survive_every_cancelling


async def with_a_channel(url: str, done: list[bytes]) -> None:
    """The awaits of a connection and a channel."""
    async with evamqp.connect(url) as connection, connection.channel() as channel:
        await channel.basic_qos(2)
        await channel.exchange_declare("e", "fanout", auto_delete=True)
        await channel.queue_declare("other", exclusive=True)
        await channel.queue_bind("other", "e")
        await channel.confirm_select()
        channel.basic_publish("e", "", b"x")
        await channel.wait_for_confirms()
        got = await channel.basic_get("q")
        if got is not None:
            got.ack()
            done.append(got.body)
        async with channel.messages("q", prefetch=1) as messages:
            async for message in messages:
                async with message:
                    await asyncio.sleep(0)
                    done.append(message.body)
                break
        tag = channel.basic_consume("other", print, auto_ack=True)
        await tag
        await channel.basic_cancel(tag)
        await channel.queue_purge("other")
        await channel.queue_unbind("other", "e")
        await channel.queue_delete("other")
        await connection.wait_writable()


async def with_clients(url: str, done: list[bytes]) -> None:
    """The awaits of the clients that reconnect."""
    came: asyncio.Queue[bytes] = asyncio.Queue()
    topology = evamqp.Topology()
    topology.queue("calls", exclusive=True, durable=False)

    def take(message: evamqp.Message) -> None:
        done.append(message.body)
        came.put_nowait(message.body)

    async def answer(message: evamqp.Message) -> bytes:
        await asyncio.sleep(0)
        return message.body

    async with evamqp.Reconnector(url, topology=topology) as reconnector:
        await reconnector.wait_ready()
        async with evamqp.Publisher(reconnector) as publisher:
            await publisher.wait_ready()
            await publisher.publish("", "calls", b"no call")
        async with (
            evamqp.Consumer(reconnector, "q", take) as consumer,
            evamqp.RpcServer(reconnector, "calls", answer) as server,
            evamqp.RpcClient(reconnector) as client,
        ):
            await consumer.wait_ready()
            await came.get()
            await server.wait_ready()
            await client.wait_ready()
            await client.call("calls", b"a call")
            await came.get()


@pytest.mark.parametrize("program", [with_a_channel, with_clients])
def test_no_await_that_is_cancelled_leaves_anything(
    amqp_broker: ServedVhost, program: Program
) -> None:
    scenario: Any = survive_every_cancelling(amqp_broker, program)
    assert run(scenario, seconds=120) > 10
