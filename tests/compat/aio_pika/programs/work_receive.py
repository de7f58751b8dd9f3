"""Tutorial 2, the worker: one task at a time, acknowledged when it is done."""

import asyncio
import os

from aio_pika import connect
from aio_pika.abc import AbstractIncomingMessage


async def on_message(message: AbstractIncomingMessage) -> None:
    async with message.process():
        await asyncio.sleep(message.body.count(b".") / 10)
        print("done", message.body.decode(), message.delivery_mode.name, flush=True)


async def main() -> None:
    connection = await connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue("tasks", durable=True)
        await queue.consume(on_message)
        print("waiting", flush=True)
        await asyncio.Future()


asyncio.run(main())
