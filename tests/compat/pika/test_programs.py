"""Programs in the manner of pika's documented examples, unchanged, on either library's side."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest

from evamqp.testing import Broker
from tests.compat.pika.rig import everywhere
from tests.examples.program import ROOT, Program

PROGRAMS = Path(__file__).parent / "programs"
#: The library of the publisher, and that of the consumer.
SIDES = [("facade", "facade"), ("facade", "pika"), ("pika", "facade")]
crossed = pytest.mark.parametrize(("left", "right"), SIDES, ids=map("-".join, SIDES))
COUNT = 50


class Run(Program):
    """One of the programs, on one library."""

    def __init__(self, side: str, url: str, program: str, *arguments: str) -> None:
        runner = ("-m", "evamqp.compat", "pika") if side == "facade" else ()
        # Such programs end without closing their loops.
        quiet = ("-W", "ignore::ResourceWarning", "-W", "ignore::DeprecationWarning")
        super().__init__(*quiet, *runner, program, *arguments, AMQP_URL=url)


class Service(Run):
    """A service under twistd, which ends by the signal that stopped it."""

    clean = (0, -signal.SIGTERM)


def start(side: str, url: str, name: str, *arguments: str) -> Run:
    return Run(side, url, str((PROGRAMS / f"{name}.py").relative_to(ROOT)), *arguments)


@everywhere
@crossed
def test_asynchronous_publisher_and_consumer(url: str, left: str, right: str) -> None:
    with (
        start(right, url, "consumer_1x", str(COUNT)) as consumer,
        start(left, url, "publisher_1x", str(COUNT)) as publisher,
    ):
        assert publisher.end() == {"acked": COUNT, "nacked": 0}
        assert consumer.end() == {"got": COUNT}
        assert consumer.lines == [
            "consuming",
            "message example.text application/json example-publisher 2 ['número', 'ключ']",
            "closed ConnectionClosedByClient 200",
            f"got={COUNT}",
        ]


@everywhere
@pytest.mark.parametrize("peer", ["facade", "pika"])
def test_publisher_and_consumer_of_0_x(url: str, peer: str) -> None:
    with (
        start("facade", url, "consumer_0x", str(COUNT)) as consumer,
        start(peer, url, "publisher_1x", str(COUNT)) as publisher,
    ):
        publisher.end()
        assert consumer.end() == {"got": COUNT}
    with (
        start(peer, url, "consumer_1x", str(COUNT)) as consumer,
        start("facade", url, "publisher_0x", str(COUNT)) as publisher,
    ):
        assert publisher.end() == {"acked": COUNT}
        assert publisher.lines == [
            "channel 1",
            "channel 1 closed 200",
            f"closed 200 Normal shutdown acked={COUNT}",
        ]
        assert consumer.end() == {"got": COUNT}


@everywhere
def test_consumer_of_0_9_ends_after_an_interrupt(url: str) -> None:
    with start("facade", url, "consumer_09") as consumer:
        consumer.until_said("consuming")
        with start("pika", url, "publisher_1x", str(COUNT)) as publisher:
            publisher.end()
        consumer.until_counted("got", COUNT)
        assert consumer.stop(signal.SIGINT) == {"got": COUNT}
        assert consumer.lines[-1] == f"ended got={COUNT}"


@everywhere
@pytest.mark.parametrize("loop", ["asyncio", "tornado"])
@pytest.mark.parametrize("peer", ["facade", "pika"])
def test_consumers_on_native_loops(url: str, loop: str, peer: str) -> None:
    with start("facade", url, "loop_consumer", loop, str(COUNT)) as consumer:
        consumer.until_said("consuming")
        with start(peer, url, "publisher_1x", str(COUNT)) as publisher:
            publisher.end()
        assert consumer.end() == {"got": COUNT}
        assert consumer.lines[-1] == f"ConnectionClosedByClient got={COUNT}"


@everywhere
def test_tornado_program_of_0_x_lives_three_times(url: str) -> None:
    with start("facade", url, "tornado_0x", "3") as program:
        assert program.end() == {"lives": 3}
        assert program.lines[-1] == "lives=3 last=(320, 'next life')"


@everywhere
def test_twisted_program_of_0_x_reads_its_queue(url: str) -> None:
    with start("facade", url, "twisted_0x", str(COUNT)) as program:
        assert program.end() == {"read": COUNT}


@everywhere
@crossed
def test_twisted_service_under_twistd(url: str, left: str, right: str) -> None:
    twistd = shutil.which("twistd", path=str(Path(sys.executable).parent))
    assert twistd is not None
    service = str((PROGRAMS / "twisted_service.py").relative_to(ROOT))
    with Service(left, url, twistd, "-n", "--pidfile=", "-y", service) as server:
        server.until_said("consuming")
        with start(right, url, "twisted_client", str(COUNT)) as client:
            assert client.end() == {"answers": COUNT}
            assert client.lines[0] == "returned nowhere"
        server.stop(signal.SIGTERM)
        assert not server.said("Unhandled")


def test_fedora_messaging_publishes_consumes_and_comes_back(tmp_path: Path) -> None:
    conf, signal_file = tmp_path / "conf.toml", tmp_path / "go on"
    program = str((PROGRAMS / "fedora_app.py").relative_to(ROOT))
    with (
        Broker().serve() as broker,
        Run("itself", broker.url, program, str(conf), str(signal_file)) as app,
    ):
        app.until_said("half")
        assert app.said("nacked 3")
        assert app.said("dropped 5")
        broker.faults.drop_connections()
        signal_file.touch()
        app.until_said("evamqp.compat.pika got=40")
        assert app.end() == {"got": 40}
