"""A Twisted service: takes texts from one queue, puts them in capitals into another.

    AMQP_URL=amqp://guest:guest@localhost:5672/%2F twistd -ny examples/twisted_service.py

A message is acknowledged when the broker has confirmed its result, never before.  So whatever
happens to the broker, the network or this program, no message is lost; one may be done twice.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

from twisted.application import service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

import evamqp
from evamqp.abc import Handle
from evamqp.adapters.twisted import TwistedAdapter

SOURCE = "evamqp-service.texts"
RESULTS = "evamqp-service.capitals"
PREFETCH = 100  # messages that the broker sends ahead, and so the most that are under way
DRAIN_TIME = 5.0  # seconds that the last confirms may take when we stop
MAX_DELAY = 10.0  # seconds between two attempts to connect
journal = Logger("capitals")


class Capitals(service.Service, evamqp.Handler):
    """Works from startService() to stopService(), on as many connections as it takes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.adapter: TwistedAdapter | None = None
        self.connection: evamqp.Connection | None = None
        self.channel: evamqp.Channel | None = None
        self.consumer_tag = ""
        self.timer: Handle | None = None  # the next attempt to connect, or the end of patience
        self.under_way: dict[int, evamqp.Message] = {}  # by the delivery tag of the result
        self.failures = 0
        self.done = 0

    # IService

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.adapter = TwistedAdapter()  # on the reactor that twistd has chosen
        self.connect()

    def stopService(self) -> Deferred[None]:
        """The Deferred fires when the connection is closed; twistd waits for it."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self.timer is not None:
            self.timer.cancel()
        return ensureDeferred(self.finish())

    async def finish(self) -> None:
        """Take nothing more, wait for what is under way, close."""
        if self.connection is not None and self.adapter is not None:
            self.timer = self.adapter.call_later(DRAIN_TIME, self.connection.close)
        try:
            if self.channel is not None:
                await self.channel.basic_cancel(self.consumer_tag)
                await self.channel.wait_for_confirms()
        except evamqp.AmqpError as error:
            journal.warn("what was under way will be delivered again: {error}", error=error)
        if self.connection is not None:
            await self.connection.close()
        if self.timer is not None:
            self.timer.cancel()
        journal.info("done={done}", done=self.done)

    # The connection

    def connect(self) -> None:
        self.connection = evamqp.connect(self.url, self, adapter=self.adapter)

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        # Requests leave in this order; none has to wait for the answer to the one before.
        channel.confirm_select()
        channel.queue_declare(SOURCE, durable=True)
        channel.queue_declare(RESULTS, durable=True)
        channel.basic_qos(PREFETCH)
        self.consumer_tag = channel.basic_consume(
            SOURCE, self.on_message, callback=self.on_consuming
        )
        self.channel = channel

    def on_consuming(self, consumer_tag: str) -> None:
        self.failures = 0
        journal.info("consuming from {queue}", queue=SOURCE)

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        # The queue was deleted, for instance.  Beginning afresh declares it again.
        channel.connection.close(text="the broker cancelled the consumer")

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self.channel = None
        self.under_way.clear()  # the broker delivers these again
        # If the channel alone was closed, we begin afresh as after a lost connection.
        channel.connection.close(text=f"the channel ended: {reason}")

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """The end of an open connection, and of one that could not be opened."""
        self.connection = None
        if not self.running:
            return
        # Growing, so that a broker in trouble is left alone; random, so that its clients do not
        # all come back at the same moment.
        delay = random.uniform(0, min(MAX_DELAY, 0.1 * 2 ** min(self.failures, 10)))
        self.failures += 1
        journal.warn("{reason}; the next attempt is in {delay:.1f} s", reason=reason, delay=delay)
        assert self.adapter is not None
        self.timer = self.adapter.call_later(delay, self.connect)

    # The work

    def on_message(self, message: evamqp.Message) -> None:
        result = message.body.decode("utf-8", "replace").upper().encode()
        properties = evamqp.Properties(delivery_mode=evamqp.DeliveryMode.PERSISTENT)
        tag = message.channel.basic_publish("", RESULTS, result, properties)
        self.under_way[tag] = message

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: Sequence[int], acked: bool
    ) -> None:
        for tag in tags:
            message = self.under_way.pop(tag)
            if acked:
                message.ack()
                self.done += 1
            else:
                message.nack()  # back into its queue


application = service.Application("evamqp")  # type: ignore[no-untyped-call]
url = os.environ.get("AMQP_URL") or "amqp://guest:guest@localhost:5672/%2F"
Capitals(url).setServiceParent(application)  # type: ignore[no-untyped-call]
