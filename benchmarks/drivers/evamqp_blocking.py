# bench: {"name": "evamqp-blocking", "order": 7}
"""evamqp.blocking: one thread, whose calls wait."""

from __future__ import annotations

import time

import evamqp
import evamqp.blocking
from _measure import Config, Meter, Result, check, main, percentiles, read_headers


class Scenario:
    """One run."""

    def __init__(self, config: Config, meter: Meter) -> None:
        self.config = config
        self.meter = meter
        self.properties = evamqp.Properties(content_type="text/plain", delivery_mode=1)

    def run(self) -> Result:
        result: Result | None = getattr(self, self.config.op)()
        return result or {}

    def connection(self) -> evamqp.blocking.Connection:
        return evamqp.blocking.connect(
            evamqp.Parameters(host=self.config.host, port=self.config.port)
        )

    def begin(self) -> tuple[evamqp.blocking.Connection, evamqp.blocking.Channel]:
        connection = self.connection()
        channel = connection.channel()
        channel.queue_declare(self.config.queue, durable=True)
        return connection, channel

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
        count = channel.queue_declare(config.queue, passive=True).message_count
        self.meter.stop()
        connection.close()
        if config.exact:
            check(count == config.n, f"the broker has {count} messages")

    def confirm(self) -> None:
        connection, channel = self.begin()
        config, properties = self.config, self.properties
        self.meter.start()
        with channel.batch(config.window) as batch:
            for _ in range(config.n):
                batch.publish("", config.queue, config.payload, properties, False)
        self.meter.stop()
        connection.close()

    def latency(self) -> Result:
        connection, channel = self.begin()
        config, properties = self.config, self.properties
        channel.confirm_select()
        times = []
        self.meter.start()
        for _ in range(config.n):
            started = time.perf_counter()
            channel.publish("", config.queue, config.payload, properties, False)
            times.append(time.perf_counter() - started)
        self.meter.stop()
        connection.close()
        return percentiles(times)

    def consume(self) -> None:
        connection, channel = self.begin()
        config = self.config
        check(config.channels == 1, "one iteration has one channel")
        got = size = right = 0
        self.meter.start()
        for message in channel.consume(
            config.queue, prefetch=config.prefetch, auto_ack=bool(config.no_ack)
        ):
            if not config.no_ack:
                message.ack()
            if config.headers:
                headers = message.properties.headers
                assert headers is not None
                right += read_headers(headers)
            size += len(message.body)
            got += 1  # noqa: SIM113  which enumerate() would count before the work
            if got == config.n:
                break
        channel.queue_declare(config.queue, passive=True)
        self.meter.stop()
        connection.close()
        check(not config.headers or right == 8 * config.n, "wrong headers")

    def delete(self) -> Result:
        connection, channel = self.begin()
        count = channel.queue_delete(self.config.queue)
        connection.close()
        return {"deleted": count}


if __name__ == "__main__":
    main(lambda config, meter: Scenario(config, meter).run())
