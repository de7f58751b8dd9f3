# bench: {"name": "aio-pika", "order": 21, "variants": {"uvloop": {"loop": "uvloop"}, "robust": {"robust": 1}}}
"""aio-pika: coroutines; ``window`` workers publish with confirms, cheaper than a task each."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aio_pika

from _measure import Config, Meter, Result, check, main, percentiles, read_headers, time_connects


async def connect(config: Config) -> Any:
    connect = aio_pika.connect_robust if config.robust else aio_pika.connect
    return await connect(f"amqp://{config.user}:{config.password}@{config.host}:{config.port}/")


def make_message(config: Config) -> Any:
    return aio_pika.Message(config.payload, content_type="text/plain", delivery_mode=1)


async def publish(config: Config, meter: Meter, channel: Any) -> Result:
    await channel.declare_queue(config.queue, durable=True)
    send = channel.default_exchange.publish
    meter.start()
    for _ in range(config.n):
        await send(make_message(config), config.queue, mandatory=False)
    queue = await channel.declare_queue(config.queue, passive=True)
    meter.stop()
    arrived = queue.declaration_result.message_count
    check(not config.exact or arrived == config.n, f"the broker has {arrived} messages")
    return {}


async def confirm(config: Config, meter: Meter, channel: Any) -> Result:
    await channel.declare_queue(config.queue, durable=True)
    send = channel.default_exchange.publish
    left = iter(range(config.n))

    async def work() -> None:
        for _ in left:
            await send(make_message(config), config.queue, mandatory=False)

    meter.start()
    await asyncio.gather(*(work() for _ in range(min(config.window, config.n))))
    meter.stop()
    return {}


async def latency(config: Config, meter: Meter, channel: Any) -> Result:
    await channel.declare_queue(config.queue, durable=True)
    times = []
    meter.start()
    for _ in range(config.n):
        started = time.perf_counter()
        await channel.default_exchange.publish(make_message(config), config.queue, mandatory=False)
        times.append(time.perf_counter() - started)
    meter.stop()
    return percentiles(times)


async def consume(config: Config, meter: Meter, first: Any, connection: Any) -> Result:
    channels = [first]
    while len(channels) < config.channels:
        channels.append(await connection.channel())
    got = size = right = 0
    done = asyncio.get_running_loop().create_future()

    async def take(message: Any) -> None:
        nonlocal got, size, right
        if not config.no_ack:
            await message.ack()
        if config.headers:
            right += read_headers(message.headers)
        size += len(message.body)
        got += 1
        if got == config.n:
            done.set_result(None)

    queues = [await channel.declare_queue(config.queue, durable=True) for channel in channels]
    if config.prefetch:
        await first.set_qos(prefetch_count=config.prefetch)
    for queue in queues[:-1]:
        await queue.consume(take, no_ack=bool(config.no_ack))
    # The last consumer starts the broker, and so the clock.
    meter.start()
    await queues[-1].consume(take, no_ack=bool(config.no_ack))
    await done
    await first.declare_queue(config.queue, passive=True)
    meter.stop()
    check(not config.headers or right == 8 * config.n, "wrong headers")
    return {}


async def scenario(config: Config, meter: Meter) -> Result:
    if config.op == "connect":
        return await time_connects(config, meter, connect)
    connection = await connect(config)
    channel = await connection.channel(publisher_confirms=config.op in ("confirm", "latency"))
    if config.op == "consume":
        result = await consume(config, meter, channel, connection)
    else:
        run = {"publish": publish, "confirm": confirm, "latency": latency}[config.op]
        result = await run(config, meter, channel)
    await connection.close()
    return result


def run(config: Config, meter: Meter) -> Result:
    if config.loop == "uvloop":
        import uvloop

        result: Result = uvloop.run(scenario(config, meter))
        return result
    return asyncio.run(scenario(config, meter))


if __name__ == "__main__":
    main(run)
