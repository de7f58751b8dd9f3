"""The laws that hold when a world is over: the books held against what the broker has.

Each law is a generator of complaints, its docstring the law.  Nothing here changes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING, NamedTuple

from evamqp import Outcome
from tests.simulation.books import Books, Entry, show
from tests.simulation.scenery import DEAD, Scenery

if TYPE_CHECKING:
    from evamqp.testing import Broker

#: Faults for which a publish comes again on the same connection: a nack, a channel that ends, a
#: confirm that takes too long.
REPUBLISHING = {
    "nack", "lose", "lose_confirms", "hold", "delay_confirms", "close_channels", "open_late",
    "freeze", "delay", "alarm",
}  # fmt: skip


class Copy(NamedTuple):
    """One publish that came to the broker: its place among all, and what the broker did."""

    place: int
    queues: tuple[str, ...]
    mandatory: bool
    is_persistent: bool
    is_perishable: bool
    connection: int


class Audit:
    """All laws over one world."""

    def __init__(self, books: Books, scenery: Scenery, broker: Broker, faults: Set[str]) -> None:
        self._books = books
        self._scenery = scenery
        self._faults = faults
        self._copies: dict[bytes, list[Copy]] = defaultdict(list)
        for place, record in enumerate(broker.published):
            self._copies[record.body].append(
                Copy(
                    place,
                    record.queues,
                    record.mandatory,
                    record.properties.delivery_mode == 2,
                    record.properties.expiration is not None,
                    record.connection,
                )
            )
        self._stored = {name: set(queue.bodies) for name, queue in broker.queues().items()}
        self._lost = {name: queue.unacked for name, queue in broker.queues().items()}

    def complaints(self) -> Iterator[str]:
        for law in (
            self._one_outcome,
            self._outcomes_are_true,
            self._nothing_invented,
            self._nothing_lost,
            self._published_in_order,
            self._consumed_in_order,
            self._no_needless_copies,
            self._no_needless_deliveries,
            self._all_closed,
            self._nothing_held,
        ):
            yield from law()

    def _one_outcome(self) -> Iterator[str]:
        """Each accepted publish has its outcome; that it has no second one was seen at once."""
        for entry in self._books.entries.values():
            if entry.outcome is None:
                yield f"{show(entry.body)} never had an outcome"

    def _outcomes_are_true(self) -> Iterator[str]:
        """An outcome says what the broker did."""
        for entry in self._books.entries.values():
            if entry.outcome is not None:
                copies = self._copies.get(entry.body, [])
                excuse = TRUTHS[entry.outcome](entry, copies)
                is_accused = entry.outcome is Outcome.REFUSED and "accuse" in self._faults
                if excuse is not None and not is_accused:
                    yield f"{show(entry.body)} is {entry.outcome.name}, but {excuse}"

    def _nothing_invented(self) -> Iterator[str]:
        """What came to the broker was published, and as often as it can have been."""
        for body, copies in self._copies.items():
            entry = self._books.entries.get(body)
            if entry is None and body not in self._books.foreign:
                yield f"{show(body)} came to the broker, and nobody published it"
            elif entry is not None and any(_is_changed(entry, copy) for copy in copies):
                yield f"{show(body)} changed on its way"

    def _nothing_lost(self) -> Iterator[str]:
        """What a queue took is in it, or was handled, or was rejected into the dead letters."""
        for body, copies in self._copies.items():
            entry = self._books.entries.get(body)
            for queue in {name for copy in copies for name in copy.queues}:
                place = self._scenery.places.get(queue)
                # A queue that refuses what it has no room for nacks it, and the nack is lost.  What
                # was confirmed is the last copy, which may have gone elsewhere.
                is_sure = place is not None and "x-overflow" not in place.arguments
                if not is_sure and queue in copies[-1].queues:
                    is_sure = entry is not None and entry.outcome is Outcome.CONFIRMED
                if is_sure and not self._is_accounted_for(queue, body, copies):
                    yield f"{show(body)} is lost from {queue}"

    def _is_accounted_for(self, queue: str, body: bytes, copies: list[Copy]) -> bool:
        place = self._scenery.places.get(queue)
        if place is None or place.drops:
            return True  # somebody's own queue, or one that forgets
        ended = self._books.ended.get((queue, body), set())
        if body in self._stored.get(queue, ()) or "done" in ended:
            return True
        dead = place.dead_letters
        if "rejected" in ended and dead is None:
            return True
        if any(copy.is_perishable for copy in copies) and dead is None:
            return True
        if dead is not None and self._is_kept(dead, body):
            return True
        mine = [copy for copy in copies if queue in copy.queues]
        return self._is_excused(queue, mine) or (dead is not None and self._is_excused(dead, mine))

    def _is_kept(self, queue: str, body: bytes) -> bool:
        return body in self._stored.get(queue, ()) or (queue, body) in self._books.ended

    def _is_excused(self, queue: str, copies: list[Copy]) -> bool:
        return any(
            copy.place < excuse.before and not (excuse.spares_persistent and copy.is_persistent)
            for excuse in self._books.excuses.get(queue, ())
            for copy in copies
        )

    def _published_in_order(self) -> Iterator[str]:
        """What a publisher published first comes to the broker first."""
        firsts: dict[str, list[tuple[int, int, bytes]]] = defaultdict(list)
        for body, copies in self._copies.items():
            entry = self._books.entries.get(body)
            if entry is not None and entry.outcome not in (Outcome.EXPIRED, Outcome.REFUSED):
                firsts[entry.who].append((copies[0].place, entry.number, body))
        for who, came in firsts.items():
            highest = 0
            for _, number, body in sorted(came):
                if number < highest:
                    yield f"{show(body)} of {who} came after {highest}"
                highest = max(highest, number)

    def _consumed_in_order(self) -> Iterator[str]:
        """A single active consumer gets what came first, first; the second time is another's."""
        for queue, bodies in self._books.firsts.items():
            if not self._has_order(queue):
                continue
            highest = -1
            for body in bodies:
                copies = [copy for copy in self._copies[body] if queue in copy.queues]
                if copies[0].is_perishable and len(copies) > 1:
                    continue  # which of them came?
                if copies[0].place < highest:
                    yield f"{show(body)} came out of {queue} too late"
                highest = max(highest, copies[0].place)

    def _has_order(self, queue: str) -> bool:
        place = self._scenery.places[queue]
        is_steady = queue not in self._books.unsteady and queue not in self._books.excuses
        # A queue that forgets or refuses may have a later copy of what came first.
        return is_steady and place.is_single_active and not place.forgets

    def _no_needless_copies(self) -> Iterator[str]:
        """On one connection nothing is published twice but what was nacked, or lost a channel."""
        refusing = any("x-overflow" in place.arguments for place in self._scenery.places.values())
        if refusing or self._faults & REPUBLISHING:
            return
        suspects = {entry.who for entry in self._books.entries.values() if entry.is_culprit}
        for body, copies in self._copies.items():
            entry = self._books.entries.get(body)
            connections = {copy.connection for copy in copies}
            if entry is not None and entry.who not in suspects and len(copies) > len(connections):
                yield f"{show(body)} came {len(copies)} times on {len(connections)} connections"

    def _no_needless_deliveries(self) -> Iterator[str]:
        """Where nothing goes wrong, nothing is consumed twice."""
        if self._faults:
            return
        for (queue, body), count in self._books.deliveries.items():
            if queue in self._books.unsteady or self._scenery.places[queue].name == DEAD:
                continue
            copies = sum(queue in copy.queues for copy in self._copies[body])
            allowed = copies + self._books.requeues[queue, body]
            if count > allowed:
                yield f"{show(body)} came {count} times out of {queue}, not {allowed}"

    def _all_closed(self) -> Iterator[str]:
        """Every close ended."""
        for closing in self._books.closings:
            if not closing.is_done:
                yield f"{closing.who} never closed"

    def _nothing_held(self) -> Iterator[str]:
        """When nobody is connected, no message is out."""
        for queue, count in self._lost.items():
            if count:
                yield f"{count} messages of {queue} are held by nobody"


def _is_changed(entry: Entry, copy: Copy) -> bool:
    return (entry.mandatory, entry.is_persistent) != (copy.mandatory, copy.is_persistent)


# Each says why an outcome is untrue; None where it is true.


def _confirmed(entry: Entry, copies: list[Copy]) -> str | None:
    if entry.is_culprit:
        return "the broker refuses it"
    if not copies:
        return "the broker never saw it"
    if entry.mandatory and not any(copy.queues for copy in copies):
        return "no queue took it"
    return None


def _returned(entry: Entry, copies: list[Copy]) -> str | None:
    if not any(copy.mandatory and not copy.queues for copy in copies):
        return "it was never unroutable"
    return None


def _nacked(entry: Entry, copies: list[Copy]) -> str | None:
    if len(copies) <= entry.resends:
        return f"it was sent {len(copies)} times, not {entry.resends + 1}"
    return None


def _refused(entry: Entry, copies: list[Copy]) -> str | None:
    return None if entry.is_culprit else "it is innocent"


def _expired(entry: Entry, copies: list[Copy]) -> str | None:
    return "it has no deadline" if entry.due is None else None


def _abandoned(entry: Entry, copies: list[Copy]) -> str | None:
    return None if entry.may_be_abandoned else "nobody closed in a hurry"


TRUTHS = {
    Outcome.CONFIRMED: _confirmed,
    Outcome.RETURNED: _returned,
    Outcome.NACKED: _nacked,
    Outcome.REFUSED: _refused,
    Outcome.EXPIRED: _expired,
    Outcome.ABANDONED: _abandoned,
}
