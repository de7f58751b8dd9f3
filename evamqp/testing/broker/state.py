"""The broker's side of a connection as a table: where it stands, and what may come there.

No code that acts lives here; the channel's table is in ``channel``.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a connection stands; it only ever moves down this list."""

    GREETING = "GREETING"  # the protocol header is awaited
    STARTING = "STARTING"  # start sent
    TUNING = "TUNING"  # tune sent
    OPENING = "OPENING"  # tune-ok came
    OPEN = "OPEN"
    CLOSING = "CLOSING"  # close sent, close-ok awaited; all else is discarded
    CLOSED = "CLOSED"


# What may come on channel 0.  Anything else ends a connection that is open with 504, and one that
# is being opened without a word, as in RabbitMQ.
METHODS: dict[State, dict[str, str]] = {
    State.GREETING: {},
    State.STARTING: {"connection.start-ok": "_recv_start_ok"},
    State.TUNING: {"connection.tune-ok": "_recv_tune_ok"},
    State.OPENING: {"connection.open": "_recv_open"},
    State.OPEN: {
        "connection.close": "_recv_close",
        "connection.update-secret": "_recv_update_secret",
    },
    State.CLOSING: {"connection.close": "_recv_close", "connection.close-ok": "_recv_close_ok"},
    State.CLOSED: {},
}
