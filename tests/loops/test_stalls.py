"""A loop that stands still is reported, on every loop; on a loop of memory, by its clock."""

from __future__ import annotations

import logging
import time

import pytest

import evamqp
from tests.loops.rig import Rig, on_sockets

STALL = 0.25  # seconds


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "stood still" in each.getMessage()]


@on_sockets
def test_a_callback_that_blocks_is_named(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    channel = rig.open(stall_warning=STALL / 2)
    request = channel.queue_declare("q", callback=lambda ok: time.sleep(STALL))
    rig.settle(request)
    connection = channel.connection
    rig.loop.until(lambda: connection.stats.stalls > 0)
    assert connection.stats.stalled_seconds >= STALL
    # A busy machine may make the loop stand still once more.
    assert any("in queue.declare callback" in line for line in lines(caplog))


@on_sockets
def test_what_blocks_the_loop_elsewhere_is_noticed_at_the_next_timer(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    connection = rig.connect(stall_warning=STALL / 2, heartbeat=1)
    rig.loop.adapter.call_later(0.05, lambda: time.sleep(1))
    rig.loop.until(lambda: connection.stats.stalls > 0)
    assert any(" in " not in line.partition("stood still")[2] for line in lines(caplog))


@on_sockets
def test_nothing_is_said_where_it_is_turned_off_or_short(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for warning in (None, 60):
        channel = rig.open(stall_warning=warning)
        rig.settle(channel.queue_declare("q", callback=lambda ok: time.sleep(STALL)))
        assert channel.connection.stats.stalls == 0
    assert lines(caplog) == []


def test_what_is_deferred_is_not_late(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    channel = rig.open()
    request = channel.queue_declare("q")
    request.cancel()
    rig.settle(channel.queue_declare("q"))
    assert channel.connection.stats.stalls == 0
    assert lines(caplog) == []


def test_stall_warning_is_a_parameter() -> None:
    assert evamqp.Parameters().stall_warning == 1
    assert evamqp.Parameters.from_url("amqp://h?stall_warning=2.5").stall_warning == 2.5
    with pytest.raises(evamqp.BadArgument):
        evamqp.Parameters(stall_warning=0)
