"""Run evamqp on every loop beside the other clients that are installed, and print what each costs.

What a run measures is the driver's business (``drivers/``), what it talks to the sink's or
RabbitMQ's; here they are only started, interleaved and compared.  See README.md.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import pstats
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from chart import draw
from imports import run_imports

HERE = Path(__file__).resolve().parent
DRIVERS = HERE / "drivers"
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tools"))
BASELINE = "evamqp-select"
# Seconds after which a run counts as hanging.
TIMEOUT = 60.0
# Messages: no run is longer, however fast the client; a real broker has to hold them.
MOST_MESSAGES = {"sink": 20_000_000, "rabbit": 200_000}
# A driver that exists but whose client is not installed ends with this in its traceback.
NOT_INSTALLED = "ModuleNotFoundError"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure.

    Attributes:
        title: What it is, for the table.
        driver: Options of the driver; ``{n}`` is the number of messages.
        sink: Options of the sink.
        first: Messages of the first, calibrating run.
        fixed: Messages of every run; 0 chooses them by time.
        alone: Whether the other clients' drivers do not know it.
        tls: Whether it goes over TLS, to the drivers that know that.
        connections: Whether each message is a connection, which the embedded broker takes.
    """

    title: str
    driver: str
    sink: str = ""
    first: int = 500
    fixed: int = 0
    alone: bool = False
    tls: bool = False
    connections: bool = False

    @property
    def is_consuming(self) -> bool:
        return "op=consume" in self.driver


def environment(tree: Path, implementation: str) -> dict[str, str]:
    """Drivers and sink find each other's modules, and the evamqp in ``tree``, installed or not."""
    paths = os.pathsep.join((str(DRIVERS), str(tree)))
    return {**os.environ, "PYTHONPATH": paths, "EVAMQP_IMPL": implementation}


ENVIRONMENT = environment(ROOT, "pure")

KIB_64 = 64 * 1024
MIB = 1024 * 1024
SCENARIOS = {
    "S1": Scenario("publish 100 B", "op=publish n={n}"),
    "S1p": Scenario("publish with fresh properties", "op=publish fresh=1 n={n}", alone=True),
    "S1v": Scenario("publish, 10,000 keys, random sizes", "op=publish varied=1 n={n}", alone=True),
    "S2": Scenario("publish with confirms, window 1000", "op=confirm window=1000 n={n}"),
    "S3": Scenario("consume without acks, 100 B", "op=consume n={n}", "--count={n}"),
    "S3v": Scenario(
        "consume, 10,000 keys, random sizes",
        "op=consume varied=1 n={n}",
        "--count={n} --varied=1",
        alone=True,
    ),
    "S4": Scenario(
        "consume, prefetch 200, ack each", "op=consume no_ack=0 prefetch=200 n={n}", "--count={n}"
    ),
    "S5": Scenario("confirm round trip, one at a time", "op=latency n={n}", "--batch=1", 100),
    "S6p64k": Scenario("publish 64 KiB", f"op=publish body={KIB_64} n={{n}}", "", 100),
    "S6p1m": Scenario("publish 1 MiB", f"op=publish body={MIB} n={{n}}", "", 10),
    "S6c64k": Scenario(
        "consume 64 KiB", f"op=consume body={KIB_64} n={{n}}", f"--count={{n}} --body={KIB_64}", 100
    ),
    "S6c1m": Scenario(
        "consume 1 MiB", f"op=consume body={MIB} n={{n}}", f"--count={{n}} --body={MIB}", 10
    ),
    "S7": Scenario(
        "consume, 8 headers read", "op=consume headers=1 n={n}", "--count={n} --headers=1"
    ),
    "S8": Scenario("connect to channel open", "op=connect repeat={n}", fixed=200),
    "S9": Scenario(
        "consume over 1000 channels",
        "op=consume channels=1000 n={n}",
        "--count={n} --consumers=1000",
        2000,
    ),
    "S2t": Scenario("S2 over TLS", "op=confirm window=1000 n={n}", tls=True),
    "S3t": Scenario("S3 over TLS", "op=consume n={n}", "--count={n}", tls=True),
    "S6pt": Scenario(
        "publish 64 KiB over TLS", f"op=publish body={KIB_64} n={{n}}", "", 100, tls=True
    ),
    "S6ct": Scenario(
        "consume 64 KiB over TLS",
        f"op=consume body={KIB_64} n={{n}}",
        f"--count={{n}} --body={KIB_64}",
        100,
        tls=True,
    ),
    "S10": Scenario(
        "an idle connection with a channel, opened 10 at a time",
        "op=idle window=10 n={n}",
        fixed=500,
        connections=True,
    ),
    "S11": Scenario(
        "1,000 connections with a channel, opened at once",
        "op=idle window=1000 n={n}",
        fixed=1000,
        connections=True,
    ),
}
# What RabbitMQ can be asked as well: it makes up no deliveries of a wanted shape.
ON_RABBIT = ("S1", "S1p", "S2", "S3", "S4", "S5", "S6p64k", "S6p1m", "S8")
DEFAULT = "S1,S1p,S2,S3,S4,S5,S7,S8,S8i"
# No scenario, since it has no broker: what importing costs.
IMPORTS = "S8i"

Outcome = dict[str, Any]
# Of each driver and round: CPU microseconds per message of the client, and of the sink; where each
# message is a connection, KiB of the client's memory in place of the sink's time.
Costs = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Driver:
    """A client that can be measured.

    Attributes:
        name: As the tables say.
        path: The program.
        options: What it is called with in any scenario.
        knows: What of a scenario it knows that not every driver does: ``tls``, ``connections``.
        tree: The evamqp that it uses.
    """

    name: str
    path: Path
    options: tuple[str, ...] = ()
    knows: tuple[str, ...] = ()
    tree: Path = ROOT

    @property
    def is_peer(self) -> bool:
        return self.path.parent.name == "peers"

    def takes(self, scenario: Scenario) -> bool:
        """Whether it can play the scenario at all."""
        wanted = [name for name in ("tls", "connections") if getattr(scenario, name)]
        return all(name in self.knows for name in wanted) and not (
            scenario.alone and self.is_peer and "alone" not in self.knows
        )


def find_drivers(compiled: Path | None = None) -> dict[str, Driver]:
    """All that there are, evamqp's first.

    Args:
        compiled: Where a compiled copy of this tree is; None if there is none.
    """
    found: list[tuple[int, Driver]] = []
    for path in sorted([*DRIVERS.glob("[!_]*.py"), *DRIVERS.glob("peers/*.py")]):
        with path.open(encoding="utf-8") as lines:
            about = json.loads(next(lines).removeprefix("# bench: "))
        name, knows = about["name"], tuple(about.get("knows", ()))
        drivers = [Driver(name, path, (), knows)]
        for variant, options in about.get("variants", {}).items():
            pairs = tuple(f"{key}={value}" for key, value in options.items())
            drivers.append(Driver(f"{name}+{variant}", path, pairs, knows))
        if compiled is not None and about.get("evamqp", not drivers[0].is_peer):
            drivers += [
                replace(driver, name=f"{driver.name}+compiled", tree=compiled) for driver in drivers
            ]
        found += [(about["order"], driver) for driver in drivers]
    return {driver.name: driver for _, driver in sorted(found, key=lambda pair: pair[0])}


class Sink:
    """The broker of our own, a process of its own for each run."""

    kind = "sink"
    cpu = 0.0  # seconds of the last run; 0 where that is not known

    @contextmanager
    def serving(self, scenario: Scenario, count: int) -> Iterator[Sink]:
        """A sink for one run; ``port`` is where it listens, and ``seen`` what it saw."""
        options = scenario.sink.format(n=count).split()
        if scenario.tls:
            options.append(f"--certificate={certificates()[1]}")
        command = [sys.executable, str(HERE / "sink.py"), *options]
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                self.port = int(process.stdout.readline().split()[1])
                self._output: IO[str] = process.stdout
                yield self
            finally:
                process.kill()

    def check(self, scenario: Scenario, count: int, driver: Driver) -> str:
        """What is wrong with what the broker saw; empty if nothing is."""
        seen = json.loads(self._output.readline())
        # Where each connection is a message, the line tells of the first one only.
        self.cpu = 0.0 if scenario.fixed else seen["cpu"]
        kind = "delivered" if scenario.is_consuming else "published"
        wrong = {name: seen[name] for name in ("unacked",) if seen[name]}
        if scenario.fixed == 0 and seen[kind] != count:
            wrong[kind] = seen[kind]
        if "error" in seen:
            wrong["error"] = seen["error"]
        return f"the sink saw {wrong}" if wrong else ""


class Rabbit:
    """A private RabbitMQ for all runs; each run finds the queue as it needs it."""

    kind = "rabbit"
    cpu = 0.0

    def __init__(self, port: int, helper: Driver) -> None:
        self.port = port
        self._helper = helper

    @contextmanager
    def serving(self, scenario: Scenario, count: int) -> Iterator[Rabbit]:
        """The broker, with ``count`` messages in the queue if they are to be consumed."""
        self._help("op=delete")
        if scenario.is_consuming:
            self._help("op=confirm", f"n={count}")
        yield self

    def check(self, scenario: Scenario, count: int, driver: Driver) -> str:
        """What is wrong with what is left in the queue; empty if nothing is."""
        left = self._help("op=delete")["deleted"]
        right = 0 if scenario.is_consuming or scenario.fixed else count
        return "" if left == right else f"{left} messages were in the queue, not {right}"

    def _help(self, *options: str) -> Outcome:
        outcome = call(self._helper, self.port, options)
        if not outcome["ok"]:
            raise SystemExit(f"benchmark: {outcome['error']}")
        return outcome


class Embedded:
    """The embedded broker, which takes many clients, in a process of its own for each run."""

    kind = "embedded"
    cpu = 0.0

    @contextmanager
    def serving(self, scenario: Scenario, count: int) -> Iterator[Embedded]:
        """A broker for one run."""
        program = (
            "from evamqp.testing import Broker; import sys\n"
            "with Broker().serve() as broker: print(broker.port, flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                self.port = int(process.stdout.readline())
                yield self
            finally:
                process.kill()

    def check(self, scenario: Scenario, count: int, driver: Driver) -> str:
        """The driver has checked all that there is."""
        return ""


Broker = Sink | Rabbit | Embedded


@lru_cache
def certificates() -> tuple[Path, Path]:
    """An authority's certificate, and a server's with its key; made for this run."""
    import trustme

    folder = Path(tempfile.mkdtemp(prefix="evamqp-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder / "authority.pem", folder / "server.pem"


def call(driver: Driver, port: int, options: Sequence[str], profile: str = "") -> Outcome:
    """Run a driver to its end and return the line that it printed."""
    program = [sys.executable, *(["-m", "cProfile", "-o", profile] if profile else [])]
    command = [*program, str(driver.path), f"port={port}", *options, *driver.options]
    try:
        done = subprocess.run(
            command,
            env=environment(driver.tree, "pure" if driver.tree == ROOT else "compiled"),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"no end within {TIMEOUT:g} s"}
    lines = done.stdout.splitlines()
    if lines and lines[-1].startswith("{"):
        outcome: Outcome = json.loads(lines[-1])
        return outcome
    return {"ok": False, "error": (done.stderr.splitlines() or ["no output"])[-1]}


def measure(
    broker: Broker, scenario: Scenario, driver: Driver, count: int, profile: str = ""
) -> Outcome:
    """One run."""
    options = [*scenario.driver.format(n=count).split(), f"exact={int(broker.kind == 'sink')}"]
    if scenario.connections:
        broker = Embedded()
    if scenario.tls:
        options.append(f"ca={certificates()[0]}")
    with broker.serving(scenario, count):
        outcome = call(driver, broker.port, options, profile)
        if outcome["ok"] and (wrong := broker.check(scenario, count, driver)):
            outcome = {"ok": False, "error": wrong}
    return {**outcome, "broker": broker.cpu}


def calibrate(
    broker: Broker, scenario: Scenario, driver: Driver, seconds: float
) -> tuple[int, str]:
    """How many messages take so many seconds, and why that cannot be told."""
    count = scenario.fixed or scenario.first
    most = MOST_MESSAGES[broker.kind]
    for _ in range(4):
        outcome = measure(broker, scenario, driver, count)
        if not outcome["ok"]:
            return 0, outcome["error"]
        wall = max(outcome["wall"], 1e-6)
        if scenario.fixed or wall > seconds / 5 or count == most:
            break
        count = min(most, int(count * min(50.0, seconds / 2 / wall)) + 1)
    return scenario.fixed or max(1, min(most, int(count * seconds / wall))), ""


def run_scenario(
    broker: Broker, name: str, drivers: Sequence[Driver], rounds: int, seconds: float
) -> Costs:
    """Measure each driver in each round, interleaved."""
    scenario = SCENARIOS[name]
    counts: dict[Driver, int] = {}
    for driver in drivers:
        if not driver.takes(scenario):
            continue
        count, why = calibrate(broker, scenario, driver, seconds)
        if count:
            counts[driver] = count
        elif NOT_INSTALLED not in why:
            print(f"  {name} {driver.name}: left out: {why}", flush=True)
    costs: Costs = {driver.name: [] for driver in counts}
    order = list(counts)
    for number in range(rounds):
        first = number % max(1, len(order))
        for driver in order[first:] + order[:first]:
            outcome = measure(broker, scenario, driver, counts[driver])
            if outcome["ok"]:
                each = 1e6 / counts[driver]
                beside = outcome["broker"] * each
                if scenario.connections:
                    beside = outcome["memory"] / counts[driver]
                costs[driver.name].append((outcome["cpu"] * each, beside))
            else:
                print(f"  {name} {driver.name}: {outcome['error']}", flush=True)
    return costs


def show(name: str, costs: Costs, baseline: str) -> None:
    """Print the table of one scenario."""
    print(f"\n{name}  {SCENARIOS[name].title}")
    of = ("us/connection", "KiB") if SCENARIOS[name].connections else ("us/message", "sink")
    head = f"{f'CPU {of[0]}':>16}{'min':>10}{'max':>10}{of[1]:>10}"
    print(f"  {'':24}{head}{'x ' + baseline:>18}")
    base = statistics.median(cpu for cpu, _ in costs[baseline]) if costs.get(baseline) else 0.0
    for driver, rounds in costs.items():
        if rounds:
            values, sinks = zip(*rounds, strict=True)
            median, sink = statistics.median(values), statistics.median(sinks)
            figures = f"{median:16.3f}{min(values):10.3f}{max(values):10.3f}"
            told = f"{sink:10.3f}" if sink else f"{'':10}"
            ratio = f"{median / base:.2f}" if base else ""
            print(f"  {driver:24}{figures}{told}{ratio:>18}")
    sys.stdout.flush()


def profile(broker: Broker, name: str, driver: Driver, seconds: float) -> None:
    """Print where one scenario spends its time."""
    # The profiler multiplies the time of each call, so a quarter of the messages will do.
    count, why = calibrate(broker, SCENARIOS[name], driver, seconds / 4)
    if not count:
        raise SystemExit(f"benchmark: {driver.name}: {why}")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "profile")
        outcome = measure(broker, SCENARIOS[name], driver, count, path)
        if not outcome["ok"]:
            raise SystemExit(f"benchmark: {driver.name}: {outcome['error']}")
        print(f"{driver.name}, {name}: {count} messages\n", flush=True)
        pstats.Stats(path).strip_dirs().sort_stats("tottime").print_stats(25)


@contextmanager
def a_rabbit() -> Iterator[Rabbit]:
    from rabbitmq_node import RabbitNode

    with RabbitNode() as node:
        yield Rabbit(node.port, find_drivers()[BASELINE])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What evamqp and other clients cost.")
    everything = (*SCENARIOS, IMPORTS)
    parser.add_argument("--scenarios", default=DEFAULT, help=f"of {', '.join(everything)}")
    parser.add_argument("--drivers", default="", help="names, as in the tables (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each driver")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long a run takes")
    parser.add_argument("--baseline", default=BASELINE, help="whom the ratios refer to")
    parser.add_argument("--rabbit", action="store_true", help="against a private RabbitMQ")
    parser.add_argument("--pure", action="store_true", help="without the compiled build's rows")
    parser.add_argument("--chart", type=Path, help="an SVG file that shows the tables")
    parser.add_argument("--profile", action="store_true", help="profile the first driver named")
    arguments = parser.parse_args()
    arguments.scenarios = arguments.scenarios.split(",")
    known = ON_RABBIT if arguments.rabbit else everything
    unknown = set(arguments.scenarios) - set(known)
    if unknown:
        parser.error(f"no such scenario here: {', '.join(sorted(unknown))}")
    return arguments


def main() -> None:
    arguments = parse()
    with ExitStack() as stack:
        run(arguments, stack)


def compiled_copy(stack: ExitStack) -> Path | None:
    """This tree, compiled; None, after a line that says why, where that cannot be."""
    from compiled_tree import make

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evamqp-compiled-")))
    try:
        return make(folder)
    except SystemExit as error:
        why = str(error).strip().splitlines()[-1:] or ["no reason given"]
        print(f"without the compiled build: {why[0]}", flush=True)
        return None


def run(arguments: argparse.Namespace, stack: ExitStack) -> None:
    """Measure and show what was asked for."""
    drivers = find_drivers(None if arguments.pure else compiled_copy(stack))
    names = arguments.drivers.split(",") if arguments.drivers else list(drivers)
    if unknown := set(names) - set(drivers):
        raise SystemExit(f"benchmark: no such driver: {', '.join(sorted(unknown))}")
    chosen = [drivers[name] for name in names]
    broker = stack.enter_context(a_rabbit()) if arguments.rabbit else Sink()
    started = time.monotonic()
    shown: dict[str, dict[str, float]] = {}
    for name in arguments.scenarios:
        if name == IMPORTS:
            run_imports(arguments.rounds, ENVIRONMENT)
        elif arguments.profile:
            profile(broker, name, chosen[0], arguments.seconds)
        else:
            costs = run_scenario(broker, name, chosen, arguments.rounds, arguments.seconds)
            show(name, costs, arguments.baseline)
            shown[f"{name}: {SCENARIOS[name].title}"] = {
                driver: statistics.median(cpu for cpu, _ in rounds)
                for driver, rounds in costs.items()
                if rounds
            }
    if arguments.chart:
        arguments.chart.write_text(draw(shown), encoding="utf-8")
    print(f"\n{time.monotonic() - started:.0f} s; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
