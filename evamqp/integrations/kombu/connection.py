"""The connection that kombu holds: driven by the thread that calls, or by kombu's Hub.

How threads share the loop is evamqp.blocking's; what a channel can do is ``channel.py``.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import evamqp
from evamqp.blocking import SharedLoop
from evamqp.integrations.kombu.channel import Channel
from evamqp.integrations.kombu.errors import translate

T = TypeVar("T")

#: Seconds for which the Hub's reader hands over messages before the Hub looks at other things.
READ_SLICE = 0.005
#: Seconds that a reader may wait for the keeper to give way.
GIVE_WAY = 0.02


class Bell:
    """What the Hub reads while messages wait that came while it was not reading."""

    __slots__ = ("_is_rung", "_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_rung = False

    def fileno(self) -> int:
        return self._reader.fileno()

    def ring(self) -> None:
        """Any thread may."""
        if not self._is_rung:
            self._is_rung = True
            with suppress(OSError):  # full, or closed
                self._writer.send(b"\0")

    def mute(self) -> None:
        """Ring no more until silence()."""
        self._is_rung = True

    def silence(self) -> None:
        """Ready to be rung."""
        with suppress(OSError):
            self._reader.recv(4096)
        self._is_rung = False

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Connection:
    """An AMQP connection as kombu's transports have them.

    Attributes:
        client: The kombu.Connection; None once kombu has closed this.
        confirm_publish: Whether a publish waits until the broker has the message.
        channels: The open channels by number.
        notices: What calls and drain_events() call while they wait, or on their way out.
    """

    core: evamqp.Connection

    def __init__(
        self,
        parameters: evamqp.Parameters,
        client: Any = None,
        confirm_publish: bool = True,
        on_blocked: Callable[[str], object] | None = None,
        on_unblocked: Callable[[], object] | None = None,
    ) -> None:
        self.client: Any = client
        self.confirm_publish = confirm_publish
        self.on_blocked = on_blocked
        self.on_unblocked = on_unblocked
        self.channels: dict[int, Channel] = {}
        self.loop: SharedLoop = SharedLoop()
        # What drain_events() calls, one at a time.
        self._events: deque[tuple[Callable[[Any], object], Any]] = deque()
        self.notices: deque[Callable[[], object]] = deque()
        self._bell: Bell | None = None
        self._hub: Any = None
        self._watched: tuple[int, ...] = ()
        try:
            self._open(parameters)
        except BaseException as error:
            self._abandon()
            if isinstance(error, evamqp.AmqpError):
                raise translate(error) from error
            raise

    def _open(self, parameters: evamqp.Parameters) -> None:
        loop = self.loop
        with loop.lock:
            self.core = loop.connection = core = evamqp.connect(
                parameters, _Events(self), adapter=loop.adapter
            )
            future = core.wait_open().future
            loop.drive(future.done)
        future.result()
        loop.start_keeper()

    def _abandon(self) -> None:
        if hasattr(self, "core"):
            with self.loop.lock:
                self.loop.drive(self.core.close().future.done)
        else:
            self.loop.adapter.close()

    def __repr__(self) -> str:
        return f"<kombu {self.core!r}>" if hasattr(self, "core") else "<kombu connection>"

    # What it is

    @property
    def connected(self) -> bool:
        """Whether it can be used; never in a forked child."""
        return self.core.is_open and not self.loop.is_forked

    @property
    def heartbeat(self) -> int:
        """Seconds agreed on; 0 means none."""
        return self.core.heartbeat

    @property
    def server_properties(self) -> dict[str, Any]:
        """What the broker said about itself."""
        return self.core.server_properties

    # What kombu's transport calls

    def channel(self, channel_id: int | None = None) -> Channel:
        """Open a channel, and wait until it is open."""
        return Channel(self, channel_id)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for one message, or another event, and call back for it.

        Args:
            timeout: Seconds; 0 takes what is there, None waits for ever.

        Raises:
            TimeoutError: Nothing came; also known as socket.timeout.
            RecoverableConnectionError: The connection has ended.
            Exception: Whatever the callback raises, or why a channel has ended.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if not self._events:
            self._wait(timeout)
        while self.notices:
            self.deliver_notices()
            if not self._events:
                self._wait(None if deadline is None else max(0.0, deadline - monotonic()))
        if not self._deliver():
            self._check_open()
            raise TimeoutError("timed out")

    def heartbeat_tick(self, rate: float = 2) -> None:
        """Send what is due, and hear what has come.

        Raises:
            RecoverableConnectionError: The connection has ended.
        """
        self._wait(0)
        self._check_open()

    def close(self) -> None:
        """Close it, and wait for its end.  Idempotent; in a forked child nothing happens."""
        self.unwatch()
        if not self.loop.is_forked:
            self.ask(self.core.close)

    def collect(self) -> None:
        """Let go of it."""
        self.close()
        self.client = None

    # The Hub

    def watch(self, hub: Any) -> None:
        """Have the Hub read from here on."""
        self._check_open()
        if self._bell is None:
            self._bell = Bell()
        self._hub = hub
        self._watched = (self.loop.adapter.fileno(), self._bell.fileno())
        for number in self._watched:
            hub.add_reader(number, self._read)
        if self._events:
            self._bell.ring()

    def unwatch(self) -> None:
        """Undo watch().  Idempotent."""
        hub, self._hub = self._hub, None
        if hub is not None:
            for number in self._watched:
                # The end of the connection has freed the number, which may be another's by now.
                if hub.readers.get(number, (None,))[0] == self._read:
                    hub.remove_reader(number)
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()

    def _read(self) -> None:
        bell = self._bell
        if bell is None:
            return  # closed by an earlier callback of the same turn
        bell.mute()
        try:
            self._wait(0)
            if self.notices:
                self.deliver_notices()
            until = monotonic() + READ_SLICE
            while self._deliver() and monotonic() < until:
                pass
            if not self._events:
                self._check_open()
        finally:
            bell.silence()
            if self._events or not self.core.is_open:
                bell.ring()

    # For channels

    def ask(self, verb: Callable[..., evamqp.Request[T]], *arguments: Any, **options: Any) -> T:
        """Send a request, and wait for its outcome."""
        loop = self.loop
        try:
            with loop.lock:
                future = loop.perform(partial(verb, *arguments, **options)).future
                self.drive(future.done)
            while self.notices:
                self.resume(future.done)
            value: T = future.result()
        except evamqp.AmqpError as error:
            raise self.translate(error) from error
        return value

    def begin(self, verb: Callable[[], T], done: Callable[[], object] | None) -> T:
        """Call what is no request, and wait until it is done; None waits until it is sent."""
        loop = self.loop
        try:
            with loop.lock:
                value = loop.perform(verb)
                if done is None:
                    loop.flush()
                else:
                    loop.drive(done)
        except evamqp.AmqpError as error:
            raise self.translate(error) from error
        return value

    def drive(self, done: Callable[[], object], deadline: float | None = None) -> None:
        """Wait until ``done()``, or there are notices; with the lock held."""
        notices = self.notices
        self.loop.drive(lambda: done() or notices, deadline)

    def resume(self, done: Callable[[], object], deadline: float | None = None) -> None:
        """Deliver the notices that interrupted drive(), and wait on."""
        loop = self.loop
        self.deliver_notices()
        with loop.lock:
            loop.enter()
            self.drive(done, deadline)

    def send(self, verb: Callable[..., object], *arguments: Any) -> None:
        """Send what has no answer."""
        loop = self.loop
        try:
            with loop.lock:
                loop.perform(verb, *arguments)
                loop.flush()
        except evamqp.AmqpError as error:
            raise self.translate(error) from error

    def push(self, function: Callable[[Any], object], argument: Any) -> None:
        """Have drain_events() call back; the loop calls this."""
        self._events.append((function, argument))
        if self._bell is not None:
            self._bell.ring()

    def deliver_notices(self) -> None:
        """Call what wants no drain_events(); without the lock, since it may call us."""
        while True:
            try:
                function = self.notices.popleft()
            except IndexError:  # maybe another thread took the last one
                return
            function()

    # Inside

    def _wait(self, timeout: float | None) -> None:
        """Turn the loop until there is an event."""
        loop = self.loop
        if timeout == 0 and loop.is_kept:
            timeout = GIVE_WAY
        deadline = None if timeout is None else monotonic() + timeout
        try:
            with loop.lock:
                loop.enter()
                loop.drive(self._is_due, deadline)
                # What is due would not make the loop's descriptor readable.
                while not (loop.is_over or loop.is_kept or loop.adapter.time_until_due() != 0):
                    loop.drive(_never, 0.0)
        except evamqp.AmqpError as error:
            raise translate(error) from error

    def _is_due(self) -> bool:
        return bool(self._events or self.notices)

    def _deliver(self) -> bool:
        try:
            function, argument = self._events.popleft()
        except IndexError:
            return False
        function(argument)
        return True

    def _check_open(self) -> None:
        if not self.connected:
            raise self.ended()

    def translate(self, error: evamqp.AmqpError) -> BaseException:
        """What to raise in its place; a connection that has ended counts for more than a channel.

        An error of the connection is what has kombu connect again and repeat the call.
        """
        known = (evamqp.Closed, evamqp.NotExecuted, evamqp.WrongState)
        if isinstance(error, known) and self.loop.is_over:
            return self.ended()
        return translate(error)

    def ended(self) -> BaseException:
        """Why it cannot be used any more."""
        if self.loop.is_forked:
            return translate(evamqp.WrongThread("a connection that was made before the fork"))
        reason = self.core.reason
        assert reason is not None
        error = translate(reason.copy())
        error.__cause__ = reason
        return error


class _Events(evamqp.Handler):
    """Receives a connection's events."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self._connection.loop.end()

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self._connection.loop.end()
        if self._connection._bell is not None:
            self._connection._bell.ring()

    def on_blocked(self, connection: evamqp.Connection, reason: str) -> None:
        function = self._connection.on_blocked
        if function is not None:
            self._connection.notices.append(lambda: function(reason))

    def on_unblocked(self, connection: evamqp.Connection) -> None:
        function = self._connection.on_unblocked
        if function is not None:
            self._connection.notices.append(function)


def _never() -> bool:
    return False
