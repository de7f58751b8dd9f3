"""How a client is doing now, and what it has done so far: what operators look at.

Plain values, computed on request; no decision depends on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from evamqp.recovery.state import State

if TYPE_CHECKING:
    from evamqp.core.connection import Connection
    from evamqp.core.stats import Stats
    from evamqp.errors import AmqpError

#: The states of a reconnector, and while its connection is up whether the client is served, paused
#: or blocked, or hears nothing from the broker.
HealthState: TypeAlias = Literal[
    "WAITING",
    "DIALLING",
    "REPLAYING",
    "OPENING",
    "PAUSED",
    "READY",
    "BLOCKED",
    "SILENT",
    "CLOSING",
    "CLOSED",
]

# A broker sends something every half heartbeat interval; one that misses the next is overdue.
SILENT_AFTER = 3 / 4


class Health(NamedTuple):
    """How a client is doing.

    Attributes:
        state: WAITING for the next attempt, DIALLING, REPLAYING its topology, OPENING its channel,
            PAUSED, READY, BLOCKED by an alarm, SILENT: ready, but the broker has missed a
            heartbeat; CLOSING or CLOSED.
        since: Seconds for which it has been ready, or not been.
        last_error: The last error that kept it from being ready, also once it is ready again; None
            if there was none.
        pending: A Publisher's messages without an outcome.
        at_work: A Consumer's messages whose handlers run.
        last_confirm: Seconds since a Publisher's last confirm or nack; None before the first.
        last_delivery: Seconds since a Consumer's last message; None before the first.
        silence: Seconds for which the broker has sent nothing, in quarters of the heartbeat
            interval; None without connection or heartbeats.
    """

    state: HealthState
    since: float
    last_error: AmqpError | None
    pending: int = 0
    at_work: int = 0
    last_confirm: float | None = None
    last_delivery: float | None = None
    silence: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether messages can be published or consumed now, as far as we know."""
        return self.state == "READY"


class ReconnectorStats(NamedTuple):
    """What a reconnector has done so far.

    Attributes:
        attempts: Connections begun.
        connections: Those that were ready to serve.
        traffic: The counters of all of them together.
    """

    attempts: int
    connections: int
    traffic: Stats


class PublisherStats(NamedTuple):
    """What became of a publisher's messages so far; all but ``repeats`` add up to ``accepted``.

    Attributes:
        accepted: Calls of publish() that did not raise.
        pending: Without an outcome yet.
        repeats: Times that one was queued to be sent again, after a loss or a nack.
    """

    accepted: int
    pending: int
    confirmed: int
    nacked: int
    returned: int
    expired: int
    refused: int
    abandoned: int
    repeats: int


class ConsumerStats(NamedTuple):
    """What a consumer's handlers have done so far, in messages.

    Attributes:
        delivered: Given to a handler.
        handled: Whose handler has ended, well or not, and was not interrupted.
        failed: Whose handler has failed.
        retried: Whose copy for a later attempt, or for the dead-letter queue, is confirmed.
    """

    delivered: int
    handled: int
    failed: int
    retried: int


def state_of(machine: State, connection: Connection | None, *, is_ready: bool) -> HealthState:
    """The state of a client that is neither closing nor paused."""
    if machine is not State.READY:
        return _STATES[machine]
    if not is_ready or connection is None:
        return "OPENING"
    silence = connection.silence
    if silence is not None and silence >= SILENT_AFTER * connection.heartbeat:
        return "SILENT"
    return "BLOCKED" if connection.is_blocked else "READY"


_STATES: dict[State, HealthState] = {
    State.WAITING: "WAITING",
    State.DIALLING: "DIALLING",
    State.REPLAYING: "REPLAYING",
    State.CLOSING: "CLOSING",
    State.CLOSED: "CLOSED",
}


def ago(now: float, at: float | None) -> float | None:
    """Seconds since a point in time; None if it never was."""
    return None if at is None else now - at
