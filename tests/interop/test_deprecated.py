"""A topology with a queue of a kind that RabbitMQ 4 may refuse, and for which it hangs up."""

from __future__ import annotations

import evamqp
from evamqp import Outcome
from evamqp.recovery.topology import Entity
from tests.interop.rig import OnTwoLoops, Rig, SharingVhost


class TestDeprecatedQueues(SharingVhost, OnTwoLoops):
    def test_a_refused_kind_of_queue_fails_alone(self, rig: Rig) -> None:
        """RabbitMQ 4.3 does without transient queues that are not exclusive."""
        topology = evamqp.Topology("skip")
        topology.queue("dead", durable=False)
        topology.queue("q")
        failed: list[tuple[Entity, evamqp.ChannelClosed]] = []
        publisher = evamqp.Publisher(
            rig.parameters(),
            adapter=rig.loop.adapter,
            topology=topology,
            on_topology_error=lambda entity, reason: failed.append((entity, reason)),
        )
        publications = [publisher.publish("", queue, b"x") for queue in ("q", "dead")]
        rig.until(lambda: all(publication.is_done for publication in publications))
        is_refused = rig.answer({"3.8": False, "4.3": True})
        outcomes = [publication.outcome for publication in publications]
        assert outcomes == [Outcome.CONFIRMED, Outcome.RETURNED if is_refused else outcomes[0]]
        assert [(entity.key, reason.code) for entity, reason in failed] == (
            [(("queue", "dead"), 541)] if is_refused else []
        )
        assert publisher.reconnector.epoch == (2 if is_refused else 1)
        assert rig.wait(publisher.close()) == []
