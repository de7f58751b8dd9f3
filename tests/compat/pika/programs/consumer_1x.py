"""The asynchronous consumer of pika 1.x, which connects anew after a loss."""

import os
import sys
import time

import pika


class Consumer:
    def __init__(self, url, count):
        self.should_reconnect = False
        self.got = []
        self._count = count
        self._closing = False
        self._tag = None
        self._connection = pika.SelectConnection(
            parameters=pika.URLParameters(url),
            on_open_callback=self.on_open,
            on_open_error_callback=self.on_open_error,
            on_close_callback=self.on_closed,
        )

    def run(self):
        self._connection.ioloop.start()

    def on_open(self, connection):
        connection.channel(on_open_callback=self.on_channel_open)

    def on_open_error(self, connection, error):
        self.should_reconnect = True
        connection.ioloop.stop()

    def on_closed(self, connection, reason):
        self.should_reconnect = not self._closing
        print("closed", type(reason).__name__, reason.args[0])
        connection.ioloop.stop()

    def on_channel_open(self, channel):
        self._channel = channel
        channel.add_on_cancel_callback(lambda frame: print("cancelled", repr(frame)[:8]))
        channel.exchange_declare("message", "topic", callback=self.on_exchange)

    def on_exchange(self, frame):
        self._channel.queue_declare("text", durable=True, callback=self.on_queue)

    def on_queue(self, frame):
        self._channel.queue_bind("text", "message", "example.text", callback=self.on_bound)

    def on_bound(self, frame):
        self._channel.basic_qos(prefetch_count=10, callback=self.on_qos)

    def on_qos(self, frame):
        self._tag = self._channel.basic_consume("text", self.on_message)
        print("consuming", flush=True)

    def on_message(self, channel, method, properties, body):
        headers = properties.headers or {}
        self.got.append(body.decode())
        channel.basic_ack(method.delivery_tag)
        if len(self.got) == 1:
            print(
                method.exchange,
                method.routing_key,
                properties.content_type,
                properties.app_id,
                properties.delivery_mode,
                sorted(headers),
            )
        if body == b"message %d" % (self._count - 1):
            self._closing = True
            channel.basic_cancel(self._tag, self.on_cancelok)

    def on_cancelok(self, frame):
        assert frame.method.consumer_tag == self._tag
        self._channel.close()
        self._channel.add_on_close_callback(lambda channel, reason: self._connection.close())


got = []
while True:
    consumer = Consumer(os.environ["AMQP_URL"], int(sys.argv[1]))
    consumer.run()
    got += consumer.got
    if not consumer.should_reconnect:
        break
    time.sleep(0.1)
print(f"got={len(set(got))}")
