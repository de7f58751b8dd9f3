"""A client in virtual time that writes down what happens to it, and the broker it talks to.

It holds no tests.
"""

from __future__ import annotations

from typing import TypeVar

import evamqp
from evamqp.adapters.memory import MemoryAdapter
from evamqp.core.request import Request
from evamqp.testing import Broker
from evamqp.testing.fixtures import MemoryBroker
from evamqp.types import Tags

T = TypeVar("T")


class CallbackNotes(evamqp.Handler):
    """Notes each callback in ``calls``: its name, and the essential of what came."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.bodies: list[bytes] = []
        self.reason: evamqp.ConnectionClosed | None = None

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def outcomes(self) -> list[object]:
        """What was confirmed: each tag, negative where it was nacked."""
        return [tag for name, tags in self.calls if name == "confirm" for tag in tags]  # type: ignore[attr-defined]

    def on_open(self, connection: evamqp.Connection) -> None:
        self.calls.append(("open", None))

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self.reason = error
        self.calls.append(("open_error", None))

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.reason = reason
        self.calls.append(("close", None))

    def on_blocked(self, connection: evamqp.Connection, reason: str) -> None:
        self.calls.append(("blocked", reason))

    def on_unblocked(self, connection: evamqp.Connection) -> None:
        self.calls.append(("unblocked", None))

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self.calls.append(("channel_close", (reason.code, reason.text)))

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        self.calls.append(("confirm", [tag if acked else -tag for tag in tags]))

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        self.calls.append(("return", returned.body))

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        self.calls.append(("cancel", consumer_tag))

    def on_message(self, message: evamqp.Message) -> None:
        self.bodies.append(message.body)


class World:
    """A broker and its clients in virtual time."""

    def __init__(self, memory: MemoryBroker) -> None:
        self.adapter: MemoryAdapter = memory.adapter
        self.broker: Broker = memory.broker
        self.url = memory.url

    def connect(self, **parameters: object) -> tuple[CallbackNotes, evamqp.Connection]:
        """A client whose connection is under way."""
        recorder = CallbackNotes()
        target = evamqp.Parameters.from_url(self.url, **parameters)
        return recorder, evamqp.connect(target, recorder, adapter=self.adapter)

    def open(self, **parameters: object) -> tuple[CallbackNotes, evamqp.Channel]:
        """A client with an open channel in confirm mode and an empty queue ``q``."""
        recorder, connection = self.connect(**parameters)
        self.wait(connection.wait_open())
        channel = connection.channel()
        channel.confirm_select()
        self.wait(channel.queue_declare("q"))
        return recorder, channel

    def wait(self, request: Request[T]) -> T:
        return self.adapter.run_until(request)

    def settle(self) -> None:
        """Let everything happen that happens at this moment."""
        self.adapter.run_until_idle()
