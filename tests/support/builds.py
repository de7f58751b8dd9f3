"""A module of the tests twice in one process: on the compiled build, and on the pure one.

No test lives here.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from evamqp.builds import find_source, forget_finders

#: What is loaded once more: the package, and what of the tests holds its types.
TWICE = ("evamqp", "tests")


def on_source(name: str) -> ModuleType:
    """The module ``name``, and all of ours that it imports, loaded anew on the pure build.

    Modules that import nothing of ours inside of functions are safe: those names would be found
    in the build that the process runs.
    """
    mine = {found: module for found, module in sys.modules.items() if _is_twice(found)}
    for found in mine:
        del sys.modules[found]
    sys.path_hooks.insert(0, find_source)
    forget_finders()
    try:
        return import_module(name)
    finally:
        sys.path_hooks.remove(find_source)
        forget_finders()
        for found in [found for found in sys.modules if _is_twice(found)]:
            del sys.modules[found]
        sys.modules.update(mine)


def _is_twice(name: str) -> bool:
    return name.partition(".")[0] in TWICE
