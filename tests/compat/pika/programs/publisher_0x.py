"""The asynchronous publisher of pika 0.10 to 0.13: callbacks first, codes and texts."""

import os
import sys

import pika


class Publisher(object):
    def __init__(self, url, count):
        self._url = url
        self._count = count
        self._number = self._acked = 0
        self._closing = False

    def run(self):
        self._connection = pika.SelectConnection(
            pika.URLParameters(self._url), self.on_open, stop_ioloop_on_close=False
        )
        self._connection.ioloop.start()

    def on_open(self, unused_connection):
        self._connection.add_on_close_callback(self.on_closed)
        self._connection.channel(on_open_callback=self.on_channel_open)

    def on_closed(self, connection, reply_code, reply_text):
        print("closed %i %s acked=%i" % (reply_code, reply_text, self._acked))
        self._connection.ioloop.stop()

    def on_channel_open(self, channel):
        self._channel = channel
        channel.add_on_close_callback(self.on_channel_closed)
        print("channel %i" % channel)
        channel.exchange_declare(self.on_exchange, "message", "topic")

    def on_channel_closed(self, channel, reply_code, reply_text):
        print("channel %i closed %i" % (channel, reply_code))
        if not self._closing:
            self._connection.close()

    def on_exchange(self, unused_frame):
        self._channel.queue_declare(self.on_queue, "text", durable=True)

    def on_queue(self, method_frame):
        self._channel.queue_bind(self.on_bind, "text", "message", "example.text")

    def on_bind(self, unused_frame):
        self._channel.confirm_delivery(self.on_confirm)
        self.schedule()

    def schedule(self):
        self._connection.add_timeout(0.001, self.publish)

    def publish(self):
        properties = pika.BasicProperties(
            app_id="example-publisher", content_type="application/json", delivery_mode=2
        )
        self._channel.basic_publish(
            "message", "example.text", "message %d" % self._number, properties
        )
        self._number += 1
        if self._number < self._count:
            self.schedule()

    def on_confirm(self, frame):
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        tag = frame.method.delivery_tag
        self._acked = tag if frame.method.multiple else self._acked + 1
        if self._acked == self._count:
            self._closing = True
            self._connection.close()


Publisher(os.environ["AMQP_URL"], int(sys.argv[1])).run()
