"""aio-pika's tutorials and examples as processes, alone and with the real aio-pika on one side."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from evamqp.testing import Broker
from tests.compat.asyncio_rig import launch
from tests.examples.program import ROOT, Program
from tests.support.broker_url import BROKERS

FACADE = "evamqp.compat.aio_pika"
PROGRAMS = Path(__file__).parent / "programs"

# Who sends and who receives.
SIDES = [pytest.param("embedded", "facade", "facade", id="embedded")]
if importlib.util.find_spec("aio_pika") is not None:
    SIDES += [
        pytest.param("rabbitmq", "facade", "real", id="to-real", marks=pytest.mark.rabbitmq),
        pytest.param("rabbitmq", "real", "facade", id="from-real", marks=pytest.mark.rabbitmq),
    ]
on_all_sides = pytest.mark.parametrize(("url", "sender", "receiver"), SIDES, indirect=["url"])
on_each_broker = pytest.mark.parametrize("url", BROKERS, indirect=True)


def start(side: str, url: str, name: str, *arguments: str) -> Program:
    """A program on the facade, or on the real aio-pika."""
    path = PROGRAMS / f"{name}.py"
    if side == "facade":
        return launch("aio_pika", path, *arguments, AMQP_URL=url)
    return Program(str(path.relative_to(ROOT)), *arguments, AMQP_URL=url)


def any_said(pattern: str, *programs: Program) -> bool:
    return any(program.said(pattern) for program in programs)


@on_all_sides
def test_hello_world(url: str, sender: str, receiver: str) -> None:
    with start(receiver, url, "hello_receive") as receiving:
        receiving.until_said("waiting")
        with start(sender, url, "hello_send") as sending:
            sending.end()
        receiving.until_said("body is b'Hello World!'")
        receiving.until_said("received IncomingMessage:{")


@on_all_sides
def test_work_queue(url: str, sender: str, receiver: str) -> None:
    with start(receiver, url, "work_receive") as one, start(receiver, url, "work_receive") as two:
        one.until_said("waiting")
        two.until_said("waiting")
        with start(sender, url, "work_send", "a..", "b.", "c", "d") as sending:
            sending.end()
        for task in "abcd":
            one.until(partial(any_said, rf"done {task}\S* PERSISTENT", one, two))
        assert one.said("done")
        assert two.said("done")


@on_all_sides
@pytest.mark.parametrize(
    ("kind", "bindings", "wanted", "unwanted"),
    [
        ("fanout", [""], "any", None),
        ("direct", ["warning", "error"], "error", "info"),
        ("topic", ["*.critical", "kern.#"], "kern.critical", "cron.info"),
    ],
)
def test_logs(
    url: str, sender: str, receiver: str, kind: str, bindings: list[str], wanted: str,
    unwanted: str | None,
) -> None:  # fmt: skip
    with start(receiver, url, "logs_receive", kind, *bindings) as receiving:
        receiving.until_said("waiting")
        for key in filter(None, (unwanted, wanted)):
            with start(sender, url, "logs_send", kind, key, "text") as sending:
                sending.end()
        receiving.until_said(f"^{wanted} text$")
        assert unwanted is None or not receiving.said(f"^{unwanted} ")


@on_all_sides
def test_rpc(url: str, sender: str, receiver: str) -> None:
    with start(receiver, url, "rpc_server") as server:
        server.until_said("waiting")
        with start(sender, url, "rpc_client", "10", "15") as client:
            client.end()
            assert client.lines == ["got 55", "got 610"]


@on_all_sides
def test_patterns(url: str, sender: str, receiver: str) -> None:
    with start(receiver, url, "patterns_server") as server:
        server.until_said("waiting")
        with start(sender, url, "patterns_client") as client:
            client.end()
            told = [line for line in client.lines if not line.startswith("Message returned")]
        assert told == [
            "rpc [0, 2, 4]",
            "call 12",
            "error 'pickled'",
            "missing is told",
            "slow is told",
            "json 30",
            "json error KeyError",
        ]
        for done in ("did easy 1", "did nack 2", "did raise 2", "did last 1"):
            server.until_said(done)
        assert not server.said("did reject")


@on_each_broker
def test_pools(url: str) -> None:
    with start("facade", url, "pools") as program:
        program.end()
        assert program.lines[-1] == "seen 50"


@on_each_broker
def test_tornado(url: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    with start("facade", url, "tornado_app", str(port)) as program:
        program.end()
        assert program.lines[-1] == "came posted"


class Exiting(Program):
    """A program that ends by ``sys.exit(3)`` in a task."""

    clean = (3,)


@on_each_broker
def test_old_style(url: str) -> None:
    path = str((PROGRAMS / "old_style.py").relative_to(ROOT))
    with Exiting("-m", "evamqp.compat", "aio_pika", path, AMQP_URL=url) as program:
        program.until_said("seen")
        assert "seen [0, 1, 2, 3, 4, 5] 77" in program.lines
        program._process.wait(10)
        assert program._process.returncode == 3


@on_each_broker
def test_robust(url: str) -> None:
    with start("facade", url, "robust", "200") as program:
        assert program.end() == {"seen": 200, "repeated": 0, "failed": 0, "missing": 0}


def faststream_says(word: str) -> list[str]:
    return [f"came {word}", f"came {word}, relayed", "answer 42"]


@pytest.mark.skipif(not importlib.util.find_spec("faststream"), reason="no FastStream")
def test_faststream_on_the_facade_lives_through_a_loss() -> None:
    path = PROGRAMS / "faststream_app.py"
    with Broker().serve() as broker:
        done = subprocess.Popen(
            [sys.executable, str(path)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "AMQP_URL": broker.url},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert done.stdout is not None
        lines = [done.stdout.readline().rstrip()]
        while not lines[-1].startswith("answer"):
            lines.append(done.stdout.readline().rstrip())
        connections = [one.number for one in broker.connections()]
        broker.faults.drop_connections()
        broker.wait_until(
            lambda broker: (
                len(broker.consumers()) == 3
                and not {one.number for one in broker.connections()} & set(connections)
            )
        )
        rest, _ = done.communicate("go on\n", timeout=60)
    kinds = ("came", "answer", "healthy")  # the rest is FastStream's log
    told = [line for line in lines + rest.splitlines() if line.startswith(kinds)]
    assert told == [
        *faststream_says("first"),
        *faststream_says("second"),
        "healthy evamqp.compat.aio_pika",
    ]


def test_aiormq_and_pamqp_are_answered_too() -> None:
    with start("facade", "", "imports") as program:
        program.end()
        assert program.lines == [f"{FACADE} {FACADE}.aiormq {FACADE}.pamqp.commands"]
