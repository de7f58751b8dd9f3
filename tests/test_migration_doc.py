"""docs/migrating-from-pika.md: every row of its tables is run, so that none of it can rot.

The left column is held against pika itself where that is installed; it is no dependency.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import ssl
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import evamqp
from tests.loops.rig import Rig
from tests.support.loops import MemoryLoop
from tests.support.scripted_broker import Publish, ScriptedBroker
from tests.support.server_thread import HOST

DOCUMENT = Path(__file__).parents[1] / "docs" / "migrating-from-pika.md"
NONE = "none"
# Where the rows connect to; their `connection` leads to the first port.
OTHER_PORT = 5673
URL = f"amqp://guest:guest@{HOST}:{OTHER_PORT}/%2F"


class Row(NamedTuple):
    """One row of a table; the code of its first two columns."""

    pika: list[str]
    evamqp: list[str]
    cell: str
    note: str

    def __str__(self) -> str:
        return self.pika[0]


def rows() -> Iterator[Row]:
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| pika |"):
            theirs, ours, note = (cell.strip() for cell in line.strip("|").split(" | ", 2))
            yield Row(re.findall("`(.+?)`", theirs), re.findall("`(.+?)`", ours), ours, note)


ROWS = list(rows())


class Collecting(evamqp.Handler):
    """Keeps what callbacks raise."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.errors.append(error)


def one_message(channel: evamqp.Channel, rig: Rig) -> evamqp.Message:
    """A message that waits to be settled."""
    rig.broker.fill("q", b"body")

    async def get() -> evamqp.Message:
        message = await channel.basic_get("q")
        assert message is not None
        return message

    return rig.loop.run(get())


def run(code: str, rig: Rig, names: dict[str, Any]) -> None:
    """Run one piece of code, as a coroutine if it awaits."""
    if "await " not in code:
        exec(code, names)
    else:
        exec(f"async def row():\n    {code}", names)
        rig.loop.run(names["row"]())
    rig.loop.until(lambda: True)


def test_document_has_all_its_rows() -> None:
    assert len(ROWS) > 80
    for row in ROWS:
        assert row.pika
        assert row.evamqp or row.cell == NONE


@pytest.mark.parametrize("row", [row for row in ROWS if row.cell == NONE], ids=str)
def test_what_has_no_counterpart_says_why(row: Row) -> None:
    assert row.note.strip("| ")


@pytest.mark.parametrize("row", [row for row in ROWS if row.evamqp], ids=str)
def test_row_works_as_it_stands(row: Row) -> None:
    loop = MemoryLoop()
    rig = Rig(loop)
    loop.memory.listen(HOST, OTHER_PORT, ScriptedBroker(Publish.route).accept)
    handler = Collecting()
    channel = rig.open(handler, heartbeat=0)  # run() would jump from one to the next for ever
    results: list[object] = []

    def callback(*arguments: object) -> None:
        results.append(arguments)

    names: dict[str, Any] = {
        "evamqp": evamqp,
        "adapter": rig.loop.adapter,
        "connection": channel.connection,
        "channel": channel,
        "url": URL,
        "callback": callback,
        "on_message": callback,
        "context": ssl.create_default_context(),
    }
    for code in row.evamqp:
        settles = "message" in code or re.search("basic_(ack|nack|reject)", code) is not None
        names["message"] = one_message(channel, rig) if settles else None
        run(code, rig, names)
    rig.finish()
    assert handler.errors == []
    assert channel.connection.reason is not None
    assert channel.connection.reason.by == "client"
    assert rig.loop.errors == []


def test_callbacks_named_in_the_notes_are_callbacks() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    signatures = re.findall(r"`(on_\w+)\((\w+(?:, \w+)*)\)`", text)
    assert len(signatures) > 8
    for name, arguments in signatures:
        if name != "on_message":
            expected = list(inspect.signature(getattr(evamqp.Handler, name)).parameters)[1:]
            assert arguments.split(", ") == expected, name


if importlib.util.find_spec("pika") is not None:
    # What the left column's first words stand for.
    OWNERS = {
        "connection": ("pika.SelectConnection", "pika.BlockingConnection"),
        "SelectConnection": ("pika.SelectConnection",),
        "channel": ("pika.channel.Channel",),
        "ioloop": ("pika.adapters.select_connection.IOLoop",),
        "method": ("pika.spec.Basic.Deliver()",),
        "properties": ("pika.BasicProperties()",),
        "blocking_connection": ("pika.BlockingConnection",),
        "blocking_channel": ("pika.adapters.blocking_connection.BlockingChannel",),
    }

    def resolve(path: str) -> Any:
        """An object of pika's by its dotted name; ``()`` at its end makes an instance."""
        importlib.import_module("pika")
        name = path.removesuffix("()")
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            try:
                module = importlib.import_module(".".join(parts[:count]))
            except ImportError:
                continue
            found: Any = reduce(getattr, parts[count:], module)
            return found() if path.endswith("()") else found
        raise AssertionError(path)

    def candidates(code: str) -> list[Any]:
        """What the code's leading name may mean in pika."""
        name = re.match(r"[\w.]+", code)
        assert name is not None
        first, _, rest = name[0].partition(".")
        if first not in OWNERS:
            return [resolve(name[0])]
        owners = [resolve(owner) for owner in OWNERS[first]]
        if not rest:
            return owners
        return [getattr(owner, rest) for owner in owners if hasattr(owner, rest)]

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("row", ROWS, ids=str)
    def test_left_column_exists_in_pika(row: Row) -> None:
        for code in row.pika:
            if code.startswith("on_message"):
                continue
            found = candidates(code)
            assert found, code
            keywords = re.findall(r"(\w+)=", code)
            for keyword in keywords:
                assert any(keyword in inspect.signature(each).parameters for each in found), code
