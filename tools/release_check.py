"""Build the distributions, check them, and try each in a fresh virtual environment.

What is tried is what a user does first: install, look at the version, publish and consume on the
embedded broker.  The source distribution and the pure wheel stay in dist/.  A compiled wheel is
made from the source for each CPython that the machine has, and tried on it; those that are
published are built elsewhere, for older systems than this one (.github/workflows/release.yml).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from test_all import find_interpreters

PROJECT = Path(__file__).resolve().parent.parent
DIST = PROJECT / "dist"
NO_VARIABLES: Mapping[str, str] = {}
PURE = {"EVAMQP_COMPILED": "0"}
COMPILED = {"EVAMQP_COMPILED": "1"}
TRIAL = PROJECT / "tools" / "try_wheel.py"


def run(
    *command: str | Path, cwd: Path = PROJECT, variables: Mapping[str, str] = NO_VARIABLES
) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def build() -> list[Path]:
    """The source distribution, and the pure wheel made from it."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, variables=PURE)
    files = sorted(DIST.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    return files


def compile_wheel(python: Path, source: Path, folder: Path) -> Path:
    """The compiled wheel for one interpreter."""
    options = ("--no-deps", "--quiet", "--disable-pip-version-check", "--wheel-dir", folder)
    run(python, "-m", "pip", "wheel", *options, source, variables=COMPILED)
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_out(distribution: Path, interpreter: Path = Path(sys.executable)) -> str:
    """The version, and the build, that an installation tells after a publish."""
    with tempfile.TemporaryDirectory() as folder:
        run(interpreter, "-m", "venv", folder)
        python = Path(folder) / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", distribution, variables=PURE)
        run(python, "-m", "pip", "check")
        return run(python, TRIAL, cwd=Path(folder))


def main() -> int:
    """Print a line for each distribution that was tried."""
    files = build()
    for distribution in files:
        size = distribution.stat().st_size // 1024
        told = try_out(distribution)
        print(f"{distribution.name}: {size} KiB, {told}")
    (source,) = (path for path in files if path.name.endswith(".tar.gz"))
    for interpreter in find_interpreters().values():
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            wheel = compile_wheel(interpreter, source, Path(folder))
            seconds = time.monotonic() - began
            size = wheel.stat().st_size // 1024
            told = try_out(wheel, interpreter)
            print(f"{wheel.name}: {size} KiB, built in {seconds:.0f} s, {told}")
            if not told.endswith("compiled"):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
