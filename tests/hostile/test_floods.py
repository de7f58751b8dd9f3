"""Floods: frames that cost the peer little and must not cost us memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evamqp.codec.frames import HEARTBEAT_FRAME, content_header_frame, method_frame
from evamqp.core.output import COALESCE_AFTER, COALESCE_PIECES, UNCAPPED_ROOM
from evamqp.core.parser import MAX_TEMPLATES
from evamqp.errors import ConnectionClosed, ProtocolError
from tests.hostile import states
from tests.hostile.states import ANNOUNCE, body, header
from tests.hostile.victim import Victim
from tests.support.frames import OPEN_OK, ack, channel_close, deliver, returned, tune

COUNT = 6_000
CANCEL = method_frame(1, "basic.cancel", "nobody", False)
FLOW = method_frame(1, "channel.flow", False) + method_frame(1, "channel.flow", True)
ALARM = method_frame(0, "connection.blocked", "x") + method_frame(0, "connection.unblocked")


def distinct_deliveries() -> Iterator[bytes]:
    for number in range(COUNT // 20):
        yield deliver(1, "tag", number, b"good", routing_key="k" * (number % 250))
        yield deliver(1, f"nobody {number}", number)


# What a peer may send for ever, in a state.
ENDLESS: dict[str, tuple[Callable[[], Victim], Callable[[], Iterator[bytes]]]] = {
    "heartbeats": (states.opened, lambda: iter([HEARTBEAT_FRAME] * COUNT)),
    "blocked and unblocked": (states.consuming, lambda: iter([ALARM] * COUNT)),
    "empty messages": (states.consuming, lambda: iter([deliver(1, "tag", 3, b"")] * COUNT)),
    "empty bodies": (states.amid_a_body, lambda: iter([body(b"")] * COUNT)),
    "returns": (states.consuming, lambda: iter([returned(1, b"good")] * COUNT)),
    "acks of nothing": (states.confirming, lambda: iter([ack(1, 99)] * COUNT)),
    "deliveries nobody waits for": (states.consuming, lambda: iter([deliver(1, "x", 3)] * COUNT)),
    "deliveries that all differ": (states.consuming, distinct_deliveries),
    "flow": (states.consuming, lambda: iter([FLOW] * COUNT)),
    "cancels": (states.consuming, lambda: iter([CANCEL] * COUNT)),
    "late frames": (states.channel_closed, lambda: iter([deliver(1, "tag", 3)] * COUNT)),
    "late closes": (states.channel_closed, lambda: iter([channel_close(1)] * COUNT)),
    "deliveries while closing": (states.closing, lambda: iter([deliver(1, "tag", 3)] * COUNT)),
}


def pour(victim: Victim, frames: Iterator[bytes], batch: int = 200) -> None:
    """Feed a flood in reads of some size, taking what is sent as a transport does."""
    pieces = []
    for piece in frames:
        pieces.append(piece)
        if len(pieces) == batch:
            victim.feed(*pieces)
            victim.taken()
            pieces.clear()
    victim.feed(*pieces)


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_flood_is_survived_and_nothing_grows(name: str) -> None:
    make, flood = ENDLESS[name]
    victim = make()
    victim.witness.forgets = True
    before = victim.held()
    victim.peak = 0
    pour(victim, flood())
    assert victim.connection.transport_action.name == "KEEP", victim.connection.reason
    assert victim.peak <= before + 200 * 64
    assert len(victim.connection.context.callbacks.deferred) <= 2
    assert len(victim.connection.context.parser._templates) <= MAX_TEMPLATES
    victim.witness.forgets = False
    victim.finish()


def test_a_body_in_frames_of_one_byte_holds_its_size() -> None:
    victim = states.consuming()
    victim.witness.forgets = True
    victim.feed(ANNOUNCE, header(10_000))
    victim.peak = 0
    pour(victim, iter([body(b"x")] * 9_999))
    assert victim.peak < 10_000 + 64
    victim.feed(body(b"x"))
    victim.finish()


# --- a peer that asks for replies and reads none

DEMANDS: dict[str, bytes] = {
    "flow-ok": FLOW,
    "cancel-ok": CANCEL,
}


@pytest.mark.parametrize("name", DEMANDS)
def test_a_peer_that_asks_and_never_reads_is_given_up(name: str) -> None:
    victim = states.consuming()
    victim.witness.forgets = True
    victim.call(victim.connection.set_writable, False)
    limit = victim.parameters.output_max + UNCAPPED_ROOM
    for _ in range(limit // 12 // 500 + 1):
        victim.feed(DEMANDS[name] * 500)
        if not victim.connection.is_open:
            break
    assert limit < victim.peak < limit + 500 * len(DEMANDS[name])
    # Pieces of some dozen bytes would cost several times their size.
    assert len(victim.connection.context.output.pieces) < COALESCE_AFTER // 12 + COALESCE_PIECES
    victim.witness.forgets = False
    reason = victim.finish()
    assert type(reason) is ConnectionClosed
    assert "reads nothing" in reason.text


# --- what all channels hold together


@pytest.mark.parametrize(("size", "piece"), [(2, 4000), (4096 - 12, 0)])
def test_unfinished_messages_of_all_channels_share_one_bound(size: int, piece: int) -> None:
    victim = states.opened()
    bodies, everything = 2 * 10_000, 2 * 10_000 + 4096
    held = [0, 0]
    while victim.connection.is_open:
        number = victim.open_channel().number
        victim.feed(method_frame(number, "basic.deliver", "tag", 1, False, "", "q"))
        held[0] += size
        victim.feed(content_header_frame(number, bytes(size), 9000))
        if piece:
            held[1] += piece
            victim.feed(body(bytes(piece), number))
    assert held[1] > bodies or sum(held) > everything
    assert held[1] - piece <= bodies
    assert sum(held) - size - piece <= everything
    reason = victim.finish()
    assert type(reason) is ProtocolError
    assert reason.code == 506


def test_properties_of_messages_that_ended_are_not_counted() -> None:
    victim = states.consuming()
    victim.witness.forgets = True
    for _ in range(50):
        victim.feed(deliver(1, "tag", 3, b"good", properties=bytes(4000)))
        victim.feed(deliver(1, "nobody", 3, b"good", properties=bytes(4000)))
        victim.feed(returned(1, b"good"))
    assert victim.connection.context.parser.header_bytes == 0
    victim.feed(ANNOUNCE, header(10_000, properties=bytes(4000)), body(b"x"))
    assert victim.connection.context.parser.header_bytes == 4000
    victim.channels[0].close()
    assert victim.connection.context.parser.header_bytes == 0
    victim.feed(header(5), body(b"x"), method_frame(1, "channel.close-ok"))
    victim.witness.forgets = False
    victim.finish()


def test_all_65535_channels_of_a_generous_broker_cost_nothing_unopened() -> None:
    victim = states.authenticating(channel_max=65_535)
    victim.feed(tune(channel_max=0), OPEN_OK)
    assert victim.connection.channel_max == 65_535
    assert victim.connection.context.channels.by_number == {}
    victim.feed(method_frame(65_535, "channel.open-ok"))
    assert victim.finish().code == 504


# --- memory, measured

FLOODER = Path(__file__).with_name("rss.py")
#: Bytes for which the interpreter's allocator and its garbage are not accountable to a peer.
MIB = 1024 * 1024
NAMES = (
    "nothing",
    "heartbeats",
    "bodies that never end",
    "bodies in frames of one byte",
    "properties whose body never comes",
    "replies that are never read",
    "drips of a header",
    "messages of the largest size",
    "returns",
    "deliveries that all differ",
    "acks of everything but the first",
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_under_each_flood_stays_within_its_bound() -> None:
    done = subprocess.run(
        [sys.executable, str(FLOODER)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    peaks: dict[str, int] = json.loads(done.stdout)
    assert tuple(peaks) == NAMES
    bound = 3 * MIB + MIB + 4 * MIB
    idle = peaks["nothing"]
    assert {name: peak - idle for name, peak in peaks.items() if peak - idle > bound} == {}
