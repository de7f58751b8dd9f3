# bench: {"name": "kombu-alone", "order": 24, "evamqp": false}
"""kombu without a transport's work: what is left of a kombu row without this is the transport's.

The broker is served beforehand, unmeasured, by evamqp.blocking, so that it sees what it checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, base

import evamqp_blocking
from _kombu import runner
from _measure import Config, Meter, Result, main

PROPERTIES = {"content_type": "text/plain", "delivery_mode": 1}
INFO = {"consumer_tag": "1", "delivery_tag": 1, "exchange": "", "routing_key": "bench"}
BODY = bytes(100)


class Channel(base.StdChannel):
    """A channel that takes everything, and has messages ready."""

    no_ack_consumers: set[str] = set()  # noqa: RUF012

    def __init__(self) -> None:
        self.published = 0
        self.callback: Callable[[Any], object] | None = None
        self.connection = self

    def prepare_message(self, body: bytes, *options: Any) -> bytes:
        return body

    def basic_publish(self, message: bytes, **options: Any) -> None:
        self.published += 1

    def basic_consume(self, callback: Callable[[Any], object], **options: Any) -> None:
        self.callback = callback

    def message_to_python(self, message: base.Message) -> base.Message:
        return message

    def queue_declare(self, *arguments: Any, **options: Any) -> tuple[str, int, int]:
        return "bench", self.published, 0

    def basic_qos(self, *limits: Any) -> None:
        pass

    def basic_ack(self, tag: int, multiple: bool) -> None:
        pass

    def close(self) -> None:
        pass

    def deliver(self) -> None:
        message = base.Message(BODY, 1, "text/plain", None, INFO, PROPERTIES, None, channel=self)
        assert self.callback is not None
        self.callback(message)


class Transport(base.Transport):
    """A transport that has one channel, and no connection."""

    implements = base.Transport.implements.extend(asynchronous=True)

    def establish_connection(self) -> Channel:
        return Channel()

    def create_channel(self, connection: Channel) -> Channel:
        return connection

    def drain_events(self, connection: Channel, **options: Any) -> None:
        connection.deliver()

    def close_connection(self, connection: Channel) -> None:
        pass


TRANSPORT_ALIASES["alone"] = f"{__name__}:Transport"


def run(config: Config, meter: Meter) -> Result | None:
    evamqp_blocking.Scenario(config, Meter()).run()
    return runner("alone")(config, meter)


if __name__ == "__main__":
    main(run)
