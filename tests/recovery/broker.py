"""A broker that does as it is told: it confirms, returns, refuses, blocks and goes away on command.

No law lives here.  It has queues, but routes by the default exchange only; what a real broker does
besides is RabbitMQ's, and the embedded broker's.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from evamqp.abc import Listener, Transport
from evamqp.codec.frames import PROTOCOL_HEADER, method_frame, split_frames
from evamqp.codec.spec import BY_NAME
from tests.support import frames as sending
from tests.support.frames import FRAME_MAX, Sent

HOST = "broker"
PORT = 5672
TUNE = (2047, 131_072, 0)


class Refusal(NamedTuple):
    """What to close a channel with, when ``when`` says so of the method's arguments."""

    code: int
    text: str
    when: Callable[..., bool]


class Ready(NamedTuple):
    """A message in a queue; they are ordered by number."""

    number: int
    redelivered: bool
    body: bytes


class Queue:
    """What is ready in a queue, who consumes it, and whose it is."""

    def __init__(self, owner: Wire | None) -> None:
        self.owner = owner
        self.ready: list[Ready] = []
        self.consumers: list[Consumer] = []
        self._numbers = count()

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.ready]

    def put(self, body: bytes) -> None:
        self.ready.append(Ready(next(self._numbers), False, body))


class Consumer:
    """One basic.consume."""

    def __init__(self, channel: Channel, tag: str, exclusive: bool) -> None:
        self.channel = channel
        self.tag = tag
        self.exclusive = exclusive


class Publish:
    """One basic.publish, and what can be said to it."""

    def __init__(self, channel: Channel, tag: int, arguments: tuple[Any, ...]) -> None:
        self.channel = channel
        self.tag = tag
        self.exchange, self.routing_key, self.mandatory, _ = arguments
        self.missing = 0
        self.properties = b""
        self.body = b""

    def __repr__(self) -> str:
        return f"<Publish {self.tag} {self.body!r}>"

    def ack(self, multiple: bool = False) -> None:
        self.channel.send(sending.ack(self.channel.number, self.tag, multiple))

    def nack(self, multiple: bool = False) -> None:
        self.channel.send(sending.nack(self.channel.number, self.tag, multiple))

    def give_back(self) -> None:
        """Return it as unroutable."""
        values = (312, "NO_ROUTE", self.exchange, self.routing_key)
        frames = sending.content(
            self.channel.number,
            "basic.return",
            *values,
            body=self.body,
            properties=self.properties,
        )
        self.channel.send(*frames)

    def refuse(self, code: int = 406, text: str = "PRECONDITION_FAILED") -> None:
        """Close the channel because of it."""
        self.channel.close(code, text, "basic.publish")

    def route(self) -> None:
        """Do as a broker does with the default exchange: queue it or return it; then ack."""
        queue = self.channel.wire.server.queues.get(self.routing_key)
        if queue is not None:
            queue.put(self.body)
        elif self.mandatory:
            self.give_back()
        self.ack()
        self.channel.wire.server.dispatch()


class Channel:
    """One open channel of a wire."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.wire = wire
        self.number = number
        self.publish: Publish | None = None  # whose content is coming
        self.published = 0
        self.last_queue = ""
        self.prefetch = 0
        self.delivered = count(1)
        self.unsettled: dict[int, tuple[str, Ready]] = {}
        self.consumers: dict[str, str] = {}  # queue by tag

    @property
    def is_open(self) -> bool:
        return self.wire.channels.get(self.number) is self

    def send(self, *frames: bytes) -> None:
        """Say something on this channel; nothing once it is closed."""
        if self.is_open:
            self.wire.send(*frames)

    def close(
        self, code: int = 541, text: str = "INTERNAL_ERROR", blamed: str | None = None
    ) -> None:
        """Close it from the broker's side."""
        self.send(sending.channel_close(self.number, code, text, blamed))
        self.end()

    def end(self) -> None:
        """It is gone: what was not settled goes back to its queue."""
        self.wire.channels.pop(self.number, None)
        for tag in list(self.consumers):
            self.remove_consumer(tag)
        for delivery_tag in sorted(self.unsettled, reverse=True):
            self.requeue(delivery_tag)
        self.wire.server.dispatch()

    def requeue(self, delivery_tag: int) -> None:
        name, message = self.unsettled.pop(delivery_tag)
        if name in self.wire.server.queues:
            again = message._replace(redelivered=True)
            insort(self.wire.server.queues[name].ready, again)

    def remove_consumer(self, tag: str) -> None:
        name = self.consumers.pop(tag)
        queue = self.wire.server.queues.get(name)
        if queue is not None:
            queue.consumers = [c for c in queue.consumers if c.channel is not self or c.tag != tag]


class Wire:
    """The broker's side of one connection: a Stream.

    Attributes:
        sent: All that the client sent, in order.
        is_up: Whether it stands.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sent: list[Sent] = []
        self.channels: dict[int, Channel] = {}
        self.is_up = False
        self._buffer = b""
        self._kept: list[bytes] = []

    # Stream

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.is_up = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._buffer.startswith(PROTOCOL_HEADER):
            self._buffer = self._buffer[len(PROTOCOL_HEADER) :]
            if not self.server.is_mute:
                self.send(sending.start())
        _, used = split_frames(self._buffer, 0, FRAME_MAX, FRAME_MAX)
        whole, self._buffer = self._buffer[:used], self._buffer[used:]
        for sent in sending.decode(whole):
            self.sent.append(sent)
            self._take(sent)

    def pause_writing(self) -> None:
        """Everything said here is small."""

    def resume_writing(self) -> None:
        """Everything said here is small."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end()

    # Commands

    @property
    def names(self) -> list[str]:
        """The names of what the client sent."""
        return [sent.name for sent in self.sent]

    def send(self, *frames: bytes) -> None:
        self.transport.write(b"".join(frames))

    def cut(self) -> None:
        """Reset the connection."""
        self._end()
        self.transport.abort()

    def close(self, code: int = 320, text: str = "FORCED", blamed: str | None = None) -> None:
        """Send connection.close."""
        self._end()
        self.send(sending.connection_close(code, text, blamed))

    def block(self) -> None:
        self.send(method_frame(0, "connection.blocked", "low on memory"))

    def unblock(self) -> None:
        self.send(method_frame(0, "connection.unblocked"))

    def release(self) -> None:
        """Send the answers that were held back."""
        kept, self._kept = self._kept, []
        self.send(*kept)

    def _end(self) -> None:
        self.is_up = False
        for channel in list(self.channels.values()):
            channel.end()
        queues = self.server.queues
        for name in [name for name, queue in queues.items() if queue.owner is self]:
            if not self.server.keeps_exclusive:
                del queues[name]

    # What the client says

    def _take(self, sent: Sent) -> None:
        channel = self.channels.get(sent.channel)
        if sent.name == "channel.open":
            channel = self.channels[sent.channel] = Channel(self, sent.channel)
        if not self.is_up or (sent.channel and channel is None):
            return  # late, behind a close of ours
        refusal = self.server.refusal_of(sent)
        if refusal is not None and channel is not None:
            channel.close(refusal.code, refusal.text, sent.name)
            return
        handle = getattr(self, "_" + sent.name.replace(".", "_").replace("-", "_"), None)
        arguments = sent.arguments
        answer = sending.reply_to(sent) if handle is None else handle(channel, *arguments)
        if sent.name in self.server.held:
            self._kept.append(answer)
        elif answer:
            self.send(answer)

    def _connection_start_ok(self, channel: None, *arguments: object) -> bytes:
        self.server.logins.append(arguments)
        if self.server.login_refusal is not None:
            self.close(*self.server.login_refusal)
            return b""
        return method_frame(0, "connection.tune", *TUNE)

    def _connection_close(self, channel: None, *arguments: object) -> bytes:
        self._end()
        self.send(method_frame(0, "connection.close-ok"))
        self.transport.close()
        return b""

    def _connection_close_ok(self, channel: None) -> bytes:
        self.transport.close()
        return b""

    def _channel_close(self, channel: Channel, *arguments: object) -> bytes:
        self.send(method_frame(channel.number, "channel.close-ok"))
        channel.end()
        return b""

    def _queue_declare(
        self, channel: Channel, name: str, passive: bool, durable: bool, exclusive: bool,
        auto_delete: bool, nowait: bool, arguments: object,
    ) -> bytes:  # fmt: skip
        queues = self.server.queues
        name = name or f"amq.gen-{len(queues)}"
        if name in queues and queues[name].owner not in (None, self):
            channel.close(405, "RESOURCE_LOCKED", "queue.declare")
            return b""
        if name not in queues:
            queues[name] = Queue(self if exclusive else None)
        channel.last_queue = name
        ready = len(queues[name].ready)
        return b"" if nowait else method_frame(channel.number, "queue.declare-ok", name, ready, 0)

    def _queue_delete(self, channel: Channel, name: str, *flags: bool) -> bytes:
        name = name or channel.last_queue
        self.server.delete_queue(name)
        return method_frame(channel.number, "queue.delete-ok", 0)

    def _basic_qos(self, channel: Channel, size: int, prefetch: int, shared: bool) -> bytes:
        channel.prefetch = prefetch
        return method_frame(channel.number, "basic.qos-ok")

    def _basic_consume(
        self, channel: Channel, name: str, tag: str, no_local: bool, no_ack: bool, exclusive: bool,
        nowait: bool, arguments: object,
    ) -> bytes:  # fmt: skip
        queue = self.server.queues.get(name)
        if queue is None:
            channel.close(404, f"NOT_FOUND - no queue '{name}'", "basic.consume")
            return b""
        if queue.consumers and (exclusive or queue.consumers[0].exclusive):
            channel.close(403, "ACCESS_REFUSED - exclusive use", "basic.consume")
            return b""
        queue.consumers.append(Consumer(channel, tag, exclusive))
        channel.consumers[tag] = name
        self.send(method_frame(channel.number, "basic.consume-ok", tag))
        self.server.dispatch()
        return b""

    def _basic_cancel(self, channel: Channel, tag: str, nowait: bool) -> bytes:
        if tag in channel.consumers:
            channel.remove_consumer(tag)
        return b"" if nowait else method_frame(channel.number, "basic.cancel-ok", tag)

    def _basic_cancel_ok(self, channel: Channel, tag: str) -> bytes:
        return b""

    def _basic_ack(self, channel: Channel, tag: int, multiple: bool) -> bytes:
        return self._settle(channel, tag, "basic.ack", "acked")

    def _basic_nack(self, channel: Channel, tag: int, multiple: bool, requeue: bool) -> bytes:
        return self._settle(channel, tag, "basic.nack", "requeued" if requeue else "dropped")

    def _basic_reject(self, channel: Channel, tag: int, requeue: bool) -> bytes:
        return self._settle(channel, tag, "basic.reject", "requeued" if requeue else "dropped")

    def _settle(self, channel: Channel, tag: int, method: str, verb: str) -> bytes:
        if tag not in channel.unsettled:
            channel.close(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}", method)
            return b""
        self.server.settled.append((verb, channel.unsettled[tag][1].body))
        if verb == "requeued":
            channel.requeue(tag)
        else:
            del channel.unsettled[tag]
        self.server.dispatch()
        return b""

    def _basic_publish(self, channel: Channel, *arguments: object) -> bytes:
        channel.published += 1
        channel.publish = Publish(channel, channel.published, arguments)
        return b""

    def _header(self, channel: Channel, size: int, properties: bytes) -> bytes:
        assert channel.publish is not None
        channel.publish.missing = size
        channel.publish.properties = properties
        return self._body(channel, b"")

    def _body(self, channel: Channel, piece: bytes) -> bytes:
        publish = channel.publish
        assert publish is not None
        publish.body += piece
        if len(publish.body) == publish.missing:
            channel.publish = None
            self.server.published.append(publish)
            self.server.on_publish(publish)
        return b""


class Server:
    """Listens, and holds what outlives a connection.

    Attributes:
        wires: The connections so far, in order.
        queues: By name.
        published: All that was published, in order.
        settled: ``("acked" | "requeued" | "dropped", body)``, in order.
        on_publish: What is done about each publish; by default nothing.
        held: Methods whose answers wait for ``Wire.release()``.
        logins: The arguments of each connection.start-ok.
        login_refusal: Code and text with which logins are refused; None lets everybody in.
        is_mute: It accepts connections, and says nothing.
        ignores_prefetch: It sends all that it has.
        keeps_exclusive: Exclusive queues outlive their connection, as they do for a while.
    """

    def __init__(self, adapter: Listener, host: str = HOST, port: int = PORT) -> None:
        self.wires: list[Wire] = []
        self.queues: dict[str, Queue] = {}
        self.published: list[Publish] = []
        self.settled: list[tuple[str, bytes]] = []
        self.on_publish: Callable[[Publish], object] = lambda publish: None
        self.held: set[str] = set()
        self.logins: list[tuple[object, ...]] = []
        self.login_refusal: tuple[int, str] | None = None
        self.is_mute = False
        self.keeps_exclusive = False
        self.ignores_prefetch = False
        self.refusals: dict[str, Refusal] = {}
        self._adapter = adapter
        self._host = host
        self._listening = adapter.listen(host, port, self._accept)
        self.port = self._listening.port

    @property
    def wire(self) -> Wire:
        """The newest connection."""
        return self.wires[-1]

    @property
    def bodies(self) -> list[bytes]:
        """What was published, in order."""
        return [publish.body for publish in self.published]

    def down(self) -> None:
        """Reset all connections, and accept none."""
        self._listening.cancel()
        for wire in self.wires:
            if wire.is_up:
                wire.cut()

    def up(self) -> None:
        """Accept connections again."""
        self._listening = self._adapter.listen(self._host, self.port, self._accept)

    def refuse(
        self,
        method: str,
        code: int,
        text: str = "refused",
        when: Callable[..., bool] = lambda *arguments: True,
    ) -> None:
        """Close the channel of each such method."""
        assert method in BY_NAME
        self.refusals[method] = Refusal(code, text, when)

    def refusal_of(self, sent: Sent) -> Refusal | None:
        refusal = self.refusals.get(sent.name)
        return refusal if refusal is not None and refusal.when(*sent.arguments) else None

    def delete_queue(self, name: str) -> None:
        """Delete a queue, and cancel its consumers."""
        queue = self.queues.pop(name, None)
        for consumer in queue.consumers if queue is not None else ():
            consumer.channel.consumers.pop(consumer.tag, None)
            number = consumer.channel.number
            consumer.channel.send(method_frame(number, "basic.cancel", consumer.tag, True))

    def time_out(self, name: str) -> None:
        """Cancel the consumers of a queue and take back what they have not settled."""
        queue = self.queues[name]
        consumers, queue.consumers = queue.consumers, []
        for consumer in consumers:
            channel = consumer.channel
            del channel.consumers[consumer.tag]
            channel.send(method_frame(channel.number, "basic.cancel", consumer.tag, True))
            for delivery_tag, (_, message) in sorted(channel.unsettled.items(), reverse=True):
                insort(queue.ready, message._replace(redelivered=True))
                channel.unsettled[delivery_tag] = ("", message)  # settling it means nothing

    def fill(self, name: str, *bodies: bytes) -> None:
        """Put messages into a queue, which is made if it is missing."""
        queue = self.queues.setdefault(name, Queue(None))
        for body in bodies:
            queue.put(body)
        self.dispatch()

    def dispatch(self) -> None:
        """Deliver what is ready to consumers that may have more."""
        for name, queue in self.queues.items():
            for consumer in queue.consumers:
                channel = consumer.channel
                while queue.ready and (
                    self.ignores_prefetch
                    or not channel.prefetch
                    or len(channel.unsettled) < channel.prefetch
                ):
                    message = queue.ready.pop(0)
                    tag = next(channel.delivered)
                    channel.unsettled[tag] = (name, message)
                    deliver = sending.deliver(
                        channel.number, consumer.tag, tag, message.body,
                        redelivered=message.redelivered, exchange="", routing_key=name,
                    )  # fmt: skip
                    channel.send(deliver)

    def _accept(self) -> Wire:
        wire = Wire(self)
        self.wires.append(wire)
        return wire
