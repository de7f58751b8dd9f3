"""Random sessions from a seed: an honest broker's frames, mutated, in any state, amid user's calls.

``play(seed)`` is the whole of it.  The same seed gives the same session on every machine.

    python -m tests.hostile.mutator 12345          # play one again
    python -m tests.hostile.mutator 0 100000       # play many
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random

from evamqp.codec.frames import HEARTBEAT_FRAME, frame, method_frame
from evamqp.codec.properties import Properties
from evamqp.core.channel import Channel
from evamqp.errors import UsageError
from tests.hostile.states import ANNOUNCE, STATES, body, header
from tests.hostile.victim import Victim
from tests.support.frames import (
    OPEN_OK,
    ack,
    channel_close,
    connection_close,
    deliver,
    got,
    nack,
    reply_to,
    returned,
    start,
    tune,
)

ARGUMENTS = Properties(content_type="text/plain", headers={"key": ["value", 1, {"k": None}]}).raw
#: What an honest broker says, somewhere.
FRAMES = (
    start(),
    tune(),
    tune(heartbeat=0, frame_max=4096),
    OPEN_OK,
    HEARTBEAT_FRAME,
    ANNOUNCE,
    header(4),
    header(9000),
    header(0, properties=ARGUMENTS),
    body(b"good"),
    body(b""),
    body(bytes(4000)),
    deliver(1, "tag", 3, b"good"),
    deliver(1, "tag", 4, b"good", properties=ARGUMENTS),
    deliver(1, "tag", 5, b"good", exchange="another", routing_key="routing.key"),
    deliver(1, "nobody", 6, b"good"),
    deliver(2, "tag", 7, b"good"),
    returned(1, b"good"),
    got(1, 8, b"good"),
    ack(1, 1),
    ack(1, 3),
    ack(1, 4, True),
    ack(1, 0, True),
    nack(1, 5),
    nack(1, 3, True),
    channel_close(1, 404, "NOT_FOUND", "queue.declare"),
    channel_close(2),
    connection_close(),
    method_frame(0, "connection.close-ok"),
    method_frame(0, "connection.secure", b"challenge"),
    method_frame(0, "connection.blocked", "memory"),
    method_frame(0, "connection.unblocked"),
    method_frame(0, "connection.update-secret-ok"),
    method_frame(1, "channel.open-ok"),
    method_frame(1, "channel.close-ok"),
    method_frame(1, "channel.flow", False),
    method_frame(1, "channel.flow", True),
    method_frame(1, "queue.declare-ok", "queue", 1, 2),
    method_frame(1, "queue.purge-ok", 3),
    method_frame(1, "basic.get-empty"),
    method_frame(1, "basic.consume-ok", "tag"),
    method_frame(1, "basic.cancel", "tag", False),
    method_frame(1, "basic.cancel-ok", "tag"),
    method_frame(1, "confirm.select-ok"),
)
#: Bytes that mean something somewhere.
SPECIAL = (0, 1, 2, 3, 8, 10, 20, 40, 50, 60, 70, 80, 127, 128, 206, 254, 255)


def flip(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] = rng.choice(SPECIAL)


def randomize(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def delete(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 1, 2, 8))]


def insert(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = bytes(rng.choice(SPECIAL) for _ in range(rng.choice((1, 1, 2, 8))))


def truncate(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def repeat(data: bytearray, rng: Random) -> None:
    data += data * rng.randrange(1, 4)


def retarget(data: bytearray, rng: Random) -> None:
    """Another channel."""
    data[1:3] = rng.choice((0, 1, 2, 3, 77, 65_535)).to_bytes(2, "big")


def resize(data: bytearray, rng: Random) -> None:
    """Another length, which lies."""
    size = rng.choice((0, 1, 4, 4088, 4089, 65_528, 65_529, 2**31, 2**32 - 1))
    data[3:7] = size.to_bytes(4, "big")


def mend(data: bytearray, rng: Random) -> None:
    """A frame whose length and end are right again, whatever is in it."""
    if len(data) > 8:
        data[3:7] = (len(data) - 8).to_bytes(4, "big")
        data[-1] = 0xCE


def splice(data: bytearray, rng: Random) -> None:
    """The beginning of this, the end of another."""
    other = rng.choice(FRAMES)
    del data[rng.randrange(len(data)) :]
    data += other[rng.randrange(len(other)) :]


MUTATIONS = (
    flip, flip, randomize, delete, insert, truncate, repeat, retarget, resize, splice
)  # fmt: skip


def mutated(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(MUTATIONS)(changed, rng)
        if not changed:
            break
    if rng.random() < 0.6:
        mend(changed, rng)
    return bytes(changed)


# --- what the user does meanwhile


def act(victim: Victim, action: Callable[[Victim], object]) -> None:
    """Some call; a refusal is as good as an answer."""
    try:
        action(victim)
    except UsageError:
        return


def a_channel(victim: Victim) -> Channel:
    return victim.channels[-1] if victim.channels else victim.new_channel()


def publish(victim: Victim) -> None:
    channel = a_channel(victim)
    channel.confirm_select()
    for size in (0, 4, 4, 9000, 4):
        channel.basic_publish("", "queue", bytes(size), mandatory=True)


def declare(victim: Victim) -> None:
    a_channel(victim)
    victim.ask(a_channel(victim).queue_declare, "queue")


def settle(victim: Victim) -> None:
    if victim.witness.message is not None:
        message, victim.witness.message = victim.witness.message, None
        (message.ack, message.nack, message.reject)[message.delivery_tag % 3]()


CALLS: tuple[Callable[[Victim], object], ...] = (
    publish,
    declare,
    settle,
    settle,
    lambda victim: victim.new_channel(),
    lambda victim: victim.ask(a_channel(victim).basic_get, "queue"),
    lambda victim: a_channel(victim).basic_consume("queue", victim.witness.on_message),
    lambda victim: a_channel(victim).basic_cancel("tag"),
    lambda victim: a_channel(victim).close(),
    lambda victim: victim.connection.close(),
    lambda victim: victim.connection.pause_reading(),
    lambda victim: victim.connection.resume_reading(),
    lambda victim: victim.connection.update_secret("another"),
    lambda victim: victim.connection.call_soon_threadsafe(lambda: None),
    lambda victim: a_channel(victim).wait_for_confirms().cancel(),
)
#: What only the loop does, and so not inside a callback.
EVENTS: tuple[Callable[[Victim], object], ...] = (
    lambda victim: victim.call(victim.connection.set_writable, False),
    lambda victim: victim.call(victim.connection.set_writable, True),
    lambda victim: victim.advance(20),
)


def honest(victim: Victim, rng: Random) -> bytes:
    """Answers to what the client has asked; now and then to somebody else."""
    answers = b"".join(map(reply_to, victim.sent()))
    return mutated(answers, rng) if answers and rng.random() < 0.2 else answers


def attack(victim: Victim, rng: Random) -> bytes:
    """The next bytes of the peer."""
    chance = rng.random()
    if chance < 0.4:
        return rng.choice(FRAMES)
    if chance < 0.75:
        return mutated(rng.choice(FRAMES), rng)
    if chance < 0.95:
        return honest(victim, rng)
    return frame(rng.choice((1, 2, 3, 8)), rng.choice((0, 1)), rng.randbytes(rng.randrange(40)))


def feed(victim: Victim, data: bytes, rng: Random) -> None:
    """In one piece, or in some."""
    while data:
        size = rng.choice((len(data), len(data), 1, 7, 21))
        victim.feed(data[:size])
        data = data[size:]


def play(seed: int) -> Victim:
    """One session; whatever breaks a law raises AssertionError."""
    rng = Random(seed)
    victim = STATES[rng.choice(NAMES)](request_timeout=15)
    for name in ("on_message", "on_channel_close", "on_return", "on_delivery_confirmation"):
        if rng.random() < 0.1:
            victim.witness.actions[name] = lambda _: act(victim, rng.choice(CALLS))
    for _ in range(rng.randrange(1, 10)):
        if rng.random() < 0.15:
            act(victim, rng.choice(CALLS + EVENTS))
        feed(victim, attack(victim, rng), rng)
        if victim.connection.transport_action.name != "KEEP":
            break
    victim.finish()
    return victim


NAMES = tuple(STATES)


def main() -> None:
    first = int(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for seed in range(first, first + count):
        try:
            play(seed)
        except BaseException:
            print(f"python -m tests.hostile.mutator {seed}", file=sys.stderr)  # noqa: T201
            raise


if __name__ == "__main__":
    main()
