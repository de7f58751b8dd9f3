"""A loop that whoever waits drives: one thread at a time, and a keeper while all are away.

Threads, a lock and turns of the loop live here.  What is waited for, and user callbacks, never do.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from time import monotonic
from typing import Any, TypeVar

import evamqp
from evamqp.adapters.select import SelectAdapter
from evamqp.blocking._lock import Lock

T = TypeVar("T")

#: Bytes that the keeper takes from the broker while every caller is away.
KEPT_BYTES = 16 * 1024 * 1024
#: Seconds after which a call that does not wait looks at what the broker has sent.
LOOK_AFTER = 0.01


class _Follower:
    """A thread that waits while another one drives."""

    __slots__ = ("done", "woken")

    def __init__(self, done: Callable[[], object]) -> None:
        self.done = done
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self) -> None:
        """Idempotent, since a signal may come before it is noted."""
        with suppress(RuntimeError):
            self.woken.release()


class SharedLoop:
    """The built-in loop and one connection, under one lock.

    A thread that waits takes the lead: it turns the loop, and the lock is free while it sleeps.
    Others that wait meanwhile follow, and are woken when they have what they wait for, or to take
    the lead.  So a program of one thread never switches threads.

    Attributes:
        adapter: The loop.
        connection: What runs on it; set once, by whoever made it.
        is_over: Set when the connection has ended; then nobody waits for it any more.
        is_forked: Whether this is a forked child, where all this is the parent's.
    """

    __slots__ = (
        "__weakref__",
        "_bound",
        "_followers",
        "_is_full",
        "_is_inside",
        "_is_keeping",
        "_is_locked_here",
        "_keeper_mark",
        "_leader",
        "_left_at",
        "_lock",
        "_read_at",
        "_stop_keeper",
        "adapter",
        "connection",
        "is_forked",
        "is_over",
    )

    connection: evamqp.Connection

    def __init__(self) -> None:
        self.adapter: SelectAdapter = SelectAdapter()
        self.is_over: bool = False
        self.is_forked: bool = False
        self._stop_keeper = threading.Event()
        self._left_at = self._read_at = monotonic()
        self._is_full = False
        self._keeper_mark = (0.0, 0)  # an absence, and the bytes that had come when it began
        self._make_lock()
        _living.add(self)

    def _make_lock(self) -> None:
        self._lock = Lock()
        self._is_locked_here: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self._leader = 0
        self._bound = 0  # the thread that owns the connection
        self._is_inside = False  # whether a thread is inside the connection's own code
        self._followers: list[_Follower] = []
        self._is_keeping = False

    @property
    def lock(self) -> threading.RLock:
        """What every call holds: ``with loop.lock: loop.call(verb); ...``.

        Raises:
            evamqp.WrongState: This thread holds it; so the call comes from a signal handler that
                interrupted another one.
        """
        if self._is_locked_here():
            raise evamqp.WrongState(
                "a signal handler interrupted another call; use connection.call_soon_threadsafe"
            )
        return self._lock

    @property
    def is_interrupted(self) -> bool:
        """Whether the caller is a signal handler that interrupted another call of its thread."""
        return self._is_locked_here()

    @property
    def is_kept(self) -> bool:
        """Whether the keeper drives; it gives way to a thread that waits."""
        return self._is_keeping

    def perform(self, verb: Callable[..., T], *arguments: Any) -> T:
        """Call something of the connection's, and write at once; with the lock held.

        Raises as call() does.
        """
        if self._is_inside:  # as enter(), which costs a call
            self._give_up()
        if self._bound != get_ident():
            self._bind()
        if not (self._leader or self.is_over) and monotonic() - self._read_at > LOOK_AFTER:
            self._look()
        if self.is_over:  # it has nothing to write with
            return verb(*arguments)
        self._is_inside = True
        try:
            value = self.connection.perform(verb, *arguments)
        except evamqp.AmqpError:
            self._is_inside = False  # refused, and nothing changed
            raise
        self._is_inside = False
        return value

    def _look(self) -> None:
        """Take what the broker has sent.

        A caller who never waits would not hear otherwise that channel or connection has ended.
        """
        if not self._has_kept_enough():
            adapter, connection = self.adapter, self.connection
            while True:
                adapter.turn(0.0, None, self.enter)
                self._is_inside = False
                # The socket of a connection that has ended goes a turn later.
                if self.is_over or connection.is_open or adapter.time_until_due() != 0:
                    break
            if self._followers:
                self._release_followers()
            if self.is_over:
                adapter.close()
        self._read_at = monotonic()

    def call(self, verb: Callable[..., T], *arguments: Any) -> T:
        """Call something of the connection's, with the lock held; flush() or drive() follows.

        Raises:
            evamqp.WrongThread: In a forked child.
            Exception: Whatever ``verb`` raises.
        """
        self.enter()
        try:
            return verb(*arguments)
        except evamqp.AmqpError:
            self._is_inside = False  # refused, and nothing changed
            raise

    def leave(self) -> None:
        """What call() began is complete; its output goes with a later turn of the loop."""
        self._is_inside = False

    def enter(self) -> bool:
        """Enter the connection, which is this thread's from here; False if it is over."""
        if self._is_inside:
            self._give_up()
        if self._bound != get_ident():
            self._bind()
        self._is_inside = True
        return not self.is_over

    def _bind(self) -> None:
        self.connection.bind_thread()
        self._bound = get_ident()

    def _give_up(self) -> None:
        """A signal handler raised during a call, which may have lost bytes: end the connection."""
        if not self.is_over:
            reason = evamqp.ConnectionClosed("a signal interrupted a call halfway", by="client")
            connection = self.connection
            self._bind()
            # Aborted first, since connection_lost() would parse what came behind the lost bytes,
            # and blame the broker for it.
            connection.abort(reason)
            connection.connection_lost(reason)
            self.end()
        self.adapter.close()
        self._is_inside = False  # only now, since this may be interrupted as well

    # Driving

    def flush(self) -> None:
        """Hand all output to the kernel; with the lock held."""
        adapter = self.adapter
        if self._is_inside and not self.is_over:
            adapter.run_ready()
        if adapter.is_sending or self.connection.output_size:
            self.drive(self._is_flushed)
        self._is_inside = False

    def _is_flushed(self) -> bool:
        return not (self.adapter.is_sending or self.connection.output_size)

    def drive(self, done: Callable[[], object], deadline: float | None = None) -> bool:
        """Wait until ``done()``, with the lock held.

        Args:
            done: Asked after each turn of the loop, by this thread or by the leading one.
            deadline: In monotonic seconds; one that has passed takes what is there already, and
                None waits until the connection ends.

        Returns:
            False if the deadline or the connection's end came first.
        """
        if self._is_inside:
            if not self.is_over:
                self.adapter.run_ready()
            self._is_inside = False
        try:
            if done():
                return True
            while not self.is_over:
                if self._leader in (0, get_ident()):
                    is_done = self._lead(done, deadline)
                else:
                    is_done = self._follow(done, deadline)
                if is_done:
                    return True
                if deadline is not None and deadline <= monotonic():
                    break
            return False
        finally:
            if self._followers and not self._leader:
                # The thread that was woken to lead may have had enough, so each that leaves looks.
                self._followers[0].wake()
                del self._followers[0]
            elif self.is_over and not self._leader:
                self.adapter.close()

    def _lead(self, done: Callable[[], object], deadline: float | None) -> bool:
        # A signal handler may drive while its own thread sleeps in the loop.
        before, self._leader = self._leader, get_ident()
        if not self.connection.reading and not self._is_keeping and self.connection.is_open:
            self.call(self.connection.resume_reading)
            self._is_inside = False
        adapter, lock, enter = self.adapter, self._lock, self.enter
        timeout = None
        try:
            while not self.is_over:
                if deadline is not None:
                    timeout = max(0.0, deadline - monotonic())
                adapter.turn(timeout, lock, enter)
                self._is_inside = False
                if self._followers:
                    self._release_followers()
                if done():
                    return True
                if timeout == 0.0:
                    break
            return bool(done())
        finally:
            self._leader = before
            self._read_at = monotonic()
            if not self._is_keeping:
                self._left_at = self._read_at

    def _release_followers(self) -> None:
        waiting = []
        for follower in self._followers:
            if self.is_over or follower.done():
                follower.wake()
            else:
                waiting.append(follower)
        self._followers = waiting

    def _follow(self, done: Callable[[], object], deadline: float | None) -> bool:
        follower = _Follower(done)
        self._followers.append(follower)
        # The keeper gives way, and whoever sleeps in the loop does what this thread has left to do.
        if self._is_keeping or self.adapter.time_until_due() == 0:
            self.adapter.call_soon_threadsafe(_nothing)
        timeout = -1 if deadline is None else max(0.0, deadline - monotonic())
        try:
            self._lock.release()
            follower.woken.acquire(True, timeout)
        finally:
            self._lock.acquire()
            with suppress(ValueError):  # whoever woke it has taken it out
                self._followers.remove(follower)
        return bool(done())

    # Keeping

    def start_keeper(self) -> None:
        """Have a thread take over whenever all callers have been away for some time."""
        if self.connection.heartbeat:
            period = self.connection.heartbeat / 4
            threading.Thread(
                target=_keep,
                args=(weakref.ref(self), self._stop_keeper, period),
                name="evamqp.blocking keeper",
                daemon=True,
            ).start()

    def keep(self, period: float) -> float:
        """Drive for ``period`` seconds at most if all callers have been away for that long.

        Returns:
            Seconds until it is worth asking again.
        """
        with self._lock:
            away = monotonic() - self._left_at
            if self._leader or away < period:
                return max(period - away, period / 4)
            if self.is_over or self.is_forked:
                return period
            self.enter()
            self._is_keeping = True
            try:
                deadline = monotonic() + period
                is_wanted = self.drive(self._is_wanted_or_full, deadline)
                if self._is_full and self.connection.is_open:
                    self.call(self.connection.pause_reading)
                    is_wanted = self.drive(self._is_wanted, deadline)
                if is_wanted:
                    self._left_at = monotonic()  # do not race the caller for the lead
            finally:
                self._is_keeping = False
        return 0.0

    def _is_wanted(self) -> bool:
        return bool(self._followers)

    def _is_wanted_or_full(self) -> bool:
        self._is_full = self._has_kept_enough()
        return self._is_full or bool(self._followers)

    def _has_kept_enough(self) -> bool:
        """Whether KEPT_BYTES have come since the last call that waited."""
        received = self.connection.stats.bytes_received
        if self._keeper_mark[0] != self._left_at:
            self._keeper_mark = (self._left_at, received)
        return received - self._keeper_mark[1] > KEPT_BYTES

    # The end

    def end(self) -> None:
        """The connection has ended: let everybody go; the last one releases the loop."""
        self.is_over = True
        self._stop_keeper.set()

    def _invalidate_after_fork(self) -> None:
        """After a fork, in the child: the lock may be held by a thread that is not here."""
        self.is_forked = True
        self._make_lock()


def _keep(reference: weakref.ref[SharedLoop], stopped: threading.Event, pause: float) -> None:
    """The keeper's thread: it ends with the connection, or when nobody has that any more."""
    period = pause
    while not stopped.wait(pause):
        loop = reference()
        if loop is None:
            return
        pause = loop.keep(period)
        del loop


def _nothing() -> None:
    """Wakes the loop."""


_living: weakref.WeakSet[SharedLoop] = weakref.WeakSet()


def _invalidate_all_after_fork() -> None:
    for loop in list(_living):
        loop._invalidate_after_fork()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_invalidate_all_after_fork)
