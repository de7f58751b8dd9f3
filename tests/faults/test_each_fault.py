"""Each fault alone, and many by chance, under traffic: all comes back, and no message is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from broker_faults import WEIGHTS, Fault, Recovery, schedule, stage
from rabbitmq_node import RabbitNode
from tests.faults.conftest import ADAPTERS, ALL, SEED, TIMES
from tests.faults.playing import play
from tests.support.loops import opened

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

VHOST = "faults"
FAULTS = {fault.__name__: fault for fault in WEIGHTS}
MESSAGES = 2000
# Of the soak, which is longer by ``make soak``.
SOAK_MESSAGES, SOAK_FAULTS = (100_000, 60) if ALL else (8_000, 8)


def pairs() -> Iterator[tuple[str, str]]:
    """Faults with adapters: all of them, or each fault with the adapter whose turn it is."""
    for number, name in enumerate(FAULTS):
        for turn, adapter in enumerate(ADAPTERS):
            if ALL or (number + SEED) % len(ADAPTERS) == turn:
                yield name, adapter


@pytest.fixture(scope="module")
def node(rabbit: RabbitNode) -> Iterator[RabbitNode]:
    rabbit.repair()
    rabbit.add_vhost(VHOST)
    yield rabbit
    rabbit.repair()
    rabbit.delete_vhost(VHOST)


def check(adapter: str, node: RabbitNode, faults: Sequence[Fault], messages: int) -> None:
    """Carry the faults out while so many messages pass."""
    node.repair()
    try:
        with (
            opened(adapter) as loop,
            stage(node, VHOST, loop.adapter, total=messages, seed=SEED) as set_stage,
        ):
            recovery = Recovery(set_stage, list(faults))
            account = play(loop, set_stage.traffic, recovery.run)
            TIMES.extend(seconds for seconds, _ in recovery.times)
        assert account.is_clean, account
    finally:
        node.repair()


@pytest.mark.parametrize(("name", "adapter"), list(pairs()))
def test_nothing_is_lost_by(name: str, adapter: str, node: RabbitNode) -> None:
    check(adapter, node, [FAULTS[name]], MESSAGES)


def test_nothing_is_lost_in_a_soak(node: RabbitNode) -> None:
    check("select", node, schedule(SOAK_FAULTS, random.Random(SEED)), SOAK_MESSAGES)
