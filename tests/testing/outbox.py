"""The service of the worked example in docs/testing.md, which quotes it word for word."""

import evamqp
from evamqp.abc import Adapter
from evamqp.types import Tags

PERSISTENT = evamqp.Properties(delivery_mode=evamqp.DeliveryMode.PERSISTENT)


class Outbox(evamqp.Handler):
    """Sends orders, and keeps each one until the broker has confirmed it."""

    def __init__(self, url: str, adapter: Adapter) -> None:
        self.url = url
        self.adapter = adapter
        self.waiting: list[bytes] = []  # not sent on this connection
        self.sent: dict[int, bytes] = {}  # sent, not confirmed
        self.channel: evamqp.Channel | None = None
        self.attempts = 0
        self.connect()

    def send(self, order: bytes) -> None:
        self.waiting.append(order)
        self.flush()

    def connect(self) -> None:
        self.attempts += 1
        evamqp.connect(self.url, self, adapter=self.adapter)

    def flush(self) -> None:
        while self.channel is not None and self.waiting:
            order = self.waiting.pop(0)
            self.sent[self.channel.basic_publish("", "orders", order, PERSISTENT)] = order

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        channel.confirm_select()
        channel.queue_declare("orders", durable=True)
        self.channel = channel
        self.flush()

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        for tag in tags:
            order = self.sent.pop(tag)
            if not acked:
                self.waiting.append(order)
        self.flush()

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self.channel = None
        self.waiting[:0] = self.sent.values()
        self.sent.clear()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.adapter.call_later(5.0, self.connect)
