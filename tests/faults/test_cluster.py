"""A cluster that loses the leader of a quorum queue loses no message."""

from __future__ import annotations

import pytest

import evamqp
from rabbitmq_cluster import cluster, leader
from tests.faults.playing import play
from tests.support.loops import Loop
from traffic import Traffic, wait_until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.cluster]

MESSAGES = 20_000
# Few at a time, so that messages are under way when the leader dies.
BURST = 20
QUEUE = "votes"
HEARTBEAT = 2


def test_nothing_is_lost_when_the_leader_of_a_quorum_queue_is_killed(loop: Loop) -> None:
    with cluster() as nodes:
        targets = [evamqp.Parameters.from_url(node.url, heartbeat=HEARTBEAT) for node in nodes]
        traffic = Traffic(
            loop.adapter, targets, targets, queue=QUEUE, total=MESSAGES, kind="quorum"
        )
        traffic.burst = BURST

        def hurt() -> None:
            wait_until(lambda: traffic.confirmed, "messages are confirmed")
            killed = leader(nodes, QUEUE)
            assert not traffic.is_done
            killed.kill()
            confirmed = traffic.confirmed
            wait_until(lambda: traffic.confirmed > confirmed, "another node leads")
            killed.start()

        account = play(loop, traffic, hurt)
        # A message that was nacked meanwhile is sent again behind later ones.
        assert (account.lost, account.invented, account.wrong) == (0, 0, 0), account
        assert account.duplicates <= account.allowed, account
