# bench: {"name": "py-amqp", "order": 22}
"""py-amqp (kombu's and Celery's): blocking calls, and drain_events() for what comes in."""

from __future__ import annotations

import time
from typing import Any

import amqp

from _measure import Config, Meter, Result, check, main, percentiles, read_headers


def connect(config: Config) -> Any:
    host = f"{config.host}:{config.port}"
    connection = amqp.Connection(host, userid=config.user, password=config.password)
    connection.connect()
    return connection


def run_connect(config: Config, meter: Meter) -> Result:
    times = []
    for number in range(config.repeat + 1):
        if number == 1:
            meter.start()
        started = time.perf_counter()
        connection = connect(config)
        connection.channel()
        times.append(time.perf_counter() - started)
        connection.close()
    meter.stop()
    return percentiles(times[1:])


def send(config: Config, channel: Any) -> None:
    message = amqp.Message(config.payload, content_type="text/plain", delivery_mode=1)
    channel.basic_publish(message, "", config.queue)


def publish(config: Config, meter: Meter, channel: Any) -> Result:
    meter.start()
    for _ in range(config.n):
        send(config, channel)
    arrived = channel.queue_declare(config.queue, passive=True).message_count
    meter.stop()
    check(not config.exact or arrived == config.n, f"the broker has {arrived} messages")
    return {}


def confirm(config: Config, meter: Meter, channel: Any) -> Result:
    unconfirmed: set[int] = set()
    lowest, published = 1, 0

    def settle(tag: int, multiple: bool) -> None:
        nonlocal lowest
        for each in range(lowest if multiple else tag, tag + 1):
            unconfirmed.discard(each)
        if multiple:
            lowest = tag + 1

    channel.confirm_select()
    channel.events["basic_ack"].add(settle)
    meter.start()
    while published < config.n or unconfirmed:
        for _ in range(min(config.window - len(unconfirmed), config.n - published)):
            published += 1
            unconfirmed.add(published)
            send(config, channel)
        channel.connection.drain_events()
    meter.stop()
    return {}


def latency(config: Config, meter: Meter, channel: Any) -> Result:
    times: list[float] = []
    channel.confirm_select()
    channel.events["basic_ack"].add(lambda tag, multiple: times.append(time.perf_counter()))
    spans = []
    meter.start()
    for number in range(config.n):
        started = time.perf_counter()
        send(config, channel)
        while len(times) == number:
            channel.connection.drain_events()
        spans.append(times[-1] - started)
    meter.stop()
    return percentiles(spans)


def consume(config: Config, meter: Meter, first: Any) -> Result:
    channels = [first]
    while len(channels) < config.channels:
        channels.append(first.connection.channel())
    got = size = right = 0

    def take(message: Any) -> None:
        nonlocal got, size, right
        if not config.no_ack:
            message.channel.basic_ack(message.delivery_tag)
        if config.headers:
            right += read_headers(message.headers)
        size += len(message.body)
        got += 1

    if config.prefetch:
        first.basic_qos(0, config.prefetch, False)
    for channel in channels[:-1]:
        channel.basic_consume(config.queue, callback=take, no_ack=bool(config.no_ack))
    # The last consumer starts the broker, and so the clock.
    meter.start()
    channels[-1].basic_consume(config.queue, callback=take, no_ack=bool(config.no_ack))
    while got < config.n:
        first.connection.drain_events()
    first.queue_declare(config.queue, passive=True)
    meter.stop()
    check(not config.headers or right == 8 * config.n, "wrong headers")
    return {}


def run(config: Config, meter: Meter) -> Result:
    if config.op == "connect":
        return run_connect(config, meter)
    connection = connect(config)
    channel = connection.channel()
    channel.queue_declare(config.queue, durable=True, auto_delete=False)
    scenario = {"publish": publish, "confirm": confirm, "latency": latency, "consume": consume}
    result = scenario[config.op](config, meter, channel)
    connection.close()
    return result


if __name__ == "__main__":
    main(run)
