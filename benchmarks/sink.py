"""A broker that keeps nothing: it counts publishes, confirms them, and delivers what it made up.

For one client at a time, so that only the client's work is measured.  It checks every frame; the
usual publish and the usual ack are recognized as a whole, which keeps it far cheaper than any
client.  It prints ``PORT n``, then what it saw as one line of JSON per connection.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import select
import socket
import ssl
import time
from struct import Struct

from _measure import HEADERS
from evamqp import Properties
from evamqp.codec.frames import PROTOCOL_HEADER, body_frames, content_header_frame, method_frame
from evamqp.codec.methods import decode_arguments
from evamqp.codec.spec import BY_KEY, BY_NAME

FRAME_MAX = 131072
# A larger one is mapped and unmapped by the C library for each read, which costs more than reading.
RECV_SIZE = 64 * 1024
# Deliveries are made up when less than LOW_WATER is unsent, until it is more than HIGH_WATER.
LOW_WATER = 128 * 1024
HIGH_WATER = 256 * 1024
# Publishes whose number does not fill a batch are confirmed after so many idle seconds.
IDLE = 0.001
# Deliveries that differ, where variety is asked for.
VARIETY = 10_000

# Of AMQP 0-9, as aioamqp sends it and RabbitMQ takes it for 0-9-1.
OLDER_HEADER = b"AMQP\x01\x01\x00\x09"
_unpack_head = Struct(">BHI").unpack_from
_unpack_ack = Struct(">BHIIQBB").unpack_from
_unpack_size = Struct(">Q").unpack_from
_pack_tag = Struct(">Q").pack
_ACK = 60 << 16 | 80


class Wrong(Exception):
    """The client broke the protocol."""


class Consumer:
    """One basic.consume, and the deliveries made up for it: what stands around each tag."""

    def __init__(self, channel: Channel, tag: str, no_ack: bool, options: Options) -> None:
        self.channel = channel
        self.no_ack = no_ack
        head = method_frame(channel.number, "basic.deliver", tag, 0, False, "", "")
        self._tag_at = 7 + 4 + 1 + len(tag)
        assert head[self._tag_at :].startswith(bytes(8))
        self.deliveries = itertools.cycle(list(self._make(tag, options)))

    def _make(self, tag: str, options: Options) -> list[tuple[bytes, bytes]]:
        chance = random.Random(4)
        made = []
        properties = Properties(
            content_type="text/plain", delivery_mode=1, headers=HEADERS if options.headers else None
        )
        for index in range(VARIETY if options.varied else 1):
            size = chance.randrange(1, 2 * options.body) if options.varied else options.body
            key = f"{index}.{'x' * chance.randrange(40)}" if options.varied else "bench"
            number = self.channel.number
            frames = [
                method_frame(number, "basic.deliver", tag, 0, False, "", key),
                content_header_frame(number, properties.raw, size),
                *body_frames(number, b"m" * size, FRAME_MAX),
            ]
            data = b"".join(frames)
            made.append((data[: self._tag_at], data[self._tag_at + 8 :]))
        return made


class Options(argparse.Namespace):
    """What the broker shall do.

    Attributes:
        body: Bytes of a delivery.
        count: Deliveries in all.
        consumers: How many consumers it waits for before it delivers.
        headers: Whether deliveries have headers.
        varied: Whether routing keys and sizes differ.
        batch: Publishes that one confirm covers.
        certificate: A PEM file with certificate and key, for TLS; "" for none.
    """

    body: int
    count: int
    consumers: int
    headers: int
    varied: int
    batch: int
    certificate: str


class Channel:
    """What is known of one channel."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.prefetch = 0
        self.last_tag = 0
        self.unacked: set[int] = set()
        self.confirming = False
        self.published = self.confirmed = 0
        self.is_publishing = False  # between basic.publish and the last byte of its body
        self.size = 0  # bytes of the body
        self.left = -1  # of these still to come; -1 before the header


class Client:
    """One connection, from the protocol header to the end."""

    def __init__(self, connection: socket.socket, options: Options) -> None:
        self.socket = connection
        self.options = options
        self.channels: dict[int, Channel] = {}
        self.consumers: list[Consumer] = []
        self.unsent = bytearray()
        self.input = b""
        self.is_closing = False
        self.published = self.published_bytes = self.delivered = self.acked = 0
        # The last publish, and whose it was: the next one probably looks the same.
        self.usual = b""
        self.usual_channel: Channel | None = None
        self.usual_size = 0
        self.began = time.process_time()

    def serve(self) -> None:
        """Serve the client until one side ends it."""
        self.expect_header()
        self.socket.setblocking(False)
        while not self.is_closing or self.unsent:
            self.deliver()
            idle = IDLE if self.owes_confirms() else None
            writing = [self.socket] if self.unsent else []
            if self.has_pending():
                idle = 0.0
            readable, writable, _ = select.select([self.socket], writing, [], idle)
            if readable or self.has_pending():
                try:
                    data = self.socket.recv(RECV_SIZE)
                except ssl.SSLWantReadError:
                    continue
                if not data:
                    return
                self.receive(data)
            self.confirm(at_least=1 if not readable and not writable else self.options.batch)
            if self.unsent:
                self.send()

    def has_pending(self) -> bool:
        """Whether TLS holds bytes that no select() tells of."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def send(self) -> None:
        try:
            # A TLS socket wants the same bytes again after a refusal, and takes a record at a time.
            sent = self.socket.send(memoryview(self.unsent)[:RECV_SIZE])
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        del self.unsent[:sent]

    def expect_header(self) -> None:
        header = self.socket.recv(len(PROTOCOL_HEADER))
        if header not in (PROTOCOL_HEADER, OLDER_HEADER):
            raise Wrong(f"protocol header {header!r}")
        names = ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked")
        told = {"product": "sink", "capabilities": dict.fromkeys(names, True)}
        self.say(0, "connection.start", 0, 9, told, "PLAIN", "en_US")

    def say(self, channel: int, method: str, *values: object) -> None:
        self.unsent += method_frame(channel, method, *values)

    # What comes in

    def receive(self, data: bytes) -> None:
        data = self.input + data if self.input else data
        at, end = 0, len(data)
        begun: tuple[int, Channel] | None = None  # a publish that began in this data
        while end - at >= 8:
            if self.usual and data.startswith(self.usual, at):
                at += len(self.usual)
                self.count(self.usual_channel, self.usual_size)
                continue
            kind, number, size = _unpack_head(data, at)
            stop = at + size + 8
            if size + 8 > FRAME_MAX:
                raise Wrong(f"a frame of {size} bytes")
            if stop > end:
                break
            if data[stop - 1] != 0xCE:
                raise Wrong("a frame without its end")
            channel = self.channels.get(number)
            if kind == 1 and size == 13 and _unpack_ack(data, at)[3] == _ACK:
                self.take_ack(channel, *_unpack_ack(data, at)[4:6])
            elif kind == 1:
                if self.take_method(number, data[at + 7 : stop - 1]) and channel is not None:
                    begun = (at, channel)
            elif kind in (2, 3):
                done = self.take_content(channel, kind, data, at + 7, size)
                if done and begun is not None and begun[1] is channel:
                    self.usual, self.usual_channel = data[begun[0] : stop], channel
                    self.usual_size = channel.size
            at = stop
        self.input = data[at:]

    def take_content(
        self, channel: Channel | None, kind: int, data: bytes, at: int, size: int
    ) -> bool:
        """A header or body frame; whether it completed a publish."""
        if channel is None or not channel.is_publishing or (kind == 2) is not (channel.left < 0):
            raise Wrong("content that nothing announced")
        if kind == 2:
            channel.size = channel.left = _unpack_size(data, at + 4)[0]
        else:
            channel.left -= size
        if channel.left:
            return False
        self.count(channel, channel.size)
        channel.left = -1
        channel.is_publishing = False
        return True

    def count(self, channel: Channel | None, size: int) -> None:
        assert channel is not None
        channel.published += 1
        self.published += 1
        self.published_bytes += size

    def take_ack(self, channel: Channel | None, tag: int, multiple: int) -> None:
        if channel is None:
            raise Wrong("an ack on no channel")
        unacked = channel.unacked
        covered = [tag] if not multiple else [t for t in unacked if t <= (tag or channel.last_tag)]
        for each in covered:
            if each not in unacked:
                raise Wrong(f"an ack of tag {each}")
            unacked.remove(each)
        self.acked += len(covered)

    def take_method(self, number: int, payload: bytes) -> bool:
        """Answer a method; whether it was a publish."""
        method = BY_KEY[int.from_bytes(payload[:4], "big")]
        if method.name == "basic.publish":
            self.channels[number].is_publishing = True
            return True
        arguments = decode_arguments(method, payload)
        given = dict(zip((name for name, _ in method.arguments), arguments, strict=True))
        self.note(number, method.name, given)
        if method.replies and not given.get("no_wait"):
            reply = BY_NAME[method.replies[0]]
            known = {
                "message_count": self.published,
                "consumer_count": 0,
                "channel_max": 2047,
                "frame_max": FRAME_MAX,
                "heartbeat": 60,
                **given,
            }
            self.say(number, reply.name, *(known[name] for name, _ in reply.arguments))
        return False

    def note(self, number: int, method: str, given: dict[str, object]) -> None:
        """What a method changes here."""
        if method == "connection.start-ok":
            self.say(0, "connection.tune", 2047, FRAME_MAX, 60)
        elif method == "connection.close":
            self.is_closing = True
        elif method == "channel.open":
            self.channels[number] = Channel(number)
        elif method == "confirm.select":
            self.channels[number].confirming = True
        elif method == "basic.qos":
            self.channels[number].prefetch = int(str(given["prefetch_count"]))
        elif method == "basic.consume":
            given["consumer_tag"] = tag = str(given["consumer_tag"] or f"sink-{number}")
            channel, no_ack = self.channels[number], bool(given["no_ack"])
            self.consumers.append(Consumer(channel, tag, no_ack, self.options))
            self.began = time.process_time()  # making up deliveries is no part of sending them

    # What goes out

    def owes_confirms(self) -> bool:
        return any(c.confirming and c.published > c.confirmed for c in self.channels.values())

    def confirm(self, at_least: int) -> None:
        for channel in self.channels.values():
            if not channel.confirming:
                continue
            while (waiting := channel.published - channel.confirmed) >= at_least:
                count = min(waiting, self.options.batch)
                channel.confirmed += count
                self.say(channel.number, "basic.ack", channel.confirmed, count > 1)

    def deliver(self) -> None:
        if len(self.consumers) < self.options.consumers or len(self.unsent) > LOW_WATER:
            return
        unsent = self.unsent
        held = 0
        for consumer in itertools.cycle(self.consumers):
            if self.delivered == self.options.count or held == len(self.consumers):
                break
            channel = consumer.channel
            if not consumer.no_ack and len(channel.unacked) >= (channel.prefetch or 65535):
                held += 1
                continue
            held = 0
            channel.last_tag += 1
            if not consumer.no_ack:
                channel.unacked.add(channel.last_tag)
            head, rest = next(consumer.deliveries)
            # Joined first, a big body would be copied twice.
            unsent += head
            unsent += _pack_tag(channel.last_tag)
            unsent += rest
            self.delivered += 1
            if len(unsent) > HIGH_WATER:
                break

    def seen(self) -> dict[str, float]:
        unacked = sum(len(channel.unacked) for channel in self.channels.values())
        names = ("published", "published_bytes", "delivered", "acked")
        cpu = time.process_time() - self.began
        return {"cpu": cpu, "unacked": unacked, **{name: getattr(self, name) for name in names}}


def parse_options() -> Options:
    parser = argparse.ArgumentParser(description="A broker that keeps nothing.")
    for name, default in (("body", 100), ("count", 0), ("consumers", 1), ("batch", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("headers", "varied"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--certificate", default="")
    return parser.parse_args(namespace=Options())


def main() -> None:
    options = parse_options()
    context = None
    if options.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"PORT {listener.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            client = Client(connection, options)
            told: dict[str, object] = {}
            with connection:
                try:
                    client.serve()
                except (Wrong, OSError) as error:
                    told["error"] = str(error)
            print(json.dumps({**client.seen(), **told}), flush=True)


if __name__ == "__main__":
    main()
