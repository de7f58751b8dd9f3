"""Where a consumer of a stream goes on: positions alone, and what a broker is asked for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import evamqp
from evamqp import Topology
from evamqp.errors import BadArgument, BadType
from evamqp.recovery.stream import StreamPosition, checked_offset

MIDDAY = datetime(2026, 1, 2, 12, tzinfo=timezone.utc)


class FakeMessage:
    """What a position sees of a message."""

    def __init__(self, offset: int) -> None:
        self.stream_offset = offset
        self.is_settled = False


def messages(first: int, end: int) -> list[Any]:
    return [FakeMessage(offset) for offset in range(first, end)]


@pytest.mark.parametrize(
    ("offset", "sent"),
    [
        ("first", "first"),
        ("last", "last"),
        ("next", "next"),
        (0, 0),
        (2**40, 2**40),
        (MIDDAY, MIDDAY),
        (timedelta(minutes=2), "120s"),
        (timedelta(milliseconds=1), "1s"),
        ("3h", "3h"),
    ],
)
def test_every_form_of_an_offset(offset: Any, sent: object) -> None:
    assert checked_offset(offset) == sent
    assert StreamPosition(offset).arguments({"x-priority": 1}) == {
        "x-priority": 1,
        "x-stream-offset": sent,
    }


@pytest.mark.parametrize(
    ("offset", "error"),
    [
        (True, BadType),
        (1.5, BadType),
        (b"first", BadType),
        (-1, BadArgument),
        (2**63, BadArgument),
        pytest.param(10**5000, BadArgument, id="digits"),
        ("", BadArgument),
        ("1x", BadArgument),
        ("0h", BadArgument),
        ("first ", BadArgument),
        (MIDDAY.replace(tzinfo=None), BadArgument),
        (timedelta(0), BadArgument),
    ],
)
def test_what_is_no_offset_is_refused(offset: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="offset"):
        checked_offset(offset)


def test_it_goes_on_at_the_first_unsettled_message_after_a_loss() -> None:
    position = StreamPosition("first")
    assert position.arguments(None) == {"x-stream-offset": "first"}
    came = messages(10, 15)
    position.add(came)
    for index in (0, 1, 3):
        came[index].is_settled = True
    assert position.resume_at == 12
    position.rewind()
    assert position.arguments(None) == {"x-stream-offset": 12}


def test_it_goes_on_behind_the_last_message_when_all_are_settled() -> None:
    position = StreamPosition(7)
    assert position.resume_at == 7
    came = messages(7, 9)
    position.add(came)
    for message in came:
        message.is_settled = True
    position.rewind()
    assert position.resume_at == 9


def test_a_message_that_stays_unsettled_costs_no_memory_for_those_behind_it() -> None:
    position = StreamPosition("first")
    stuck, *rest = messages(0, 10_000)
    position.add([stuck])
    for message in rest:
        position.add([message])
        message.is_settled = True
    assert len(position._unsettled) < 200
    assert position.resume_at == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"offset": "next", "on_error": "requeue"}, "requeues nothing"),
        ({"offset": "next", "arguments": {"x-stream-offset": 1}}, "either"),
        ({"offset": -1}, "offset"),
        ({"arguments": {"x-stream-offset": "x"}}, "offset"),
    ],
)
def test_a_consumer_refuses_what_a_stream_cannot_do(options: dict[str, Any], text: str) -> None:
    from evamqp.adapters.memory import MemoryAdapter

    with pytest.raises(BadArgument, match=text):
        evamqp.Consumer("amqp://broker", "s", print, adapter=MemoryAdapter(), **options)


def test_a_queue_that_the_topology_makes_a_stream_is_one() -> None:
    from evamqp.adapters.memory import MemoryAdapter

    topology = Topology()
    topology.queue("s", arguments={"x-queue-type": "stream"})
    with pytest.raises(BadArgument, match="requeues nothing"):
        evamqp.Consumer(
            "amqp://broker", "s", print,
            adapter=MemoryAdapter(), topology=topology, on_error="requeue",
        )  # fmt: skip
