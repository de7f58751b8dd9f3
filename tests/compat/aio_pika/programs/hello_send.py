"""Tutorial 1, the sender: one message to a queue."""

import asyncio
import os

from aio_pika import Message, connect


async def main() -> None:
    connection = await connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("hello", durable=True)
        await channel.default_exchange.publish(Message(b"Hello World!"), routing_key=queue.name)
        print("sent 'Hello World!'")


asyncio.run(main())
