"""Build the distributions, check them, and try each in a fresh virtual environment.

What is tried is what a user does first: install, look at the version, publish and consume on the
embedded broker.  The distributions stay in dist/.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DIST = PROJECT / "dist"
TRIAL = """
import asyncio
import evamqp
from evamqp.testing import Broker

async def publish(url):
    topology = evamqp.Topology()
    topology.queue("trial", durable=True)
    publisher = evamqp.Publisher(url, topology=topology)
    outcome = await publisher.publish("", "trial", b"Hello")
    await publisher.close(timeout=5)
    return outcome

with Broker().serve() as broker:
    assert asyncio.run(publish(broker.url)) is evamqp.Outcome.CONFIRMED
print(evamqp.__version__)
"""


def run(*command: str | Path, cwd: Path = PROJECT) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def build() -> list[Path]:
    """The source distribution, and the wheel made from it."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    files = sorted(DIST.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    return files


def try_out(distribution: Path) -> str:
    """The version that an installation of the distribution tells after a publish."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", distribution)
        run(python, "-m", "pip", "check")
        return run(python, "-c", TRIAL, cwd=Path(folder))


def main() -> int:
    for distribution in build():
        size = distribution.stat().st_size // 1024
        print(f"{distribution.name}: {size} KiB, version {try_out(distribution)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
