"""A broker small enough to be read, for many clients at a time, over memory, TCP or TLS.

It keeps queues and forgets no message; exchanges, durability and policies are RabbitMQ's.  No
fault is made here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from chaos_proxy import NO_LINGER
from evamqp.abc import Transport
from evamqp.codec.frames import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_METHOD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    body_frames,
    content_header_frame,
    method_frame,
    split_frames,
)
from evamqp.codec.methods import decode_arguments
from evamqp.codec.spec import BY_KEY, BY_NAME

HOST = "127.0.0.1"
FRAME_MAX = 131_072
START = (0, 9, {"product": "a small broker", "capabilities": {"basic.nack": True}}, b"PLAIN")


class Message(NamedTuple):
    """What a queue holds."""

    body: bytes
    properties: bytes
    redelivered: bool = False


class Store:
    """What outlives every connection.

    Attributes:
        queues: By name.
        consumers: Who waits for messages of a queue.
        is_leaderless: Whether a publish is nacked, and every later one on its channel too, as
            RabbitMQ 3.10 does while a quorum queue has no leader.
    """

    def __init__(self) -> None:
        self.queues: dict[str, deque[Message]] = {}
        self.consumers: dict[str, list[Consumer]] = {}
        self.is_leaderless = False

    def put(self, queue: str, message: Message) -> bool:
        """Keep a message; False if there is no such queue."""
        if queue not in self.queues:
            return False
        self.queues[queue].append(message)
        return True

    def deal(self, queue: str) -> None:
        """Hand out what consumers may take."""
        messages = self.queues.get(queue)
        for consumer in list(self.consumers.get(queue, ())):  # a delivery may end it
            while messages and consumer.has_room:
                consumer.deliver(messages.popleft())


class Consumer:
    """One consumer, and what it has not acknowledged."""

    def __init__(self, peer: Peer, channel: int, queue: str, tag: str) -> None:
        self.peer = peer
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.unsettled: dict[int, Message] = {}

    @property
    def has_room(self) -> bool:
        return not self.peer.is_closed and len(self.unsettled) < self.peer.prefetch

    def deliver(self, message: Message) -> None:
        self.peer.delivered += 1
        tag = self.peer.delivered
        self.unsettled[tag] = message
        values = (self.tag, tag, message.redelivered, "", self.queue)
        self.peer.write(
            b"".join(
                (
                    method_frame(self.channel, "basic.deliver", *values),
                    content_header_frame(self.channel, message.properties, len(message.body)),
                    *body_frames(self.channel, message.body, FRAME_MAX),
                )
            )
        )

    def requeue(self, store: Store) -> None:
        """Put back what was not acknowledged, in its old place."""
        queue = store.queues.get(self.queue)
        if queue is not None:
            again = [message._replace(redelivered=True) for message in self.unsettled.values()]
            queue.extendleft(reversed(again))
        self.unsettled.clear()


class Peer:
    """The broker's side of one connection.

    Attributes:
        write: What sends; set it before ``receive``.
        crash_after: Publishes after which ``crash`` is called, instead of the confirm; None never.
    """

    def __init__(self, store: Store) -> None:
        self.write: Callable[[bytes], object] = lambda data: None
        self.crash: Callable[[], object] = lambda: None
        self.crash_after: int | None = None
        self.prefetch = 65535
        self.delivered = 0
        self.is_closed = False
        self._store = store
        self._input = b""
        self._has_greeted = False
        self._consumers: list[Consumer] = []
        self._published = 0  # in confirm mode
        self._sour: set[int] = set()  # channels that nack for ever
        self._publish: tuple[Any, ...] = ()
        self._properties = b""
        self._missing = 0
        self._body = b""

    def receive(self, data: bytes) -> None:
        """Take bytes, and answer them."""
        self._input += data
        if not self._has_greeted:
            if len(self._input) < len(PROTOCOL_HEADER):
                return
            self._input = self._input.removeprefix(PROTOCOL_HEADER)
            self._has_greeted = True
            self.write(method_frame(0, "connection.start", *START, b"en_US"))
        frames, used = split_frames(self._input, 0, FRAME_MAX, FRAME_MAX)
        self._input = self._input[used:]
        for kind, channel, payload in frames:
            if kind == FRAME_METHOD:
                method = BY_KEY[int.from_bytes(payload[:4], "big")]
                self._method(channel, method.name, decode_arguments(method, payload))
            elif kind == FRAME_HEADER:
                self._missing = int.from_bytes(payload[4:12], "big")
                self._properties, self._body = payload[12:], b""
                self._take_body(channel, b"")
            elif kind == FRAME_BODY:
                self._take_body(channel, payload)
            else:
                self.write(HEARTBEAT_FRAME)  # as often as the client does

    def end(self) -> None:
        """The connection is gone."""
        if self.is_closed:
            return
        self.is_closed = True
        self.write = lambda data: None
        self._drop(self._consumers)

    def _drop(self, consumers: list[Consumer]) -> None:
        for consumer in list(consumers):
            self._consumers.remove(consumer)
            self._store.consumers[consumer.queue].remove(consumer)
            consumer.requeue(self._store)
            self._store.deal(consumer.queue)

    def _method(self, channel: int, name: str, values: tuple[Any, ...]) -> None:
        act = getattr(self, "_" + name.replace(".", "_").replace("-", "_"), None)
        answer = act(channel, *values) if act is not None else ()
        replies = BY_NAME[name].replies
        if replies and answer is not None:
            self.write(method_frame(channel, replies[0], *answer))
        if name == "basic.consume":
            self._store.deal(values[0])

    def _connection_start_ok(self, channel: int, *values: Any) -> None:
        self.write(method_frame(0, "connection.tune", 2047, FRAME_MAX, 60))

    def _connection_close(self, channel: int, *values: Any) -> tuple[Any, ...]:
        self._drop(self._consumers)
        return ()

    def _confirm_select(self, channel: int, *values: Any) -> tuple[Any, ...]:
        self._published = 0
        return ()

    def _channel_close(self, channel: int, *values: Any) -> tuple[Any, ...]:
        self._sour.discard(channel)
        self._drop([each for each in self._consumers if each.channel == channel])
        return ()

    def _queue_declare(self, channel: int, name: str, *flags: Any) -> tuple[Any, ...]:
        queue = self._store.queues.setdefault(name, deque())
        return (name, len(queue), 0)

    def _queue_delete(self, channel: int, name: str, *flags: Any) -> tuple[Any, ...]:
        return (len(self._store.queues.pop(name, ())),)

    def _basic_qos(self, channel: int, size: int, count: int, *flags: Any) -> tuple[Any, ...]:
        self.prefetch = count
        return ()

    def _basic_consume(self, channel: int, queue: str, tag: str, *rest: Any) -> tuple[Any, ...]:
        consumer = Consumer(self, channel, queue, tag)
        self._consumers.append(consumer)
        self._store.consumers.setdefault(queue, []).append(consumer)
        return (tag,)

    def _basic_cancel(self, channel: int, tag: str, *flags: Any) -> tuple[Any, ...]:
        for consumer in [each for each in self._consumers if each.tag == tag]:
            self._consumers.remove(consumer)
            self._store.consumers[consumer.queue].remove(consumer)
            consumer.requeue(self._store)
        return (tag,)

    def _basic_ack(self, channel: int, tag: int, multiple: bool) -> None:
        for consumer in self._consumers:
            settled = [each for each in consumer.unsettled if multiple and each <= tag] or [tag]
            for each in settled:
                consumer.unsettled.pop(each, None)
            self._store.deal(consumer.queue)

    def _basic_publish(self, channel: int, *values: Any) -> None:
        self._publish = values

    def _take_body(self, channel: int, piece: bytes) -> None:
        self._body += piece
        if len(self._body) < self._missing:
            return
        exchange, queue, mandatory, _ = self._publish
        if self.crash_after is not None and self._published >= self.crash_after:
            self.crash()
            return
        if self._store.is_leaderless:
            self._sour.add(channel)
        if channel in self._sour:
            self._published += 1
            self.write(method_frame(channel, "basic.nack", self._published, False, False))
            return
        message = Message(self._body, self._properties)
        if not self._store.put(queue, message) and mandatory:
            returned = method_frame(channel, "basic.return", 312, "NO_ROUTE", exchange, queue)
            header = content_header_frame(channel, message.properties, len(message.body))
            body = body_frames(channel, message.body, FRAME_MAX)
            self.write(b"".join((returned, header, *body)))
        self._published += 1
        self.write(method_frame(channel, "basic.ack", self._published, False))
        self._store.deal(queue)


class PeerProtocol(asyncio.Protocol):
    """A Peer at the end of a socket."""

    def __init__(self, server: PeerServer) -> None:
        self._server = server
        self._peer = Peer(server.store or Store())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._server.transports.add(transport)
        self._transport = transport
        self._peer.write = transport.write
        self._peer.crash = self._crash
        self._peer.crash_after = self._server.crash_after

    def _crash(self) -> None:
        self._peer.end()
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._peer.receive(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.transports.discard(self._transport)
        self._peer.end()


class PeerServer:
    """Peers behind a port of 127.0.0.1, in a thread of their own.

    Args:
        context: For TLS; None means plain TCP.
        store: What all connections share; None gives each one of its own.
        crash_after: See ``Peer``; for every connection.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        *,
        store: Store | None = None,
        crash_after: int | None = None,
    ) -> None:
        self.store = store
        self.crash_after = crash_after
        self.transports: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        # What clients do to their connections here is not worth a line of log.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._server = self._loop.run_until_complete(
            self._loop.create_server(lambda: PeerProtocol(self), HOST, 0, ssl=context, backlog=1024)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="peers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for transport in list(self.transports):
            transport.abort()
        while self.transports:
            await asyncio.sleep(0)


class MemoryPeer:
    """A Peer at the end of a wire of memory."""

    def __init__(self, store: Store) -> None:
        self.peer = Peer(store)

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.peer.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.peer.receive(data)

    def pause_writing(self) -> None:
        """All that is said here is short."""

    def resume_writing(self) -> None:
        """All that is said here is short."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self.peer.end()
