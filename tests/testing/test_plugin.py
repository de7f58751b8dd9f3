"""The pytest plugin, in a run of pytest that knows nothing else of evamqp."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import socket

import evamqp

seen = set()


def test_hurt(amqp_broker):
    seen.add(amqp_broker.vhost)
    amqp_broker.broker.faults.refuse_connections()
    amqp_broker.broker.faults.stall()
    assert amqp_broker.broker.publish("amq.fanout", "", b"m", vhost=amqp_broker.vhost) == 0


def test_healed(amqp_broker):
    assert amqp_broker.vhost not in seen
    with socket.create_connection(("127.0.0.1", amqp_broker.broker.port), timeout=10.0) as client:
        client.sendall(b"AMQP\\0\\0\\x09\\x01")
        assert client.recv(1) == b"\\x01"


def test_memory(amqp_memory):
    connection = evamqp.connect(amqp_memory.url, adapter=amqp_memory.adapter)
    amqp_memory.adapter.run_until(connection.wait_open())
    amqp_memory.adapter.advance(3600)
    assert connection.is_open
    assert amqp_memory.adapter.time() == 3600
"""


def test_fixtures_work_for_a_project_that_has_evamqp_installed(tmp_path: Path) -> None:
    (tmp_path / "test_service.py").write_text(SUITE, encoding="utf-8")
    # The plugin is named, since it has no entry point where evamqp is not installed.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "pytest_evamqp", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-W", "error", "."],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
