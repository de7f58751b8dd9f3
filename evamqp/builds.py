"""Which build runs: the hot modules compiled to machine code, or the same modules as Python source.

To import this module is to choose: it comes before all modules that have two builds.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from typing import Literal, TypeAlias

Implementation: TypeAlias = Literal["pure", "compiled"]

#: The environment variable that chooses.  Unset, or empty: compiled, if this build is.
CHOICE = "EVAMQP_IMPL"
FOLDER: str = os.path.dirname(os.path.abspath(__file__))


def find_source(folder: str) -> FileFinder:
    """A path hook that finds this package's modules as source, and not their compiled builds."""
    if not folder.startswith(FOLDER):
        raise ImportError
    return FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))


def forget_finders() -> None:
    """Let path hooks be asked anew for the folders of the package."""
    for folder in list(sys.path_importer_cache):
        if folder.startswith(FOLDER):
            del sys.path_importer_cache[folder]


def is_compiled() -> bool:
    """Whether the package has compiled modules for this interpreter."""
    module = os.path.join(FOLDER, "codec", "properties")
    return any(os.path.exists(module + suffix) for suffix in EXTENSION_SUFFIXES)


def choose(wanted: str) -> Implementation:
    """See that the implementation that is ``wanted`` is imported; "" leaves it to the build.

    Raises:
        ImportError: There is no such implementation, or it was not built.
    """
    compiled = is_compiled()
    if wanted not in ("", "pure", "compiled"):
        raise ImportError(f"{CHOICE} must be pure or compiled, not {wanted!r}")
    if wanted == "compiled" and not compiled:
        raise ImportError(
            f"{CHOICE}=compiled, but this is the pure build of evamqp: "
            "install it with EVAMQP_COMPILED=1"
        )
    if wanted == "pure" and compiled:
        sys.path_hooks.insert(0, find_source)
        forget_finders()
        return "pure"
    return "compiled" if compiled else "pure"


#: What runs in this process.
implementation: Implementation = choose(os.environ.get(CHOICE, ""))
