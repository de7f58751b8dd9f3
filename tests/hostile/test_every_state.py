"""Each breach of the protocol in each state of a connection: how it ends, and what is told."""

from __future__ import annotations

import pytest

from evamqp.codec.frames import HEARTBEAT_FRAME, frame, method_frame
from evamqp.core.state import TransportAction
from evamqp.errors import (
    AuthenticationFailed,
    BlockedTimeout,
    Closed,
    ConnectionClosed,
    HandshakeTimeout,
    HeartbeatTimeout,
    ProtocolError,
    ProtocolMismatch,
    VhostRefused,
)
from tests.hostile.states import STATES, body, header
from tests.hostile.victim import Victim
from tests.support.frames import OPEN_OK, ack, connection_close, deliver, returned, start, tune


def head(kind: int, channel: int, size: int) -> bytes:
    """The beginning of a frame that claims ``size`` bytes."""
    return kind.to_bytes(1, "big") + channel.to_bytes(2, "big") + size.to_bytes(4, "big")


# What is wrong in every state alike, and the code it is closed with.
BREACHES: dict[str, tuple[bytes, int]] = {
    "a wrong frame end": (HEARTBEAT_FRAME[:-1] + b"\xcd", 501),
    "a frame of type 0": (frame(0, 0, b""), 501),
    "a frame of type 4": (frame(4, 0, b""), 501),
    "a frame of type 255": (frame(255, 1, b"x"), 501),
    "a method that claims 4 GiB": (head(1, 0, 2**32 - 1), 501),
    "a header that claims 4 GiB": (head(2, 1, 2**32 - 1), 501),
    "a body that claims 4 GiB": (head(3, 1, 2**32 - 1), 501),
    "a heartbeat that claims 4 GiB": (head(8, 0, 2**32 - 1), 501),
    "a method that claims a byte too many": (head(1, 0, 64 * 1024 - 7), 501),
    "a header that claims a byte too many": (head(2, 1, 64 * 1024 + 1), 501),
    "a method without a method": (frame(1, 0, b"\x00\x0a"), 502),
    "an empty method": (frame(1, 0, b""), 502),
    "an unknown class": (frame(1, 0, b"\x03\xe7\x00\x0a"), 503),
    "an unknown method": (frame(1, 0, b"\x00\x0a\x03\xe7"), 503),
    "a method of clients": (method_frame(0, "connection.open", "/"), 503),
    "a method of channels on channel 0": (method_frame(0, "channel.open-ok"), 503),
    "a delivery on channel 0": (method_frame(0, "basic.deliver", "tag", 1, False, "", "q"), 503),
    "a header on channel 0": (header(1, 0), 504),
    "a body on channel 0": (body(b"x", 0), 504),
    "a heartbeat on channel 1": (frame(8, 1, b""), 505),
    "a heartbeat with a payload": (frame(8, 0, b"x"), 501),
    "a method on a channel never opened": (method_frame(77, "queue.bind-ok"), 504),
    "a delivery on a channel never opened": (deliver(77, "tag", 1), 504),
    "a header on a channel never opened": (header(1, 77), 504),
    "a body on a channel never opened": (body(b"x", 77), 504),
    "a frame on channel 65535": (header(1, 65_535), 504),
    "HTTP in the midst of it": (b"HTTP/1.1 400 Bad Request\r\n\r\n", 501),
    "a protocol header": (b"AMQP\x00\x00\x09\x01", 501),
}

BY_BYTES = ("at once", "byte by byte")


def check_end(victim: Victim, state: str, breach: bytes, code: int) -> None:
    reason = victim.finish()
    assert all(data == b"good" for data in victim.witness.bodies)
    if state == "closing":
        assert (type(reason), reason.code, reason.by) == (ConnectionClosed, 200, "client")
    elif state == "starting" and breach[:1] != b"\x01":
        assert type(reason) is ProtocolMismatch
    else:
        assert type(reason) is ProtocolError
        assert (reason.code, reason.by) == (code, "broker")


@pytest.mark.parametrize("how", BY_BYTES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_ends_the_connection(name: str, state: str, how: str) -> None:
    breach, code = BREACHES[name]
    victim = STATES[state]()
    data = breach + HEARTBEAT_FRAME * 4 + deliver(1, "tag", 3, b"late")
    if how == "at once":
        victim.feed(data)
    else:
        for byte in data:
            victim.feed(bytes((byte,)))
    if state != "paused":
        assert not victim.connection.is_open
    check_end(victim, state, breach, code)


# --- methods that belong to another state

MISPLACED: dict[str, tuple[bytes, frozenset[str]]] = {
    # The states in which each is right.
    "start": (start(), frozenset({"starting"})),
    "secure": (method_frame(0, "connection.secure", b"?"), frozenset({"authenticating"})),
    "tune": (tune(), frozenset({"authenticating"})),
    "open-ok": (OPEN_OK, frozenset({"opening"})),
    "close-ok": (method_frame(0, "connection.close-ok"), frozenset({"closing"})),
    "update-secret-ok": (
        method_frame(0, "connection.update-secret-ok"),
        frozenset({"requesting", "blocked"}),
    ),
}


@pytest.mark.parametrize(
    ("name", "state"),
    [
        (name, state)
        for name, (_, right) in MISPLACED.items()
        for state in STATES
        if state not in right
    ],
)
def test_a_method_of_another_state_ends_the_connection(name: str, state: str) -> None:
    victim = STATES[state]()
    victim.feed(MISPLACED[name][0])
    check_end(victim, state, MISPLACED[name][0], 503)


# --- drops

HANDSHAKE = ("starting", "authenticating", "opening")


def lost(state: str) -> type[Closed]:
    return AuthenticationFailed if state == "authenticating" else ConnectionClosed


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("exc", [None, ConnectionResetError(104, "reset")], ids=["eof", "reset"])
@pytest.mark.parametrize("piece", [b"", HEARTBEAT_FRAME[:5], head(1, 0, 100) + b"\x00\x0a"])
def test_a_hang_up_is_reported_once(state: str, exc: OSError | None, piece: bytes) -> None:
    victim = STATES[state]()
    if state != "starting":
        victim.feed(piece)
    victim.lose(exc)
    reason = victim.finish()
    if state == "closing":
        assert (reason.code, reason.by) == (200, "client")
    else:
        assert type(reason) is lost(state)
        assert reason.by == "network"


# --- close, then continue

CLOSES: dict[str, type[Closed]] = {
    "authenticating": AuthenticationFailed,
    "opening": VhostRefused,
}


@pytest.mark.parametrize("state", [state for state in STATES if state != "paused"])
def test_what_follows_a_close_is_not_read(state: str) -> None:
    victim = STATES[state]()
    before = list(victim.witness.bodies)
    victim.feed(
        connection_close(403, "no\nmore"),
        connection_close(530, "twice"),
        deliver(1, "tag", 9, b"late"),
        returned(1, b"late"),
        ack(1, 3),
        b"garbage",
    )
    victim.feed(deliver(1, "tag", 9, b"late"), start(), tune(), OPEN_OK)
    assert victim.sent()[-1].name == "connection.close-ok"
    reason = victim.finish()
    assert victim.witness.bodies == before
    assert type(reason) is CLOSES.get(state, ConnectionClosed)
    assert (reason.code, reason.by) == (403, "broker")


# --- never answers

SILENCE: dict[str, type[Closed]] = {
    **dict.fromkeys(HANDSHAKE, HandshakeTimeout),
    "closing": ConnectionClosed,
    "requesting": ConnectionClosed,  # a request of the connection's own is the first to expire
}


@pytest.mark.parametrize("state", [state for state in STATES if state != "paused"])
def test_silence_ends_in_a_timeout(state: str) -> None:
    victim = STATES[state](handshake_timeout=10, request_timeout=5, close_timeout=1)
    victim.advance(10_000)
    assert not victim.connection.is_open
    assert type(victim.finish()) is SILENCE.get(state, HeartbeatTimeout)


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("paused", "blocked")])
def test_heartbeats_do_not_keep_a_request_waiting(state: str) -> None:
    victim = STATES[state](handshake_timeout=10, request_timeout=5, close_limit=9)
    for _ in range(40):
        if state != "starting":  # where no heartbeat may come
            victim.feed(HEARTBEAT_FRAME)
        victim.advance(1)
    if state == "requesting":  # of the connection's own there is one as well
        assert not victim.connection.is_open
    else:
        assert victim.connection.is_open is (state not in (*HANDSHAKE, "closing"))
    is_aborted = victim.connection.transport_action is TransportAction.ABORT
    if is_aborted:  # which the driver would have done at once
        victim.finish()
    waiting = [each for each in victim.outcomes if not each.values]
    assert [each.name for each in waiting] == ["wait_for_confirms"] * (state == "confirming")
    if not is_aborted:
        victim.finish()


def test_a_broker_that_blocks_for_ever_is_left_after_blocked_timeout() -> None:
    victim = STATES["blocked"](blocked_timeout=60)
    for _ in range(100):
        victim.feed(HEARTBEAT_FRAME, method_frame(0, "connection.blocked", "still"))
        victim.advance(1)
    assert type(victim.finish()) is BlockedTimeout


# --- answers twice, duplicates


@pytest.mark.parametrize("frames", [start(), start() + tune(), start() + tune() + OPEN_OK])
def test_a_handshake_sent_twice_is_503(frames: bytes) -> None:
    victim = STATES["starting"]()
    victim.feed(frames, frames)
    assert victim.finish().code == 503
