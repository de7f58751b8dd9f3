"""A program as they were for aio-pika 0.9: a loop by hand, nothing awaited that need not be."""

# mypy: ignore-errors

import asyncio
import os
import sys
from functools import partial

from aio_pika import IncomingMessage, Message, connect

seen = []


def on_message(exchange, loop, message: IncomingMessage):
    with message.process():
        number = int(message.body)
        seen.append(number)
        if number < 5:
            exchange.publish(
                Message(body=str(number + 1).encode(), correlation_id=message.correlation_id),
                routing_key=message.routing_key,
            )
        else:
            print("seen", seen, message.correlation_id)
            loop.create_task(stop(loop))


async def stop(loop):
    await asyncio.sleep(0)
    sys.exit(3)


async def main(loop):
    connection = await connect(os.environ["AMQP_URL"], loop=loop)
    channel = await connection.channel()
    queue = await channel.declare_queue("old", durable=True, auto_delete=True)
    await queue.consume(partial(on_message, channel.default_exchange, loop))
    channel.default_exchange.publish(Message(b"0", correlation_id=77), routing_key=queue.name)


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
asyncio.ensure_future(main(loop), loop=loop)  # noqa: RUF006, since that is the style
loop.run_forever()
