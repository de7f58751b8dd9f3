"""Tutorial 6, the client."""

import asyncio
import os
import sys
import uuid
from typing import Any

import aioamqp


class FibonacciClient:
    def __init__(self) -> None:
        self.waiter = asyncio.Event()
        self.response = b""

    async def connect(self) -> None:
        self.transport, self.protocol = await aioamqp.from_url(os.environ["AMQP_URL"])
        self.channel = await self.protocol.channel()
        result = await self.channel.queue_declare(queue_name="", exclusive=True)
        self.callback_queue = result["queue"]
        await self.channel.basic_consume(
            self.on_response, no_ack=True, queue_name=self.callback_queue
        )

    async def on_response(self, channel: Any, body: bytes, envelope: Any, properties: Any) -> None:
        if self.correlation_id == properties.correlation_id:
            self.response = body
        self.waiter.set()

    async def call(self, n: int) -> int:
        self.correlation_id = str(uuid.uuid4())
        self.waiter.clear()
        await self.channel.basic_publish(
            payload=str(n),
            exchange_name="",
            routing_key="rpc_queue",
            properties={"reply_to": self.callback_queue, "correlation_id": self.correlation_id},
        )
        await self.waiter.wait()
        return int(self.response)


async def main() -> None:
    client = FibonacciClient()
    await client.connect()
    for word in sys.argv[1:]:
        print("got", await client.call(int(word)))
    await client.protocol.close()


asyncio.run(main())
