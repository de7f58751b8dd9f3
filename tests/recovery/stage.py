"""A memory loop, a scripted broker on it, and what is told to the user: where recovery is tested.

It holds no tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import evamqp
from evamqp.adapters.memory import MemoryAdapter
from evamqp.recovery.backoff import Backoff
from evamqp.recovery.reconnector import Reconnector
from tests.support.scripted_broker import HOST, PORT, ScriptedBroker, Wire

URL = f"amqp://{HOST}:{PORT}/?heartbeat=0"
SECOND = 1.0
HOUR = 3600 * SECOND
#: Longer than any delay of a reconnection.
LONG = 100 * SECOND


class Fates:
    """Writes down what becomes of publishes, and does what a test wants done in the callback.

    Attributes:
        log: ``(body, outcome)`` of each, in the order of the callbacks.
    """

    def __init__(self) -> None:
        self.log: list[tuple[bytes, evamqp.Outcome | None]] = []
        self.inside: Callable[[evamqp.Publication], object] = lambda publication: None

    def __call__(self, publication: evamqp.Publication) -> None:
        assert publication.is_done
        self.log.append((publication.body, publication.outcome))
        self.inside(publication)

    def of(self, outcome: evamqp.Outcome) -> list[bytes]:
        """The bodies that ended so, in order."""
        return [body for body, fate in self.log if fate is outcome]

    @property
    def names(self) -> list[str]:
        return [f"{body.decode()} {fate.name if fate else None}" for body, fate in self.log]


class Stage:
    """One memory loop with a scripted broker.

    Attributes:
        events: What the operator was told, in order: name and arguments.
    """

    def __init__(self) -> None:
        self.adapter = MemoryAdapter()
        self.server = ScriptedBroker()
        self.server.listen(self.adapter)
        self.events: list[tuple[Any, ...]] = []
        self.fates = Fates()

    @property
    def wire(self) -> Wire:
        """The broker's side of the newest connection."""
        return self.server.wire

    def note(self, name: str) -> Callable[..., None]:
        """A callback that is written down under this name."""
        return partial(self._noted, name)

    def _noted(self, name: str, *arguments: Any) -> None:
        self.events.append((name, *arguments))

    def told(self, name: str) -> list[list[Any]]:
        """The arguments of each event of that name."""
        return [arguments for event, *arguments in self.events if event == name]

    def turn(self) -> None:
        """Run all that can happen now."""
        self.adapter.run_until_idle()

    def advance(self, seconds: float) -> None:
        self.adapter.advance(seconds)

    def reconnector(self, target: Any = URL, **options: Any) -> Reconnector:
        """A reconnector whose delays are their bounds, and whose events are noted."""
        options = {"backoff": Backoff(chance=lambda: 1.0), **self._noting(), **options}
        return Reconnector(target, adapter=self.adapter, **options)

    def publisher(self, target: Any = URL, **options: Any) -> evamqp.Publisher:
        if not isinstance(target, Reconnector):
            options = {**self._noting(), **options}
        options.setdefault("on_writable", self.note("writable"))
        return evamqp.Publisher(target, adapter=self.adapter, **options)

    def consumer(
        self, on_message: Callable[[Any], object], target: Any = URL, **options: Any
    ) -> evamqp.Consumer:
        if not isinstance(target, Reconnector):
            options = {**self._noting(), **options}
        queue = options.pop("queue", "work")
        return evamqp.Consumer(target, queue, on_message, adapter=self.adapter, **options)

    def _noting(self) -> dict[str, Any]:
        names = ("on_reconnecting", "on_recovered", "on_topology_error")
        return {name: self.note(name) for name in names}

    def publish(
        self, publisher: evamqp.Publisher, bodies: Iterable[bytes], **options: Any
    ) -> list[evamqp.Publication]:
        """Publish each body to the queue ``work``; what becomes of them goes to ``fates``."""
        return [
            publisher.publish("", "work", body, callback=self.fates, **options) for body in bodies
        ]

    def ended(self, request: evamqp.Request[Any]) -> Any:
        """Run until nothing happens; the request's value."""
        self.turn()
        assert request.is_done
        return self.adapter.run_until(request)


def numbered(count: int, first: int = 0) -> list[bytes]:
    """Bodies that tell their order."""
    return [b"%d" % number for number in range(first, first + count)]
