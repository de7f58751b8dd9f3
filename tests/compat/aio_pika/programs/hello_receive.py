"""Tutorial 1, the receiver: prints what comes, without acknowledging."""

import asyncio
import os

from aio_pika import connect
from aio_pika.abc import AbstractIncomingMessage


async def on_message(message: AbstractIncomingMessage) -> None:
    print("received", message)
    print("body is", message.body, flush=True)


async def main() -> None:
    connection = await connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("hello", durable=True)
        await queue.consume(on_message, no_ack=True)
        print("waiting", flush=True)
        await asyncio.Future()


asyncio.run(main())
