"""What Publisher, Consumer and RpcClient share: a reconnector that serves them, and a bounded end.

Each of them decides what to do with its channel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from evamqp.core.handler import Handler
from evamqp.core.log_limit import LogLimit
from evamqp.core.request import Request
from evamqp.core.unclosed import report
from evamqp.errors import BadType, ConnectionClosed, WrongState
from evamqp.recovery.client_log import MEMBER_BURST, MEMBER_INTERVAL, ClientLog
from evamqp.recovery.closed_at_exit import CLOSE_GRACE
from evamqp.recovery.health import HealthState, state_of
from evamqp.recovery.loop_bound import cancel_all, checked_timeout
from evamqp.recovery.readiness import CanBeReady
from evamqp.recovery.reconnector import Reconnector, Target
from evamqp.recovery.topology import Topology

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection
    from evamqp.errors import ChannelClosed, Closed, TopologyFailed

R = TypeVar("R")


class ChannelEvents(Handler):
    """Reports the opening and the end of a client's channel to it."""

    def __init__(self, member: ReconnectingClient[Any]) -> None:
        self._member = member
        self._has_opened = False

    def on_channel_open(self, channel: Channel) -> None:
        self._has_opened = True
        self._member.reconnector.channel_tried(channel.connection, True)

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        if not self._has_opened and reason.by == "broker":
            self._member.reconnector.channel_tried(channel.connection, False)
        self._member._channel_closed(channel, reason)

    def on_consumer_cancel(self, channel: Channel, consumer_tag: str) -> None:
        """Do nothing: the ``on_cancel`` of basic_consume reports it."""


class ReconnectingClient(CanBeReady, Generic[R]):
    """A member of a reconnector, with one channel at a time.  close() reports an R."""

    def __init__(
        self,
        target: Target | Reconnector,
        adapter: Adapter | None,
        topology: Topology | None,
        **options: Any,
    ) -> None:
        if topology is not None and not isinstance(topology, Topology):
            raise BadType(f"topology must be a Topology, not {type(topology).__name__}")
        self._is_owner = not isinstance(target, Reconnector)
        reconnector = (
            target
            if isinstance(target, Reconnector)
            else Reconnector(target, adapter=adapter, **options)
        )
        super().__init__(reconnector._host)
        self.reconnector = reconnector
        self._channel: Channel | None = None
        self._is_served = False  # whether the broker has agreed to all that our channel is for
        self._retry: Handle | None = None  # of the step to try again
        self._closing: list[Request[R]] = []
        self._close_timer: Handle | None = None
        self._is_closing = False
        self._reports: list[R] = []  # one, once it has ended
        self._is_over = False
        self._reason: Closed | TopologyFailed | None = None  # why the reconnector ended
        self._log = ClientLog(
            self.adapter,
            partial(_label_of, reconnector, ref(self)),
            LogLimit(MEMBER_BURST, MEMBER_INTERVAL),
        )
        reconnector.join(self, topology)
        self._must_close = True

    @property
    def label(self) -> str:
        """Its name in log lines: see ``Reconnector.label``."""
        return f"{self.reconnector.label} {self._role()}"

    @property
    def _current(self) -> Connection | None:
        return self.reconnector.connection

    @property
    def _health_state(self) -> HealthState:
        if self._is_over:
            return "CLOSED"
        if self._is_closing:
            return "CLOSING"
        reconnector = self.reconnector
        return state_of(reconnector.state, reconnector.connection, is_ready=self.is_ready)

    def _role(self) -> str:
        """What it is to its connection."""
        return type(self).__name__

    def _unfinished(self) -> tuple[int, str]:
        """How many messages have no outcome, and that in words."""
        return 0, ""

    def _report_unclosed(self) -> None:
        if self._must_close and not self._is_over:
            count, what = self._unfinished()
            if count or not self._is_closing:
                report(self, count, what)

    @property
    def _is_closed(self) -> bool:
        return bool(self._reports)

    @property
    def is_ready(self) -> bool:
        """Whether its channel is open, and the broker agreed to what it is for."""
        return self._is_served and self._channel is not None

    def _be_ready(self, channel: Channel) -> None:
        """The broker has agreed to what this channel is for."""
        if channel is self._channel and not self._is_closing:
            self._is_served = True
            self._readiness.ready()

    def _check_open(self, what: str) -> None:
        self._check_caller(what)
        if self._is_closing:
            why = "" if self._reason is None else f": {self._reason}"
            raise WrongState(f"{what}: the {type(self).__name__} is closed{why}")

    def _close(self, timeout: float | None) -> Request[R]:
        what = f"{type(self).__name__}.close"
        self._check_caller(what)
        timeout = checked_timeout(timeout)
        request: Request[R] = Request(self._host, what)
        if self._is_over:
            self._defer(request.resolve, self._reports[0])
            return request
        self._closing.append(request)
        if timeout is not None:
            cancel_all(self._close_timer)
            self._close_timer = self.adapter.call_later(timeout, self._time_is_up)
        if not self._is_closing:
            self._is_closing = True
            self._readiness.end(ConnectionClosed("closed by the client", by="client"))
            self._stop()
            self._defer(self._close_if_done)
        return request

    @abstractmethod
    def close(self, timeout: float | None = None) -> Request[R]:
        """Accept nothing more, wait for what is under way, then disconnect."""

    def _close_within(self, timeout: float | None) -> Request[R]:
        return self.close(timeout)

    def _time_is_up(self) -> None:
        """End what is left now, and the connection soon, even if the broker reads nothing."""
        self._give_up()
        if self._is_owner and not self._is_over:
            self._close_timer = self.adapter.call_later(CLOSE_GRACE, self.reconnector.abort)

    def _finish(self, outcome: R) -> None:
        """Leave channel and reconnector, then resolve the requests of close()."""
        if self._is_closed:
            return
        self._reports.append(outcome)
        cancel_all(self._retry)
        self._retry = None
        self._log.end()
        self.reconnector.leave(self)
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        if self._is_owner:
            self.reconnector.close(callback=self._notify_closed)
        else:
            self._notify_closed(None)

    def _notify_closed(self, reason: object) -> None:
        self._is_over = True
        cancel_all(self._close_timer)
        self._close_timer = None
        requests, self._closing = self._closing, []
        for request in requests:
            request.resolve(self._reports[0])

    def _ready_connection(self) -> Connection | None:
        """The connection to open a channel on; None if no channel is needed, or none is ready."""
        reconnector = self.reconnector
        if self._channel is not None or self._is_closed or not reconnector.is_ready:
            return None
        connection = reconnector.connection
        return connection if connection is not None and connection.is_open else None

    def _try_later(self, delay: float, step: Callable[[], object]) -> None:
        """Run ``step`` after ``delay`` if a connection is ready; cancel the step before it."""
        cancel_all(self._retry)

        def again() -> None:
            self._retry = None
            if self.reconnector.is_ready:
                step()

        self._retry = self.adapter.call_later(delay, again)

    # Member of the reconnector

    def _connected(self, connection: Connection) -> None:
        self._open_channel()

    def _undeclared(self, reason: ChannelClosed) -> None:
        self._readiness.failed(reason)

    def _disconnected(self, reason: ConnectionClosed) -> None:
        self._readiness.failed(reason)
        self._channel = None
        cancel_all(self._retry)
        self._retry = None

    def _ended(self, reason: Closed | TopologyFailed) -> None:
        """There will be no further connection."""
        self._is_closing = True
        self._reason = reason
        self._readiness.end(reason)
        self._give_up()

    def _needs(self, queue: str) -> bool:
        """Whether it will consume from this queue again."""
        return False

    # For subclasses

    @abstractmethod
    def _open_channel(self) -> None:
        """Open a channel, if one is needed and possible."""

    @abstractmethod
    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        """A channel ended, perhaps a former one."""

    @abstractmethod
    def _writable(self, writable: bool) -> None:
        """The connection's backpressure changed."""

    @abstractmethod
    def _stop(self) -> None:
        """Accept nothing new: close() was called."""

    @abstractmethod
    def _close_if_done(self) -> None:
        """Finish if nothing is left."""

    @abstractmethod
    def _give_up(self) -> None:
        """Finish now, whatever is left."""


def _label_of(reconnector: Reconnector, member: ref[ReconnectingClient[Any]]) -> str:
    alive = member()
    return reconnector.label if alive is None else alive.label
