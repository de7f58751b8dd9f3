"""Tutorial 1, the sender."""

import asyncio
import os

import aioamqp


async def send() -> None:
    transport, protocol = await aioamqp.from_url(os.environ["AMQP_URL"])
    channel = await protocol.channel()
    await channel.queue_declare(queue_name="hello", durable=True)
    await channel.basic_publish(payload="Hello World!", exchange_name="", routing_key="hello")
    print("sent")
    await protocol.close()
    transport.close()


asyncio.run(send())
