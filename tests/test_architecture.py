"""The floors of the house: who may import whom, read from the source without running it.

The floors are drawn in docs/design.md; the table below is the same drawing for a machine.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "evamqp"

# The longest prefix decides.  The package itself is the roof: it gathers the public names.
FLOORS = {
    "evamqp.compat": 8,
    "evamqp.integrations": 8,
    "evamqp.blocking": 7,
    "evamqp": 6,
    "evamqp.publisher": 5,
    "evamqp.consumer": 5,
    "evamqp.rpc": 5,
    "evamqp.outbox": 5,
    "evamqp.testing": 5,
    "evamqp.recovery": 4,
    "evamqp.driver": 3,
    "evamqp.core": 2,
    "evamqp.adapters": 2,
    "evamqp.codec": 1,
    "evamqp.errors": 0,
    "evamqp.types": 0,
    "evamqp.parameters": 0,
    "evamqp.checks": 0,
    "evamqp.credentials": 0,
    "evamqp.url": 0,
    "evamqp.version": 0,
    "evamqp.builds": 0,
    "evamqp.__main__": 7,
    "evamqp.abc": 0,
}
# Where another's package may be imported.  Tornado's loop is asyncio underneath.
LOOPS = {
    "asyncio": {
        "evamqp.adapters._asyncio_transport",
        "evamqp.adapters.asyncio",
        "evamqp.adapters.tornado",
        # What they stand in for is of asyncio.
        "evamqp.compat.aio_pika",
        "evamqp.compat.aioamqp",
        "evamqp.compat.pika.adapters._native",
    },
    "uvloop": set(),
    "tornado": {
        "evamqp.adapters.tornado",
        "evamqp.compat.pika.adapters.tornado_connection",
    },
    "twisted": {
        "evamqp.adapters.twisted",
        "evamqp.compat.pika.adapters._twisted_queue",
        "evamqp.compat.pika.adapters._twisted_reasons",
        "evamqp.compat.pika.adapters._twisted_transport",
        "evamqp.compat.pika.adapters.twisted_connection",
    },
    "gevent": {"evamqp.compat.pika.adapters.gevent_connection"},
    # No loops, but others' as well.  kombu depends on amqp, whose exceptions programs catch.
    "kombu": {"evamqp.integrations.kombu"},
    "amqp": {"evamqp.integrations.kombu"},
}
# What of ours a facade may import besides the roof and itself, and who may read the codec.
OPEN_TO_FACADES = ("evamqp.abc", "evamqp.adapters", "evamqp.blocking", "evamqp.types")
READERS_OF_CODEC = (
    "evamqp.compat.pika.spec",
    "evamqp.compat.pika.frame",
    "evamqp.compat.pika.data",
)
# ssl and socket import selectors.  Up to the driver they are for functions that need them.
SOCKETS = {"ssl", "socket", "selectors", "select"}
TOP_WITHOUT_SOCKETS = 3
# What a bare ``import evamqp`` must not load.
UNLOADED = ("asyncio", "selectors", "ssl", "socket", "tornado", "twisted")


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a module imports, and where the statement stands."""

    module: str
    target: str
    line: int
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


class Collector(ast.NodeVisitor):
    """Gathers the imports of one module."""

    def __init__(self, module: str, is_package: bool, modules: frozenset[str]) -> None:
        self._module = module
        self._package = module if is_package else module.rpartition(".")[0]
        self._modules = modules
        self._in_function = False
        self._for_types = False
        self.imports: list[Import] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parents = self._package.split(".")
            kept = parents[: len(parents) - node.level + 1]
            base = ".".join([*kept, base] if base else kept)
        for alias in node.names:
            name = f"{base}.{alias.name}"
            self._add(name if name in self._modules else base, node.lineno)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def visit_If(self, node: ast.If) -> None:
        before = self._for_types
        self._for_types = before or ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body:
            self.visit(statement)
        self._for_types = before
        for statement in node.orelse:
            self.visit(statement)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        before, self._in_function = self._in_function, True
        self.generic_visit(node)
        self._in_function = before

    def _add(self, target: str, line: int) -> None:
        self.imports.append(Import(self._module, target, line, self._in_function, self._for_types))


class Tree:
    """The modules under a folder and what each imports.

    Args:
        root: The folder that holds the package.
    """

    def __init__(self, root: Path) -> None:
        paths = {name_of(path.relative_to(root)): path for path in (root / PACKAGE).rglob("*.py")}
        self._paths = paths
        self.modules = frozenset(paths)
        self.imports = [
            found
            for module, path in sorted(paths.items())
            for found in collect(module, path, self.modules)
        ]

    def sources(self) -> dict[str, ast.Module]:
        """The parsed modules."""
        return {
            module: ast.parse(path.read_text(encoding="utf-8"), str(path))
            for module, path in sorted(self._paths.items())
        }

    def inner(self) -> Iterator[Import]:
        """The imports of the package's own modules."""
        return (found for found in self.imports if is_below(found.target, PACKAGE))


def name_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def collect(module: str, path: Path, modules: frozenset[str]) -> list[Import]:
    collector = Collector(module, path.name == "__init__.py", modules)
    collector.visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return collector.imports


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def floor(module: str) -> int | None:
    """The floor of a module, or None if the drawing does not show it."""
    if module == PACKAGE:
        return FLOORS[PACKAGE]
    prefixes = [prefix for prefix in FLOORS if prefix != PACKAGE and is_below(module, prefix)]
    return FLOORS[max(prefixes, key=len)] if prefixes else None


def is_adapter(module: str) -> bool:
    return is_below(module, "evamqp.adapters") and module != "evamqp.abc"


def homeless(tree: Tree) -> list[str]:
    """Modules that stand on no floor."""
    return [module for module in sorted(tree.modules) if floor(module) is None]


def upward(tree: Tree) -> list[str]:
    """Imports that go up; those for types only and those in functions are imports too."""
    found = []
    for entry in tree.inner():
        own, other = floor(entry.module), floor(entry.target)
        if own is not None and other is not None and other > own:
            found.append(f"{entry} (floor {own} to {other})")
    return found


def across(tree: Tree) -> list[str]:
    """Imports between the two houses of floor 2: adapters know no AMQP, the core no loop."""
    found = []
    for entry in tree.inner():
        from_adapter, to_adapter = is_adapter(entry.module), is_adapter(entry.target)
        knows_amqp = is_below(entry.target, "evamqp.core") or is_below(entry.target, "evamqp.codec")
        if (from_adapter and knows_amqp) or (to_adapter and is_below(entry.module, "evamqp.core")):
            found.append(str(entry))
    return found


def foreign_loops(tree: Tree) -> list[str]:
    """Imports of a loop's package outside its own adapter."""
    return [
        str(entry)
        for entry in tree.imports
        if not any(
            is_below(entry.module, package)
            for package in LOOPS.get(entry.target.partition(".")[0], {entry.module})
        )
    ]


def early_sockets(tree: Tree) -> list[str]:
    """Imports that would load a socket with the floors up to the driver."""
    return [
        str(entry)
        for entry in tree.imports
        if entry.target.partition(".")[0] in SOCKETS
        and not (entry.in_function or entry.for_types or is_adapter(entry.module))
        and ((floor(entry.module) or 0) <= TOP_WITHOUT_SOCKETS or entry.module == PACKAGE)
    ]


def cycles(tree: Tree) -> list[str]:
    """Modules that cannot be loaded without each other, as ``a -> b -> a``."""
    graph: dict[str, set[str]] = {module: set() for module in tree.modules}
    for entry in tree.inner():
        if not (entry.in_function or entry.for_types) and entry.target != entry.module:
            graph[entry.module].add(entry.target)
    done: set[str] = set()
    found: list[str] = []

    def follow(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                follow(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        follow(module, [])
    return found


def facade_of(module: str) -> str | None:
    """The facade that a module belongs to, as ``evamqp.compat.pika``."""
    parts = module.split(".")
    is_one = (
        len(parts) > 2
        and parts[0] == PACKAGE
        and parts[1] in ("compat", "integrations")
        and not parts[2].startswith("_")
    )
    return ".".join(parts[:3]) if is_one else None


def intrusions(tree: Tree) -> list[str]:
    """Imports by which a facade takes what no user is given."""
    found = []
    for entry in tree.inner():
        own, target = facade_of(entry.module), entry.target
        if own is None or target in (PACKAGE, f"{PACKAGE}.compat") or is_below(target, own):
            continue
        is_public = any(is_below(target, public) for public in OPEN_TO_FACADES)
        reads_codec = entry.module in READERS_OF_CODEC and is_below(target, f"{PACKAGE}.codec")
        if not reads_codec and (not is_public or "._" in target):
            found.append(str(entry))
    return found


# Private reads of the hot path, as (reading module, name): each spares a call per message.
HOT_READS = {
    # The parser makes a Message without calling its __init__: the call costs a tenth of a delivery.
    ("evamqp.core.parser", "_template"),
    ("evamqp.core.parser", "_raw"),
    ("evamqp.core.parser", "_settled"),
    ("evamqp.core.parser", "_properties"),
    # What basic_publish puts on the wire, found without a call where it was checked before.
    ("evamqp.core.publishing", "_sendable"),
}
# Where nothing of the core's that begins with an underscore may be read.  The core itself is one.
ABOVE_THE_CORE = (
    "evamqp.driver",
    "evamqp.recovery",
    "evamqp.publisher",
    "evamqp.consumer",
    "evamqp.rpc",
    "evamqp.testing",
    "evamqp.blocking",
)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def is_self(node: ast.expr) -> bool:
    """Whether an expression is ``self``, ``cls`` or ``super()``."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def own_privates(tree: ast.Module) -> set[str]:
    """The private names that a module defines: functions, classes, slots, attributes of self."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # of __slots__
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and is_self(node.value)
        ):
            found.add(node.attr)
    return {name for name in found if is_private(name)}


def private_reads(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each private name of something else than self that a module uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not is_self(node.value):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and (
            node.level or is_below(node.module or "", PACKAGE)
        ):
            for alias in node.names:
                if is_private(alias.name):
                    yield node.lineno, alias.name


def trespasses(tree: Tree) -> list[str]:
    """Private names of other modules that the core uses, and of the core that others use.

    Names are all that is compared: one that a module above the core defines too counts as its own.
    """
    sources = tree.sources()
    of_core: set[str] = set()
    of_others: set[str] = set()
    for module, source in sources.items():
        (of_core if is_below(module, "evamqp.core") else of_others).update(own_privates(source))
    found = []
    for module, source in sources.items():
        in_core = is_below(module, "evamqp.core")
        if not in_core and not any(is_below(module, package) for package in ABOVE_THE_CORE):
            continue
        own = own_privates(source)
        for line, name in private_reads(source):
            if name in own or (module, name) in HOT_READS:
                continue
            if name in (of_core | of_others if in_core else of_core - of_others):
                found.append(f"{module}:{line} reads {name}")
    return found


# How many modules of the core may need each other for their types: those of the public API, where a
# Channel has a connection, a connection has channels, and a Handler gets both.
TYPE_CIRCLE = 3


def wide_circles(tree: Tree) -> list[str]:
    """Circles of modules of the core by all imports, for types as well, that are too wide."""
    graph: dict[str, set[str]] = {}
    for entry in tree.inner():
        if is_below(entry.module, "evamqp.core"):
            graph.setdefault(entry.module, set()).add(entry.target)
    reached = {module: reachable(graph, module) for module in graph}
    circles = {
        frozenset(other for other in reached[module] if module in reached.get(other, ()))
        for module in graph
    }
    return [" ".join(sorted(circle)) for circle in circles if len(circle) > TYPE_CIRCLE]


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found


CHECKS = (
    homeless,
    upward,
    across,
    foreign_loops,
    early_sockets,
    cycles,
    intrusions,
    trespasses,
    wide_circles,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package_keeps_the_floors(check: object) -> None:
    assert callable(check)
    assert check(Tree(ROOT)) == []


def test_tools_import_no_test() -> None:
    found = [
        str(entry)
        for path in sorted((ROOT / "tools").glob("*.py"))
        for entry in collect(path.stem, path, frozenset())
        if is_below(entry.target, "tests")
    ]
    assert found == []


def loaded_by(statements: str) -> list[str]:
    """What a fresh interpreter, without site-packages, has loaded after some statements."""
    code = f"import sys\n{statements}\nprint(*(n for n in {UNLOADED!r} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_evamqp_loads_no_event_loop() -> None:
    assert loaded_by("import evamqp") == []


def test_no_module_up_to_the_driver_loads_an_event_loop() -> None:
    modules = sorted(
        module
        for module in Tree(ROOT).modules
        if (floor(module) or 0) <= TOP_WITHOUT_SOCKETS and not is_adapter(module)
    )
    assert "evamqp.errors" in modules
    assert loaded_by("\n".join(f"import {module}" for module in modules)) == []


def test_a_platform_that_does_not_fork_will_do() -> None:
    # What the standard library itself does at a fork is loaded first.
    code = (
        "import os, asyncio, logging, random, tempfile, threading, importlib.abc\n"
        "del os.register_at_fork\n"
        "import evamqp.blocking, evamqp.compat.aio_pika"
    )
    loaded_by(code)


class TestChecker:
    """The checker finds what it should, on small trees."""

    def tree(self, root: Path, **sources: str) -> Tree:
        """A package whose modules are named by their path, with ``__`` for a slash."""
        for name, source in {"__init__": "", **sources}.items():
            parts = ["__init__"] if name == "__init__" else name.split("__")
            path = root.joinpath(PACKAGE, *parts).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        return Tree(root)

    def test_clean_tree_passes_every_check(self, tmp_path: Path) -> None:
        tree = self.tree(
            tmp_path,
            __init__="from evamqp.core.connection import Connection\n",
            errors="",
            parameters="def context():\n    import ssl\n    return ssl\n",
            abc="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ssl\n",
            adapters__asyncio="import asyncio\nimport ssl\nfrom ..abc import Adapter\n",
            adapters__tornado="import tornado.ioloop\nfrom .asyncio import AsyncioAdapter\n",
            core__connection="from evamqp import errors\nfrom ..abc import Adapter\n",
            driver="from .core.connection import Connection\n",
            testing__broker="import socket\nfrom evamqp import driver\n",
        )
        assert [check(tree) for check in CHECKS] == [[] for _ in CHECKS]

    @pytest.mark.parametrize(
        "source",
        [
            "import evamqp.core.connection\n",
            "from evamqp.core import connection\n",
            "from evamqp.core.connection import Connection\n",
            "from ..core import connection\n",
            "from ..core.connection import Connection\n",
            "def late():\n    from evamqp.core import connection\n",
            "if TYPE_CHECKING:\n    from evamqp.core import connection\n",
            "try:\n    import evamqp.core.connection\nexcept ImportError:\n    pass\n",
        ],
    )
    def test_upward_import_is_found_however_it_is_spelled(
        self, tmp_path: Path, source: str
    ) -> None:
        tree = self.tree(tmp_path, codec__frames=source, core__connection="")
        assert len(upward(tree)) == 1

    def test_import_of_the_package_itself_from_inside_goes_up(self, tmp_path: Path) -> None:
        assert upward(self.tree(tmp_path, core__channel="import evamqp\n"))
        assert upward(self.tree(tmp_path, core__channel="from evamqp import connect\n"))
        assert upward(self.tree(tmp_path, core__channel="from .. import connect\n"))

    def test_the_contract_may_be_imported_from_the_bottom(self, tmp_path: Path) -> None:
        tree = self.tree(tmp_path, parameters="from .abc import E\n", abc="")
        assert upward(tree) == []

    @pytest.mark.parametrize("amqp", ["codec", "core"])
    def test_adapter_that_knows_amqp_is_found(self, tmp_path: Path, amqp: str) -> None:
        source = f"from evamqp.{amqp} import thing\n"
        tree = self.tree(tmp_path, adapters__select=source, **{f"{amqp}__thing": ""})
        assert len(across(tree)) == 1

    def test_core_that_knows_an_adapter_is_found(self, tmp_path: Path) -> None:
        tree = self.tree(
            tmp_path, core__connection="from evamqp.adapters import select\n", adapters__select=""
        )
        assert len(across(tree)) == 1

    @pytest.mark.parametrize("package", sorted(LOOPS))
    def test_loop_outside_its_adapter_is_found_even_in_a_function(
        self, tmp_path: Path, package: str
    ) -> None:
        tree = self.tree(tmp_path, adapters__memory=f"def f():\n    import {package}.x\n")
        assert len(foreign_loops(tree)) == 1

    @pytest.mark.parametrize("package", sorted(SOCKETS))
    @pytest.mark.parametrize("module", ["__init__", "parameters", "core__x", "abc"])
    def test_socket_at_the_top_of_a_low_module_is_found(
        self, tmp_path: Path, module: str, package: str
    ) -> None:
        tree = self.tree(tmp_path, **{module: f"class C:\n    from {package} import x\n"})
        assert len(early_sockets(tree)) == 1

    def test_else_of_a_type_checking_block_is_code_that_runs(self, tmp_path: Path) -> None:
        tree = self.tree(
            tmp_path, driver="if typing.TYPE_CHECKING:\n    import ssl\nelse:\n    import socket\n"
        )
        assert [entry.partition(" ")[2] for entry in early_sockets(tree)] == ["imports socket"]

    def test_cycle_is_found_and_spelled_out(self, tmp_path: Path) -> None:
        tree = self.tree(
            tmp_path,
            core__a="from . import b\n",
            core__b="from .c import x\n",
            core__c="import evamqp.core.a\n",
        )
        assert cycles(tree) == ["evamqp.core.a -> evamqp.core.b -> evamqp.core.c -> evamqp.core.a"]

    def test_late_import_breaks_a_cycle(self, tmp_path: Path) -> None:
        tree = self.tree(
            tmp_path, core__a="from . import b\n", core__b="def f():\n    from . import a\n"
        )
        assert cycles(tree) == []

    @pytest.mark.parametrize(
        "target", ["core.channel", "adapters._socket", "compat.other", "recovery.backoff", "errors"]
    )
    def test_facade_that_takes_what_is_not_public_is_found(
        self, tmp_path: Path, target: str
    ) -> None:
        own = {"compat__mine____init__": f"from evamqp.{target} import thing\n"}
        others = {target.replace(".", "__"): ""}
        assert len(intrusions(self.tree(tmp_path, **own, **others))) == 1

    def test_facade_may_import_the_roof_an_adapter_and_itself(self, tmp_path: Path) -> None:
        source = "import evamqp\nfrom evamqp.adapters import select\nfrom . import spec\n"
        own = {"compat__mine____init__": source, "compat__mine__spec": ""}
        assert intrusions(self.tree(tmp_path, adapters__select="", **own)) == []

    @pytest.mark.parametrize(
        "module", ["core__b", "driver", "recovery__x", "publisher", "testing__broker"]
    )
    @pytest.mark.parametrize(
        "source",
        [
            "def f(thing):\n    return thing._hidden\n",
            "class C:\n    def f(self):\n        self.thing._hidden = 1\n",
            "from evamqp.core.a import _hidden\n",
        ],
    )
    def test_private_name_of_the_core_is_found(
        self, tmp_path: Path, module: str, source: str
    ) -> None:
        core = "class A:\n    def _hidden(self): ...\n"
        assert len(trespasses(self.tree(tmp_path, core__a=core, **{module: source}))) == 1

    def test_own_private_name_may_be_read_of_another_object(self, tmp_path: Path) -> None:
        source = "class A:\n    __slots__ = ('_x',)\n    def f(self, other):\n        other._x\n"
        assert trespasses(self.tree(tmp_path, core__a=source)) == []

    def test_circle_of_types_that_is_too_wide_is_found(self, tmp_path: Path) -> None:
        names = "abcde"
        following = dict(zip(names, names[1:] + names[:1], strict=True))
        sources = {
            f"core__{name}": f"if TYPE_CHECKING:\n    from evamqp.core import {following[name]}\n"
            for name in names
        }
        assert len(wide_circles(self.tree(tmp_path, **sources))) == 1

    def test_module_on_no_floor_is_found(self, tmp_path: Path) -> None:
        assert homeless(self.tree(tmp_path, utilities="")) == ["evamqp.utilities"]
