"""The short snippets of docs/testing.md run as they stand; ``test_outbox.py`` has the long ones."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import evamqp.blocking
from evamqp.adapters.select import SelectAdapter
from evamqp.testing.fixtures import ServedVhost

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


def block(first_line: str) -> str:
    """The block of Python that begins so."""
    codes = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = [code for code in codes if first_line in code]
    return str(code)


def start_worker(url: str) -> threading.Thread:
    """A program that takes one job and publishes that it is done."""
    connection = evamqp.blocking.connect(url)
    channel = connection.channel()
    for queue in ("jobs", "done"):
        channel.queue_declare(queue, durable=True)

    def work() -> None:
        with connection:
            for message in channel.consume("jobs", inactivity_timeout=10):
                channel.publish("", "done", message.body)
                message.ack()
                return

    worker = threading.Thread(target=work)
    worker.start()
    return worker


def test_the_fixture_serves_a_program(amqp_broker: ServedVhost) -> None:
    workers: list[threading.Thread] = []

    def start(url: str) -> threading.Thread:
        workers.append(start_worker(url))
        return workers[-1]

    names: dict[str, Any] = {"start_worker": start}
    exec(block("def test_my_worker"), names)
    names["test_my_worker"](amqp_broker)
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


def test_a_broker_without_a_fixture() -> None:
    adapter = SelectAdapter()
    names: dict[str, Any] = {"evamqp": evamqp, "adapter": adapter}
    # As a program would, it goes on inside the block.
    code = block("from evamqp.testing import Broker")
    exec(f"{code}    adapter.run_until(connection.wait_open())\n    connection.close()\n", names)
    adapter.run_until(names["connection"].wait_closed())
    assert names["connection"].reason.by == "client"
    adapter.close()
