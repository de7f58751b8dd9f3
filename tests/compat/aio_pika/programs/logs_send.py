"""Tutorials 3, 4 and 5, the sender: ``TYPE KEY TEXT`` to an exchange of that type."""

import asyncio
import os
import sys

from aio_pika import ExchangeType, Message, connect


async def main(kind: str, key: str, text: str) -> None:
    connection = await connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(f"logs-{kind}", ExchangeType(kind))
        await exchange.publish(Message(text.encode()), routing_key=key)
        print("sent", text)


asyncio.run(main(*sys.argv[1:4]))
