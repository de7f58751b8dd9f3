"""Tutorial 2, the worker; it hears of the end of its connection."""

import asyncio
import os
from typing import Any

import aioamqp


async def callback(channel: Any, body: bytes, envelope: Any, properties: Any) -> None:
    await asyncio.sleep(body.count(b".") / 10)
    print("done", body.decode(), properties.delivery_mode, flush=True)
    await channel.basic_client_ack(delivery_tag=envelope.delivery_tag)


async def error_callback(exception: Exception) -> None:
    print("error", type(exception).__name__, flush=True)


async def worker() -> None:
    transport, protocol = await aioamqp.from_url(os.environ["AMQP_URL"], on_error=error_callback)
    channel = await protocol.channel()
    await channel.queue(queue_name="task_queue", durable=True)
    await channel.basic_qos(prefetch_count=1, prefetch_size=0, connection_global=False)
    await channel.basic_consume(callback, queue_name="task_queue")
    print("waiting", flush=True)
    await protocol.wait_closed()
    await asyncio.sleep(0.1)


asyncio.run(worker())
