"""Public names of aioamqp that the facade has; and why it lacks the others."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import Any

import pytest

FACADE = "evamqp.compat.aioamqp"
MODULES = ["", ".channel", ".constants", ".envelope", ".exceptions", ".properties", ".protocol"]

FRAMES = "takes a frame of pamqp; evamqp reads the wire"
MISSING = {
    "dispatch_frame": FRAMES,
    "get_frame": FRAMES,
    "run": FRAMES,
    "start": FRAMES,
    "start_ok": FRAMES,
    "secure_ok": FRAMES,
    "tune": FRAMES,
    "tune_ok": FRAMES,
    "open": FRAMES,
    "open_ok": FRAMES,
    "close_ok": FRAMES,
    "server_close": FRAMES,
    "data_received": FRAMES,
    "eof_received": FRAMES,
    "server_channel_close": FRAMES,
    "server_basic_cancel": FRAMES,
    "basic_deliver": FRAMES,
    "basic_return": FRAMES,
    "basic_server_ack": FRAMES,
    "basic_server_nack": FRAMES,
    "basic_get_empty": FRAMES,
    "from_pamqp": FRAMES,
    "urlparse": "urllib's",
}
# Bases of asyncio's, whose methods are no part of aioamqp.
is_installed = importlib.util.find_spec("aioamqp") is not None
installed = pytest.mark.skipif(not is_installed, reason="aioamqp is not installed")


def compare(name: str) -> tuple[list[str], int]:
    """What the facade lacks of a module, and how many names there are."""
    real = importlib.import_module(f"aioamqp{name}")
    facade = importlib.import_module(f"{FACADE}{name}")
    missing, count = [], 0
    for own, theirs in vars(real).items():
        if own.startswith("_") or not is_own(theirs, real.__name__, own):
            continue
        count += 1
        ours = getattr(facade, own, None)
        if ours is None:
            missing.append(own)
        elif inspect.isclass(theirs):
            for member in vars(theirs):
                if not member.startswith("_"):
                    count += 1
                    if not hasattr(ours, member):
                        missing.append(f"{own}.{member}")
    return missing, count


def is_own(value: Any, module: str, name: str) -> bool:
    if inspect.ismodule(value) or name == "logger":
        return False
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__module__.startswith("aioamqp")
    # Of the constants, those that are the numbers of methods and frames stayed behind.
    return name in ("OPEN", "CLOSED", "CLOSING", "CONNECTING", "MAX_CHANNELS", "MESSAGE_PROPERTIES")


@installed
@pytest.mark.parametrize("name", MODULES)
def test_names_are_there_or_their_absence_has_a_reason(name: str) -> None:
    missing, count = compare(name)
    names = [one.rpartition(".")[2] for one in missing]
    assert [one for one in names if one not in MISSING and not one.endswith("_ok")] == []
    assert count > 0


@installed
@pytest.mark.parametrize("cls", ["channel.Channel", "protocol.AmqpProtocol"])
def test_methods_take_what_aioamqps_take(cls: str) -> None:
    module, _, name = cls.partition(".")
    theirs = getattr(importlib.import_module(f"aioamqp.{module}"), name)
    ours = getattr(importlib.import_module(f"{FACADE}.{module}"), name)
    checked = 0
    for member, function in vars(theirs).items():
        twin = getattr(ours, member, None)
        if not inspect.isfunction(function) or twin is None or member in MISSING:
            continue
        if member.startswith("_") and member != "__init__":
            continue
        expected = [str(one).partition(":")[0] for one in parameters(function)]
        assert [str(one).partition(":")[0] for one in parameters(twin)][: len(expected)] == expected
        checked += 1
    assert checked > 5


def parameters(function: Any) -> list[str]:
    return [one.name for one in inspect.signature(function).parameters.values()]


@installed
def test_defaults_are_aioamqps() -> None:
    theirs = importlib.import_module("aioamqp")
    ours = importlib.import_module(FACADE)
    for name in ("connect", "from_url"):
        twin = inspect.signature(getattr(ours, name)).parameters
        for one in inspect.signature(getattr(theirs, name)).parameters.values():
            if one.name not in ("kwargs", "protocol_factory"):
                assert twin[one.name].default == one.default, one.name
