"""kombu's Producer and Consumer, for whichever transport a driver names.

What is measured is kombu and its transport together: no serializer, no compression.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kombu

from _measure import Config, Meter, Result, check, percentiles


def connect(config: Config, scheme: str, confirm: bool = False) -> kombu.Connection:
    url = f"{scheme}://{config.user}:{config.password}@{config.host}:{config.port}//"
    connection = kombu.Connection(url, transport_options={"confirm_publish": confirm})
    connection.connect()
    return connection


def send(config: Config, producer: Any) -> None:
    producer.publish(
        config.payload, routing_key=config.queue, content_type="text/plain",
        content_encoding="binary", delivery_mode=1,
    )  # fmt: skip


def publish(config: Config, meter: Meter, connection: Any) -> None:
    channel = connection.default_channel
    channel.queue_declare(config.queue, durable=True, auto_delete=False)
    producer = connection.Producer(channel)
    meter.start()
    for _ in range(config.n):
        send(config, producer)
    count = channel.queue_declare(config.queue, passive=True, auto_delete=False)[1]
    meter.stop()
    check(not config.exact or count == config.n, f"the broker has {count} messages")


def latency(config: Config, meter: Meter, connection: Any) -> Result:
    connection.default_channel.queue_declare(config.queue, durable=True, auto_delete=False)
    producer = connection.Producer()
    times = []
    meter.start()
    for _ in range(config.n):
        started = time.perf_counter()
        send(config, producer)
        times.append(time.perf_counter() - started)
    meter.stop()
    return percentiles(times)


def consume(config: Config, meter: Meter, connection: Any) -> None:
    check(config.channels == 1, "one Consumer has one channel")
    channel = connection.default_channel
    channel.queue_declare(config.queue, durable=True, auto_delete=False)
    got = size = 0

    def take(message: Any) -> None:
        nonlocal got, size
        if not config.no_ack:
            message.ack()
        size += len(message.body)
        got += 1

    queue = kombu.Queue(config.queue, no_declare=True)
    consumer = connection.Consumer(
        [queue], channel, no_ack=bool(config.no_ack), on_message=take,
        auto_declare=False, prefetch_count=config.prefetch or None,
    )  # fmt: skip
    meter.start()
    consumer.consume()
    while got < config.n:
        connection.drain_events()
    channel.queue_declare(config.queue, passive=True, auto_delete=False)
    meter.stop()


def runner(scheme: str) -> Callable[[Config, Meter], Result | None]:
    """A driver's run."""

    def run(config: Config, meter: Meter) -> Result | None:
        operations = {"publish": publish, "latency": latency, "consume": consume}
        with connect(config, scheme, confirm=config.op == "latency") as connection:
            if config.op == "delete":
                return {"deleted": connection.default_channel.queue_delete(config.queue)}
            check(config.op in operations, f"kombu cannot {config.op}")
            return operations[config.op](config, meter, connection)

    return run
