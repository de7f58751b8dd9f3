"""RPC, JsonRPC, Master and JsonMaster, the side that does what is asked."""

import asyncio
import os

from aio_pika import connect_robust
from aio_pika.patterns import RPC, JsonMaster, JsonRPC, Master, NackMessage, RejectMessage

failures: dict[str, int] = {}


async def multiply(*, x: int, y: int) -> int:
    return x * y


async def fail(*, word: str) -> None:
    raise KeyError(word)


async def work(*, task: str) -> None:
    failures[task] = failures.get(task, 0) + 1
    if task == "reject":
        raise RejectMessage(requeue=False)
    if task == "nack" and failures[task] == 1:
        raise NackMessage(requeue=True)
    if task == "raise" and failures[task] == 1:
        raise LookupError(task)
    print("did", task, failures[task], flush=True)


async def main() -> None:
    connection = await connect_robust(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
        rpc = await RPC.create(channel, durable=True)
        await rpc.register("multiply", multiply, durable=True, auto_delete=True)
        await rpc.register("deep.fail", fail, durable=True, auto_delete=True)
        # Its queue exists, and nobody takes its messages.
        await channel.declare_queue(
            "slow", durable=True, auto_delete=True, arguments={"x-dead-letter-exchange": "rpc.dlx"}
        )
        json_rpc = await JsonRPC.create(await connection.channel(), exchange="json", durable=True)
        await json_rpc.register("multiply", multiply, durable=True, auto_delete=True)
        await json_rpc.register("fail", fail, durable=True, auto_delete=True)
        await Master(channel).create_worker("my_task", work, durable=True, auto_delete=True)
        await JsonMaster(await connection.channel()).create_worker("json_task", work, durable=True)
        print("waiting", flush=True)
        await asyncio.Future()


asyncio.run(main())
