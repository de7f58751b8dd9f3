"""The broker's side of one connection: bytes and time in, bytes and a deadline out.

No socket and no loop; a Driver moves its bytes.  What happens on a channel is ``channel``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from evamqp.codec.frames import (
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    frame,
)
from evamqp.codec.methods import encode_method
from evamqp.codec.spec import BY_KEY, BY_NAME
from evamqp.core.heartbeat import Heartbeat
from evamqp.core.output import FLUSH_AT
from evamqp.core.state import TransportAction
from evamqp.testing.broker.base_channel import BaseServerChannel
from evamqp.testing.broker.channel import ServerChannel
from evamqp.testing.broker.context import BrokerContext
from evamqp.testing.broker.frames import FrameReader, octets, read_arguments
from evamqp.testing.broker.inspection import ConnectionInfo
from evamqp.testing.broker.refusal import HangUp, Refusal
from evamqp.testing.broker.release import Release
from evamqp.testing.broker.state import METHODS, State
from evamqp.testing.broker.user import MECHANISMS, User, credentials_of
from evamqp.types import Table

if TYPE_CHECKING:
    from evamqp.core.callbacks import Runtime
    from evamqp.parameters import Parameters
    from evamqp.testing.broker.virtual_host import VirtualHost

log: logging.Logger = logging.getLogger(__name__)

# Seconds for the handshake, as in RabbitMQ.
TIMEOUT = 10.0
# Seconds for a close to be answered, and for the client to hang up after close-ok, as in RabbitMQ.
CLOSING_PATIENCE = 30.0
# Bytes of output that wait for a peer that does not read; then consumers here get nothing more.
CONGESTED_AT = 1024 * 1024
# Bytes of output at which the peer is read no more until it has read: answers have no other bound.
OUTPUT_MAX = 4 * 1024 * 1024
# Deliveries that a fault may send once more, and the bytes of the largest of them.
DELIVERIES_KEPT = 32
DELIVERY_KEPT_MAX = 64 * 1024
# The key of basic.deliver, behind the seven bytes of a frame's head.
_DELIVER = BY_NAME["basic.deliver"].key.to_bytes(4, "big")
PROTOCOL_HEADER_SIZE = len(PROTOCOL_HEADER)
# As RabbitMQ takes it from clients of old: the same protocol, announced in another way.
OLD_HEADER = b"AMQP\1\1\0\x09"
HEADERS_0_8 = (b"AMQP\1\1\x08\0", b"AMQP\1\1\x09\1")
# connection.close and close-ok have other numbers there.
TO_0_8 = {b"\0\x0a\0\x32": b"\0\x0a\0\x3c", b"\0\x0a\0\x33": b"\0\x0a\0\x3d"}
FROM_0_8 = {new: old for old, new in TO_0_8.items()}
CHANNEL_MAX = 2047
FRAME_MAX = 131_072
# Its capabilities; clients of AMQP 0-8 get none.
CAPABILITIES: Table = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}


class ServerConnection:
    """One client's connection.

    Args:
        broker: The broker.
        number: Its number, for whoever looks at the broker.
        runtime: A clock, and what is called when there is output.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_buffered",
        "_channel_max",
        "_confirming",
        "_congested",
        "_deadline",
        "_deliveries",
        "_heartbeat",
        "_is_swamped",
        "_late",
        "_next_tick",
        "_reader",
        "_runtime",
        "_transport_action",
        "blocked",
        "broker",
        "capabilities",
        "channels",
        "client_properties",
        "frame_max",
        "is_stalled",
        "number",
        "reads",
        "speaks_0_8",
        "state",
        "user",
        "vhost",
    )  # fmt: skip

    def __init__(self, broker: BrokerContext, number: int, runtime: Runtime) -> None:
        self.broker: BrokerContext = broker
        self.number: int = number
        self._runtime = runtime
        self._reader = FrameReader()
        self.reads: int = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._congested = False
        self._is_swamped = False
        self._confirming: list[BaseServerChannel] = []
        self._late: deque[tuple[int, int, bytes]] = deque()  # see take_late()
        self._deliveries: deque[bytes] = deque(maxlen=DELIVERIES_KEPT)
        self._transport_action = TransportAction.KEEP
        self._deadline: float | None = None
        self._heartbeat: Heartbeat | None = None
        self._next_tick = 0.0
        self.state: State = State.GREETING
        self.speaks_0_8: bool = False
        self.frame_max: int = FRAME_MAX
        self._channel_max = CHANNEL_MAX
        self.channels: dict[int, ServerChannel] = {}
        self.client_properties: Table = {}
        self.capabilities: Table = {}
        self.blocked: bool = False
        self.is_stalled: bool = False
        self.user: User | None = None
        self.vhost: VirtualHost | None = None

    # Core: called by the driver

    @property
    def transport_action(self) -> TransportAction:
        return self._transport_action

    @property
    def reading(self) -> bool:
        return not (self.blocked or self.is_stalled or self._is_swamped)

    @property
    def output_size(self) -> int:
        return 0 if self.is_stalled else self._buffered

    def connection_made(self, parameters: Parameters) -> None:
        self._deadline = self._runtime.time() + TIMEOUT

    def receive_data(self, data: bytes) -> None:
        if self._heartbeat is not None:
            self._heartbeat.received = True
        self.reads += 1
        self._reader.feed(data)
        self._parse()

    def set_writable(self, writable: bool) -> None:
        """Nothing here waits for that: deliveries stop by what is buffered."""

    def stalled(self, seconds: float, in_callback: bool) -> None:
        """Do nothing: to a client this is a slow broker."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end()
        self.broker.forget(self)

    def pieces_to_send(self) -> list[bytes | memoryview]:
        if self.is_stalled or not self._buffer:
            return []
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        if self._heartbeat is not None:
            self._heartbeat.sent = True
        return [data]

    def next_deadline(self) -> float | None:
        deadlines = [] if self._deadline is None else [self._deadline]
        if self._heartbeat is not None:
            deadlines.append(self._next_tick)
        if (self._congested or self._is_swamped) and not self._buffered:
            deadlines.append(self._runtime.time())
        return min(deadlines, default=None)

    def handle_timer(self) -> None:
        now = self._runtime.time()
        if self._deadline is not None and now >= self._deadline:
            self.abort()
            return
        if self._heartbeat is not None and now >= self._next_tick:
            self._tick(self._heartbeat, now)
        if self._is_swamped and not self._buffered:
            self._is_swamped = False
            self.resume()
        if self._congested and not self._buffered:
            self._congested = False
            self._serve_consumers()

    def _tick(self, heartbeat: Heartbeat, now: float) -> None:
        self._next_tick = now + heartbeat.period
        if self.is_stalled:
            return
        if heartbeat.tick(reading=self.reading):
            self.write(HEARTBEAT_FRAME)
        if heartbeat.is_dead:
            self.abort()

    # Output

    def write(self, data: bytes) -> None:
        """Send whole frames."""
        self._buffer.append(data)
        self._buffered += len(data)
        if len(self._buffer) == 1 or self._buffered > FLUSH_AT:
            self._runtime.output_ready(0 if self.is_stalled else self._buffered)
            self._is_swamped |= self._buffered > OUTPUT_MAX

    def write_delivery(self, frames: bytes) -> None:
        """Send a content; what is a delivery is kept for replay()."""
        if len(frames) <= DELIVERY_KEPT_MAX and frames.startswith(_DELIVER, FRAME_OVERHEAD - 1):
            self._deliveries.append(frames)
        self.write(frames)

    def send(self, channel: int, name: str, *values: object) -> None:
        """Send a method."""
        payload = encode_method(name, *values)
        if self.speaks_0_8:
            payload = TO_0_8.get(payload[:4], payload[:4]) + payload[4:]
        self.write(frame(FRAME_METHOD, channel, payload))

    @property
    def is_congested(self) -> bool:
        """Whether the peer reads so slowly that it gets no more deliveries for now."""
        if self._buffered < CONGESTED_AT:
            return False
        self._congested = True
        return True

    def can(self, capability: str) -> bool:
        """Whether the client announced a capability."""
        return self.capabilities.get(capability) is True

    # Ending

    def refuse(self, refusal: Refusal) -> None:
        """Close the connection with a code; one that is ending already stays as it is."""
        if self.state in (State.CLOSING, State.CLOSED):
            return
        self._end_channels()
        blamed = refusal.method or (0, 0)
        text = refusal.reply_text(latin_1=self.broker.release.shows_latin_1)
        self.send(0, "connection.close", refusal.code, text, *blamed)
        self.state = State.CLOSING
        self.blocked = False
        self._deadline = self._runtime.time() + CLOSING_PATIENCE

    def abort(self) -> None:
        """Hang up without a word."""
        self._transport_action = TransportAction.ABORT
        self._buffer.clear()
        self._buffered = 0
        self._end()
        self._runtime.output_ready()

    def hang_up(self) -> None:
        """Send what waits, then hang up without a word of AMQP."""
        self._transport_action = TransportAction.CLOSE
        self._end()
        self._deadline = self._runtime.time() + TIMEOUT
        self._runtime.output_ready()

    def replay(self, count: int) -> None:
        """Send the last deliveries once more."""
        for frames in list(self._deliveries)[-count:]:
            self.write(frames)

    def _end(self) -> None:
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._end_channels()
        self._deadline = self._heartbeat = None
        self._congested = self._is_swamped = self.blocked = False

    def _end_channels(self) -> None:
        channels = list(self.channels.values())
        self.channels.clear()
        self._confirming.clear()
        # First all of them stop, so that what one gives back no other one here is sent.
        for channel in channels:
            channel.stop()
        for channel in channels:
            channel.end()
        if self.vhost is not None:
            self.vhost.release_exclusive(self)

    # Input

    def resume(self) -> None:
        """Go on after a stall or a block."""
        self._parse()
        self._runtime.output_ready()

    def _parse(self) -> None:
        while self._parse_some():
            pass
        self.flush_confirms()

    def _parse_some(self) -> bool:
        """Take what came; True if a refusal left more to look at."""
        if not self.reading:
            return False
        try:
            if self.state is State.GREETING and not self._greet():
                return False
            for kind, number, payload in chain(self._late_frames(), self._reader.frames()):
                self._take(kind, number, payload)
                if self.blocked or self.is_stalled or self._is_swamped:
                    break
        except Refusal as refusal:
            if refusal.code == 501:
                self._reader.take(len(self._reader.held))  # where the next frame begins is unknown
            self._refuse_or_hang_up(refusal)
            return True
        except HangUp:
            self.abort()
        except Exception:
            log.exception("the embedded broker failed; it closes the connection with 541")
            self._refuse_or_hang_up(Refusal(541, "the embedded broker failed"))
        return False

    def _late_frames(self) -> Iterator[tuple[int, int, bytes]]:
        while self._late:
            yield self._late.popleft()

    def _refuse_or_hang_up(self, refusal: Refusal) -> None:
        if self.state in (State.STARTING, State.TUNING) and refusal.code != 403:
            self.abort()
        else:
            self.refuse(refusal)

    def _greet(self) -> bool:
        header = self._reader.take(PROTOCOL_HEADER_SIZE)
        if header is None:
            return False
        self.speaks_0_8 = self.broker.release.speaks_0_8 and header in HEADERS_0_8
        if header not in (PROTOCOL_HEADER, OLD_HEADER) and not self.speaks_0_8:
            self.write(
                PROTOCOL_HEADER if header[:7] == PROTOCOL_HEADER[:7] else self.broker.release.header
            )
            self.hang_up()
            return False
        self.state = State.STARTING
        version = (8, 0) if self.speaks_0_8 else (0, 9)
        properties = server_properties(self.broker.release, {} if self.speaks_0_8 else CAPABILITIES)
        self.send(0, "connection.start", *version, properties, MECHANISMS, b"en_US")
        return True

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if self.state is State.CLOSED:
            return
        if number == 0 and kind == FRAME_METHOD:
            self._take_method(payload)
        elif kind == FRAME_HEARTBEAT:
            if number or payload:
                raise Refusal(505, f"type 8, all octets = {octets(payload)}", (0, 0))
        elif self.state is State.OPEN:
            self._take_channel_frame(kind, number, payload)
        elif self.state is not State.CLOSING:
            raise HangUp

    def _take_method(self, payload: bytes) -> None:
        if self.speaks_0_8:
            payload = FROM_0_8.get(payload[:4], payload[:4]) + payload[4:]
        method = BY_KEY.get(int.from_bytes(payload[:4], "big"))
        if method is None:
            raise HangUp
        handler = METHODS[self.state].get(method.name)
        if handler is not None:
            getattr(self, handler)(*read_arguments(method, payload))
        elif self.state is State.OPEN:
            ids = (method.class_id, method.method_id)
            raise Refusal(504, "unexpected method in connection state running", ids)
        elif self.state is not State.CLOSING:
            raise HangUp

    def _take_channel_frame(self, kind: int, number: int, payload: bytes) -> None:
        channel = self.channels.get(number)
        if channel is None:
            channel = self._open_channel(number, kind, payload)
        elif channel.waiting is not None:
            channel.waiting.append((kind, payload))
        elif kind == FRAME_METHOD:
            channel.receive_method(payload)
        elif kind == FRAME_HEADER:
            channel.receive_header(payload)
        else:
            channel.receive_body(payload)

    def _open_channel(self, number: int, kind: int, payload: bytes) -> ServerChannel:
        if kind != FRAME_METHOD or payload[:4] != b"\0\x14\0\x0a":
            ids = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
            raise Refusal(504, "expected 'channel.open'", ids if kind == FRAME_METHOD else (0, 0))
        assert self.vhost is not None
        assert self.user is not None
        if len(self.channels) >= self._channel_max:
            raise Refusal(
                530,
                f"number of channels opened ({len(self.channels)}) has reached the negotiated"
                f" channel_max ({self._channel_max})",
                (0, 0),
            )
        channel = ServerChannel(self, number, self.vhost, self.user)
        self.channels[number] = channel
        self.broker.open_channel(channel)
        return channel

    # Methods of channel 0

    def _recv_start_ok(
        self, properties: Table, mechanism: str, response: bytes, locale: str
    ) -> None:
        self.client_properties = properties
        capabilities = properties.get("capabilities")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        found = credentials_of(mechanism, response)
        if found is None:
            raise HangUp
        name, password = found
        user = self.broker.users.get(name)
        if user is None or user.password != password:
            if not self.can("authentication_failure_close"):
                raise HangUp
            raise Refusal(
                403,
                f"Login was refused using authentication mechanism {mechanism}."
                " For details see the broker logfile.",
                (0, 0),
            )
        self.user = user
        self.state = State.TUNING
        self.send(0, "connection.tune", CHANNEL_MAX, FRAME_MAX, self.broker.heartbeat)

    def _recv_tune_ok(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        frame_min = self.broker.release.frame_min
        if not frame_min <= frame_max <= FRAME_MAX or not 0 < channel_max <= CHANNEL_MAX:
            raise HangUp
        self.frame_max = self._reader.frame_max = frame_max
        self._channel_max = channel_max
        if heartbeat:
            self._heartbeat = Heartbeat(heartbeat)
            self._next_tick = self._runtime.time() + self._heartbeat.period
        self.state = State.OPENING

    def _recv_open(self, name: str) -> None:
        assert self.user is not None
        vhost = self.broker.virtual_hosts.get(name)
        if vhost is None:
            raise Refusal(530, f"vhost {name} not found", (10, 40))
        if name not in self.user.permissions:
            text = f"access to vhost '{name}' refused for user '{self.user.name}'"
            raise Refusal(530, text, (10, 40))
        self.vhost = vhost
        self.state = State.OPEN
        self._deadline = None
        self.send(0, "connection.open-ok")

    def _recv_update_secret(self, secret: bytes, reason: str) -> None:
        """Passwords do not expire here, nor in RabbitMQ's own user database: nothing to do."""
        self.send(0, "connection.update-secret-ok")

    def _recv_close(self, *_: Any) -> None:
        """The client ends; it hangs up when it has our answer, or we do after a while."""
        self.flush_confirms()
        self._end()
        self.send(0, "connection.close-ok")
        self._deadline = self._runtime.time() + CLOSING_PATIENCE

    def _recv_close_ok(self) -> None:
        self.hang_up()

    # For channels

    def take_late(self, number: int, frames: list[tuple[int, bytes]]) -> None:
        """A channel's open was answered at last: carry out what came behind it."""
        self._late.extend((kind, number, payload) for kind, payload in frames)
        self._parse()

    def remove_channel(self, channel: ServerChannel) -> None:
        """A channel is closed on both sides."""
        self.channels.pop(channel.number, None)

    def owes_confirms(self, channel: BaseServerChannel) -> None:
        """A channel has confirms to send when all that came is taken."""
        self._confirming.append(channel)

    def flush_confirms(self) -> None:
        """Send what channels owe, or leave it to the fault that keeps it back."""
        if not self._confirming:
            return
        channels = self._confirming
        self._confirming = []
        send: Callable[[BaseServerChannel], None] = (
            self.broker.confirm_later
            if self.broker.holds_confirms
            else BaseServerChannel.flush_confirms
        )
        for channel in channels:
            send(channel)

    def block(self) -> None:
        """An alarm: notify the client, and stop reading from it."""
        assert self.broker.alarm is not None
        self.blocked = True
        if self.can("connection.blocked"):
            self.send(0, "connection.blocked", self.broker.alarm)

    def unblock(self) -> None:
        """The alarm is over."""
        if self.blocked:
            self.blocked = False
            if self.can("connection.blocked"):
                self.send(0, "connection.unblocked")
            self.resume()

    def _serve_consumers(self) -> None:
        """The client reads again: hand out what waited for it."""
        for channel in list(self.channels.values()):
            channel.serve_consumers()

    def snapshot(self) -> ConnectionInfo:
        """What a test may look at."""
        name = self.client_properties.get("connection_name")
        return ConnectionInfo(
            number=self.number,
            name=name if isinstance(name, str) else "",
            user="" if self.user is None else self.user.name,
            vhost="" if self.vhost is None else self.vhost.name,
            channels=tuple(self.channels),
            blocked=self.blocked,
            client_properties=self.client_properties,
        )


def server_properties(release: Release, capabilities: Table) -> Table:
    """What connection.start says of the broker: RabbitMQ's words, and one of its own.

    Clients choose by product and version how they behave.
    """
    return {
        "capabilities": capabilities,
        "cluster_name": "evamqp.testing",
        "information": "An embedded broker for tests and demos",
        "platform": "evamqp.testing",
        "product": "RabbitMQ",
        "version": release.version,
    }
