"""What goes wrong, when, and for how long: all by chance, and all mended in the end.

Law: a fault that destroys messages says which, in the books; any other destroys none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from evamqp.adapters.memory import MemoryTransport
from tests.simulation.scenery import DEAD, HOST

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Of one world.
FAULTS_MAX = 12


class Faults:
    """The faults of one world.

    Args:
        world: Where they happen.
        seconds: The time in which they begin.
    """

    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self._broker = world.broker
        self._mends: list[Callable[[], object]] = []
        chance = Random(f"{world.seed}/faults")
        for number in range(chance.choice((0, 1, 3, 6, FAULTS_MAX))):
            name = f"fault{number}"
            own = Random(f"{world.seed}/{name}")
            play = own.choice(FAULTS)
            if name not in world.without:
                world.clock.call_later(own.random() * seconds, partial(self._play, name, play, own))

    def _play(self, name: str, play: Fault, chance: Random) -> None:
        what = f"{play.__name__[1:]} {play(self, chance) or ''}"
        self._world.trace(name, what)
        self._world.faults_played.add(play.__name__[1:])

    def mend(self) -> None:
        """End every fault that lasts."""
        self._world.trace("world", "all faults end")
        for mend in self._mends:
            mend()
        self._broker.repair()

    def _for_a_while(self, chance: Random, mend: Callable[[], object]) -> float:
        seconds = chance.choice((0.05, 1.0, 10.0, 40.0))
        self._world.clock.call_later(seconds, mend)
        return seconds

    def _someone(self, chance: Random) -> int | None:
        """The number of a connection; None means all."""
        numbers = [connection.number for connection in self._broker.connections()]
        return chance.choice(numbers) if numbers and chance.random() < 0.8 else None

    def _wire(self, chance: Random) -> MemoryTransport | None:
        """One of the last connections, of which some may be over."""
        wires = list(self._world.clock.accepted)[-6:]
        return chance.choice(wires) if wires else None

    # Of the wire

    def _drop(self, chance: Random) -> str:
        who, reset = self._someone(chance), chance.random() < 0.5
        self._broker.faults.drop_connections(reset=reset, only=who)
        return f"{who} {reset=}"

    def _cut(self, chance: Random) -> str:
        numbers = [connection.number for connection in self._broker.connections()]
        who = chance.choice(numbers) if numbers and chance.random() < 0.7 else None
        count = chance.choice((0, 1, 7, 8, 100, 1000)) + chance.randrange(100)
        in_bytes = chance.random() < 0.7
        direction = "sent" if chance.random() < 0.5 else "received"
        self._broker.faults.cut_after(
            bytes=count if in_bytes else None,
            frames=None if in_bytes else count // 10 + 1,
            direction=direction,  # type: ignore[arg-type]
            reset=chance.random() < 0.5,
            only=who,
        )
        return f"{who} after {count} {direction}"

    def _cut_both_ends(self, chance: Random) -> str:
        wire, count = self._wire(chance), chance.randrange(300)
        if wire is not None:
            chance.choice((wire, wire.peer)).cut_after(count)
        return f"after {count} bytes"

    def _silence(self, chance: Random) -> None:
        wire = self._wire(chance)
        if wire is not None:
            wire.silence()

    def _trickle(self, chance: Random) -> str:
        wire, size = self._wire(chance), chance.choice((1, 3, 20, 500))
        if wire is not None:
            chance.choice((wire, wire.peer)).chunk_size = size
        return f"{size} bytes a turn"

    def _delay(self, chance: Random) -> str:
        """What one end has sent arrives, later."""
        wire = self._wire(chance)
        if wire is None:
            return "nobody"
        end = chance.choice((wire, wire.peer))
        end.pause_reading()
        self._mends.append(end.resume_reading)
        return f"for {self._for_a_while(chance, end.resume_reading)} s"

    def _shut(self, chance: Random) -> str:
        self._broker.faults.refuse_connections()
        return f"for {self._for_a_while(chance, self._broker.faults.accept_connections)} s"

    def _unreachable(self, chance: Random) -> str:
        clock = self._world.clock
        names = chance.choice((clock.unanswering, clock.unresolvable))
        names.add(HOST)
        mend = partial(names.discard, HOST)
        self._mends.append(mend)
        return f"for {self._for_a_while(chance, mend)} s"

    # Of the broker's words

    def _lock_out(self, chance: Random) -> str:
        broker = self._broker
        if "guest" in broker.users:
            broker.delete_user("guest")
        mend = partial(broker.add_user, "guest", "guest")
        self._mends.append(mend)
        return f"for {self._for_a_while(chance, mend)} s"

    def _freeze(self, chance: Random) -> str:
        who = self._someone(chance)
        self._broker.faults.stall(only=who)
        mend = self._broker.faults.resume  # of all: the one may be gone by then
        return f"{who} for {self._for_a_while(chance, mend)} s"

    def _close_connections(self, chance: Random) -> str:
        who = self._someone(chance)
        self._broker.faults.close_connections(320, "by chance", only=who)
        return str(who)

    def _accuse(self, chance: Random) -> str:
        """Close a connection as if its client were to blame; what was under way is suspected."""
        who, code = self._someone(chance), chance.choice((501, 504, 541))
        self._broker.faults.close_connections(code, "by chance", only=who)
        return f"{who} {code}"

    def _close_channels(self, chance: Random) -> str:
        who, code = self._someone(chance), chance.choice((406, 404, 541, 311))
        self._broker.faults.close_channels(code, "by chance", only=who)
        return f"{who} {code}"

    def _alarm(self, chance: Random) -> str:
        self._broker.faults.block("by chance")
        return f"for {self._for_a_while(chance, self._broker.faults.unblock)} s"

    def _cancel(self, chance: Random) -> str:
        queue = chance.choice(list(self._broker.queues()))
        self._broker.faults.cancel_consumers(queue)
        return queue

    def _delete(self, chance: Random) -> str:
        # Dead letters would be lost for as long as their queue is.
        known = set(self._world.scenery.places) - {DEAD}
        queues = [name for name in self._broker.queues() if name in known]
        if not queues:
            return "nothing"
        queue = chance.choice(queues)
        self._world.books.excuse(queue, len(self._broker.published))
        self._broker.faults.delete_queue(queue)
        if chance.random() < 0.5:
            self._world.clock.call_later(chance.random() * 5, self._world.operator.declare)
        return queue

    def _replay(self, chance: Random) -> None:
        self._broker.faults.replay_deliveries(chance.choice((1, 5, 32)))

    def _ignore_prefetch(self, chance: Random) -> str:
        self._broker.faults.ignore_prefetch()
        mend = partial(self._broker.faults.ignore_prefetch, False)
        return f"for {self._for_a_while(chance, mend)} s"

    def _open_late(self, chance: Random) -> str:
        seconds = chance.choice((0.01, 1.0, 5.0, None))
        self._broker.faults.delay_channels(seconds)
        mend = self._broker.faults.admit_channels
        return f"{seconds} s for {self._for_a_while(chance, mend)} s"

    # Of confirms

    def _hold(self, chance: Random) -> str:
        self._broker.faults.hold_confirms()
        return f"for {self._for_a_while(chance, self._broker.faults.release_confirms)} s"

    def _delay_confirms(self, chance: Random) -> str:
        self._broker.faults.delay_confirms(chance.choice((0.01, 0.5, 3.0)))
        return f"for {self._for_a_while(chance, self._broker.faults.release_confirms)} s"

    def _repeat_confirms(self, chance: Random) -> None:
        self._broker.faults.repeat_confirms()

    def _nack(self, chance: Random) -> str:
        count = chance.choice((1, 2, 5, 30))
        self._broker.faults.nack_next(count)
        return str(count)

    def _return(self, chance: Random) -> str:
        count = chance.choice((1, 2, 5))
        self._broker.faults.return_next(count)
        return str(count)

    def _lose(self, chance: Random) -> str:
        count = chance.choice((1, 2, 5))
        self._broker.faults.lose_next(count)
        return str(count)

    def _lose_confirms(self, chance: Random) -> str:
        count = chance.choice((1, 2, 5))
        self._broker.faults.lose_confirms(count)
        return str(count)

    # Of the broker as a whole

    def _restart(self, chance: Random) -> str:
        before = len(self._broker.published)
        for place in self._world.scenery.places.values():
            self._world.books.excuse(place.name, before, spares_persistent=place.durable)
        down, graceful = chance.choice((0.0, 0.5, 20.0)), chance.random() < 0.5
        self._broker.faults.restart(down=down, graceful=graceful)
        return f"down {down} s {graceful=}"


Fault = Callable[[Faults, Random], str | None]
FAULTS: tuple[Fault, ...] = (
    Faults._drop, Faults._drop, Faults._cut, Faults._cut, Faults._cut, Faults._cut_both_ends,
    Faults._silence, Faults._trickle, Faults._delay, Faults._shut,
    Faults._unreachable, Faults._lock_out, Faults._freeze,
    Faults._close_connections, Faults._accuse, Faults._close_channels, Faults._close_channels,
    Faults._alarm, Faults._cancel, Faults._delete, Faults._replay, Faults._hold,
    Faults._delay_confirms, Faults._repeat_confirms, Faults._repeat_confirms, Faults._nack,
    Faults._nack, Faults._return, Faults._lose, Faults._lose_confirms, Faults._restart,
    Faults._ignore_prefetch, Faults._open_late,
)  # fmt: skip
