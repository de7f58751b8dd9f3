"""Tutorials 3, 4 and 5, the sender: ``TYPE KEY TEXT``."""

import asyncio
import os
import sys

import aioamqp


async def emit(kind: str, key: str, text: str) -> None:
    transport, protocol = await aioamqp.from_url(os.environ["AMQP_URL"])
    channel = await protocol.channel()
    await channel.exchange_declare(exchange_name=f"logs-{kind}", type_name=kind)
    await channel.basic_publish(text, exchange_name=f"logs-{kind}", routing_key=key)
    print("sent")
    await protocol.close()
    transport.close()


asyncio.run(emit(*sys.argv[1:4]))
