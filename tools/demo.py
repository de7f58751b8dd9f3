"""Run the two examples against each other for some seconds and show what happens, once a second.

The broker is the one in ``AMQP_URL``, else evamqp's embedded one, which restarts in the middle, or
with ``--rabbitmq`` a private RabbitMQ.  Exit status 0 means that every published message was
confirmed and consumed.  No AMQP here: the examples do all of it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from evamqp.testing import Broker
from guard import death_signal
from rabbitmq_node import RabbitFailed, RabbitNode, RabbitNotFound, end_on_signal

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Seconds for the publisher to connect, for the last confirms and deliveries, and for an example
# to end.  A broker's restart takes up to 15 of them.
TIMEOUT = 30.0
# Seconds that the embedded broker is away when it restarts.
DOWN_TIME = 1.0
FIELD = re.compile(r"(\w+)=(\d+)")


class Node(Protocol):
    """A broker of our own."""

    def restart(self) -> None:
        """Stop and start; returns when it serves again."""


class EmbeddedNode:
    """The embedded broker, in a thread of this process."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def serve(self) -> None:
        """Begin to answer those who have connected."""
        self._broker.serve()

    def restart(self) -> None:
        self._broker.faults.stop()
        time.sleep(DOWN_TIME)
        self._broker.faults.start()


class Example:
    """A running example: what it counted last, and how it ended.

    Args:
        name: ``"publisher"`` or ``"consumer"``.
        options: Its command line.
    """

    def __init__(self, name: str, options: Sequence[str]) -> None:
        self.name = name
        self._counts: dict[str, int] = {}
        self.has_summary = False
        self._process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"async_{name}.py"), *options],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=death_signal(signal.SIGTERM),
            start_new_session=True,  # a Ctrl-C is for us; we then stop the examples in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def count(self, field: str) -> int:
        """The last number printed for a field, 0 before the first."""
        return self._counts.get(field, 0)

    def follow(self) -> None:
        """Take in what it prints from now on and has printed so far.

        Not done at once: a process should have no thread yet when it starts the next example.
        """
        self._reader.start()

    def stop(self) -> None:
        """Ask it to end, and wait until it has and all that it printed is read.  Idempotent."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if self._reader.is_alive():
            self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._take(line)

    def _take(self, line: str) -> None:
        """Take in ``progress confirmed=N`` and ``publisher: published=P confirmed=C ...``."""
        is_summary = line.startswith(f"{self.name}: ")
        if is_summary or line.startswith("progress "):
            self._counts.update({field: int(number) for field, number in FIELD.findall(line)})
            self.has_summary = self.has_summary or is_summary
        else:
            print(f"      {self.name}: {line.rstrip()}", flush=True)


class Demo:
    """A publisher and a consumer, watched.

    Args:
        node: The broker; None if it is somebody else's.
        publisher: Running.
        consumer: Running.
    """

    def __init__(self, node: Node | None, publisher: Example, consumer: Example) -> None:
        self._node = node
        self._publisher = publisher
        self._consumer = consumer
        self._start = time.monotonic()

    def run(self, seconds: int, restart_at: int | None) -> bool:
        """Show progress for so many seconds, stop both and print the summary.

        Returns:
            Whether every published message was confirmed and consumed.
        """
        self._consumer.follow()
        self._publisher.follow()
        restarting = None
        while (second := self._next_second()) < seconds and self._both_run():
            if second == restart_at and self._node is not None:
                print("      restarting the broker", flush=True)
                restarting = threading.Thread(target=self._node.restart)
                restarting.start()
        if restarting is not None:
            self._show_until(lambda: not restarting.is_alive())
            self._wait_for_a_confirm()
        self._publisher.stop()
        self._wait_for_the_rest()
        self._consumer.stop()
        return self._print_summary(restarted=restarting is not None)

    def _both_run(self) -> bool:
        return self._publisher.is_running and self._consumer.is_running

    def _next_second(self) -> int:
        """Sleep until the next full second and print how far we are."""
        elapsed = time.monotonic() - self._start
        second = int(elapsed) + 1
        time.sleep(second - elapsed)
        confirmed = self._publisher.count("confirmed")
        consumed = self._consumer.count("consumed")
        print(f"{second:3} s  confirmed {confirmed:9,}  consumed {consumed:9,}", flush=True)
        return second

    def _wait_for_a_confirm(self) -> None:
        """Show progress until the publisher is back on the restarted broker."""
        before = self._publisher.count("confirmed")
        self._show_until(lambda: self._publisher.count("confirmed") > before)

    def _wait_for_the_rest(self) -> None:
        """Show progress until the consumer has what the publisher had confirmed."""
        confirmed = self._publisher.count("confirmed")
        if self._consumer.count("consumed") < confirmed:
            self._show_until(lambda: self._consumer.count("consumed") >= confirmed)

    def _show_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition() and self._consumer.is_running and time.monotonic() < deadline:
            self._next_second()

    def _print_summary(self, *, restarted: bool) -> bool:
        published, confirmed, unknown = map(
            self._publisher.count, ("published", "confirmed", "unknown")
        )
        consumed = self._consumer.count("consumed")
        print(f"published {published:,}, confirmed {confirmed:,}, consumed {consumed:,}")
        for example in (self._publisher, self._consumer):
            if not example.has_summary:
                print(f"the {example.name} ended without its summary")
                return False
        if restarted:
            # What was under way when the broker went down may have arrived or not, and what was
            # not acknowledged comes twice: no fewer than confirmed is all that holds.
            print(f"with a restart in between: {unknown:,} of unknown outcome")
            return 0 < confirmed <= consumed and confirmed + unknown == published
        return 0 < published == confirmed == consumed


@contextmanager
def running(name: str, options: Sequence[str]) -> Iterator[Example]:
    """An example that ends with the block."""
    example = Example(name, options)
    try:
        yield example
    finally:
        example.stop()


def start_broker(stack: ExitStack, rabbitmq: bool) -> tuple[Node | None, str]:
    """The broker and its URL; it ends with the stack.  What AMQP_URL names is there already."""
    url = os.environ.get("AMQP_URL")
    if url:
        return None, url
    if rabbitmq:
        print("starting a private RabbitMQ", flush=True)
        node = stack.enter_context(RabbitNode())
        return node, node.url
    broker = stack.enter_context(Broker())
    broker.listen("127.0.0.1", 0)
    print("on the embedded broker, for tests and demos; make demo-rabbitmq takes RabbitMQ")
    return EmbeddedNode(broker), broker.url


def run(arguments: argparse.Namespace) -> bool:
    """Start what is needed and run the demo."""
    with ExitStack() as stack:
        node, url = start_broker(stack, arguments.rabbitmq)
        options = ["--adapter", arguments.adapter, "--url", url, "--progress"]
        consumer = stack.enter_context(running("consumer", options))
        publisher = stack.enter_context(running("publisher", options))
        if isinstance(node, EmbeddedNode):
            node.serve()  # not before: a process should have no thread when it starts another
        has_fault = arguments.restart or isinstance(node, EmbeddedNode)
        restart_at = arguments.seconds // 2 if has_fault else None
        return Demo(node, publisher, consumer).run(arguments.seconds, restart_at)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run publisher and consumer, and watch them.")
    parser.add_argument("--adapter", default="select", help="the event loop (default: select)")
    parser.add_argument("--seconds", type=int, default=10, help="how long (default: 10)")
    parser.add_argument(
        "--rabbitmq", action="store_true", help="use a private RabbitMQ, not the embedded broker"
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="restart the private RabbitMQ in the middle, as the embedded broker always does",
    )
    arguments = parser.parse_args()
    if arguments.restart and os.environ.get("AMQP_URL"):
        parser.error("--restart is for a broker of our own; AMQP_URL names somebody else's")
    signal.signal(signal.SIGTERM, end_on_signal)
    try:
        return 0 if run(arguments) else 1
    except (RabbitNotFound, RabbitFailed) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 69  # EX_UNAVAILABLE of <sysexits.h>
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
