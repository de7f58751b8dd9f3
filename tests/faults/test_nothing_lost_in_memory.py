"""Publisher and Consumer in virtual time: whichever byte is the last, no message is lost."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest

import evamqp
from chaos_proxy import DIRECTIONS, ENDS, Cut, Direction
from evamqp.adapters.memory import MemoryAdapter
from tests.faults.conftest import ALL, CUTS, SEED
from tests.support.cut_wire import CutWire
from tests.support.scripted_broker import HOST, Channel, Publish, ScriptedBroker

QUEUE = "q"
MESSAGES = 4
# Virtual seconds until all is over, heartbeats and backoff included.
LONG_ENOUGH = 400.0
PORTS = {"publisher": 5672, "consumer": 5673}
# Without ``make faults`` every so manieth byte is tried.
STRIDE = 1 if ALL else 5


class World:
    """One queue, one publisher, one consumer; one of their connections is cut.

    Args:
        who: Whose first connection.
        cut: Where; None leaves it whole.
    """

    def __init__(self, who: str, cut: Cut | None) -> None:
        self._adapter = MemoryAdapter()
        self._broker = ScriptedBroker(self._take)
        self._broker.heartbeat = 60
        self._is_leaderless = False
        self._nacking: set[Channel] = set()
        self.wires: dict[str, list[CutWire]] = {}
        for name, port in PORTS.items():
            cuts = iter([cut] if name == who else [])
            self._listen(name, port, cuts)
        self.outcomes: list[tuple[bytes, evamqp.Outcome | None]] = []
        self.consumed: list[bytes] = []
        topology = evamqp.Topology()
        topology.queue(QUEUE, durable=True)
        self._publisher = evamqp.Publisher(
            self._target("publisher"), adapter=self._adapter, topology=topology
        )
        self._consumer = evamqp.Consumer(
            self._target("consumer"),
            QUEUE,
            lambda message: self.consumed.append(message.body),
            adapter=self._adapter,
            topology=topology,
            prefetch=2,
        )

    def _target(self, name: str) -> evamqp.Parameters:
        return evamqp.Parameters(HOST, PORTS[name])

    def _listen(self, name: str, port: int, cuts: Iterator[Cut | None]) -> None:
        wires: list[CutWire] = []
        self.wires[name] = wires

        def accept() -> CutWire:
            wires.append(CutWire(self._broker.accept(), next(cuts, None)))
            return wires[-1]

        self._adapter.listen(HOST, port, accept)

    def run(self) -> None:
        """Publish, half of it when all is connected, and let everything end that has begun."""
        for number in range(MESSAGES):
            self._adapter.call_later(60.0 * (number % 2), partial(self._publish, number))
        self._adapter.advance(LONG_ENOUGH)
        self._publisher.close()
        self._consumer.close()
        self._adapter.advance(LONG_ENOUGH)

    def lose_leader(self, seconds: float) -> None:
        """For these seconds the queue has no leader."""
        self._is_leaderless = True
        self._adapter.call_later(seconds, self._elect)

    def _elect(self) -> None:
        self._is_leaderless = False

    def _take(self, publish: Publish) -> None:
        """Nack without a leader, and every later publish on that channel, as RabbitMQ 3.10 does."""
        if self._is_leaderless:
            self._nacking.add(publish.channel)
        if publish.channel in self._nacking:
            publish.nack()
        else:
            publish.route()

    def _publish(self, number: int) -> None:
        self._publisher.publish(
            "",
            QUEUE,
            b"%d" % number,
            callback=lambda publication: self.outcomes.append(
                (publication.body, publication.outcome)
            ),
        )

    def check(self) -> None:
        """Each message has one outcome, has come, and came in order the first time."""
        order = [b"0", b"2", b"1", b"3"]  # as they were published
        confirmed = [(body, evamqp.Outcome.CONFIRMED) for body in order]
        assert self.outcomes == confirmed
        assert list(dict.fromkeys(self.consumed)) == order
        assert not self._broker.queues[QUEUE].ready
        assert self._publisher.reconnector.state.value == "CLOSED"
        assert self._consumer.reconnector.state.value == "CLOSED"


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("who", PORTS)
def test_nothing_is_lost_whichever_byte_is_the_last_of_a_connection(
    who: str, direction: Direction
) -> None:
    whole = World(who, None)
    whole.run()
    whole.check()
    length = whole.wires[who][0].passed[DIRECTIONS.index(direction)]
    turns = count(SEED)
    for after in range(length):
        for end in ENDS:
            if next(turns) % STRIDE == 0:
                world = World(who, Cut(direction, after, end))
                world.run()
                CUTS["in memory"] += 1
                try:
                    world.check()
                except AssertionError as error:
                    raise AssertionError(f"{who}: {direction} {after} {end}") from error


def test_a_channel_that_nacks_for_ever_is_replaced() -> None:
    world = World("publisher", None)
    world.lose_leader(0.3)
    world.run()
    world.check()
