"""Every block of Python in README.md runs, on a broker, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

import pytest

from rabbitmq_node import Vhost
from tests.examples.program import ROOT, TIMEOUT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
URL = "amqp://guest:guest@localhost:5672/%2F"

PUBLISHER, ADAPTERS, AWAITING, BLOCKING = BLOCKS
ADAPTER_LINES = ADAPTERS.splitlines()


def run(vhost: Vhost, program: str) -> str:
    """Run a program against a virtual host, and return what it printed."""
    assert URL in program
    with tempfile.TemporaryDirectory() as folder:  # some write files
        done = subprocess.run(
            [sys.executable, "-c", program.replace(URL, vhost.url)],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("line", ADAPTER_LINES)
def test_publisher_runs_on_each_loop_by_changing_one_line(vhost: Vhost, line: str) -> None:
    assert PUBLISHER.count(ADAPTER_LINES[0]) == 1
    assert run(vhost, PUBLISHER.replace(ADAPTER_LINES[0], line)) == "confirmed 1\n"


def test_awaiting_program_runs(vhost: Vhost) -> None:
    assert run(vhost, AWAITING) == "Hello again! None\n"


def test_blocking_program_runs(vhost: Vhost) -> None:
    assert run(vhost, BLOCKING) == "Hello blocking!\n"


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)]+)\)", README))
def test_link_leads_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_command_exists(target: str) -> None:
    assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
