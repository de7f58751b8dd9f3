"""Prints, as JSON, the peak memory of a connection under each flood, each in a process of its own.

Run by test_floods.py.  Limits: bodies of 1 MiB, 1 MiB of output.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from evamqp.codec.frames import HEARTBEAT_FRAME, frame, method_frame  # noqa: E402
from tests.hostile import states  # noqa: E402
from tests.hostile.states import ANNOUNCE, body, header  # noqa: E402
from tests.hostile.victim import Victim  # noqa: E402
from tests.support.frames import ack, deliver, returned  # noqa: E402

MIB = 1024 * 1024
LIMITS: dict[str, Any] = {
    "body_max": MIB,
    "header_max": MIB,
    "frame_max": 131_072,
    "output_max": MIB,
    "output_high_water": 256 * 1024,
}
READ = 64 * 1024
CHANNELS = 50


def nothing(victim: Victim) -> Iterator[bytes]:
    yield HEARTBEAT_FRAME


def heartbeats(victim: Victim) -> Iterator[bytes]:
    for _ in range(20):
        yield HEARTBEAT_FRAME * 8000


def endless_bodies(victim: Victim) -> Iterator[bytes]:
    piece = frame(3, 0, bytes(60_000))
    for number in range(1, CHANNELS + 1):
        yield method_frame(number, "basic.deliver", "tag", 1, False, "", "q")
        yield header(MIB, number)
        for _ in range(17):
            yield piece[:1] + number.to_bytes(2, "big") + piece[3:]


def tiny_bodies(victim: Victim) -> Iterator[bytes]:
    yield ANNOUNCE + header(MIB)
    for _ in range(MIB // 8000 - 1):
        yield body(b"x") * 8000


def properties(victim: Victim) -> Iterator[bytes]:
    for number in range(1, CHANNELS + 1):
        yield method_frame(number, "basic.deliver", "tag", 1, False, "", "q")
        yield header(1, number, bytes(MIB - 12))


def unread_replies(victim: Victim) -> Iterator[bytes]:
    victim.call(victim.connection.set_writable, False)
    while True:  # each wants a basic.cancel-ok
        yield method_frame(1, "basic.cancel", "n" * 200, False) * 100


def drips(victim: Victim) -> Iterator[bytes]:
    data = ANNOUNCE + header(1, properties=bytes(MIB - 12))
    for at in range(0, len(data) - 1, 100):
        yield data[at : at + 100]


def largest(victim: Victim) -> Iterator[bytes]:
    for _ in range(20):
        yield ANNOUNCE + header(MIB)
        for _ in range(16):
            yield body(bytes(MIB // 16))


def returns(victim: Victim) -> Iterator[bytes]:
    for _ in range(20):
        yield returned(1, b"x") * 200


def different(victim: Victim) -> Iterator[bytes]:
    for number in range(10_000):
        yield deliver(1, "tag", number << 40, b"x", routing_key=f"{number}" * 20)


def holes(victim: Victim) -> Iterator[bytes]:
    channel = victim.channels[0]
    channel.confirm_select()
    victim.serve()
    for tag in range(1, 10_000):
        channel.basic_publish("", "q", b"x")
        victim.taken()
        if tag > 1:
            yield ack(1, tag)


FLOODS: dict[str, Callable[[Victim], Iterator[bytes]]] = {
    "nothing": nothing,
    "heartbeats": heartbeats,
    "bodies that never end": endless_bodies,
    "bodies in frames of one byte": tiny_bodies,
    "properties whose body never comes": properties,
    "replies that are never read": unread_replies,
    "drips of a header": drips,
    "messages of the largest size": largest,
    "returns": returns,
    "deliveries that all differ": different,
    "acks of everything but the first": holes,
}


def peak_of(flood: Callable[[Victim], Iterator[bytes]]) -> int:
    """Bytes of memory at the worst moment."""
    victim = states.consuming(**LIMITS)
    victim.witness.forgets = True
    for _ in range(CHANNELS - 1):
        victim.consume(victim.open_channel())
    for data in flood(victim):
        for at in range(0, len(data), READ):
            victim.feed(data[at : at + READ])
        if not victim.connection.context.output.paused:
            victim.connection.data_to_send()
        if not victim.connection.is_open:
            break
    victim.connection.data_to_send()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def in_a_child(flood: Callable[[Victim], Iterator[bytes]]) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, str(peak_of(flood)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return int(said)


if __name__ == "__main__":
    json.dump({name: in_a_child(flood) for name, flood in FLOODS.items()}, sys.stdout)
