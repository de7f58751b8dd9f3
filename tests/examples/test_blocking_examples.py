"""The blocking examples as processes: nothing is lost when the broker hangs up."""

from __future__ import annotations

import signal

import pytest

from rabbitmq_node import Vhost
from tests.examples.program import Program


def program(name: str, url: str, *options: str) -> Program:
    return Program(f"examples/blocking_{name}.py", "--url", url, *options)


def test_what_threads_publish_is_consumed(vhost: Vhost) -> None:
    with program("publisher", vhost.url, "--count", "300", "--threads", "4") as publisher:
        assert publisher.end()["confirmed"] == 300
    with program("consumer", vhost.url, "--count", "300") as consumer:
        assert consumer.end() == {"consumed": 300}


def test_publisher_goes_on_after_its_connection_was_closed(vhost: Vhost) -> None:
    with program("publisher", vhost.url, "--count", "1000000", "--threads", "3") as publisher:
        publisher.until_said("connected")
        vhost.ctl("close_all_connections", "test")
        publisher.until(lambda: publisher.lines.count("connected") == 2)
        confirmed = publisher.stop(signal.SIGINT)["confirmed"]
    with program("consumer", vhost.url, "--idle", "1") as consumer:
        assert consumer.end()["consumed"] >= confirmed > 0


@pytest.mark.parametrize("name", ["consumer", "publisher"])
def test_interrupt_ends_it_in_order(vhost: Vhost, name: str) -> None:
    options = ("--count", "1000000") if name == "publisher" else ()
    with program(name, vhost.url, *options) as running:
        running.until_said("connected")
        running.stop(signal.SIGINT)
