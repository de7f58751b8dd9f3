"""The scenarios on evamqp: callbacks alone, so that one spelling runs on every loop.

Only the public API may be used: one Message per delivery, one call per publish, nothing encoded
beforehand.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import evamqp
from _measure import Config, Meter, Result, check, percentiles

if TYPE_CHECKING:
    from evamqp.abc import Adapter

# Another harness that runs these drivers brings a meter and headers of its own.
_harness: Any = importlib.import_module(
    "_common" if importlib.util.find_spec("_common") else "_measure"
)

DISTINCT_KEYS = 10_000


def drive(make_adapter: Callable[[Config], Adapter]) -> None:
    """Run what the command line says on the loop that ``make_adapter`` makes."""

    def run(config: Config, meter: Meter) -> Result:
        kind = SCENARIOS[config.op]
        # Options of our own harness, which another may not have.
        varied, fresh = (getattr(config, option, 0) for option in ("varied", "fresh"))
        if kind is Publish and (varied or fresh):
            kind = PublishVaried if varied else PublishFresh
        return kind(make_adapter(config), config, meter).run()

    _harness.main(run)


class Scenario(evamqp.Handler):
    """One run: connect, open a channel, declare the queue, ``begin``; ``finish`` ends it."""

    def __init__(self, adapter: Adapter, config: Config, meter: Meter) -> None:
        self.adapter = adapter
        self.config = config
        self.meter = meter
        self.result: Result = {}
        self.failure: BaseException | None = None
        self.properties = evamqp.Properties(content_type="text/plain", delivery_mode=1)

    def run(self) -> Result:
        self.connect()
        self.adapter.run()
        if self.failure is not None:
            raise self.failure
        self.check()
        return self.result

    def connect(self) -> None:
        config = self.config
        credentials = evamqp.Credentials(config.user, config.password)
        options: dict[str, Any] = {}
        if getattr(config, "ca", ""):
            options = {"tls": True, "cacertfile": config.ca}
        target = evamqp.Parameters(
            host=config.host, port=config.port, credentials=credentials, **options
        )
        evamqp.connect(target, self, adapter=self.adapter)

    def begin(self, channel: evamqp.Channel) -> None:
        """The queue is there."""
        raise NotImplementedError

    def finish(self, channel: evamqp.Channel) -> None:
        self.meter.stop()
        channel.connection.close()

    def check(self) -> None:
        """What must hold at the end."""

    # Handler

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        channel.queue_declare(
            self.config.queue, durable=True, callback=lambda _: self.begin(channel)
        )

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        if reason.by != "client":
            self.failure = self.failure or reason
        self.adapter.stop()

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        if reason.by != "client":
            self.failure = self.failure or reason
            channel.connection.close()

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.failure = self.failure or error
        context.connection.close()


class Connect(Scenario):
    """Connect and open a channel, again and again; the first time is told apart."""

    def __init__(self, adapter: Adapter, config: Config, meter: Meter) -> None:
        super().__init__(adapter, config, meter)
        self.times: list[float] = []
        self.started = 0.0

    def connect(self) -> None:
        if len(self.times) == 1:
            self.meter.start()
        self.started = time.perf_counter()
        super().connect()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self.times.append(time.perf_counter() - self.started)
        channel.connection.close()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        if reason.by == "client" and len(self.times) <= self.config.repeat:
            self.connect()
            return
        self.meter.stop()
        super().on_close(connection, reason)

    def check(self) -> None:
        self.result = {"first": self.times[0] * 1e6, **percentiles(self.times[1:])}


class Idle(Scenario):
    """Open ``n`` connections with a channel each, at most ``window`` at a time; then close them."""

    def connect(self) -> None:
        self.opened: list[evamqp.Connection] = []
        self.begun = 0
        self.meter.start()
        for _ in range(self.config.window):
            self.begin_one()

    def begin_one(self) -> None:
        if self.begun < self.config.n:
            self.begun += 1
            super().connect()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self.opened.append(channel.connection)
        self.begin_one()
        if len(self.opened) == self.config.n:
            self.meter.stop()
            for connection in self.opened:
                connection.close()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.opened.remove(connection)
        if reason.by != "client" or not self.opened:
            super().on_close(connection, reason)


class Publish(Scenario):
    """Publish without confirms; a passive declare behind them counts what arrived."""

    channel: evamqp.Channel
    arrived = -1

    def begin(self, channel: evamqp.Channel) -> None:
        self.channel = channel
        self.left = iter(range(self.config.n))
        self.is_counting = False
        self.meter.start()
        self.publish()

    def publish(self) -> None:
        connection = self.channel.connection
        publish = self.channel.basic_publish
        queue, body, properties = self.config.queue, self.config.payload, self.properties
        for _ in self.left:
            publish("", queue, body, properties)
            if not connection.is_writable:
                return
        self.count()

    def on_writable(self, connection: evamqp.Connection, writable: bool) -> None:
        if writable and not self.is_counting:
            self.publish()

    def count(self) -> None:
        self.is_counting = True
        self.channel.queue_declare(self.config.queue, passive=True, callback=self.counted)

    def counted(self, queue: evamqp.DeclareOk) -> None:
        self.arrived = queue.message_count
        self.finish(self.channel)

    def check(self) -> None:
        if self.config.exact:
            check(self.arrived == self.config.n, f"the broker has {self.arrived} messages")


class PublishVaried(Publish):
    """As real traffic varies: many routing keys of many lengths, and bodies of many sizes."""

    def begin(self, channel: evamqp.Channel) -> None:
        chance = random.Random(9)
        payload = self.config.payload * 2
        pairs = [
            (f"{number}.{'x' * chance.randrange(40)}", payload[: chance.randrange(len(payload))])
            for number in range(DISTINCT_KEYS)
        ]
        self.pairs = [pairs[number % DISTINCT_KEYS] for number in range(self.config.n)]
        self.unsent = iter(self.pairs)
        super().begin(channel)

    def publish(self) -> None:
        connection = self.channel.connection
        publish = self.channel.basic_publish
        properties = self.properties
        for routing_key, body in self.unsent:
            publish("", routing_key, body, properties)
            if not connection.is_writable:
                return
        self.count()


class PublishFresh(Publish):
    """As real publishers do: properties of its own for each message, headers among them."""

    def publish(self) -> None:
        connection = self.channel.connection
        publish = self.channel.basic_publish
        queue, body = self.config.queue, self.config.payload
        for number in self.left:
            properties = evamqp.Properties(
                content_type="text/plain",
                delivery_mode=1,
                message_id=f"message-{number}",
                headers={"origin": "checkout", "attempt": number, "sampled": True},
            )
            publish("", queue, body, properties)
            if not connection.is_writable:
                return
        self.count()


class Confirm(Scenario):
    """Publish with confirms, at most ``window`` unconfirmed; each publish is settled by its tag."""

    def begin(self, channel: evamqp.Channel) -> None:
        channel.confirm_select(callback=lambda _: self.start(channel))

    def start(self, channel: evamqp.Channel) -> None:
        self.unconfirmed: set[int] = set()
        self.published = 0
        self.meter.start()
        self.refill(channel)

    def refill(self, channel: evamqp.Channel) -> None:
        config, properties = self.config, self.properties
        queue, body = config.queue, config.payload
        publish, add = channel.basic_publish, self.unconfirmed.add
        count = min(config.window - len(self.unconfirmed), config.n - self.published)
        self.published += count
        for _ in range(count):
            add(publish("", queue, body, properties))

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: evamqp.types.Tags, acked: bool
    ) -> None:
        check(acked, "a publish was refused")
        remove = self.unconfirmed.remove
        for tag in tags:
            remove(tag)
        if self.published < self.config.n:
            self.refill(channel)
        elif not self.unconfirmed:
            self.finish(channel)


class Latency(Scenario):
    """The time from a publish to its confirm, one at a time."""

    def begin(self, channel: evamqp.Channel) -> None:
        channel.confirm_select(callback=lambda _: self.start(channel))

    def start(self, channel: evamqp.Channel) -> None:
        self.times: list[float] = []
        self.meter.start()
        self.publish(channel)

    def publish(self, channel: evamqp.Channel) -> None:
        self.started = time.perf_counter()
        channel.basic_publish("", self.config.queue, self.config.payload, self.properties)

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: evamqp.types.Tags, acked: bool
    ) -> None:
        check(acked, "a publish was refused")
        self.times.append(time.perf_counter() - self.started)
        if len(self.times) < self.config.n:
            self.publish(channel)
        else:
            self.finish(channel)

    def check(self) -> None:
        self.result = percentiles(self.times)


class Consume(Scenario):
    """Consume on one channel or many; what comes is counted, and acknowledged if asked for."""

    def on_open(self, connection: evamqp.Connection) -> None:
        self.channels: list[evamqp.Channel] = []
        self.got = self.size = self.right = 0
        connection.channel(on_channel_open=self.first_open)

    def first_open(self, channel: evamqp.Channel) -> None:
        self.channels.append(channel)
        self.before = self.meter.mark()
        for _ in range(self.config.channels - 1):
            channel.connection.channel()
        if self.config.channels == 1:
            self.all_open()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self.channels.append(channel)
        if len(self.channels) == self.config.channels:
            self.all_open()

    def all_open(self) -> None:
        after = self.meter.mark()
        for name, end, start in zip(("wall", "cpu", "rss"), after, self.before, strict=True):
            self.result[f"open_{name}"] = end - start
        for channel in self.channels:
            if self.config.prefetch:
                channel.basic_qos(self.config.prefetch)
        for channel in self.channels[:-1]:
            channel.basic_consume(self.config.queue, self.receiver(), bool(self.config.no_ack))
        # The last consumer starts the broker, and so the clock.
        last = self.channels[-1]
        last.queue_declare(self.config.queue, durable=True, callback=lambda _: self.begin(last))

    def begin(self, channel: evamqp.Channel) -> None:
        self.meter.start()
        channel.basic_consume(self.config.queue, self.receiver(), bool(self.config.no_ack))

    def receiver(self) -> Callable[[evamqp.Message], None]:
        if self.config.headers:
            return self.read
        return self.take if self.config.no_ack else self.settle

    def take(self, message: evamqp.Message) -> None:
        self.size += len(message.body)
        self.got += 1
        if self.got == self.config.n:
            self.finish(message.channel)

    def settle(self, message: evamqp.Message) -> None:
        message.ack()
        self.size += len(message.body)
        self.got += 1
        if self.got == self.config.n:
            # The broker answers when it has seen the acks.
            channel = message.channel
            channel.queue_declare(
                self.config.queue, passive=True, callback=lambda _: self.finish(channel)
            )

    def read(self, message: evamqp.Message) -> None:
        headers = message.properties.headers
        check(headers is not None, "no headers")
        self.right += _harness.read_headers(headers)
        self.take(message)

    def check(self) -> None:
        config = self.config
        check(self.got == config.n, f"{self.got} messages came")
        if not getattr(config, "varied", 0):
            check(self.size == config.n * config.body, f"{self.size} bytes came")
        if config.headers:
            check(self.right == 8 * config.n, f"{self.right} headers were right")


class Delete(Scenario):
    """Delete the queue, and tell how much was in it."""

    def begin(self, channel: evamqp.Channel) -> None:
        channel.queue_delete(self.config.queue, callback=lambda count: self.deleted(channel, count))

    def deleted(self, channel: evamqp.Channel, count: int) -> None:
        self.result["deleted"] = count
        channel.connection.close()


SCENARIOS: dict[str, type[Scenario]] = {
    "connect": Connect,
    "idle": Idle,
    "publish": Publish,
    "confirm": Confirm,
    "latency": Latency,
    "consume": Consume,
    "delete": Delete,
}
