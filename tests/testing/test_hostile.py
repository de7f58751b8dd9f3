"""Whatever comes in, the broker answers in AMQP or hangs up; it never fails."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evamqp
from evamqp.abc import Endpoint
from evamqp.adapters.memory import MemoryAdapter, Peer
from evamqp.codec.frames import PROTOCOL_HEADER, frame, method_frame
from evamqp.codec.spec import BY_NAME
from evamqp.testing import Broker

HELLO = b"".join(
    (
        PROTOCOL_HEADER,
        method_frame(0, "connection.start-ok", {}, "PLAIN", b"\0guest\0guest", "en_US"),
        method_frame(0, "connection.tune-ok", 2047, 131_072, 0),
        method_frame(0, "connection.open", "/"),
        method_frame(1, "channel.open"),
        method_frame(1, "queue.declare", "q", False, False, False, False, False, {}),
    )
)
KEYS = [method.key.to_bytes(4, "big") for method in BY_NAME.values()]
PAYLOADS = st.builds(lambda key, rest: key + rest, st.sampled_from(KEYS), st.binary(max_size=24))
FRAMES = st.builds(
    frame,
    st.sampled_from([1, 1, 1, 2, 3, 8]),
    st.sampled_from([0, 1, 1, 1, 2]),
    st.one_of(PAYLOADS, st.binary(max_size=24)),
)


class Failures(logging.Handler):
    """Keeps what the broker logs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def feed(data: bytes) -> tuple[Broker, Peer]:
    """Send bytes to a fresh broker, and let an hour pass."""
    adapter = MemoryAdapter()
    broker = Broker(adapter)
    broker.listen()
    peer = Peer()
    adapter.connect(Endpoint("localhost", 5672), peer)
    adapter.run_until_idle()
    peer.send(data)
    adapter.advance(3600)
    return broker, peer


@pytest.mark.parametrize("greeting", [b"", HELLO], ids=["at once", "after the handshake"])
@settings(max_examples=150)
@given(data=st.one_of(st.binary(max_size=64), st.lists(FRAMES, max_size=6).map(b"".join)))
def test_nonsense_makes_no_failure(greeting: bytes, data: bytes) -> None:
    handler = Failures()
    logger = logging.getLogger("evamqp.testing.broker.connection")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        broker, _ = feed(greeting + data)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    assert handler.records == []
    broker.close()


def test_broker_serves_others_whatever_one_client_does() -> None:
    broker, _ = feed(HELLO + b"\xff" * 100)
    adapter = broker.adapter
    assert isinstance(adapter, MemoryAdapter)
    connection = evamqp.connect(broker.url, adapter=adapter)
    adapter.run_until(connection.wait_open())
    assert connection.is_open
    broker.close()


def test_client_that_never_finishes_the_handshake_is_hung_up_on() -> None:
    broker, peer = feed(PROTOCOL_HEADER)
    assert not peer.is_connected
    assert broker.connections() == []
