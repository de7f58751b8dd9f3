"""The publisher and the consumer example: right totals, restarts lived through, clean ends."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from rabbitmq_node import Vhost
from tests.examples.program import Program

ADAPTERS = ["select", "asyncio", "tornado", "twisted"]
STYLES = ["async", "callback"]
# What the consumer that keeps books says when nothing is wrong.
CLEAN = {"async": {"duplicates": 0, "missing": 0}, "callback": {}}
FAST = ("--progress", "--interval", "0.002")


class Example(Program):
    """A publisher or a consumer that tells its totals at the end.

    Args:
        name: ``publisher`` or ``consumer``.
        style: ``async`` are those that reconnect by themselves, ``callback`` the plain ones.
    """

    def __init__(self, name: str, url: str, *options: str, style: str = "async") -> None:
        super().__init__(f"examples/{style}_{name}.py", "--url", url, *options)
        self.last_words = f"{name}: "


def ready(vhost: Vhost) -> int:
    """Messages in the examples' queue."""
    for line in vhost.ctl("list_queues", "name", "messages").splitlines():
        name, _, count = line.partition("\t")
        if name == "evamqp-example":
            return int(count)
    return 0


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_one_publishes_the_other_consumes(vhost: Vhost, adapter: str, style: str) -> None:
    options = ("--adapter", adapter, "--count", "200")
    fast = (*options, "--interval", "0.001")
    with (
        Example("consumer", vhost.url, *options, style=style) as consumer,
        Example("publisher", vhost.url, *fast, style=style) as publisher,
    ):
        totals = publisher.end()
        assert totals == {"published": 200, "confirmed": 200, "nacked": 0, "unknown": 0}
        assert consumer.end() == {"consumed": 200, **CLEAN[style]}
    assert ready(vhost) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_signal_stops_both_cleanly(vhost: Vhost, adapter: str, number: int) -> None:
    options = ("--adapter", adapter, *FAST)
    with (
        Example("consumer", vhost.url, *options) as consumer,
        Example("publisher", vhost.url, *options) as publisher,
    ):
        publisher.until_counted("confirmed", 1)
        consumer.until_counted("consumed", 1)
        totals = publisher.stop(number)
        assert totals["confirmed"] == totals["published"] > 0
        assert totals["nacked"] == totals["unknown"] == 0
        consumed = consumer.stop(number)["consumed"]
    assert consumed + ready(vhost) == totals["published"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", ["publisher", "consumer"])
def test_signal_stops_it_while_there_is_no_broker(adapter: str, name: str, style: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"amqp://127.0.0.1:{unheard.getsockname()[1]}"
        with Example(name, url, "--adapter", adapter, style=style) as program:
            program.until_said("attempt")
            assert set(program.stop().values()) == {0}


@pytest.mark.parametrize(
    ("adapter", "crash"),
    [("select", True), ("asyncio", True), ("tornado", False), ("twisted", True)],
)
def test_restart_of_the_broker_loses_nothing(vhost: Vhost, adapter: str, crash: bool) -> None:
    options = ("--adapter", adapter, *FAST)
    with (
        Example("consumer", vhost.url, *options) as consumer,
        Example("publisher", vhost.url, *options) as publisher,
    ):
        publisher.until_counted("confirmed", 100)
        consumer.until_counted("consumed", 1)
        vhost.node.kill() if crash else vhost.node.stop()
        vhost.node.start()
        before = publisher.count("confirmed")
        publisher.until_counted("confirmed", before + 100)
        totals = publisher.stop()
        assert totals["published"] == totals["confirmed"]
        consumer.until(lambda: ready(vhost) == 0)
        books = consumer.stop()
    assert books["missing"] == 0
    assert books["consumed"] - books["duplicates"] == totals["published"]


def test_restart_of_the_broker_loses_nothing_confirmed(vhost: Vhost) -> None:
    options = ("--adapter", "select", *FAST)
    with (
        Example("consumer", vhost.url, *options, style="callback") as consumer,
        Example("publisher", vhost.url, *options, style="callback") as publisher,
    ):
        publisher.until_counted("confirmed", 100)
        consumer.until_counted("consumed", 1)
        vhost.node.kill()
        vhost.node.start()
        before = publisher.count("confirmed")
        publisher.until_counted("confirmed", before + 100)
        totals = publisher.stop()
        consumer.until_counted("consumed", totals["confirmed"])
        consumed = consumer.stop()["consumed"]
    assert totals["published"] == totals["confirmed"] + totals["nacked"] + totals["unknown"]
    assert consumed >= totals["confirmed"]


def test_consumer_that_works_slowly_acknowledges_after_its_work(vhost: Vhost) -> None:
    with Example("publisher", vhost.url, "--count", "300", "--interval", "0") as publisher:
        publisher.end()
    with Example("consumer", vhost.url, "--progress", "--interval", "0.2") as consumer:
        consumer.until_counted("consumed", 100)
        consumed = consumer.stop()["consumed"]
    deadline = time.monotonic() + 10
    while (left := ready(vhost)) != 300 - consumed:
        assert time.monotonic() < deadline, (left, consumed)


def test_frozen_broker_does_not_hold_up_the_end(vhost: Vhost) -> None:
    with Example("publisher", vhost.url, *FAST) as publisher:
        publisher.until_counted("confirmed", 1)
        vhost.node.freeze()
        lines = len(publisher.lines)
        publisher.until(lambda: len(publisher.lines) > lines + 1)  # a second of publishes
        totals = publisher.stop()
    assert totals["unknown"] > 0
    assert totals["published"] == totals["confirmed"] + totals["nacked"] + totals["unknown"]
