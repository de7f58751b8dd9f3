"""The example of Tornado: a web application that publishes what is posted and shows what came."""

import asyncio
import os
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application, RequestHandler

came: "asyncio.Queue[bytes]"


class Subscriber(RequestHandler):
    async def get(self) -> None:
        self.write(await came.get())


class Publisher(RequestHandler):
    async def post(self) -> None:
        connection = self.application.settings["amqp_connection"]
        async with connection.channel() as channel:
            message = aio_pika.Message(self.request.body)
            await channel.default_exchange.publish(message, routing_key="tornado")
        self.finish("OK")


async def main(port: int) -> None:
    global came
    came = asyncio.Queue()
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await connection.channel()
    queue = await channel.declare_queue("tornado", durable=True, auto_delete=True)

    async def on_message(message: AbstractIncomingMessage) -> None:
        async with message.process():
            await came.put(message.body)

    await queue.consume(on_message)
    paths = [(r"/publish", Publisher), (r"/subscribe", Subscriber)]
    server = Application(paths, amqp_connection=connection).listen(port, "127.0.0.1")
    client = AsyncHTTPClient()
    url = f"http://127.0.0.1:{port}"
    await client.fetch(f"{url}/publish", method="POST", body=b"posted")
    print("came", (await client.fetch(f"{url}/subscribe")).body.decode())
    server.stop()
    await server.close_all_connections()
    client.close()
    await connection.close()


asyncio.run(main(int(sys.argv[1])))
