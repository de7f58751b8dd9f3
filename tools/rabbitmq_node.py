"""A private RabbitMQ: one node on free local ports, with its own folder, cookie and epmd.

Nothing of evamqp is imported here, and no broker that was running before is ever touched.
As a script: ``python tools/rabbitmq_node.py -- COMMAND...`` runs COMMAND with ``AMQP_URL`` set to
a fresh node, ends the node afterwards and exits with COMMAND's status.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, NoReturn
from urllib.parse import quote

from guard import Guarded, death_signal

HOST = "127.0.0.1"
NODE_NAME = "n1@localhost"
# RabbitMQ's own folder of scripts; the wrappers that Debian puts on PATH switch the user.
SCRIPTS_VARIABLE = "EVAMQP_RABBITMQ_SCRIPTS"
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
# A root folder with another Debian release and its RabbitMQ, as tools/brokers.py makes them.
ROOT_VARIABLE = "EVAMQP_RABBITMQ_ROOT"
IN_ROOT = Path(__file__).resolve().parent / "in_root.sh"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = b"\x01"

START_TIMEOUT = 60.0  # seconds; 5 on an idle machine
STOP_TIMEOUT = 20.0  # seconds until a graceful end becomes SIGKILL; 8 were measured
CONTROL_TIMEOUT = 60.0  # seconds for one rabbitmqctl; 0.4 on an idle machine
POLL_INTERVAL = 0.05  # seconds between two looks at a port
# Attempts with new ports: another program may take a port between the choice and the bind.
START_ATTEMPTS = 3
MEMORY_LIMIT = "1GB"


class RabbitNotFound(Exception):
    """RabbitMQ is not installed, or not where it was looked for."""


class RabbitFailed(Exception):
    """The node did not start, or rabbitmqctl refused; the text holds what RabbitMQ printed."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for the node's TLS listener.

    Args:
        authority: The certificates by which a client's certificate is judged.
        certificate: The node's own chain.
        key: The node's private key.
    """

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Installation:
    """A RabbitMQ that can be run.

    Args:
        scripts: The folder of rabbitmq-server and rabbitmqctl.
        epmd: Erlang's port mapper.
        version: Of RabbitMQ, such as ``"3.10.8"``; "" where its folder does not say.
        enter: What stands before every command, to run it in another root folder.
    """

    scripts: Path
    epmd: str
    version: str = ""
    enter: tuple[str, ...] = ()


def find_installation() -> Installation:
    """The RabbitMQ of the root folder that the environment names, else the machine's own.

    Raises:
        RabbitNotFound: It is nowhere, or this user may not run it.
    """
    root = os.environ.get(ROOT_VARIABLE)
    if not root:
        found = find_scripts()
        return Installation(found, find_epmd(), version_beside(found))
    scripts = Path(root, *DEBIAN_SCRIPTS.parts[1:])
    if not (scripts / "rabbitmq-server").exists():
        raise RabbitNotFound(f"RabbitMQ is not installed in {root}, which {ROOT_VARIABLE} names")
    if os.geteuid() != 0:
        raise RabbitNotFound(f"only root may run the RabbitMQ in {root}: {ROOT_VARIABLE} is set")
    # The node's folder and certificates are made where Python makes what is temporary.
    shared = os.path.realpath(tempfile.gettempdir())
    enter = (str(IN_ROOT), os.path.abspath(root), shared)
    return Installation(DEBIAN_SCRIPTS, "epmd", version_beside(scripts), enter)


def version_beside(scripts: Path) -> str:
    """The version of the RabbitMQ whose scripts these are; "" if its folder does not say."""
    folders = [*scripts.parent.glob("lib/rabbitmq_server-*"), scripts.parent]
    names = (folder.name.rpartition("-") for folder in folders)
    return next((version for name, _, version in names if name == "rabbitmq_server"), "")


def find_scripts() -> Path:
    """The folder that holds rabbitmq-server and rabbitmqctl.

    Raises:
        RabbitNotFound: It is nowhere; the text says where it was looked for.
    """
    named = os.environ.get(SCRIPTS_VARIABLE)
    if named:
        candidates = [Path(named)]
    else:
        candidates = [DEBIAN_SCRIPTS]
        on_path = shutil.which("rabbitmq-server")
        if on_path:
            candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        # A folder of wrappers has no rabbitmq-env.
        if (folder / "rabbitmq-server").exists() and (folder / "rabbitmq-env").exists():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise RabbitNotFound(
        f"RabbitMQ is not installed (looked in {looked}): install rabbitmq-server, or set "
        f"{SCRIPTS_VARIABLE} to the folder that holds rabbitmq-server and rabbitmq-env"
    )


def find_epmd() -> str:
    """Erlang's port mapper.

    Raises:
        RabbitNotFound: It is nowhere.
    """
    found = shutil.which("epmd") or next(
        (str(path) for path in Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None
    )
    if found is None:
        raise RabbitNotFound("epmd, which comes with Erlang, is not on PATH")
    return found


def choose_ports(count: int) -> list[int]:
    """Free local ports below the range from which the kernel takes source ports.

    Inside that range a client that reconnects to a dead broker's port can be given the very same
    port as its source, and is then connected to itself.
    """
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        end = int(text.split()[0])
    except OSError:
        end = 32768
    start = 10000 if end > 11000 else 1024
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(start, end)
        if port not in ports and is_free(port):
            ports.append(port)
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_port_conflict(error: BaseException) -> bool:
    """Whether a node failed to start because another program took one of its ports."""
    return isinstance(error, RabbitFailed) and any(
        sign in str(error) for sign in ("eaddrinuse", "already in use")
    )


def accepts(port: int) -> bool:
    """Whether something listens."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def speaks_amqp(port: int, timeout: float = 1.0) -> bool:
    """Whether what listens answers the protocol header with a method frame."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as probe:
            probe.sendall(PROTOCOL_HEADER)
            return probe.recv(1) == METHOD_FRAME
    except OSError:
        return False


class RabbitNode:
    """One RabbitMQ of our own, started by ``with`` or start() and gone after close().

    The ports and the data stay the same from one start() to the next, until close().  Nothing
    outlives this process: a guard ends the node and removes its folder even after SIGKILL.

    Args:
        tls: Certificates for a TLS listener beside the plain one; None means no such listener.
        external: Let clients log in by the common name of their certificate (EXTERNAL).
        plugins: Names of further plugins to enable.
        config: Further lines for rabbitmq.conf.
    """

    def __init__(
        self,
        *,
        tls: TlsFiles | None = None,
        external: bool = False,
        plugins: Sequence[str] = (),
        config: Sequence[str] = (),
    ) -> None:
        if external and tls is None:
            raise ValueError("external needs tls: the login is the client's certificate")
        self._installation = find_installation()
        self._tls = tls
        self._external = external
        self._plugins = [*plugins, *(["rabbitmq_auth_mechanism_ssl"] if external else [])]
        self._config = list(config)
        self._folder: Path | None = None
        self._epmd: Guarded | None = None
        self._server: Guarded | None = None
        self._frozen = False
        self._alarmed = False
        self._version = ""
        self._epmd_port = 0
        self._distribution_port = 0
        self.port = 0
        self.tls_port = 0
        #: How often the broker was started; data of a test may have ended with the last one.
        self.starts = 0
        self._vhosts_named = 0

    def __enter__(self) -> RabbitNode:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of the default virtual host, with the default user."""
        return self.url_of("/")

    @property
    def tls_url(self) -> str:
        """The same over TLS.  The certificate's authority is for the caller to add."""
        return self.url_of("/", tls=True)

    def url_of(self, vhost: str, *, tls: bool = False) -> str:
        """The URL of a virtual host, with the default user."""
        scheme, port = ("amqps", self.tls_port) if tls else ("amqp", self.port)
        return f"{scheme}://guest:guest@{HOST}:{port}/{quote(vhost, safe='')}"

    @property
    def pid(self) -> int:
        """The process id of the Erlang machine.

        Raises:
            RabbitFailed: The broker does not run.
        """
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the broker's process lives; a frozen one does."""
        return self._server is not None and self._server.is_running

    @property
    def folder(self) -> Path:
        """Where the node keeps data, logs and settings, from start() to close()."""
        if self._folder is None:
            raise RabbitFailed("the node was not started")
        return self._folder

    def start(self) -> None:
        """Start the broker, the first time or after stop() or kill(), and wait until it serves.

        Raises:
            RabbitFailed: It runs already, or it did not come up; nothing is left running.
        """
        if self.is_running:
            raise RabbitFailed("the node runs already")
        for attempt in range(1, START_ATTEMPTS + 1):
            # A node that served before keeps its ports and data; a fresh one may try others.
            fresh = self._folder is None
            try:
                self._boot()
                return
            except BaseException as error:
                self.close() if fresh else self.kill()
                if not fresh or attempt == START_ATTEMPTS or not is_port_conflict(error):
                    raise

    def stop(self) -> None:
        """End the broker gracefully; data and ports stay for the next start().  Idempotent."""
        if self._server is None:
            return
        self.thaw()
        self._server.signal(signal.SIGTERM)
        try:
            self._server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._server.kill()
        self._forget_server()

    def kill(self) -> None:
        """End the broker by SIGKILL, as a crash would; start() recovers the data.  Idempotent."""
        if self._server is not None:
            self._server.kill()
            self._forget_server()

    def restart(self) -> None:
        """stop() and start()."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End everything and remove the folder.  Idempotent; start() then makes a new node."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def freeze(self) -> None:
        """Stop the process: the kernel still accepts connections, the broker says nothing."""
        self._running().signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Undo freeze().  Idempotent."""
        if self._frozen and self._server is not None:
            self._server.signal(signal.SIGCONT)
        self._frozen = False

    def ctl(self, *arguments: str, timeout: float = CONTROL_TIMEOUT) -> str:
        """Run rabbitmqctl and return what it printed.

        Args:
            timeout: Seconds, after which rabbitmqctl is ended; a frozen node never answers.

        Raises:
            RabbitFailed: It refused, or timed out; the text holds what it printed.
        """
        self._running()  # without our epmd and node rabbitmqctl would start an epmd that stays
        try:
            done = subprocess.run(
                self._command(self._script("rabbitmqctl"), "--quiet", *arguments),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RabbitFailed(f"rabbitmqctl {arguments[0]}: silent for {timeout:g} s") from error
        if done.returncode != 0:
            raise RabbitFailed(f"rabbitmqctl {arguments[0]}: {done.stderr.strip() or done.stdout}")
        return done.stdout

    def version(self) -> str:
        """The version of the broker, such as ``3.10.8``.  Only the first call needs it to run."""
        if not self._version:
            self._version = self.ctl("eval", "rabbit_misc:version().").strip().strip('"')
        return self._version

    def name_vhosts(self, prefix: str, count: int) -> list[str]:
        """Names for virtual hosts, none of which was given before, whoever asks."""
        first = self._vhosts_named
        self._vhosts_named += count
        return [f"{prefix}-{number}" for number in range(first, first + count)]

    def add_vhost(self, *names: str) -> None:
        """Make virtual hosts that the default user may use.

        One call into the node for all of them: a rabbitmqctl costs 0.4 s, a virtual host 0.05.
        """
        everything = '<<".*">>'
        calls = [
            f'rabbit_vhost:add(<<"{name}">>, <<"cli">>), '
            f"rabbit_auth_backend_internal:set_permissions("
            f'<<"guest">>, <<"{name}">>, {everything}, {everything}, {everything}, <<"cli">>)'
            for name in names
        ]
        self.ctl("eval", ", ".join(calls) + ".")

    def delete_vhost(self, *names: str) -> None:
        """Delete virtual hosts, if they exist; the broker closes their connections with 320."""
        calls = [f'catch rabbit_vhost:delete(<<"{name}">>, <<"cli">>)' for name in names]
        self.ctl("eval", ", ".join(calls) + ".")

    def close_all_connections(self, reason: str = "closed by the operator") -> None:
        """Make the broker close every connection of every virtual host, with 320 and this text."""
        self.ctl("close_all_connections", "--global", reason)

    def set_memory_alarm(self, alarmed: bool) -> None:
        """Raise the memory alarm, which blocks publishers, or end it."""
        limit = "1" if alarmed else MEMORY_LIMIT
        self.ctl("set_vm_memory_high_watermark", "absolute", limit)
        self._alarmed = alarmed

    def repair(self) -> None:
        """Undo what a test did to the node: frozen, alarmed, stopped, or killed."""
        self.thaw()
        if not self.is_running:
            self.kill()
            self.start()
        elif not speaks_amqp(self.port, timeout=5.0):
            self.ctl("start_app")
        if self._alarmed:
            self.set_memory_alarm(False)

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until the broker answers in AMQP, and listens for TLS too where it is to.

        Raises:
            RabbitFailed: It ended, or stayed silent for ``timeout`` seconds.
        """
        server = self._running()
        deadline = time.monotonic() + timeout
        while not self._is_up():
            if not server.is_running:
                raise RabbitFailed(f"RabbitMQ ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RabbitFailed(f"RabbitMQ is silent for {timeout:g} s:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL)

    def _is_up(self) -> bool:
        # RabbitMQ 4.3 opens its TLS port after the plain one.
        return speaks_amqp(self.port) and (self._tls is None or accepts(self.tls_port))

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of what the broker printed and logged."""
        logs = [self.folder / "boot.log", self.folder / "log" / "node.log"]
        texts = [path.read_text("utf-8", "replace") for path in logs if path.exists()]
        return "\n".join("\n".join(text.splitlines()[-lines:]) for text in texts)

    def _running(self) -> Guarded:
        if self._server is None or not self._server.is_running:
            raise RabbitFailed("the node does not run")
        return self._server

    def _forget_server(self) -> None:
        self._server = None
        self._frozen = False
        self._alarmed = False  # the alarm was a runtime setting

    def _boot(self) -> None:
        if self._folder is None:
            self._prepare()
        if self._epmd is None or not self._epmd.is_running:
            self._start_epmd()
        with self._boot_log() as output:
            self._server = Guarded(
                self._command(self._script("rabbitmq-server")),
                env=self._environment(),
                output=output,
                remove=self.folder,
            )
        self.wait_ready()
        self.starts += 1

    def _start_epmd(self) -> None:
        with self._boot_log() as output:
            self._epmd = Guarded(
                self._command(
                    self._installation.epmd, "-address", HOST, "-port", str(self._epmd_port)
                ),
                env=self._environment(),
                output=output,
                remove=self.folder,
            )
        while not accepts(self._epmd_port):
            if not self._epmd.is_running:
                raise RabbitFailed(f"epmd ended while starting:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL)

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [*self._installation.enter, program, *arguments]

    def _script(self, name: str) -> str:
        return str(self._installation.scripts / name)

    def _boot_log(self) -> IO[bytes]:
        return (self.folder / "boot.log").open("ab")

    def _prepare(self) -> None:
        """Choose ports and write the settings of a fresh node."""
        self._folder = Path(tempfile.mkdtemp(prefix="evamqp-rabbitmq-"))
        self._epmd_port, self._distribution_port, self.port, self.tls_port = choose_ports(4)
        (self.folder / "home").mkdir()
        cookie = self.folder / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16), encoding="ascii")
        cookie.chmod(0o400)  # Erlang refuses one that others can read
        plugins = ",".join(self._plugins)
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n", encoding="ascii")
        lines = "\n".join(self._config_lines())
        (self.folder / "rabbitmq.conf").write_text(f"{lines}\n", encoding="utf-8")

    def _config_lines(self) -> Iterator[str]:
        yield f"listeners.tcp.1 = {HOST}:{self.port}"
        yield "log.console = false"
        yield "disk_free_limit.absolute = 50MB"
        yield f"vm_memory_high_watermark.absolute = {MEMORY_LIMIT}"
        if self._tls is not None:
            yield f"listeners.ssl.1 = {HOST}:{self.tls_port}"
            yield f"ssl_options.cacertfile = {self._tls.authority}"
            yield f"ssl_options.certfile = {self._tls.certificate}"
            yield f"ssl_options.keyfile = {self._tls.key}"
            yield "ssl_options.verify = verify_peer"
            yield "ssl_options.fail_if_no_peer_cert = false"
        if self._external:
            yield "auth_mechanisms.1 = PLAIN"
            yield "auth_mechanisms.2 = AMQPLAIN"
            yield "auth_mechanisms.3 = EXTERNAL"
            yield "ssl_cert_login_from = common_name"
        if self._installation.version.startswith("4.3"):
            # As it comes; Debian's build permits what is deprecated.  A 4.0 that denies it may not
            # start again after it was killed.
            yield "deprecated_features.permit.transient_nonexcl_queues = false"
        yield from self._config

    def _environment(self) -> dict[str, str]:
        """A whole environment: the user's own RABBITMQ_ variables must not leak in."""
        folder = self.folder
        return {
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RUNNING_UNDER_SYSTEMD": "1",  # the script then becomes the Erlang machine
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": NODE_NAME,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": str(folder / "log" / "node.log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            # One scheduler is enough for tests.  An epmd started by the machine would stay.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 +A 4 -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }


@dataclass(frozen=True, slots=True)
class Vhost:
    """A virtual host of a node, as a test needs it."""

    node: RabbitNode
    name: str

    @property
    def url(self) -> str:
        """Its URL, with the default user."""
        return self.node.url_of(self.name)

    @property
    def tls_url(self) -> str:
        """The same over TLS.  The certificate's authority is for the caller to add."""
        return self.node.url_of(self.name, tls=True)

    def ctl(self, command: str, *arguments: str) -> str:
        """Run a rabbitmqctl command that takes ``-p``, such as ``list_queues``, here."""
        return self.node.ctl(command, "-p", self.name, *arguments)


class VhostPool:
    """Virtual hosts of a node, made in batches; each is given out once.

    Those given back are deleted with the next batch: they cost a node that restarts its time.

    Args:
        node: The node.
        prefix: What their names begin with; another pool of the node may have the same.
    """

    BATCH = 8

    def __init__(self, node: RabbitNode, prefix: str = "t") -> None:
        self._node = node
        self._prefix = prefix
        self._ready: list[str] = []
        self._used: list[str] = []

    def take(self) -> Vhost:
        """One that was never given out, on a node that runs."""
        if not self._ready:
            used, self._used = self._used, []
            if used:
                self._node.delete_vhost(*used)
            self._ready = self._node.name_vhosts(self._prefix, self.BATCH)
            self._node.add_vhost(*self._ready)
        return Vhost(self._node, self._ready.pop(0))

    def give_back(self, vhost: Vhost) -> None:
        """Nobody uses it any more."""
        self._used.append(vhost.name)


def end_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """A signal handler that unwinds the stack, so that every ``with`` ends what it started."""
    sys.exit(128 + number)


@contextmanager
def interrupt_left_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A Ctrl-C reaches the whole group; the child decides what it means, and we wait for it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if child.poll() is None:
            child.terminate()
            child.wait()


def run_command(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end and return its status as shells spell it."""
    try:
        child = subprocess.Popen(command, env=environment, preexec_fn=death_signal(signal.SIGTERM))
    except OSError as error:
        print(f"rabbitmq_node: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    with interrupt_left_to(child):
        status = child.wait()
    return status if status >= 0 else 128 - status


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Run COMMAND with AMQP_URL set to a private RabbitMQ node.",
        usage="%(prog)s -- COMMAND...",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    command = parser.parse_args(arguments).command
    signal.signal(signal.SIGTERM, end_on_signal)
    try:
        with RabbitNode() as node:
            return run_command(command, {**os.environ, "AMQP_URL": node.url})
    except (RabbitNotFound, RabbitFailed) as error:
        print(f"rabbitmq_node: {error}", file=sys.stderr)
        return 69  # EX_UNAVAILABLE of <sysexits.h>


if __name__ == "__main__":
    sys.exit(main())
