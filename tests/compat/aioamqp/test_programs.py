"""aioamqp's six tutorials as processes under the runner, on the embedded broker and RabbitMQ."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.compat.asyncio_rig import launch
from tests.examples.program import Program
from tests.support.broker_url import BROKERS

PROGRAMS = Path(__file__).parent / "programs"
everywhere = pytest.mark.parametrize("url", BROKERS, indirect=True)


def start(url: str, name: str, *arguments: str) -> Program:
    return launch("aioamqp", PROGRAMS / f"{name}.py", *arguments, AMQP_URL=url)


def any_said(pattern: str, *programs: Program) -> bool:
    return any(program.said(pattern) for program in programs)


@everywhere
def test_hello_world(url: str) -> None:
    with start(url, "hello_receive") as receiving:
        receiving.until_said("waiting")
        with start(url, "hello_send") as sending:
            sending.end()
        receiving.until_said("received b'Hello World!'")


@everywhere
def test_work_queue(url: str) -> None:
    with start(url, "work_receive") as one, start(url, "work_receive") as two:
        one.until_said("waiting")
        two.until_said("waiting")
        with start(url, "work_send", "a..", "b.", "c", "d") as sending:
            sending.end()
        for task in "abcd":
            one.until(partial(any_said, rf"done {task}\S* 2", one, two))
        assert one.said("done")
        assert two.said("done")


@everywhere
@pytest.mark.parametrize(
    ("kind", "bindings", "wanted", "unwanted"),
    [
        ("fanout", [""], "any", None),
        ("direct", ["warning", "error"], "error", "info"),
        ("topic", ["*.critical", "kern.#"], "kern.critical", "cron.info"),
    ],
)
def test_logs(url: str, kind: str, bindings: list[str], wanted: str, unwanted: str | None) -> None:
    with start(url, "logs_receive", kind, *bindings) as receiving:
        receiving.until_said("waiting")
        for key in filter(None, (unwanted, wanted)):
            with start(url, "logs_send", kind, key, "text") as sending:
                sending.end()
        receiving.until_said(f"^{wanted} text$")
        assert unwanted is None or not receiving.said(f"^{unwanted} ")


@everywhere
def test_rpc(url: str) -> None:
    with start(url, "rpc_server") as server:
        server.until_said("waiting")
        with start(url, "rpc_client", "10", "15") as client:
            client.end()
            assert client.lines == ["got 55", "got 610"]
