"""Run the tests that need RabbitMQ on its other majors, each from a Debian release of its own.

The releases are made by debootstrap as folders below ``.brokers/`` and stay there; removing one
makes it anew.  Nothing of them is installed on this machine.  ``make test`` takes the RabbitMQ of
the machine itself and never comes here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rabbitmq_node import DEBIAN_SCRIPTS, ROOT_VARIABLE, version_beside

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
ROOTS = PROJECT / ".brokers"
MIRROR = os.environ.get("EVAMQP_DEBIAN_MIRROR", "http://deb.debian.org/debian")
# RabbitMQ 3.8, 4.0, and the newest that Debian has: 4.3 as of this writing.
RELEASES = ("bullseye", "trixie", "sid")
TESTS = (
    "tests/behaviour",
    "tests/interop",
    "tests/faults/test_each_fault.py",
    "tests/faults/test_herd.py",
    "tests/integrations/kombu",
)
UNAVAILABLE = 69  # EX_UNAVAILABLE of <sysexits.h>


def missing() -> Iterator[str]:
    """What this machine lacks, each with its remedy."""
    if os.geteuid() != 0:
        yield "root: only root may enter another root folder"
    for program, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            yield f"{program} (Debian: apt-get install {package})"


def make_root(release: str) -> Path | None:
    """The folder of a release, made if it is not there; None if it cannot be made."""
    root = ROOTS / release
    if root.exists():
        return root
    print(f"== making {root}: some minutes", flush=True)
    unfinished = ROOTS / f"{release}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    ROOTS.mkdir(exist_ok=True)
    # Whatever a package starts or mounts ends with the namespaces.
    quietly = [str(HERE / "quietly.sh"), f"making {root}"]
    alone = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    packages = ["--variant=minbase", "--include=rabbitmq-server"]
    debootstrap = ["debootstrap", *packages, release, str(unfinished), MIRROR]
    if subprocess.run([*quietly, *alone, *debootstrap], check=False).returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        return None
    # Erlang asks for both addresses: without the second, handshakes stall and 4.3 does not boot.
    hosts = Path("/etc/hosts").read_text(encoding="utf-8")
    (unfinished / "etc" / "hosts").write_text(f"{hosts}\n::1 localhost\n", encoding="utf-8")
    return unfinished.rename(root)


def test(root: Path, tests: Sequence[str]) -> bool:
    """Whether the tests pass on the RabbitMQ of a root folder."""
    environment = {**os.environ, ROOT_VARIABLE: str(root), "EVAMQP_REQUIRE_RABBITMQ": "1"}
    command = [sys.executable, "-m", "pytest", "-m", "rabbitmq and not cluster", *tests]
    return subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode == 0


def run(release: str, tests: Sequence[str]) -> tuple[str, bool]:
    """One release: how it went in words, and whether well."""
    root = make_root(release)
    if root is None:
        return f"{release}: NOT MADE", False
    version = version_beside(Path(root, *DEBIAN_SCRIPTS.parts[1:])) or "?"
    print(f"== RabbitMQ {version} ({release})", flush=True)
    start = time.monotonic()
    passed = test(root, tests)
    seconds = time.monotonic() - start
    return f"{version}: {'passed' if passed else 'FAILED'} in {seconds:.0f} s", passed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", nargs="+", default=RELEASES, metavar="NAME", help="of Debian")
    parser.add_argument("tests", nargs="*", default=TESTS, help="files or folders")
    options = parser.parse_args(arguments)
    lacking = list(missing())
    if lacking:
        for what in lacking:
            print(f"brokers: this needs {what}", file=sys.stderr)
        return UNAVAILABLE
    results = [run(release, options.tests) for release in options.releases]
    print("== RabbitMQ " + ", ".join(words for words, _ in results))
    return 0 if all(passed for _, passed in results) else 1


if __name__ == "__main__":
    sys.exit(main())
