#!/usr/bin/env python3
"""A web application: POST publishes, and whatever arrives is streamed to every open browser.

    python examples/tornado_app.py --port 8888
    curl -d 'hello' http://localhost:8888/publish      # then look at http://localhost:8888/

The broker's confirm is the answer to the POST: 200 means that the broker has the message.  503
means that it did not confirm it in time, so that nobody knows: post it again.
"""

# Tornado types the chunks of write() with a bare dict.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import argparse
import asyncio
import os
import signal
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
PATIENCE = 2.0  # seconds that a POST may take
PAGE = """<!doctype html><title>evamqp</title><h1>Messages</h1><ul></ul><script>
new EventSource("/events").onmessage = (event) => {
  const item = document.createElement("li");
  item.textContent = event.data;
  document.querySelector("ul").append(item);
};</script>"""


class Broker:
    """The application's one connection, which comes back whenever it is lost."""

    def __init__(self, url: str) -> None:
        self.browsers: set[asyncio.Queue[str | None]] = set()
        # Everybody who runs this application gets every message, in a queue of his own.
        topology = evamqp.Topology()
        topology.exchange(EXCHANGE, "fanout", durable=True)
        queue = topology.queue(exclusive=True)
        topology.bind(queue, EXCHANGE)
        self.connection = evamqp.Reconnector(
            url,
            adapter=TornadoAdapter(),  # on the IOLoop that runs the application
            topology=topology,
            on_reconnecting=self.on_reconnecting,
        )
        self.publisher = evamqp.Publisher(self.connection)
        self.consumer = evamqp.Consumer(self.connection, queue, self.on_message)

    async def publish(self, body: bytes) -> evamqp.Outcome:
        return await self.publisher.publish(EXCHANGE, "", body, timeout=PATIENCE)

    async def stop(self) -> None:
        """Take no more, wait for the confirms under way, close."""
        await self.consumer.close()
        await self.publisher.close(DRAIN_TIME)
        await self.connection.close()
        for browser in self.browsers:
            self.hand_over(browser, None)

    def on_message(self, message: evamqp.Message) -> None:
        for browser in self.browsers:
            self.hand_over(browser, message.body.decode("utf-8", "replace"))

    def hand_over(self, browser: asyncio.Queue[str | None], text: str | None) -> None:
        with suppress(asyncio.QueueFull):
            browser.put_nowait(text)

    def on_reconnecting(self, attempt: int, delay: float, reason: evamqp.ConnectionClosed) -> None:
        print(f"{reason}; the next attempt is in {delay:.1f} s", flush=True)


class Page(RequestHandler):
    def get(self) -> None:
        self.write(PAGE)


class Publish(RequestHandler):
    async def post(self) -> None:
        broker: Broker = self.settings["broker"]
        outcome = await broker.publish(self.request.body)
        self.set_status(200 if outcome is evamqp.Outcome.CONFIRMED else 503)
        self.write(f"{outcome.name}\n")


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
