"""A FastStream application: publishes, consumes, asks; and again after the broker dropped it."""

import asyncio
import os
import sys

from evamqp.compat import substitute

substitute("aio_pika")

from faststream.rabbit import (  # noqa: E402
    ExchangeType,
    RabbitBroker,
    RabbitExchange,
    RabbitQueue,
)

broker = RabbitBroker(os.environ["AMQP_URL"])
exchange = RabbitExchange("topics", type=ExchangeType.TOPIC)
came: "asyncio.Queue[str]"


@broker.subscriber("results")
async def collect(text: str) -> None:
    came.put_nowait(text)


@broker.subscriber("doubles")
async def double(number: int) -> int:
    return number * 2


@broker.subscriber(RabbitQueue("by-topic", routing_key="a.*"), exchange)
@broker.publisher("results")
async def relay(text: str) -> str:
    return f"{text}, relayed"


async def main() -> None:
    global came
    came = asyncio.Queue()
    async with broker:
        await broker.start()
        for word in ("first", "second"):
            await broker.publish(word, "results")
            print("came", await came.get())
            await broker.publish(word, "a.b", exchange=exchange)
            print("came", await came.get())
            answer = await broker.request(21, "doubles", timeout=10)
            print("answer", await answer.decode(), flush=True)
            if word == "first":
                await asyncio.to_thread(sys.stdin.readline)
    print("healthy", sys.modules["aio_pika"].__name__)


asyncio.run(main())
