"""A broker that does what a test says: it confirms, returns, refuses, blocks and goes on command.

It holds no tests.  It has queues, but routes by the default exchange only; what a real broker does
besides is RabbitMQ's, and the embedded broker's.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from evamqp.abc import Listener, Transport
from evamqp.codec.frames import HEARTBEAT_FRAME, method_frame
from evamqp.codec.spec import BY_NAME
from tests.support import frames
from tests.support.frames import (
    Sent,
    ack,
    channel_close,
    connection_close,
    content,
    deliver,
    nack,
    reply_to,
    start,
    tune,
)

HOST = "broker"
PORT = 5672


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
    properties: bytes = frames.NO_PROPERTIES


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

    def put(self, body: bytes, properties: bytes = frames.NO_PROPERTIES) -> None:
        self.ready.append(Ready(next(self._numbers), False, body, properties))


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
        self.channel.send(ack(self.channel.number, self.tag, multiple))

    def nack(self, multiple: bool = False) -> None:
        self.channel.send(nack(self.channel.number, self.tag, multiple))

    def give_back(self) -> None:
        """Return it as unroutable."""
        values = (312, "NO_ROUTE", self.exchange, self.routing_key)
        parts = content(
            self.channel.number,
            "basic.return",
            *values,
            body=self.body,
            properties=self.properties,
        )
        self.channel.send(*parts)

    def refuse(self, code: int = 406, text: str = "PRECONDITION_FAILED") -> None:
        """Close the channel because of it."""
        self.channel.close(code, text, "basic.publish")

    def route(self) -> None:
        """Do as a broker does with the default exchange: queue it or return it; then confirm."""
        queue = self.channel.wire.broker.queues.get(self.routing_key)
        if queue is not None:
            queue.put(self.body, self.properties)
        elif self.mandatory:
            self.give_back()
        if self.channel.is_confirming:
            self.ack()
        self.channel.wire.broker.dispatch()


class Channel:
    """One open channel of a wire."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.wire = wire
        self.number = number
        self.publish: Publish | None = None  # whose content is coming
        self.published = 0  # in confirm mode, if it is
        self.is_confirming = False
        self.last_queue = ""
        self.prefetch = 0
        self.delivered = count(1)
        self.unsettled: dict[int, tuple[str, Ready]] = {}
        self.consumers: dict[str, str] = {}  # queue by tag

    @property
    def is_open(self) -> bool:
        return self.wire.channels.get(self.number) is self

    def send(self, *parts: bytes) -> None:
        """Say something on this channel; nothing once it is closed."""
        if self.is_open:
            self.wire.say(self.number, b"".join(parts))

    def close(
        self, code: int = 541, text: str = "INTERNAL_ERROR", blamed: str | None = None
    ) -> None:
        """Close it from the broker's side."""
        self.send(channel_close(self.number, code, text, blamed))
        self.end()

    def end(self) -> None:
        """It is gone: what was not settled goes back to its queue."""
        self.wire.channels.pop(self.number, None)
        for tag in list(self.consumers):
            self.remove_consumer(tag)
        for delivery_tag in sorted(self.unsettled, reverse=True):
            self.requeue(delivery_tag)
        self.wire.broker.dispatch()

    def requeue(self, delivery_tag: int) -> None:
        name, message = self.unsettled.pop(delivery_tag)
        if name in self.wire.broker.queues:
            again = message._replace(redelivered=True)
            insort(self.wire.broker.queues[name].ready, again)

    def remove_consumer(self, tag: str) -> None:
        name = self.consumers.pop(tag)
        queue = self.wire.broker.queues.get(name)
        if queue is not None:
            queue.consumers = [c for c in queue.consumers if c.channel is not self or c.tag != tag]


class Wire:
    """The broker's side of one connection: a Stream.

    Attributes:
        sent: All that the client sent, in order.
        is_up: Whether it stands.
    """

    def __init__(self, broker: ScriptedBroker) -> None:
        self.broker = broker
        self.sent: list[Sent] = []
        self.channels: dict[int, Channel] = {}
        self.is_up = False
        self._buffer = frames.FrameBuffer(expects_header=True, frame_max=frames.TUNED_FRAME_MAX)
        self._kept: list[tuple[int, bytes]] = []  # channel, and what is held back for it

    # Stream

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.is_up = True

    def data_received(self, data: bytes) -> None:
        has_greeted = self._buffer.has_header
        arrived = self._buffer.feed_sent(data)
        if self._buffer.has_header and not has_greeted and not self.broker.is_mute:
            self.send(start())
        for sent in arrived:
            if self.broker.keeps:
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

    def send(self, *parts: bytes) -> None:
        self.transport.write(b"".join(parts))

    def say(self, number: int, data: bytes) -> None:
        """Send on a channel, behind what is held back there."""
        if any(number == held for held, _ in self._kept):
            self._kept.append((number, data))
        elif data:
            self.send(data)

    def cut(self) -> None:
        """Reset the connection."""
        self._end()
        self.transport.abort()

    def close(self, code: int = 320, text: str = "FORCED", blamed: str | None = None) -> None:
        """Send connection.close."""
        self._end()
        self.send(connection_close(code, text, blamed))

    def block(self) -> None:
        self.send(method_frame(0, "connection.blocked", "low on memory"))

    def unblock(self) -> None:
        self.send(method_frame(0, "connection.unblocked"))

    def release(self) -> None:
        """Send the answers that were held back."""
        kept, self._kept = self._kept, []
        self.send(*(answer for _, answer in kept))

    def _end(self) -> None:
        self.is_up = False
        for channel in list(self.channels.values()):
            channel.end()
        queues = self.broker.queues
        for name in [name for name, queue in queues.items() if queue.owner is self]:
            if not self.broker.keeps_exclusive:
                del queues[name]

    # What the client says

    def _take(self, sent: Sent) -> None:
        channel = self.channels.get(sent.channel)
        if sent.name == "channel.open":
            channel = self.channels[sent.channel] = Channel(self, sent.channel)
        if not self.is_up or (sent.channel and channel is None):
            return  # late, behind a close of ours
        refusal = self.broker.refusal_of(sent)
        if refusal is not None and channel is not None:
            channel.close(refusal.code, refusal.text, sent.name)
            return
        if sent.name in self.broker.held:
            self._kept.append((sent.channel, b""))
        self.say(sent.channel, self._answer(channel, sent))

    def _answer(self, channel: Channel | None, sent: Sent) -> bytes:
        if sent.name in self.broker.answers:
            reply = BY_NAME[sent.name].replies[0]
            return method_frame(sent.channel, reply, *self.broker.answers[sent.name])
        handle = getattr(self, "_" + sent.name.replace(".", "_").replace("-", "_"), None)
        answer: bytes = reply_to(sent) if handle is None else handle(channel, *sent.arguments)
        return answer

    def _heartbeat(self, channel: None) -> bytes:
        return HEARTBEAT_FRAME if self.broker.heartbeat else b""  # as often as the client does

    def _connection_start_ok(self, channel: None, *arguments: object) -> bytes:
        self.broker.logins.append(arguments)
        if self.broker.login_refusal is not None:
            self.close(*self.broker.login_refusal)
            return b""
        return tune(frame_max=frames.TUNED_FRAME_MAX, heartbeat=self.broker.heartbeat)

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

    def _confirm_select(self, channel: Channel, nowait: bool) -> bytes:
        channel.is_confirming = True
        channel.published = 0
        return b"" if nowait else method_frame(channel.number, "confirm.select-ok")

    def _queue_declare(
        self, channel: Channel, name: str, passive: bool, durable: bool, exclusive: bool,
        auto_delete: bool, nowait: bool, arguments: object,
    ) -> bytes:  # fmt: skip
        queues = self.broker.queues
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
        self.broker.delete_queue(name)
        return method_frame(channel.number, "queue.delete-ok", 0)

    def _basic_qos(self, channel: Channel, size: int, prefetch: int, shared: bool) -> bytes:
        channel.prefetch = prefetch
        return method_frame(channel.number, "basic.qos-ok")

    def _basic_consume(
        self, channel: Channel, name: str, tag: str, no_local: bool, no_ack: bool, exclusive: bool,
        nowait: bool, arguments: object,
    ) -> bytes:  # fmt: skip
        queue = self.broker.queues.get(name)
        if queue is None:
            channel.close(404, f"NOT_FOUND - no queue '{name}'", "basic.consume")
            return b""
        if queue.consumers and (exclusive or queue.consumers[0].exclusive):
            channel.close(403, "ACCESS_REFUSED - exclusive use", "basic.consume")
            return b""
        queue.consumers.append(Consumer(channel, tag, exclusive))
        channel.consumers[tag] = name
        channel.send(method_frame(channel.number, "basic.consume-ok", tag))
        self.broker.dispatch()
        return b""

    def _basic_get(self, channel: Channel, name: str, no_ack: bool) -> bytes:
        queue = self.broker.queues.get(name)
        if queue is None or not queue.ready:
            return method_frame(channel.number, "basic.get-empty")
        message = queue.ready.pop(0)
        tag = next(channel.delivered)
        if not no_ack:
            channel.unsettled[tag] = (name, message)
        values = (tag, message.redelivered, "", name, len(queue.ready))
        parts = content(
            channel.number,
            "basic.get-ok",
            *values,
            body=message.body,
            properties=message.properties,
        )
        return b"".join(parts)

    def _basic_cancel(self, channel: Channel, tag: str, nowait: bool) -> bytes:
        if tag in channel.consumers:
            channel.remove_consumer(tag)
        return b"" if nowait else method_frame(channel.number, "basic.cancel-ok", tag)

    def _basic_cancel_ok(self, channel: Channel, tag: str) -> bytes:
        return b""

    def _basic_ack(self, channel: Channel, tag: int, multiple: bool) -> bytes:
        return self._settle(channel, tag, multiple, "basic.ack", "acked")

    def _basic_nack(self, channel: Channel, tag: int, multiple: bool, requeue: bool) -> bytes:
        verb = "requeued" if requeue else "dropped"
        return self._settle(channel, tag, multiple, "basic.nack", verb)

    def _basic_reject(self, channel: Channel, tag: int, requeue: bool) -> bytes:
        verb = "requeued" if requeue else "dropped"
        return self._settle(channel, tag, False, "basic.reject", verb)

    def _settle(self, channel: Channel, tag: int, multiple: bool, method: str, verb: str) -> bytes:
        if tag not in channel.unsettled:
            channel.close(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}", method)
            return b""
        tags = sorted(each for each in channel.unsettled if each <= tag) if multiple else [tag]
        self.broker.settled += [(verb, channel.unsettled[each][1].body) for each in tags]
        for each in tags:
            if verb == "requeued":
                channel.requeue(each)
            else:
                del channel.unsettled[each]
        self.broker.dispatch()
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
            if self.broker.keeps:
                self.broker.published.append(publish)
            self.broker.on_publish(publish)
        return b""


class ScriptedBroker:
    """Holds what outlives a connection, and what a test wants done.

    Attributes:
        wires: The connections so far, in order.
        queues: By name.
        published: All that was published, in order.
        settled: ``("acked" | "requeued" | "dropped", body)``, in order.
        on_publish: What is done about each publish; by default nothing.
        held: Methods whose answers, and all behind them on a channel, wait for release().
        answers: Arguments of replies that shall be other than usual, by the method answered.
        heartbeat: Seconds, proposed in connection.tune; unless 0 it answers heartbeats.
        keeps: Whether wires, what they sent and what was published are noted.
        logins: The arguments of each connection.start-ok.
        login_refusal: Code and text with which logins are refused; None lets everybody in.
        is_mute: It accepts connections, and says nothing.
        ignores_prefetch: It sends all that it has.
        keeps_exclusive: Exclusive queues outlive their connection, as they do for a while.
    """

    def __init__(self, on_publish: Callable[[Publish], object] = lambda publish: None) -> None:
        self.wires: list[Wire] = []
        self.queues: dict[str, Queue] = {}
        self.published: list[Publish] = []
        self.settled: list[tuple[str, bytes]] = []
        self.on_publish = on_publish
        self.held: set[str] = set()
        self.answers: dict[str, tuple[object, ...]] = {}
        self.heartbeat = 0
        self.keeps = True
        self.logins: list[tuple[object, ...]] = []
        self.login_refusal: tuple[int, str] | None = None
        self.is_mute = False
        self.keeps_exclusive = False
        self.ignores_prefetch = False
        self.refusals: dict[str, Refusal] = {}

    def listen(self, adapter: Listener, host: str = HOST, port: int = PORT) -> None:
        """Accept connections from now on; ``port`` is where, afterwards."""
        self._adapter = adapter
        self._host = host
        self._listening = adapter.listen(host, port, self.accept)
        self.port = self._listening.port

    def accept(self) -> Wire:
        """The broker's side of one more connection."""
        wire = Wire(self)
        if self.keeps:
            self.wires.append(wire)
        return wire

    def release(self) -> None:
        """Send the answers held back so far, and hold back nothing more."""
        self.held.clear()
        for wire in self.wires:
            wire.release()

    @property
    def wire(self) -> Wire:
        """The newest connection."""
        return self.wires[-1]

    @property
    def names(self) -> list[str]:
        """The names of what clients sent, connection by connection."""
        return [name for wire in list(self.wires) for name in wire.names]

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
        self._listening = self._adapter.listen(self._host, self.port, self.accept)

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
        for name, queue in list(self.queues.items()):
            for consumer in list(queue.consumers):
                channel = consumer.channel
                # To send something may end the connection, and with it the consumer.
                while (
                    queue.ready
                    and consumer in queue.consumers
                    and (
                        self.ignores_prefetch
                        or not channel.prefetch
                        or len(channel.unsettled) < channel.prefetch
                    )
                ):
                    message = queue.ready.pop(0)
                    tag = next(channel.delivered)
                    channel.unsettled[tag] = (name, message)
                    delivery = deliver(
                        channel.number, consumer.tag, tag, message.body,
                        redelivered=message.redelivered, exchange="", routing_key=name,
                        properties=message.properties,
                    )  # fmt: skip
                    channel.send(delivery)
