"""A connection cut at every byte ends, and every promise that it made ends with it, once."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from time import monotonic

import pytest

import evamqp
from chaos_proxy import DIRECTIONS, ENDS, ChaosProxy, Cut, Direction, End
from evamqp.adapters.memory import MemoryAdapter
from evamqp.codec.frames import PROTOCOL_HEADER
from rabbitmq_node import choose_ports
from tests.conftest import Certificates
from tests.faults.conftest import ALL, CUTS
from tests.faults.session import Session
from tests.support.cut_wire import CutWire
from tests.support.loops import TIMEOUT, Loop
from tests.support.scripted_broker import Publish, ScriptedBroker, Wire
from tests.support.server_thread import HOST, ServerThread

# Sessions under way at a time.
BATCH = 200
# Virtual seconds in which every timeout that there is has passed.
LONG_ENOUGH = 300.0
# Seconds.  Short, since a black hole is told by nothing else.
TIMEOUTS = {
    "heartbeat": 1,
    "connect_timeout": 2.0,
    "handshake_timeout": 2.0,
    "request_timeout": 2.0,
    "close_timeout": 1.0,
    "close_limit": 2.0,
}


# --- in memory: every byte --------------------------------------------------------------------


def accept() -> Wire:
    """A connection to a broker of its own, which confirms and delivers what is published."""
    broker = ScriptedBroker(Publish.route)
    broker.heartbeat = 60
    return broker.accept()


def play_in_memory(cut: Cut | None) -> tuple[Session, CutWire]:
    """One session, to its end."""
    adapter = MemoryAdapter()
    wire = CutWire(accept(), cut)
    adapter.listen(HOST, 5672, lambda: wire)
    session = Session(adapter, evamqp.Parameters(HOST, 5672))
    adapter.advance(LONG_ENOUGH)
    assert session.is_over, cut
    session.check()
    return session, wire


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_session_in_memory_cut_at_any_byte_ends_and_each_outcome_is_reported_once(
    direction: Direction, end: End
) -> None:
    whole, wire = play_in_memory(None)
    assert whole.is_complete
    length = wire.passed[DIRECTIONS.index(direction)]
    for after in range(length):
        session, _ = play_in_memory(Cut(direction, after, end))
        CUTS["in memory"] += 1
        assert session.reason is not None
        assert session.reason.by != "client" or session.is_complete


# --- on sockets -------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "tls"])
def encryption(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(encryption: str, certificates: Certificates) -> Iterator[ServerThread]:
    context = None
    if encryption == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server.certificate, certificates.server.key)
        context.num_tickets = 0  # what a session cannot resume need not be sent
    server = ServerThread(accept, context)
    yield server
    server.close()


@pytest.fixture
def proxy(server: ServerThread) -> Iterator[ChaosProxy]:
    with ChaosProxy(server.port, choose_ports(1)[0], record=True) as proxy:
        yield proxy


@pytest.fixture
def target(proxy: ChaosProxy, encryption: str, certificates: Certificates) -> evamqp.Parameters:
    parameters = evamqp.Parameters(HOST, proxy.port).replace(**TIMEOUTS)
    if encryption == "plain":
        return parameters
    context = ssl.create_default_context(cafile=str(certificates.authority))
    return parameters.replace(tls=True, ssl_context=context)


def play(
    loop: Loop, proxy: ChaosProxy, target: evamqp.Parameters, cuts: Sequence[Cut | None]
) -> list[Session]:
    """A session for each cut, all at a time, to their ends."""
    proxy.cut_next(*cuts)
    sessions = [Session(loop.adapter, target) for _ in cuts]
    late = monotonic() + TIMEOUT
    left = list(sessions)

    def is_over() -> bool:
        while left and left[-1].is_over:
            left.pop()
        return not left or monotonic() > late

    loop.until(is_over, 2 * TIMEOUT)
    hung = [cut for cut, session in zip(cuts, sessions, strict=True) if not session.is_over]
    assert not hung
    for session in sessions:
        session.check()
    return sessions


def edges(stream: bytes, encryption: str) -> Iterator[int]:
    """Where frames, or records of TLS, begin and end."""
    at = 0 if encryption == "tls" or not stream.startswith(b"AMQP") else len(PROTOCOL_HEADER)
    while at < len(stream):
        yield at
        if encryption == "tls":
            at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        else:
            at += 8 + int.from_bytes(stream[at + 3 : at + 7], "big")
    yield at


def places(stream: bytes, encryption: str) -> Sequence[int]:
    """The bytes to cut at: each of them, or those beside edges."""
    if ALL:
        return range(len(stream))
    near = {edge + offset for edge in edges(stream, encryption) for offset in (-1, 0, 1)}
    return sorted(near & set(range(len(stream))))


def test_a_session_on_sockets_cut_anywhere_ends_and_each_outcome_is_reported_once(
    loop: Loop, proxy: ChaosProxy, target: evamqp.Parameters, encryption: str
) -> None:
    (whole,) = play(loop, proxy, target, [None])
    assert whole.is_complete
    recording = proxy.recordings[0]
    streams = dict(zip(DIRECTIONS, (recording.to_broker, recording.to_client), strict=True))
    cuts = [
        Cut(direction, after, end)
        for end in ENDS
        for direction in DIRECTIONS
        for after in places(bytes(streams[direction]), encryption)
    ]
    for first in range(0, len(cuts), BATCH):
        batch = cuts[first : first + BATCH]
        play(loop, proxy, target, batch)
        CUTS[encryption] += len(batch)
    assert len(proxy.attempts) == len(cuts) + 1
