# bench: {"name": "pika-twisted", "order": 20}
"""pika on Twisted: it tells a push producer of backpressure, and has a Deferred per confirm.

Callbacks wherever a message is concerned, since awaiting a Deferred costs more.
"""

from __future__ import annotations

import time
from typing import Any

import pika
from pika.adapters.twisted_connection import TwistedProtocolConnection
from twisted.internet import defer, protocol
from twisted.internet import reactor as default_reactor
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from _measure import Config, Meter, Result, check, main, percentiles, read_headers, time_connects

reactor: Any = default_reactor


async def connect(config: Config) -> Any:
    parameters = pika.ConnectionParameters(
        credentials=pika.PlainCredentials(config.user, config.password)
    )
    creator = protocol.ClientCreator(reactor, TwistedProtocolConnection, parameters)
    connection = await creator.connectTCP(config.host, config.port)
    # As pika does by itself on its other loops.
    connection.transport.setTcpNoDelay(True)
    await connection.ready
    return connection


class Sender:
    """What is published, and where."""

    def __init__(self, config: Config, channel: Any) -> None:
        self.config = config
        self.channel = channel
        self.properties = pika.BasicProperties(content_type="text/plain", delivery_mode=1)
        self.done: defer.Deferred[None] = defer.Deferred()

    def send(self) -> Any:
        return self.channel.basic_publish(
            "", self.config.queue, self.config.payload, self.properties
        )


@implementer(IPushProducer)
class Producer(Sender):
    """Publishes until the transport pauses it, and again when it resumes it."""

    def __init__(self, config: Config, channel: Any, transport: Any) -> None:
        super().__init__(config, channel)
        self.transport = transport
        self.left = iter(range(config.n))
        self.is_paused = False
        transport.registerProducer(self, True)

    def resumeProducing(self) -> None:
        self.is_paused = False
        for _ in self.left:
            self.send()
            if self.is_paused:
                return
        self.transport.unregisterProducer()
        self.done.callback(None)

    def pauseProducing(self) -> None:
        self.is_paused = True

    def stopProducing(self) -> None:
        self.is_paused = True


class Confirmed(Sender):
    """Publishes one message more for each that is confirmed."""

    def __init__(self, config: Config, channel: Any) -> None:
        super().__init__(config, channel)
        self.published = self.confirmed = 0

    def start(self) -> None:
        while self.published < min(self.config.window, self.config.n):
            self.publish()

    def publish(self) -> None:
        self.published += 1
        self.send().addCallbacks(self.settle, self.done.errback)

    def settle(self, _: object) -> None:
        self.confirmed += 1
        if self.published < self.config.n:
            self.publish()
        elif self.confirmed == self.config.n:
            self.done.callback(None)


class RoundTrips(Sender):
    """One publish and its confirm at a time."""

    def __init__(self, config: Config, channel: Any) -> None:
        super().__init__(config, channel)
        self.times: list[float] = []

    def start(self) -> None:
        self.started = time.perf_counter()
        self.send().addCallbacks(self.settle, self.done.errback)

    def settle(self, _: object) -> None:
        self.times.append(time.perf_counter() - self.started)
        if len(self.times) < self.config.n:
            self.start()
        else:
            self.done.callback(None)


class FrameParser:
    """Takes each message from pika's queue of a consumer, and waits there for the next."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.got = self.size = self.right = 0
        self.done: defer.Deferred[None] = defer.Deferred()

    def wait(self, queue: Any) -> None:
        queue.get().addCallbacks(self.take, self.failed, callbackArgs=(queue,))

    def take(self, message: Any, queue: Any) -> None:
        config = self.config
        if not config.no_ack:
            message.channel.basic_ack(message.method.delivery_tag)
        if config.headers:
            self.right += read_headers(message.properties.headers)
        self.size += len(message.body)
        self.got += 1
        if self.got == config.n:
            self.done.callback(None)
        else:
            self.wait(queue)

    def failed(self, failure: Any) -> None:
        # The other consumers' queues are closed at the end as well.
        if self.got < self.config.n and not self.done.called:
            self.done.errback(failure)


async def publish(config: Config, meter: Meter, channel: Any, connection: Any) -> Result:
    producer = Producer(config, channel, connection.transport)
    meter.start()
    producer.resumeProducing()
    await producer.done
    frame = await channel.queue_declare(config.queue, passive=True)
    meter.stop()
    arrived = frame.method.message_count
    check(not config.exact or arrived == config.n, f"the broker has {arrived} messages")
    return {}


async def confirm(config: Config, meter: Meter, channel: Any, connection: Any) -> Result:
    confirmed = Confirmed(config, channel)
    await channel.confirm_delivery()
    meter.start()
    confirmed.start()
    await confirmed.done
    meter.stop()
    return {}


async def latency(config: Config, meter: Meter, channel: Any, connection: Any) -> Result:
    trips = RoundTrips(config, channel)
    await channel.confirm_delivery()
    meter.start()
    trips.start()
    await trips.done
    meter.stop()
    return percentiles(trips.times)


async def consume(config: Config, meter: Meter, channel: Any, connection: Any) -> Result:
    channels = [channel]
    while len(channels) < config.channels:
        channels.append(await connection.channel())
    if config.prefetch:
        await channel.basic_qos(prefetch_count=config.prefetch)
    receiver = FrameParser(config)

    def consume_on(each: Any) -> Any:
        started = each.basic_consume(config.queue, auto_ack=bool(config.no_ack))
        return started.addCallbacks(lambda consumer: receiver.wait(consumer[0]), receiver.failed)

    for each in channels[:-1]:
        await consume_on(each)
    # The last consumer starts the broker, and so the clock.
    meter.start()
    consume_on(channels[-1])
    await receiver.done
    await channel.queue_declare(config.queue, passive=True)
    meter.stop()
    check(receiver.size == config.n * config.body, f"{receiver.size} bytes came")
    check(not config.headers or receiver.right == 8 * config.n, "wrong headers")
    return {}


async def scenario(config: Config, meter: Meter) -> Result:
    if config.op == "connect":
        return await time_connects(config, meter, connect)
    connection = await connect(config)
    channel = await connection.channel()
    await channel.queue_declare(config.queue, durable=True)
    runs = {"publish": publish, "confirm": confirm, "latency": latency, "consume": consume}
    result = await runs[config.op](config, meter, channel, connection)
    await connection.close()
    return result


def run(config: Config, meter: Meter) -> Result:
    outcomes: list[Any] = []

    def begin() -> None:
        ended = defer.ensureDeferred(scenario(config, meter))
        ended.addBoth(outcomes.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    outcome = outcomes[0]
    if isinstance(outcome, Failure):
        outcome.raiseException()
    result: Result = outcome
    return result


if __name__ == "__main__":
    main(run)
