"""One world: from a seed to a broker, clients and faults, through time, to what is complained of.

Law: the same seed is the same world, and leaving one actor or fault out changes no other's chances.
"""

from __future__ import annotations

import gc
import logging
import random
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, TypeAlias

import evamqp
from evamqp.testing import Broker
from tests.simulation.audit import Audit
from tests.simulation.books import Books
from tests.simulation.bystanders import BystanderActor
from tests.simulation.clock import Clock
from tests.simulation.consumers import ConsumerActor
from tests.simulation.faults import Faults
from tests.simulation.publishers import PublisherActor
from tests.simulation.scenery import HOST, Operator, Scenery
from tests.simulation.trace import Trace, TracedLog
from tests.simulation.watchers import Watcher

Actor: TypeAlias = PublisherActor | ConsumerActor | BystanderActor
KINDS: dict[str, Callable[[World, str], Actor]]

RELEASES = ("3.8", "3.10", "4.0", "4.3")
# Seconds from the end of all faults until whatever was promised must have come: a lost confirm is
# missed after 16 times the longest ``confirm_timeout`` and half as long again, at the worst.
CALM = 3600.0
STEP = 20.0
# Seconds in which everybody closes.
ENDING = 120.0


class World:
    """A world to be run once.

    Args:
        seed: Decides everything.
        without: Names of actors and faults to leave out.

    Attributes:
        faults_played: The kinds of faults that have happened.
    """

    def __init__(self, seed: int, without: frozenset[str] = frozenset()) -> None:
        self.seed = seed
        self.without = without
        self.faults_played: set[str] = set()
        chance = Random(f"{seed}/world")
        self.clock = Clock()
        self.trace = Trace(self.clock.time)
        self.books = Books(self.trace, self.clock.time)
        release = chance.choice(RELEASES)
        self.broker = Broker(self.clock, publishes_kept=1_000_000, release=release)
        self.broker.listen(HOST, 5672)
        self.scenery = Scenery(chance, may_be_transient=release.startswith("3."))
        self.operator = Operator(self.scenery, self.broker.url, self.clock)
        self._heartbeat = chance.choice((2, 10, 60))
        self.frame_max = chance.choice((8192, 131072))
        self.seconds = chance.choice((2.0, 10.0, 40.0))
        self._shared: list[evamqp.Reconnector] = []
        self._shares = chance.choice((0, 0, 1, 2))
        self._cast = [
            f"{kind}{number}"
            for kind, counts in (
                ("publisher", (1, 1, 2, 3)), ("consumer", (0, 1, 1, 2, 3)), ("bystander", (0, 0, 1))
            )
            for number in range(chance.choice(counts))
        ]  # fmt: skip
        self.actors: list[Actor] = []

    # What actors need

    def parameters(self, chance: Random, name: str) -> evamqp.Parameters:
        return evamqp.Parameters(
            HOST,
            heartbeat=self._heartbeat,
            frame_max=self.frame_max,
            client_properties={"connection_name": name},
        )

    def target(self, chance: Random, name: str) -> tuple[Any, dict[str, Any]]:
        """A target, and options that go with it: of one's own, or a reconnector to share."""
        if self._shared and chance.random() < 0.7:
            return chance.choice(self._shared), {}
        parameters = self.parameters(chance, name)
        nowhere = evamqp.Parameters("nowhere", heartbeat=self._heartbeat)
        targets = [parameters, nowhere] if chance.random() < 0.1 else parameters
        return targets, {"adapter": self.clock, **Watcher(self, name).events}

    def forwarder(self, name: str) -> PublisherActor:
        return PublisherActor(self, f"{name}.out", has_script=False)

    def _reconnector(self, chance: Random, name: str) -> evamqp.Reconnector:
        watcher = Watcher(self, name)
        return evamqp.Reconnector(
            self.parameters(chance, name), adapter=self.clock, handler=watcher, **watcher.events
        )

    # Through time

    def run(self) -> list[str]:
        """From the beginning to the end; returns what is to be complained of."""
        random.seed(self.seed)  # of backoffs and shuffles
        try:
            self._run()
        except Exception as error:
            self.trace("world", "".join(traceback.format_exception(error)))
            self.books.wrong("world", f"broke: {error!r}")
        return self.books.violations

    def _run(self) -> None:
        self.operator.declare()
        self.clock.advance(1.0)
        chance = Random(f"{self.seed}/shared")
        self._shared = [
            self._reconnector(chance, f"shared{number}") for number in range(self._shares)
        ]
        for name in self._cast:
            if name not in self.without:
                # Some find a connection that is up already.
                delay = Random(f"{self.seed}/{name}/entry").choice((0.0, 0.0, 0.5, 1.5))
                self.clock.call_later(delay, partial(self._enter, name))
        faults = Faults(self, self.seconds)
        self.clock.advance(self.seconds)
        faults.mend()
        self.operator.declare()
        self._wait_for_calm()
        self._close()
        audit = Audit(self.books, self.scenery, self.broker, self.faults_played)
        self._look_at_what_is_left()
        for complaint in audit.complaints():
            self.books.wrong("audit", complaint)

    def _enter(self, name: str) -> None:
        self.actors.append(KINDS[name.rstrip("0123456789")](self, name))

    def _wait_for_calm(self) -> None:
        """Until all are settled; whoever is not by then says so."""
        end = self.clock.time() + CALM
        while self.clock.time() < end:
            self.clock.advance(STEP)
            if all(actor.is_settled for actor in self.actors) and not self._unread():
                return
        for actor in self.actors:
            actor.complain()
        for queue in self._unread():
            self.books.wrong("world", f"nobody takes what is in {queue}")

    def _unread(self) -> list[str]:
        """Queues that somebody should have emptied."""
        takers: dict[str, list[ConsumerActor]] = {}
        for actor in self.actors:
            if isinstance(actor, ConsumerActor) and not actor.is_closing:
                actor.resume()
                takers.setdefault(actor.queue, []).append(actor)
        queues = self.broker.queues()
        return [
            queue
            for queue, consumers in takers.items()
            if queue in queues
            and (queues[queue].ready or queues[queue].unacked)
            and not any(consumer.may_hold for consumer in consumers)
        ]

    def _close(self) -> None:
        self.trace("world", "all close")
        self.books.is_ending = True
        for actor in self.actors:
            actor.close_at_the_end()
        self.clock.advance(ENDING)
        left = self._let_go()
        gc.collect()
        for name, reference in left:
            if reference() is not None:
                self.books.wrong("world", f"somebody keeps {name}")
        for reconnector in self._shared:
            self.books.close("reconnector", reconnector.close(), ENDING)
        self.clock.advance(ENDING)

    def _let_go(self) -> list[tuple[str, weakref.ref[Any]]]:
        """Forget all clients; returns their names, and how to see whether somebody keeps them."""
        clients: list[Any] = [actor.let_go() for actor in self.actors]
        consumers = [actor for actor in self.actors if isinstance(actor, ConsumerActor)]
        clients += [actor.forwarder.let_go() for actor in consumers if actor.forwarder is not None]
        return [(repr(client), weakref.ref(client)) for client in clients if client is not None]

    def _look_at_what_is_left(self) -> None:
        for connection in self.broker.connections():
            self.books.wrong("world", f"{connection.name} is still connected")
        self.broker.close()
        self.clock.run_until_idle()
        for timer in self.clock.timers:
            self.books.wrong("world", f"a timer is left: {timer}")


KINDS = {
    "publisher": PublisherActor,
    "consumer": ConsumerActor,
    "bystander": BystanderActor,
}


@contextmanager
def logging_to(trace: Trace) -> Iterator[None]:
    """What the library logs goes to the trace."""
    log = logging.getLogger("evamqp")
    handler = TracedLog(trace)
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
