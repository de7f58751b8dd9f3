"""What the scenarios stand on: clients that note every callback, on every loop, plain and TLS.

No scenario lives here.  At the end of each, every client is held against the laws of callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TypeVar

import pytest

import evamqp
from evamqp.core.request import Request
from evamqp.types import Tags
from rabbitmq_node import RabbitNode, Vhost, VhostPool
from tests.behaviour.versions import answer_of, parse_version
from tests.conftest import Certificates
from tests.support.loops import SOCKET_LOOPS, TIMEOUT, Condition, Loop, opened

#: What scenarios call their queues and exchanges; others are exclusive, and go by themselves.
QUEUES = ("q", "dead")
EXCHANGES = ("e", "source", "destination")

T = TypeVar("T")
Target = evamqp.Parameters | str | list[str | evamqp.Parameters]


class Client(evamqp.Handler):
    """A connection's handler that notes each callback in ``calls``: its name, and what came."""

    connection: evamqp.Connection

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.confirmed: list[int] = []
        self.nacked: list[int] = []
        self.returned: list[evamqp.Returned] = []
        self.channel_reasons: dict[evamqp.Channel, evamqp.ChannelClosed] = {}
        self.reason: evamqp.ConnectionClosed | None = None

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def count(self, name: str) -> int:
        return self.names().count(name)

    def on_open(self, connection: evamqp.Connection) -> None:
        self.calls.append(("on_open", connection))

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self.reason = error
        self.calls.append(("on_open_error", error))

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.reason = reason
        self.calls.append(("on_close", reason))

    def on_blocked(self, connection: evamqp.Connection, reason: str) -> None:
        self.calls.append(("on_blocked", reason))

    def on_unblocked(self, connection: evamqp.Connection) -> None:
        self.calls.append(("on_unblocked", connection))

    def on_writable(self, connection: evamqp.Connection, writable: bool) -> None:
        self.calls.append(("on_writable", writable))

    def on_channel_open(self, channel: evamqp.Channel) -> None:
        self.calls.append(("on_channel_open", channel))

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        assert channel not in self.channel_reasons
        self.channel_reasons[channel] = reason
        self.calls.append(("on_channel_close", channel))

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        (self.confirmed if acked else self.nacked).extend(tags)
        self.calls.append(("on_delivery_confirmation", channel))

    def on_return(self, channel: evamqp.Channel, returned: evamqp.Returned) -> None:
        self.returned.append(returned)
        self.calls.append(("on_return", channel))

    def on_consumer_cancel(self, channel: evamqp.Channel, consumer_tag: str) -> None:
        self.calls.append(("on_consumer_cancel", consumer_tag))

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.calls.append(("on_callback_error", error))

    @property
    def is_over(self) -> bool:
        return self.reason is not None

    def check_laws(self) -> None:
        """What holds for every connection that has ended."""
        names = self.names()
        assert "on_callback_error" not in names, self.calls
        assert names.count("on_open") + names.count("on_open_error") == 1
        assert names[-1] == ("on_close" if "on_open" in names else "on_open_error")
        assert names.count("on_close") == names.count("on_open")
        ended: set[object] = set()
        for name, value in self.calls:
            assert value not in ended or not isinstance(value, evamqp.Channel), name
            if name == "on_channel_close":
                ended.add(value)
        outcomes = self.confirmed + self.nacked
        channels = len({channel for name, channel in self.calls if "confirmation" in name})
        assert channels > 1 or len(outcomes) == len(set(outcomes)), "confirmed twice"


class Rig:
    """Clients of one virtual host on one loop.

    Args:
        tls: Whether clients come to the TLS port.
    """

    def __init__(self, loop: Loop, vhost: Vhost, certificates: Certificates, *, tls: bool) -> None:
        self.loop = loop
        self.vhost = vhost
        self.node: RabbitNode = vhost.node
        self.certificates = certificates
        self.tls = tls
        self._clients: list[Client] = []

    def answer(self, answers: Mapping[str, T]) -> T:
        """What this broker answers where releases differ; keys are the first to answer so."""
        return answer_of(parse_version(self.node.version()), answers)

    def parameters(self, **changes: object) -> evamqp.Parameters:
        """How to reach the broker."""
        url = self.vhost.tls_url if self.tls else self.vhost.url
        if self.tls:
            changes.setdefault("cacertfile", str(self.certificates.authority))
        return evamqp.Parameters.from_url(url, **changes)

    def connect(self, target: Target | None = None, **changes: object) -> Client:
        """Begin to connect."""
        client = Client()
        target = self.parameters(**changes) if target is None else target
        client.connection = evamqp.connect(target, client, adapter=self.loop.adapter)
        self._clients.append(client)
        return client

    def open(self, **changes: object) -> Client:
        """Connect, and wait until it is open."""
        client = self.connect(None, **changes)
        self.wait(client.connection.wait_open())
        return client

    def refused(self, target: Target | None = None, **changes: object) -> evamqp.ConnectionClosed:
        """Try to connect; return why it failed."""
        client = self.connect(target, **changes)
        self.until(lambda: client.is_over)
        assert client.names() == ["on_open_error"]
        assert client.reason is not None
        return client.reason

    def channel(self) -> evamqp.Channel:
        """An open channel of a client of its own."""
        channel = self.open().connection.channel()
        self.until(lambda: channel.is_open)
        return channel

    def client_of(self, channel: evamqp.Channel) -> Client:
        return next(each for each in self._clients if each.connection is channel.connection)

    def until(self, done: Condition, seconds: float = TIMEOUT) -> None:
        self.loop.until(done, seconds)

    def wait(self, request: Request[T]) -> T:
        return self.loop.wait(request)

    def closed(self, channel: evamqp.Channel) -> evamqp.ChannelClosed:
        """Wait for the end of a channel; return why."""
        reason = self.wait(channel.wait_closed())
        assert not channel.is_open
        return reason

    def count(self, channel: evamqp.Channel, queue: str) -> int:
        """Messages that stand ready in a queue."""
        return self.wait(channel.queue_declare(queue, passive=True)).message_count

    def until_count(self, channel: evamqp.Channel, queue: str, count: int) -> None:
        """Wait until so many messages stand ready; a count overtakes messages in the broker."""
        deadline = time.monotonic() + TIMEOUT
        while (ready := self.count(channel, queue)) != count:
            assert time.monotonic() < deadline, f"{ready} messages in {queue}, not {count}"

    def get(self, channel: evamqp.Channel, queue: str) -> evamqp.Message:
        """The next message of a queue, which must hold one."""
        message = self.wait(channel.basic_get(queue))
        assert message is not None
        return message

    def sweep(self) -> None:
        """Remove what an earlier scenario left in the virtual host."""
        channel = self.open().connection.channel()
        for queue in QUEUES:
            channel.queue_delete(queue, nowait=True)
        for exchange in EXCHANGES:
            channel.exchange_delete(exchange)
        self.wait(channel.connection.close())

    def finish(self) -> None:
        """End every client, and hold what it was told against the laws."""
        for client in self._clients:
            client.connection.close()
        self.until(lambda: all(client.is_over for client in self._clients))
        for client in self._clients:
            client.check_laws()
        assert not self.loop.errors


class OnEveryLoop:
    """Scenarios that run on every loop, plain and TLS: inherit, and take ``rig``."""

    @pytest.fixture(scope="class", params=SOCKET_LOOPS)
    @classmethod
    def loop(cls, request: pytest.FixtureRequest) -> Iterator[Loop]:
        with opened(request.param) as loop:
            yield loop

    @pytest.fixture(params=["plain", "tls"])
    def encryption(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def rig(
        self, loop: Loop, vhost: Vhost, certificates: Certificates, encryption: str
    ) -> Iterator[Rig]:
        loop.errors.clear()
        rig = Rig(loop, vhost, certificates, tls=encryption == "tls")
        rig.sweep()
        yield rig
        rig.finish()


class SharingVhost:
    """One virtual host for all scenarios of a class: making one takes longer than most of them."""

    @pytest.fixture(scope="class")
    @classmethod
    def vhost(cls, rabbit: RabbitNode, vhost_pool: VhostPool) -> Iterator[Vhost]:
        rabbit.repair()
        vhost = vhost_pool.take()
        yield vhost
        vhost_pool.give_back(vhost)


class OnEveryLoopPlain(OnEveryLoop):
    """Scenarios to which encryption makes no difference, or that bring their own."""

    @pytest.fixture
    def encryption(self) -> str:
        return "plain"


class OnTwoLoops(OnEveryLoopPlain):
    """Scenarios that cost seconds: the two loops that have nothing in common."""

    @pytest.fixture(scope="class", params=["select", "asyncio"])
    @classmethod
    def loop(cls, request: pytest.FixtureRequest) -> Iterator[Loop]:
        with opened(request.param) as loop:
            yield loop


class OnOneLoop(OnEveryLoopPlain):
    """Scenarios in which nothing differs between loops."""

    @pytest.fixture(scope="class")
    @classmethod
    def loop(cls) -> Iterator[Loop]:
        with opened("select") as loop:
            yield loop
