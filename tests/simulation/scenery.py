"""What stands on the broker: queues, exchanges and bindings, and where a message may go.

Law: the operator declares all of it before anybody comes, and once more when all faults are over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import evamqp
from evamqp.abc import Adapter
from evamqp.types import Table

HOST = "broker"
DEAD = "dead"  # where dead letters go
SINK = "sink"  # where forwarders send
MISSING = "missing"  # an exchange that nobody declares
INTERNAL = "internal"  # an exchange to which nobody may publish
ODD = "odd"  # a queue that exists with other arguments than some believe

Spoil = Literal["odd", "unbound"]
Policy = Literal["retry", "skip", "fail"]


@dataclass
class Place:
    """A queue that everybody knows.

    Attributes:
        forgets: It gives messages up by itself, for age or for room, or refuses them.
        drops: And they are lost.
        dead_letters: Name of the queue that they reach; None loses them.
    """

    name: str
    durable: bool = True
    arguments: Table = field(default_factory=dict)

    @property
    def dead_letters(self) -> str | None:
        return DEAD if "x-dead-letter-routing-key" in self.arguments else None

    @property
    def forgets(self) -> bool:
        return bool({"x-message-ttl", "x-max-length"} & set(self.arguments))

    @property
    def drops(self) -> bool:
        return self.forgets and self.dead_letters is None

    @property
    def is_single_active(self) -> bool:
        return "x-single-active-consumer" in self.arguments


class Scenery:
    """The queues and exchanges of one world.

    Args:
        chance: Decides.
        may_be_transient: Whether the broker allows transient queues that are not exclusive.

    Attributes:
        places: Queues by name.
        routes: Exchanges and routing keys that lead to a queue.
    """

    def __init__(self, chance: Random, *, may_be_transient: bool) -> None:
        self._chance = chance
        self._may_be_transient = may_be_transient
        self.places = {DEAD: Place(DEAD), SINK: Place(SINK)}
        self.routes: list[tuple[str, str]] = []
        for number in range(chance.choice((1, 1, 2, 3))):
            place = self._place(f"q{number}")
            self.places[place.name] = place
            self.routes.append(("", place.name))
        self.works = [name for name in self.places if name not in (DEAD, SINK)]
        self._exchanges = [("fan", "fanout"), ("top", "topic")]
        self._bindings = [(name, "fan", "") for name in self.works]
        self._bindings += [(name, "top", f"*.{name}") for name in self.works]
        self.routes += [("fan", "any")] + [("top", f"a.{name}") for name in self.works]

    def _place(self, name: str) -> Place:
        chance = self._chance
        arguments: Table = {}
        if chance.random() < 0.3:
            arguments["x-dead-letter-exchange"] = ""
            arguments["x-dead-letter-routing-key"] = DEAD
        if chance.random() < 0.3:
            arguments["x-single-active-consumer"] = True
        kind = chance.random()
        if kind < 0.08:
            arguments["x-message-ttl"] = chance.choice((100, 2000))
        elif kind < 0.16:
            arguments["x-max-length"] = chance.randint(1, 10)
            arguments["x-overflow"] = chance.choice(("drop-head", "reject-publish"))
        is_durable = chance.random() < 0.8 or not self._may_be_transient
        return Place(name, is_durable, arguments)

    def topology(self) -> evamqp.Topology:
        """All of it, as a client would declare it."""
        topology = evamqp.Topology()
        for name, kind in self._exchanges:
            topology.exchange(name, kind, durable=True)
        for place in self.places.values():
            topology.queue(place.name, durable=place.durable, arguments=place.arguments)
        for queue, exchange, key in self._bindings:
            topology.bind(queue, exchange, key)
        return topology

    def spoil(self, topology: evamqp.Topology, how: Spoil) -> None:
        """Add an entity that the broker refuses."""
        if how == "odd":
            topology.queue(ODD, durable=True, arguments={"x-max-length": 1})
        else:
            topology.bind(DEAD, MISSING, "key")


class Operator(evamqp.Handler):
    """Declares the scenery on a connection of its own, and goes."""

    def __init__(self, scenery: Scenery, url: str, adapter: Adapter) -> None:
        self._scenery = scenery
        self._url = url
        self._adapter = adapter
        self._done: Callable[[], object] = lambda: None

    def declare(self, done: Callable[[], object] = lambda: None) -> None:
        """Declare everything now; then call back."""
        self._done = done
        evamqp.connect(self._url, self, adapter=self._adapter)

    def on_open(self, connection: evamqp.Connection) -> None:
        channel = connection.channel()
        channel.exchange_declare(INTERNAL, "fanout", internal=True)
        channel.queue_declare(ODD, durable=True)
        for entity in self._scenery.topology():
            entity.declare(channel)
        channel.close()
        connection.close()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        if reason.by != "client":
            self._adapter.call_later(1.0, lambda: self.declare(self._done))
        else:
            self._done()
