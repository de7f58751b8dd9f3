"""Run one command and never let it outlive the process that asked for it.

Nothing about RabbitMQ belongs here.  The file runs as a script of its own between the two:
``python guard.py --parent PID [--remove FOLDER] -- COMMAND...`` prints the command's process id,
waits for it and ends with its status.  When its standard input ends or its parent is gone, it
kills the command (SIGKILL) and removes the folder.  What the command leaves behind is killed too.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

# <sys/prctl.h>; Linux only.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Seconds between two looks at the parent.  Only a parent that left its end of the pipe to a
# forked child is found this way; every other end is told at once by the pipe.
PARENT_CHECK = 1.0


def death_signal(number: int) -> Callable[[], None] | None:
    """What a child runs before exec so that the kernel sends it ``number`` when its parent dies.

    The signal is tied to the parent's *thread*, so only a process whose main thread starts the
    child may use it.  None where the kernel has no such thing.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def arm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)

    return arm


def adopt_descendants() -> None:
    """Become the parent of what the command's children leave behind, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """The process ids of this process's children; empty where the kernel does not list them."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text(encoding="ascii").split()]


def wait_for(pid: int) -> int:
    """Reap whatever ends until ``pid`` does, and return its exit status."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def kill_children() -> None:
    """Kill and reap until no child is left: a killed child may bequeath children of its own."""
    while pids := children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)  # ours until reaped, so the number is nobody else's
        os.waitpid(pids[0], 0)


class Guarded:
    """A command under guard, seen from the process that wants it.

    Args:
        command: What to run.
        env: Its whole environment.
        output: Where its output and errors go.
        remove: A folder to remove if this process dies first; None removes nothing.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        output: IO[bytes],
        remove: Path | None = None,
    ) -> None:
        options = [f"--parent={os.getpid()}"]
        if remove is not None:
            options.append(f"--remove={remove}")
        self._guard = subprocess.Popen(
            # -I and -S: nothing of the user's environment or site-packages slows or breaks it.
            [sys.executable, "-I", "-S", __file__, *options, "--", *command],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,  # a Ctrl-C in the terminal is not for the command
        )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            self.wait()
            raise OSError(f"cannot run {command[0]}")
        self.pid = int(line)

    @property
    def is_running(self) -> bool:
        """Whether the command has not ended; a stopped (SIGSTOP) one is running."""
        return self._guard.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the command; a no-op once it has ended."""
        # The guard reaps the command only just before it ends itself, so while the guard runs
        # the number can hardly belong to anybody else.
        if self.is_running:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """End the command with SIGKILL, also a stopped one, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status, 128 + n after signal n.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        status = self._guard.wait(timeout)
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        return status


def wait_for_orphanhood(parent: int) -> None:
    """Return when standard input ends or the parent is another process than ``parent``."""
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], PARENT_CHECK)
        if readable and not os.read(sys.stdin.fileno(), 1):
            return


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command that cannot outlive its parent.")
    parser.add_argument("--parent", type=int, required=True, help="process id to outlive never")
    parser.add_argument("--remove", type=Path, help="folder to remove when the parent dies")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()

    adopt_descendants()
    command = subprocess.Popen(
        arguments.command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        # SIGKILL to this very process must not free the command either.
        preexec_fn=death_signal(signal.SIGKILL),
    )
    orphaned = threading.Event()

    def watch() -> None:
        wait_for_orphanhood(arguments.parent)
        orphaned.set()
        os.kill(command.pid, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    print(command.pid, flush=True)
    status = wait_for(command.pid)
    kill_children()
    if orphaned.is_set() and arguments.remove is not None:
        shutil.rmtree(arguments.remove, ignore_errors=True)
    return status


if __name__ == "__main__":
    code = main()
    sys.exit(code if code >= 0 else 128 - code)  # a signal's end, spelled as shells do
