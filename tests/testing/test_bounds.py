"""What the broker holds is bounded: publishes to be looked at, and output that nobody reads."""

from __future__ import annotations

import pytest

from evamqp.codec.properties import Properties
from evamqp.testing.broker.connection import OUTPUT_MAX
from evamqp.testing.broker.inspection import Published
from evamqp.testing.broker.publications import Publications
from evamqp.testing.fixtures import MemoryBroker
from tests.testing.world import World

BIG = bytes(100_000)


@pytest.fixture
def world(amqp_memory: MemoryBroker) -> World:
    return World(amqp_memory)


def published(body: bytes) -> Published:
    return Published("/", "", "q", body, Properties(), False, (), 1, 1)


def kept(publications: Publications) -> list[bytes]:
    return [each.body for each in publications.all()]


def test_publishes_are_kept_up_to_a_number() -> None:
    publications = Publications(2)
    for number in range(4):
        publications.add(published(b"%d" % number))
    assert kept(publications) == [b"2", b"3"]


def test_publishes_are_kept_up_to_a_size_and_the_last_at_any() -> None:
    publications = Publications(100, bytes_max=30)
    for body in (b"a" * 10, b"b" * 10, b"c" * 10):
        publications.add(published(body))
    assert kept(publications) == [b"b" * 10, b"c" * 10]  # the properties take two bytes each
    publications.add(published(b"d" * 1000))
    assert kept(publications) == [b"d" * 1000]
    publications.clear()
    publications.add(published(b"e" * 28))
    publications.add(published(b""))
    assert kept(publications) == [b""]


@pytest.mark.parametrize("kind", ["get", "return"])
def test_peer_that_reads_no_answers_is_not_read(world: World, kind: str) -> None:
    recorder, channel = world.open()
    for _ in range(200):
        world.broker.publish("", "q", BIG)
    channel.connection.pause_reading()
    answers: list[object] = []
    for _ in range(200):
        if kind == "get":
            channel.basic_get("q", auto_ack=True, callback=answers.append)
        else:
            channel.basic_publish("", "nowhere", BIG, mandatory=True)
        world.settle()
    (wire,) = world.broker.wires.values()
    assert wire.connection.output_size < OUTPUT_MAX + 2 * len(BIG)
    reading = [wire.connection.reading]
    channel.connection.resume_reading()
    world.settle()
    assert len(answers) + recorder.names().count("return") == 200
    assert [*reading, wire.connection.reading] == [False, True]
    assert recorder.reason is None
