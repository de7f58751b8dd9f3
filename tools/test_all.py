"""Run the tests on every CPython from 3.10 up that the machine has, each in its own environment.

Found are ``python3.N`` on PATH and under ``~/.pyenv/versions``.  The environments stay in
``.venvs/`` and are made anew when pyproject.toml changes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venvs"
NAME = re.compile(r"python3(\.\d+t?)?")
# Prints e.g. ``3.12.1`` or ``3.13.0t``, and nothing on other or older Pythons.
IDENTIFY = (
    "import sys, platform; n = sys.version_info; "
    "print('%d.%d.%d%s' % (n[0], n[1], n[2], getattr(sys, 'abiflags', '')))"
    " if platform.python_implementation() == 'CPython' and n >= (3, 10) else None"
)


def candidates() -> Iterator[Path]:
    """Whatever looks like an interpreter."""
    folders = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    folders += sorted((Path.home() / ".pyenv" / "versions").glob("*/bin"))
    for folder in folders:
        # A shim starts another interpreter, which is found in its own place.
        if folder.is_dir() and folder.name != "shims":
            yield from sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def identify(interpreter: Path) -> str:
    """The version of a usable CPython, else an empty string."""
    try:
        done = subprocess.run(
            [str(interpreter), "-I", "-c", IDENTIFY],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find_interpreters() -> dict[str, Path]:
    """One interpreter per version, oldest first."""
    found: dict[str, Path] = {}
    for interpreter in candidates():
        version = identify(interpreter)
        if version:
            found.setdefault(version, interpreter)
    by_number = sorted(found, key=lambda version: [int(n) for n in re.findall(r"\d+", version)])
    return {version: found[version] for version in by_number}


def prepare(version: str, interpreter: Path) -> Path | None:
    """The environment's interpreter, or None if the environment could not be made."""
    folder = ENVIRONMENTS / version
    stamp = folder / ".installed"
    needed = (ROOT / "pyproject.toml").stat().st_mtime
    if not stamp.exists() or stamp.stat().st_mtime < needed:
        setup = [str(ROOT / "tools" / "setup_venv.sh"), str(interpreter), str(folder)]
        quietly = [str(ROOT / "tools" / "quietly.sh"), f"setting up Python {version}"]
        done = subprocess.run([*quietly, *setup], check=False)
        if done.returncode != 0:
            return None
        stamp.touch()
    return folder / "bin" / "python"


def test(version: str, interpreter: Path) -> bool:
    """Whether the tests pass on this interpreter."""
    print(f"== CPython {version} ({interpreter})", flush=True)
    python = prepare(version, interpreter)
    if python is None:
        return False
    return subprocess.run([python, "-m", "pytest"], cwd=ROOT, check=False).returncode == 0


def main() -> int:
    interpreters = find_interpreters()
    if not interpreters:
        print("no CPython 3.10 or newer was found", file=sys.stderr)
        return 1
    results = {version: test(version, path) for version, path in interpreters.items()}
    print("== " + ", ".join(f"{v} {'passed' if ok else 'FAILED'}" for v, ok in results.items()))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
