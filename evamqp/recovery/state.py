"""The states of a Reconnector, and what moves it from one to the next.

One table and nothing else; ``docs/states.md`` draws it.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a reconnector stands."""

    WAITING = "WAITING"  # for the next attempt
    DIALLING = "DIALLING"
    REPLAYING = "REPLAYING"  # the topology is being declared
    READY = "READY"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class Event(Enum):
    """What moves a reconnector."""

    DUE = "due"  # the wait is over
    OPENED = "opened"
    REPLAYED = "replayed"
    LOST = "lost"
    CLOSE = "close()"


#: The next state for each event.  An event without an entry is late: it belongs to a connection
#: that was given up, and is dropped.
TABLE: dict[State, dict[Event, State]] = {
    State.WAITING: {Event.DUE: State.DIALLING, Event.CLOSE: State.CLOSED},
    State.DIALLING: {
        Event.OPENED: State.REPLAYING,
        Event.LOST: State.WAITING,
        Event.CLOSE: State.CLOSING,
    },
    State.REPLAYING: {
        Event.REPLAYED: State.READY,
        Event.LOST: State.WAITING,
        Event.CLOSE: State.CLOSING,
    },
    State.READY: {Event.LOST: State.WAITING, Event.CLOSE: State.CLOSING},
    State.CLOSING: {Event.LOST: State.CLOSED},
    State.CLOSED: {},
}
