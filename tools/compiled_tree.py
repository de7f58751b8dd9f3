"""Run Python in a copy of the project whose hot modules are compiled.

The checkout stays pure: a compiled module in it would go on hiding the source beside it.

    python tools/compiled_tree.py -m pytest tests/core
    python tools/compiled_tree.py --sanitize -m pytest tests/core
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
#: What gcc needs to find reads and writes outside of memory, and what C leaves undefined.
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"


def copy(folder: Path) -> Path:
    """Copy the working tree into ``folder``, without what git ignores, or what a build made."""
    if (PROJECT / ".git").exists():
        listed = _git("ls-files", "-co", "--exclude-standard", "-z").split(b"\0")
        names = [name for name in listed if name and (PROJECT / os.fsdecode(name)).exists()]
    else:  # such a copy, in which the tests run
        made = {"build", "__pycache__"}
        paths = [path.relative_to(PROJECT) for path in PROJECT.rglob("*") if path.is_file()]
        names = [
            os.fsencode(path)
            for path in paths
            if made.isdisjoint(path.parts) and path.suffix not in (".so", ".pyd")
        ]
    copied = subprocess.run(
        ["tar", "-c", "--null", "-T", "-"],
        cwd=PROJECT, input=b"\0".join(names), capture_output=True, check=True,
    ).stdout  # fmt: skip
    subprocess.run(["tar", "-x", "-C", str(folder)], input=copied, check=True)
    return folder


def make(folder: Path, *, flags: str = "") -> Path:
    """Copy the working tree into an empty folder, and compile it there.

    Args:
        folder: The empty folder.
        flags: More flags for the C compiler and the linker.

    Raises:
        SystemExit: It does not compile; the compiler has said why.
    """
    copy(folder)
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder, env={**os.environ, "EVAMQP_COMPILED": "1", "EVAMQP_CFLAGS": flags},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        sys.exit(built.stdout + built.stderr)
    return folder


def _git(*arguments: str) -> bytes:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, check=True).stdout


def environment(folder: Path, *, sanitized: bool = False) -> Mapping[str, str]:
    """What a process needs to run what is compiled in ``folder``, and nothing else."""
    found = {**os.environ, "PYTHONPATH": str(folder), "EVAMQP_IMPL": "compiled"}
    if sanitized:
        names = ("libasan.so", "libubsan.so")
        command = (["gcc", f"-print-file-name={name}"] for name in names)
        libraries = (subprocess.check_output(each, text=True).strip() for each in command)
        found |= {
            "LD_PRELOAD": " ".join(libraries),
            # Each object of Python's in memory of its own, so that its end is known.
            "PYTHONMALLOC": "malloc",
            # The interpreter itself leaves memory behind at its end.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        }
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The status of what was run."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Everything else is given to python.",
        allow_abbrev=False,
    )
    parser.add_argument("--sanitize", action="store_true", help="with ASAN and UBSAN; gcc only")
    options, given = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory(prefix="evamqp-compiled-") as name:
        folder = make(Path(name), flags=SANITIZERS if options.sanitize else "")
        variables = environment(folder, sanitized=options.sanitize)
        command = [sys.executable, *given]
        return subprocess.run(command, cwd=folder, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
