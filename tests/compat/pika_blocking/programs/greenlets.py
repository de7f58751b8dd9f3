"""Everything patched by gevent: blocking connections, GeventConnection and evamqp.blocking."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import gevent  # noqa: E402

import evamqp.blocking  # noqa: E402
import evamqp.compat.pika as pika  # noqa: E402
from evamqp.compat.pika.adapters.gevent_connection import GeventConnection  # noqa: E402

URL = os.environ["AMQP_URL"]
PARAMETERS = pika.URLParameters(URL)
ticks = []


def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.005)


def publish(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    for number in range(20):
        channel.basic_publish("", "greenlets", str(number), mandatory=True)


def blocking():
    connection = pika.BlockingConnection(PARAMETERS)
    channel = connection.channel()
    channel.queue_declare("greenlets", exclusive=True)
    publishers = [gevent.spawn(publish, connection) for _ in range(5)]
    gevent.joinall(publishers, raise_error=True, timeout=30)
    got = []

    def on_message(ch, method, properties, body):
        got.append(body)
        gevent.sleep(0.001)
        ch.basic_ack(method.delivery_tag)
        if len(got) == 100:
            ch.stop_consuming()

    channel.basic_consume("greenlets", on_message)
    channel.start_consuming()
    connection.close()
    return len(got)


def callbacks():
    got = []

    def on_message(channel, method, properties, body):
        got.append(body.decode())
        connection.ioloop.call_later(0.05, connection.close)

    def on_queue(channel, queue):
        channel.basic_consume(queue, on_message, auto_ack=True)
        channel.basic_publish("", queue, "hello")

    def on_channel(channel):
        channel.queue_declare(
            "", exclusive=True, callback=lambda frame: on_queue(channel, frame.method.queue)
        )

    connection = GeventConnection(
        PARAMETERS,
        on_open_callback=lambda connection: connection.channel(on_open_callback=on_channel),
        on_close_callback=lambda connection, error: connection.ioloop.stop(),
    )
    gevent.spawn(connection.ioloop.start).join(30)
    return got


def native():
    with evamqp.blocking.connect(URL) as connection:
        channel = connection.channel()
        channel.queue_declare("native", exclusive=True)
        channel.publish("", "native", b"1")
        return [m.ack() for m in channel.consume("native", inactivity_timeout=0.2)]


gevent.spawn(tick)
print("blocking", blocking(), len(ticks) > 5)
before = len(ticks)
print("callbacks", callbacks(), len(ticks) - before > 5)
print("native", native(), flush=True)
