"""A Tornado program of 0.x: callbacks first, no_ack, add_timeout, and its own reconnecting."""

import os
import sys

import pika
from pika.adapters import TornadoConnection
from tornado import ioloop

lives = int(sys.argv[1])
seen = []
closed = []


def connect():
    parameters = pika.URLParameters(os.environ["AMQP_URL"])
    return TornadoConnection(parameters, on_open, stop_ioloop_on_close=False)


def on_open(connection):
    connection.add_on_close_callback(on_close)
    connection.channel(on_channel)


def on_channel(channel):
    def on_message(ch, method, properties, body):
        ch.basic_ack(delivery_tag=method.delivery_tag)
        seen.append(body.decode())
        channel.connection.add_timeout(0.05, lambda: channel.connection.close(320, "next life"))

    def declared(frame):
        channel.basic_consume(on_message, queue=frame.method.queue, no_ack=False)
        channel.basic_publish("", frame.method.queue, "life %d" % len(closed))

    channel.queue_declare(declared, exclusive=True)


def on_close(connection, reply_code, reply_text):
    closed.append((reply_code, reply_text))
    if len(closed) < lives:
        connection.add_timeout(0.05, connect)
    else:
        ioloop.IOLoop.current().stop()


connect()
ioloop.IOLoop.current().start()
assert seen == ["life %d" % n for n in range(lives)], seen
print("lives=%d last=%r" % (len(seen), closed[-1]))
