"""Which build is made, and which one runs.  The compiled one has tests of its own, in compiled/."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import evamqp
from compiled_tree import copy

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVAMQP_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env={**kept, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_version_says_which_build_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evamqp", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"evamqp {evamqp.__version__}, {evamqp.implementation}, CPython")


def test_pure_can_always_be_asked_for() -> None:
    done = python("-c", "import evamqp; print(evamqp.implementation)", EVAMQP_IMPL="pure")
    assert done.stdout == "pure\n"


def test_an_implementation_that_does_not_exist_is_refused() -> None:
    done = python("-c", "import evamqp", EVAMQP_IMPL="fast")
    assert done.stderr.endswith("ImportError: EVAMQP_IMPL must be pure or compiled, not 'fast'\n")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, where setup.py may leave something behind."""
    return copy(tmp_path_factory.mktemp("source"))


def built(source: Path, **variables: str) -> tuple[list[str], str, int]:
    """The wheels that were made, the line about the build, and the status."""
    done = python("setup.py", "-q", "bdist_wheel", "-d", "made", cwd=source, **variables)
    said = [line for line in done.stderr.splitlines() if line.startswith("evamqp: ")]
    wheels = [path.name for path in (source / "made").glob("*.whl")]
    for name in wheels:
        (source / "made" / name).unlink()
    return wheels, "\n".join(said), done.returncode


PURE = [f"evamqp-{evamqp.__version__}-py3-none-any.whl"]
NO_COMPILER: Mapping[str, str] = {"CC": "no-such-compiler"}


def test_without_a_compiler_the_pure_build_is_made_and_one_line_says_so(source: Path) -> None:
    wheels, said, status = built(source, **NO_COMPILER)
    assert (wheels, status) == (PURE, 0)
    assert said.startswith("evamqp: the pure build is installed, nothing is compiled: no C compil")
    assert "\n" not in said


def test_the_pure_build_can_be_asked_for(source: Path) -> None:
    assert built(source, EVAMQP_COMPILED="0") == (
        PURE,
        "evamqp: the pure build is installed, nothing is compiled: EVAMQP_COMPILED=0",
        0,
    )


def test_the_compiled_build_that_is_asked_for_is_made_or_fails(source: Path) -> None:
    wheels, said, status = built(source, EVAMQP_COMPILED="1", **NO_COMPILER)
    assert (wheels, status) == ([], 1)
    assert said.startswith("evamqp: EVAMQP_COMPILED=1, but no C compiler works here")


def test_any_other_wish_is_refused(source: Path) -> None:
    assert built(source, EVAMQP_COMPILED="yes") == (
        [],
        "evamqp: EVAMQP_COMPILED must be 0 or 1, not 'yes'",
        1,
    )
