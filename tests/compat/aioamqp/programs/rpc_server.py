"""Tutorial 6, the server."""

import asyncio
import os
from typing import Any

import aioamqp


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


async def on_request(channel: Any, body: bytes, envelope: Any, properties: Any) -> None:
    await channel.basic_publish(
        payload=str(fib(int(body))),
        exchange_name="",
        routing_key=properties.reply_to,
        properties={"correlation_id": properties.correlation_id},
    )
    await channel.basic_client_ack(delivery_tag=envelope.delivery_tag)


async def serve() -> None:
    transport, protocol = await aioamqp.from_url(os.environ["AMQP_URL"])
    channel = await protocol.channel()
    await channel.queue_declare(queue_name="rpc_queue", durable=True)
    await channel.basic_qos(prefetch_count=1, prefetch_size=0, connection_global=False)
    await channel.basic_consume(on_request, queue_name="rpc_queue")
    print("waiting", flush=True)
    await protocol.wait_closed()


asyncio.run(serve())
