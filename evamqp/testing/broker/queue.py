"""A queue: what is ready, what is out and unacknowledged, and which consumer gets the next message.

Which messages come here is routing's, and how one is sent is the channel's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from evamqp.abc import Handle
from evamqp.testing.broker.dead_letters import EXPIRED, MAXLEN
from evamqp.testing.broker.message import PRIORITY_STEP, Entry, Message
from evamqp.types import Table

if TYPE_CHECKING:
    from evamqp.testing.broker.consumer import Consumer

# Seconds: loops round a timer's time, and a message must not survive its time by a rounding.
_TICK = 1e-4


class Owner(Protocol):
    """What a queue needs of its virtual host."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle: ...
    def dead_letter(
        self, queue: Queue, message: Message, reason: str, redelivered: bool = False
    ) -> None:
        """Dead-letter a message."""

    def remove_queue(self, queue: Queue) -> None:
        """Delete a queue, and cancel its consumers."""


class Queue:
    """One classic queue.

    Attributes:
        owner: The connection whose exclusive queue it is; None for the others.
        ready: What waits, in order.
        unacked: What is out.
        has_single_active: Whether one consumer gets all messages, until it goes.
        published: Messages that ever came, requeued ones not counted.
    """

    __slots__ = (
        "_active", "_expires", "_groups", "_host", "_is_over", "_life_timer", "_max_bytes",
        "_max_length", "_max_priority", "_overflow", "_timer", "_timer_at", "_ttl", "_used_at",
        "arguments", "auto_delete", "dead_letter_exchange", "dead_letter_key", "durable",
        "exclusive_consumer", "has_single_active", "name", "owner", "published", "ready",
        "ready_bytes", "unacked",
    )  # fmt: skip

    def __init__(
        self,
        host: Owner,
        name: str,
        *,
        durable: bool,
        owner: object | None,
        auto_delete: bool,
        arguments: Table,
    ) -> None:
        self._host = host
        self.name: str = name
        self.durable: bool = durable
        self.owner: object | None = owner
        self.auto_delete: bool = auto_delete
        self.arguments: Table = arguments
        self._ttl = _seconds(arguments, "x-message-ttl")
        self._expires = _seconds(arguments, "x-expires")
        self._max_length = _number(arguments, "x-max-length")
        self._max_bytes = _number(arguments, "x-max-length-bytes")
        self._max_priority = _number(arguments, "x-max-priority")
        self._overflow = _text(arguments, "x-overflow") or "drop-head"
        self.has_single_active: bool = bool(arguments.get("x-single-active-consumer"))
        self.dead_letter_exchange: str | None = _text(arguments, "x-dead-letter-exchange")
        self.dead_letter_key: str | None = _text(arguments, "x-dead-letter-routing-key")
        self.ready: deque[Entry] = deque()
        self.ready_bytes: int = 0
        self.unacked: set[Entry] = set()
        self.published: int = 0
        self.exclusive_consumer: Consumer | None = None
        self._active: Consumer | None = None  # where only one is
        self._groups: list[deque[Consumer]] = []  # by priority, the highest first
        self._timer: Handle | None = None
        self._timer_at = 0.0
        self._life_timer: Handle | None = None
        self._used_at = host.time()
        self._is_over = False
        self.touch()

    # Consumers

    @property
    def consumers(self) -> list[Consumer]:
        """All consumers, the next in turn first within each priority."""
        return [consumer for group in self._groups for consumer in group]

    @property
    def consumer_count(self) -> int:
        return sum(map(len, self._groups))

    def add_consumer(self, consumer: Consumer) -> None:
        if consumer.is_exclusive:
            self.exclusive_consumer = consumer
        for group in self._groups:
            if group[0].priority == consumer.priority:
                group.append(consumer)
                break
        else:
            self._groups.append(deque((consumer,)))
            self._groups.sort(key=lambda group: -group[0].priority)
        self._choose_active()
        self.touch()

    def remove_consumer(self, consumer: Consumer) -> None:
        """Take a consumer away; the last one takes an auto-delete queue along."""
        for group in self._groups:
            if consumer in group:
                group.remove(consumer)
        self._groups = [group for group in self._groups if group]
        if self.exclusive_consumer is consumer:
            self.exclusive_consumer = None
        if self._active is consumer:
            self._active = None
            self._choose_active()
        self.touch()
        if self.auto_delete and not self._groups:
            self._host.remove_queue(self)
        else:
            self.dispatch()

    def take_consumers(self) -> list[Consumer]:
        """Remove and return all consumers."""
        gone = self.consumers
        self._groups.clear()
        self.exclusive_consumer = self._active = None
        return gone

    def _choose_active(self) -> None:
        """Where one consumer gets all and none does: the first of the highest priority."""
        if self.has_single_active and self._active is None and self._groups:
            self._active = self._groups[0][0]

    # Messages in

    def publish(self, message: Message, *, redelivered: bool = False) -> bool:
        """Take a message; False if the queue is full and refuses rather than dropping."""
        self._drop_expired()
        if self._refuses(message):
            return False
        self.published += 1
        self._insert(Entry(message, self._order(message), self._expiry(message), redelivered))
        if self._groups:
            self._serve()
        if self.ready:
            self._drop_expired()
            self._drop_excess()
            self._arm()
        return True

    def requeue(self, entries: Iterable[Entry]) -> None:
        """Put back what was out, each in its old place; into a queue that is deleted, nothing."""
        if self._is_over:
            return
        for entry in entries:
            self.unacked.discard(entry)
            entry.redelivered = True
            self._insert(entry)
        self.dispatch()

    def _order(self, message: Message) -> int:
        if self._max_priority is None:
            return self.published
        return self.published - min(message.priority, self._max_priority) * PRIORITY_STEP

    def _expiry(self, message: Message) -> float | None:
        expiration = None if message.expiration is None else message.expiration / 1000
        limits = [limit for limit in (self._ttl, expiration) if limit is not None]
        return self._host.time() + min(limits) if limits else None

    def _insert(self, entry: Entry) -> None:
        ready = self.ready
        self.ready_bytes += len(entry.message.body)
        if not ready or ready[-1].order < entry.order:
            ready.append(entry)
        elif entry.order < ready[0].order:
            ready.appendleft(entry)
        else:
            ready.insert(bisect_left(ready, entry.order, key=lambda other: other.order), entry)

    def _refuses(self, message: Message) -> bool:
        if self._overflow == "drop-head":
            return False
        is_full = (self._max_length is not None and len(self.ready) >= self._max_length) or (
            self._max_bytes is not None and self.ready_bytes + len(message.body) > self._max_bytes
        )
        if is_full and self._overflow == "reject-publish-dlx":
            self._host.dead_letter(self, message, MAXLEN)
        return is_full

    # Messages out

    def dispatch(self) -> None:
        """Hand out what is ready to whoever may take it."""
        if self.ready:
            self._drop_expired()
            self._drop_excess()
            if self._groups:
                self._serve()
            self._arm()

    def get(self, no_ack: bool) -> Entry | None:
        """The next message, for basic.get; None if nothing is ready."""
        self._drop_expired()
        self.touch()
        if not self.ready:
            return None
        entry = self._pop()
        if not no_ack:
            self.unacked.add(entry)
        self._drop_expired()
        self._arm()
        return entry

    def settle(self, entry: Entry) -> None:
        """A message is done with."""
        self.unacked.discard(entry)

    def reject(self, entry: Entry, reason: str) -> None:
        """A message is given up: dead-letter it."""
        self.unacked.discard(entry)
        if not self._is_over:
            self._host.dead_letter(self, entry.message, reason, entry.redelivered_when_dead)

    def purge(self) -> int:
        """Drop what is ready; how much it was."""
        self._drop_expired()
        count = len(self.ready)
        self.ready.clear()
        self.ready_bytes = 0
        return count

    def keep_persistent(self) -> None:
        """A restart: only persistent messages stay, unacknowledged ones come back."""
        for entry in self.unacked:
            entry.redelivered = True
        entries = [*self.ready, *self.unacked]
        self.unacked.clear()
        self.ready.clear()
        self.ready_bytes = 0
        for entry in sorted(entries, key=lambda entry: entry.order):
            if entry.message.is_persistent:
                self._insert(entry)
        self._arm()

    def _serve(self) -> None:
        ready = self.ready
        while ready:
            consumer = self._next_consumer()
            if consumer is None:
                return
            entry = self._pop()
            if not consumer.no_ack:
                self.unacked.add(entry)
            consumer.deliver(entry)
            self._drop_expired()

    def _next_consumer(self) -> Consumer | None:
        """Who is next: by priority, then in turn; None if nobody has room."""
        if self.has_single_active:
            active = self._active
            return active if active is not None and active.can_take() else None
        for group in self._groups:
            for _ in range(len(group)):
                consumer = group[0]
                group.rotate(-1)
                if consumer.can_take():
                    return consumer
        return None

    def _pop(self) -> Entry:
        entry = self.ready.popleft()
        self.ready_bytes -= len(entry.message.body)
        return entry

    # Limits

    def _drop_excess(self) -> None:
        if (self._max_length is None and self._max_bytes is None) or self._overflow != "drop-head":
            return
        while self.ready and (
            (self._max_length is not None and len(self.ready) > self._max_length)
            or (self._max_bytes is not None and self.ready_bytes > self._max_bytes)
        ):
            self._host.dead_letter(self, self._pop().message, MAXLEN)

    def _drop_expired(self) -> None:
        """Give up what is past its time; as in RabbitMQ only the head of the queue is looked at."""
        ready = self.ready
        while ready:
            expires_at = ready[0].expires_at
            if expires_at is None or expires_at > self._host.time() + _TICK:
                return
            self._host.dead_letter(self, self._pop().message, EXPIRED)

    def _arm(self) -> None:
        """Have a timer for the message at the head."""
        expires_at = self.ready[0].expires_at if self.ready else None
        if expires_at is None or (self._timer is not None and self._timer_at <= expires_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = expires_at
        delay = max(0.0, expires_at - self._host.time())
        self._timer = self._host.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.dispatch()

    # Life

    def touch(self) -> None:
        """It was used: its own life, if it has a limit, begins anew."""
        self._used_at = self._host.time()
        if self._expires is not None and self._life_timer is None:
            self._life_timer = self._host.call_later(self._expires, self._on_life_timer)

    def _on_life_timer(self) -> None:
        self._life_timer = None
        assert self._expires is not None
        left = self._used_at + self._expires - self._host.time()
        if self._groups:
            left = self._expires
        if left > _TICK:
            self._life_timer = self._host.call_later(left, self._on_life_timer)
        else:
            self._host.remove_queue(self)

    def end(self) -> None:
        """It is deleted: no timer fires any more, and nothing comes back."""
        self._is_over = True
        for timer in (self._timer, self._life_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._life_timer = None


def _number(arguments: Table, name: str) -> int | None:
    value = arguments.get(name)
    return value if isinstance(value, int) else None


def _seconds(arguments: Table, name: str) -> float | None:
    value = _number(arguments, name)
    return None if value is None else value / 1000


def _text(arguments: Table, name: str) -> str | None:
    value = arguments.get(name)
    return value if isinstance(value, str) else None
