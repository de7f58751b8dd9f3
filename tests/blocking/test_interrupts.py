"""Ctrl-C at any moment of a blocking call: the connection works on, or is closed and says why.

Random moments here, then each function in turn; the selector's own sleep is tests/adapters/.
"""

from __future__ import annotations

import gc
import inspect
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

import evamqp.blocking
from evamqp.blocking import Channel, Connection
from evamqp.testing.fixtures import ServedVhost

SECONDS = 2.0  # of the attack at random moments
ROUNDS = 50  # that it makes at the least
TIMEOUT = 10.0  # seconds until a state of the queue that must come is given up
WHY = "a signal interrupted a call halfway"


class Attack:
    """A program that goes on after each Ctrl-C, and remembers what it was promised."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.random = random.Random(12)
        self.confirmed: set[int] = set()
        self.received: set[int] = set()
        self.interrupts = self.survived = 0
        self._published = 0
        self.connection = evamqp.blocking.connect(url)
        self.connection.channel().queue_declare("attacked", durable=True)

    def round(self) -> None:
        """Work until a Ctrl-C, then see what is left."""
        delay = 1e-5 + self.random.random() * self.random.choice([0.0005, 0.003, 0.01])
        work = self.random.choice([self._publish, self._batch, self._consume, self._get])
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay, self.random.choice([0.0, 0.0007]))
                work(self.connection.channel())
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            self.interrupts += 1
        except evamqp.AmqpError as error:
            self._reconnect(error)
        try:
            self._round_trip()
            self.survived += 1
        except evamqp.AmqpError as error:
            self._reconnect(error)

    def _reconnect(self, error: evamqp.AmqpError) -> None:
        assert not self.connection.is_open
        assert WHY in str(error)
        self.connection.close()
        self.connection = evamqp.blocking.connect(self.url)

    def _next(self) -> int:
        self._published += 1
        return self._published

    def _publish(self, channel: Channel) -> None:
        for _ in range(100):
            number = self._next()
            channel.publish("", "attacked", str(number).encode())
            self.confirmed.add(number)

    def _batch(self, channel: Channel) -> None:
        batch, numbers = channel.batch(50), [self._next() for _ in range(200)]
        for number in numbers:
            batch.publish("", "attacked", str(number).encode())
        batch.wait()
        self.confirmed.update(numbers)

    def _consume(self, channel: Channel) -> None:
        for message in channel.consume("attacked", prefetch=20, inactivity_timeout=0.02):
            self.received.add(int(message.body))
            message.ack()

    def _get(self, channel: Channel) -> None:
        while (message := channel.basic_get("attacked")) is not None:
            self.received.add(int(message.body))
            message.ack()

    def _round_trip(self) -> None:
        connection, ran = self.connection, list[bool]()
        connection.channel().close()
        connection.call_soon_threadsafe(lambda: ran.append(True))
        connection.call_later(0.0, lambda: ran.append(True))
        while len(ran) < 2:
            connection.process_events(5.0)

    def drain(self) -> None:
        """Receive what is left, once the broker has requeued all."""
        self.connection.close()
        with evamqp.blocking.connect(self.url) as self.connection:
            self._consume_all(self.connection.channel())

    def _consume_all(self, channel: Channel) -> None:
        for message in channel.consume("attacked", inactivity_timeout=1.0):
            self.received.add(int(message.body))
            message.ack()
        channel.queue_delete("attacked")


@pytest.fixture
def finalizers() -> Iterator[None]:
    """Python drops what is raised inside a finalizer: a Ctrl-C, or a generator's cleanup."""

    def drop(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt | evamqp.AmqpError):
            before(unraisable)

    before, sys.unraisablehook = sys.unraisablehook, drop
    yield
    gc.collect()
    sys.unraisablehook = before


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """The timer's signal comes as SIGINT does."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    yield None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("ctrl_c", "finalizers")
def test_interrupts_at_random_moments_lose_nothing_that_was_confirmed(url: str) -> None:
    attack = Attack(url)
    deadline = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < deadline or rounds < ROUNDS:
        attack.round()
        rounds += 1
    attack.drain()
    assert attack.interrupts > ROUNDS / 2
    assert attack.survived > ROUNDS / 2
    assert attack.confirmed <= attack.received


class Tripwire:
    """Raises KeyboardInterrupt where one function of evamqp's begins: the one with this number.

    That is where Python itself looks for signals, besides the end of a call and of a loop's turn.

    Args:
        number: Counted from 0.
        folder: Where the functions are that count.
    """

    def __init__(self, number: int, folder: str = "/evamqp/") -> None:
        self._left = number
        self._folder = folder
        self.is_tripped = False

    def __enter__(self) -> Tripwire:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> None:
        # Python does not look where a generator is closed, which tracing takes for a call.
        if self._folder in frame.f_code.co_filename and not (
            self.is_tripped or frame.f_code.co_flags & inspect.CO_GENERATOR
        ):
            self._left -= 1
            if self._left < 0:
                self.is_tripped = True
                raise KeyboardInterrupt


def get(connection: Connection, channel: Channel) -> None:
    message = channel.basic_get("q")
    assert message is not None
    message.nack()


def publish(connection: Connection, channel: Channel) -> None:
    channel.publish("", "q", b"1")


def declare(connection: Connection, channel: Channel) -> None:
    channel.queue_declare("q", durable=True)


def iterate(connection: Connection, channel: Channel) -> None:
    next(iter(channel.consume("q"))).nack()


def call_back(connection: Connection, channel: Channel) -> None:
    ran: list[bool] = []
    connection.call_soon_threadsafe(lambda: ran.append(True))
    connection.call_later(0.0, lambda: ran.append(True))
    while len(ran) < 2:
        connection.process_events(5.0)


@pytest.mark.usefixtures("finalizers")
@pytest.mark.parametrize("work", [get, publish, declare, iterate, call_back])
def test_interrupt_of_any_function_leaves_it_usable_or_closed_by_the_client(
    amqp_broker: ServedVhost, work: Callable[[Connection, Channel], None]
) -> None:
    connection = evamqp.blocking.connect(amqp_broker.url)
    number = survived = closed = 0
    reasons: list[evamqp.AmqpError] = []
    while True:
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.publish("", "q", b"1")
        try:
            with Tripwire(number) as wire:
                work(connection, channel)
        except KeyboardInterrupt:
            pass
        except evamqp.AmqpError as error:  # a cleanup on the way out may be what says it
            reasons.append(error)
        try:
            call_back(connection, channel)
            channel.close()  # with whatever consumer is left on it
            survived += 1
        except evamqp.AmqpError as error:
            reasons.append(error)
            closed += connection.reason is not None and connection.reason.by == "client"
        if not connection.is_open:
            connection.close()
            connection = evamqp.blocking.connect(amqp_broker.url)
        if not wire.is_tripped:
            break
        number += 1
    connection.close()
    assert [str(error) for error in reasons if WHY not in str(error)] == []
    assert survived
    assert closed
    assert survived + closed == number + 1


MESSAGES = [b"1", b"2", b"3"]


@pytest.mark.usefixtures("finalizers")
def test_interrupt_of_an_iteration_leaves_no_consumer_and_no_message(
    amqp_broker: ServedVhost,
) -> None:
    connection = evamqp.blocking.connect(amqp_broker.url)
    connection.channel().queue_declare("q", durable=True)
    number = survived = 0
    while True:
        channel, other = connection.channel(), connection.channel()
        other.queue_purge("q")
        for body in MESSAGES:
            other.publish("", "q", body)
        taken: list[evamqp.blocking.Message] = []
        wire = Tripwire(number, "/evamqp/blocking/")
        with suppress(KeyboardInterrupt, evamqp.AmqpError), wire:
            for message in channel.consume("q"):
                taken.append(message)
                break
        try:
            for message in taken:
                message.nack()
            call_back(connection, channel)  # which notices an interrupt that costs the connection
            wait_until_left(other, len(MESSAGES))
            assert [body_of(other) for _ in MESSAGES] == MESSAGES
            channel.close()
            survived += 1
        except evamqp.AmqpError:
            connection.close()
            connection = evamqp.blocking.connect(amqp_broker.url)
        if not wire.is_tripped:
            break
        number += 1
    connection.close()
    assert survived > number / 2  # the others cost the connection


def wait_until_left(channel: Channel, count: int) -> None:
    """Wait until the queue has no consumer, and so many messages."""
    deadline = time.monotonic() + TIMEOUT
    while (found := channel.queue_declare("q", passive=True))[1:] != (count, 0):
        assert time.monotonic() < deadline, found


def body_of(channel: Channel) -> bytes:
    message = channel.basic_get("q", auto_ack=True)
    assert message is not None
    return message.body


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("waits", [True, False])
def test_ctrl_c_ends_an_iteration_and_its_consumer(channel: Channel, waits: bool) -> None:
    """Whether it comes while the iteration waits, or in the program's own code."""
    for body in MESSAGES:
        channel.publish("", "q", body)
    taken: list[bytes] = []

    def consume() -> None:
        for message in channel.consume("q"):
            message.ack()
            taken.append(message.body)
            if not waits:
                signal.raise_signal(signal.SIGINT)
            elif taken == MESSAGES:
                signal.setitimer(signal.ITIMER_REAL, 0.05)

    with pytest.raises(KeyboardInterrupt):
        consume()
    left = MESSAGES[len(taken) :]
    wait_until_left(channel, len(left))
    assert [body_of(channel) for _ in left] == left
