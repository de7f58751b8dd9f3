"""Tutorial 2, the sender."""

import asyncio
import os
import sys

import aioamqp


async def new_task() -> None:
    transport, protocol = await aioamqp.from_url(os.environ["AMQP_URL"])
    channel = await protocol.channel()
    await channel.queue("task_queue", durable=True)
    for message in sys.argv[1:]:
        await channel.basic_publish(
            payload=message,
            exchange_name="",
            routing_key="task_queue",
            properties={"delivery_mode": 2},
        )
    print("sent")
    await protocol.close()
    transport.close()


asyncio.run(new_task())
