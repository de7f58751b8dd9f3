"""Tutorial 6, the client: calls by an exclusive queue of results."""

import asyncio
import os
import sys
import uuid
from collections.abc import MutableMapping

from aio_pika import Message, connect
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractIncomingMessage,
    AbstractQueue,
)


class FibonacciClient:
    connection: AbstractConnection
    channel: AbstractChannel
    callback_queue: AbstractQueue

    def __init__(self) -> None:
        self.futures: MutableMapping[str, asyncio.Future[bytes]] = {}

    async def connect(self) -> "FibonacciClient":
        self.connection = await connect(os.environ["AMQP_URL"])
        self.channel = await self.connection.channel()
        self.callback_queue = await self.channel.declare_queue(exclusive=True)
        await self.callback_queue.consume(self.on_response, no_ack=True)
        return self

    async def on_response(self, message: AbstractIncomingMessage) -> None:
        assert message.correlation_id is not None
        self.futures.pop(message.correlation_id).set_result(message.body)

    async def call(self, n: int) -> int:
        correlation_id = str(uuid.uuid4())
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.futures[correlation_id] = future
        message = Message(
            str(n).encode(),
            content_type="text/plain",
            correlation_id=correlation_id,
            reply_to=self.callback_queue.name,
        )
        await self.channel.default_exchange.publish(message, routing_key="rpc_queue")
        return int(await future)


async def main() -> None:
    client = await FibonacciClient().connect()
    for word in sys.argv[1:]:
        print("got", await client.call(int(word)))
    await client.connection.close()


asyncio.run(main())
