"""Everything that is done to a client's connections and to its broker, each fault by its name.

A fault returns when it is undone: the broker can be reached again.  Messages and their account are
``traffic.py``; the wire's faults are ``chaos_proxy.py``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import evamqp
from chaos_proxy import DIRECTIONS, ENDS, HOST, ChaosProxy
from evamqp.abc import Adapter
from rabbitmq_node import RabbitFailed, RabbitNode, choose_ports
from traffic import BURSTS, Side, Traffic, wait_until

USER = "soak"
PASSWORD = "soaked"
QUEUE = "soak"
# Seconds.  Short, since a frozen broker is told by nothing else.
HEARTBEAT = 1
TIMEOUTS = {"connect_timeout": 3.0, "handshake_timeout": 3.0, "close_timeout": 1.0}


@dataclass
class Stage:
    """One broker, the two proxies in front of it, and the traffic through them."""

    node: RabbitNode
    vhost: str
    traffic: Traffic
    to_publisher: ChaosProxy
    to_consumer: ChaosProxy
    chance: random.Random

    @property
    def proxies(self) -> tuple[ChaosProxy, ChaosProxy]:
        return self.to_publisher, self.to_consumer

    def some(self) -> tuple[ChaosProxy, ...]:
        """The publisher's, the consumer's, or both."""
        return self.chance.choice([self.proxies[:1], self.proxies[1:], self.proxies])

    def lost(self, proxies: tuple[ChaosProxy, ...]) -> Callable[[], bool]:
        """Whether, from now on, the clients of these proxies have lost their connections."""
        sides = self._sides(proxies)
        before = [side.losses for side in sides]
        return lambda: all(side.losses > count for side, count in zip(sides, before, strict=True))

    def connected(self, proxies: tuple[ChaosProxy, ...]) -> Callable[[], bool]:
        """Whether the clients of these proxies have connections."""
        sides = self._sides(proxies)
        return lambda: all(side.is_open for side in sides)

    def _sides(self, proxies: tuple[ChaosProxy, ...]) -> list[Side]:
        sides = zip(self.proxies, (self.traffic.publishing, self.traffic.consuming), strict=True)
        return [side for proxy, side in sides if proxy in proxies]

    def allow(self) -> None:
        """Let the user into the virtual host."""
        self.node.ctl("set_permissions", "-p", self.vhost, USER, ".*", ".*", ".*")


@contextmanager
def stage(
    node: RabbitNode, vhost: str, adapter: Adapter, *, total: int, seed: int
) -> Iterator[Stage]:
    """Set the stage on a node that runs.  The traffic is to be closed by who runs the loop."""
    try:
        node.ctl("add_user", USER, PASSWORD)
    except RabbitFailed:
        node.ctl("change_password", USER, PASSWORD)  # it was here before
    ports = choose_ports(2)
    with (
        ChaosProxy(node.port, ports[0], seed=seed) as first,
        ChaosProxy(node.port, ports[1], seed=seed + 1) as second,
    ):
        targets = [
            evamqp.Parameters(
                HOST,
                port,
                vhost,
                evamqp.Credentials(USER, PASSWORD),
                heartbeat=HEARTBEAT,
                name=name,
            ).replace(**TIMEOUTS)
            for port, name in zip(ports, ("publisher", "consumer"), strict=True)
        ]
        node.ctl("set_permissions", "-p", vhost, USER, ".*", ".*", ".*")
        traffic = Traffic(adapter, *targets, queue=QUEUE, total=total)
        yield Stage(node, vhost, traffic, first, second, random.Random(seed))


# --- the wire ---------------------------------------------------------------------------------


def reset(stage: Stage) -> None:
    for proxy in stage.some():
        proxy.reset()


def finish(stage: Stage) -> None:
    for proxy in stage.some():
        proxy.finish()


def cut(stage: Stage) -> None:
    for proxy in stage.some():
        after = stage.chance.randrange(20_000)
        proxy.cut_all(stage.chance.choice(DIRECTIONS), after, stage.chance.choice(ENDS))


def delay(stage: Stage) -> None:
    for_a_while(stage, delay=stage.chance.uniform(0.01, 0.2))


def throttle(stage: Stage) -> None:
    for_a_while(stage, throttle=stage.chance.randrange(2_000, 50_000))


def chop(stage: Stage) -> None:
    for_a_while(stage, chop=True)


def stall(stage: Stage) -> None:
    for_a_while(stage, stall=True)


def for_a_while(stage: Stage, **faults: float | bool) -> None:
    proxies = stage.some()
    for proxy in proxies:
        proxy.inflict(**faults)
    time.sleep(stage.chance.uniform(0.1, 0.8))
    for proxy in proxies:
        proxy.clear()


def hole(stage: Stage) -> None:
    """Everything is lost, new connections too, until the clients have noticed."""
    proxies = stage.some()
    wait_until(stage.connected(proxies), "the clients are connected")
    lost = stage.lost(proxies)
    for proxy in proxies:
        proxy.inflict(hole=True)
        proxy.swallow()
    wait_until(lost, "the clients notice the black hole")
    time.sleep(stage.chance.uniform(0.0, 0.5))
    for proxy in proxies:
        proxy.clear()


def refuse(stage: Stage) -> None:
    proxies = stage.some()
    for proxy in proxies:
        proxy.inflict(refuse=True)
        proxy.reset()
    time.sleep(stage.chance.uniform(0.1, 1.0))
    for proxy in proxies:
        proxy.clear()


# --- the broker -------------------------------------------------------------------------------


def kill(stage: Stage) -> None:
    stage.node.kill()
    stage.node.start()


def freeze(stage: Stage) -> None:
    """Shorter or longer than the heartbeat bears."""
    stage.node.freeze()
    time.sleep(stage.chance.uniform(0.2, 3.5))
    stage.node.thaw()


def close_all_connections(stage: Stage) -> None:
    stage.node.ctl("close_all_connections", "--vhost", stage.vhost, "closed by the operator")


def stop_app(stage: Stage) -> None:
    stage.node.ctl("stop_app")
    stage.node.ctl("start_app")


def alarm(stage: Stage) -> None:
    publishing = stage.traffic.publishing
    blocks = publishing.blocks
    stage.node.set_memory_alarm(True)
    stage.traffic.limit = stage.traffic.total  # a broker tells the alarm to who publishes
    wait_until(lambda: publishing.blocks > blocks, "the broker blocks the publisher")
    time.sleep(stage.chance.uniform(0.0, 0.5))
    stage.node.set_memory_alarm(False)


def delete_queue(stage: Stage) -> None:
    with quiet(stage.traffic):
        stage.node.ctl("delete_queue", "-p", stage.vhost, QUEUE)


def delete_vhost(stage: Stage) -> None:
    lost = stage.lost(stage.proxies)
    with quiet(stage.traffic):
        stage.node.delete_vhost(stage.vhost)
    wait_until(lost, "the broker closes the connections of the virtual host")
    stage.node.add_vhost(stage.vhost)
    stage.allow()


def change_password(stage: Stage) -> None:
    lost = stage.lost(stage.proxies)
    stage.node.ctl("change_password", USER, "changed")
    close_all_connections(stage)
    wait_until(lost, "the broker closes the connections")
    stage.node.ctl("change_password", USER, PASSWORD)


@contextmanager
def quiet(traffic: Traffic) -> Iterator[None]:
    """What a queue holds is deleted with it, so let it be empty; then publish at once."""
    limit = traffic.limit
    traffic.limit = 0
    wait_until(lambda: traffic.is_quiet, "everything published is consumed")
    yield
    traffic.limit = limit


Fault = Callable[[Stage], None]
#: How often each comes in a soak, relative to the others.  None of them is left out of the tests.
WEIGHTS: dict[Fault, int] = {
    reset: 20, finish: 15, cut: 25, delay: 6, throttle: 6, chop: 6, stall: 6, hole: 4, refuse: 6,
    kill: 3, freeze: 3, close_all_connections: 4, stop_app: 1, alarm: 3, delete_queue: 2,
    delete_vhost: 1, change_password: 1,
}  # fmt: skip


def schedule(count: int, chance: random.Random) -> list[Fault]:
    """So many faults: the share of each by its weight, once at least; the order by chance."""
    rest = max(0, count - len(WEIGHTS))
    weight = sum(WEIGHTS.values())
    faults = [f for f, each in WEIGHTS.items() for _ in range(1 + rest * each // weight)]
    if count > len(faults):
        faults += chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count - len(faults))
    chance.shuffle(faults)
    return faults[:count]


class Recovery:
    """Carries faults out one after the other, in a thread; after each, all must be well again.

    Attributes:
        done: Names of the faults so far.
        times: For each fault that cost the publisher its connection, seconds from its end until
            the broker confirmed a message again, and its name.
    """

    def __init__(self, stage: Stage, faults: list[Fault]) -> None:
        self._stage = stage
        self._faults = faults
        self.done: list[str] = []
        self.times: list[tuple[float, str]] = []
        traffic = stage.traffic
        self._share = traffic.total / (len(faults) + 1)
        traffic.burst = max(1, round(self._share / BURSTS))
        traffic.limit = round(self._share)

    def run(self, keep_on: Callable[[], bool] = lambda: True) -> None:
        """Carry out all; then let the rest of the messages go.

        Raises:
            Impatient: Something did not come back.
        """
        for number, fault in enumerate(self._faults):
            if not keep_on():
                self._stage.traffic.stop_at(0)
                return
            self._carry_out(number, fault)
        self._stage.traffic.limit = self._stage.traffic.total

    def _carry_out(self, number: int, fault: Fault) -> None:
        traffic = self._stage.traffic
        strike_at = round((number + self._stage.chance.random() * 0.5) * self._share)
        wait_until(lambda: traffic.published >= strike_at, "the publisher publishes")
        losses = traffic.publishing.losses
        self.done.append(fault.__name__)
        fault(self._stage)
        reachable = time.monotonic()
        traffic.limit = round((number + 2) * self._share)
        confirmed, consumed = traffic.confirmed, traffic.consumed
        what = f"the traffic goes on after {fault.__name__}"
        wait_until(lambda: traffic.confirmed > confirmed, what)
        if traffic.publishing.losses > losses:
            self.times.append((time.monotonic() - reachable, fault.__name__))
        wait_until(lambda: traffic.consumed > consumed, what)
