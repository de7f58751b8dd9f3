"""Tutorials 3, 4 and 5, the receiver: ``TYPE KEY...``."""

import asyncio
import os
import sys
from typing import Any

import aioamqp


async def callback(channel: Any, body: bytes, envelope: Any, properties: Any) -> None:
    print(envelope.routing_key, body.decode(), flush=True)


async def receive(kind: str, *keys: str) -> None:
    transport, protocol = await aioamqp.from_url(os.environ["AMQP_URL"])
    channel = await protocol.channel()
    exchange = f"logs-{kind}"
    await channel.exchange(exchange, kind)
    result = await channel.queue(queue_name="", durable=True, auto_delete=True)
    queue_name = result["queue"]
    for key in keys:
        await channel.queue_bind(exchange_name=exchange, queue_name=queue_name, routing_key=key)
    await asyncio.wait_for(channel.basic_consume(callback, queue_name, no_ack=True), 10)
    print("waiting", flush=True)
    await protocol.wait_closed()


asyncio.run(receive(*sys.argv[1:]))
