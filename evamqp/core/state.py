"""The connection and channel machines as tables; nothing else.

A table maps a state to the methods that may arrive in it, and each of them to ``(handler, next
state)``.  What is absent is an error of the peer, closed with COMMAND_INVALID (503).  The
handlers are methods of ControlChannel and ChannelMachine, which resolve their names once, when
they are imported; ``REPLY`` stands for "answers the oldest request".
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

REPLY = "_recv_reply"


class ConnectionState(Enum):
    """Where a connection stands; it only ever moves down this list."""

    CONNECTING = "CONNECTING"  # no socket yet
    STARTING = "STARTING"  # protocol header sent
    AUTHENTICATING = "AUTHENTICATING"  # start-ok sent
    OPENING = "OPENING"  # tune-ok and open sent
    OPEN = "OPEN"
    CLOSING = "CLOSING"  # close sent, close-ok awaited
    CLOSED = "CLOSED"  # nothing more is parsed or sent but what is buffered


class ChannelState(Enum):
    """Where a channel stands; it only ever moves down this list."""

    OPENING = "OPENING"  # open sent on a number that was never used
    REOPENING = "REOPENING"  # open sent on a used number: late frames may precede open-ok
    OPEN = "OPEN"
    CLOSING = "CLOSING"  # close sent, close-ok awaited
    CLOSED = "CLOSED"


class TransportAction(Enum):
    """What the core wants done with the transport."""

    KEEP = "KEEP"
    CLOSE = "CLOSE"  # send what is buffered, then close
    ABORT = "ABORT"  # drop what is buffered and close now


_C = ConnectionState
_H = ChannelState
S = TypeVar("S")
Table = dict[S, dict[str, tuple[str, S]]]
Steps = dict[S, dict[str, tuple[Callable[..., Any], S]]]

CONNECTION: Table[ConnectionState] = {
    _C.CONNECTING: {},
    _C.STARTING: {
        "connection.start": ("_recv_start", _C.AUTHENTICATING),
        "connection.close": ("_recv_close", _C.CLOSED),
    },
    _C.AUTHENTICATING: {
        "connection.secure": ("_recv_secure", _C.AUTHENTICATING),
        "connection.tune": ("_recv_tune", _C.OPENING),
        "connection.close": ("_recv_close", _C.CLOSED),
    },
    _C.OPENING: {
        "connection.open-ok": ("_recv_open_ok", _C.OPEN),
        "connection.close": ("_recv_close", _C.CLOSED),
    },
    _C.OPEN: {
        "connection.blocked": ("_recv_blocked", _C.OPEN),
        "connection.unblocked": ("_recv_unblocked", _C.OPEN),
        "connection.update-secret-ok": (REPLY, _C.OPEN),
        "connection.close": ("_recv_close", _C.CLOSED),
    },
    _C.CLOSING: {
        "connection.blocked": ("_recv_blocked", _C.CLOSING),
        "connection.unblocked": ("_recv_unblocked", _C.CLOSING),
        "connection.update-secret-ok": (REPLY, _C.CLOSING),
        "connection.close": ("_recv_close", _C.CLOSED),
        "connection.close-ok": ("_recv_close_ok", _C.CLOSED),
    },
    _C.CLOSED: {},
}

_REPLIES = (
    "exchange.declare-ok",
    "exchange.delete-ok",
    "exchange.bind-ok",
    "exchange.unbind-ok",
    "queue.declare-ok",
    "queue.bind-ok",
    "queue.unbind-ok",
    "queue.purge-ok",
    "queue.delete-ok",
    "basic.qos-ok",
    "basic.consume-ok",
    "basic.cancel-ok",
    "basic.get-empty",
    "basic.recover-ok",
    "tx.select-ok",
    "tx.commit-ok",
    "tx.rollback-ok",
    "confirm.select-ok",
    "channel.flow-ok",
)

CHANNEL: Table[ChannelState] = {
    _H.OPENING: {
        "channel.open-ok": ("_recv_open_ok", _H.OPEN),
        "channel.close": ("_recv_close", _H.CLOSED),
    },
    _H.REOPENING: {
        "channel.open-ok": ("_recv_open_ok", _H.OPEN),
        "channel.close": ("_recv_close", _H.CLOSED),
    },
    _H.OPEN: {
        **dict.fromkeys(_REPLIES, (REPLY, _H.OPEN)),
        "basic.deliver": ("recv_deliver", _H.OPEN),
        "basic.get-ok": ("_recv_get_ok", _H.OPEN),
        "basic.return": ("_recv_return", _H.OPEN),
        "basic.ack": ("_recv_ack", _H.OPEN),
        "basic.nack": ("_recv_nack", _H.OPEN),
        "basic.cancel": ("_recv_cancel", _H.OPEN),
        "channel.flow": ("_recv_flow", _H.OPEN),
        "channel.close": ("_recv_close", _H.CLOSED),
    },
    # The specification wants everything discarded here.  Replies and confirms that the broker sent
    # before it saw our close are facts, and a request that was executed must not fail.
    _H.CLOSING: {
        **dict.fromkeys(_REPLIES, (REPLY, _H.CLOSING)),
        "channel.open-ok": ("_recv_open_ok_while_closing", _H.CLOSING),
        "basic.deliver": ("_discard", _H.CLOSING),
        "basic.get-ok": ("_recv_get_ok", _H.CLOSING),
        "basic.return": ("_recv_return", _H.CLOSING),
        "basic.ack": ("_recv_ack", _H.CLOSING),
        "basic.nack": ("_recv_nack", _H.CLOSING),
        "basic.cancel": ("_discard", _H.CLOSING),
        "channel.flow": ("_discard", _H.CLOSING),
        "channel.close": ("_recv_close", _H.CLOSED),
        "channel.close-ok": ("_recv_close_ok", _H.CLOSED),
    },
    _H.CLOSED: {},
}


def resolve(table: Table[S], machine: type) -> Steps[S]:
    """The table with functions of a class in place of their names."""
    return {
        state: {
            method: (getattr(machine, name), target) for method, (name, target) in steps.items()
        }
        for state, steps in table.items()
    }
