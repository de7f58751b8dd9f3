"""The connection as users hold it: channels, close, and what there is to wait for.

How it lives, from the handshake to its end, is ``link.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING

from evamqp.codec.spec import BY_NAME
from evamqp.core.base_connection import BaseConnection
from evamqp.core.channel import Channel
from evamqp.core.handler import Handler, with_functions
from evamqp.core.request import Request, check_callbacks, check_reason, check_text
from evamqp.core.state import ConnectionState
from evamqp.core.unclosed import report
from evamqp.errors import BadType, ConnectionClosed, WrongThread
from evamqp.types import Callback, ErrorCallback

if TYPE_CHECKING:
    from types import TracebackType

    from evamqp.core.callbacks import Runtime


class Connection(BaseConnection):
    """One AMQP connection, for the life of one transport.  ``evamqp.connect`` makes it.

    Attributes:
        parameters: The target that answered; None before.
        state: Where it stands.
        reason: Why it ended, or is ending; None before.
        server_properties: What the broker told about itself; empty before.
        channel_max: Channels agreed on; 0 before.
        frame_max: Bytes of a frame agreed on; 0 before.
        heartbeat: Seconds agreed on; 0 means none.
        is_writable: Whether publishing now will not just pile up: no backpressure, no alarm, no
            stopped flow.
        reading: False while reading is paused.
        transport_action: For the driver: what is to become of the transport.
    """

    __slots__ = ()

    def __init__(self, handler: Handler, runtime: Runtime) -> None:
        super().__init__(handler, runtime)
        # A reconnector answers for its connections itself.
        self._must_close = not handler._answers_for_connection

    def __del__(self) -> None:
        if getattr(self, "_must_close", False):  # False where the constructor raised
            self._report_unclosed()

    def _report_unclosed(self) -> None:
        if self._must_close and self.state is ConnectionState.OPEN:
            lost = sum(len(channel.unconfirmed) for channel in self._channels.values())
            report(self, lost, "publishes have no confirm")

    def channel(
        self,
        handler: Handler | None = None,
        *,
        number: int | None = None,
        **callbacks: Callable[..., object],
    ) -> Channel:
        """Open a channel; it is usable at once, since requests are pipelined.

        Args:
            handler: Gets the channel's events; None means the connection's handler.
            number: 1..``channel_max``; None takes the next one that was not used before.
            callbacks: Functions by the names of Handler's methods, which come before it.

        Raises:
            BadArgument: The number is in use or out of range.
            WrongState: The connection is not open, or all channel numbers are in use.  One whose
                channel the broker closed is in use for 3 more seconds, unless you ask for it, since
                frames of that may still come.
            WrongThread: Not the thread that owns the connection.

        Spec: channel.open (20, 10).
        """
        self._check_usable("connection.channel")
        chosen = with_functions(self._handler if handler is None else handler, callbacks)
        if number is None:
            number = self._numbers.choose(self.channel_max, self._runtime.time())
        else:
            self._numbers.check(number, self.channel_max)
        channel = Channel(self, number, chosen, self._numbers.was_used(number))
        self._numbers.take(number)
        self._channels[number] = channel
        return channel

    def close(
        self, code: int = 200, text: str = "closed by the client"
    ) -> Request[ConnectionClosed]:
        """Close the connection.  Idempotent, and legal in any state.

        What was sent before still goes out.  It is bounded: after ``close_timeout`` seconds
        without progress, or ``close_limit`` in all, the transport is aborted.

        Args:
            code: AMQP reply code told to the broker.
            text: Reason told to the broker, up to 255 bytes of UTF-8.

        Returns:
            wait_closed().

        Raises:
            WrongThread: Not the thread that owns the connection.

        Spec: connection.close (10, 50).
        """
        self._check_caller("connection.close")
        check_reason("connection.close", code, text)
        if self.state is ConnectionState.OPEN:
            reason = ConnectionClosed(text or "closed", code=code, by="client")
            self._close_because(reason)
        elif self.state not in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            self._give_up(ConnectionClosed("closed before it was open", by="client"))
        return self.wait_closed()

    async def __aenter__(self) -> Connection:
        """Wait until it is open; ``async with evamqp.connect(...) as connection`` closes it."""
        try:
            await self.wait_open()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it, and wait for that."""
        closing = self.close()
        if kind is not GeneratorExit:  # a coroutine that is closed may not wait
            await closing

    def wait_open(self) -> Request[None]:
        """Wait until the connection is open; fails with the reason if it never will be."""
        self._check_caller("wait_open")
        request: Request[None] = Request(self, "wait_open")
        if self.state is ConnectionState.OPEN:
            request.resolve(None)
        elif self.state is ConnectionState.CLOSED:
            assert self.reason is not None
            request.fail(self.reason.copy())
        else:
            self._open_waiters.append(request)
        return request

    def wait_closed(self) -> Request[ConnectionClosed]:
        """Wait for the end; the request succeeds with the reason, and never fails."""
        self._check_caller("wait_closed")
        request: Request[ConnectionClosed] = Request(self, "wait_closed")
        if self._is_over:
            assert self.reason is not None
            request.resolve(self.reason)
        else:
            self._close_waiters.append(request)
        return request

    def wait_writable(self) -> Request[None]:
        """Wait until ``is_writable``; fails with the reason if the connection ends first."""
        self._check_caller("wait_writable")
        request: Request[None] = Request(self, "wait_writable")
        if self.is_writable:
            request.resolve(None)
        elif self.state is ConnectionState.CLOSED:
            assert self.reason is not None
            request.fail(self.reason.copy())
        else:
            self._writable_waiters.append(request)
        return request

    def pause_reading(self) -> None:
        """Take nothing more from the socket, and call no on_message, until resume_reading().

        The only flow control for ``auto_ack`` consumers.  Heartbeats are not missed meanwhile,
        but nothing else is heard either.  Idempotent.

        Raises:
            WrongState: The connection is not open.
            WrongThread: Not the thread that owns the connection.
        """
        self._check_usable("pause_reading")
        self.reading = False
        self._parser.stopped = True
        self._parser.clear_templates()
        self._update_clock()
        self._runtime.output_ready()

    def resume_reading(self) -> None:
        """Undo pause_reading().  Idempotent; raises as that does."""
        self._check_usable("resume_reading")
        if self._heartbeat is not None:
            self._heartbeat.received = True  # else this quarter would count, of which we heard none
        self.reading = True
        self._parser.stopped = False
        self._update_clock()
        self._runtime.output_ready()

    def update_secret(
        self,
        new_secret: str,
        reason: str = "",
        *,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Replace the credential of a live connection, for tokens that expire.

        Args:
            new_secret: The new password or token; it appears in no log and no repr.
            reason: Shown by the broker, up to 255 bytes of UTF-8.

        Raises:
            WrongState: The connection is not open; nothing was sent.
            WrongThread: Not the thread that owns the connection.
            BadArgument: The secret does not fit a frame; nothing was sent.

        Spec: connection.update-secret (10, 70), a RabbitMQ extension.
        """
        self._check_usable("connection.update-secret")
        check_callbacks("connection.update-secret", callback, on_error)
        check_text("connection.update-secret: new_secret", new_secret)
        self._send_method(0, "connection.update-secret", new_secret, reason)
        request: Request[None] = Request(
            self,
            "connection.update-secret",
            replies=BY_NAME["connection.update-secret"].replies,
            finish=_none,
            callback=callback,
            on_error=on_error,
        )
        self._requests.append(request)
        if len(self._requests) == 1:
            self._start_clock(self)
        return request

    def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        """Have ``function()`` called by the loop.  The one door from other threads.

        Legal in a signal handler.  After ``on_close`` it is dropped, and counted in ``stats``.

        Raises:
            WrongThread: In a forked child.
        """
        if self._is_forked:
            raise WrongThread("call_soon_threadsafe: in a forked child")
        if not callable(function):
            raise BadType(f"call_soon_threadsafe: {type(function).__name__} is not callable")
        if self._is_over:
            self._counts.late_calls += 1
            return
        self._inbox.append(function)
        if not self._inbox_woken:
            self._inbox_woken = True
            self._runtime.call_soon_threadsafe(self._drain_inbox)

    def bind_thread(self) -> None:
        """Make the calling thread the one that owns the connection and its channels.

        For threads that take turns at one connection, under a lock of theirs: whoever gets the
        lock calls this before anything else.

        Raises:
            WrongThread: In a forked child.
        """
        owner = get_ident()
        if self._owner == owner:
            return
        if self._is_forked:
            self._check_caller("bind_thread")
        self._owner = owner
        for channel in self._channels.values():
            # 0 where nobody may: a channel that is closing, or whose flow the broker stopped.
            if channel._owner:
                channel._owner = owner
            if channel._publisher:
                channel._publisher = owner

    def _drain_inbox(self) -> None:
        self._inbox_woken = False
        self._bind_owner()
        try:
            for _ in range(len(self._inbox)):
                function = self._inbox.popleft()
                if self._is_over:
                    self._counts.late_calls += 1
                else:
                    self._invoke("call_soon_threadsafe", None, function)
        finally:
            if self._inbox and not self._inbox_woken:
                self._inbox_woken = True
                self._runtime.call_soon_threadsafe(self._drain_inbox)


def _none() -> None:
    """A reply that says only that it was done."""
