"""The example of pools: publishers and consumers that share connections and channels."""

import asyncio
import os

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractRobustConnection
from aio_pika.pool import Pool

COUNT = 50


async def main() -> None:
    async def get_connection() -> AbstractRobustConnection:
        return await aio_pika.connect_robust(os.environ["AMQP_URL"])

    connection_pool: Pool[AbstractRobustConnection] = Pool(get_connection, max_size=2)

    async def get_channel() -> AbstractChannel:
        async with connection_pool.acquire() as connection:
            return await connection.channel()

    channel_pool: Pool[AbstractChannel] = Pool(get_channel, max_size=10)
    seen: set[bytes] = set()
    declared = asyncio.Event()

    async def consume() -> None:
        async with channel_pool.acquire() as channel:
            await channel.set_qos(10)
            queue = await channel.declare_queue("pool_queue", durable=True, auto_delete=True)
            declared.set()
            async with queue.iterator() as iterator:
                async for message in iterator:
                    seen.add(message.body)
                    await message.ack()
                    if len(seen) == COUNT:
                        return

    async def publish(number: int) -> None:
        async with channel_pool.acquire() as channel:
            message = aio_pika.Message(f"Channel: {channel!r} {number}".encode())
            await channel.default_exchange.publish(message, "pool_queue")

    async with connection_pool, channel_pool:
        task = asyncio.create_task(consume())
        await declared.wait()
        await asyncio.gather(*(publish(number) for number in range(COUNT)))
        await task
    print("seen", len(seen))


asyncio.run(main())
