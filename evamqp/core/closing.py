"""How a connection ends: the last frames, the transport, and the last callbacks.

Its callers decide why it ends: each end is one call of ``end``, and the last step is ``finish``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from evamqp.codec.frames import HEARTBEAT_FRAME, method_frame
from evamqp.core.handshake import loss
from evamqp.core.request import Request
from evamqp.core.state import ConnectionState, TransportAction
from evamqp.errors import (
    REPLY_SUCCESS,
    AmqpError,
    ConnectionClosed,
    E,
    MalformedData,
    NotExecuted,
    ProtocolError,
)

if TYPE_CHECKING:
    from evamqp.core.context import Context
    from evamqp.core.control_channel import ControlChannel
    from evamqp.core.stalls import Stalls
    from evamqp.parameters import Parameters


class ClosingConnection(Protocol):
    """What closing reads and sets of its connection."""

    state: ConnectionState
    reason: ConnectionClosed | None
    parameters: Parameters | None
    transport_action: TransportAction
    reading: bool
    heartbeat: int

    @property
    def label(self) -> str: ...


class Closing:
    """The end of one connection.

    Args:
        connection: Held weakly, so that no reference cycle arises.
        context: What the connection shares with its channels.
        control: Channel 0; what waits there fails with the connection.
        ready: Wakes the driver.
        stalls: Why the broker may have closed the connection.

    Attributes:
        is_over: Whether the last callback was made.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_control",
        "_progress",
        "_ready",
        "_stalls",
        "_waiters",
        "is_over",
    )

    def __init__(
        self,
        connection: ClosingConnection,
        context: Context,
        control: ControlChannel,
        ready: Callable[[], object],
        stalls: Stalls,
    ) -> None:
        self._connection = weakref.ref(connection)
        self._context = context
        self._control = control
        self._ready = ready
        self._stalls = stalls
        self._waiters: list[tuple[Request[ConnectionClosed], bool]] = []
        self._progress = (0, 0, 0.0)  # bytes received and sent when last looked at; the limit
        self.is_over: bool = False

    @property
    def _closing(self) -> ClosingConnection:
        connection = self._connection()
        assert connection is not None
        return connection

    def end(
        self, reason: ConnectionClosed | None, action: TransportAction, frame: bytes = b""
    ) -> None:
        """End the connection, in one of three ways.

        Args:
            reason: Why, unless there is a reason already.
            action: KEEP awaits the broker's answer to ``frame``.  CLOSE and ABORT parse nothing
                more, and have the driver close the transport behind the output, or at once.
            frame: Sent before.
        """
        connection, context = self._closing, self._context
        is_final = action is not TransportAction.KEEP
        if connection.reason is None:
            connection.reason = reason
        connection.state = ConnectionState.CLOSED if is_final else ConnectionState.CLOSING
        connection.transport_action = action
        context.backpressure.close()
        for channel in context.channels.all():
            channel.connection_closing(is_final)
        context.parser.stopped = is_final
        if is_final:
            context.parser.clear_templates()
            context.clock.clear()
            self._control.deadlines.cancel("open", "heartbeat", "blocked", "renewal")
        else:
            connection.reading = True  # the answer has to be read
            self._control.update_clock()
        if frame:
            context.output.append_uncapped(frame)
        if connection.transport_action is TransportAction.ABORT:
            self._control.deadlines.cancel("close")
        elif "close" not in self._control.deadlines:
            self._arm()
        # While the transport is paused, output that grows wakes nothing.
        self._ready()

    def close(self, reason: ConnectionClosed) -> None:
        """Send connection.close; the end comes with the broker's answer."""
        self.end(reason, TransportAction.KEEP, _close_frame(reason, reason.code))

    def protocol_error(self, error: MalformedData) -> None:
        """The peer broke the protocol: report that to it, and read nothing more."""
        reason = ProtocolError(str(error), code=error.code, by="broker")
        reason.__cause__ = _bare(error)
        is_first = self._closing.reason is None
        frame = _close_frame(reason, error.code) if is_first else b""
        self.end(reason, TransportAction.CLOSE, frame)

    def abort(self, error: AmqpError) -> None:
        """End without a word to the peer; the error is the reason, or its cause."""
        self.end(_as_closed(_bare(error)), TransportAction.ABORT)

    def overrun(self) -> None:
        """The peer reads none of what is sent regardless of the cap."""
        if self._closing.state is not ConnectionState.CLOSED:
            text = f"the peer reads nothing: {self._context.output.size} bytes of replies wait"
            self.abort(ConnectionClosed(text, by="network"))

    # The bounded wait for an answer

    def _arm(self) -> None:
        parameters = self._closing.parameters
        assert parameters is not None
        now = self._control.time()
        self._progress = (*self._moved(), now + parameters.close_limit)
        at = now + min(parameters.close_timeout, parameters.close_limit)
        self._control.deadlines.set("close", at, self._due)

    def _due(self, now: float) -> None:
        parameters = self._closing.parameters
        assert parameters is not None
        *before, limit = self._progress
        received, sent = self._moved()
        if [received, sent] != before and now < limit:
            self._progress = (received, sent, limit)
            at = min(now + parameters.close_timeout, limit)
            self._control.deadlines.set("close", at, self._due)
        else:
            self.end(None, TransportAction.ABORT)

    def _moved(self) -> tuple[int, int]:
        """Bytes received and sent; heartbeats come during an alarm too, and get a close nowhere."""
        heartbeats = self._context.parser.heartbeats * len(HEARTBEAT_FRAME)
        stats = self._context.stats
        return stats.bytes_received - heartbeats, stats.bytes_sent

    # The last step

    def lost(self, exc: BaseException | None) -> None:
        """The transport is gone: complete everything that waits."""
        connection = self._closing
        reason = connection.reason
        if reason is None:
            reason = connection.reason = self._loss(exc)
        connection.transport_action = TransportAction.ABORT
        self._finish(reason)

    def _loss(self, exc: BaseException | None) -> ConnectionClosed:
        if isinstance(exc, ConnectionClosed):
            return exc
        connection = self._closing
        reason = loss(
            connection.state,
            connection.parameters,
            connection.label,
            self._context.parser.greeting,
            self._control.handshake,
        )
        stall = self._stalls.cause_of_loss(connection.heartbeat, self._control.time())
        if stall:
            reason = ConnectionClosed(f"{reason.text}: {stall}", by="network")
        if exc is not None:
            reason = type(reason)(f"{reason.text}: {exc}", by=reason.by)
            reason.__cause__ = exc
        return reason

    def _finish(self, reason: ConnectionClosed) -> None:
        """Complete in order: channels, our own requests, on_close last."""
        context, control = self._context, self._control
        defer = context.callbacks.defer
        self._closing.state = ConnectionState.CLOSED
        context.backpressure.close()
        control.deadlines.clear()
        culprit = self._blamed_request(reason)
        for channel in context.channels.all():
            channel.connection_ended(reason, culprit)
        for request in control.take_requests():
            defer(request.fail, NotExecuted(str(request), reason))
        for waiter in (*control.take_open_waiters(), *context.backpressure.take_waiters()):
            defer(waiter.fail, reason.copy())
        context.clock.clear()
        defer(self._notify, reason)
        context.callbacks.run_deferred()

    def _blamed_request(self, reason: ConnectionClosed) -> Request[Any] | None:
        """The request that ended the connection; None if several may have."""
        channels = self._context.channels.all()
        blamed = [channel.blamed_request(reason.method) for channel in channels]
        possible = [request for request in blamed if request is not None]
        return possible[0] if len(possible) == 1 else None

    def wait(self, request: Request[ConnectionClosed], *, check: bool) -> None:
        """Complete the request at the end; see ``report_end``."""
        self._waiters.append((request, check))

    def _notify(self, reason: ConnectionClosed) -> None:
        if self.is_over:  # a signal interrupted the first time, and it was begun anew
            return
        self.is_over = True
        for waiter, check in self._waiters:
            report_end(waiter, reason, check=check)
        self._waiters.clear()
        control = self._control
        name = "on_close" if control.was_open else "on_open_error"
        try:
            control.invoke(name, getattr(control.handler, name), control.connection, reason)
        finally:
            # No reference cycle may survive the connection.
            control.detach()
            self._context.parser.detach()
            self._context.output.detach()
            self._context.backpressure.detach()


def _close_frame(reason: ConnectionClosed, code: int | None) -> bytes:
    number = REPLY_SUCCESS if code is None else code
    return method_frame(0, "connection.close", number, reason.reply_text, 0, 0)


def _bare(error: E) -> E:
    """An error of ours without its traceback.

    The frames hold the connection, which will hold the error as its reason: a cycle.
    """
    error.__traceback__ = None
    if error.__suppress_context__:
        error.__context__ = None
    return error


def report_end(
    request: Request[ConnectionClosed], reason: ConnectionClosed, *, check: bool
) -> None:
    """Resolve a request with the reason; ``check`` fails it unless the user closed."""
    if check and (reason.by != "client" or type(reason) is not ConnectionClosed):
        request.fail(reason.copy())
    else:
        request.resolve(reason)


def _as_closed(error: AmqpError) -> ConnectionClosed:
    """An error of our own side, met while answering the broker."""
    if isinstance(error, ConnectionClosed):
        return error
    reason = ConnectionClosed(str(error) or type(error).__name__, by="client")
    reason.__cause__ = error
    return reason
