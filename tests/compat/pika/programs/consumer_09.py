"""A consumer of 0.9's time: close callbacks with one frame, and Ctrl-C ends it in two steps."""

import os
import sys

import pika

got = []


def on_open(connection):
    connection.add_on_close_callback(on_closed)
    connection.channel(on_channel_open)


def on_closed(frame):
    print("closed %i %s" % (frame.method.reply_code, frame.method.reply_text))


def on_channel_open(new_channel):
    global channel
    channel = new_channel
    channel.queue_declare(queue="text", durable=True, callback=on_queue)


def on_queue(frame):
    channel.basic_consume(on_message, queue="text", no_ack=True)
    print("consuming")
    sys.stdout.flush()


def on_message(channel, method, header, body):
    got.append(body)
    print("got=%d" % len(got))
    sys.stdout.flush()


connection = pika.SelectConnection(pika.URLParameters(os.environ["AMQP_URL"]), on_open)
try:
    connection.ioloop.start()
except KeyboardInterrupt:
    connection.close()
    connection.ioloop.start()
print("ended got=%d" % len(got))
