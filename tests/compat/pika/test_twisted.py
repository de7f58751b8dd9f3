"""The Twisted adapter: which Deferred gets what, on a reactor of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

import evamqp.compat.pika as pika
from evamqp.compat.pika.adapters.twisted_connection import (
    ClosableDeferredQueue,
    ReceivedMessage,
    TwistedProtocolConnection,
)
from evamqp.testing import Broker
from tests.support.loops import TwistedLoop, opened

exceptions = pika.exceptions


@pytest.fixture
def loop() -> Iterator[TwistedLoop]:
    with opened("twisted") as loop:
        assert isinstance(loop, TwistedLoop)
        yield loop


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker().serve() as broker:
        yield broker


class Rig:
    """A connection of the facade, and a way to wait for its Deferreds."""

    def __init__(self, loop: TwistedLoop, broker: Broker, **named: Any) -> None:
        self.loop = loop
        self.reactor: Any = loop.reactor
        self.protocol: Any = TwistedProtocolConnection(
            pika.ConnectionParameters("127.0.0.1", broker.port, **named), self.reactor
        )
        self.connect(broker)

    def connect(self, broker: Broker) -> None:
        endpoint: Any = TCP4ClientEndpoint(self.reactor, "127.0.0.1", broker.port)
        connect: Any = connectProtocol
        self.wait(connect(endpoint, self.protocol))

    def open(self) -> Any:
        """The connection ready, and a channel with the queue ``q``."""
        assert self.wait(self.protocol.ready) is self.protocol
        channel = self.wait(self.protocol.channel())
        self.wait(channel.queue_declare("q"))
        return channel

    def wait(self, deferred: Any) -> Any:
        outcomes: list[Any] = []
        deferred.addBoth(outcomes.append)
        self.loop.until(lambda: outcomes)
        return self.loop._value(outcomes[0])

    def close(self) -> None:
        self.wait(self.protocol.close())


@pytest.fixture
def rig(loop: TwistedLoop, broker: Broker) -> Rig:
    return Rig(loop, broker)


def test_a_returned_and_a_refused_message_fail_their_own_deferreds(
    rig: Rig, broker: Broker
) -> None:
    channel = rig.open()
    returned: list[ReceivedMessage] = []
    channel.add_on_return_callback(returned.append)
    rig.wait(channel.confirm_delivery())
    good = [channel.basic_publish("", "q", b"%d" % n, mandatory=True) for n in range(3)]
    lost = [channel.basic_publish("", key, b"same", mandatory=True) for key in ("x", "y", "x")]
    more = [channel.basic_publish("", "q", b"%d" % n) for n in range(3)]
    for deferred in good + more:
        assert isinstance(rig.wait(deferred), pika.spec.Basic.Ack)
    for deferred, key in zip(lost, ("x", "y", "x"), strict=True):
        with pytest.raises(exceptions.UnroutableError) as caught:
            rig.wait(deferred)
        (message,) = caught.value.messages
        assert (message.method.routing_key, message.body) == (key, b"same")
    assert [message.method.routing_key for message in returned] == ["x", "y", "x"]
    broker.faults.nack_next()
    with pytest.raises(exceptions.NackError):
        rig.wait(channel.basic_publish("", "q", b"refused"))
    rig.close()


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (lambda faults: faults.close_connections(320, "enough"),
         (exceptions.ConnectionClosedByBroker, error.ConnectionDone)),
        (lambda faults: faults.drop_connections(),
         (exceptions.StreamLostError, error.ConnectionLost)),
    ],
    ids=["closed", "lost"],
)  # fmt: skip
def test_the_end_fails_everything_that_waits_as_pika_and_as_twisted(
    rig: Rig, broker: Broker, fault: Callable[[Any], object], kinds: tuple[type, ...]
) -> None:
    channel = rig.open()
    queue, _ = rig.wait(channel.basic_consume("q"))
    waiting = queue.get()
    closed, on_closed = rig.protocol.closed, channel.on_closed
    broker.faults.hold_confirms()
    rig.wait(channel.confirm_delivery())
    published = channel.basic_publish("", "nowhere", b"")
    fault(broker.faults)
    for reason in (rig.wait(closed), rig.wait(on_closed)):
        assert all(isinstance(reason, kind) for kind in kinds)
    for deferred in (waiting, published, queue.get(), channel.queue_declare("q")):
        with pytest.raises(kinds):
            rig.wait(deferred)
    assert rig.protocol.is_closed
    with pytest.raises(exceptions.ConnectionWrongStateError):
        rig.protocol.channel()


def test_a_closed_channel_answers_every_request_with_its_reason(rig: Rig) -> None:
    channel = rig.open()
    missing = channel.queue_declare("missing", passive=True)
    pending = channel.basic_get("q")
    for deferred in (missing, pending):
        with pytest.raises(exceptions.ChannelClosedByBroker) as caught:
            rig.wait(deferred)
        assert caught.value.reply_code == 404
    with pytest.raises(exceptions.ChannelClosedByBroker):
        rig.wait(channel.basic_publish("", "q", b""))
    with pytest.raises(exceptions.ChannelWrongStateError):
        channel.basic_ack(1)
    rig.close()


def test_consumers_keywords_of_both_eras_and_a_cancel(rig: Rig) -> None:
    channel = rig.open()
    for named in ({"auto_ack": True}, {"no_ack": True}):
        queue, tag = rig.wait(channel.basic_consume(queue="q", **named))
        rig.wait(channel.basic_publish("", "q", "text"))
        got, method, properties, body = rig.wait(queue.get())
        assert (got, body, method.consumer_tag) == (channel, b"text", tag)
        assert repr(properties) == "<BasicProperties>"
        waiting = queue.get()
        assert rig.wait(channel.basic_cancel(tag)).method.consumer_tag == tag
        with pytest.raises(exceptions.ConsumerCancelled):
            rig.wait(waiting)
    with pytest.raises(TypeError, match="bogus"):
        rig.wait(channel.basic_consume("q", bogus=1))
    rig.close()


def test_a_refused_login_fails_ready(loop: TwistedLoop, broker: Broker) -> None:
    rig = Rig(loop, broker, credentials=pika.PlainCredentials("guest", "wrong"))
    with pytest.raises(exceptions.ProbableAuthenticationError, match="403"):
        rig.wait(rig.protocol.ready)
    assert (rig.protocol.ready, rig.protocol.closed) == (None, None)


def test_connection_ready_may_be_overridden(loop: TwistedLoop, broker: Broker) -> None:
    class Own(TwistedProtocolConnection):
        def connectionReady(self) -> Any:
            return self.channel().addCallback(lambda channel: (self, channel))

    made: Any = Own(pika.ConnectionParameters("127.0.0.1", broker.port), loop.reactor)
    rig = Rig.__new__(Rig)
    rig.loop, rig.reactor, rig.protocol = loop, loop.reactor, made
    rig.connect(broker)
    same, channel = rig.wait(made.ready)
    assert same is made
    assert channel.is_open
    rig.close()


def test_a_closed_queue_gives_its_reason() -> None:
    queue = ClosableDeferredQueue()
    failures: list[Any] = []
    queue.get().addErrback(lambda failure: failures.append(failure.value))
    reason = LookupError("over")
    queue.close(reason)
    for deferred in (queue.get(), queue.put(1)):
        assert isinstance(deferred, defer.Deferred)
        deferred.addErrback(lambda failure: failures.append(failure.value))
    assert failures == [reason] * 3
