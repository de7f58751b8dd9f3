"""Tutorial 1, the receiver; by a loop of its own."""

# mypy: ignore-errors

import asyncio
import os

import aioamqp


async def callback(channel, body, envelope, properties):
    print("received %r" % body, flush=True)


async def receive():
    transport, protocol = await aioamqp.from_url(os.environ["AMQP_URL"])
    channel = await protocol.channel()
    await channel.queue_declare(queue_name="hello", durable=True)
    await channel.basic_consume(callback, queue_name="hello", no_ack=True)
    print("waiting", flush=True)


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(receive())
loop.run_forever()
