"""Tutorials 3, 4 and 5, the receiver: ``TYPE KEY...`` of an exchange of that type."""

import asyncio
import os
import sys

from aio_pika import ExchangeType, connect


async def main(kind: str, *keys: str) -> None:
    connection = await connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        exchange = await channel.declare_exchange(f"logs-{kind}", ExchangeType(kind))
        queue = await channel.declare_queue(exclusive=True)
        for key in keys:
            await queue.bind(exchange, routing_key=key)
        print("waiting", flush=True)
        async with queue.iterator() as iterator:
            async for message in iterator:
                async with message.process():
                    print(message.routing_key, message.body.decode(), flush=True)


asyncio.run(main(*sys.argv[1:]))
