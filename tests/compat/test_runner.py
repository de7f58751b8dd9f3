"""``python -m evamqp.compat`` and ``substitute``: a program sees itself started as always."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """\
import sys
import pika
import pika.adapters.blocking_connection as blocking
from pika.exceptions import AMQPError
from pika import BasicProperties
import beside
print(__name__, sys.argv[1:], pika.__name__, __file__)
assert blocking.BlockingConnection is pika.BlockingConnection
assert sys.modules["__main__"].__dict__ is globals()
what = sys.argv[1] if len(sys.argv) > 1 else ""
if what == "exit":
    sys.exit(7)
if what == "raise":
    raise ValueError("mine")
if what == "interrupt":
    raise KeyboardInterrupt
if what == "missing":
    import pika.nothing
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program, and a module beside it."""
    (tmp_path / "beside.py").write_text("")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd, env={"PYTHONPATH": str(ROOT), "PATH": str(cwd)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def run_program(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "evamqp.compat", "pika", str(program), *arguments)


def test_program_runs_as_main_with_its_arguments_and_folder(program: Path) -> None:
    done = run_program(program, "a", "-b")
    assert done.stderr == ""
    assert done.stdout == f"__main__ ['a', '-b'] evamqp.compat.pika {program}\n"


def test_program_that_leaves_its_folder_finds_itself(program: Path) -> None:
    code = 'import inspect, os\nos.chdir("/")\nprint(__file__)\n'
    program.write_text(code + "def f(): pass\nprint(inspect.getsource(f))\n")
    done = run("-m", "evamqp.compat", "pika", program.name, cwd=program.parent)
    assert done.stderr == ""
    assert done.stdout.split("\n")[:2] == [str(program), "def f(): pass"]


def test_exit_code_is_the_programs(program: Path) -> None:
    assert run_program(program, "exit").returncode == 7


def test_traceback_is_the_programs(program: Path) -> None:
    done = run_program(program, "raise")
    plain = PROGRAM.splitlines().index('    raise ValueError("mine")') + 1
    assert done.returncode == 1
    assert done.stderr.splitlines()[:2] == [
        "Traceback (most recent call last):",
        f'  File "{program}", line {plain}, in <module>',
    ]
    assert done.stderr.endswith("ValueError: mine\n")
    assert "evamqp" not in done.stderr


def test_interrupt_ends_the_process_as_ever(program: Path) -> None:
    assert run_program(program, "interrupt").returncode == -signal.SIGINT


def test_missing_submodule_is_missing_under_its_own_name(program: Path) -> None:
    done = run_program(program, "missing")
    assert "ModuleNotFoundError: No module named 'pika.nothing'" in done.stderr


def test_module_runs_by_its_name(program: Path) -> None:
    done = run("-m", "evamqp.compat", "pika", "-m", "program", "a", cwd=program.parent)
    assert done.stdout == f"__main__ ['a'] evamqp.compat.pika {program}\n"


def test_installed_script_is_found_by_its_name(program: Path) -> None:
    program.chmod(0o755)
    done = run("-m", "evamqp.compat", "pika", "program.py", "a", cwd=program.parent)
    assert done.stdout.startswith("__main__ ['a'] evamqp.compat.pika")


@pytest.mark.parametrize("arguments", [(), ("pika",), ("kombu", "x"), ("pika", "-m")])
def test_wrong_call_shows_how(arguments: tuple[str, ...]) -> None:
    done = run("-m", "evamqp.compat", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_missing_program_is_told() -> None:
    done = run("-m", "evamqp.compat", "pika", "no such program")
    assert done.returncode == 2
    assert "no such program" in done.stderr


def test_substitute_answers_later_imports_once_and_says_so() -> None:
    done = run(
        "-c",
        "import logging; logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "from evamqp.compat import substitute\n"
        "substitute('pika'); substitute('pika')\n"
        "import pika.spec, evamqp.compat.pika\n"
        "assert pika is evamqp.compat.pika and pika.spec is evamqp.compat.pika.spec\n"
        "assert pika.spec.__spec__.name == 'evamqp.compat.pika.spec'\n",
    )
    assert done.stderr == "from here pika is evamqp.compat.pika\n"
    assert done.returncode == 0


def test_substitute_warns_of_a_library_that_is_loaded_already() -> None:
    done = run(
        "-c",
        "import warnings, pika as real, pika.spec\n"
        "from evamqp.compat import substitute\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    substitute('pika')\n"
        "assert [w.category for w in caught] == [ImportWarning], caught\n"
        "import pika, pika.spec\n"
        "assert pika is not real and pika.spec.__name__ == 'evamqp.compat.pika.spec'\n",
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_importing_the_facades_substitutes_nothing() -> None:
    done = run(
        "-c",
        "import sys\n"
        "before = list(sys.meta_path)\n"
        "import evamqp, evamqp.compat, evamqp.compat.pika\n"
        "assert sys.meta_path == before and 'pika' not in sys.modules\n",
    )
    assert done.stderr == ""


def test_unknown_library_is_refused() -> None:
    from evamqp.compat import substitute

    with pytest.raises(ValueError, match="kombu"):
        substitute("kombu")
