"""The example of robust connections: publishes numbers to itself, until so many have come."""

import asyncio
import contextlib
import os
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage


async def main(count: int) -> None:
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"], reconnect_interval=1)
    seen: set[int] = set()
    repeated = failed = 0
    done = asyncio.Event()

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal repeated
        async with message.process():
            number = int(message.body)
            repeated += number in seen
            seen.add(number)
            if not len(seen) % 100:
                print(f"seen={len(seen)}", flush=True)
            if len(seen) == count:
                done.set()

    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=50)
        queue = await channel.declare_queue("robust", durable=True)
        await queue.consume(on_message)
        publishing = await connection.channel()

        async def publish(first: int) -> None:
            nonlocal failed
            for number in range(first, count, 10):
                body = str(number).encode()
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                try:
                    await publishing.default_exchange.publish(message, "robust")
                except Exception:
                    failed += 1
                await asyncio.sleep(0.002)

        await asyncio.gather(*(publish(first) for first in range(10)))
        published = count - failed
        print(f"published={published} failed={failed}", flush=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(done.wait(), float(os.environ.get("TIMEOUT", "30")))
    print(f"seen={len(seen)} repeated={repeated} failed={failed} missing={count - len(seen)}")


asyncio.run(main(int(sys.argv[1])))
