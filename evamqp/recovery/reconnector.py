"""One connection after another: dial, replay the topology, serve, wait, dial again.

Messages are not known here: ``ledger.py`` keeps those that are published, the broker the rest.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from evamqp.core.handler import CALLBACKS, Handler
from evamqp.core.request import Request
from evamqp.driver import default_adapter, start
from evamqp.errors import (
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
from evamqp.recovery.client import Client, call_off
from evamqp.recovery.topology import Entity, Recorder, Replay, Topology

if TYPE_CHECKING:
    from evamqp.adapters.base import Adapter, Handle
    from evamqp.core.connection import Connection
    from evamqp.types import Callback

log = logging.getLogger(__name__)

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


class Reconnector(Client):
    """Keeps one connection up, for as long as it is not closed.

    Several publishers and consumers may share it.  Their topologies, and whatever channels of its
    connections declare, are in ``topology`` and declared again on each new connection.

    Args:
        target: A URL, Parameters, or a list of them, which is shuffled once and then rotated.
            Names are resolved, and callable credentials asked for, at every attempt.
        adapter: The loop; None means the running asyncio loop.
        topology: To be declared from the first connection on; None means an empty one.
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
        self._members: list[Member] = []
        self._prober: Member | None = None  # who may send what may end the connection
        # Who joined while the topology was being declared, and what each brought.
        self._newcomers: list[tuple[Member, Topology]] = []
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
                self._owe(self._finish)
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
            self._owe(request.resolve, self._reason)
        else:
            self._waiters.append(request)
        return request

    # Members

    def join(self, member: Member, topology: Topology | None = None) -> None:
        """Serve a member from now on; its topology is added to ours.

        Raises:
            WrongState: The reconnector is closed or closing.
        """
        self._check_caller("Reconnector.join")
        if self.state in (State.CLOSING, State.CLOSED):
            raise WrongState(f"the reconnector is {self.state.value}: {self._reason}")
        if topology is not None and topology is not self.topology:
            self.topology.update(topology)
        self._members.append(member)
        if self.state is State.READY:
            self._owe(self._welcome, member, topology or Topology(), self.epoch)
        elif self.state is State.REPLAYING and topology is not None:
            self._newcomers.append((member, topology))

    def leave(self, member: Member) -> None:
        """Serve a member no more; its topology stays.  Idempotent."""
        if member in self._members:
            self._members.remove(member)
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
                    self._owe(other._writable, True)

    def _welcome(self, member: Member, topology: Topology, epoch: int) -> None:
        """A member came when the topology was declared already: declare what it brought."""
        if epoch != self.epoch or self.state is not State.READY or member not in self._members:
            return
        connection = self.connection
        assert connection is not None
        self.declare(member, topology, lambda: member._connected(connection))

    def declare(
        self, member: Member, entities: Iterable[Entity], on_done: Callable[[], object]
    ) -> None:
        """Declare entities for a member, while a connection is ready.

        ``on_done`` is called unless the connection is lost, the member leaves, or it asks again.
        """
        self._stop_replay_of(member)
        self._replays[member] = self._start_replay(entities, on_done)

    def _start_replay(self, entities: Iterable[Entity], on_done: Callable[[], object]) -> Replay:
        connection = self.connection
        assert connection is not None
        replay = Replay(
            connection,
            list(entities),
            self.adapter,
            on_done=on_done,
            on_error=self._topology_error,
            on_failed=self._topology_failed,
        )
        # Not from inside: whoever asked has to know the replay before it ends.
        self._owe(replay.start)
        return replay

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
        self._newcomers.clear()

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
            self._replay = self._start_replay(self.topology, self._replayed)

    def _replayed(self) -> None:
        if not self._move("replayed"):
            return
        connection = self.connection
        assert connection is not None
        self._replay = None
        connection._recorder = Recorder(self.topology)
        self._ready_since = self.adapter.time()
        newcomers, self._newcomers = self._newcomers, []
        strangers = [member for member, _ in newcomers]
        try:
            connection._tell("on_open", None, self._handler.on_open, connection)
        finally:  # also when it was interrupted
            for member in list(self._members):
                if member not in strangers:
                    self._tell("a member", None, member._connected, connection)
            for member, topology in newcomers:
                self._welcome(member, topology, self.epoch)
            self._tell_recovered(connection)

    def _tell_recovered(self, connection: Connection) -> None:
        lost_since, self._lost_since = self._lost_since, None
        attempts, self._attempts = self._attempts, 0
        if lost_since is None or not (self.is_ready and connection.is_open):
            return
        log.info("connected again to %s", connection.name or connection.parameters)
        if self._on_recovered is not None:
            seconds = self._ready_since - lost_since
            self._tell("on_recovered", None, self._on_recovered, attempts, seconds)

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
            self._tell("a member", None, member._disconnected, reason)
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
            self._tell("on_reconnecting", None, self._on_reconnecting, attempt, delay, reason)

    def _topology_error(self, entity: Entity, reason: ChannelClosed) -> None:
        log.error("could not declare %s: %s", entity, reason)
        if self._on_topology_error is not None:
            self._tell("on_topology_error", None, self._on_topology_error, entity, reason)

    def _topology_failed(self, entity: Entity, reason: ChannelClosed) -> None:
        error = TopologyFailed(f"could not declare {entity}: {reason}")
        error.__cause__ = reason
        log.error("gave up, by the policy of that entity: %s", error)
        self._reason = error
        self.close()

    def _finish(self) -> None:
        assert self._reason is not None
        self._is_over = True
        members, self._members = self._members, []
        for member in members:
            self._tell("a member", None, member._ended, self._reason)
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
