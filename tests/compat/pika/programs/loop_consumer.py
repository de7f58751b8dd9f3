"""A consumer on asyncio's loop or on Tornado's, as pika's examples for those have it."""

import os
import sys

import pika

kind, count = sys.argv[1], int(sys.argv[2])
got = []


def on_open(connection):
    connection.channel(on_open_callback=on_channel_open)


def on_channel_open(channel):
    channel.basic_qos(prefetch_count=5)
    channel.queue_declare("text", durable=True, callback=lambda frame: consume(channel))


def consume(channel):
    channel.basic_consume("text", on_message)
    print("consuming", flush=True)


def on_message(channel, method, properties, body):
    got.append(body)
    channel.basic_ack(method.delivery_tag)
    if len(got) == count:
        channel.connection.close()


def on_close(connection, reason):
    print(f"{type(reason).__name__} got={len(got)}")
    connection.ioloop.stop()


if kind == "asyncio":
    import asyncio

    from pika.adapters.asyncio_connection import AsyncioConnection

    loop = asyncio.new_event_loop()
    connection = AsyncioConnection(
        pika.URLParameters(os.environ["AMQP_URL"]),
        on_open_callback=on_open,
        on_close_callback=on_close,
        custom_ioloop=loop,
    )
    assert connection.ioloop is loop
    loop.run_forever()
    loop.close()
else:
    from pika.adapters.tornado_connection import TornadoConnection
    from tornado.ioloop import IOLoop

    loop = IOLoop()
    connection = TornadoConnection(
        pika.URLParameters(os.environ["AMQP_URL"]),
        on_open_callback=on_open,
        on_close_callback=on_close,
        custom_ioloop=loop,
    )
    assert connection.ioloop is loop
    loop.start()
