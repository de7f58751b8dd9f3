# bench: {"name": "pika-blocking", "order": 22}
"""pika's BlockingConnection."""

from __future__ import annotations

import time
from typing import Any

import pika

from _measure import Config, Meter, Result, check, main, percentiles, read_headers


class Scenario:
    """One run."""

    def __init__(self, config: Config, meter: Meter) -> None:
        self.config = config
        self.meter = meter
        self.properties = pika.BasicProperties(content_type="text/plain", delivery_mode=1)
        self.got = self.size = self.right = 0

    def run(self) -> Result:
        result: Result | None = getattr(self, self.config.op)()
        return result or {}

    def connection(self) -> Any:
        parameters = pika.ConnectionParameters(self.config.host, self.config.port)
        return pika.BlockingConnection(parameters)

    def connect(self) -> Result:
        times = []
        for number in range(self.config.repeat + 1):
            if number == 1:
                self.meter.start()
            started = time.perf_counter()
            connection = self.connection()
            connection.channel()
            times.append(time.perf_counter() - started)
            connection.close()
        self.meter.stop()
        return percentiles(times[1:])

    def publish(self) -> None:
        connection, channel = self.begin()
        config, properties = self.config, self.properties
        self.meter.start()
        for _ in range(config.n):
            channel.basic_publish("", config.queue, config.payload, properties)
        count = channel.queue_declare(config.queue, passive=True).method.message_count
        self.meter.stop()
        connection.close()
        if config.exact:
            check(count == config.n, f"the broker has {count} messages")

    def confirm(self) -> Result:
        """One at a time, since that is all that this API can do."""
        return self.latency()

    def latency(self) -> Result:
        connection, channel = self.begin()
        config, properties = self.config, self.properties
        channel.confirm_delivery()
        times = []
        self.meter.start()
        for _ in range(config.n):
            started = time.perf_counter()
            channel.basic_publish("", config.queue, config.payload, properties)
            times.append(time.perf_counter() - started)
        self.meter.stop()
        connection.close()
        return percentiles(times)

    def consume(self) -> None:
        connection, last = self.begin()
        config = self.config
        channels = [connection.channel() for _ in range(config.channels - 1)]
        if config.prefetch:
            last.basic_qos(prefetch_count=config.prefetch)
        for channel in channels:
            channel.basic_consume(config.queue, self.take, auto_ack=bool(config.no_ack))
        # The last consumer starts the broker, and so the clock.
        self.meter.start()
        last.basic_consume(config.queue, self.take, auto_ack=bool(config.no_ack))
        while self.got < config.n:
            connection.process_data_events(time_limit=None)
        last.queue_declare(config.queue, passive=True)
        self.meter.stop()
        connection.close()
        check(self.got == config.n, f"{self.got} messages came")
        check(not config.headers or self.right == 8 * config.n, "wrong headers")

    def take(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        config = self.config
        if not config.no_ack:
            channel.basic_ack(method.delivery_tag)
        if config.headers:
            self.right += read_headers(properties.headers)
        self.size += len(body)
        self.got += 1

    def begin(self) -> tuple[Any, Any]:
        connection = self.connection()
        channel = connection.channel()
        channel.queue_declare(self.config.queue, durable=True)
        return connection, channel


if __name__ == "__main__":
    main(lambda config, meter: Scenario(config, meter).run())
