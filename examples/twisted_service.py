"""A Twisted service: takes texts from one queue, puts them in capitals into another.

    AMQP_URL=amqp://guest:guest@localhost:5672/%2F twistd -ny examples/twisted_service.py

A message is acknowledged when the broker has confirmed its result, never before.  So whatever
happens to the broker, the network or this program, no message is lost; one may be done twice.
"""

from __future__ import annotations

import os

from twisted.application import service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

import evamqp
from evamqp.adapters.twisted import TwistedAdapter

SOURCE = "evamqp-service.texts"
RESULTS = "evamqp-service.capitals"
PREFETCH = 100  # messages that the broker sends ahead, and so the most that are under way
DRAIN_TIME = 5.0  # seconds that the last confirms may take when we stop
journal = Logger("capitals")


class Capitals(service.Service):
    """Works from startService() to stopService(), on as many connections as it takes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.done = 0

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        queues = evamqp.Topology()
        queues.queue(SOURCE)
        queues.queue(RESULTS)
        # On the reactor that twistd has chosen.  Publisher and consumer share one connection.
        self.connection = evamqp.Reconnector(
            self.url,
            adapter=TwistedAdapter(),
            topology=queues,
            on_reconnecting=self.on_reconnecting,
        )
        self.publisher = evamqp.Publisher(self.connection)
        self.consumer = evamqp.Consumer(self.connection, SOURCE, self.work, prefetch=PREFETCH)
        self.consumer.wait_ready(callback=self.on_ready)

    def stopService(self) -> Deferred[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The Deferred fires when the connection is closed; twistd waits for it."""
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self.finish())

    async def finish(self) -> None:
        """Take nothing more, wait for what is under way, close."""
        await self.consumer.close(DRAIN_TIME)
        await self.publisher.close(DRAIN_TIME)
        await self.connection.close()
        journal.info("done={done}", done=self.done)

    def on_ready(self, none: None) -> None:
        journal.info("consuming from {queue}", queue=SOURCE)

    def on_reconnecting(self, attempt: int, delay: float, reason: evamqp.ConnectionClosed) -> None:
        journal.warn("{reason}; the next attempt is in {delay:.1f} s", reason=reason, delay=delay)

    async def work(self, message: evamqp.Message) -> None:
        """The message is acknowledged if this succeeds and what it published is confirmed."""
        result = message.body.decode("utf-8", "replace").upper().encode()
        outcome = await self.publisher.publish("", RESULTS, result)
        self.done += outcome is evamqp.Outcome.CONFIRMED


application = service.Application("evamqp")  # type: ignore[no-untyped-call]
url = os.environ.get("AMQP_URL") or "amqp://guest:guest@localhost:5672/%2F"
Capitals(url).setServiceParent(application)  # type: ignore[no-untyped-call]
