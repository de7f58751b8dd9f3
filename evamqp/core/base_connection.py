"""The life of one connection: handshake, what comes on channel 0, deadlines, backpressure, the end.

No socket and no loop: bytes come in by ``receive_data``, go out by ``data_to_send``, and time
passes when ``handle_timer`` is called.  Frames are found in ``receiver.py``; what a user may ask
of a connection is in ``connection.py``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from evamqp.codec.frames import FRAME_OVERHEAD, HEARTBEAT_FRAME, PROTOCOL_HEADER, method_frame
from evamqp.codec.methods import decode_arguments
from evamqp.codec.spec import BY_KEY, Method
from evamqp.core.callbacks import CallbackDispatcher, Runtime
from evamqp.core.clock import RequestClock
from evamqp.core.handler import Handler
from evamqp.core.handshake import Handshake, Limits, loss, negotiate, refusal, wrong_peer
from evamqp.core.heartbeat import Heartbeat
from evamqp.core.numbers import ChannelNumbers
from evamqp.core.output import Output
from evamqp.core.parser import FrameParser, WrongPeer
from evamqp.core.request import Request
from evamqp.core.state import CONNECTION, REPLY, ConnectionState, TransportAction
from evamqp.core.stats import Stats
from evamqp.errors import (
    CHANNEL_ERROR,
    COMMAND_INVALID,
    REPLY_SUCCESS,
    AmqpError,
    BadArgument,
    BlockedTimeout,
    ConnectionClosed,
    E,
    HandshakeTimeout,
    HeartbeatTimeout,
    MalformedData,
    NotExecuted,
    ProtocolError,
    RequestTimeout,
    UsageError,
    WrongState,
)
from evamqp.types import Table

if TYPE_CHECKING:
    from evamqp.abc import Adapter
    from evamqp.core.base_channel import BaseChannel, Recorder
    from evamqp.core.channel import Channel
    from evamqp.parameters import Parameters

log = logging.getLogger(__name__)

# Looked at for every read; a member of an enum takes six times as long to find.
_CLOSED = ConnectionState.CLOSED


class BaseConnection(CallbackDispatcher):
    """What a connection does without being asked.  ``Connection`` is this and its verbs."""

    __slots__ = (
        "_blocked_since",
        "_body_max",
        "_channels",
        "_clock",
        "_close_waiters",
        "_consumer_count",
        "_deadlines",
        "_handshake",
        "_heartbeat",
        "_inbox",
        "_inbox_woken",
        "_is_over",
        "_numbers",
        "_open_waiters",
        "_output",
        "_parser",
        "_progress",
        "_recorder",
        "_requests",
        "_stopped_channels",
        "_was_open",
        "_writable_waiters",
        "channel_max",
        "frame_max",
        "heartbeat",
        "is_writable",
        "parameters",
        "reading",
        "reason",
        "server_properties",
        "state",
        "transport_action",
    )

    def __init__(self, handler: Handler, runtime: Runtime) -> None:
        super().__init__(handler, runtime)
        # What recovery is told of requests that succeeded; None where nobody recovers.
        self._recorder: Recorder | None = None
        self.state = ConnectionState.CONNECTING
        self.transport_action = TransportAction.KEEP
        self.reason: ConnectionClosed | None = None
        self.parameters: Parameters | None = None
        self.server_properties: Table = {}
        self.channel_max = self.frame_max = self.heartbeat = 0
        self.is_writable = False
        self.reading = True
        self._output = Output(runtime.output_ready, self._pressure_changed)
        self._parser = FrameParser(self)
        self._body_max = 0
        self._handshake: Handshake | None = None
        self._channels: dict[int, Channel] = {}
        self._numbers = ChannelNumbers()
        self._consumer_count = 0  # of those whose tags were made here
        self._stopped_channels: set[int] = set()
        self._requests: deque[Request[Any]] = deque()
        self._open_waiters: list[Request[None]] = []
        self._close_waiters: list[Request[ConnectionClosed]] = []
        self._writable_waiters: list[Request[None]] = []
        self._was_open = False
        self._is_over = False
        self._inbox: deque[Callable[[], object]] = deque()
        self._inbox_woken = False
        self._heartbeat: Heartbeat | None = None
        self._clock: RequestClock[BaseChannel | BaseConnection] = RequestClock(0.0)
        self._deadlines: dict[str, float] = {}
        self._progress = (0, 0, 0.0)
        self._blocked_since: float | None = None

    def __repr__(self) -> str:
        where = f" {self.parameters.label}" if self.parameters else ""
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
    def is_open(self) -> bool:
        """Whether channels may be opened and used."""
        return self.state is ConnectionState.OPEN

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has asked us to stop publishing."""
        return self._blocked_since is not None

    @property
    def stats(self) -> Stats:
        """The connection's counters as they stand now; a copy."""
        counts = self._counts.copy()
        counts.frames_received = self._parser.frames
        counts.messages_received = self._parser.messages
        counts.messages_published += sum(c.published for c in self._channels.values())
        return counts

    # The driver's side

    def connection_made(self, parameters: Parameters) -> None:
        """The transport is up; ``parameters`` are those of the target that answered."""
        self._bind_owner()
        if self.state is not ConnectionState.CONNECTING:
            return
        self.parameters = parameters
        self.state = ConnectionState.STARTING
        self._output.set_limits(parameters.output_high_water, parameters.output_max)
        self._clock.timeout = parameters.request_timeout
        self._body_max = parameters.body_max
        self._deadlines["open"] = self._runtime.time() + parameters.handshake_timeout
        self._send_uncapped(PROTOCOL_HEADER)

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer.  Never raises for what the peer sent."""
        if self.state is _CLOSED or self._owner != get_ident():
            return
        self._counts.bytes_received += len(data)
        if self._heartbeat is not None:
            self._heartbeat.received = True
        self._parse(data)

    def set_writable(self, writable: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self._output.paused = not writable
        self._update_clock()
        self._pressure_changed()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport is gone, or never came.  ``exc`` is the cause; None is a plain end."""
        if self._is_forked or self._is_over:
            return
        self._bind_owner()
        if self.state not in (ConnectionState.CLOSED, ConnectionState.CONNECTING):
            self._parser.stopped = False
            self._parse(b"", wait_whole=False)
        if self.reason is None:
            self.reason = self._loss(exc)
        self.transport_action = TransportAction.ABORT
        self._end(self.reason)

    def data_to_send(self) -> bytes:
        """Take what waits to be sent, of much a part; see ``output_size`` for the rest.

        Not to be called while the transport is paused.
        """
        data = self._output.take()
        if data:
            self._counts.bytes_sent += len(data)
            if self._heartbeat is not None:
                self._heartbeat.sent = True
        return data

    def next_deadline(self) -> float | None:
        """When handle_timer() wants to be called, in the runtime's time; None means not at all."""
        if self._is_forked:
            return None
        if self._deferred or (self._parser.has_input and self.state is not ConnectionState.CLOSED):
            return 0.0
        first = self._clock.deadline()
        for deadline in self._deadlines.values():
            if first is None or deadline < first:
                first = deadline
        return first

    def handle_timer(self) -> None:
        """Run what is due: callbacks that are owed, heartbeats, timeouts."""
        if self._is_forked:
            return
        self._bind_owner()
        self._run_deferred()
        if self._parser.has_input and self.state is not ConnectionState.CLOSED:
            self._parse(b"")
        now = self._runtime.time()
        for name, deadline in list(self._deadlines.items()):
            if deadline <= now and name in self._deadlines:
                getattr(self, f"_due_{name}")(now)
        # One by one: what a callback does in between may change who has waited too long.
        while (waiting := self._clock.take_expired(now)) is not None:
            waiting._expire()
        self._run_deferred()

    @property
    def output_size(self) -> int:
        """Bytes that wait to be sent."""
        return self._output.size

    # What comes in

    def _parse(self, data: bytes, *, wait_whole: bool = True) -> None:
        if self._deferred:
            self._run_deferred()
        try:
            self._parser.receive(data, wait_whole=wait_whole)
        except MalformedData as error:
            self._protocol_error(error)
        except WrongPeer as error:
            self._give_up(wrong_peer(error.args[0]))
        except AmqpError as error:
            self._give_up(_as_closed(_bare(error)))
        except Exception as error:
            # A bug of ours.  It may cost this connection, but not the user's loop.
            log.exception("%r: internal error", self)
            self._give_up(_as_closed(AmqpError(f"internal error: {error!r}")))
        if self._deferred:
            self._run_deferred()

    def _recv_method(self, method: Method, payload: bytes) -> None:
        """A method frame on channel 0."""
        step = CONNECTION[self.state].get(method.name)
        if step is None:
            raise MalformedData(
                f"{method.name} on channel 0 of a connection that is {self.state.value}",
                COMMAND_INVALID,
            )
        arguments = decode_arguments(method, payload)
        name, state = step
        before, self.state = self.state, state
        if name == "_recv_close":
            self._recv_close(before, *arguments)
        elif name is REPLY:
            self._recv_reply(method, arguments)
        else:
            getattr(self, name)(*arguments)

    def _recv_start(self, *arguments: Any) -> None:
        assert self.parameters is not None
        self._handshake = Handshake(self.parameters)
        self.server_properties = arguments[2]
        self._send_uncapped(self._handshake.start_ok(*arguments))

    def _recv_secure(self, challenge: bytes) -> None:
        assert self._handshake is not None
        self._send_uncapped(self._handshake.secure_ok(challenge))

    def _recv_tune(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        assert self.parameters is not None
        limits = negotiate(Limits(channel_max, frame_max, heartbeat), self.parameters)
        self.channel_max, self.frame_max, self.heartbeat = limits
        self._parser.set_limits(
            self.frame_max, self.parameters.header_max, self.parameters.body_max
        )
        self._handshake = None
        self._send_uncapped(method_frame(0, "connection.tune-ok", *limits))
        self._send_uncapped(method_frame(0, "connection.open", self.parameters.virtual_host))
        if self.heartbeat:
            self._heartbeat = Heartbeat(self.heartbeat)
            self._deadlines["heartbeat"] = self._runtime.time() + self._heartbeat.period

    def _recv_open_ok(self) -> None:
        del self._deadlines["open"]
        self._was_open = True
        self.is_writable = not self._is_pressed()
        for waiter in self._open_waiters:
            self._defer(waiter.resolve, None)
        self._open_waiters.clear()
        if self.is_writable:
            self._defer(self._resolve_writable_waiters)
        self._invoke("on_open", None, self._handler.on_open, self)

    def _recv_blocked(self, reason: str) -> None:
        if self._blocked_since is None:
            now = self._runtime.time()
            self._blocked_since = now
            self._update_clock()
            timeout = self.parameters.blocked_timeout if self.parameters else None
            if timeout is not None:
                self._deadlines["blocked"] = now + timeout
        self._pressure_changed()
        self._invoke("on_blocked", None, self._handler.on_blocked, self, reason)

    def _recv_unblocked(self) -> None:
        if self._blocked_since is not None:
            self._counts.blocked_seconds += self._runtime.time() - self._blocked_since
            self._blocked_since = None
            self._deadlines.pop("blocked", None)
            self._update_clock()
        self._pressure_changed()
        self._invoke("on_unblocked", None, self._handler.on_unblocked, self)

    def _recv_reply(self, method: Method, arguments: tuple[Any, ...]) -> None:
        if not self._requests:
            raise MalformedData(f"{method.name} answers nothing", COMMAND_INVALID)
        request = self._requests.popleft()
        if self._requests:
            self._start_clock(self)
        else:
            self._stop_clock(self)
        request.answer(arguments)

    def _recv_late(self, number: int) -> None:
        """A frame for a number that no channel has.

        Raises:
            MalformedData: None ever had (504).
        """
        if not self._numbers.was_used(number):
            raise MalformedData(f"a frame on channel {number}, not open", CHANNEL_ERROR)
        self._counts.late_frames += 1
        self._numbers.came_late(number, self._runtime.time())

    def _recv_close(
        self, before: ConnectionState, code: int, text: str, class_id: int, method_id: int
    ) -> None:
        method = BY_KEY.get(class_id << 16 | method_id)
        # Also when ours is on its way already: the broker tells what happened, and we asked to go.
        self.reason = refusal(before, text, code, method.name if method else None)
        self._send_uncapped(method_frame(0, "connection.close-ok"))
        self._shut(TransportAction.CLOSE)

    def _recv_close_ok(self) -> None:
        self._shut(TransportAction.CLOSE)

    # Sending

    def _check_usable(self, what: str) -> None:
        if self.state is not ConnectionState.OPEN or self._owner != get_ident():
            raise self._foreign_caller(what) or self._unusable(what)

    def _unusable(self, what: str) -> UsageError:
        why = f": {self.reason}" if self.reason else ""
        return WrongState(f"{what}: connection is {self.state.value}{why}")

    def _invalidate_after_fork(self) -> None:
        super()._invalidate_after_fork()
        # The parent sends these bytes; sent twice they would wreck the stream that both share.
        self._output.clear()
        for channel in self._channels.values():
            channel._owner = channel._publisher = 0

    def _check_frame(self, what: str, size: int) -> None:
        """Raise BadArgument for a payload that the frames agreed on cannot hold."""
        if size > self.frame_max - FRAME_OVERHEAD:
            raise BadArgument(f"{what}: {size} bytes do not fit a frame of {self.frame_max}")

    def _send_method(self, number: int, name: str, *values: object) -> None:
        """Queue a method that is subject to the cap."""
        frame = method_frame(number, name, *values)
        self._check_frame(name, len(frame) - FRAME_OVERHEAD)
        output = self._output
        size = output.size + len(frame)
        if size > output.threshold:
            size = output.admit(len(frame))
        output.pieces.append(frame)
        output.size = size

    def _send_uncapped(self, frame: bytes) -> None:
        """Queue a frame beyond the cap; a peer that reads none of them is given up."""
        if not self._output.append_uncapped(frame) and self.state is not ConnectionState.CLOSED:
            text = f"the peer reads nothing: {self._output.size} bytes of replies wait"
            self._give_up(ConnectionClosed(text, by="network"))

    def _channel_ended(self, session: BaseChannel) -> None:
        self._channels.pop(session.number, None)
        self._stop_clock(session)
        self._counts.messages_published += session.published

    # Clocks

    @property
    def _request_timeout(self) -> float:
        return self._clock.timeout

    def _start_clock(self, waiting: BaseChannel | BaseConnection) -> None:
        self._clock.start(waiting, self._runtime.time())

    def _stop_clock(self, waiting: BaseChannel | BaseConnection) -> None:
        self._clock.stop(waiting)

    def _update_clock(self) -> None:
        """While we are blocked, cannot send or do not read, no answer can come: time stands."""
        now = self._runtime.time()
        if self.is_blocked or self._output.paused or not self.reading:
            self._clock.freeze(now)
        else:
            self._clock.thaw(now)

    def _expire(self) -> None:
        """A request of the connection itself was not answered."""
        request = self._requests[0]
        text = f"no answer to {request.method} in {self._clock.timeout:g} seconds"
        if self.is_open:
            self._close_because(ConnectionClosed(text, by="broker"))
        request.fail(RequestTimeout(text))

    def _due_open(self, now: float) -> None:
        self._give_up(
            HandshakeTimeout(
                f"no handshake in time: connection is {self.state.value}", by="network"
            )
        )

    def _due_heartbeat(self, now: float) -> None:
        heartbeat = self._heartbeat
        assert heartbeat is not None
        # Counted from now, not from when it was due: a late tick is one tick.
        self._deadlines["heartbeat"] = now + heartbeat.period
        beat = heartbeat.tick(reading=self.reading)
        if heartbeat.is_dead:
            text = f"no byte from the broker for {2 * self.heartbeat} seconds"
            self._give_up(HeartbeatTimeout(text, by="network"))
        elif beat and not self._output.size and self.state is not ConnectionState.CLOSING:
            # Behind our close nothing may follow; and it would pass for progress of the close.
            self._send_uncapped(HEARTBEAT_FRAME)

    def _due_blocked(self, now: float) -> None:
        del self._deadlines["blocked"]
        self._give_up(BlockedTimeout("the broker kept us blocked for too long", by="broker"))

    def _due_close(self, now: float) -> None:
        assert self.parameters is not None
        *before, limit = self._progress
        received, sent = self._moved()
        if [received, sent] != before and now < limit:
            self._progress = (received, sent, limit)
            self._deadlines["close"] = min(now + self.parameters.close_timeout, limit)
        else:
            self._shut(TransportAction.ABORT)

    def _moved(self) -> tuple[int, int]:
        """Bytes received and sent; heartbeats come during an alarm too, and get a close nowhere."""
        heartbeats = self._parser.heartbeats * len(HEARTBEAT_FRAME)
        return self._counts.bytes_received - heartbeats, self._counts.bytes_sent

    # Backpressure

    def _set_flow(self, number: int, active: bool) -> None:
        if active and number not in self._stopped_channels:
            return
        if active:
            self._stopped_channels.discard(number)
        else:
            self._stopped_channels.add(number)
        self._pressure_changed()

    def _is_pressed(self) -> bool:
        output = self._output
        return bool(output.is_full or output.paused or self._stopped_channels or self.is_blocked)

    def _pressure_changed(self) -> None:
        """Whatever makes up ``is_writable`` may have changed: tell each change on the next turn.

        Each, and not the last: who has seen False and stopped must be told True.
        """
        writable = self.is_open and not self._is_pressed()
        if writable is not self.is_writable:
            self.is_writable = writable
            self._defer(self._notify_writable, writable)

    def _notify_writable(self, writable: bool) -> None:
        if writable:
            self._resolve_writable_waiters()
        if self.is_open:
            self._invoke("on_writable", None, self._handler.on_writable, self, writable)

    def _resolve_writable_waiters(self) -> None:
        waiters, self._writable_waiters = self._writable_waiters, []
        for waiter in waiters:
            waiter.resolve(None)

    # The end

    def _close_because(self, reason: ConnectionClosed) -> None:
        """Say connection.close; the end comes with the broker's answer."""
        code = REPLY_SUCCESS if reason.code is None else reason.code
        close = method_frame(0, "connection.close", code, reason.reply_text, 0, 0)
        self.reason = reason
        self.state = ConnectionState.CLOSING
        self.is_writable = False
        for channel in list(self._channels.values()):
            channel._connection_closing()
        # The answer has to be read.
        self.reading = True
        self._parser.stopped = False
        self._update_clock()
        self._send_uncapped(close)
        self._arm_close()

    def _protocol_error(self, error: MalformedData) -> None:
        """The peer broke the protocol: say so, and read nothing more."""
        log.debug("%r: protocol error %d: %.200s", self, error.code, error)
        if self.reason is None:
            reason = self.reason = ProtocolError(str(error), code=error.code, by="broker")
            reason.__cause__ = _bare(error)
            self._send_uncapped(
                method_frame(0, "connection.close", error.code, reason.reply_text, 0, 0)
            )
        self._shut(TransportAction.CLOSE)

    def _give_up(self, reason: ConnectionClosed) -> None:
        """Nothing that we might still say would help."""
        if self.reason is None:
            self.reason = reason
        self._shut(TransportAction.ABORT)

    def _shut(self, transport_action: TransportAction) -> None:
        """Parse nothing more; let the driver close or abort the transport."""
        self.state = ConnectionState.CLOSED
        self.is_writable = False
        self.transport_action = transport_action
        self._parser.stopped = True
        self._parser.clear_templates()
        for channel in self._channels.values():
            channel._connection_closing()
        for name in ("open", "heartbeat", "blocked"):
            self._deadlines.pop(name, None)
        self._clock = RequestClock(self._clock.timeout)
        if transport_action is TransportAction.ABORT:
            self._deadlines.pop("close", None)
        elif "close" not in self._deadlines:
            self._arm_close()
        self._runtime.output_ready()

    def _arm_close(self) -> None:
        assert self.parameters is not None
        now = self._runtime.time()
        self._progress = (*self._moved(), now + self.parameters.close_limit)
        self._deadlines["close"] = now + min(
            self.parameters.close_timeout, self.parameters.close_limit
        )
        # While the transport is paused, output that grows tells nobody.
        self._runtime.output_ready()

    def _loss(self, exc: BaseException | None) -> ConnectionClosed:
        if isinstance(exc, ConnectionClosed):
            return exc
        reason = loss(self.state, self.parameters, self._parser.greeting)
        if exc is not None:
            reason = type(reason)(f"{reason.text}: {exc}", by=reason.by)
            reason.__cause__ = exc
        return reason

    def _end(self, reason: ConnectionClosed) -> None:
        """Tell everybody who waits, in order: channels, our own requests, on_close last."""
        self.state = ConnectionState.CLOSED
        self.is_writable = False
        self._deadlines.clear()
        culprit = self._blamed_request(reason)
        for channel in list(self._channels.values()):
            channel._connection_ended(reason, culprit)
        for request in self._requests:
            self._defer(request.fail, NotExecuted(str(request), reason))
        for waiter in (*self._open_waiters, *self._writable_waiters):
            self._defer(waiter.fail, reason.copy())
        self._requests.clear()
        self._open_waiters.clear()
        self._writable_waiters.clear()
        self._clock = RequestClock(0.0)
        self._defer(self._notify_end, reason)
        self._run_deferred()

    def _blamed_request(self, reason: ConnectionClosed) -> Request[Any] | None:
        """The request that ended the connection; None if that cannot be told."""
        blamed = [channel._blamed_request(reason.method) for channel in self._channels.values()]
        possible = [request for request in blamed if request is not None]
        return possible[0] if len(possible) == 1 else None

    def _notify_end(self, reason: ConnectionClosed) -> None:
        if self._is_over:  # a signal interrupted the first time, and it was begun anew
            return
        self._is_over = True
        for waiter in self._close_waiters:
            waiter.resolve(reason)
        self._close_waiters.clear()
        handler = self._handler
        name = "on_close" if self._was_open else "on_open_error"
        try:
            self._invoke(name, None, getattr(handler, name), self, reason)
        finally:
            # No reference cycle may survive the connection.
            self._handler = Handler()
            self._parser.detach()
            self._output.detach()


def _bare(error: E) -> E:
    """An error of ours without its traceback.

    The frames hold the connection, which will hold the error as its reason: a cycle.
    """
    error.__traceback__ = None
    if error.__suppress_context__:
        error.__context__ = None
    return error


def _as_closed(error: AmqpError) -> ConnectionClosed:
    """An error of our own side, met while answering the broker."""
    if isinstance(error, ConnectionClosed):
        return error
    reason = ConnectionClosed(str(error) or type(error).__name__, by="client")
    reason.__cause__ = error
    return reason
