"""Does the simulation find bugs?  Plants them one at a time in a copy of the package, and looks.

    python tools/plant_bugs.py --worlds 1000 --seed 0

Prints a table.  Exit status 1 means that too many bugs were not found, or that a bug is stale:
its text does not stand in the package exactly once.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from planted_bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parent.parent
# Bugs that may escape.
ESCAPES_MAX = 2
# Seconds for one bug; a world that hangs is a bug found.
TIMEOUT = 600.0


class StaleBug(Exception):
    """The text of a bug is not in the package, or more than once."""


class Finding(NamedTuple):
    """What became of one bug: the seed of the world that found it, and what that said."""

    bug: Bug
    seed: str
    words: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.seed or 'NOT FOUND':>9}  {self.bug.name:<58}  {self.words[:70]}"


def place_of(bug: Bug, package: Path) -> Path:
    """The one file of the package that holds the text of a bug.

    Raises:
        StaleBug: There is none, or it holds the text twice, or others hold it too.
    """
    counts = {path: path.read_text("utf-8").count(bug.old) for path in package.rglob("*.py")}
    found = [path for path, count in counts.items() if count]
    if len(found) != 1 or counts[found[0]] != 1:
        where = ", ".join(str(path.relative_to(package)) for path in found) or "nowhere"
        raise StaleBug(f"stale bug {bug.name!r}: its text stands in {where}, not exactly once")
    return found[0]


def plant(bug: Bug, garden: Path) -> None:
    """Copy package and simulation into a folder, and put the bug in."""
    for folder in ("evamqp", "tests/simulation"):
        shutil.copytree(
            ROOT / folder, garden / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    path = place_of(bug, garden / "evamqp")
    path.write_text(path.read_text("utf-8").replace(bug.old, bug.new), "utf-8")


def simulate(folder: Path, options: argparse.Namespace, *more: str) -> str:
    """Run the simulation that stands in a folder; its output, or that it hangs."""
    command = [
        sys.executable, "-m", "tests.simulation", "--worlds", str(options.worlds),
        "--seed", str(options.seed), "--jobs", "1", *more,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "seed ?: 1 wrong: it hangs\n"
    return done.stdout + done.stderr


def hunt(bug: Bug, options: argparse.Namespace, skipped: Sequence[str]) -> Finding:
    """Plant a bug and look for it."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        plant(bug, Path(folder))
        output = simulate(Path(folder), options, "--first", "--skip", ",".join(skipped))
    found = re.search(r"seed (\S+): \d+ wrong: (.*)", output)
    if found is None and "worlds=" not in output:
        found = re.search(r"()(\S+Error.*)", output)  # the world itself broke
    seed, words = (found[1] or "?", found[2]) if found else ("", "")
    return Finding(bug, seed, words, time.monotonic() - start)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plant bugs, and see whether they are found.")
    parser.add_argument("--worlds", type=int, default=1000, help="for each bug, at the most")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--jobs", type=int, default=2, help="bugs at a time")
    parser.add_argument("--only", default="", help="words of the bugs that are meant")
    parser.add_argument(
        "--anyway", action="store_true", help="leave out worlds in which the package fails as it is"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    bugs = [bug for bug in BUGS if options.only in bug.name]
    stale = 0
    for bug in bugs:
        try:
            place_of(bug, ROOT / "evamqp")
        except StaleBug as error:
            print(error, file=sys.stderr)
            stale += 1
    if stale:
        return 1
    failing = re.findall(r"^seed (\d+):", simulate(ROOT, options, "--all"), re.MULTILINE)
    if failing and not options.anyway:
        print(f"the package fails as it is, with the seeds {', '.join(failing)}", file=sys.stderr)
        return 1
    print(f"{'seed':>9}  {'bug':<58}  found by")
    with ThreadPoolExecutor(options.jobs) as pool:
        findings = []
        for finding in pool.map(lambda bug: hunt(bug, options, failing), bugs):
            findings.append(finding)
            print(finding, flush=True)
    found = sum(bool(finding.seed) for finding in findings)
    print(f"found {found} of {len(bugs)}, with at most {options.worlds} worlds each")
    return 0 if found >= len(bugs) - ESCAPES_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
