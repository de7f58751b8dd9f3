# bench: {"name": "aioamqp", "order": 23}
"""aioamqp: coroutines; ``window`` workers publish with confirms, as in aio-pika's driver."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

# It needs an older pamqp than aio-pika does, so it has a folder of its own.
sys.path.insert(1, str(Path(sys.prefix) / "aioamqp"))

import aioamqp

from _measure import (
    Config,
    Meter,
    Result,
    check,
    main,
    percentiles,
    read_headers,
    time_connects,
)

PROPERTIES = {"content_type": "text/plain", "delivery_mode": 1}


async def connect(config: Config) -> Any:
    _, protocol = await aioamqp.connect(
        config.host, config.port, login=config.user, password=config.password
    )
    return protocol


async def publish(config: Config, meter: Meter, channel: Any) -> Result:
    await channel.queue_declare(config.queue, durable=True)
    meter.start()
    for _ in range(config.n):
        await channel.basic_publish(config.payload, "", config.queue, properties=PROPERTIES)
    queue = await channel.queue_declare(config.queue, passive=True)
    meter.stop()
    arrived = queue["message_count"]
    check(not config.exact or arrived == config.n, f"the broker has {arrived} messages")
    return {}


async def confirm(config: Config, meter: Meter, channel: Any) -> Result:
    await channel.queue_declare(config.queue, durable=True)
    await channel.confirm_select()
    left = iter(range(config.n))

    async def work() -> None:
        for _ in left:
            await channel.publish(config.payload, "", config.queue, properties=PROPERTIES)

    meter.start()
    await asyncio.gather(*(work() for _ in range(min(config.window, config.n))))
    meter.stop()
    return {}


async def latency(config: Config, meter: Meter, channel: Any) -> Result:
    await channel.queue_declare(config.queue, durable=True)
    await channel.confirm_select()
    times = []
    meter.start()
    for _ in range(config.n):
        started = time.perf_counter()
        await channel.publish(config.payload, "", config.queue, properties=PROPERTIES)
        times.append(time.perf_counter() - started)
    meter.stop()
    return percentiles(times)


async def consume(config: Config, meter: Meter, first: Any, protocol: Any) -> Result:
    channels = [first]
    while len(channels) < config.channels:
        channels.append(await protocol.channel())
    got = size = right = 0
    done = asyncio.get_running_loop().create_future()

    async def take(channel: Any, body: bytes, envelope: Any, properties: Any) -> None:
        nonlocal got, size, right
        if not config.no_ack:
            await channel.basic_client_ack(envelope.delivery_tag)
        if config.headers:
            right += read_headers(properties.headers)
        size += len(body)
        got += 1
        if got == config.n:
            done.set_result(None)

    for channel in channels:
        await channel.queue_declare(config.queue, durable=True)
    if config.prefetch:
        await first.basic_qos(prefetch_count=config.prefetch)
    for channel in channels[:-1]:
        await channel.basic_consume(take, config.queue, no_ack=bool(config.no_ack))
    # The last consumer starts the broker, and so the clock.
    meter.start()
    await channels[-1].basic_consume(take, config.queue, no_ack=bool(config.no_ack))
    await done
    await first.queue_declare(config.queue, passive=True)
    meter.stop()
    check(not config.headers or right == 8 * config.n, "wrong headers")
    return {}


async def scenario(config: Config, meter: Meter) -> Result:
    if config.op == "connect":
        return await time_connects(config, meter, connect)
    protocol = await connect(config)
    channel = await protocol.channel()
    if config.op == "consume":
        result = await consume(config, meter, channel, protocol)
    else:
        run = {"publish": publish, "confirm": confirm, "latency": latency}[config.op]
        result = await run(config, meter, channel)
    await protocol.close()
    return result


def run(config: Config, meter: Meter) -> Result:
    return asyncio.run(scenario(config, meter))


if __name__ == "__main__":
    main(run)
