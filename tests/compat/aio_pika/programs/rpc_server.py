"""Tutorial 6, the server: Fibonacci numbers, by reply_to and correlation_id."""

import asyncio
import os

from aio_pika import Message, connect


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


async def main() -> None:
    connection = await connect(os.environ["AMQP_URL"])
    channel = await connection.channel()
    exchange = channel.default_exchange
    queue = await channel.declare_queue("rpc_queue", durable=True)
    print("waiting", flush=True)
    async with queue.iterator() as iterator:
        async for message in iterator:
            async with message.process(requeue=False):
                assert message.reply_to is not None
                answer = str(fib(int(message.body))).encode()
                await exchange.publish(
                    Message(answer, correlation_id=message.correlation_id),
                    routing_key=message.reply_to,
                )
                print("answered", answer, flush=True)


asyncio.run(main())
