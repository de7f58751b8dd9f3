"""Members of one Reconnector that disagree about an entity: each gets the policy it asked for."""

from __future__ import annotations

import pytest

import evamqp
from evamqp import Outcome, Topology
from evamqp.recovery.topology import Policy
from evamqp.testing.fixtures import MemoryBroker


def topology(policy: Policy) -> Topology:
    """A durable queue, and a binding that cannot be declared."""
    topology = Topology(policy)
    topology.queue("q", durable=True)
    topology.bind("q", "missing", "key")
    return topology


@pytest.mark.parametrize("policies", [("skip", "retry"), ("retry", "skip")])
def test_member_that_skips_is_not_held_by_one_that_retries(
    amqp_memory: MemoryBroker, policies: tuple[Policy, Policy]
) -> None:
    adapter = amqp_memory.adapter
    reconnector = evamqp.Reconnector(amqp_memory.url, adapter=adapter)
    members = {
        policy: evamqp.Publisher(reconnector, topology=topology(policy)) for policy in policies
    }
    publications = {
        policy: member.publish("", "q", policy.encode()) for policy, member in members.items()
    }
    adapter.advance(60.0)
    outcomes = {policy: each.outcome for policy, each in publications.items()}
    assert outcomes == {"skip": Outcome.CONFIRMED, "retry": None}
    connection = evamqp.connect(amqp_memory.url, adapter=adapter)
    adapter.run_until(connection.wait_open())
    adapter.run_until(connection.channel().exchange_declare("missing", durable=True))
    adapter.advance(60.0)
    assert publications["retry"].outcome is Outcome.CONFIRMED
    assert len(amqp_memory.broker.bindings()) == 1


@pytest.mark.parametrize("policies", [("skip", "fail"), ("fail", "skip"), ("fail", "retry")])
def test_failing_policy_of_one_member_ends_the_reconnector(
    amqp_memory: MemoryBroker, policies: tuple[Policy, Policy]
) -> None:
    adapter = amqp_memory.adapter
    reconnector = evamqp.Reconnector(amqp_memory.url, adapter=adapter)
    for policy in policies:
        evamqp.Publisher(reconnector, topology=topology(policy))
    adapter.advance(60.0)
    assert isinstance(adapter.run_until(reconnector.wait_closed()), evamqp.TopologyFailed)


def test_stricter_policy_counts_where_topologies_are_merged() -> None:
    merged = Topology()
    policies: tuple[Policy, ...] = ("skip", "retry", "skip")
    for policy in policies:
        merged.merge(topology(policy))
    assert {entity.policy for entity in merged} == {"retry"}
