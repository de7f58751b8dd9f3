"""Tutorial 2, the sender: persistent tasks, of which each dot is a tenth of a second of work."""

import asyncio
import os
import sys

from aio_pika import DeliveryMode, Message, connect


async def main() -> None:
    connection = await connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue("tasks", durable=True)
        for word in sys.argv[1:] or ["Hello."]:
            message = Message(word.encode(), delivery_mode=DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key="tasks")
            print("sent", repr(message.body))


asyncio.run(main())
