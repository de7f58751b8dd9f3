#!/usr/bin/env python3
"""A web application: POST publishes, and whatever arrives is streamed to every open browser.

    python examples/tornado_app.py --port 8888
    curl -d 'hello' http://localhost:8888/publish      # then look at http://localhost:8888/

The broker's confirm is the answer to the POST: 200 means that the broker has the message.  503
means that it has not, or that the connection was lost and the outcome is unknown: post it again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

import evamqp
from evamqp.adapters.tornado import TornadoAdapter

EXCHANGE = "evamqp-web"
BACKLOG = 100  # messages kept for a browser that reads slowly; it misses what is beyond
DRAIN_TIME = 5.0  # seconds that the last confirms may take when we stop
MAX_DELAY = 10.0  # seconds between two attempts to connect
PAGE = """<!doctype html><title>evamqp</title><h1>Messages</h1><ul></ul><script>
new EventSource("/events").onmessage = (event) => {
  const item = document.createElement("li");
  item.textContent = event.data;
  document.querySelector("ul").append(item);
};</script>"""


class Broker(evamqp.Handler):
    """The application's one connection, made anew whenever it is lost."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.adapter = TornadoAdapter()  # on the IOLoop that runs the application
        self.browsers: set[asyncio.Queue[str | None]] = set()
        self.waiting: dict[int, asyncio.Future[str]] = {}  # by delivery tag
        self.connection: evamqp.Connection | None = None
        self.channel: evamqp.Channel | None = None
        self.failures = 0
        self.is_stopping = False

    def connect(self) -> None:
        if not self.is_stopping:
            self.connection = evamqp.connect(self.url, self, adapter=self.adapter)

    def publish(self, body: bytes) -> asyncio.Future[str]:
        """Publish; the future holds the outcome in a word."""
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self.channel is None or self.is_stopping:
            outcome.set_result("not connected")
        elif not self.channel.connection.is_writable:
            outcome.set_result("busy")
        else:
            self.waiting[self.channel.basic_publish(EXCHANGE, "", body)] = outcome
        return outcome

    async def stop(self) -> None:
        """Take no more, wait for the confirms under way, close."""
        self.is_stopping = True
        if self.channel is not None:
            with suppress(evamqp.AmqpError, asyncio.TimeoutError):
                await asyncio.wait_for(self.channel.wait_for_confirms(), DRAIN_TIME)
        if self.connection is not None:
            await self.connection.close()
        for browser in self.browsers:
            self.hand_over(browser, None)

    def on_open(self, connection: evamqp.Connection) -> None:
        connection.channel()

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        # Everybody who runs this application gets every message, in a queue of his own.
        channel.confirm_select()
        channel.exchange_declare(EXCHANGE, "fanout", durable=True)
        channel.queue_declare(exclusive=True)
        channel.queue_bind("", EXCHANGE)  # "" is the queue declared last
        channel.basic_consume("", self.on_message, auto_ack=True, callback=self.on_consuming)
        self.channel = channel

    def on_consuming(self, consumer_tag: str) -> None:
        self.failures = 0

    def on_message(self, message: evamqp.Message) -> None:
        for browser in self.browsers:
            self.hand_over(browser, message.body.decode("utf-8", "replace"))

    def hand_over(self, browser: asyncio.Queue[str | None], text: str | None) -> None:
        with suppress(asyncio.QueueFull):
            browser.put_nowait(text)

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: Sequence[int], acked: bool
    ) -> None:
        for tag in tags:
            self.waiting.pop(tag).set_result("confirmed" if acked else "refused")

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self.channel = None
        waiting, self.waiting = self.waiting, {}
        for outcome in waiting.values():
            outcome.set_result("unknown")
        # If the channel alone was closed, we begin afresh as after a lost connection.
        channel.connection.close(text=f"the channel ended: {reason}")

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        """The end of an open connection, and of one that could not be opened."""
        self.connection = None
        # Growing, so that a broker in trouble is left alone; random, so that its clients do not
        # all come back at the same moment.
        delay = random.uniform(0, min(MAX_DELAY, 0.1 * 2 ** min(self.failures, 10)))
        self.failures += 1
        if not self.is_stopping:
            print(f"{reason}; the next attempt is in {delay:.1f} s", flush=True)
            self.adapter.call_later(delay, self.connect)


class Page(RequestHandler):
    def get(self) -> None:
        self.write(PAGE)


class Publish(RequestHandler):
    async def post(self) -> None:
        broker: Broker = self.settings["broker"]
        outcome = await broker.publish(self.request.body)
        self.set_status(200 if outcome == "confirmed" else 503)
        self.write(f"{outcome}\n")


class Events(RequestHandler):
    """Server-sent events, until the browser or the application ends."""

    def initialize(self) -> None:
        self.broker: Broker = self.settings["broker"]
        self.texts: asyncio.Queue[str | None] = asyncio.Queue(BACKLOG)

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        self.broker.browsers.add(self.texts)
        with suppress(StreamClosedError):
            await self.flush()
            while (text := await self.texts.get()) is not None:
                self.write("".join(f"data: {line}\n" for line in text.split("\n")) + "\n")
                await self.flush()

    def on_connection_close(self) -> None:
        self.broker.hand_over(self.texts, None)

    def on_finish(self) -> None:
        self.broker.browsers.discard(self.texts)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Publish by POST, stream what arrives.")
    parser.add_argument("--port", type=int, default=8888, help="of HTTP; 0 picks a free one")
    parser.add_argument(
        "--url", default=os.environ.get("AMQP_URL") or "amqp://guest:guest@localhost:5672/%2F"
    )
    options = parser.parse_args()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    broker = Broker(options.url)
    broker.connect()
    pages = Application([("/", Page), ("/publish", Publish), ("/events", Events)], broker=broker)
    server = HTTPServer(pages)
    sockets = bind_sockets(options.port, "127.0.0.1")
    server.add_sockets(sockets)
    print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/", flush=True)
    await stopped.wait()
    server.stop()
    await broker.stop()
    await server.close_all_connections()
    print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
