"""The blocking connection: connect, wait, call back, close.

How threads share the loop is ``loop.py``; channels are ``channel.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import evamqp
from evamqp.blocking._callbacks import ConnectionCallbacks, checked
from evamqp.blocking.channel import Channel
from evamqp.blocking.loop import SharedLoop
from evamqp.parameters import parse_targets

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from evamqp.abc import Handle
    from evamqp.blocking._callbacks import ChannelCallbacks
    from evamqp.types import Table

T = TypeVar("T")


class Timer:
    """A function that call_later() is going to call."""

    __slots__ = ("_connection", "_function", "_handle")

    _handle: Handle

    def __init__(self, connection: Connection, function: Callable[[], object]) -> None:
        self._connection = connection
        self._function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Do not call it.  Idempotent; any thread may call."""
        self._function = None
        with self._connection._loop.lock:
            self._handle.cancel()

    def _fire(self) -> None:
        self._connection._due.append(self._call)

    def _call(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()


class Connection:
    """An AMQP connection whose calls wait for their outcome.  ``evamqp.blocking.connect`` makes it.

    Any thread may call, and several may wait at the same time.  Functions that you hand over
    (timers, ``on_message``, ``call_soon_threadsafe``) are called by threads that are inside
    process_events(), sleep() or an iteration of Channel.consume(), one at a time.

    While no thread waits here, a keeper thread answers heartbeats and reads on, so a handler may
    work for as long as it likes.  It begins a quarter of the heartbeat interval after the last
    call that waited, and takes 16 MiB from the broker at the most.
    """

    __slots__ = ("__weakref__", "_callbacks", "_core", "_dispatcher", "_due", "_loop")

    _core: evamqp.Connection
    _loop_kind: type[SharedLoop] = SharedLoop

    def __init__(
        self,
        target: str | evamqp.Parameters | Sequence[str | evamqp.Parameters],
        **callbacks: Unpack[ConnectionCallbacks],
    ) -> None:
        self._callbacks = checked(callbacks, ConnectionCallbacks)
        self._due: deque[Callable[[], object]] = deque()
        self._dispatcher = 0  # the thread that calls back now
        self._loop = self._loop_kind()
        try:
            self._open(target)
        except BaseException:
            self._abandon()
            raise

    def _open(self, target: str | evamqp.Parameters | Sequence[str | evamqp.Parameters]) -> None:
        loop = self._loop
        with loop.lock:
            # While the program is away its loop stands still, and the keeper takes its turns.
            targets = [each.replace(stall_warning=None) for each in parse_targets(target)]
            core = evamqp.connect(targets, _Events(self), adapter=loop.adapter)
            self._core = loop.connection = core
            future = core.wait_open().future
            loop.drive(future.done)
        future.result()
        loop.start_keeper()

    def _abandon(self) -> None:
        """What connect() made is of no use to anybody."""
        loop = self._loop
        if hasattr(self, "_core"):
            with loop.lock:
                loop.drive(self._core.close().future.done)
        else:
            loop.adapter.close()

    def __repr__(self) -> str:
        return f"<blocking {self._core!r}>"

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._loop.is_forked:  # a child leaves the connection to its parent
            self.close()

    # What it is

    @property
    def is_open(self) -> bool:
        """Whether channels may be opened and used."""
        return self._core.is_open

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has asked us to stop publishing."""
        return self._core.is_blocked

    @property
    def is_interrupted(self) -> bool:
        """Whether the caller is a signal handler that interrupted another call of its thread.

        Then only call_soon_threadsafe() is legal.
        """
        return self._loop.is_interrupted

    @property
    def reason(self) -> evamqp.ConnectionClosed | None:
        """Why it ended, or is ending; None before."""
        return self._core.reason

    @property
    def parameters(self) -> evamqp.Parameters:
        """The target that answered."""
        assert self._core.parameters is not None
        return self._core.parameters

    @property
    def server_properties(self) -> Table:
        """What the broker said about itself."""
        return self._core.server_properties

    @property
    def channel_max(self) -> int:
        """Channels agreed on."""
        return self._core.channel_max

    @property
    def frame_max(self) -> int:
        """Bytes of a frame agreed on."""
        return self._core.frame_max

    @property
    def heartbeat(self) -> int:
        """Seconds agreed on; 0 means none."""
        return self._core.heartbeat

    @property
    def stats(self) -> Any:
        """The connection's counters as they stand now."""
        with self._loop.lock:
            return self._core.stats

    # What it does

    def channel(
        self, *, number: int | None = None, **callbacks: Unpack[ChannelCallbacks]
    ) -> Channel:
        """Open a channel, and wait until it is open.

        Args:
            number: 1..``channel_max``; None takes the next one that was not used before.
            callbacks: Functions by the names of Handler's methods for a channel, called in
                process_events() with the blocking channel: ``on_channel_close``, ``on_return``,
                ``on_delivery_confirmation``, ``on_consumer_cancel``.

        Raises:
            BadArgument: The number is in use or out of range.
            WrongState: The connection is not open, or all channel numbers are in use.
            Closed: The broker did not open it.
        """
        return Channel(self, number, **callbacks)

    def process_events(self, timeout: float | None = 0.0) -> None:
        """Wait for something to do, and call back.

        Returns as soon as the functions that were due have been called, or a channel with
        consumers has ended.  From inside one of them it moves bytes and makes no callback.

        Args:
            timeout: Seconds to wait for the first at most; None waits until there is one.

        Raises:
            ConnectionClosed: The connection has ended, and nothing is due any more.
            Exception: Whatever your function raises; what was due behind it stays due.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self._dispatcher == get_ident():
            self._wait(_never, deadline or monotonic())
        elif self._wait(self._is_due, deadline):
            self._dispatch()
        elif self._loop.is_over:
            raise self._ended()

    def sleep(self, seconds: float) -> None:
        """Sleep, and call back meanwhile; raises as process_events() does."""
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            self.process_events(left)

    def call_later(self, delay: float, function: Callable[[], object]) -> Timer:
        """Have a function called after ``delay`` seconds, by a thread that waits here then."""
        timer = Timer(self, function)
        with self._loop.lock:
            timer._handle = self._loop.adapter.call_later(max(0.0, delay), timer._fire)
        return timer

    def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        """Have a function called by a thread that waits here.

        Never blocks; legal in a signal handler.  After the connection's end nobody may ever call.

        Raises:
            WrongThread: In a forked child.
        """
        if self._loop.is_forked:
            raise evamqp.WrongThread("call_soon_threadsafe: in a forked child")
        self._due.append(function)
        self._loop.adapter.call_soon_threadsafe(_nothing)

    def update_secret(self, new_secret: str, reason: str = "") -> None:
        """Replace the credential of a live connection; see evamqp.Connection.update_secret."""
        self._ask(partial(self._core.update_secret, new_secret, reason))

    def close(self, code: int = 200, text: str = "closed by the client") -> None:
        """Close the connection, and wait for its end; see evamqp.Connection.close.  Idempotent."""
        self._ask(partial(self._core.close, code, text))

    # For channels

    def _ask(self, verb: Callable[[], evamqp.Request[T]]) -> T:
        """Send a request, and wait for its outcome."""
        loop = self._loop
        with loop.lock:
            future = loop.perform(verb).future
            loop.drive(future.done)
        value: T = future.result()
        return value

    def _wait(self, done: Callable[[], object], deadline: float | None) -> bool:
        loop = self._loop
        with loop.lock:
            loop.enter()
            return loop.drive(done, deadline)

    def _wake(self) -> None:
        """Have process_events() return, if it would wait."""
        if not self._due:
            self._due.append(_nothing)

    def _is_due(self) -> bool:
        return bool(self._due) and not self._dispatcher

    def _dispatch(self) -> None:
        """Call what is due by now, unless a thread does so already."""
        if self._dispatcher:
            return
        self._dispatcher = get_ident()
        due = self._due
        try:
            for _ in range(len(due)):
                due.popleft()()
        finally:
            self._dispatcher = 0
            if due:
                self._loop.adapter.call_soon_threadsafe(_nothing)  # another thread may wait

    def _ended(self) -> evamqp.ConnectionClosed:
        reason = self._core.reason
        assert reason is not None
        return reason.copy()


class _Events(evamqp.Handler):
    """Receives a connection's events; calls nothing of the user's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _defer(self, name: str, *arguments: object) -> None:
        function = self._connection._callbacks.get(name)
        if function is not None:
            self._connection._due.append(partial(function, self._connection, *arguments))

    def on_blocked(self, connection: evamqp.Connection, reason: str) -> None:
        self._defer("on_blocked", reason)

    def on_unblocked(self, connection: evamqp.Connection) -> None:
        self._defer("on_unblocked")

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self._connection._loop.end()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self._defer("on_close", reason)
        self._connection._loop.end()


def _never() -> bool:
    return False


def _nothing() -> None:
    """Wakes the loop."""
