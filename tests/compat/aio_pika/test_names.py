"""Public names of aio-pika, aiormq and pamqp that the facade has; and why it lacks the others."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FACADE = "evamqp.compat.aio_pika"

MODULES = [
    "", ".abc", ".channel", ".connection", ".exceptions", ".exchange", ".log", ".message",
    ".patterns", ".patterns.base", ".patterns.master", ".patterns.rpc", ".pool", ".queue",
    ".robust_channel", ".robust_connection", ".robust_exchange", ".robust_queue", ".tools",
    ".transaction",
]  # fmt: skip

UNDERLAY = "aiormq's connections and channels; evamqp's own are in their place"
TYPES = "a type variable or alias of aio-pika's own annotations"
INNER = "what aio-pika is made of, and no program's business"
#: What is missing, by the last part of its name, and why.
MISSING = {
    "UnderlayChannel": UNDERLAY,
    "UnderlayConnection": UNDERLAY,
    "get_underlay_channel": UNDERLAY,
    "ConnectionParameter": INNER,
    "ConnectionType": TYPES,
    "RobustConnectionType": TYPES,
    "CallbackSetType": TYPES,
    "PoolInstance": TYPES,
    "ConstructorType": TYPES,
    "ChannelContext": INNER,
    "Sentinel": INNER,
    "OneShotCallback": INNER,
    "StubAwaitable": INNER,
    "STUB_AWAITABLE": INNER,
    "weak_method_callback": INNER,
    "PARAMETERS": INNER,
    "RESTORE_RETRY_DELAY": INNER,
    "CHANNEL_REOPEN_PAUSE": INNER,
    "DEFAULT_CLOSE_TIMEOUT": INNER,
    "on_message": "the iterator's own consumer; it is no coroutine here",
    "optional": INNER,
    "decode_timestamp": "evamqp decodes timestamps",
    "AbstractPoolInstance": TYPES,
    "parse_bool": INNER,
    "parse_int": INNER,
    "parse_timeout": INNER,
    "FieldValue": TYPES,
    "to_milliseconds": INNER,
    "NoneType": TYPES,
    "CallbackType": TYPES,
    "consumer": INNER,
    "RETRY_DELAY": INNER,
    "decode_expiration": "its argument, which goes by position, has another name",
    "channel": "deprecated there: aiormq's channel of a Channel",
}

#: Implementations of what goes by the name before them.
OVERLOADS = ("encode_expiration_", "decode_expiration_", "encode_timestamp_", "decode_timestamp_")

is_installed = importlib.util.find_spec("aio_pika") is not None


def own_names(module: ModuleType) -> set[str]:
    """What a module defines itself, or lists in ``__all__``, but for what begins with ``_``."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = set(getattr(module, "__all__", ()))
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
    names = {name for name in names if not name.startswith(OVERLOADS)}
    return {name for name in names if not name.startswith("_") or name == "__version__"}


def members(cls: type[Any]) -> set[str]:
    """The public attributes of a class of the library's own."""
    return {
        name
        for base in cls.__mro__
        if base.__module__.startswith("aio_pika")
        for name in vars(base)
        if not name.startswith("_")
    }


def compare(name: str) -> tuple[list[str], int]:
    """What the facade lacks of a module, and how many names there are."""
    real = importlib.import_module(f"aio_pika{name}")
    facade = importlib.import_module(f"{FACADE}{name}")
    missing, count = [], 0
    for own in sorted(own_names(real)):
        count += 1
        if not hasattr(facade, own):
            missing.append(own)
            continue
        theirs, ours = getattr(real, own), getattr(facade, own)
        if not inspect.isclass(theirs) or not inspect.isclass(ours):
            continue
        for member in sorted(members(theirs)):
            count += 1
            if not has_member(ours, member):
                missing.append(f"{own}.{member}")
    return missing, count


def has_member(cls: type[Any], member: str) -> bool:
    """Whether instances have it; attributes that ``__init__`` sets are annotated or set there."""
    if hasattr(cls, member):
        return True
    for base in cls.__mro__:
        if member in getattr(base, "__annotations__", {}):
            return True
        init = vars(base).get("__init__")
        if inspect.isfunction(init) and f"self.{member}" in inspect.getsource(init):
            return True
    return False


@pytest.mark.skipif(not is_installed, reason="aio-pika is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_names_are_there_or_their_absence_has_a_reason(name: str) -> None:
    missing, count = compare(name)
    unexplained = [one for one in missing if one.rpartition(".")[2] not in MISSING]
    assert unexplained == []
    assert count > 0


@pytest.mark.skipif(not is_installed, reason="aio-pika is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nearly_all_names_are_there() -> None:
    results = [compare(name) for name in MODULES]
    missing = sum(len(missing) for missing, _ in results)
    count = sum(count for _, count in results)
    assert count > 800
    assert missing <= count * 0.05, f"{missing} of {count}"


@pytest.mark.skipif(not is_installed, reason="aio-pika is not installed")
def test_exceptions_of_aiormq_are_there_with_their_bases() -> None:
    real = importlib.import_module("aiormq.exceptions")
    facade = importlib.import_module(f"{FACADE}.aiormq.exceptions")
    for name, theirs in vars(real).items():
        if inspect.isclass(theirs) and issubclass(theirs, Exception):
            ours = getattr(facade, name)
            bases = [base.__name__ for base in theirs.__mro__ if issubclass(base, Exception)]
            assert [base.__name__ for base in ours.__mro__ if issubclass(base, Exception)] == bases


@pytest.mark.skipif(not is_installed, reason="aio-pika is not installed")
def test_results_are_those_of_pamqp_by_name_and_fields() -> None:
    real = importlib.import_module("pamqp.commands")
    facade = importlib.import_module(f"{FACADE}.pamqp.commands")
    for group in ("Basic", "Channel", "Confirm", "Exchange", "Queue", "Tx"):
        for name, ours in vars(getattr(facade, group)).items():
            if inspect.isclass(ours):
                theirs = getattr(getattr(real, group), name)
                assert list(getattr(ours, "fields", ())) == list(
                    inspect.signature(theirs).parameters
                )


@pytest.mark.skipif(not is_installed, reason="aio-pika is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_functions_take_what_aio_pikas_take(name: str) -> None:
    real = importlib.import_module(f"aio_pika{name}")
    facade = importlib.import_module(f"{FACADE}{name}")
    for own in own_names(real):
        theirs, ours = getattr(real, own), getattr(facade, own, None)
        pairs: list[tuple[Any, Any]] = []
        if inspect.isfunction(theirs) and inspect.isfunction(ours):
            pairs = [(theirs, ours)]
        elif inspect.isclass(theirs) and inspect.isclass(ours):
            pairs = [
                (function, getattr(ours, member, None))
                for member, function in vars(theirs).items()
                if inspect.isfunction(function)
                and (member == "__init__" or not member.startswith("_"))
                and member not in MISSING
            ]
        for function, twin in pairs:
            if callable(twin) and function.__name__ not in MISSING:
                check_parameters(function, twin)


def check_parameters(function: Any, twin: Any) -> None:
    """Each parameter by name, and positional ones in the same order."""
    theirs = list(inspect.signature(function).parameters.values())
    ours = inspect.signature(twin).parameters
    names = list(ours)
    takes_all = any(one.kind is one.VAR_KEYWORD for one in ours.values())
    for place, one in enumerate(theirs):
        if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) or one.name == "args":
            continue
        where = f"{function.__module__}.{function.__qualname__}: {one.name}"
        assert one.name in ours or takes_all, where
        if one.kind is one.POSITIONAL_OR_KEYWORD and one.name in names:
            assert names.index(one.name) == place, where
