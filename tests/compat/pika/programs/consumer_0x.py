"""The asynchronous consumer as pika 0.10 to 0.13 documented it; it connects anew from a timer."""

import os
import sys

import pika


class Consumer(object):
    def __init__(self, url, count):
        self._url = url
        self._count = count
        self._closing = False
        self.got = set()

    def connect(self):
        return pika.SelectConnection(
            pika.URLParameters(self._url), self.on_open, stop_ioloop_on_close=False
        )

    def run(self):
        self._connection = self.connect()
        self._connection.ioloop.start()

    def on_open(self, unused_connection):
        self._connection.add_on_close_callback(self.on_closed)
        self._connection.channel(on_open_callback=self.on_channel_open)

    def on_closed(self, connection, reply_code, reply_text):
        self._channel = None
        if self._closing:
            self._connection.ioloop.stop()
        else:
            print("reconnecting after %i" % reply_code)
            self._connection.add_timeout(0.1, self.reconnect)

    def reconnect(self):
        self._connection.ioloop.stop()
        if not self._closing:
            self._connection = self.connect()
            self._connection.ioloop.start()

    def on_channel_open(self, channel):
        self._channel = channel
        channel.add_on_close_callback(self.on_channel_closed)
        channel.exchange_declare(self.on_exchange, "message", "topic")

    def on_channel_closed(self, channel, reply_code, reply_text):
        self._connection.close()

    def on_exchange(self, unused_frame):
        self._channel.queue_declare(self.on_queue, "text", durable=True)

    def on_queue(self, method_frame):
        self._channel.queue_bind(self.on_bind, "text", "message", "example.text")

    def on_bind(self, unused_frame):
        self._channel.add_on_cancel_callback(self.on_cancelled)
        self._tag = self._channel.basic_consume(self.on_message, "text")
        print("consuming")
        sys.stdout.flush()

    def on_cancelled(self, method_frame):
        if self._channel:
            self._channel.close()

    def on_message(self, unused_channel, basic_deliver, properties, body):
        self.got.add(body)
        self._channel.basic_ack(basic_deliver.delivery_tag)
        if body == ("message %d" % (self._count - 1)).encode():
            self._closing = True
            self._channel.basic_cancel(self.on_cancelok, self._tag)

    def on_cancelok(self, unused_frame):
        self._channel.close()


consumer = Consumer(os.environ["AMQP_URL"], int(sys.argv[1]))
consumer.run()
print("got=%d" % len(consumer.got))
