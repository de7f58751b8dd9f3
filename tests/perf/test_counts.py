"""What a message costs in calls and bytecode, and that it does not grow: counts, never times."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator

import pytest

import evamqp
from evamqp.codec import fields, methods, properties
from evamqp.codec.frames import method_frame
from evamqp.core import channel as channel_module
from evamqp.core import parser as parser_module
from tests.perf.steady import (
    BODY,
    FEW,
    MORE,
    Counter,
    Work,
    confirm,
    consume,
    count_calls,
    count_steps,
    delivery,
    open_channels,
    open_connection,
    per_message,
    publish_all,
    varied,
)

# Calls per message, Python's and C's, the same on every CPython.  A change that needs more must
# say why it is worth it: each costs 20 to 60 ns on the hot path.
CALLS = {"publish": 12, "deliver": 5, "deliver and ack": 8, "confirm": 7}
# Bytecode instructions per message.  CPython 3.10 to 3.13 count 122 to 200, 207 to 314, 259 to 364
# and 161 to 196; a tenth is left for the next one.
STEPS = {"publish": 220, "deliver": 345, "deliver and ack": 400, "confirm": 215}
if sys.version_info >= (3, 14):  # which counts 354 and 412
    STEPS |= {"deliver": 360, "deliver and ack": 420}
DISTINCT = 10_000
# Entries that any one memory of what was seen may have.
REMEMBERED = 4096


def ignore(message: evamqp.Message) -> None:
    """The cheapest consumer."""


def acknowledge(message: evamqp.Message) -> None:
    message.ack()


class Fed:
    """Work that feeds frames, encoded before anybody counts; each call goes on behind the last."""

    def __init__(self, connection: evamqp.Connection, frames: list[bytes]) -> None:
        self._connection = connection
        self._frames = frames
        self._next = 0

    def __call__(self, count: int) -> None:
        first, self._next = self._next, self._next + count
        self._connection.receive_data(b"".join(self._frames[first : self._next]))


def publishing(unconfirmed: int = 0) -> Work:
    (channel,) = open_channels(open_connection())
    if unconfirmed:
        confirm(channel)
        publish_all(channel, [("queue", BODY)] * unconfirmed)
        while channel.connection.data_to_send():
            """What else waits would be taken, and its end told, in one of the counted runs."""

    def work(count: int) -> None:
        channel.connection.data_to_send()  # so that each run finds the output empty
        publish_all(channel, [("queue", BODY)] * count)

    return work


def publishing_varied() -> Work:
    (channel,) = open_channels(open_connection())
    messages = varied(DISTINCT)
    publish_all(channel, messages[FEW + MORE :])  # what is remembered is full of others

    def work(count: int) -> None:
        channel.connection.data_to_send()
        publish_all(channel, messages[:count])

    return work


def delivering(on_message: Callable[[evamqp.Message], object], channels: int = 1) -> Work:
    """Deliveries dealt round robin to the channels, whose routes are known."""
    connection = open_connection()
    for channel in open_channels(connection, channels):
        consume(channel, on_message, auto_ack=on_message is ignore)
    count = 2 * channels + 10 * (FEW + MORE)
    frames = [delivery(number % channels + 1, 1 + number // channels) for number in range(count)]
    connection.receive_data(b"".join(frames[: 2 * channels]))
    return Fed(connection, frames[2 * channels :])


def delivering_varied() -> Work:
    connection = open_connection()
    (channel,) = open_channels(connection)
    consume(channel, ignore, auto_ack=True)
    frames = [delivery(1, tag, *message) for tag, message in enumerate(varied(DISTINCT), 1)]
    connection.receive_data(b"".join(frames))  # every length was seen
    return Fed(connection, frames)


def confirming(unconfirmed: int = 1000) -> Work:
    """Confirms of one publish each; at least so many others stay unconfirmed."""
    connection = open_connection()
    (channel,) = open_channels(connection)
    confirm(channel)
    settled = 10 * (FEW + MORE)
    publish_all(channel, [("queue", BODY)] * (unconfirmed + settled))
    acks = [method_frame(1, "basic.ack", tag, False) for tag in range(1, settled + 1)]
    return Fed(connection, acks)


WORKS: dict[str, Callable[[], Work]] = {
    "publish": publishing,
    "deliver": lambda: delivering(ignore),
    "deliver and ack": lambda: delivering(acknowledge),
    "confirm": confirming,
}


@pytest.mark.parametrize("name", WORKS)
def test_a_message_costs_no_more_calls_than_it_did(name: str) -> None:
    assert per_message(count_calls, WORKS[name]()) <= CALLS[name]


@pytest.mark.parametrize("name", WORKS)
def test_a_message_costs_no_more_bytecode_than_it_did(name: str) -> None:
    assert per_message(count_steps, WORKS[name]()) <= STEPS[name]


# Where the output's marks happen to lie decides how often a run of messages passes one.
FLAT = 0.05


@pytest.mark.parametrize("counter", [count_calls, count_steps])
def test_publishing_costs_the_same_with_1000_and_100000_unconfirmed(counter: Counter) -> None:
    few, many = (per_message(counter, publishing(count)) for count in (1000, 100_000))
    assert many == pytest.approx(few, rel=FLAT)


@pytest.mark.parametrize("counter", [count_calls, count_steps])
def test_a_confirm_costs_the_same_with_1000_and_100000_unconfirmed(counter: Counter) -> None:
    few, many = (per_message(counter, confirming(count)) for count in (1000, 100_000))
    assert many == pytest.approx(few, rel=FLAT)


@pytest.mark.parametrize("counter", [count_calls, count_steps])
@pytest.mark.parametrize("on_message", [ignore, acknowledge])
def test_a_delivery_costs_the_same_on_one_and_on_1000_channels(
    on_message: Callable[[evamqp.Message], object], counter: Counter
) -> None:
    one, many = (per_message(counter, delivering(on_message, count)) for count in (1, 1000))
    assert many == pytest.approx(one, rel=FLAT)


def test_a_delivery_costs_the_same_with_10000_routing_keys_and_many_sizes() -> None:
    for counter in (count_calls, count_steps):
        same = per_message(counter, delivering(ignore))
        assert per_message(counter, delivering_varied()) == pytest.approx(same, rel=FLAT)


def test_10000_routing_keys_and_many_sizes_cost_a_publish_at_most_half_as_much_again() -> None:
    same = per_message(count_steps, publishing())
    assert per_message(count_steps, publishing_varied()) <= 1.5 * same


def sizes(owner: object) -> Iterator[tuple[str, int]]:
    """The collections that an object or a module holds, and how much is in them."""
    names = [name for base in type(owner).__mro__ for name in getattr(base, "__slots__", ())]
    for name in names or vars(owner):
        value = getattr(owner, name, None)
        if isinstance(value, dict | list | set | deque):
            yield f"{owner!r}.{name}", len(value)


def test_what_is_remembered_of_routing_keys_and_tables_is_bounded() -> None:
    (channel,) = open_channels(open_connection())
    publish_all(channel, varied(DISTINCT))
    for number in range(DISTINCT):
        headers = {f"key{number}": f"value{number}"}
        raw = evamqp.Properties(content_type=f"type{number}", headers=headers).raw
        assert evamqp.Properties.from_raw(raw).headers == headers
    owners = (channel, fields, methods, properties, channel_module, parser_module)
    assert [held for owner in owners for held in sizes(owner) if held[1] > REMEMBERED] == []


def test_what_is_remembered_of_deliveries_is_bounded() -> None:
    connection = open_connection()
    channels = open_channels(connection, 100)
    for channel in channels:
        consume(channel, ignore, auto_ack=True)
    for tag, size in enumerate(range(100), 1):
        frames = [delivery(channel.number, tag, "k" * size) for channel in channels]
        connection.receive_data(b"".join(frames))
    assert len(connection.context.parser._templates) == parser_module.MAX_TEMPLATES
    assert connection.stats.messages_received == 100 * len(channels)
