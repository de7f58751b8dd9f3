"""The embedded broker: RabbitMQ's behaviour for tests and demos.

What it holds, who may come, where it listens.  What happens on a connection is elsewhere.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from evamqp.abc import Adapter, Handle, ListenHandle, LoopCallback, Stream
from evamqp.codec.properties import Properties
from evamqp.errors import WrongState
from evamqp.testing.broker.channel import ServerChannel
from evamqp.testing.broker.connection import ServerConnection
from evamqp.testing.broker.faults import Faults
from evamqp.testing.broker.inspection import (
    BindingInfo,
    ConnectionInfo,
    ConsumerInfo,
    ExchangeInfo,
    Published,
    QueueInfo,
)
from evamqp.testing.broker.loops import BackgroundLoop, Loop, OwnLoop, on_loop
from evamqp.testing.broker.message import Message
from evamqp.testing.broker.publications import Publications
from evamqp.testing.broker.queue import Queue
from evamqp.testing.broker.refusal import Refusal
from evamqp.testing.broker.release import Release, release_of
from evamqp.testing.broker.user import Permissions, User
from evamqp.testing.broker.virtual_host import VirtualHost
from evamqp.testing.broker.wire import Accepted, Wire
from evamqp.types import Body

if TYPE_CHECKING:
    from evamqp.adapters.select import SelectAdapter
    from evamqp.testing.broker.base_channel import BaseServerChannel

#: Publishes that ``published`` remembers.
PUBLISHES_KEPT = 10_000
#: The release of RabbitMQ that a broker imitates by default.
RELEASE = "3.10"
# Seconds between two looks of wait_until().
_GLANCE = 0.002


class ListeningAdapter(Adapter, Protocol):
    """A loop that can accept connections: memory, select, asyncio, Tornado."""

    def listen(self, host: str, port: int, factory: Callable[[], Stream]) -> ListenHandle: ...


class Broker:
    """An AMQP 0-9-1 broker in this process.

    In virtual time, on your own thread::

        adapter = MemoryAdapter()
        broker = Broker(adapter)
        broker.listen()
        connection = evamqp.connect(broker.url, adapter=adapter)

    On a TCP port, in a thread of its own, for any AMQP client::

        with Broker().serve() as broker:
            connection = evamqp.connect(broker.url)

    A user ``guest`` with the password ``guest`` and the virtual host ``/`` exist.

    Args:
        adapter: The loop; None makes a built-in one for serve().
        heartbeat: Seconds that the broker proposes; 0 turns heartbeats off.
        publishes_kept: How many of the last publishes ``published`` shows, 64 MiB of them at the
            most; 0 keeps none.
        release: The release of RabbitMQ whose behaviour it imitates: "3.8", "3.10", "4.0", "4.3".

    Raises:
        BadArgument: Another release.

    Attributes:
        faults: What can go wrong; see ``Faults``.
    """

    def __init__(
        self,
        adapter: ListeningAdapter | None = None,
        *,
        heartbeat: int = 60,
        publishes_kept: int = PUBLISHES_KEPT,
        release: str = RELEASE,
    ) -> None:
        self.release: Release = release_of(release)
        self._own_adapter: SelectAdapter | None = None
        if adapter is None:
            from evamqp.adapters.select import SelectAdapter

            adapter = self._own_adapter = SelectAdapter()
        self.adapter = adapter
        self.time: Callable[[], float] = adapter.time
        self.loop: Loop = OwnLoop()
        self._background: BackgroundLoop | None = None
        self.heartbeat = heartbeat
        # The same names in the same order every time, so that a test can be repeated.
        self.names: random.Random = random.Random(0)
        self.users: dict[str, User] = {}
        self.virtual_hosts: dict[str, VirtualHost] = {}
        self.wires: dict[int, Wire] = {}
        self.alarm: str | None = None
        self.faults: Faults = Faults(self)
        self._published = Publications(publishes_kept)
        self._addresses: list[tuple[str, int]] = []
        self._listeners: list[ListenHandle] = []
        self._timers: set[_Timer] = set()
        self._connections = 0
        self._vhosts_made = 0
        self.add_vhost("/")
        self.add_user("guest", "guest")

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Where it listens

    @property
    def port(self) -> int:
        """The first port that it listens at.

        Raises:
            WrongState: It listens nowhere.
        """
        return self._address[1]

    @property
    def url(self) -> str:
        """How ``guest`` reaches the virtual host ``/``."""
        return self.url_of("/")

    def url_of(self, vhost: str, user: str = "guest") -> str:
        """How a user reaches a virtual host."""
        host, port = self._address
        name, password = quote(user, safe=""), quote(self.users[user].password, safe="")
        return f"amqp://{name}:{password}@{host}:{port}/{quote(vhost, safe='')}"

    @property
    def _address(self) -> tuple[str, int]:
        if not self._addresses:
            raise WrongState("the broker listens nowhere; call listen() or serve()")
        return self._addresses[0]

    @on_loop
    def listen(self, host: str = "localhost", port: int = 5672) -> int:
        """Accept connections on the loop that you drive.

        Args:
            host: A name, or an IP address; on the memory adapter any name will do.
            port: 0 picks a free one.

        Returns:
            The port.

        Raises:
            OSError: The address cannot be bound.
        """
        listener = self.adapter.listen(host, port, self._accept)
        self._addresses.append((host, listener.port))
        self._listeners.append(listener)
        return listener.port

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Broker:
        """listen(), and run the loop in a thread of its own until close().

        From then on every method may be called from every thread.  A broker that listens already
        is only given its thread, unless a port is named.

        Raises:
            OSError: The address cannot be bound.
            WrongState: The loop has a virtual clock, which somebody has to move.
        """
        if hasattr(self.adapter, "advance"):
            raise WrongState("virtual time does not pass by itself: call listen(), not serve()")
        if port or not self._addresses:
            self.listen(host, port)
        if self._background is None:
            self.loop = self._background = BackgroundLoop(self.adapter)
        return self

    def close(self) -> None:
        """Drop every connection, listen no more, end the thread.  Idempotent."""
        background, self._background = self._background, None
        self._shut()
        if background is not None:
            background.call(lambda: None)  # behind what the end of the connections has left to do
            self.loop = OwnLoop()
            background.stop()
        if self._own_adapter is not None:
            self._own_adapter.close()

    @on_loop
    def _shut(self) -> None:
        self.stop_listening()
        self._addresses.clear()
        for wire in list(self.wires.values()):
            wire.connection.abort()
            wire.reset()
        for host in self.virtual_hosts.values():
            host.end()
        for timer in list(self._timers):
            timer.cancel()

    # Who may come

    @on_loop
    def add_vhost(self, name: str) -> None:
        """Make a virtual host that ``guest`` may use.  One that exists stays as it is."""
        if name not in self.virtual_hosts:
            self._vhosts_made += 1
            self.virtual_hosts[name] = VirtualHost(name, self, self.names, self.release)
            if "guest" in self.users:
                self.users["guest"].permissions[name] = Permissions()

    def count_vhosts(self) -> int:
        """How many virtual hosts were ever made, deleted ones included."""
        return self._vhosts_made

    @on_loop
    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host; its connections are closed with 320."""
        host = self.virtual_hosts.pop(name)
        for wire in list(self.wires.values()):
            if wire.connection.vhost is host:
                wire.connection.refuse(Refusal(320, f"vhost '{name}' is deleted"))
        host.end()
        for user in self.users.values():
            user.permissions.pop(name, None)

    @on_loop
    def add_user(self, name: str, password: str, *vhosts: str) -> None:
        """Make a user who may do everything in these virtual hosts; none given means in all."""
        names = vhosts or tuple(self.virtual_hosts)
        self.users[name] = User(name, password, {vhost: Permissions() for vhost in names})

    @on_loop
    def set_permissions(
        self, user: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Say by regular expressions what a user may do; channels opened from now on obey."""
        self.users[user].permissions[vhost] = Permissions(configure, write, read)

    @on_loop
    def delete_user(self, name: str) -> None:
        """Delete a user; connections that are open stay."""
        del self.users[name]

    @on_loop
    def repair(self) -> None:
        """Undo what ``faults`` did that lasts: listen and read again, hold back no confirms."""
        self.faults.repair()
        self.start_listening()

    # What a test may do and look at

    @on_loop
    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        properties: Properties | None = None,
        *,
        vhost: str = "/",
    ) -> int:
        """Publish without a client; how many queues took the message."""
        host = self.virtual_hosts[vhost]
        raw = b"\0\0" if properties is None else properties.raw
        message = Message(exchange, routing_key, raw, bytes(body), self.release)
        return sum(queue.publish(message) for queue in host.route(host.exchange(exchange), message))

    @property
    @on_loop
    def published(self) -> list[Published]:
        """Every publish that clients made: the last 10,000 unless said otherwise, in 64 MiB."""
        return self._published.all()

    @on_loop
    def forget_published(self) -> None:
        """Begin ``published`` anew."""
        self._published.clear()

    @on_loop
    def queues(self, vhost: str = "/") -> dict[str, QueueInfo]:
        """All queues of a virtual host, by name."""
        return {name: _state_of(queue) for name, queue in self.virtual_hosts[vhost].queues.items()}

    @on_loop
    def queue(self, name: str, vhost: str = "/") -> QueueInfo:
        """One queue; KeyError if it does not exist."""
        return _state_of(self.virtual_hosts[vhost].queues[name])

    @on_loop
    def exchanges(self, vhost: str = "/") -> dict[str, ExchangeInfo]:
        """All exchanges of a virtual host, the predeclared ones included, by name."""
        return {
            each.name: ExchangeInfo(
                each.name, each.type, each.durable, each.auto_delete, each.internal, each.arguments
            )
            for each in self.virtual_hosts[vhost].exchanges.values()
        }

    @on_loop
    def bindings(self, vhost: str = "/") -> list[BindingInfo]:
        """All bindings of a virtual host but those of the default exchange."""
        return [
            BindingInfo(exchange.name, *binding.destination, binding.routing_key, binding.arguments)
            for exchange, binding in self.virtual_hosts[vhost].bindings()
        ]

    @on_loop
    def consumers(self, vhost: str = "/") -> list[ConsumerInfo]:
        """All consumers in a virtual host."""
        return [
            state
            for wire in self.wires.values()
            if wire.connection.vhost is self.virtual_hosts[vhost]
            for channel in wire.connection.channels.values()
            for state in channel.consumer_states()
        ]

    @on_loop
    def connections(self) -> list[ConnectionInfo]:
        """All connections, in the order in which they came."""
        return [wire.connection.snapshot() for wire in self.wires.values()]

    def wait_until(self, condition: Callable[[Broker], object], seconds: float = 10.0) -> None:
        """Wait in real time until a condition holds, for a broker that serves in its thread.

        Raises:
            TimeoutError: It did not hold within the time.
        """
        deadline = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the condition did not hold within {seconds:g} s")
            time.sleep(_GLANCE)

    # For connections and faults

    def call_later(self, delay: float, callback: LoopCallback) -> Handle:
        """A timer that ends with the broker."""
        timer = _Timer(self._timers, callback)
        timer.handle = self.adapter.call_later(delay, timer.run)
        return timer

    @property
    def holds_confirms(self) -> bool:
        return self.faults.holds_confirms

    @property
    def ignores_prefetch(self) -> bool:
        return self.faults.ignores_prefetch

    def publish_fault(self, message: Message) -> str | None:
        return self.faults.publish_fault()

    def open_channel(self, channel: ServerChannel) -> None:
        self.faults.open_channel(channel)

    def confirm_later(self, channel: BaseServerChannel) -> None:
        self.faults.confirm_later(channel)

    def record(
        self, channel: BaseServerChannel, message: Message, mandatory: bool, queues: tuple[str, ...]
    ) -> None:
        if not self._published.are_kept:
            return
        connection = channel.connection
        assert connection.vhost is not None
        self._published.add(
            Published(
                connection.vhost.name,
                message.exchange,
                message.routing_key,
                message.body,
                message.properties,
                mandatory,
                queues,
                connection.number,
                channel.number,
            )
        )

    def forget(self, connection: ServerConnection) -> None:
        self.wires.pop(connection.number, None)

    def stop_listening(self) -> None:
        for listener in self._listeners:
            listener.cancel()
        self._listeners.clear()

    def start_listening(self) -> None:
        if not self._listeners:
            self._listeners = [
                self.adapter.listen(host, port, self._accept) for host, port in self._addresses
            ]

    def _accept(self) -> Wire:
        self._connections += 1
        number = self._connections
        driver = Accepted(self.adapter)
        connection = ServerConnection(self, number, driver)
        driver.drive(connection)
        wire = self.wires[number] = Wire(connection, driver, self.adapter.call_soon)
        self.faults.admit(wire)
        return wire


class _Timer:
    """A timer that the broker knows of, until it fires or is cancelled."""

    __slots__ = ("_all", "_callback", "handle")

    handle: Handle

    def __init__(self, all: set[_Timer], callback: LoopCallback) -> None:
        self._all = all
        self._callback = callback
        all.add(self)

    def cancel(self) -> None:
        self._all.discard(self)
        self.handle.cancel()

    def run(self) -> None:
        self._all.discard(self)
        self._callback()


def _state_of(queue: Queue) -> QueueInfo:
    return QueueInfo(
        name=queue.name,
        ready=len(queue.ready),
        unacked=len(queue.unacked),
        consumers=queue.consumer_count,
        durable=queue.durable,
        exclusive=queue.owner is not None,
        auto_delete=queue.auto_delete,
        arguments=queue.arguments,
        bodies=tuple(entry.message.body for entry in queue.ready),
    )
