"""What ends the sleep of the built-in loop: a socket pair, for threads and signals.

This stays Python in a compiled build.  The interpreter runs a signal's handler when it runs Python
code, and where all else of a turn is machine code, ``swallow`` is what it runs.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable


class WakeUp:
    """A socket pair that ends a sleep, from any thread or signal handler.

    Attributes:
        is_pending: A byte is in the socket, as far as we know.  Clear it before you look at what
            other threads append: a later append then sees False, and sends a byte.
        reader: The end to watch.
    """

    __slots__ = ("_writer", "is_pending", "reader")

    def __init__(self) -> None:
        self.is_pending = False
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def send(self) -> None:
        """End the sleep.  Never blocks."""
        # Without the flag a thread that calls often would fill the socket, with a system call each.
        if self.is_pending:
            return
        self.is_pending = True
        try:
            self._writer.send(b"\0")
        except OSError:
            # Full: the loop wakes anyway.  Closed: there is no loop to wake.
            return

    def swallow(self, _: int) -> None:
        """Read the bytes: the callback of ``reader``."""
        try:
            self.reader.recv(4096)
        except BlockingIOError:
            # Another process read it: a forked child shares the socket.
            return

    def on_signals(self) -> Callable[[], object]:
        """Let signals send a byte too, until you call the function that this returns."""
        # A signal that arrives just before epoll goes to sleep would otherwise be handled only
        # when epoll wakes.
        try:
            before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        except ValueError:  # signals belong to the main thread, and this is another
            return lambda: None
        return lambda: signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close the sending end; the loop closes the one that it watches."""
        self._writer.close()
