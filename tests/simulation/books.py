"""The books: what clients were promised and told, and what is excused, while a world goes on.

Law: what can be seen to be wrong at once is written down at once; the rest is ``audit.py``'s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import evamqp
from tests.simulation.trace import Trace

# Seconds of grace beside a deadline.
GRACE = 0.001


@dataclass(eq=False)
class Entry:
    """One publish that a Publisher accepted.

    Attributes:
        is_culprit: The broker must refuse it.
        is_persistent: As it was asked for.
        is_perishable: It has an expiration of its own, so that queues drop it.
        due: When its own deadline is; None without one.
        resends: How often a nacked one is sent again.
    """

    who: str
    number: int
    body: bytes
    mandatory: bool
    is_culprit: bool
    is_perishable: bool
    is_persistent: bool
    due: float | None
    resends: int
    outcome: evamqp.Outcome | None = None
    may_be_abandoned: bool = False


@dataclass(frozen=True)
class Excuse:
    """Why copies that came to a queue before a moment may be gone.

    Args:
        before: How many publishes the broker had seen at that moment.
        spares_persistent: Only transient messages went.
    """

    before: int
    spares_persistent: bool


@dataclass
class Closing:
    """A close that has begun, and by when it must be over; None is some time."""

    who: str
    due: float | None
    is_done: bool = False


@dataclass
class Books:
    """All that is written down in one world.

    Attributes:
        entries: Publishes of Publishers, by body.
        foreign: Bodies that others published: no Publisher answers for them.
        ended: How handlings of a body from a queue ended: ``done`` or ``rejected``.
        deliveries: How often a body came from a queue.
        firsts: By consumer's queue, bodies in the order in which they came first.
    """

    trace: Trace
    time: Callable[[], float]
    violations: list[str] = field(default_factory=list)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    foreign: set[bytes] = field(default_factory=set)
    ended: dict[tuple[str, bytes], set[str]] = field(default_factory=lambda: defaultdict(set))
    deliveries: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    firsts: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    excuses: dict[str, list[Excuse]] = field(default_factory=lambda: defaultdict(list))
    closings: list[Closing] = field(default_factory=list)
    #: Queues whose consumers come and go, so that nothing is known of their order.
    unsteady: set[str] = field(default_factory=set)
    is_ending: bool = False  # consumers close one by one: no order from now on
    requeues: Counter[tuple[str, bytes]] = field(default_factory=Counter)

    def wrong(self, who: str, what: str) -> None:
        """A promise was broken."""
        self.trace(who, f"*** {what}")
        self.violations.append(f"{who}: {what}")

    # Publishing

    def accept(self, entry: Entry) -> None:
        self.entries[entry.body] = entry

    def settle(self, who: str, body: bytes, outcome: evamqp.Outcome | None) -> None:
        """A publisher told an outcome."""
        entry = self.entries.get(body)
        if entry is None:
            self.wrong(who, f"an outcome came inside publish(): {body[:20]!r}")
            return
        self.trace(who, f"{show(body)} {outcome.name if outcome else None}")
        if outcome is None or entry.outcome is not None:
            self.wrong(who, f"{show(body)} has a second outcome: {entry.outcome}, {outcome}")
        entry.outcome = outcome
        now = self.time()
        if outcome is evamqp.Outcome.EXPIRED and (entry.due is None or now < entry.due - GRACE):
            self.wrong(who, f"{show(body)} is EXPIRED before its deadline {entry.due}")
        if entry.due is not None and now > entry.due + GRACE:
            self.wrong(who, f"{show(body)} has its outcome after its deadline {entry.due:.3f}")

    # Consuming

    def deliver(self, who: str, queue: str, body: bytes) -> None:
        """A message came out of a queue."""
        self.trace(who, f"{show(body)} comes")
        if body not in self.entries and body not in self.foreign:
            self.wrong(who, f"{show(body)} was never published")
        if not self.deliveries[queue, body] and not self.is_ending:
            self.firsts[queue].append(body)
        self.deliveries[queue, body] += 1

    def end(self, who: str, queue: str, body: bytes, how: str) -> None:
        """A message need not be in its queue any more: it is ``done``, or ``rejected``."""
        self.trace(who, f"{show(body)} {how}")
        self.ended[queue, body].add(how)

    # Excuses and closes

    def excuse(self, queue: str, before: int, *, spares_persistent: bool = False) -> None:
        """What came to a queue until now may be gone."""
        self.excuses[queue].append(Excuse(before, spares_persistent))

    def close(self, who: str, request: evamqp.Request[Any], within: float | None) -> None:
        """A close was asked for; it must end within so many seconds, None is in the end."""
        closing = Closing(who, None if within is None else self.time() + within)
        self.closings.append(closing)

        def end(_: object) -> None:
            closing.is_done = True
            self.trace(who, "is closed")
            if closing.due is not None and self.time() > closing.due + GRACE:
                self.wrong(who, f"closed at {self.time():.3f}, too late: {closing.due:.3f}")

        request.future.add_done_callback(end)


def show(body: bytes) -> str:
    """A body's name, without what only fills it."""
    return body.split(b" ", 1)[0].decode("ascii", "replace")
