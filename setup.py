"""Build shim: pyproject.toml says everything but what has to be computed.

The hot modules, which are those with a ``.pxd`` beside them, are compiled where that is possible.
``EVAMQP_COMPILED=0`` compiles none, ``EVAMQP_COMPILED=1`` fails where they cannot be compiled, and
any other value is refused.  docs/compiled.md says more.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
FILES = "https://github.com/evamqp/evamqp/blob/main/"
WANTED = os.environ.get("EVAMQP_COMPILED", "")
# A sanitizer's flags, say: they come behind ours.
FLAGS = os.environ.get("EVAMQP_CFLAGS", "").split()
DIRECTIVES = {
    "language_level": "3",
    # A wrong argument is our BadType, not a TypeError of the compiler's.
    "annotation_typing": False,
    # An object that __new__ alone has made, or a field not set, is an error and no crash.
    "nonecheck": True,
}


def long_description() -> str:
    """The README as PyPI shows it: PyPI knows no files beside it, so its links become absolute."""
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?://|#)", f"]({FILES}", readme)


class AllOrNone(build_ext):
    """The modules know each other's layout, so that some of them alone would not work."""

    def build_extensions(self) -> None:
        self.parallel = self.parallel or os.cpu_count()
        try:
            super().build_extensions()
        except Exception as error:
            if WANTED == "1":
                raise
            say_pure(str(error))
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


def say_pure(why: str) -> None:
    why = " ".join(why.split())
    sys.stderr.write(f"evamqp: the pure build is installed, nothing is compiled: {why:.200}\n")


def reason_for_pure() -> str | None:
    """Why nothing is compiled; None if it can be."""
    if WANTED not in ("", "0", "1"):
        sys.exit(f"evamqp: EVAMQP_COMPILED must be 0 or 1, not {WANTED!r}")
    if WANTED == "0":
        return "EVAMQP_COMPILED=0"
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} runs pure Python faster"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the compiled modules need the GIL, which this interpreter runs without"
    try:
        import Cython  # noqa: F401
    except ImportError:
        return "there is no Cython"
    return why_no_compiler()


def why_no_compiler() -> str | None:
    """Compile a file that needs a C compiler and Python's headers; None if that works."""
    # setuptools brings them for Pythons that have none of their own any more.
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler

    compiler = new_compiler()
    customize_compiler(compiler)
    paths = sysconfig.get_paths()
    headers = [paths["include"], paths["platinclude"]]
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "trial.c"
        trial.write_text("#include <Python.h>\nint evamqp_trial;\n")
        try:
            compiler.compile([str(trial)], output_dir=folder, include_dirs=headers)
        except Exception as error:
            return f"no C compiler works here ({error})"
    return None


def extensions() -> list[Extension]:
    why = reason_for_pure()
    if why is not None:
        if WANTED == "1":
            sys.exit(f"evamqp: EVAMQP_COMPILED=1, but {why}")
        say_pure(why)
        return []
    from Cython.Build import cythonize

    flags = [] if sys.platform == "win32" else ["-O3", "-g0", "-Wno-sign-compare"]
    made = []
    for declarations in sorted(HERE.glob("evamqp/**/*.pxd")):
        source = declarations.relative_to(HERE).with_suffix(".py")
        if source.stem != "native":  # whose twin is inlined into the others
            name = ".".join(source.with_suffix("").parts)
            made.append(
                Extension(
                    name,
                    [source.as_posix()],
                    extra_compile_args=flags + FLAGS,
                    extra_link_args=FLAGS,
                )
            )
    return cythonize(made, compiler_directives=DIRECTIVES, build_dir="build/cython", quiet=True)


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    ext_modules=extensions(),
    cmdclass={"build_ext": AllOrNone},
)
