"""How the broker ends connections: what becomes of what they held, and when their sockets go."""

from __future__ import annotations

import pytest

from evamqp.abc import Endpoint
from evamqp.adapters.memory import Peer
from evamqp.codec.frames import PROTOCOL_HEADER, method_frame
from evamqp.testing.fixtures import MemoryBroker
from tests.testing.world import World

START_OK = method_frame(0, "connection.start-ok", {}, "PLAIN", b"\0guest\0guest", "en_US")
OPEN = b"".join(
    (
        PROTOCOL_HEADER,
        START_OK,
        method_frame(0, "connection.tune-ok", 2047, 131072, 0),
        method_frame(0, "connection.open", "/"),
    )
)
#: Seconds that the broker waits for the client to hang up, or to answer.
WAIT = 30.0


@pytest.fixture
def world(amqp_memory: MemoryBroker) -> World:
    return World(amqp_memory)


@pytest.fixture
def peer(world: World) -> Peer:
    """A connection that is open, in bytes."""
    peer = Peer()
    world.adapter.connect(Endpoint("localhost", world.broker.port), peer)
    world.settle()
    peer.transport.write(OPEN)
    world.settle()
    return peer


def connected_at(world: World, peer: Peer, *seconds: float) -> list[bool]:
    """Whether a socket is still there after each of these waits."""
    there = []
    for wait in seconds:
        world.adapter.advance(wait)
        there.append(peer.is_connected)
    return there


@pytest.mark.parametrize("reset", [False, True])
def test_what_a_lost_connection_held_goes_to_none_of_its_own_consumers(
    world: World, reset: bool
) -> None:
    recorder, channel = world.open()
    channel.basic_publish("", "q", b"held")
    channel.basic_consume("q", recorder.on_message)
    world.settle()
    assert recorder.bodies == [b"held"]
    greedy = channel.connection.channel()
    greedy.basic_consume("q", recorder.on_message, auto_ack=True)
    world.settle()
    world.broker.faults.drop_connections(reset=reset)
    world.settle()
    assert world.broker.queue("q").bodies == (b"held",)


def test_what_a_closed_connection_held_goes_to_other_connections(world: World) -> None:
    first, channel = world.open()
    channel.basic_publish("", "q", b"held")
    channel.basic_consume("q", first.on_message)
    world.settle()
    second, other = world.open()
    other.basic_consume("q", second.on_message, auto_ack=True)
    channel.connection.close()
    world.settle()
    assert second.bodies == [b"held"]


def test_socket_goes_some_time_after_close_ok(world: World, peer: Peer) -> None:
    peer.transport.write(method_frame(0, "connection.close", 200, "bye", 0, 0))
    world.settle()
    assert peer.received.endswith(method_frame(0, "connection.close-ok"))
    assert connected_at(world, peer, WAIT - 0.1, 0.2) == [True, False]
    assert world.broker.connections() == []


def test_socket_goes_when_close_is_answered_or_never_is(world: World, peer: Peer) -> None:
    world.broker.faults.close_connections()
    assert connected_at(world, peer, WAIT - 0.1, 0.2) == [True, False]


def test_nothing_is_read_after_close_ok(world: World, peer: Peer) -> None:
    peer.transport.write(method_frame(0, "connection.close", 200, "bye", 0, 0))
    world.settle()
    answered = bytes(peer.received)
    peer.transport.write(method_frame(1, "channel.open") + b"nonsense")
    world.settle()
    assert bytes(peer.received) == answered
