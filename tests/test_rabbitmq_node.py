"""The private RabbitMQ node: its faults are real, and nothing of it stays behind.

No AMQP client is used here; a raw socket and rabbitmqctl tell enough.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rabbitmq_node
from guard import Guarded
from rabbitmq_node import (
    HOST,
    PROTOCOL_HEADER,
    ROOT_VARIABLE,
    SCRIPTS_VARIABLE,
    RabbitFailed,
    RabbitNode,
    RabbitNotFound,
    TlsFiles,
    VhostPool,
    choose_ports,
    speaks_amqp,
)
from tests.conftest import Certificates

SCRIPT = Path(rabbitmq_node.__file__)
TIMEOUT = 30.0  # seconds until a condition that must come is given up


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another process, which has no clock that could be advanced."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition never came"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def node(rabbit: RabbitNode) -> Iterator[RabbitNode]:
    """The run's node, whole before and after."""
    rabbit.repair()
    yield rabbit
    rabbit.repair()


class TestGuard:
    """A guarded command cannot outlive whoever asked for it."""

    def start(self, tmp_path: Path, *command: str) -> Guarded:
        with (tmp_path / "log").open("ab") as output:
            return Guarded(command, env=dict(os.environ), output=output)

    def test_exit_status_is_the_commands(self, tmp_path: Path) -> None:
        assert self.start(tmp_path, "sh", "-c", "exit 5").wait() == 5

    def test_output_goes_to_the_file(self, tmp_path: Path) -> None:
        self.start(tmp_path, "echo", "hello").wait()
        assert (tmp_path / "log").read_text() == "hello\n"

    def test_missing_command_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="cannot run"):
            self.start(tmp_path, str(tmp_path / "missing"))

    def test_kill_ends_a_stopped_command(self, tmp_path: Path) -> None:
        guarded = self.start(tmp_path, "sleep", "600")
        guarded.signal(signal.SIGSTOP)
        guarded.kill()
        assert not guarded.is_running
        assert not is_alive(guarded.pid)

    def test_kill_ends_what_the_command_left_in_the_background(self, tmp_path: Path) -> None:
        guarded = self.start(tmp_path, "sh", "-c", "setsid sleep 600 & echo $!; wait")
        wait_until(lambda: (tmp_path / "log").read_text().endswith("\n"))
        guarded.kill()
        assert not is_alive(int((tmp_path / "log").read_text()))

    def test_command_dies_with_its_guard(self, tmp_path: Path) -> None:
        guarded = self.start(tmp_path, "sleep", "600")
        status = Path(f"/proc/{guarded.pid}/status").read_text(encoding="utf-8")
        guard = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
        os.kill(int(guard), signal.SIGKILL)
        wait_until(lambda: not is_alive(guarded.pid))
        guarded.wait()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_command_and_folder_go_with_a_killed_parent(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        program = (
            "import os, sys, time\nfrom pathlib import Path\nfrom guard import Guarded\n"
            "guarded = Guarded(['sleep', '600'], env=dict(os.environ), output=sys.stderr.buffer,"
            f" remove=Path({str(folder)!r}))\n"
            "print(guarded.pid, flush=True)\ntime.sleep(600)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], cwd=SCRIPT.parent, stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
            parent.send_signal(number)
        wait_until(lambda: not is_alive(pid) and not folder.exists())


class TestNotInstalled:
    """Without RabbitMQ one clear line says so."""

    @pytest.fixture(autouse=True)
    def own_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(ROOT_VARIABLE, raising=False)

    def test_a_root_folder_without_rabbitmq_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
        with pytest.raises(
            RabbitNotFound, match=f"not installed in {tmp_path}, which {ROOT_VARIABLE}"
        ):
            RabbitNode()

    def test_missing_rabbitmq_is_named_with_the_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(SCRIPTS_VARIABLE, str(tmp_path))
        with pytest.raises(RabbitNotFound, match=r"^RabbitMQ is not installed \(looked in /") as e:
            RabbitNode()
        assert "\n" not in str(e.value)

    def test_wrappers_on_path_are_not_taken_for_rabbitmq(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrapper = tmp_path / "rabbitmq-server"
        wrapper.write_text("#!/bin/sh\n")
        wrapper.chmod(0o755)
        monkeypatch.delenv(SCRIPTS_VARIABLE, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(rabbitmq_node, "DEBIAN_SCRIPTS", tmp_path / "nowhere")
        with pytest.raises(RabbitNotFound):
            rabbitmq_node.find_scripts()

    def test_script_exits_with_one_line(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "--", "true"],
            env={**os.environ, SCRIPTS_VARIABLE: str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 69
        assert done.stderr.startswith("rabbitmq_node: RabbitMQ is not installed")
        assert done.stderr.count("\n") == 1


def test_external_needs_tls() -> None:
    with pytest.raises(ValueError, match="tls"):
        RabbitNode(external=True)


def test_ports_are_outside_the_range_of_source_ports() -> None:
    ports = choose_ports(16)
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    assert len(set(ports)) == 16
    assert max(ports) < int(text.split()[0])


def test_vhosts_survive_sigkill_and_a_graceful_restart(node: RabbitNode) -> None:
    vhost = VhostPool(node).take()
    port, starts = node.port, node.starts
    node.kill()
    assert not node.is_running
    assert not speaks_amqp(node.port)
    node.start()
    node.restart()
    assert (node.port, node.starts) == (port, starts + 2)
    assert vhost.name in node.ctl("list_vhosts").split()
    assert "guest" in vhost.ctl("list_permissions")


def test_pools_of_one_node_never_give_out_the_same_vhost(node: RabbitNode) -> None:
    pools = [VhostPool(node), VhostPool(node), VhostPool(node, "t1")]
    taken: list[str] = []
    for _ in range(VhostPool.BATCH + 1):
        for pool in pools:
            vhost = pool.take()
            taken.append(vhost.name)
            pool.give_back(vhost)
    assert len(set(taken)) == len(taken)


def test_frozen_broker_accepts_and_says_nothing_until_thawed(node: RabbitNode) -> None:
    node.freeze()
    with socket.create_connection((HOST, node.port), timeout=0.3) as client:
        client.sendall(PROTOCOL_HEADER)
        with pytest.raises(TimeoutError):
            client.recv(1)
        with pytest.raises(RabbitFailed, match="silent"):
            node.ctl("status", timeout=1.0)
        node.thaw()
        client.settimeout(TIMEOUT)
        assert client.recv(1) == b"\x01"


def test_memory_alarm_is_raised_and_repaired(node: RabbitNode) -> None:
    node.set_memory_alarm(True)
    assert "memory" in node.ctl("eval", "rabbit_alarm:get_alarms().")
    node.repair()
    assert "memory" not in node.ctl("eval", "rabbit_alarm:get_alarms().")


def test_stopped_application_is_repaired(node: RabbitNode) -> None:
    node.ctl("stop_app")
    assert not speaks_amqp(node.port)
    node.repair()
    assert speaks_amqp(node.port)


def test_refused_control_command_reports_what_rabbitmq_said(node: RabbitNode) -> None:
    with pytest.raises(RabbitFailed, match="no_such_vhost"):
        node.ctl("delete_vhost", "no_such_vhost")


def test_second_start_is_refused_and_harmless(node: RabbitNode) -> None:
    with pytest.raises(RabbitFailed, match="already"):
        node.start()
    assert speaks_amqp(node.port)


def test_tls_listener_shows_its_certificate_and_speaks_amqp(
    node: RabbitNode, certificates: Certificates
) -> None:
    context = ssl.create_default_context(cafile=certificates.authority)
    with (
        socket.create_connection((HOST, node.tls_port), timeout=TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(PROTOCOL_HEADER)
        assert b"EXTERNAL" in client.recv(4096)


def test_unusable_settings_fail_with_what_rabbitmq_printed(
    tmp_path: Path, rabbit: RabbitNode
) -> None:
    missing = TlsFiles(tmp_path / "no-ca", tmp_path / "no-certificate", tmp_path / "no-key")
    node = RabbitNode(tls=missing)
    with pytest.raises(RabbitFailed, match="ended while starting"):
        node.start()
    assert not node.is_running
    with pytest.raises(RabbitFailed, match="not started"):
        _ = node.folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_behind_when_the_script_is_killed(
    rabbit: RabbitNode, tmp_path: Path, number: signal.Signals
) -> None:
    report = f"cd {tmp_path}; echo $AMQP_URL $$ > report.new; mv report.new report"
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), "--", "sh", "-c", f"{report}; exec sleep 600"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as script:
        wait_until(lambda: (tmp_path / "report").exists())
        url, command = (tmp_path / "report").read_text().split()
        port = int(url.rpartition("@")[2].partition(":")[2].partition("/")[0])
        assert speaks_amqp(port)
        script.send_signal(number)
    wait_until(lambda: not is_alive(int(command)))
    wait_until(lambda: not speaks_amqp(port) and not list(tmp_path.glob("evamqp-rabbitmq-*")))


@pytest.mark.slow
def test_script_exits_with_the_commands_status_and_leaves_nothing(
    rabbit: RabbitNode, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--", "sh", "-c", 'test -n "$AMQP_URL" && exit 7'],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 7
    assert not list(tmp_path.iterdir())
