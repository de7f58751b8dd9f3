"""One connection after another: dial, replay the topology, serve, wait, dial again.

No messages here: ``ledger.py`` keeps those that are published, and the broker keeps the rest.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from evamqp.core.handler import Handler
from evamqp.core.request import Request, check_callbacks
from evamqp.core.stats import Stats
from evamqp.core.unclosed import report
from evamqp.driver import chosen_adapter, start
from evamqp.errors import (
    RESOURCE_LOCKED,
    BadType,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    ProtocolError,
    TopologyFailed,
    WrongState,
    shown,
)
from evamqp.parameters import Parameters, parse_targets
from evamqp.recovery.backoff import STABLE_AFTER, Backoff, retry_of
from evamqp.recovery.client_log import OutageLog
from evamqp.recovery.closed_at_exit import CLOSE_GRACE
from evamqp.recovery.epoch import EpochHandler
from evamqp.recovery.health import HealthState, ReconnectorStats, state_of
from evamqp.recovery.loop_bound import LoopHost, cancel_all
from evamqp.recovery.members import Member, Members
from evamqp.recovery.readiness import CanBeReady
from evamqp.recovery.recorder import Recorder
from evamqp.recovery.replay import Replay
from evamqp.recovery.state import TABLE, Event, State
from evamqp.recovery.topology import Entity, Key, Topology

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.connection import Connection
    from evamqp.types import Callback

# Replace the connection after this many channels in a row that the broker did not open.
UNOPENED_CHANNELS = 3

# Seconds.  A broker notices the end of our former connection after three heartbeats at the latest,
# three minutes by default; an exclusive queue that is locked for longer belongs to another client.
LOCKED_FOR_GOOD = 300.0

Target = str | Parameters | Sequence[str | Parameters]


class Reconnector(CanBeReady):
    """Keeps one connection up until you close it.

    Several publishers and consumers may share it.  On each new connection it declares
    ``topology``, which records what channels of its connections declare, and then what publishers
    and consumers brought.  All of them wait for ``topology``; what a publisher or consumer brought
    delays only itself while it cannot be declared, and is dropped when it closes.

    Args:
        target: A URL, Parameters, or a list of them, which is shuffled once and then rotated.
            Every attempt resolves names and calls callable credentials anew.
        adapter: The loop; None means the running asyncio loop.
        topology: What to declare from the first connection on; None means nothing.  It gains what
            channels declare, and loses what they delete and auto-delete queues and exchanges that
            are gone.
        handler: Gets each connection's callbacks; ``on_open`` comes with each connection, once
            the topology is declared.
        on_reconnecting: Called before each wait with attempt (1 is the first after a loss), delay
            in seconds and reason.
        on_recovered: Called with the number of attempts and the seconds since the loss, once the
            connection serves again.
        on_topology_error: Called with each entity that failed and the broker's reason.  An entity
            over which the broker closed the whole connection, such as a queue of a deprecated
            kind, is tried again only after the connection is lost for another reason.
        backoff: The delays; None means full jitter up to 30 s.

    Raises:
        BadArgument, BadType: A target is malformed, or topology or handler has the wrong type.
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
        for thing, kind in ((topology, Topology), (handler, Handler), (backoff, Backoff)):
            if thing is not None and not isinstance(thing, kind):
                raise BadType(f"expected a {kind.__name__}, not {type(thing).__name__}")
        check_callbacks(type(self).__name__, on_reconnecting, on_recovered, on_topology_error)
        super().__init__(LoopHost(chosen_adapter(adapter)))
        self._check_caller(type(self).__name__)
        random.shuffle(targets)
        self.topology: Topology = Topology() if topology is None else topology
        self.state: State = State.WAITING
        self.connection: Connection | None = None
        self.epoch: int = 0
        self._connections = 0  # that were ready
        self._traffic = Stats()  # of those that have ended
        self._targets = targets
        self._handler = handler or Handler()
        self._on_reconnecting = on_reconnecting
        self._on_recovered = on_recovered
        self._on_topology_error = on_topology_error
        self._backoff = backoff or Backoff()
        self._members = Members(self.topology)
        self._recorded: set[Key] = set()  # what channels have added to ``topology``
        # Entities over which the broker closed connections, until one is lost for another reason.
        self._fatal: list[Entity] = []
        self._dialled = targets  # in the last attempt
        self._last_connection: Connection | None = None  # whose end is being reported
        # Not bound to us, for a timer of the log must not keep us.
        self._log = OutageLog(self.adapter, partial(_label_of, ref(self)))
        self._was_fatal = False  # whether this connection ends over one
        # Members whose topology is being declared, in this epoch.
        self._waiting: list[Member] = []
        self._unopened = 0  # channels in a row that the broker did not open on this connection
        self._waiters: list[Request[Closed | TopologyFailed]] = []
        self._is_over = False
        self._reason: Closed | TopologyFailed | None = None
        self._replay: Replay | None = None
        self._replays: dict[Member, Replay] = {}  # those that members requested
        self._timer: Handle | None = self.adapter.call_soon(self._dial)
        self._must_close = True
        self._attempts = 0  # since the loss
        self._ready_since = 0.0
        self._lost_since: float | None = None

    def __repr__(self) -> str:
        return f"<Reconnector {self.state.value} epoch {self.epoch}>"

    @property
    def is_ready(self) -> bool:
        """Whether a connection is open and its topology declared."""
        return self.state is State.READY

    @property
    def ready_for(self) -> float:
        """Seconds since it became ready; 0 while it is not."""
        return self.adapter.time() - self._ready_since if self.is_ready else 0.0

    @property
    def _current(self) -> Connection | None:
        return self.connection

    @property
    def _health_state(self) -> HealthState:
        return state_of(self.state, self.connection, is_ready=self.is_ready)

    @property
    def stats(self) -> ReconnectorStats:
        """What it has done so far, over all connections."""
        traffic = self._traffic.copy()
        if self.connection is not None:
            traffic.add(self.connection.stats)
        return ReconnectorStats(self.epoch, self._connections, traffic)

    def close(
        self, *, callback: Callback[Closed | TopologyFailed] | None = None
    ) -> Request[Closed | TopologyFailed]:
        """Close the connection and make no other.  Idempotent, and legal in any state.

        Args:
            callback: Called with the reason at the end.

        Returns:
            The request of wait_closed().
        """
        self._check_caller("Reconnector.close")
        if self.state not in (State.CLOSING, State.CLOSED):
            self._reason = self._reason or ConnectionClosed("closed by the client", by="client")
            self._readiness.end(self._reason)
            waiting = self.state is State.WAITING
            self._move(Event.CLOSE)
            cancel_all(self._timer)
            self._timer = None
            self._stop_replays()
            if waiting:
                self._defer(self._finish)
            elif self.connection is not None:
                self.connection.close()
        return self.wait_closed(callback=callback)

    def _close_within(self, timeout: float | None) -> Request[Closed | TopologyFailed]:
        if timeout is None:
            return self.close()
        timer = self.adapter.call_later(timeout + CLOSE_GRACE, self.abort)
        return self.close(callback=lambda reason: timer.cancel())

    def abort(self) -> None:
        """After close(): end the connection without waiting for the broker.  Idempotent."""
        if self.state is State.CLOSING and self.connection is not None:
            self.connection.abort(ConnectionClosed("closed by the client", by="client"))

    def wait_closed(
        self, *, callback: Callback[Closed | TopologyFailed] | None = None
    ) -> Request[Closed | TopologyFailed]:
        """Return a request that succeeds with the reason at the end; it never fails."""
        self._check_caller("Reconnector.wait_closed")
        request = Request(self._host, "Reconnector.wait_closed", callback=callback)
        if self._is_over:
            self._defer(request.resolve, self._reason)
        else:
            self._waiters.append(request)
        return request

    # Members

    def join(self, member: Member, topology: Topology | None = None) -> None:
        """Serve a member from now on, and declare its topology until it leaves.

        Raises:
            WrongState: The reconnector is closed or closing.
        """
        self._check_caller("Reconnector.join")
        if self.state in (State.CLOSING, State.CLOSED):
            raise WrongState(f"the reconnector is {self.state.value}: {self._reason}")
        self._members.add(member, topology)
        if self.state is State.READY:
            self._defer(self._welcome, member, self.epoch)

    def leave(self, member: Member) -> None:
        """Stop serving a member, and drop its topology.  Idempotent."""
        self._members.remove(member)
        self._stop_replay_of(member)

    def admit(self, member: Member) -> bool:
        """Whether a member may send what may end the connection; then it must call release()."""
        return self._members.admit(member)

    def release(self, member: Member) -> None:
        """Let other members try: what this one sent has its outcome.  Idempotent."""
        for other in self._members.release(member):
            self._defer(other._writable, True)

    def _welcome(self, member: Member, epoch: int) -> None:
        """Late joiner: declare its topology, then notify it."""
        if epoch != self.epoch or self.state is not State.READY or member not in self._members:
            return
        connection = self.connection
        assert connection is not None
        self.declare(member, (), lambda: member._connected(connection))

    def declare(
        self, member: Member, entities: Iterable[Entity], on_done: Callable[[], object]
    ) -> None:
        """Declare what a member brought, and ``entities``; a connection must be ready.

        ``on_done`` is not called if the connection is lost, or if the member leaves or calls again.
        """
        self._stop_replay_of(member)
        wanted = Topology()
        wanted.update(self._members.brought_by(member))
        wanted.add(entities)

        def end_round(replay: Replay) -> None:
            if not replay.failing:
                del self._replays[member]
                on_done()

        self._replays[member] = self._start_replay(wanted, end_round)

    def part_of(self, queue: str) -> Topology:
        """What is to be declared for a queue: itself, its bindings and their exchanges."""
        return self._members.wanted().of_queue(queue)

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
            on_channel=partial(self.channel_tried, connection),
            on_fatal=self._topology_fatal,
            is_wanted=self._members.want,
            is_fatal=self._fatal.__contains__,
        )
        # Deferred: the caller must know the replay before it can end.
        self._defer(replay.start)
        return replay

    def channel_tried(self, connection: Connection, has_opened: bool) -> None:
        """Note whether the broker opened a channel; replace a connection on which it opens none."""
        if connection is not self.connection or not connection.is_open:
            return
        self._unopened = 0 if has_opened else self._unopened + 1
        if self._unopened == UNOPENED_CHANNELS:
            text = f"{self._unopened} channels in a row were not opened"
            connection.abort(ConnectionClosed(text, by="broker"))

    def _stop_replay_of(self, member: Member) -> None:
        replay = self._replays.pop(member, None)
        if replay is not None:
            replay.stop()

    def _stop_replays(self) -> None:
        """Stop every replay: the connection ends."""
        for replay in (self._replay, *self._replays.values()):
            if replay is not None:
                replay.stop()
        self._replay = None
        self._replays.clear()
        self._waiting.clear()

    # The machine

    def _move(self, event: Event) -> bool:
        """Change the state by the table; False if the event is late."""
        state = TABLE[self.state].get(event)
        if state is None:
            return False
        self.state = state
        return True

    def _dial(self) -> None:
        self._host.bind_owner()
        self._timer = None
        if not self._move(Event.DUE):
            return
        self.epoch += 1
        handler = EpochHandler(
            self._handler,
            partial(self._is_current, self.epoch),
            opened=self._opened,
            lost=self._lost,
            writable=self._writable,
            blocked=self._blocked,
        )
        self._dialled = list(self._targets)
        self.connection = start(self._targets, handler, self.adapter)
        self._targets = [*self._targets[1:], self._targets[0]]

    def _is_current(self, epoch: int) -> bool:
        return epoch == self.epoch

    def _writable(self, writable: bool) -> None:
        for member in self._members:
            member._writable(writable)

    def _report_unclosed(self) -> None:
        if self._must_close and not list(self._members) and self.state is not State.CLOSED:
            report(self, 0, "")

    def _blocked(self, reason: str | None) -> None:
        if reason is None:
            self._log.unblocked()
        else:
            self._log.blocked(shown(reason))

    @property
    def label(self) -> str:
        """Whose connection to what, as logs show it: see ``Parameters.label``."""
        connection = self.connection or self._last_connection
        if connection is not None and connection.parameters is not None:
            return connection.label
        first, *others = self._dialled
        return f"{first.label} (or {len(others)} other targets)" if others else first.label

    def _opened(self, connection: Connection) -> None:
        if self._move(Event.OPENED):
            self._unopened = 0
            self._waiting = list(self._members)
            self._replay = self._start_replay(self._members.wanted(), self._tried)

    def _tried(self, replay: Replay) -> None:
        """Every entity was tried: serve the members that need none of those that failed."""
        if replay is not self._replay:
            return
        if self.state is State.REPLAYING:
            given = self.topology.retried - self._recorded
            if replay.failing.keys().isdisjoint(given):
                self._be_ready(replay)
        else:
            self._serve(replay)

    def _be_ready(self, replay: Replay) -> None:
        self._move(Event.REPLAYED)
        connection = self.connection
        assert connection is not None
        connection.context.recorder = Recorder(
            self.topology,
            self._recorded,
            lambda: self._members.topologies,
            self._members.need,
            self.label,
        )
        self._ready_since = self.adapter.time()
        self._connections += 1
        newcomers = [member for member in self._members if member not in self._waiting]
        try:
            connection.invoke("on_open", self._handler.on_open, connection)
        finally:  # also when it was interrupted
            self._serve(replay)
            for member in newcomers:
                self._welcome(member, self.epoch)
            self._notify_recovered(connection)

    def _serve(self, replay: Replay) -> None:
        """Notify the members whose topology is declared."""
        failing = replay.failing.keys()
        waiting, self._waiting = self._waiting, []
        for member in waiting:
            if member not in self._members or self.state is not State.READY:
                continue
            if failing.isdisjoint(self._members.brought_by(member).retried):
                self._invoke("a member", member._connected, self.connection)
            else:
                self._waiting.append(member)

    def _notify_recovered(self, connection: Connection) -> None:
        lost_since, self._lost_since = self._lost_since, None
        attempts, self._attempts = self._attempts, 0
        if not (self.is_ready and connection.is_open):
            return
        self._readiness.ready()
        since = None if lost_since is None else self._ready_since - lost_since
        self._log.connected(_product_of(connection), attempts, since)
        if lost_since is None:
            return
        if self._on_recovered is not None:
            seconds = self._ready_since - lost_since
            self._invoke("on_recovered", self._on_recovered, attempts, seconds)

    def _lost(self, reason: ConnectionClosed) -> None:
        was_ready = self.state is State.READY
        if not self._move(Event.LOST):
            return
        if not self._was_fatal:
            self._fatal.clear()  # the broker may accept them now
        self._was_fatal = False
        if self.connection is not None:
            self._traffic.add(self.connection.stats)
        self.connection, self._last_connection = None, self.connection
        self._stop_replays()
        now = self.adapter.time()
        if self._lost_since is None:
            self._lost_since = now
        if was_ready and now - self._ready_since >= STABLE_AFTER:
            self._backoff.reset()
        self._readiness.failed(reason)
        for member in self._members:
            self._invoke("a member", member._disconnected, reason)
        if self.state is State.CLOSED:
            self._finish()
        elif self.state is State.WAITING:
            self._wait(reason, was_ready)
        self._last_connection = None

    def _wait(self, reason: ConnectionClosed, was_open: bool) -> None:
        retry = retry_of(reason)
        delay = self._backoff.next(retry)
        self._attempts += 1
        attempt = self._attempts
        is_grave = retry != "soon" or isinstance(reason, ProtocolError)
        level = logging.ERROR if is_grave else logging.WARNING
        self._log.failed(level, attempt, delay, reason, was_open)
        self._timer = self.adapter.call_later(delay, self._dial)
        if self._on_reconnecting is not None:
            self._invoke("on_reconnecting", self._on_reconnecting, attempt, delay, reason)

    def _topology_error(self, entity: Entity, reason: ChannelClosed) -> None:
        text = f"could not declare {entity}: {reason}"
        self._log.write(logging.ERROR, "failed declaration", text)
        if entity.policy == "retry":
            if self.topology.has(entity.key):
                self._readiness.failed(reason)
            for member in self._members.waiting_for(entity.key):
                self._invoke("a member", member._undeclared, reason)
        is_locked = reason.code == RESOURCE_LOCKED and entity.key in self._recorded
        if is_locked and self.adapter.time() - self._ready_since >= LOCKED_FOR_GOOD:
            # A channel declared it on a former connection.  By now another client owns it.
            self.topology.remove_queue(entity.key[1])
            self._recorded &= self.topology.keys
        if self._on_topology_error is not None:
            self._invoke("on_topology_error", self._on_topology_error, entity, reason)

    def _topology_fatal(self, entity: Entity, reason: ChannelClosed) -> None:
        """The broker closed the connection over an entity; leave it out of the next one.

        While members are served, others declare beside a replay, and the broker does not say whose
        declaration it blames.  On the next connection no other does.
        """
        if self.state is not State.REPLAYING:
            return
        self._was_fatal = True
        self._fatal.append(entity)
        self._topology_error(entity, reason)
        if entity.policy == "fail" and self.state is State.REPLAYING:
            self._topology_failed(entity, reason)

    def _topology_failed(self, entity: Entity, reason: ChannelClosed) -> None:
        error = TopologyFailed(f"could not declare {entity}: {reason}")
        error.__cause__ = reason
        self._reason = error
        self.close()

    def _finish(self) -> None:
        assert self._reason is not None
        self._is_over = True
        level = logging.INFO if isinstance(self._reason, Closed) else logging.ERROR
        self._log.closed(level, self._reason)
        for member in self._members.clear():
            self._invoke("a member", member._ended, self._reason)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.resolve(self._reason)


def _label_of(reconnector: ref[Reconnector]) -> str:
    alive = reconnector()
    return "a reconnector that is gone" if alive is None else alive.label


def _product_of(connection: Connection) -> str:
    """What the broker calls itself."""
    properties = connection.server_properties
    words = [properties.get(key) for key in ("product", "version")]
    return shown(" ".join(word for word in words if isinstance(word, str))) or "the broker"
