"""Programs of pika's blocking style, unchanged under the runner, crossed with pika itself."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.examples.program import ROOT, Program

PROGRAMS = Path(__file__).parent / "programs"
#: Each side of a conversation on the facade, or on pika itself.
SIDES = [("facade", "facade"), ("facade", "pika"), ("pika", "facade")]

crossed = pytest.mark.parametrize(("left", "right"), SIDES, ids=map("-".join, SIDES))


class Run(Program):
    """One of the programs, on one side."""

    def __init__(self, side: str, url: str, name: str, *arguments: str) -> None:
        path = str((PROGRAMS / f"{name}.py").relative_to(ROOT))
        runner = ("-m", "evamqp.compat", "pika") if side == "facade" else ()
        # Some end without closing what they opened.
        quiet = ("-W", "ignore::ResourceWarning")
        super().__init__(*quiet, *runner, path, *arguments, AMQP_URL=url)


def output(side: str, url: str, name: str, *arguments: str) -> list[str]:
    """What a program prints until its clean end."""
    with Run(side, url, name, *arguments) as run:
        run.end()
        return run.lines


@crossed
def test_hello_world(url: str, left: str, right: str) -> None:
    with Run(left, url, "receive") as receiver:
        receiver.until_said("waiting")
        assert output(right, url, "send") == ["sent"]
        receiver.until_said("received Hello World!")
        receiver.stop(signal.SIGINT)
        assert receiver.lines == ["waiting", "received Hello World!", "interrupted"]


@crossed
def test_work_queue(url: str, left: str, right: str) -> None:
    assert output(left, url, "new_task", "one.", "two..", "stop") == ["sent"]
    assert output(right, url, "worker") == [
        "waiting",
        "done one. mode=2",
        "done two.. mode=2",
        "done stop mode=2",
    ]


@crossed
@pytest.mark.parametrize(
    ("kind", "key", "bound", "other"),
    [
        ("fanout", "", [""], None),
        ("direct", "error", ["warning", "error"], "info"),
        ("topic", "kern.critical", ["kern.*"], "cron.info"),
    ],
)
def test_publish_subscribe_routing_and_topics(
    url: str, left: str, right: str, kind: str, key: str, bound: list[str], other: str | None
) -> None:
    with Run(left, url, "receive_logs", kind, f"logs_{kind}", *bound) as receiver:
        receiver.until_said("waiting")
        if other is not None:
            assert output(right, url, "emit_log", kind, f"logs_{kind}", other, "no") == ["sent"]
        assert output(right, url, "emit_log", kind, f"logs_{kind}", key, "yes", "stop") == ["sent"]
        receiver.end()
        assert receiver.lines == ["waiting", f"received {key}:yes", f"received {key}:stop"]


@crossed
@pytest.mark.parametrize("direct", [False, True], ids=["reply queue", "direct reply-to"])
def test_rpc(url: str, left: str, right: str, direct: bool) -> None:
    with Run(left, url, "rpc_server") as server:
        server.until_said("waiting")
        options = ("direct",) if direct else ()
        answers = output(right, url, "rpc_client", *options, "30", "10", "-1")
        assert answers == ["fib(30) = 832040", "fib(10) = 55", "fib(-1) = 0"]
        server.end()


@pytest.mark.parametrize("side", ["facade", "pika"])
def test_consume_with_threads(url: str, side: str) -> None:
    assert output(side, url, "threaded", "40") == ["worked 40 left 0"]


@pytest.mark.parametrize("side", ["facade", "pika"])
def test_confirms_and_get(url: str, side: str) -> None:
    assert output(side, url, "confirming") == [
        "test: confirmed",
        "nowhere: returned 312",
        "got Hello World! text/plain 0",
        "no message",
    ]


def test_program_in_the_style_of_0_x(url: str) -> None:
    assert output("facade", url, "old_style") == [
        "True",
        "False",
        " 'key':b'one' on 1",
        " 'key':b'two' on 1",
        "over",
    ]


def test_dramatiq_under_substitute(url: str) -> None:
    path = str((PROGRAMS / "dramatiq_app.py").relative_to(ROOT))
    with Program(path, "substitute", AMQP_URL=url) as program:
        program.until_said("pika=")
        said = program.said("pika=.*")
    assert said is not None
    assert said[0] == "pika=evamqp.compat.pika added=19900 tries=3 delayed=True"


def test_greenlets_of_gevent(url: str) -> None:
    path = str((PROGRAMS / "greenlets.py").relative_to(ROOT))
    with Program("-W", "ignore::ResourceWarning", path, AMQP_URL=url) as program:
        program.end()
        assert program.lines == [
            "blocking 100 True",
            "callbacks ['hello'] True",
            "native [True]",
        ]
