"""A tour of the protocol that runs by itself in callbacks, and its recording against RabbitMQ.

No test lives here.  Since every step follows from what the broker said before, the broker's bytes
alone replay the tour.  To record it anew, with a RabbitMQ whose URL is in AMQP_URL (see
tools/rabbitmq_node.py): ``python -m tests.core.sessions``.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from evamqp.codec.properties import Properties
from evamqp.core.channel import Channel, Message
from evamqp.core.connection import Connection
from evamqp.driver import Driver
from evamqp.parameters import Parameters
from tests.support.recording_handler import RecordingHandler

RECORDED = Path(__file__).with_name("session.recorded")
#: What the tour was recorded with; small frames, so that bodies take several.
SETTINGS: dict[str, Any] = {"frame_max": 8192, "heartbeat": 60, "name": "tour"}
BODIES = (b"", b"x", bytes(range(256)) * 4, b"big" * 7000)
PROPERTIES = Properties(
    content_type="text/plain",
    headers={"n": 1, "list": [1, "two", None], "table": {"deep": True}, "f": 1.5, "b": b"\0\xff"},
    delivery_mode=2,
    priority=3,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    message_id="m",
    timestamp=1_700_000_000,
    type="t",
    app_id="a",
)


class Tour(RecordingHandler):
    """Visits everything that a broker may say to a channel, then closes the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.in_loop = True
        self.inside("on_open", self.begin)
        self.inside("on_consumer_cancel", self.meet_errors)
        self.expected = len(BODIES) * 2

    def begin(self, connection: Connection) -> None:
        """Declare, publish and consume on one channel, all pipelined."""
        connection.update_secret("guest", "a tour", callback=self.note("secret updated"))
        channel = self.channel = connection.channel()
        channel.confirm_select(callback=self.note("confirming"))
        channel.exchange_declare("tour.from", "topic", auto_delete=True)
        channel.exchange_declare("tour.to", "fanout", auto_delete=True)
        channel.exchange_bind("tour.to", "tour.from", "#", callback=self.note("bound"))
        channel.basic_qos(100)
        channel.queue_declare(exclusive=True, callback=self.fill)

    def fill(self, declared: Any) -> None:
        """The queue that the broker named: bind, publish, get, consume."""
        channel, queue = self.channel, declared.queue
        self._record("declared", (), tuple(declared))
        channel.queue_bind(queue, "tour.to")
        for body in BODIES * 2:
            channel.basic_publish("tour.from", "a.key", body, PROPERTIES, mandatory=True)
        channel.basic_publish("", "nowhere", b"comes back", PROPERTIES, mandatory=True)
        channel.basic_get(queue, callback=self.got)
        channel.basic_get("", callback=self.got)
        channel.basic_recover()
        channel.wait_for_confirms(callback=partial(self.consume, queue))

    def got(self, message: Message | None) -> None:
        """It is not settled, since basic.recover has brought it back by now."""
        self._record("got", (), message and (message.body, message.properties.headers))

    def consume(self, queue: str, nacked: list[int]) -> None:
        self._record("confirmed", (), nacked)
        self.channel.basic_consume(queue, partial(self.settle, queue), consumer_tag="tour")

    def settle(self, queue: str, message: Message) -> None:
        """Refuse the first time, acknowledge the second; delete the queue behind the last."""
        self.on_message(message)
        if not message.redelivered and message.delivery_tag % 2:
            message.reject()
        else:
            message.ack()
            self.expected -= 1
        if self.expected == 0:
            self.channel.queue_purge(queue, callback=self.note("purged"))
            self.channel.queue_delete(queue, callback=self.note("deleted"))

    def meet_errors(self, channel: Channel, consumer_tag: str) -> None:
        """What fails closes its channel only."""
        connection = channel.connection
        missing = connection.channel()
        missing.queue_declare("tour.missing", passive=True, on_error=self.note("missing"))
        missing.queue_declare("tour.never", on_error=self.note("never"))
        unknown = connection.channel()
        unknown.basic_ack(99)
        transaction = connection.channel()
        transaction.tx_select(callback=self.note("transaction"))
        transaction.basic_publish("", "nowhere", b"x")
        transaction.tx_rollback()
        transaction.tx_commit()
        transaction.flow(True, callback=self.note("flow"))
        transaction.close()
        transaction.wait_closed()
        unknown.basic_cancel("nobody", on_error=self.note("cancel failed"))
        self.inside("on_channel_close", self.finish)

    def finish(self, channel: Channel, reason: Exception) -> None:
        """The errors are in when three channels have ended."""
        if self.names.count("on_channel_close") == 3:
            channel.connection.close()


class RecordingDriver(Driver):
    """A driver that keeps what the broker sent."""

    __slots__ = ("received",)

    received: bytearray

    def data_received(self, data: bytes) -> None:
        self.received += data
        super().data_received(data)


def record(url: str) -> bytes:
    """Take the tour through a real broker; what it said."""
    from evamqp.adapters.select import SelectAdapter

    adapter = SelectAdapter()
    tour = Tour()
    tour.inside("on_close", lambda *_: adapter.stop())
    driver = RecordingDriver(adapter)
    driver.drive(Connection(tour, driver))
    driver.received = bytearray()
    driver.dial([Parameters.from_url(url, **SETTINGS)])
    adapter.run()
    assert tour.errors == []
    return bytes(driver.received)


if __name__ == "__main__":
    RECORDED.write_bytes(record(os.environ["AMQP_URL"]))
