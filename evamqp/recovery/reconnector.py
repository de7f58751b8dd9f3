"""One connection after another: dial, replay the topology, serve, wait, dial again.

Messages are not known here: ``ledger.py`` keeps those that are published, the broker the rest.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from evamqp.core.handler import CALLBACKS, Handler
from evamqp.core.request import Request
from evamqp.driver import default_adapter, start
from evamqp.errors import (
    RESOURCE_LOCKED,
    BadType,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    ProtocolError,
    TopologyFailed,
    WrongState,
)
from evamqp.parameters import Parameters, parse_targets
from evamqp.recovery.backoff import STABLE_AFTER, Backoff, retry_of
from evamqp.recovery.loop_bound import LoopBound, call_off
from evamqp.recovery.topology import Entity, Key, Recorder, Replay, Topology

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.connection import Connection
    from evamqp.types import Callback

log = logging.getLogger(__name__)

# A broker that leaves so many channel.open in a row without an answer is asked on a new connection.
UNOPENED_CHANNELS = 3

# Seconds.  A broker notices the end of our former connection after three heartbeats at the latest,
# three minutes by default; an exclusive queue that is locked for longer is somebody else's.
LOCKED_FOR_GOOD = 300.0

Target = str | Parameters | Sequence[str | Parameters]


class State(Enum):
    """Where a reconnector stands."""

    WAITING = "WAITING"  # for the next attempt
    DIALLING = "DIALLING"
    REPLAYING = "REPLAYING"  # the topology is being declared
    READY = "READY"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


_S = State

#: What may happen in which state, and the state then.  What is absent cannot happen any more: it
#: is late, of a connection that was given up, and is dropped.
TABLE: dict[State, dict[str, State]] = {
    _S.WAITING: {"due": _S.DIALLING, "close": _S.CLOSED},
    _S.DIALLING: {"opened": _S.REPLAYING, "lost": _S.WAITING, "close": _S.CLOSING},
    _S.REPLAYING: {"replayed": _S.READY, "lost": _S.WAITING, "close": _S.CLOSING},
    _S.READY: {"lost": _S.WAITING, "close": _S.CLOSING},
    _S.CLOSING: {"lost": _S.CLOSED},
    _S.CLOSED: {},
}


class Member(Protocol):
    """What a reconnector serves: a publisher, a consumer."""

    def _connected(self, connection: Connection) -> None:
        """A connection is ready, its topology declared."""

    def _disconnected(self, reason: ConnectionClosed) -> None:
        """That connection is gone; there may not have been one."""

    def _writable(self, writable: bool) -> None:
        """The connection's backpressure changed."""

    def _ended(self, reason: Closed | TopologyFailed) -> None:
        """There will be no further connection."""

    def _needs(self, queue: str) -> bool:
        """Whether it comes back for a queue of that name."""


class Reconnector(LoopBound):
    """Keeps one connection up, for as long as it is not closed.

    Several publishers and consumers may share it.  ``topology``, to which is added whatever
    channels of its connections declare, and theirs are declared again on each new connection.  All
    wait for what was given to the Reconnector itself; what a member brought delays that member
    alone while it cannot be declared, and is forgotten when it closes.

    Args:
        target: A URL, Parameters, or a list of them, which is shuffled once and then rotated.
            Names are resolved, and callable credentials asked for, at every attempt.
        adapter: The loop; None means the running asyncio loop.
        topology: To be declared from the first connection on; None means an empty one.  It grows
            by what channels declare, and loses what they delete and auto-delete queues and
            exchanges that are gone.
        handler: Gets each connection's callbacks; its ``on_open`` comes anew with each
            connection, when the topology is there.
        on_reconnecting: Called with attempt (1 is the first after a loss), delay in seconds and
            reason, before each wait.
        on_recovered: Called with attempts and seconds since the loss, when all is up again.
        on_topology_error: Called with an entity and the broker's reason, for each that failed.
        backoff: Delays; None means full jitter up to 30 s.

    Raises:
        BadArgument, BadType: A target is malformed, or topology or handler is something else.
        WrongState: No adapter was given, and no asyncio loop runs.
    """

    def __init__(
        self,
        target: Target,
        *,
        adapter: Adapter | None = None,
        topology: Topology | None = None,
        handler: Handler | None = None,
        on_reconnecting: Callable[[int, float, ConnectionClosed], object] | None = None,
        on_recovered: Callable[[int, float], object] | None = None,
        on_topology_error: Callable[[Entity, ChannelClosed], object] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        targets = list(parse_targets(target))
        for thing, kind in ((topology, Topology), (handler, Handler)):
            if thing is not None and not isinstance(thing, kind):
                raise BadType(f"expected a {kind.__name__}, not {type(thing).__name__}")
        super().__init__(adapter or default_adapter())
        self._check_caller(type(self).__name__)
        random.shuffle(targets)
        self.topology = Topology() if topology is None else topology
        self.state = State.WAITING
        self.connection: Connection | None = None
        self.epoch = 0
        self._targets = targets
        self._handler = handler or _Quiet()
        self._on_reconnecting = on_reconnecting
        self._on_recovered = on_recovered
        self._on_topology_error = on_topology_error
        self._backoff = backoff or Backoff()
        self._members: dict[Member, Topology] = {}  # in the order of joining
        self._recorded: set[Key] = set()  # what of ``topology`` channels have declared
        # Members that wait for what is being declared, in this epoch.
        self._waiting: list[Member] = []
        self._unopened = 0  # channels in a row that this connection did not open
        self._prober: Member | None = None  # who may send what may end the connection
        self._waiters: list[Request[Closed | TopologyFailed]] = []
        self._is_over = False
        self._reason: Closed | TopologyFailed | None = None
        self._replay: Replay | None = None
        self._replays: dict[Member, Replay] = {}  # those that members asked for
        self._timer: Handle | None = self.adapter.call_soon(self._dial)
        self._attempts = 0  # since the loss
        self._ready_since = 0.0
        self._lost_since: float | None = None

    def __repr__(self) -> str:
        return f"<Reconnector {self.state.value} epoch {self.epoch}>"

    @property
    def is_ready(self) -> bool:
        """Whether a connection is open and its topology declared."""
        return self.state is State.READY

    def close(
        self, *, callback: Callback[Closed | TopologyFailed] | None = None
    ) -> Request[Closed | TopologyFailed]:
        """Close the connection and make no other.  Idempotent, and legal in any state.

        Args:
            callback: Called with the reason when all is closed.

        Returns:
            wait_closed().
        """
        self._check_caller("Reconnector.close")
        if self.state not in (State.CLOSING, State.CLOSED):
            self._reason = self._reason or ConnectionClosed("closed by the client", by="client")
            waiting = self.state is State.WAITING
            self._move("close")
            call_off(self._timer)
            self._timer = None
            self._stop_replays()
            if waiting:
                self._defer(self._finish)
            elif self.connection is not None:
                self.connection.close()
        return self.wait_closed(callback=callback)

    def _abort(self) -> None:
        """Wait for the broker no longer, once ``close`` was called."""
        if self.state is State.CLOSING and self.connection is not None:
            self.connection._give_up(ConnectionClosed("closed by the client", by="client"))

    def wait_closed(
        self, *, callback: Callback[Closed | TopologyFailed] | None = None
    ) -> Request[Closed | TopologyFailed]:
        """Wait for the end; the request succeeds with the reason, and never fails."""
        self._check_caller("Reconnector.wait_closed")
        request = Request(self, "Reconnector.wait_closed", callback=callback)
        if self._is_over:
            self._defer(request.resolve, self._reason)
        else:
            self._waiters.append(request)
        return request

    # Members

    def join(self, member: Member, topology: Topology | None = None) -> None:
        """Serve a member from now on; its topology is declared as long as it stays.

        Raises:
            WrongState: The reconnector is closed or closing.
        """
        self._check_caller("Reconnector.join")
        if self.state in (State.CLOSING, State.CLOSED):
            raise WrongState(f"the reconnector is {self.state.value}: {self._reason}")
        mine = Topology()
        if topology is not None and topology is not self.topology:
            mine.update(topology)
        self._members[member] = mine
        if self.state is State.READY:
            self._defer(self._welcome, member, self.epoch)

    def leave(self, member: Member) -> None:
        """Serve a member no more; its topology goes with it.  Idempotent."""
        self._members.pop(member, None)
        self._stop_replay_of(member)

    def _admit(self, member: Member) -> bool:
        """Whether a member may send what perhaps ends the connection.

        One at a time may, until it calls ``_release``: so it is told whose doing an end is.
        """
        if self._prober is None:
            self._prober = member
        return self._prober is member

    def _release(self, member: Member) -> None:
        """What a member was admitted with had its outcome; the others may try.  Idempotent."""
        if self._prober is member:
            self._prober = None
            for other in self._members:
                if other is not member:
                    self._defer(other._writable, True)

    def _welcome(self, member: Member, epoch: int) -> None:
        """A member came when the others were served already: declare what it brought."""
        if epoch != self.epoch or self.state is not State.READY or member not in self._members:
            return
        connection = self.connection
        assert connection is not None
        self.declare(member, (), lambda: member._connected(connection))

    def declare(
        self, member: Member, entities: Iterable[Entity], on_done: Callable[[], object]
    ) -> None:
        """Declare what a member brought, and besides these, while a connection is ready.

        ``on_done`` is called unless the connection is lost, the member leaves, or it asks again.
        """
        self._stop_replay_of(member)
        wanted = Topology()
        wanted.update(self._members.get(member, wanted))
        wanted.add(entities)

        def end_round(replay: Replay) -> None:
            if not replay.failing:
                del self._replays[member]
                on_done()

        self._replays[member] = self._start_replay(wanted, end_round)

    def part_of(self, queue: str) -> Topology:
        """What the topologies of all say about a queue: itself, its bindings, their exchanges."""
        return self._wanted().of_queue(queue)

    def _wanted(self) -> Topology:
        """What is to be declared, whoever wants it."""
        wanted = Topology()
        for topology in (self.topology, *self._members.values()):
            wanted.merge(topology)
        return wanted

    def _is_wanted(self, entity: Entity) -> bool:
        return any(each.has(entity.key) for each in (self.topology, *self._members.values()))

    def _start_replay(
        self, entities: Iterable[Entity], on_round: Callable[[Replay], object]
    ) -> Replay:
        connection = self.connection
        assert connection is not None
        replay = Replay(
            connection,
            list(entities),
            self.adapter,
            on_round=on_round,
            on_error=self._topology_error,
            on_failed=self._topology_failed,
            on_channel=partial(self._channel_tried, connection),
            is_wanted=self._is_wanted,
        )
        # Not from inside: whoever asked has to know the replay before it ends.
        self._defer(replay.start)
        return replay

    def _channel_tried(self, connection: Connection, has_opened: bool) -> None:
        """The broker has opened a channel or not; if it does not, we replace the connection."""
        if connection is not self.connection or not connection.is_open:
            return
        self._unopened = 0 if has_opened else self._unopened + 1
        if self._unopened == UNOPENED_CHANNELS:
            text = f"{self._unopened} channels in a row were not opened"
            connection._give_up(ConnectionClosed(text, by="broker"))

    def _stop_replay_of(self, member: Member) -> None:
        replay = self._replays.pop(member, None)
        if replay is not None:
            replay.stop()

    def _stop_replays(self) -> None:
        """The connection ends: nobody waits for what was being declared on it."""
        for replay in (self._replay, *self._replays.values()):
            if replay is not None:
                replay.stop()
        self._replay = None
        self._replays.clear()
        self._waiting.clear()

    # The machine

    def _move(self, event: str) -> bool:
        """Take an event by the table; False if it comes too late to mean anything."""
        state = TABLE[self.state].get(event)
        if state is None:
            return False
        self.state = state
        return True

    def _dial(self) -> None:
        self._bind_owner()
        self._timer = None
        if not self._move("due"):
            return
        self.epoch += 1
        epoch = _Epoch(self, self.epoch, self._handler)
        self.connection = start(self._targets, epoch, self.adapter)
        self._targets = [*self._targets[1:], self._targets[0]]

    def _opened(self, connection: Connection) -> None:
        if self._move("opened"):
            self._unopened = 0
            self._waiting = list(self._members)
            self._replay = self._start_replay(self._wanted(), self._tried)

    def _tried(self, replay: Replay) -> None:
        """All was tried.  Who needs what failed has to wait, and nobody else."""
        if replay is not self._replay:
            return
        if self.state is State.REPLAYING:
            given = self.topology.retried - self._recorded
            if replay.failing.keys().isdisjoint(given):
                self._be_ready(replay)
        else:
            self._serve(replay)

    def _be_ready(self, replay: Replay) -> None:
        self._move("replayed")
        connection = self.connection
        assert connection is not None
        connection._recorder = Recorder(
            self.topology, self._recorded, self._members.values, self._is_needed
        )
        self._ready_since = self.adapter.time()
        newcomers = [member for member in self._members if member not in self._waiting]
        try:
            connection._invoke("on_open", None, self._handler.on_open, connection)
        finally:  # also when it was interrupted
            self._serve(replay)
            for member in newcomers:
                self._welcome(member, self.epoch)
            self._notify_recovered(connection)

    def _serve(self, replay: Replay) -> None:
        """Tell the members whose topology is there."""
        failing = replay.failing.keys()
        waiting, self._waiting = self._waiting, []
        for member in waiting:
            topology = self._members.get(member)
            if topology is None or self.state is not State.READY:
                continue
            if failing.isdisjoint(topology.retried):
                self._invoke("a member", None, member._connected, self.connection)
            else:
                self._waiting.append(member)

    def _is_needed(self, queue: str) -> bool:
        return any(member._needs(queue) for member in self._members)

    def _notify_recovered(self, connection: Connection) -> None:
        lost_since, self._lost_since = self._lost_since, None
        attempts, self._attempts = self._attempts, 0
        if lost_since is None or not (self.is_ready and connection.is_open):
            return
        log.info("connected again to %s", connection.name or connection.parameters)
        if self._on_recovered is not None:
            seconds = self._ready_since - lost_since
            self._invoke("on_recovered", None, self._on_recovered, attempts, seconds)

    def _lost(self, reason: ConnectionClosed) -> None:
        was_ready = self.state is State.READY
        if not self._move("lost"):
            return
        self.connection = None
        self._stop_replays()
        now = self.adapter.time()
        if self._lost_since is None:
            self._lost_since = now
        if was_ready and now - self._ready_since >= STABLE_AFTER:
            self._backoff.reset()
        for member in list(self._members):
            self._invoke("a member", None, member._disconnected, reason)
        if self.state is State.CLOSED:
            self._finish()
        elif self.state is State.WAITING:
            self._wait(reason)

    def _wait(self, reason: ConnectionClosed) -> None:
        retry = retry_of(reason)
        delay = self._backoff.next(retry)
        self._attempts += 1
        attempt = self._attempts
        is_grave = retry != "soon" or isinstance(reason, ProtocolError)
        level = logging.ERROR if is_grave else logging.WARNING
        log.log(level, "attempt %d to reconnect in %.2f s: %s", attempt, delay, reason)
        self._timer = self.adapter.call_later(delay, self._dial)
        if self._on_reconnecting is not None:
            self._invoke("on_reconnecting", None, self._on_reconnecting, attempt, delay, reason)

    def _topology_error(self, entity: Entity, reason: ChannelClosed) -> None:
        log.error("could not declare %s: %s", entity, reason)
        is_locked = reason.code == RESOURCE_LOCKED and entity.key in self._recorded
        if is_locked and self.adapter.time() - self._ready_since >= LOCKED_FOR_GOOD:
            # A channel has declared it on a former connection.  Now it is somebody else's.
            self.topology.remove_queue(entity.key[1])
            self._recorded &= self.topology.keys
        if self._on_topology_error is not None:
            self._invoke("on_topology_error", None, self._on_topology_error, entity, reason)

    def _topology_failed(self, entity: Entity, reason: ChannelClosed) -> None:
        error = TopologyFailed(f"could not declare {entity}: {reason}")
        error.__cause__ = reason
        log.error("gave up, by the policy of that entity: %s", error)
        self._reason = error
        self.close()

    def _finish(self) -> None:
        assert self._reason is not None
        self._is_over = True
        members, self._members = self._members, {}
        for member in members:
            self._invoke("a member", None, member._ended, self._reason)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.resolve(self._reason)


class _Epoch(Handler):
    """The handler of one connection; what comes after the next was begun is dropped."""

    def __init__(self, reconnector: Reconnector, epoch: int, handler: Handler) -> None:
        self._reconnector = reconnector
        self._epoch = epoch
        self._user = handler
        for name in CALLBACKS:
            if name not in vars(_Epoch):
                setattr(self, name, getattr(handler, name))

    @property
    def _is_late(self) -> bool:
        return self._epoch != self._reconnector.epoch

    def on_open(self, connection: Connection) -> None:
        if not self._is_late:
            self._reconnector._opened(connection)

    def on_open_error(self, connection: Connection, error: ConnectionClosed) -> None:
        try:
            self._user.on_open_error(connection, error)
        finally:
            if not self._is_late:
                self._reconnector._lost(error)

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> None:
        try:
            self._user.on_close(connection, reason)
        finally:
            if not self._is_late:
                self._reconnector._lost(reason)

    def on_writable(self, connection: Connection, writable: bool) -> None:
        try:
            self._user.on_writable(connection, writable)
        finally:
            if not self._is_late:
                for member in list(self._reconnector._members):
                    member._writable(writable)


class _Quiet(Handler):
    """For who wants no callbacks: the reconnector logs each loss itself."""

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> None:
        """Logged with the wait that follows."""
