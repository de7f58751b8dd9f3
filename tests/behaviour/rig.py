"""What the laws of behaviour stand on: a client with a channel, and short words for long methods.

It holds no tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from evamqp.codec.properties import Properties
from tests.behaviour.brokers import UnderTest
from tests.behaviour.client import Client, Event, HungUp, Refused, Wire
from tests.behaviour.versions import answer_of

Answer = TypeVar("Answer")
# Looks at a queue, and seconds between two of them.
LOOKS = 500
PAUSE = 0.01
NOTHING: Mapping[str, Any] = {}


class Traces:
    """What a law leaves behind in the virtual host.

    Attributes:
        names: Of queues and exchanges that were declared, by ``"queue"`` and ``"exchange"``.
        are_removable: False after an exclusive or server-named queue: the one goes in its own time,
            and the other's name is not known here.
    """

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {"exchange": set(), "queue": set()}
        self.are_removable = True

    def note(self, method: str, arguments: tuple[object, ...]) -> None:
        """A method is sent."""
        kind, _, verb = method.partition(".")
        if verb == "declare":
            self.names[kind].add(str(arguments[0]))
            if kind == "queue" and (arguments[3] or not arguments[0]):
                self.are_removable = False


class Talker(Client):
    """A client in short words; every method speaks on ``number``, which begins as channel 1."""

    number = 1

    def __init__(self, wire: Wire, traces: Traces) -> None:
        super().__init__(wire)
        self._traces = traces

    def send(self, channel: int, name: str, *arguments: object) -> None:
        self._traces.note(name, arguments)
        super().send(channel, name, *arguments)

    def declare_queue(
        self,
        name: str = "",
        *,
        passive: bool = False,
        durable: bool | None = None,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] = NOTHING,
    ) -> Event:
        """queue.declare; ``durable`` None means yes, unless it is exclusive."""
        durable = not exclusive if durable is None else durable
        return self.call(
            self.number, "queue.declare", name, passive, durable, exclusive, auto_delete, False,
            arguments,
        )  # fmt: skip

    def declare_exchange(
        self,
        name: str,
        kind: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] = NOTHING,
    ) -> Event:
        return self.call(
            self.number, "exchange.declare", name, kind, passive, durable, auto_delete, internal,
            False, arguments,
        )  # fmt: skip

    def bind(
        self, queue: str, exchange: str, key: str = "", arguments: Mapping[str, Any] = NOTHING
    ) -> Event:
        return self.call(self.number, "queue.bind", queue, exchange, key, False, arguments)

    def unbind(
        self, queue: str, exchange: str, key: str = "", arguments: Mapping[str, Any] = NOTHING
    ) -> Event:
        return self.call(self.number, "queue.unbind", queue, exchange, key, arguments)

    def bind_exchange(self, destination: str, source: str, key: str = "") -> Event:
        return self.call(self.number, "exchange.bind", destination, source, key, False, NOTHING)

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> Event:
        return self.call(self.number, "queue.delete", name, if_unused, if_empty, False)

    def put(
        self,
        queue: str,
        body: bytes = b"",
        properties: Properties | None = None,
        *,
        exchange: str = "",
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        """Publish."""
        self.publish(
            self.number, exchange, queue, body, properties, mandatory=mandatory, immediate=immediate
        )

    def get(self, queue: str, *, no_ack: bool = True) -> Event | None:
        """basic.get; None from an empty queue."""
        event = self.call(self.number, "basic.get", queue, no_ack)
        return None if event.name == "basic.get-empty" else event

    def got(self, queue: str, *, no_ack: bool = True) -> Event:
        """basic.get from a queue that must hold something."""
        event = self.get(queue, no_ack=no_ack)
        assert event is not None
        return event

    def bodies(self, queue: str) -> list[bytes]:
        """Everything that is ready in a queue, taken."""
        bodies = []
        while (event := self.get(queue)) is not None:
            bodies.append(event.body)
        return bodies

    def consume(
        self,
        queue: str,
        tag: str = "",
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: Mapping[str, Any] = NOTHING,
    ) -> str:
        """basic.consume; the consumer tag."""
        event = self.call(
            self.number, "basic.consume", queue, tag, False, no_ack, exclusive, False, arguments
        )
        consumer_tag: str = event["consumer_tag"]
        return consumer_tag

    def cancel(self, tag: str) -> Event:
        return self.call(self.number, "basic.cancel", tag, False)

    def deliveries(self, count: int) -> list[Event]:
        """So many deliveries, in order."""
        return self.gather(count, "basic.deliver")

    def ack(self, event: Event, *, multiple: bool = False) -> None:
        self.send(self.number, "basic.ack", event["delivery_tag"], multiple)

    def nack(self, event: Event, *, multiple: bool = False, requeue: bool = True) -> None:
        self.send(self.number, "basic.nack", event["delivery_tag"], multiple, requeue)

    def reject(self, event: Event, *, requeue: bool = True) -> None:
        self.send(self.number, "basic.reject", event["delivery_tag"], requeue)

    def qos(self, count: int, *, across_channel: bool = False) -> None:
        self.call(self.number, "basic.qos", 0, count, across_channel)

    def confirm(self) -> None:
        self.call(self.number, "confirm.select", False)

    def confirms(self, last: int) -> list[tuple[bool, int]]:
        """The outcomes of the tags up to ``last``: acked or not, and the tag."""
        outcomes: dict[int, bool] = {}
        while len(outcomes) < last:
            event = self.expect("basic.ack", "basic.nack")
            tag = event["delivery_tag"]
            first = 1 if event["multiple"] else tag
            for each in range(first, tag + 1):
                outcomes.setdefault(each, event.name == "basic.ack")
        return [(outcomes[tag], tag) for tag in sorted(outcomes)]

    def holds(self, queue: str, count: int) -> bool:
        """Whether so many messages are ready, in the end: RabbitMQ's counts overtake messages."""
        for _ in range(LOOKS):
            if self.declare_queue(queue, passive=True)["message_count"] == count:
                return True
            self.sleep(PAUSE)
        return False

    def silent(self, queue: str, count: int) -> bool:
        """Whether a queue, left with so many messages, had sent nothing here that was not seen."""
        return self.holds(queue, count) and not self.events

    def beats_until_end(self) -> int:
        """How many heartbeats come before the broker hangs up."""
        count = 0
        try:
            while self.expect("heartbeat"):
                count += 1
        except (HungUp, ConnectionError):
            return count
        raise AssertionError("unreachable")

    def refusal(self) -> Refused:
        """How the broker refuses what was sent last and has no reply of its own."""
        return self.refused(self.number, "basic.qos", 0, 0, False)


class Rig:
    """Clients of one broker.

    Attributes:
        vhost: The name of the virtual host, as RabbitMQ's texts have it.
    """

    def __init__(self, broker: UnderTest) -> None:
        self.broker = broker
        self.vhost = broker.vhost
        self._clients: list[Talker] = []
        self._traces = Traces()

    def answer(self, answers: Mapping[str, Answer]) -> Answer:
        """What this broker answers where releases differ; keys are the first to answer so."""
        return answer_of(self.broker.version, answers)

    def dial(self) -> Talker:
        """A client whose handshake has not begun."""
        client = Talker(self.broker.connect(), self._traces)
        self._clients.append(client)
        return client

    def connect(self, **options: Any) -> Talker:
        """A client with an open connection."""
        client = self.dial()
        client.open(self.vhost, **options)
        return client

    def open(self, **options: Any) -> Talker:
        """A client with an open channel."""
        client = self.connect(**options)
        client.call(1, "channel.open")
        return client

    def close(self) -> None:
        """Close every client, and leave the virtual host as it was, if that can be."""
        for client in self._clients:
            client.close()
        if self._traces.are_removable:
            self._remove_traces()
            self.broker.give_back()

    def _remove_traces(self) -> None:
        names = [(kind, name) for kind in self._traces.names for name in self._traces.names[kind]]
        client = self.connect()
        for number, (kind, name) in enumerate(names, start=1):
            client.call(number, "channel.open")
            bits = [False] * (2 if kind == "exchange" else 3)
            with suppress(Refused):  # a name that the broker has refused before
                client.call(number, f"{kind}.delete", name, *bits)
        client.close()
