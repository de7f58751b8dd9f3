"""RPC, JsonRPC, Master and JsonMaster, the side that asks."""

import asyncio
import os

from aio_pika import connect_robust
from aio_pika.exceptions import MessageProcessError
from aio_pika.patterns import RPC, JsonMaster, JsonRPC, Master


async def main() -> None:
    connection = await connect_robust(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        rpc = await RPC.create(channel, durable=True)
        print("rpc", [await rpc.proxy.multiply(x=n, y=2) for n in range(3)])
        print("call", await rpc.call("multiply", {"x": 3, "y": 4}))
        try:
            await rpc.proxy.deep.fail(word="pickled")
        except KeyError as error:
            print("error", error)
        try:
            await rpc.call("missing")
        except MessageProcessError:
            print("missing is told")
        try:
            await rpc.call("slow", expiration=1)
        except asyncio.TimeoutError:
            print("slow is told")
        json_rpc = await JsonRPC.create(await connection.channel(), exchange="json", durable=True)
        print("json", await json_rpc.proxy.multiply(x=5, y=6))
        try:
            await json_rpc.proxy.fail(word="told")
        except RuntimeError as error:
            print("json error", error.args[1]["error"]["type"])
        master = Master(channel)
        for task in ("easy", "reject", "nack", "raise"):
            await master.proxy.my_task(task=task)
        await JsonMaster(await connection.channel()).create_task("json_task", {"task": "last"})
        await rpc.close()


asyncio.run(main())
