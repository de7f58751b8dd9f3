# bench: {"name": "pika-select", "order": 20, "knows": ["tls", "connections"]}
"""pika on its own select loop, by callbacks.

pika tells nothing of backpressure there, so publishing goes on a slice per turn of the loop, while
little waits in the transport.
"""

from __future__ import annotations

import ssl
import time
from typing import Any

import pika

from _measure import Config, Meter, Result, check, main, percentiles, read_headers

SLICE = 200
TIMEOUT = 0.0005  # seconds
UNSENT = 256 * 1024


class Scenario:
    """One run."""

    def __init__(self, config: Config, meter: Meter) -> None:
        self.config = config
        self.meter = meter
        self.properties = pika.BasicProperties(content_type="text/plain", delivery_mode=1)
        self.times: list[float] = []
        self.opened: list[Any] = []
        self.failure: Exception | None = None
        self.unconfirmed: set[int] = set()
        self.lowest = 1
        self.published = self.got = self.size = self.right = 0
        self.started = 0.0
        self.arrived = -1

    def run(self) -> Result:
        if self.config.op == "idle":
            self.begin_idle()
        else:
            self.connect()
        self.connection.ioloop.start()
        if self.failure is not None:
            raise self.failure
        config = self.config
        if config.op == "publish" and config.exact:
            check(self.arrived == config.n, f"the broker has {self.arrived} messages")
        if config.op == "consume":
            check(self.got == config.n, f"{self.got} messages came")
            check(not config.headers or self.right == 8 * config.n, "wrong headers")
        return percentiles(self.times[config.op == "connect" :]) if self.times else {}

    def begin_idle(self) -> None:
        self.meter.start()
        self.begun = 0
        self.open_another(None)
        for _ in range(1, self.config.window):
            self.open_another(self.connection.ioloop)

    def open_another(self, loop: Any) -> None:
        if self.begun < self.config.n:
            self.begun += 1
            self.connect(loop)

    def idle(self, connection: Any) -> None:
        """One more has its channel; the last stops the clock, and all are closed."""
        self.opened.append(connection)
        self.open_another(connection.ioloop)
        if len(self.opened) == self.config.n:
            self.meter.stop()
            for each in self.opened:
                each.close()

    def connect(self, loop: Any = None) -> None:
        if self.config.op == "connect" and len(self.times) == 1:
            self.meter.start()
        self.started = time.perf_counter()
        options = {}
        if self.config.ca:
            context = ssl.create_default_context(cafile=self.config.ca)
            options = {"ssl_options": pika.SSLOptions(context, "localhost")}
        parameters = pika.ConnectionParameters(self.config.host, self.config.port, **options)
        self.connection: Any = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self.ready),
            on_open_error_callback=self.closed,
            on_close_callback=self.closed,
            custom_ioloop=loop,
        )

    def closed(self, connection: Any, reason: Exception) -> None:
        ours = isinstance(reason, pika.exceptions.ConnectionClosedByClient)
        if ours and self.config.op == "connect" and len(self.times) <= self.config.repeat:
            self.connect(connection.ioloop)
            return
        if self.config.op == "connect":
            self.meter.stop()
        if self.config.op == "idle" and ours:
            self.opened.remove(connection)
            if self.opened:
                return
        self.failure = None if ours else reason
        connection.ioloop.stop()

    def ready(self, channel: Any) -> None:
        if self.config.op == "connect":
            self.times.append(time.perf_counter() - self.started)
            self.connection.close()
            return
        if self.config.op == "idle":
            self.idle(channel.connection)
            return
        if self.config.op == "consume" and len(self.opened) + 1 < self.config.channels:
            self.opened.append(channel)
            self.connection.channel(on_open_callback=self.ready)
            return
        begin = {
            "publish": self.begin_publish,
            "confirm": self.begin_confirm,
            "latency": self.begin_confirm,
            "consume": self.begin_consume,
        }[self.config.op]
        channel.queue_declare(self.config.queue, durable=True, callback=lambda _: begin(channel))

    def finish(self) -> None:
        self.meter.stop()
        self.connection.close()

    def send(self, channel: Any, count: int) -> None:
        for _ in range(count):
            channel.basic_publish("", self.config.queue, self.config.payload, self.properties)

    def begin_publish(self, channel: Any) -> None:
        self.meter.start()
        self.publish_slice(channel)

    def publish_slice(self, channel: Any) -> None:
        pause = 0.0
        if self.connection._transport.get_write_buffer_size() < UNSENT:
            count = min(SLICE, self.config.n - self.published)
            self.send(channel, count)
            self.published += count
        else:
            pause = TIMEOUT
        if self.published < self.config.n:
            self.connection.ioloop.call_later(pause, lambda: self.publish_slice(channel))
        else:
            channel.queue_declare(self.config.queue, passive=True, callback=self.counted)

    def counted(self, frame: Any) -> None:
        self.arrived = frame.method.message_count
        self.finish()

    def begin_confirm(self, channel: Any) -> None:
        settle = self.settle if self.config.op == "confirm" else self.settle_one
        channel.confirm_delivery(
            lambda frame: settle(channel, frame.method), callback=lambda _: self.start(channel)
        )

    def start(self, channel: Any) -> None:
        self.meter.start()
        if self.config.op == "confirm":
            self.refill(channel)
        else:
            self.started = time.perf_counter()
            self.send(channel, 1)

    def refill(self, channel: Any) -> None:
        room = self.config.window - len(self.unconfirmed)
        count = min(room, self.config.n - self.published)
        self.unconfirmed.update(range(self.published + 1, self.published + 1 + count))
        self.published += count
        self.send(channel, count)

    def settle(self, channel: Any, method: Any) -> None:
        check(isinstance(method, pika.spec.Basic.Ack), "a publish was refused")
        tag = method.delivery_tag
        for each in range(self.lowest if method.multiple else tag, tag + 1):
            self.unconfirmed.discard(each)
        if method.multiple:
            self.lowest = tag + 1
        if self.published < self.config.n:
            self.refill(channel)
        elif not self.unconfirmed:
            self.finish()

    def settle_one(self, channel: Any, method: Any) -> None:
        self.times.append(time.perf_counter() - self.started)
        if len(self.times) == self.config.n:
            self.finish()
            return
        self.started = time.perf_counter()
        self.send(channel, 1)

    def begin_consume(self, last: Any) -> None:
        if self.config.prefetch:
            last.basic_qos(prefetch_count=self.config.prefetch)
        for channel in self.opened:
            self.consume(channel)
        # The last consumer starts the broker, and so the clock.
        last.queue_declare(
            self.config.queue, durable=True, callback=lambda _: self.start_consuming(last)
        )

    def start_consuming(self, last: Any) -> None:
        self.meter.start()
        self.consume(last)

    def consume(self, channel: Any) -> None:
        no_ack = bool(self.config.no_ack)
        channel.basic_consume(self.config.queue, self.take, auto_ack=no_ack)

    def take(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        config = self.config
        if not config.no_ack:
            channel.basic_ack(method.delivery_tag)
        if config.headers:
            self.right += read_headers(properties.headers)
        self.size += len(body)
        self.got += 1
        if self.got == config.n:
            channel.queue_declare(config.queue, passive=True, callback=lambda _: self.finish())


if __name__ == "__main__":
    main(lambda config, meter: Scenario(config, meter).run())
