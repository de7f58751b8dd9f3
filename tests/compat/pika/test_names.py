"""Every public name of pika is in the facade, or is listed here with the reason why not.

Of the pika that is installed: 1.4.4 and 1.5.0rc1 were walked.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pika
import pytest

FACADE = "evamqp.compat.pika"

# Modules and names that the facade does without, each with its reason.
MISSING = {
    "pika.adapters.utils.io_services_utils": "pika's own sockets; evamqp's adapters have theirs",
    "pika.adapters.utils.nbio_interface": "pika's interface to loops; evamqp has evamqp.abc",
    "pika.adapters.utils.selector_ioloop_adapter": "the same",
    "pika.adapters.select_connection.EPollPoller": "evamqp's loop chooses by selectors",
    "pika.adapters.select_connection.KQueuePoller": "the same",
    "pika.adapters.select_connection.PollPoller": "the same",
    "pika.adapters.select_connection.SelectPoller": "the same",
    "pika.callback.check_for_prefix_and_key": "a decorator of pika's own methods",
    "pika.callback.sanitize_prefix": "the same",
    "pika.channel.ContentFrameAssembler": "evamqp puts contents together",
}


def modules() -> Iterator[str]:
    yield "pika"
    for found in pkgutil.walk_packages(pika.__path__, "pika."):
        if found.name.rpartition(".")[2][0] != "_":
            yield found.name


def load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        # gevent is not everywhere.
        return None


def public(module: Any) -> Iterator[str]:
    """What a module offers that is its own, or a package on purpose, and what its classes have."""
    is_package = hasattr(module, "__path__")
    for name, value in vars(module).items():
        if name in ("annotations", "TYPE_CHECKING", "LOGGER", "reactor", "T", "F"):
            continue
        if (name[0] == "_" and not (is_package and name == "__version__")) or is_foreign(value):
            continue
        home = getattr(value, "__module__", module.__name__)
        if home == module.__name__ or (is_package and home.startswith("pika")):
            yield name
        if home == module.__name__ and inspect.isclass(value):
            yield from attributes(name, value)


def attributes(name: str, kind: type) -> Iterator[str]:
    for attribute, value in vars(kind).items():
        if attribute[0] != "_" and not is_foreign(value):
            yield f"{name}.{attribute}"
            if inspect.isclass(value):
                yield from attributes(f"{name}.{attribute}", value)


def is_foreign(value: object) -> bool:
    """Whether it is a module, or of the typing module."""
    return inspect.ismodule(value) or "typing" in (type(value).__module__,
                                                   getattr(value, "__module__", ""))  # fmt: skip


def has(module: Any, path: str) -> bool:
    value = module
    for part in path.split("."):
        if not hasattr(value, part):
            # What __init__ sets, such as a parameter, or what is read when asked for.
            return inspect.isclass(value) and part in getattr(value, "__slots__", ())
        value = getattr(value, part)
    return True


def is_listed(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in MISSING)


def survey() -> tuple[int, list[str]]:
    """How many names pika offers publicly, and which of them the facade does not have."""
    count = 0
    missing = []
    for name in modules():
        theirs = load(name)
        if theirs is None:
            continue
        ours = load(FACADE + name.removeprefix("pika"))
        for path in public(theirs):
            count += 1
            if ours is None or not has(ours, path):
                missing.append(f"{name}.{path}")
    return count, missing


def test_every_public_name_is_there_or_has_a_reason() -> None:
    count, missing = survey()
    assert count > 900, count
    assert [path for path in missing if not is_listed(path)] == []


def test_no_reason_is_left_over() -> None:
    _, missing = survey()
    assert [
        name for name in MISSING
        if not any(path == name or path.startswith(f"{name}.") for path in missing)
    ] == []  # fmt: skip


@pytest.mark.parametrize("name", ["spec", "exceptions", "channel", "connection", "frame"])
def test_modules_are_there_after_a_plain_import(name: str) -> None:
    facade = importlib.import_module(FACADE)
    assert getattr(facade, name).__name__ == f"{FACADE}.{name}"


def test_the_facade_loads_no_loop_before_it_is_asked_for() -> None:
    code = (
        f"import sys; import {FACADE} as pika; pika.BasicProperties; pika.exceptions; "
        "print([name for name in ('asyncio', 'tornado', 'twisted', 'gevent') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    total, without = survey()
    print(f"{total} names, {total - len(without)} in the facade")  # noqa: T201
    for each in without:
        print(each, "-", next((why for name, why in MISSING.items()  # noqa: T201
                               if each.startswith(name)), "NO REASON"))  # fmt: skip
