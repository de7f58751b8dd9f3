"""The connection: what its driver calls, and what a user may ask of it.

No socket and no loop: bytes come in by ``receive_data``, go out by ``pieces_to_send``, and time
passes when ``handle_timer`` is called.  Its parts have files of their own: frames in ``parser.py``,
channel 0 in ``control_channel.py``, the end in ``closing.py``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from evamqp.checks import flag
from evamqp.codec import native
from evamqp.codec.frames import PROTOCOL_HEADER
from evamqp.core.async_block import AsyncBlock
from evamqp.core.backpressure import Backpressure
from evamqp.core.callbacks import CallbackDispatcher, Runtime
from evamqp.core.channel import Channel, Message
from evamqp.core.channel_machine import ChannelMachine
from evamqp.core.channels import ChannelTable
from evamqp.core.clock import RequestClock
from evamqp.core.closing import Closing, report_end
from evamqp.core.context import Context
from evamqp.core.control_channel import ControlChannel
from evamqp.core.deadlines import Deadlines
from evamqp.core.handler import CallbackContext, Handler, answers_for_connection, with_functions
from evamqp.core.handshake import wrong_peer
from evamqp.core.output import Output
from evamqp.core.parser import FrameParser, WrongPeer
from evamqp.core.request import Request, check_callbacks, check_reason, check_text
from evamqp.core.stalls import Stalls
from evamqp.core.state import ConnectionState, TransportAction
from evamqp.core.stats import Stats
from evamqp.core.unclosed import Closable, report
from evamqp.errors import (
    AmqpError,
    BadType,
    ConnectionClosed,
    MalformedData,
    UsageError,
    WrongState,
    WrongThread,
)
from evamqp.types import Callback, ErrorCallback, Table

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from evamqp.abc import Adapter
    from evamqp.core.handler import ChannelCallbacks
    from evamqp.parameters import Parameters

log: logging.Logger = logging.getLogger(__name__)

# Looked at for every read; a member of an enum takes six times as long to find.
_CLOSED = ConnectionState.CLOSED
_get_ident = native.get_ident()

if TYPE_CHECKING:
    from evamqp.core.callbacks import Perform, Runtime


class Connection(Closable, AsyncBlock):
    """One AMQP connection, for the life of one transport.  ``evamqp.connect`` makes it.

    Attributes:
        parameters: The target that answered; None before.
        state: Where it stands.
        reason: Why it ended, or is ending; None before.
        server_properties: What the broker said about itself; empty before.
        user: The user name of the login; None before, while a callable is asked for it.
        channel_max: Channels agreed on; 0 before.
        frame_max: Bytes of a frame agreed on; 0 before.
        heartbeat: Seconds agreed on; 0 means none.
        reading: False while reading is paused.
        transport_action: For the driver: what is to become of the transport.
        context: For the library: what it shares with its channels.
    """

    __slots__ = (
        "_callbacks",
        "_closing",
        "_control",
        "_deadlines",
        "_inbox",
        "_inbox_woken",
        "_output",
        "_runtime",
        "_stalls",
        "channel_max",
        "context",
        "frame_max",
        "heartbeat",
        "parameters",
        "reading",
        "reason",
        "server_properties",
        "state",
        "transport_action",
        "user",
    )

    def __init__(self, handler: Handler, runtime: Runtime) -> None:
        super().__init__()
        self.state: ConnectionState = ConnectionState.CONNECTING
        self.transport_action: TransportAction = TransportAction.KEEP
        self.reason: ConnectionClosed | None = None
        self.parameters: Parameters | None = None
        self.server_properties: Table = {}
        self.user: str | None = None
        self.channel_max: int = 0
        self.frame_max: int = 0
        self.heartbeat: int = 0
        self.reading: bool = True
        self._runtime = runtime
        self._inbox: deque[Callable[[], object]] = deque()
        self._inbox_woken = False
        callbacks = self._callbacks = CallbackDispatcher(runtime)
        output = self._output = Output(runtime.output_ready)
        deadlines = self._deadlines = Deadlines()
        control = self._control = ControlChannel(
            self, handler, runtime.time, deadlines, _make_reporter
        )
        channels: ChannelTable[ChannelMachine] = ChannelTable(callbacks.stats, runtime.time)
        parser = FrameParser(control, channels, callbacks, Message)
        backpressure = Backpressure(output, callbacks, control.report_writable)
        clock = RequestClock(0.0, runtime.time)
        context = Context(callbacks, output, parser, clock, channels, backpressure, Message)
        self.context: Context = context
        self._stalls = Stalls(callbacks.stats)
        closing = self._closing = Closing(
            self, context, control, runtime.output_ready, self._stalls
        )
        control.context, control.closing = context, closing
        output.on_pressure, output.on_overrun = backpressure.changed, closing.overrun
        # The parent sends what is buffered; sent twice it would wreck the stream that both share.
        callbacks.on_fork = (output.clear, channels.disown)
        # A reconnector answers for its connections itself.
        self._must_close = not answers_for_connection(handler)

    @property
    def label(self) -> str:
        """Its name, user, host, port and virtual host, as logs show them; "" before the target."""
        if self.parameters is None:
            return ""
        return self.parameters.label if self.user is None else self.parameters.label_as(self.user)

    def __repr__(self) -> str:
        where = f" {self.label}" if self.parameters else ""
        return f"<Connection{where} {self.state.value}>"

    @property
    def name(self) -> str | None:
        """The connection's name as the broker shows it; None if it has none."""
        return self.parameters.name if self.parameters else None

    @property
    def adapter(self) -> Adapter:
        """The adapter it runs on."""
        return self._runtime.adapter

    @property
    def silence(self) -> float | None:
        """Seconds for which the broker has sent nothing, in quarters of the heartbeat interval.

        A broker sends something every half interval.  None without heartbeats.
        """
        heartbeat = self._control.heartbeat
        return None if heartbeat is None else heartbeat.silence

    @property
    def is_open(self) -> bool:
        """Whether channels may be opened and used."""
        return self.state is ConnectionState.OPEN

    @property
    def is_writable(self) -> bool:
        """Whether publishing now will not just pile up: no backpressure, alarm or stopped flow."""
        return self.context.backpressure.is_writable

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has asked us to stop publishing."""
        return self.context.backpressure.is_blocked

    @property
    def stats(self) -> Stats:
        """The connection's counters as they stand now; a copy."""
        context = self.context
        counts = context.stats.copy()
        counts.frames_received = context.parser.frames
        counts.messages_received = context.parser.messages
        counts.messages_published += context.channels.published
        return counts

    # Called by the driver

    def connection_made(self, parameters: Parameters) -> None:
        """The transport is up; ``parameters`` are those of the target that answered."""
        self._callbacks.bind_owner()
        if self.state is not ConnectionState.CONNECTING:
            return
        self.parameters = parameters
        self.state = ConnectionState.STARTING
        self._output.set_limits(parameters.output_high_water, parameters.output_max)
        self.context.clock.timeout = parameters.request_timeout
        self.context.limits.body_max = parameters.body_max
        self._control.await_open(parameters.handshake_timeout)
        self._output.append_uncapped(PROTOCOL_HEADER)

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer.  Never raises for what the peer sent."""
        callbacks = self._callbacks
        if self.state is _CLOSED or callbacks.owner != _get_ident():
            return
        callbacks.stats.bytes_received += len(data)
        callbacks.last = ""
        heartbeat = self._control.heartbeat
        if heartbeat is not None:
            heartbeat.received = True
        if callbacks.deferred:
            callbacks.run_deferred()
        try:
            self.context.parser.receive(data)
        except Exception as error:
            self._abort_over(error)
        if callbacks.deferred:
            callbacks.run_deferred()

    def stalled(self, seconds: float, in_callback: bool) -> None:
        """The loop stood still.

        Args:
            seconds: For how long, until now.
            in_callback: Whether that was within receive_data(), and so in a callback of ours.
        """
        where = (self._callbacks.last or "on_message") if in_callback else ""
        self._stalls.note(self, seconds, where, self._runtime.time())

    def set_writable(self, writable: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self._output.paused = not writable
        self._control.update_clock()
        self.context.backpressure.changed()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport is gone, or never came.  ``exc`` is the cause; None is a plain end."""
        callbacks = self._callbacks
        if callbacks.is_forked or self._closing.is_over:
            return
        callbacks.bind_owner()
        if self.state not in (ConnectionState.CLOSED, ConnectionState.CONNECTING):
            self.context.parser.stopped = False
            self._parse_held(wait_whole=False)
        self._closing.lost(exc)

    def data_to_send(self) -> bytes:
        """Return what ``pieces_to_send`` does, joined."""
        return b"".join(self.pieces_to_send())

    def pieces_to_send(self) -> list[bytes | memoryview]:
        """Return buffered output, about 128 KiB at most; check ``output_size`` for the rest.

        Mostly it is one piece; big bodies come as they are.  Not to be called while the transport
        is paused.
        """
        output = self._output
        size = output.size
        if not size:
            return []
        pieces = output.take()
        self._callbacks.stats.bytes_sent += size - output.size
        heartbeat = self._control.heartbeat
        if heartbeat is not None:
            heartbeat.sent = True
        return pieces

    def next_deadline(self) -> float | None:
        """When to call handle_timer(), in the runtime's time; None means not at all."""
        callbacks = self._callbacks
        if callbacks.is_forked:
            return None
        context = self.context
        parser, clock = context.parser, context.clock
        if callbacks.deferred or (parser.held and parser.has_input and self.state is not _CLOSED):
            return 0.0
        first = self._deadlines.first
        if clock.started:
            deadline = clock.deadline()
            if first is None or (deadline is not None and deadline < first):
                return deadline
        return first

    def handle_timer(self) -> None:
        """Run what is due: deferred callbacks, heartbeats, timeouts."""
        callbacks = self._callbacks
        if callbacks.is_forked:
            return
        callbacks.bind_owner()
        callbacks.run_deferred()
        if self.context.parser.has_input and self.state is not _CLOSED:
            self._parse_held()
        now = self._runtime.time()
        self._deadlines.run(now)
        # One by one: what a callback does in between may change who has waited too long.
        while (waiting := self.context.clock.take_expired(now)) is not None:
            waiting.expire()
        callbacks.run_deferred()

    @property
    def output_size(self) -> int:
        """Bytes that wait to be sent."""
        return self._output.size

    def _parse_held(self, *, wait_whole: bool = True) -> None:
        """Parse what the parser has kept."""
        self._callbacks.run_deferred()
        try:
            self.context.parser.receive(b"", wait_whole)
        except Exception as error:
            self._abort_over(error)
        self._callbacks.run_deferred()

    def _abort_over(self, error: Exception) -> None:
        """End the connection over what the parser raised."""
        closing = self._closing
        if isinstance(error, MalformedData):
            log.debug("%r: protocol error %d: %.200s", self, error.code, error)
            closing.protocol_error(error)
        elif isinstance(error, WrongPeer):
            closing.abort(wrong_peer(error.args[0]))
        elif isinstance(error, AmqpError):
            closing.abort(error)
        else:
            # A bug of ours.  It may cost this connection, but not the user's loop.
            log.error("%r: internal error", self, exc_info=error)
            closing.abort(AmqpError(f"internal error: {error!r}"))

    # Called by the user

    def _check_usable(self, what: str) -> None:
        if self.state is not ConnectionState.OPEN or self._callbacks.owner != _get_ident():
            raise self._callbacks.foreign_caller(what) or self._unusable(what)

    def _unusable(self, what: str) -> UsageError:
        why = f": {self.reason}" if self.reason else ""
        return WrongState(f"{what}: connection is {self.state.value}{why}")

    def _report_unclosed(self) -> None:
        if self._must_close and self.state is ConnectionState.OPEN:
            lost = sum(len(channel.unconfirmed) for channel in self.context.channels.all())
            report(self, lost, "publishes have no confirm")

    def channel(
        self,
        handler: Handler | None = None,
        *,
        number: int | None = None,
        **callbacks: Unpack[ChannelCallbacks],
    ) -> Channel:
        """Open a channel; it is usable at once, since requests are pipelined.

        Args:
            handler: Gets the channel's events; None means the connection's handler.
            number: 1..``channel_max``; None takes the next one that was not used before.
            callbacks: Functions by the names of Handler's methods that a channel calls; they take
                precedence over ``handler``.

        Raises:
            BadArgument: The number is in use or out of range.
            WrongState: The connection is not open, or all channel numbers are in use.  One whose
                channel the broker closed is in use for 3 more seconds, unless you ask for it, since
                frames of that may still come.
            WrongThread: Not the thread that owns the connection.

        Spec: channel.open (20, 10).
        """
        self._check_usable("connection.channel")
        chosen = with_functions(self._control.handler if handler is None else handler, callbacks)
        context = self.context
        number = context.channels.choose(number, self.channel_max)
        reused = context.channels.numbers.was_used(number)
        machine = ChannelMachine(context, number, chosen, reused, _make_reporter)
        channel = Channel(self, machine)
        context.channels.add(machine)
        return channel

    def close(
        self, code: int = 200, text: str = "closed by the client"
    ) -> Request[ConnectionClosed]:
        """Close the connection.  Idempotent, and legal in any state.

        What was sent before still goes out.  It is bounded: after ``close_timeout`` seconds
        without progress, or ``close_limit`` in all, the transport is aborted.

        Args:
            code: AMQP reply code sent to the broker.
            text: Reason sent to the broker, up to 255 bytes of UTF-8.

        Returns:
            wait_closed().

        Raises:
            WrongThread: Not the thread that owns the connection.

        Spec: connection.close (10, 50).
        """
        self._callbacks.check_caller("connection.close")
        check_reason("connection.close", code, text)
        if self.state is ConnectionState.OPEN:
            reason = ConnectionClosed(text or "closed", code=code, by="client")
            self._closing.close(reason)
        elif self.state not in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            self._closing.abort(ConnectionClosed("closed before it was open", by="client"))
        return self.wait_closed()

    def wait_open(self) -> Request[None]:
        """Wait until the connection is open; fails with the reason if it never will be."""
        self._callbacks.check_caller("wait_open")
        request: Request[None] = Request(self._control, "wait_open")
        if self.state is ConnectionState.OPEN:
            request.resolve(None)
        elif self.state is ConnectionState.CLOSED:
            assert self.reason is not None
            request.fail(self.reason.copy())
        else:
            self._control.await_opened(request)
        return request

    def wait_closed(self, *, check: bool = False) -> Request[ConnectionClosed]:
        """Wait for the end; the request succeeds with the reason, and never fails.

        Args:
            check: Fail with the reason, unless you closed the connection.

        Raises:
            BadType: check is not a bool.
        """
        self._callbacks.check_caller("wait_closed")
        flag("wait_closed: check", check)
        request: Request[ConnectionClosed] = Request(self._control, "wait_closed")
        if self._closing.is_over:
            assert self.reason is not None
            report_end(request, self.reason, check=check)
        else:
            self._closing.wait(request, check=check)
        return request

    def wait_writable(self) -> Request[None]:
        """Wait until ``is_writable``; fails with the reason if the connection ends first."""
        self._callbacks.check_caller("wait_writable")
        request: Request[None] = Request(self._control, "wait_writable")
        if self.is_writable:
            request.resolve(None)
        elif self.state is ConnectionState.CLOSED:
            assert self.reason is not None
            request.fail(self.reason.copy())
        else:
            self.context.backpressure.wait(request)
        return request

    def pause_reading(self) -> None:
        """Take nothing more from the socket, and call no on_message, until resume_reading().

        The only flow control for ``auto_ack`` consumers.  Heartbeats are not missed meanwhile,
        but nothing else is read either.  Idempotent.

        Raises:
            WrongState: The connection is not open.
            WrongThread: Not the thread that owns the connection.
        """
        self._check_usable("pause_reading")
        self.reading = False
        self.context.parser.stopped = True
        self.context.parser.clear_templates()
        self._control.update_clock()
        self._runtime.output_ready()

    def resume_reading(self) -> None:
        """Undo pause_reading().  Idempotent; raises as that does."""
        self._check_usable("resume_reading")
        heartbeat = self._control.heartbeat
        if heartbeat is not None:
            heartbeat.received = True  # else this quarter would count, of which we read nothing
        self.reading = True
        self.context.parser.stopped = False
        self._control.update_clock()
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
        return self._control.request(
            "connection.update-secret", new_secret, reason,
            finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        """Have ``function()`` called by the loop.  The one call for other threads.

        Legal in a signal handler.  After ``on_close`` it is dropped, and counted in ``stats``.

        Raises:
            WrongThread: In a forked child.
        """
        if self._callbacks.is_forked:
            raise WrongThread("call_soon_threadsafe: in a forked child")
        if not callable(function):
            raise BadType(f"call_soon_threadsafe: {type(function).__name__} is not callable")
        if self._closing.is_over:
            self._callbacks.stats.late_calls += 1
            return
        self._inbox.append(function)
        if not self._inbox_woken:
            self._inbox_woken = True
            self._runtime.call_soon_threadsafe(self._drain_inbox)

    def flush_next_turn(self) -> None:
        """Write what the next turn of the loop queues within that turn, not in the one after it.

        For a library that wakes coroutines from its callbacks: call it where they are woken, and
        what they send spares a turn of the loop.

        Raises:
            WrongThread: Not the thread that owns the connection.
        """
        self._callbacks.check_caller("flush_next_turn")
        self._runtime.flush_next_turn()

    @property
    def perform(self) -> Perform:
        """What calls a function, and writes what that queues at once.  For the library.

        It is for threads that share the connection, and run its loop only while they wait.
        """
        return self._runtime.perform

    def abort(self, reason: ConnectionClosed) -> None:
        """End the connection at once.  Called by the library; you want ``close``."""
        self._closing.abort(reason)

    def invoke(self, name: str, function: Callable[..., object], *arguments: object) -> None:
        """Make a callback by ``name``.  Called by the library."""
        self._control.invoke(name, function, *arguments)

    def bind_thread(self) -> None:
        """Make the calling thread the one that owns the connection and its channels.

        For threads that take turns at one connection, under a lock of theirs: whoever gets the
        lock calls this before anything else.

        Raises:
            WrongThread: In a forked child.
        """
        owner, callbacks = _get_ident(), self._callbacks
        if callbacks.owner == owner:
            return
        if callbacks.is_forked:
            callbacks.check_caller("bind_thread")
        callbacks.owner = owner
        for channel in self.context.channels.all():
            channel.bind_owner(owner)

    def _drain_inbox(self) -> None:
        self._inbox_woken = False
        self._callbacks.bind_owner()
        try:
            for _ in range(len(self._inbox)):
                function = self._inbox.popleft()
                if self._closing.is_over:
                    self._callbacks.stats.late_calls += 1
                else:
                    self._control.invoke("call_soon_threadsafe", function)
        finally:
            if self._inbox and not self._inbox_woken:
                self._inbox_woken = True
                self._runtime.call_soon_threadsafe(self._drain_inbox)


def _make_reporter(
    callbacks: CallbackDispatcher,
    handler: Handler | None,
    name: str,
    connection: Connection,
    channel: Channel | None,
    message: Message | None,
) -> Callable[[BaseException], None]:
    """Make what reports that a callback raised: to its handler, or the default one after that."""
    context = CallbackContext(name, connection, channel, message)
    return partial(callbacks.report, Handler() if handler is None else handler, context)


def _none() -> None:
    """A reply that says only that it was done."""
