"""What importing a client costs: CPU time of fresh processes, over that of a bare Python.

Only imports are measured here; what a client does afterwards is the drivers' business.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping

BARE = "(bare python)"
# By what the table calls them; a client that is not installed is left out.
STATEMENTS = {
    BARE: "pass",
    "evamqp": "import evamqp",
    "evamqp, select": "import evamqp.adapters.select",
    "evamqp, asyncio": "import evamqp.adapters.asyncio",
    "evamqp, tornado": "import evamqp.adapters.tornado",
    "evamqp, twisted": "import evamqp.adapters.twisted; from twisted.internet import reactor",
    "pika": "import pika",
    "pika, twisted": "import pika.adapters.twisted_connection",
    "aio-pika": "import aio_pika",
    "py-amqp": "import amqp",
    "(asyncio)": "import asyncio",
    "(tornado)": "import tornado.ioloop",
    "(twisted)": "from twisted.internet import reactor",
}
# What a program should pay for only if it uses it.
WATCHED = ("asyncio", "selectors", "ssl")
# process_time() counts from the start of the process, user and system together.
PROGRAM = "{}\nimport sys, time; print(time.process_time(), *sys.modules)"


def run_imports(rounds: int, environment: Mapping[str, str]) -> None:
    """Measure, and print the table; the statements take turns."""
    seconds: dict[str, list[float]] = {}
    loaded: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # Compiled in the first round, which does not count, and never again: not even where
        # bytecode is not to be written, or is older than its source.
        used = {**environment, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(rounds + 1):
            for name, statement in STATEMENTS.items():
                command = [sys.executable, "-c", PROGRAM.format(statement)]
                done = subprocess.run(
                    command, env=used, capture_output=True, text=True, check=False
                )
                if done.returncode == 0 and number > 0:
                    taken, *modules = done.stdout.split()
                    seconds.setdefault(name, []).append(float(taken))
                    loaded[name] = modules
    _show(seconds, loaded)


def _show(seconds: dict[str, list[float]], loaded: dict[str, list[str]]) -> None:
    bare = statistics.median(seconds[BARE])
    print("\nS8i  import, over a bare python")
    print(f"  {'':24}{'CPU ms':>16}{'min':>10}{'max':>10}{'modules':>10}  among them")
    for name, values in seconds.items():
        picked = (statistics.median(values), min(values), max(values))
        median, least, most = (1e3 * (value - bare) for value in picked)
        more = len(loaded[name]) - len(loaded[BARE])
        among = ", ".join(module for module in WATCHED if module in loaded[name])
        print(f"  {name:24}{median:16.1f}{least:10.1f}{most:10.1f}{more:>10}  {among}")
    print(f"  Bare: {bare * 1e3:.1f} ms.", flush=True)
