"""run_until() of every adapter whose loop is no simulation: what it returns, and how it ends.

A reactor runs once in a process, so each case is a process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ("select", "asyncio", "tornado", "twisted")
CASES = {
    "value": (
        """
async def work():
    await later(0.01)
    return 7
print(adapter.run_until(work()))
""",
        "7",
    ),
    "error": (
        """
async def work():
    await later(0.01)
    raise RuntimeError("mine")
try:
    adapter.run_until(work())
except RuntimeError as error:
    print(error)
""",
        "mine",
    ),
    "future": (
        """
promise = adapter.create_future()
adapter.call_later(0.01, lambda: promise.resolve("there"))
print(adapter.run_until(promise.future, 30))
""",
        "there",
    ),
    "request": (
        """
import evamqp
reconnector = evamqp.Reconnector("amqp://127.0.0.1:1/", adapter=adapter)
adapter.call_later(0.01, reconnector.close)
print(adapter.run_until(reconnector.wait_closed()).by)
""",
        "client",
    ),
    "timeout": (
        """
async def work():
    try:
        await later(1000)
    finally:
        print("cleaned")
try:
    adapter.run_until(work(), 0.05)
except TimeoutError as error:
    print(type(error).__name__)
""",
        "cleaned TimeoutError",
    ),
    "stop": (
        """
import evamqp
promise = adapter.create_future()
adapter.call_later(0.01, adapter.stop)
try:
    adapter.run_until(promise.future)
except evamqp.WrongState as error:
    print("stopped")
""",
        "stopped",
    ),
}
BEGINNING = """
import importlib, logging, signal, sys
logging.disable()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
name = sys.argv[1]
module = importlib.import_module("evamqp.adapters." + name)
adapter = getattr(module, name.capitalize() + "Adapter")()
def later(seconds):
    promise = adapter.create_future()
    adapter.call_later(seconds, lambda: promise.resolve(None))
    return promise.future
"""


def start(adapter: str, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGINNING + program, adapter],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(adapter: str, program: str, *lines: str) -> tuple[str, str]:
    """Interrupt it after each of these lines, which ends it; what it prints from then on."""
    with start(adapter, program) as child:
        assert child.stdout is not None
        for line in lines:
            assert child.stdout.readline() == line
            time.sleep(0.1)  # until it waits; an earlier signal would do as well
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert child.returncode == -signal.SIGINT
    return out, err


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("case", CASES)
def test_run_until_ends_alike_on_every_loop(adapter: str, case: str) -> None:
    program, printed = CASES[case]
    with start(adapter, program) as child:
        out, err = child.communicate(timeout=60)
    assert (out.split(), err) == (printed.split(), "")
    assert child.returncode == 0


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_interrupt_lets_the_coroutine_clean_up(adapter: str) -> None:
    program = """
async def work():
    try:
        print("begun", flush=True)
        await later(1000)
    finally:
        await later(0.01)
        print("cleaned", flush=True)
adapter.run_until(work())
"""
    out, _ = interrupted(adapter, program, "begun\n")
    assert out == "cleaned\n"


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("what", ["adapter.run()", "adapter.run_until(later(1000))"])
def test_an_interrupt_ends_the_program_alike_on_every_loop(adapter: str, what: str) -> None:
    program = f"""
adapter.call_soon(lambda: print("begun", flush=True))
{what}
"""
    out, err = interrupted(adapter, program, "begun\n")
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_second_interrupt_ends_what_does_not_clean_up(adapter: str) -> None:
    program = """
async def work():
    try:
        print("begun", flush=True)
        await later(1000)
    finally:
        print("cleaning", flush=True)
        await later(1000)
adapter.run_until(work())
"""
    interrupted(adapter, program, "begun\n", "cleaning\n")
