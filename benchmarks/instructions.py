"""Machine instructions per message, of this tree beside another commit: a figure without noise.

A core is fed and emptied in memory, without sockets and loop, under valgrind's callgrind; the
difference between a long and a short run is divided by the messages between them.

    python benchmarks/instructions.py --base HEAD~1          # this tree beside that commit
    python benchmarks/instructions.py --scenarios S1,S3 --compiled
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve()
PROJECT = HERE.parent.parent
SHORT, LONG = 2_000, 6_000
BATCH = 100  # messages of one read, and of one write
SCENARIOS = ("S1", "S1p", "S2", "S3", "S4", "S7")


class Work:
    """What one scenario does with a number of messages, on an open connection in memory."""

    def __init__(self) -> None:
        import evamqp

        self.evamqp = evamqp
        self.properties = evamqp.Properties(content_type="text/plain", delivery_mode=1)
        self.connection = self._open()
        self.channel = self.connection.channel()
        self._feed("channel.open-ok")
        self.acks = 0

    def _open(self) -> object:
        from evamqp.codec.frames import method_frame

        class Runtime:
            adapter = None

            def time(self) -> float:
                return 0.0

            def output_ready(self, waiting: int = 0) -> None:
                """The work empties the output itself."""

            def flush_next_turn(self) -> None:
                raise NotImplementedError

        connection = self.evamqp.Connection(self.evamqp.Handler(), Runtime())
        connection.connection_made(self.evamqp.Parameters())
        start = method_frame(0, "connection.start", 0, 9, {}, "PLAIN", "en_US")
        tune = method_frame(0, "connection.tune", 2047, 131072, 60)
        for frame in (start, tune, method_frame(0, "connection.open-ok")):
            connection.receive_data(frame)
        connection.data_to_send()
        return connection

    def _feed(self, name: str, *values: object) -> None:
        from evamqp.codec.frames import method_frame

        self.connection.receive_data(method_frame(1, name, *values))
        self.connection.data_to_send()

    def run(self, scenario: str, count: int) -> None:
        getattr(self, scenario)(count)

    def S1(self, count: int) -> None:
        publish, body = self.channel.basic_publish, b"b" * 100
        for _ in range(count // BATCH):
            for _ in range(BATCH):
                publish("", "queue", body, self.properties)
            self.connection.data_to_send()

    def S1p(self, count: int) -> None:
        publish, body = self.channel.basic_publish, b"b" * 100
        make = self.evamqp.Properties
        for number in range(count):
            properties = make(
                content_type="text/plain",
                delivery_mode=2,
                message_id=f"message-{number}",
                headers={"attempt": number, "source": "bench", "weight": 0.5},
            )
            publish("", "queue", body, properties)
            if number % BATCH == 0:
                self.connection.data_to_send()

    def S2(self, count: int) -> None:
        from evamqp.codec.frames import method_frame

        self.channel.confirm_select()
        self._feed("confirm.select-ok")
        publish, body = self.channel.basic_publish, b"b" * 100
        acks = [method_frame(1, "basic.ack", tag, False) for tag in range(1, LONG + 1)]
        for first in range(0, count, BATCH):
            for _ in range(BATCH):
                publish("", "queue", body, self.properties)
            self.connection.data_to_send()
            self.connection.receive_data(b"".join(acks[first : first + BATCH]))

    def _consume(self, count: int, on_message: Callable[..., object], auto_ack: bool) -> None:
        from evamqp.codec.frames import body_frames, content_header_frame, method_frame

        self.channel.basic_consume("queue", on_message, auto_ack, consumer_tag="steady")
        self._feed("basic.consume-ok", "steady")
        content = b"".join(
            (
                content_header_frame(1, self.properties.raw, 100),
                *body_frames(1, b"b" * 100, 131072),
            )
        )
        deliver = [
            method_frame(1, "basic.deliver", "steady", tag, False, "", "queue") + content
            for tag in range(1, LONG + 1)
        ]
        for first in range(0, count, BATCH):
            self.connection.receive_data(b"".join(deliver[first : first + BATCH]))
            self.connection.data_to_send()

    def S3(self, count: int) -> None:
        self._consume(count, lambda message: None, True)

    def S4(self, count: int) -> None:
        self._consume(count, lambda message: message.ack(), False)

    def S7(self, count: int) -> None:
        headers = {f"header-{number}": f"value-{number}" for number in range(8)}
        self.properties = self.evamqp.Properties(headers=headers)

        def compare(message: object) -> None:
            assert message.properties.headers == headers

        self._consume(count, compare, True)


def count(tree: Path, scenario: str, messages: int, build: str) -> int:
    """Instructions of a whole process that does the scenario with the package in ``tree``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [
            *("setarch", "-R", "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"),
            *(sys.executable, "-S", str(HERE), "--work", scenario, "--messages", str(messages)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"}
        environment["EVAMQP_IMPL"] = build
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        total = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or total is None:
            sys.exit(done.stderr)
        return int(total.group(1))


def per_message(tree: Path, scenario: str, build: str = "pure") -> float:
    """Instructions of one message more."""
    few, many = (count(tree, scenario, messages, build) for messages in (SHORT, LONG))
    return (many - few) / (LONG - SHORT)


def export(commit: str, folder: Path) -> Path:
    """The package as it stood in a commit."""
    archive = subprocess.run(
        ["git", "archive", commit, "evamqp"], cwd=PROJECT, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def compile_copy(folder: Path) -> Path:
    """This tree, compiled."""
    sys.path.insert(0, str(PROJECT / "tools"))
    from compiled_tree import make

    return make(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="a commit to compare with")
    parser.add_argument("--compiled", action="store_true", help="the compiled build as well")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--messages", type=int, default=SHORT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        Work().run(options.work, options.messages)
        return
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as copy:
        base = export(options.base, Path(folder)) if options.base else None
        compiled = compile_copy(Path(copy)) if options.compiled else None
        for scenario in options.scenarios.split(","):
            now = per_message(PROJECT, scenario)
            line = f"{scenario:4} {now:9.0f}"
            if base is not None:
                before = per_message(base, scenario)
                line += f"   before {before:9.0f}   {100 * (now / before - 1):+.1f} %"
            if compiled is not None:
                there = per_message(compiled, scenario, "compiled")
                line += f"   compiled {there:9.0f}   {now / there:.1f} times fewer"
            print(line, flush=True)


if __name__ == "__main__":
    main()
