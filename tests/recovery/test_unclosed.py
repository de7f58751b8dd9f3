"""What a program loses before it is closed does not vanish without a word."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import evamqp
from evamqp.adapters.memory import MemoryAdapter
from evamqp.adapters.select import SelectAdapter
from evamqp.core.unclosed import _disown_living, report
from evamqp.testing import Broker
from tests.recovery.stage import Stage


def lose(stage: Stage, *clients: Any) -> list[str]:
    """Report clients as if they were collected; the texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for client in clients:
            client.__del__()
            client.__del__()  # once is enough
    assert all(warning.category is ResourceWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]


def test_a_publisher_tells_how_many_messages_go_with_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = stage.publisher()
    stage.publish(publisher, [b"%d" % number for number in range(100)])
    stage.turn()
    # Its reconnector leaves the report to it.
    assert len(lose(stage, publisher, publisher.reconnector)) == 1
    [text] = errors(caplog)
    assert "100 accepted messages" in text


def test_a_consumer_tells_of_its_handlers_at_work(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.server.fill("work", b"1", b"2")
    consumer = stage.consumer(lambda message: stage.adapter.create_future().future)
    stage.turn()
    assert consumer.at_work == 2
    assert len(lose(stage, consumer)) == 1
    [text] = errors(caplog)
    assert "2 handlers were at work" in text


def test_clients_without_messages_are_warned_about_and_are_no_error(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    reconnector = stage.reconnector()
    connection = evamqp.connect("amqp://broker", adapter=stage.adapter)
    stage.turn()
    assert len(lose(stage, reconnector, connection)) == 2
    assert not errors(caplog)


def test_what_was_closed_is_not_mentioned(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.server.on_publish = lambda publish: publish.ack()
    publisher = stage.publisher()
    stage.publish(publisher, [b"x"])
    stage.ended(publisher.close())
    connection = evamqp.connect("amqp://broker", adapter=stage.adapter)
    stage.turn()
    stage.ended(connection.close())
    assert lose(stage, publisher, publisher.reconnector, connection) == []
    assert not errors(caplog)


def test_the_connection_of_a_reconnector_is_the_reconnectors(stage: Stage) -> None:
    reconnector = stage.reconnector()
    stage.turn()
    assert lose(stage, reconnector.connection) == []


def test_what_its_constructor_refused_is_not_mentioned() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(evamqp.BadArgument):
            evamqp.Publisher("amqp://broker", adapter=MemoryAdapter(), max_messages=0)
        gc.collect()
    assert not [each for each in caught if each.category is ResourceWarning]


def test_a_collected_client_is_reported() -> None:
    stage = Stage()
    publisher = stage.publisher()
    stage.publish(publisher, [b"x"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del stage, publisher
        gc.collect()
    assert [each for each in caught if "unclosed <Publisher" in str(each.message)]


PROGRAM = """
import asyncio, logging, evamqp
logging.basicConfig(format="%(levelname)s %(message)s")
async def main():
    publisher = evamqp.Publisher("amqp://127.0.0.1:1")
    for number in range(100):
        publisher.publish("", "orders", b"order")
{keep}
asyncio.run(main())
"""


@pytest.mark.parametrize("keep", ["", "    global kept; kept = publisher"])
def test_a_program_that_ends_says_what_it_loses(keep: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", PROGRAM.format(keep=keep)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "100 accepted messages have no outcome" in ended.stderr
    assert "ResourceWarning: unclosed <Publisher 100 waiting" in ended.stderr
    assert ended.stderr.count("unclosed <Publisher") == 1
    assert "unclosed <Reconnector" not in ended.stderr


def test_nothing_is_asked_of_a_client_once_the_program_has_ended() -> None:
    """Then the modules that it would need are gone."""
    program = """
import os
from evamqp.core.unclosed import Closable

class Client(Closable):
    def __init__(self):
        super().__init__()
        self._must_close, self.me = True, self

    def _report_unclosed(self, write=os.write):
        write(1, b"asked ")

client = Client()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True
    )
    assert (ended.stdout, ended.stderr) == (b"asked ", b"")


def test_a_forked_child_is_silent(stage: Stage) -> None:
    publisher = stage.publisher()
    _disown_living()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report(publisher, 1, "messages")


# --- a loop that ends -----------------------------------------------------------------------------


def with_asyncio(caplog: pytest.LogCaptureFixture) -> tuple[evamqp.Publisher, evamqp.Publisher]:
    """Two publishers whose loop has ended; the first was closed."""

    async def main() -> tuple[evamqp.Publisher, evamqp.Publisher]:
        closed = evamqp.Publisher("amqp://127.0.0.1:1/")
        await closed.close(0)
        left = evamqp.Publisher("amqp://127.0.0.1:1/")
        left.publish("", "q", b"1")
        await asyncio.sleep(0.01)
        assert not errors(caplog)
        return closed, left

    return asyncio.run(main())


def with_select(caplog: pytest.LogCaptureFixture) -> tuple[evamqp.Publisher, evamqp.Publisher]:
    adapter = SelectAdapter()
    closed = evamqp.Publisher("amqp://127.0.0.1:1/", adapter=adapter)
    adapter.run_until(closed.close(0), timeout=10)
    left = evamqp.Publisher("amqp://127.0.0.1:1/", adapter=adapter)
    left.publish("", "q", b"1")
    adapter.call_later(0.01, adapter.stop)
    adapter.run()
    assert not errors(caplog)
    adapter.close()
    return closed, left


@pytest.mark.parametrize("run", [with_asyncio, with_select])
def test_a_loop_that_ends_reports_what_is_unclosed_and_then_accepts_nothing(
    caplog: pytest.LogCaptureFixture,
    run: Callable[[pytest.LogCaptureFixture], tuple[evamqp.Publisher, evamqp.Publisher]],
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        closed, left = run(caplog)
    unclosed = [each for each in caught if "Publisher" in str(each.message)]
    assert [each.category for each in unclosed] == [ResourceWarning]
    [text] = errors(caplog)
    assert "1 accepted messages have no outcome" in text
    with pytest.raises(evamqp.WrongState, match="its loop is closed"):
        left.publish("", "q", b"2")
    assert left.pending == 1
    with pytest.raises(evamqp.WrongState):
        closed.publish("", "q", b"2")


def test_a_connection_is_reported_by_the_end_of_its_loop(caplog: pytest.LogCaptureFixture) -> None:
    with Broker().serve() as broker:
        adapter = SelectAdapter()
        connection = evamqp.connect(broker.url, adapter=adapter)
        adapter.run_until(connection.wait_open(), timeout=10)
        with pytest.warns(ResourceWarning, match="unclosed <Connection"):
            adapter.close()
