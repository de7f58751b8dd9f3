"""Other libraries' programs on evamqp: ``substitute`` answers their imports by a facade.

Nothing is substituted until somebody says so, here or by ``python -m evamqp.compat``.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["LIBRARIES", "substitute"]

log: logging.Logger = logging.getLogger(__name__)

#: The libraries that have a facade.  A facade that answers further names, each by one of its
#: modules, has a table ``ANSWERS``.
LIBRARIES = ("pika", "aio_pika", "aioamqp")


def substitute(library: str) -> None:
    """Answer every later ``import`` of a library, and of its submodules, by its facade.

    It lasts as long as the process; child processes that do not fork have to say it again.
    Saying it twice changes nothing.

    Args:
        library: One of LIBRARIES.  The real one need not be installed.

    Raises:
        ValueError: It has no facade.
    """
    if library not in LIBRARIES:
        raise ValueError(f"{library!r} has no facade; these have: {', '.join(LIBRARIES)}")
    facade = f"{__name__}.{library}"
    answers = {library: facade, **getattr(importlib.import_module(facade), "ANSWERS", {})}
    for name, answer in answers.items():
        if not _is_substituted(name):
            _forget(name)
            sys.meta_path.insert(0, _Finder(name, answer))
            log.info("from here %s is %s", name, answer)


def _is_substituted(name: str) -> bool:
    return any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path)


def _forget(name: str) -> None:
    """Let the real library be imported anew, which is to say by the facade."""
    loaded = [module for module in sys.modules if _is_below(module, name)]
    if loaded:
        warnings.warn(
            f"{name} was imported before it was substituted; who has it keeps it",
            ImportWarning,
            stacklevel=3,
        )
        for module in loaded:
            del sys.modules[module]


def _is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


class _Finder(MetaPathFinder):
    """Finds a library and its submodules where its facade is."""

    def __init__(self, name: str, answer: str) -> None:
        self.name = name
        self._answer = answer

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _is_below(fullname, self.name):
            return None
        answer = self._answer + fullname[len(self.name) :]
        found = importlib.util.find_spec(answer)
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _Loader(answer), is_package=is_package)


class _Loader(Loader):
    """Loads a module of the facade, which keeps its own name."""

    def __init__(self, answer: str) -> None:
        self._answer = answer
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._answer)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has written the other name's into it.
        module.__spec__ = self._spec
