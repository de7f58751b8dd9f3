"""The attacks that need a socket, on every loop: each ends in time, is told once, and is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import evamqp
from evamqp.codec.frames import HEARTBEAT_FRAME, content_header_frame, method_frame
from evamqp.core.channel import Message
from evamqp.errors import (
    AuthenticationFailed,
    Closed,
    ConnectFailed,
    ConnectionClosed,
    HandshakeTimeout,
    HeartbeatTimeout,
    ProtocolError,
    ProtocolMismatch,
)
from tests.hostile.attacker import HOST, Attacker, Talk
from tests.hostile.states import ANNOUNCE, body, header
from tests.hostile.victim import LIMITS, Witness
from tests.support.frames import connection_close, deliver, start, tune
from tests.support.loops import Loop

#: Seconds.  What is not the test's subject has time enough on a busy machine.
CLOCKS = {
    "handshake_timeout": 10,
    "request_timeout": 10,
    "close_timeout": 0.05,
    "close_limit": 0.2,
}


class Consumer(Witness):
    """Opens a channel and consumes from it, as soon as it may."""

    def __init__(self) -> None:
        super().__init__(LIMITS["body_max"])
        self.channel: evamqp.Channel | None = None

    def on_open(self, connection: evamqp.Connection) -> None:
        super().on_open(connection)
        self.channel = connection.channel()
        self.channel.basic_consume("queue", self.on_message, consumer_tag="tag")

    def on_message(self, message: Message) -> None:
        super().on_message(message)
        message.ack()


@contextmanager
def attacked(
    loop: Loop, script: Callable[[Talk], object], *, accepts: bool = True, **parameters: object
) -> Iterator[tuple[evamqp.Connection, Consumer]]:
    """A client that connects to a peer that follows a script; all laws are checked at the end."""
    attacker = Attacker(script, accepts=accepts)
    try:
        witness = Consumer()
        chosen = {**LIMITS, **CLOCKS, "heartbeat": 0, **parameters}
        target = evamqp.Parameters(HOST, attacker.port, **chosen)
        connection = evamqp.connect(target, witness, adapter=loop.adapter)
        yield connection, witness
        connection.close()
        loop.until(lambda: witness.reason is not None)
        assert witness.faults == []
        assert len(witness.channels_closed) == (witness.channel is not None)
    finally:
        attacker.close()


def until_over(loop: Loop, witness: Witness) -> Closed:
    """Turn the loop until the connection has ended."""
    loop.until(lambda: witness.reason is not None)
    assert witness.reason is not None
    return witness.reason


# --- scripts


def says_nothing(talk: Talk) -> None:
    talk.read()
    talk.wait()


def says_half_a_start(talk: Talk) -> None:
    talk.read()
    talk.send(start()[:-10])
    talk.wait()


def drips_the_start(talk: Talk) -> None:
    talk.read()
    for byte in start():
        talk.send(bytes((byte,)))
        if not talk.pause(0.02):
            return


def never_tunes(talk: Talk) -> None:
    talk.read()
    talk.send(start())
    talk.wait()


def never_opens(talk: Talk) -> None:
    talk.read()
    talk.send(start(), tune())
    talk.drain()


def speaks_http(talk: Talk) -> None:
    talk.read()
    talk.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def hangs_up_at_once(talk: Talk) -> None:
    talk.read()


def resets_at_once(talk: Talk) -> None:
    talk.read()
    talk.reset()


def hangs_up_at_login(talk: Talk) -> None:
    talk.read()
    talk.send(start())
    talk.expect("connection.start-ok")


def resets_amid_a_frame(talk: Talk) -> None:
    talk.shake_hands()
    talk.serve_a_consumer()
    talk.send(deliver(1, "tag", 1, b"good") + ANNOUNCE[:20])
    talk.expect("basic.ack")
    talk.reset()


def hangs_up_amid_a_body(talk: Talk) -> None:
    talk.shake_hands()
    talk.serve_a_consumer()
    talk.send(ANNOUNCE, header(10), body(b"half"))
    talk.hang_up()
    talk.drain()


def closes_and_goes_on(talk: Talk) -> None:
    talk.shake_hands()
    talk.serve_a_consumer()
    talk.send(connection_close(320, "over"))
    while True:
        talk.send(deliver(1, "tag", 1, b"late") * 100)


def breaks_off_and_goes_on(talk: Talk) -> None:
    talk.shake_hands()
    talk.serve_a_consumer()
    while True:
        talk.send(b"garbage!" * 1000)


def claims_four_gigabytes(talk: Talk) -> None:
    talk.shake_hands()
    talk.send(b"\x01\x00\x00\xff\xff\xff\xff")
    while True:
        talk.send(bytes(8000))


def never_answers(talk: Talk) -> None:
    talk.shake_hands()
    talk.drain()


def falls_silent(talk: Talk) -> None:
    talk.shake_hands(heartbeat=1)
    talk.serve_a_consumer()
    talk.drain()


def asks_and_never_reads(talk: Talk) -> None:
    talk.shake_hands()
    talk.serve_a_consumer()
    asked = method_frame(1, "basic.cancel", "n" * 250, False) * 500
    while True:
        talk.send(asked)


UNFINISHED: dict[str, Callable[[Talk], object]] = {
    "says nothing": says_nothing,
    "says half a start": says_half_a_start,
    "drips the start": drips_the_start,
    "never tunes": never_tunes,
    "never opens": never_opens,
}
REFUSALS: dict[str, tuple[Callable[[Talk], object], type[Closed]]] = {
    "speaks HTTP": (speaks_http, ProtocolMismatch),
    "hangs up at once": (hangs_up_at_once, ConnectionClosed),
    "resets at once": (resets_at_once, ConnectionClosed),
    "hangs up at login": (hangs_up_at_login, AuthenticationFailed),
    "resets amid a frame": (resets_amid_a_frame, ConnectionClosed),
    "hangs up amid a body": (hangs_up_amid_a_body, ConnectionClosed),
    "closes and goes on": (closes_and_goes_on, ConnectionClosed),
    "breaks off and goes on": (breaks_off_and_goes_on, ProtocolError),
    "claims 4 GiB": (claims_four_gigabytes, ProtocolError),
    "asks and never reads": (asks_and_never_reads, ConnectionClosed),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_handshake_that_is_not_finished_times_out(loop: Loop, name: str) -> None:
    with attacked(loop, UNFINISHED[name], handshake_timeout=0.2) as (_, witness):
        assert type(until_over(loop, witness)) is HandshakeTimeout


@pytest.mark.parametrize("name", REFUSALS)
def test_it_ends_in_time_with_an_error_that_names_it(loop: Loop, name: str) -> None:
    script, expected = REFUSALS[name]
    with attacked(loop, script) as (_, witness):
        assert type(until_over(loop, witness)) is expected
        assert set(witness.bodies) <= {b"good"}


def test_a_peer_that_is_never_accepted_times_out(loop: Loop) -> None:
    with attacked(loop, says_nothing, accepts=False, handshake_timeout=0.2) as (_, witness):
        assert isinstance(until_over(loop, witness), (HandshakeTimeout, ConnectFailed))


def test_a_peer_that_says_nothing_in_tls_times_out(loop: Loop) -> None:
    with attacked(loop, says_nothing, tls=True, connect_timeout=0.3) as (_, witness):
        assert type(until_over(loop, witness)) is ConnectFailed


def test_a_peer_that_falls_silent_is_dead_after_two_intervals(loop: Loop) -> None:
    with attacked(loop, falls_silent, heartbeat=1) as (_, witness):
        loop.until(lambda: witness.reason is not None)
        assert type(witness.reason) is HeartbeatTimeout


def test_a_peer_that_never_answers_loses_its_channel_and_then_the_close(loop: Loop) -> None:
    with attacked(loop, never_answers, request_timeout=0.2) as (connection, witness):
        loop.until(lambda: witness.channels_closed)
        assert connection.is_open
        connection.close()
        assert until_over(loop, witness).by == "client"


# --- survived


def drips_a_delivery(talk: Talk) -> None:
    talk.shake_hands()
    talk.serve_a_consumer()
    for byte in deliver(1, "tag", 1, b"good"):
        talk.send(bytes((byte,)))
        if not talk.pause(0.001):
            return
    talk.drain()


def floods(flood: bytes) -> Callable[[Talk], object]:
    def script(talk: Talk) -> None:
        talk.shake_hands()
        talk.serve_a_consumer()
        for _ in range(20):
            talk.send(flood)
        talk.send(deliver(1, "tag", 1, b"good"))
        talk.drain()

    return script


ALARM = method_frame(0, "connection.blocked", "x") + method_frame(0, "connection.unblocked")
SURVIVED: dict[str, Callable[[Talk], object]] = {
    "drips a delivery": drips_a_delivery,
    "floods heartbeats": floods(HEARTBEAT_FRAME * 1000),
    "floods blocked and unblocked": floods(ALARM * 300),
    "floods empty messages": floods(deliver(1, "tag", 1, b"") * 100),
    "floods bodies of one byte": floods(
        ANNOUNCE + content_header_frame(1, b"\0\0", 500) + body(b"x") * 500
    ),
    "floods deliveries nobody waits for": floods(deliver(1, "nobody", 1) * 100),
    "floods flow": floods(
        method_frame(1, "channel.flow", False) + method_frame(1, "channel.flow", True)
    ),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_it_is_survived_and_the_next_message_comes(loop: Loop, name: str) -> None:
    with attacked(loop, SURVIVED[name]) as (connection, witness):
        loop.until(lambda: b"good" in witness.bodies)
        assert connection.is_open
