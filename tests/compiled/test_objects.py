"""What compiled modules could get wrong that source cannot: memory, types, tracebacks."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import evamqp
from evamqp.adapters.select import SelectAdapter
from evamqp.blocking import SharedLoop
from evamqp.codec.properties import Properties
from evamqp.core.output import Output
from evamqp.driver import Driver
from tests.compiled import work
from tests.support.client import Client
from tests.support.frames import deliver

pytestmark = pytest.mark.compiled

PICKLE_AGAIN = """
import pickle, sys
loaded = pickle.loads(sys.stdin.buffer.read())
sys.stdout.buffer.write(pickle.dumps(loaded))
"""
ROOT = Path(__file__).resolve().parents[2]


def test_work_leaves_no_object_and_no_memory_behind() -> None:
    work.steady(200)  # what is kept once, is kept now
    gc.collect()
    objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
    work.steady(2000)
    gc.collect()
    assert gc.garbage == []
    assert len(gc.get_objects()) - objects < 50
    assert sys.getallocatedblocks() - blocks < 500


def test_what_is_shared_keeps_its_reference_count() -> None:
    body, key = b"a body of its own", "a key of its own"
    properties = Properties(app_id="an app of its own")
    client = Client(output_max=64 * 1024 * 1024).open()
    channel = client.channel()
    raw = properties.raw
    shared = (body, key, properties, raw, None, True, b"")
    before = [sys.getrefcount(each) for each in shared]
    for _ in range(3000):
        channel.basic_publish("", key, body, properties)
        client.taken()
    for _ in range(3000):
        with pytest.raises(evamqp.BadType):
            channel.basic_publish("", key, body, 1)  # type: ignore[arg-type]
    after = [sys.getrefcount(each) for each in shared]
    assert [abs(a - b) < 100 for a, b in zip(after, before, strict=True)] == [True] * len(shared)


def test_a_cycle_through_a_message_is_collected() -> None:
    client = Client().open()
    channel = client.channel()
    kept = []

    def on_message(message: evamqp.Message) -> None:
        kept.append(message)

    channel.basic_consume("queue", on_message, consumer_tag="tag")
    client.serve()
    client.feed(deliver(1, "tag", 1))
    message = kept.pop()
    assert gc.is_tracked(message)
    mark = object()
    references = sys.getrefcount(mark)
    message.body = [message, mark]  # type: ignore[assignment]  # whatever a program may do
    del message
    client.lose()
    gc.collect()
    assert sys.getrefcount(mark) == references


@pytest.mark.parametrize("implementation", ["pure", "compiled"])
def test_properties_that_one_build_pickled_load_in_the_other(implementation: str) -> None:
    sent = Properties(app_id="app", headers={"n": [1, None]})
    done = subprocess.run(
        [sys.executable, "-c", PICKLE_AGAIN],
        input=pickle.dumps(sent),
        env={**os.environ, "EVAMQP_IMPL": implementation, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert pickle.loads(done.stdout) == sent == copy.deepcopy(sent) == copy.copy(sent)


def test_signatures_are_those_of_the_source() -> None:
    names = list(inspect.signature(Properties).parameters)
    assert names[:3] == ["content_type", "content_encoding", "headers"]
    assert len(names) == 14
    parameters = inspect.signature(evamqp.Channel.basic_publish).parameters
    assert list(parameters) == [
        "self",
        "exchange",
        "routing_key",
        "body",
        "properties",
        "mandatory",
    ]
    assert parameters["mandatory"].default is False
    assert evamqp.Channel.basic_publish.__doc__ is not None


def test_a_traceback_shows_file_line_and_source() -> None:
    channel = Client().open().channel()
    with pytest.raises(evamqp.BadType) as raised:
        channel.basic_publish("", "key", "a str")  # type: ignore[arg-type]
    frames = traceback.extract_tb(raised.value.__traceback__)
    name, line = frames[-1].filename, frames[-1].lineno
    assert name.endswith("evamqp/core/publishing.py")
    source = (ROOT / "evamqp" / "core" / "publishing.py").read_text().splitlines()
    assert line is not None
    assert "encode it first" in source[line - 1]
    os.chdir(ROOT)
    assert frames[-1].line == source[line - 1].strip()


def take_five(output: Output) -> None:
    output.size = 5
    output.take()


@pytest.mark.parametrize(
    ("made", "uses"),
    [
        (
            Properties.__new__(Properties),
            (Properties.check, Properties.to_dict, attrgetter("headers"), attrgetter("app_id")),
        ),
        (
            Output.__new__(Output),
            (
                lambda output: output.append(b"frame"),
                lambda output: output.append_uncapped(b"frame"),
                take_five,
            ),
        ),
        (
            evamqp.Connection.__new__(evamqp.Connection),
            (
                lambda connection: connection.receive_data(b"bytes"),
                lambda connection: connection.pieces_to_send(),
                lambda connection: connection.next_deadline(),
                lambda connection: connection.channel(),
            ),
        ),
        (
            Driver.__new__(Driver),
            (
                lambda driver: driver.dial([]),
                lambda driver: driver.perform(None),
                lambda driver: driver.call_soon_threadsafe(print),
            ),
        ),
        (
            SelectAdapter.__new__(SelectAdapter),
            (
                lambda adapter: adapter.call_soon(print),
                lambda adapter: adapter.call_later(0, print),
                lambda adapter: adapter.turn(0),
                lambda adapter: adapter.run(),
            ),
        ),
        (
            SharedLoop.__new__(SharedLoop),
            (
                lambda loop: loop.lock,
                lambda loop: loop.perform(print),
                lambda loop: loop.flush(),
            ),
        ),
    ],
    ids=["Properties", "Output", "Connection", "Driver", "SelectAdapter", "SharedLoop"],
)
def test_an_object_that_new_alone_has_made_is_an_error_and_no_crash(
    made: Any, uses: tuple[Callable[[Any], object], ...]
) -> None:
    for use in uses:
        with pytest.raises((TypeError, AttributeError)):
            use(made)


def test_wrong_arguments_are_our_errors() -> None:
    channel = Client().open().channel()
    wrong: tuple[dict[str, Any], ...] = ({"app_id": 1}, {"headers": 1}, {"delivery_mode": "2"})
    for properties in wrong:
        with pytest.raises(evamqp.BadType):
            Properties(**properties)
    calls: tuple[Any, ...] = ((1, "key", b""), ("", 1, b""), ("", "key", 1), ("", "key", None))
    for arguments in calls:
        with pytest.raises(evamqp.BadType):
            channel.basic_publish(*arguments)


def test_the_choice_of_the_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted, found in (("", "compiled"), ("pure", "pure"), ("compiled", "compiled")):
        done = subprocess.run(
            [sys.executable, "-m", "evamqp", "--version"],
            env={**os.environ, "EVAMQP_IMPL": wanted, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"evamqp {evamqp.__version__}, {found}, " in done.stdout
