"""What messages and connections allocate and leave behind: counts of objects, never times."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import evamqp
from evamqp.codec.frames import method_frame
from tests.perf.steady import (
    BODY,
    PROPERTIES,
    confirm,
    consume,
    delivery,
    open_channels,
    open_connection,
    publish_all,
)

GARBAGE = Path(__file__).with_name("garbage.py")
ROOT = Path(__file__).resolve().parents[2]
MESSAGES = 1000
# A count of live objects may be off by a few that the interpreter makes for itself.
SLACK = 5


def live() -> int:
    """How many objects the garbage collector tracks."""
    return len(gc.get_objects())


def growth(work: Callable[[], object]) -> int:
    """By how many tracked objects ``work`` leaves more, once it was done before."""
    work()
    before = live()
    work()
    return live() - before


def deliveries() -> bytes:
    return b"".join(delivery(1, tag) for tag in range(1, MESSAGES + 1))


@pytest.mark.parametrize("auto_ack", [True, False])
def test_a_steady_consumer_leaves_nothing(auto_ack: bool) -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)

    def on_message(message: evamqp.Message) -> None:
        if not auto_ack:
            message.ack()

    consume(channel, on_message, auto_ack=auto_ack)
    data = deliveries()

    def work() -> None:
        connection.receive_data(data)
        connection.data_to_send()

    assert growth(work) <= SLACK
    assert gc.collect() == 0


def test_a_message_that_is_kept_is_one_tracked_object() -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)
    kept: list[evamqp.Message] = []
    consume(channel, kept.append, auto_ack=True)
    data = deliveries()

    grown = growth(lambda: connection.receive_data(data))

    assert len(kept) == 2 * MESSAGES
    assert grown <= MESSAGES + SLACK


def test_no_tracked_object_piles_up_while_a_read_of_many_messages_is_parsed() -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)
    counts: list[int] = []

    def on_message(message: evamqp.Message) -> None:
        if message.delivery_tag % 100 == 0:
            counts.append(live())

    consume(channel, on_message, auto_ack=True)
    connection.receive_data(deliveries())
    assert max(counts) - min(counts) <= SLACK


def test_a_publish_keeps_nothing_until_its_confirm_and_nothing_after() -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)
    confirm(channel)
    tag = 0

    def publish_only() -> None:
        publish_all(channel, [("queue", BODY)] * MESSAGES)
        connection.data_to_send()

    def settle_all() -> None:
        nonlocal tag
        tag += MESSAGES
        connection.receive_data(method_frame(1, "basic.ack", tag, True))

    def work() -> None:
        publish_only()
        settle_all()

    assert growth(publish_only) <= SLACK
    assert len(channel.unconfirmed) == 2 * MESSAGES
    assert growth(settle_all) <= SLACK
    assert growth(work) <= SLACK
    assert len(channel.unconfirmed) == 0
    assert gc.collect() == 0


def test_a_publish_of_many_bytes_does_not_copy_its_body_before_it_is_sent() -> None:
    connection = open_connection()
    (channel,) = open_channels(connection)
    body = bytes(connection.frame_max - 8)
    channel.basic_publish("", "queue", body, PROPERTIES)
    assert any(piece is body for piece in connection.context.output.pieces)


def count_garbage(loop: str) -> tuple[int, int]:
    """Unreachable objects per connection: of a bare one of that loop, and of ours."""
    done = subprocess.run(
        [sys.executable, str(GARBAGE), loop],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bare, ours = (int(count) for count in done.stdout.split())
    # 20 connections each; the loops themselves leave an odd object now and then.
    return bare // 20, ours // 20


@pytest.mark.parametrize("loop", ["memory", "select"])
def test_a_connection_opened_and_closed_leaves_no_garbage(loop: str) -> None:
    assert count_garbage(loop) == (0, 0)


@pytest.mark.parametrize("loop", ["asyncio", "tornado", "twisted"])
def test_a_connection_leaves_no_more_garbage_than_a_bare_one_of_its_loop(loop: str) -> None:
    if loop != "asyncio":
        pytest.importorskip(loop)
    bare, ours = count_garbage(loop)
    # The adapter deletes an attribute of Twisted's transport, which that keeps in a dict from
    # then on; the transport is part of a reference cycle of Twisted's own.
    assert ours <= bare + (loop == "twisted")
