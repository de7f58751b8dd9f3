"""``python -m evamqp.compat LIBRARY PROGRAM [ARGS...]``: run a program of another library's here.

PROGRAM is a path, or the name of an installed script; ``-m MODULE`` runs a module.  The program
is not changed, and sees itself started as it always is.
"""

from __future__ import annotations

import builtins
import io
import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType, TracebackType
from typing import Any

from evamqp.compat import LIBRARIES, substitute

USAGE = f"""\
usage: python -m evamqp.compat LIBRARY PROGRAM [ARGS...]
       python -m evamqp.compat LIBRARY -m MODULE [ARGS...]

Runs a program written for LIBRARY ({", ".join(LIBRARIES)}) on evamqp, unchanged.
"""


def main(arguments: Sequence[str]) -> int | None:
    """Run the program; returns only without one to run.  Its exceptions are for the interpreter."""
    if len(arguments) < 2 or arguments[0] not in LIBRARIES or arguments[1:] == ["-m"]:
        sys.stderr.write(USAGE)
        return 2
    library, program, *rest = arguments
    substitute(library)
    if program == "-m":
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return None
    path = program if os.path.exists(program) else shutil.which(program)
    if path is None:
        sys.stderr.write(f"evamqp.compat: no program {program!r}\n")
        return 2
    sys.argv[:] = [path, *rest]
    if os.path.isdir(path):
        runpy.run_path(path, run_name="__main__")
    else:
        _run_script(path)
    return None


def _run_script(path: str) -> None:
    """What the interpreter does with a script."""
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    path = os.path.abspath(path)  # the program may change its directory
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module = ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = module
    sys.excepthook = _Hook(code, sys.excepthook)
    exec(code, module.__dict__)


class _Hook:
    """Shows an exception as if the program had been started by itself."""

    def __init__(self, code: CodeType, shown: Any) -> None:
        self._code = code
        self._show = shown

    def __call__(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        own = traceback
        while own is not None and own.tb_frame.f_code is not self._code:
            own = own.tb_next
        self._show(kind, error.with_traceback(own or traceback), own or traceback)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
