"""An entity over which the broker closes the whole connection fails alone, and once."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from evamqp import Outcome, Topology, TopologyFailed
from evamqp.codec.frames import method_frame
from evamqp.recovery.state import State
from tests.recovery.stage import HOUR, Stage
from tests.support.scripted_broker import Channel, Wire

DEPRECATED = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated."


class Fatal:
    """Makes a broker close the connection over queues of some names."""

    def __init__(self, code: int, text: str, blamed: str | None) -> None:
        self.names: set[str] = set()
        self._close = (code, text, blamed)

    def declare(self, wire: Wire, channel: Channel, name: str, *flags: Any) -> bytes:
        if name not in self.names:
            return method_frame(channel.number, "queue.declare-ok", name, 0, 0)
        wire.close(*self._close)
        return b""


@pytest.fixture(params=["blames the declare", "names a deprecated feature", "command invalid"])
def fatal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fatal:
    how = {
        "blames the declare": (541, DEPRECATED, "queue.declare"),
        "names a deprecated feature": (541, DEPRECATED, None),
        "command invalid": (503, "COMMAND_INVALID - unknown type", "queue.declare"),
    }
    fatal = Fatal(*how[request.param])
    monkeypatch.setattr(
        Wire, "_queue_declare", lambda *arguments: fatal.declare(*arguments), raising=True
    )
    return fatal


def topology_of(*names: str, **options: Any) -> Topology:
    topology = Topology()
    for name in names:
        topology.queue(name, **options)
    return topology


def test_others_on_the_connection_are_served_and_the_broker_is_left_alone(
    stage: Stage, fatal: Fatal
) -> None:
    fatal.names = {"bad", "worse"}
    stage.server.on_publish = lambda publish: publish.ack()
    reconnector = stage.reconnector()
    held = stage.publisher(reconnector, topology=topology_of("a", "bad", "b", "worse", "c"))
    free = stage.publisher(reconnector, topology=topology_of("d"))
    waits = held.publish("", "a", b"waits")
    goes = free.publish("", "d", b"goes")
    stage.advance(HOUR)
    assert goes.outcome is Outcome.CONFIRMED
    assert waits.outcome is None
    assert len(stage.server.wires) == 3
    assert [entity.name for entity, _ in stage.told("on_topology_error")] == ["bad", "worse"]


def test_it_is_tried_again_on_a_connection_that_follows_another_loss(
    stage: Stage, fatal: Fatal
) -> None:
    fatal.names = {"bad"}
    stage.server.on_publish = lambda publish: publish.ack()
    reconnector = stage.reconnector()
    held = stage.publisher(reconnector, topology=topology_of("bad"))
    publication = held.publish("", "bad", b"waits")
    stage.advance(HOUR)
    assert publication.outcome is None
    fatal.names = set()
    stage.wire.cut()
    stage.advance(HOUR)
    assert publication.outcome is Outcome.CONFIRMED


def test_one_that_is_declared_otherwise_is_tried_at_once(stage: Stage, fatal: Fatal) -> None:
    fatal.names = {"bad"}
    stage.server.on_publish = lambda publish: publish.ack()
    reconnector = stage.reconnector()
    stage.publisher(reconnector, topology=topology_of("bad", durable=False))
    stage.advance(HOUR)
    fatal.names = set()
    other = stage.publisher(reconnector, topology=topology_of("bad", durable=True))
    publication = other.publish("", "bad", b"goes")
    stage.turn()
    assert publication.outcome is Outcome.CONFIRMED


def test_skip_goes_on_without_it(stage: Stage, fatal: Fatal) -> None:
    fatal.names = {"bad"}
    stage.server.on_publish = lambda publish: publish.ack()
    publisher = stage.publisher(topology=topology_of("bad", policy="skip"))
    publication = publisher.publish("", "work", b"goes")
    stage.advance(HOUR)
    assert publication.outcome is Outcome.CONFIRMED
    assert len(stage.server.wires) == 2
    assert len(stage.told("on_topology_error")) == 1


def test_fail_ends_the_reconnector(
    stage: Stage, fatal: Fatal, caplog: pytest.LogCaptureFixture
) -> None:
    fatal.names = {"bad"}
    reconnector = stage.reconnector(topology=topology_of("bad", policy="fail"))
    reason = stage.ended(reconnector.wait_closed())
    assert isinstance(reason, TopologyFailed)
    assert reconnector.state is State.CLOSED
    stage.advance(HOUR)
    assert len(stage.server.wires) == 1
    assert [r for r in caplog.records if r.levelno == logging.ERROR and "bad" in r.getMessage()]


def test_a_declaration_beside_served_members_is_judged_on_a_connection_of_its_own(
    stage: Stage, fatal: Fatal
) -> None:
    fatal.names = {"bad"}
    reconnector = stage.reconnector()
    stage.turn()
    assert reconnector.is_ready
    stage.publisher(reconnector, topology=topology_of("bad"))
    stage.advance(HOUR)
    assert reconnector.is_ready
    assert len(stage.server.wires) == 3
    assert [entity.name for entity, _ in stage.told("on_topology_error")] == ["bad"]


def test_queues_are_durable_by_default() -> None:
    topology = Topology()
    topology.queue("q")
    [queue] = topology
    assert queue.durable  # type: ignore[union-attr]
