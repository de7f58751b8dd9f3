"""The asynchronous publisher of pika 1.x: step by step, publishing on a timer."""

import os
import sys

import pika
from pika.exchange_type import ExchangeType


class Publisher:
    EXCHANGE = "message"
    QUEUE = "text"
    ROUTING_KEY = "example.text"

    def __init__(self, url, count):
        self._url = url
        self._count = count
        self._connection = None
        self._channel = None
        self._deliveries = {}
        self._acked = self._nacked = self._number = 0

    def run(self):
        self._connection = pika.SelectConnection(
            pika.URLParameters(self._url),
            on_open_callback=self.on_connection_open,
            on_open_error_callback=self.on_connection_open_error,
            on_close_callback=self.on_connection_closed,
        )
        self._connection.ioloop.start()

    def on_connection_open(self, _connection):
        self._connection.channel(on_open_callback=self.on_channel_open)

    def on_connection_open_error(self, _connection, error):
        print("open failed", error)
        self._connection.ioloop.call_later(5, self._connection.ioloop.stop)

    def on_connection_closed(self, _connection, reason):
        self._channel = None
        print(f"closed {reason.reply_code} acked={self._acked} nacked={self._nacked}")
        self._connection.ioloop.stop()

    def on_channel_open(self, channel):
        self._channel = channel
        channel.add_on_close_callback(self.on_channel_closed)
        channel.exchange_declare(
            exchange=self.EXCHANGE,
            exchange_type=ExchangeType.topic,
            callback=self.on_exchange_declareok,
        )

    def on_channel_closed(self, channel, reason):
        if not self._connection.is_closing:
            self._connection.close()

    def on_exchange_declareok(self, _frame):
        self._channel.queue_declare(
            queue=self.QUEUE, durable=True, callback=self.on_queue_declareok
        )

    def on_queue_declareok(self, frame):
        assert frame.method.queue == self.QUEUE
        self._channel.queue_bind(
            self.QUEUE, self.EXCHANGE, routing_key=self.ROUTING_KEY, callback=self.on_bindok
        )

    def on_bindok(self, _frame):
        self._channel.confirm_delivery(self.on_delivery_confirmation)
        self.publish_message()

    def on_delivery_confirmation(self, frame):
        kind = frame.method.NAME.split(".")[1].lower()
        tags = [frame.method.delivery_tag]
        if frame.method.multiple:
            tags = [tag for tag in self._deliveries if tag <= frame.method.delivery_tag]
        for tag in tags:
            del self._deliveries[tag]
        if kind == "ack":
            self._acked += len(tags)
        else:
            self._nacked += len(tags)
        if self._acked + self._nacked == self._count:
            self._channel.close()

    def publish_message(self):
        if self._channel is None or not self._channel.is_open:
            return
        properties = pika.BasicProperties(
            app_id="example-publisher",
            content_type="application/json",
            headers={"número": self._number, "ключ": "значение"},
            delivery_mode=pika.DeliveryMode.Persistent,
        )
        self._channel.basic_publish(
            self.EXCHANGE, self.ROUTING_KEY, f"message {self._number}", properties
        )
        self._number += 1
        self._deliveries[self._number] = True
        if self._number < self._count:
            self._connection.ioloop.call_later(0.001, self.publish_message)


Publisher(os.environ["AMQP_URL"], int(sys.argv[1])).run()
