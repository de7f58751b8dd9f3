"""Channel 0: the handshake, alarms, and the answers to requests of the connection itself.

How the connection ends is ``closing.py``; nothing of other channels is known here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from evamqp.codec.frames import HEARTBEAT_FRAME, method_frame
from evamqp.codec.methods import decode_arguments
from evamqp.codec.spec import BY_KEY, BY_NAME, Method
from evamqp.core.closing import ClosingConnection
from evamqp.core.handshake import Handshake, Limits, negotiate, refusal
from evamqp.core.heartbeat import Heartbeat
from evamqp.core.request import Request
from evamqp.core.secret import Secret
from evamqp.core.state import CONNECTION, ConnectionState, TransportAction, resolve
from evamqp.errors import (
    COMMAND_INVALID,
    AuthenticationFailed,
    BlockedTimeout,
    ConnectionClosed,
    HandshakeTimeout,
    HeartbeatTimeout,
    MalformedData,
    RequestTimeout,
)
from evamqp.types import Callback, ErrorCallback, Table

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Promise
    from evamqp.core.closing import Closing
    from evamqp.core.context import Context
    from evamqp.core.deadlines import Deadlines
    from evamqp.credentials import Credentials


class ControlledConnection(ClosingConnection, Protocol):
    """What the control channel reads and sets of its connection."""

    server_properties: Table
    user: str | None
    channel_max: int
    frame_max: int
    heartbeat: int

    @property
    def adapter(self) -> Adapter: ...


class ConnectionEvents(Protocol):
    """What the control channel calls of a Handler."""

    def on_open(self, connection: Any) -> object: ...
    def on_blocked(self, connection: Any, reason: str) -> object: ...
    def on_unblocked(self, connection: Any) -> object: ...
    def on_writable(self, connection: Any, writable: bool) -> object: ...


class ControlChannel:
    """The state machine of channel 0, and the host of the connection's own requests.

    Args:
        connection: Held weakly, so that no reference cycle arises.
        handler: Called back.
        make_reporter: Makes what reports to a handler that a callback raised.

    Attributes:
        handshake: The login; None before it and after it.
    """

    __slots__ = (
        "_connection",
        "_make_reporter",
        "_open_waiters",
        "_requests",
        "_secret",
        "_secret_asked",
        "closing",
        "context",
        "deadlines",
        "handler",
        "handshake",
        "heartbeat",
        "time",
        "was_open",
    )

    def __init__(
        self,
        connection: ControlledConnection,
        handler: ConnectionEvents,
        time: Callable[[], float],
        deadlines: Deadlines,
        make_reporter: Callable[..., Callable[[BaseException], object]],
    ) -> None:
        self._connection = weakref.ref(connection)
        self.handler: Any = handler
        self.time: Callable[[], float] = time
        self.deadlines: Deadlines = deadlines
        self._make_reporter = make_reporter
        self.context: Context
        self.closing: Closing
        self.handshake: Handshake | None = None
        self._secret: Secret | None = None
        self._secret_asked = 0.0  # when
        self.heartbeat: Heartbeat | None = None
        self._requests: list[Request[Any]] = []
        self._open_waiters: list[Request[None]] = []
        self.was_open: bool = False

    @property
    def connection(self) -> ControlledConnection:
        connection = self._connection()
        assert connection is not None
        return connection

    # The host of requests, and the source of callbacks

    def check_caller(self, what: str) -> None:
        self.context.callbacks.check_caller(what)

    def create_future(self) -> Promise:
        return self.context.callbacks.create_future()

    def defer(self, function: Callable[..., object], *arguments: object) -> None:
        self.context.callbacks.defer(function, *arguments)

    def invoke(self, name: str, function: Callable[..., object], *arguments: object) -> None:
        self.context.callbacks.invoke(name, self, function, *arguments)

    def reporter(self, name: str, message: Any) -> Callable[[BaseException], object]:
        callbacks, connection = self.context.callbacks, self._connection()
        return self._make_reporter(callbacks, self.handler, name, connection, None, message)

    # What comes in

    def recv_method(self, method: Method, payload: bytes) -> None:
        """A method frame on channel 0.

        Raises:
            MalformedData: It is malformed, or may not come in this state.
        """
        connection = self.connection
        step = _STEPS[connection.state].get(method.name)
        if step is None:
            raise MalformedData(
                f"{method.name} on channel 0 of a connection that is {connection.state.value}",
                COMMAND_INVALID,
            )
        arguments = decode_arguments(method, payload)
        handler, state = step
        if handler is ControlChannel._recv_close:
            self._recv_close(*arguments)
            return
        connection.state = state
        if handler is ControlChannel._recv_reply:
            self._recv_reply(method, arguments)
        else:
            handler(self, *arguments)

    def _recv_start(self, *arguments: Any) -> None:
        connection = self.connection
        assert connection.parameters is not None
        self.handshake = Handshake(connection.parameters)
        connection.server_properties = arguments[2]
        self.handshake.recv_start(*arguments)
        self._secret = Secret(connection.parameters, connection.adapter)
        self._ask_secret(self._log_in)

    def _ask_secret(self, answered: Callable[..., object]) -> None:
        assert self._secret is not None
        self._secret_asked = self.time()
        # Deferred: an async source answers outside of the driver's steps.
        self._secret.ask(partial(self.defer, answered))

    def _log_in(self, credentials: Credentials | None, error: AuthenticationFailed | None) -> None:
        if self.handshake is None or self.connection.state is not ConnectionState.AUTHENTICATING:
            return
        if credentials is not None:
            self.connection.user = credentials.username
            try:
                self._send(self.handshake.start_ok(credentials))
                return
            except AuthenticationFailed as failed:
                error = failed
        assert error is not None
        self.closing.abort(error)

    def _recv_secure(self, challenge: bytes) -> None:
        assert self.handshake is not None
        self._send(self.handshake.secure_ok(challenge))

    def _recv_tune(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        connection = self.connection
        parameters = connection.parameters
        assert parameters is not None
        limits = negotiate(Limits(channel_max, frame_max, heartbeat), parameters)
        connection.channel_max, connection.frame_max, connection.heartbeat = limits
        self.context.limits.frame_max = connection.frame_max
        self.context.parser.set_limits(
            connection.frame_max, parameters.header_max, parameters.body_max
        )
        self.handshake = None
        self._send(method_frame(0, "connection.tune-ok", *limits))
        self._send(method_frame(0, "connection.open", parameters.virtual_host))
        if connection.heartbeat:
            self.heartbeat = Heartbeat(connection.heartbeat)
            self._await_beat(self.time())

    def _recv_open_ok(self) -> None:
        self.deadlines.cancel("open")
        self.was_open = True
        self._await_renewal()
        for waiter in self.take_open_waiters():
            self.defer(waiter.resolve, None)
        self.context.backpressure.open()
        self.invoke("on_open", self.handler.on_open, self.connection)

    def _recv_blocked(self, reason: str) -> None:
        connection = self.connection
        backpressure = self.context.backpressure
        if not backpressure.is_blocked:
            now = self.time()
            backpressure.block(now)
            self.update_clock()
            timeout = connection.parameters.blocked_timeout if connection.parameters else None
            if timeout is not None:
                self.deadlines.set("blocked", now + timeout, self._due_blocked)
        backpressure.changed()
        self.invoke("on_blocked", self.handler.on_blocked, connection, reason)

    def _recv_unblocked(self) -> None:
        backpressure = self.context.backpressure
        if backpressure.is_blocked:
            self.context.stats.blocked_seconds += backpressure.unblock(self.time())
            self.deadlines.cancel("blocked")
            self.update_clock()
        backpressure.changed()
        self.invoke("on_unblocked", self.handler.on_unblocked, self.connection)

    def _recv_reply(self, method: Method, arguments: tuple[Any, ...]) -> None:
        if not self._requests:
            raise MalformedData(f"{method.name} answers nothing", COMMAND_INVALID)
        request = self._requests.pop(0)
        if self._requests:
            self.context.clock.start(self)
        else:
            self.context.clock.stop(self)
        request.answer(arguments)

    def _recv_close(self, code: int, text: str, class_id: int, method_id: int) -> None:
        connection = self.connection
        method = BY_KEY.get(class_id << 16 | method_id)
        # Also when ours is on its way already: the broker says what happened, we only asked to go.
        connection.reason = refusal(
            connection.state, connection.label, text, code, method.name if method else None
        )
        close_ok = method_frame(0, "connection.close-ok")
        self.closing.end(connection.reason, TransportAction.CLOSE, close_ok)

    def _recv_close_ok(self) -> None:
        self.closing.end(None, TransportAction.CLOSE)

    def close_answered(self, number: int) -> None:
        """A channel.close-ok came for a number that no channel has."""
        self.context.channels.numbers.answered(number)

    # What goes out

    def await_open(self, timeout: float) -> None:
        """Bound the handshake, in seconds."""
        self.deadlines.set("open", self.time() + timeout, self._due_open)

    def request(
        self, name: str, *values: object, finish: Callable[..., Any],
        callback: Callback[Any] | None, on_error: ErrorCallback | None,
    ) -> Request[Any]:  # fmt: skip
        """Send a request of the connection itself, and queue for its reply."""
        self.context.send_method(self.context.output, 0, name, *values)
        replies = BY_NAME[name].replies
        request: Request[Any] = Request(
            self, name, replies=replies, finish=finish, callback=callback, on_error=on_error
        )
        self._requests.append(request)
        if len(self._requests) == 1:
            self.context.clock.start(self)
        return request

    def _send(self, frame: bytes) -> None:
        self.context.output.append_uncapped(frame)

    # Time

    def update_clock(self) -> None:
        """While we are blocked, cannot send or do not read, no answer can come: pause."""
        context = self.context
        context.clock.pause(
            context.backpressure.is_blocked or context.output.paused or not self.connection.reading
        )

    def expire(self) -> None:
        """A request of the connection itself was not answered."""
        request = self._requests[0]
        text = f"no answer to {request.method} in {self.context.clock.timeout:g} seconds"
        if self.connection.state is ConnectionState.OPEN:
            self.closing.close(ConnectionClosed(text, by="broker"))
        request.fail(RequestTimeout(text))

    def _due_open(self, now: float) -> None:
        text = f"no handshake in time: connection is {self.connection.state.value}"
        self.closing.end(HandshakeTimeout(text, by="network"), TransportAction.ABORT)

    def _await_beat(self, now: float) -> None:
        assert self.heartbeat is not None
        self.deadlines.set("heartbeat", now + self.heartbeat.period, self._due_heartbeat)

    def _due_heartbeat(self, now: float) -> None:
        connection, heartbeat = self.connection, self.heartbeat
        assert heartbeat is not None
        # Counted from now, not from when it was due: a late tick is one tick.
        self._await_beat(now)
        beat = heartbeat.tick(reading=connection.reading)
        if heartbeat.is_dead:
            text = f"no byte from the broker for {2 * connection.heartbeat} seconds"
            self.closing.end(HeartbeatTimeout(text, by="network"), TransportAction.ABORT)
        elif (
            beat
            and not self.context.output.size
            and connection.state is not ConnectionState.CLOSING
        ):
            # Behind our close nothing may follow; and it would pass for progress of the close.
            self._send(HEARTBEAT_FRAME)

    def _due_blocked(self, now: float) -> None:
        self.deadlines.cancel("blocked")
        text = "the broker kept us blocked for too long"
        self.closing.end(BlockedTimeout(text, by="broker"), TransportAction.ABORT)

    # Credentials that expire

    def _await_renewal(self) -> None:
        after = None if self._secret is None else self._secret.renew_after
        if after is not None:
            self.deadlines.set("renewal", self._secret_asked + after, self._due_renewal)

    def _due_renewal(self, now: float) -> None:
        self.deadlines.cancel("renewal")
        self._ask_secret(self._renew)

    def _renew(self, credentials: Credentials | None, error: AuthenticationFailed | None) -> None:
        connection, secret = self._connection(), self._secret
        if connection is None or secret is None or connection.state is not ConnectionState.OPEN:
            return
        if credentials is not None:
            self.request(
                "connection.update-secret", credentials.password, "renewed",
                finish=_none, callback=None, on_error=None,
            )  # fmt: skip
            self._await_renewal()
            return
        assert error is not None
        self.reporter("credentials", None)(error)
        self.deadlines.set("renewal", self.time() + secret.retry_after, self._due_renewal)

    # Who waits

    def await_opened(self, request: Request[None]) -> None:
        """Resolve the request when the connection is open."""
        self._open_waiters.append(request)

    def take_open_waiters(self) -> list[Request[None]]:
        """Those who wait for the opening; they are not resolved any more."""
        waiters, self._open_waiters = self._open_waiters, []
        return waiters

    def take_requests(self) -> list[Request[Any]]:
        """The requests that the broker has not answered, and will not."""
        requests = list(self._requests)
        self._requests.clear()
        return requests

    def detach(self) -> None:
        """Let go of the handler and the closing, so that no reference cycle is left."""
        self.handler = None
        if self._secret is not None:
            self._secret.stop()
            self._secret = None
        del self.closing

    def report_writable(self, writable: bool) -> None:
        self.invoke("on_writable", self.handler.on_writable, self.connection, writable)


def _none() -> None:
    """The result of connection.update-secret."""


_STEPS = resolve(CONNECTION, ControlChannel)
