"""What fuzzers feed: one function of bytes for each reader of bytes.

Each returns what it saw when all is well, in plain values, so that two builds can be compared, and
raises when something undocumented happened.  ``fuzz`` and the kept inputs in ``regressions/`` use
the same functions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from evamqp.codec.fields import decode_table, encode_table, skip_table
from evamqp.codec.frames import split_frames
from evamqp.codec.methods import decode_arguments
from evamqp.codec.properties import Properties
from evamqp.codec.spec import BY_KEY
from evamqp.errors import BadArgument, MalformedData
from tests.hostile.states import STATES
from tests.hostile.victim import read_all

NAMES = tuple(STATES)
#: What the second byte of a session says: bytes in a read.
READS = (2**20, 1, 2, 7, 8, 20, 64, 300)


def frames(data: bytes) -> object:
    """The frame splitter, and the arguments of every method in the frames."""
    try:
        found, used = split_frames(data, 0, 4096, 4096)
    except MalformedData as error:
        return str(error)
    assert used == sum(len(payload) + 8 for _, _, payload in found)
    seen = []
    for kind, _, payload in found:
        method = BY_KEY.get(int.from_bytes(payload[:4], "big"))
        if kind == 1 and method is not None:
            try:
                seen.append(repr(decode_arguments(method, payload)))
            except MalformedData as error:
                seen.append(str(error))
    return seen


def tables(data: bytes) -> object:
    """A field table; what could be read can be written, unless it holds what we never send."""
    try:
        table, end = decode_table(len(data).to_bytes(4, "big") + data)
    except MalformedData as error:
        return str(error)
    assert end == len(data) + 4
    with suppress(MalformedData):  # floats that are not finite can be read, and not be sent
        assert skip_table(len(data).to_bytes(4, "big") + data, 0) == end
    try:
        encoded = encode_table(table)
    except BadArgument as error:  # a timestamp beyond datetime, an unsigned number, a decimal
        return repr(table), str(error)
    assert decode_table(encoded)[1] == len(encoded)
    return repr(table), encoded


def properties(data: bytes) -> object:
    """Every property of a message, its repr, and a copy with one changed."""
    received = Properties.from_raw(data)
    seen: list[object] = [*read_all(received), repr(received)]
    for read in (received.check, received.to_dict):
        try:
            seen.append(repr(read()))
        except MalformedData as error:
            seen.append(str(error))
    try:
        changed = received.replace(app_id="x")
    except MalformedData:
        return seen
    assert changed.app_id == "x"
    return seen, changed.raw


def session(data: bytes) -> object:
    """A core: the first byte names its state, the second the size of reads, the rest is the peer.

    It is played with the fused path and without; both have to say the same.
    """
    if len(data) < 2:
        return None
    seen = _play(data, fused=True)
    assert seen == _play(data, fused=False)
    return seen


def _play(data: bytes, *, fused: bool) -> tuple[object, ...]:
    victim = STATES[NAMES[data[0] % len(NAMES)]]()
    if not fused:
        victim.connection.context.parser._max_templates = 0
        victim.connection.context.parser.clear_templates()
    size = READS[data[1] % len(READS)]
    for at in range(2, len(data), size):
        victim.feed(data[at : at + size])
    victim.advance(1)
    victim.finish()
    reason = victim.witness.reason
    return victim.witness.names, victim.witness.bodies, str(reason), victim.taken()


TARGETS: dict[str, Callable[[bytes], object]] = {
    "frames": frames,
    "tables": tables,
    "properties": properties,
    "session": session,
}
