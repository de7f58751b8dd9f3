"""What a channel owes: confirms of publishes, settlements of deliveries, and transactions of both.

Books only; who sends and who settles is the channel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from evamqp.codec.methods import pack_ack, pack_nack
from evamqp.testing.broker.consumer import Consumer
from evamqp.testing.broker.message import Entry, Message
from evamqp.testing.broker.queue import Queue


class Unacked(NamedTuple):
    """A message that is out: its queue, and the consumer that has it (None after basic.get)."""

    tag: int
    queue: Queue
    entry: Entry
    consumer: Consumer | None


Settle = Callable[[list[Unacked]], None]


class Transaction:
    """What waits for tx.commit: publishes with the queues they found, and acknowledgements."""

    __slots__ = ("publishes", "settlements")

    def __init__(self) -> None:
        self.publishes: list[tuple[Message, bool, tuple[str, ...]]] = []
        self.settlements: list[tuple[Settle, list[Unacked]]] = []


class Confirms:
    """The outcome of publishes, until it is sent.

    Outcomes come in the order of their tags, so that one ack can stand for all before it.

    Args:
        last: The tag of the last publish before.
    """

    __slots__ = ("_has_gaps", "_runs", "last", "taken")

    def __init__(self, last: int = 0) -> None:
        self.taken: bytes = b""  # what take() gave last
        self.last: int = last  # the tag of the last publish
        self._has_gaps = False  # a publish will never be confirmed, so no ack may cover it
        self._runs: list[tuple[bool, int, int]] = []  # acked, first and last tag

    @property
    def is_owed(self) -> bool:
        return bool(self._runs)

    def add(self, acked: bool) -> None:
        """The next publish has its outcome."""
        self.last += 1
        if self._runs and self._runs[-1][0] is acked and not self._has_gaps:
            self._runs[-1] = acked, self._runs[-1][1], self.last
        else:
            self._runs.append((acked, self.last, self.last))

    def lose(self) -> None:
        """The next publish takes its tag, and has no outcome."""
        self.last += 1
        self._has_gaps = True

    def take(self, channel: int) -> bytes:
        """The frames of all that is owed."""
        frames = []
        for acked, first, last in self._runs:
            if acked:
                frames.append(pack_ack(channel, last, first < last))
            else:
                frames += [pack_nack(channel, tag, False, True) for tag in range(first, last + 1)]
        self._runs.clear()
        self.taken = b"".join(frames)
        return self.taken
