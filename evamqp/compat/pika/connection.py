"""pika.connection: parameters, and what every callback connection can do.

One evamqp.Connection lives under it at a time; which loop it runs on is the subclass's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import evamqp

from . import _reasons, exceptions, spec, validators
from ._eras import Era, close_callback
from ._old_reasons import of_era
from ._parameters import ConnectionParameters, Parameters, SSLOptions, URLParameters
from ._targets import to_target
from .adapters.utils import connection_workflow as workflow
from .callback import CallbackManager
from .channel import Channel
from .frame import Method

if TYPE_CHECKING:
    from evamqp.abc import Adapter

__all__ = ["Connection", "ConnectionParameters", "Parameters", "SSLOptions", "URLParameters"]

LOGGER = logging.getLogger(__name__)
PRODUCT = "Pika Python Client Library"


class Connection:
    """What every callback connection can do; made by a subclass, which brings a loop.

    Attributes:
        params: The parameters in use.
        callbacks: Who waits for what.
        server_properties: What the broker said about itself; None before.
        server_capabilities: Its capabilities; None before.
        known_hosts: Always empty.
        connection_state: One of the constants.
    """

    ON_CONNECTION_CLOSED = "_on_connection_closed"
    ON_CONNECTION_ERROR = "_on_connection_error"
    ON_CONNECTION_OPEN_OK = "_on_connection_open_ok"

    CONNECTION_CLOSED = 0
    CONNECTION_INIT = 1
    CONNECTION_PROTOCOL = 2
    CONNECTION_START = 3
    CONNECTION_TUNE = 4
    CONNECTION_OPEN = 5
    CONNECTION_CLOSING = 6

    _STATE_NAMES = {  # noqa: RUF012
        CONNECTION_CLOSED: "CLOSED", CONNECTION_INIT: "INIT", CONNECTION_PROTOCOL: "PROTOCOL",
        CONNECTION_START: "START", CONNECTION_TUNE: "TUNE", CONNECTION_OPEN: "OPEN",
        CONNECTION_CLOSING: "CLOSING",
    }  # fmt: skip

    _adapter: Adapter

    def __init__(
        self,
        parameters: Parameters | None = None,
        on_open_callback: Callable[[Any], object] | None = None,
        on_open_error_callback: Callable[[Any, BaseException], object] | None = None,
        on_close_callback: Callable[..., object] | None = None,
        internal_connection_workflow: bool = True,
    ) -> None:
        if parameters is not None and not isinstance(parameters, Parameters):
            raise ValueError(f"Expected instance of Parameters, not {parameters!r}")
        self.params: ConnectionParameters | Parameters = (
            ConnectionParameters() if parameters is None else parameters
        )
        self.callbacks: CallbackManager = CallbackManager()
        self.connection_state: int = self.CONNECTION_INIT
        self.server_properties: dict[str, Any] | None = None
        self.server_capabilities: dict[str, Any] | None = None
        self.known_hosts = ""
        self._era = Era()
        self._core: evamqp.Connection | None = None
        self._channels: dict[int, Channel] = {}
        self._failure: exceptions.AMQPConnectionError | None = None
        self._has_error_callback = False
        self._aborted: BaseException | None = None
        self._workflow: workflow.AMQPConnectionWorkflow | None = None
        if on_open_callback is not None:
            self.add_on_open_callback(on_open_callback)
        if on_open_error_callback is not None:
            self.add_on_open_error_callback(on_open_error_callback)
        if on_close_callback is not None:
            self.add_on_close_callback(on_close_callback)
        if internal_connection_workflow:
            self._workflow = workflow.AMQPConnectionWorkflow(_until_first_amqp_attempt=True)
            self._workflow.set_io_services(self._adapter)
            self._workflow.start([self.params], self._make_connector, None, self._on_workflow_done)

    def __repr__(self) -> str:
        state = self._STATE_NAMES[self.connection_state]
        core = self._core
        transport = core if core is not None and core.is_open else None
        return f"<{type(self).__name__} {state} transport={transport!r} params={self.params!r}>"

    # Callbacks

    def add_on_close_callback(self, callback: Callable[..., object]) -> None:
        """Have it called when the connection has ended: ``(connection, exception)``."""
        validators.require_callback(callback)
        self._add(self.ON_CONNECTION_CLOSED, close_callback(callback, self._era), one_shot=False)

    def add_on_open_callback(self, callback: Callable[[Any], object]) -> None:
        """Have it called when the connection is open: ``(connection)``."""
        validators.require_callback(callback)
        self._add(self.ON_CONNECTION_OPEN_OK, callback, one_shot=False)

    def add_on_open_error_callback(
        self, callback: Callable[[Any, BaseException], object], remove_default: bool = True
    ) -> None:
        """Have it called when the connection cannot be opened: ``(connection, exception)``.

        Args:
            remove_default: Do not raise the exception from the loop, as is done without callback.
        """
        validators.require_callback(callback)
        self._has_error_callback = self._has_error_callback or remove_default
        self._add(self.ON_CONNECTION_ERROR, callback, one_shot=False)

    def add_on_connection_blocked_callback(self, callback: Callable[[Any, Method], object]) -> None:
        """Have it called when the broker asks us not to publish: ``(connection, frame)``."""
        validators.require_callback(callback)
        self._add(spec.Connection.Blocked, partial(callback, self), one_shot=False)

    def add_on_connection_unblocked_callback(
        self, callback: Callable[[Any, Method], object]
    ) -> None:
        """Have it called when that is over: ``(connection, frame)``."""
        validators.require_callback(callback)
        self._add(spec.Connection.Unblocked, partial(callback, self), one_shot=False)

    def remove_on_close_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_close_callback``; whether it was there."""
        return self._remove(self.ON_CONNECTION_CLOSED, callback)

    def remove_on_open_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_open_callback``; whether it was there."""
        return self._remove(self.ON_CONNECTION_OPEN_OK, callback)

    def remove_on_open_error_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_open_error_callback``; whether it was there."""
        return self._remove(self.ON_CONNECTION_ERROR, callback)

    def remove_on_connection_blocked_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_connection_blocked_callback``; whether it was there."""
        return self._remove(spec.Connection.Blocked, callback)

    def remove_on_connection_unblocked_callback(self, callback: Callable[..., object]) -> bool:
        """Undo ``add_on_connection_unblocked_callback``; whether it was there."""
        return self._remove(spec.Connection.Unblocked, callback)

    def _remove(self, key: Any, callback: Callable[..., object]) -> bool:
        return self.callbacks.remove_added(0, key, callback)

    def _add(self, key: Any, callback: Callable[..., object], *, one_shot: bool) -> None:
        self.callbacks.add(0, key, callback, one_shot)

    # What it is

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.connection_state == self.CONNECTION_CLOSED

    @property
    def is_closing(self) -> bool:
        """Whether we have asked for its end."""
        return self.connection_state == self.CONNECTION_CLOSING

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self.connection_state == self.CONNECTION_OPEN

    @property
    def basic_nack(self) -> bool:
        """Whether the broker knows ``Basic.Nack``."""
        return self._can("basic.nack")

    @property
    def accept_consumer_cancel_ok(self) -> bool:
        """Whether the broker takes a ``Basic.CancelOk`` for a consumer that it cancelled."""
        return self._can("accept_consumer_cancel_ok")

    @property
    def consumer_cancel_notify(self) -> bool:
        """Whether the broker notifies clients of consumers that it cancelled."""
        return self._can("consumer_cancel_notify")

    @property
    def exchange_exchange_bindings(self) -> bool:
        """Whether exchanges can be bound to exchanges."""
        return self._can("exchange_exchange_bindings")

    @property
    def publisher_confirms(self) -> bool:
        """Whether the broker confirms publishes."""
        return self._can("publisher_confirms")

    basic_nack_supported = basic_nack
    consumer_cancel_notify_supported = consumer_cancel_notify
    exchange_exchange_bindings_supported = exchange_exchange_bindings
    publisher_confirms_supported = publisher_confirms

    def _can(self, capability: str) -> bool:
        return bool((self.server_capabilities or {}).get(capability))

    @property
    def bytes_sent(self) -> int:
        """Bytes sent so far."""
        return 0 if self._core is None else self._core.stats.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that came so far."""
        return 0 if self._core is None else self._core.stats.bytes_received

    @property
    def _transport(self) -> _Transport | None:
        """pika's own, by which programs look how much waits to be sent."""
        return None if self._core is None else _Transport(self._core)

    # Verbs

    def channel(
        self,
        channel_number: Any = None,
        on_open_callback: Any = None,
    ) -> Channel:
        """Open a channel; ``on_open_callback(channel)`` comes when it may be used.

        Args:
            channel_number: None takes one that is free, mostly one that was not used before.

        Raises:
            ConnectionWrongStateError: The connection is not open.
            NoFreeChannels: All numbers are in use.
        """
        if callable(channel_number):  # 0.x: (on_open_callback, channel_number)
            self._era.saw_old()
            channel_number, on_open_callback = on_open_callback, channel_number
        if not self.is_open or self._core is None:
            raise of_era(
                exceptions.ConnectionWrongStateError(
                    f"Channel allocation requires an open connection: {self!r}"
                ),
                self._era,
            )
        validators.rpc_completion_callback(on_open_callback)
        self._check_number(channel_number or None)
        channel = Channel(self, 0, on_open_callback)
        try:
            core = self._open_channel(channel, channel_number or None)
        except evamqp.WrongState as error:
            raise exceptions.ConnectionWrongStateError(str(error)) from error
        channel._attach(core)
        self._channels[core.number] = channel
        return channel

    def _check_number(self, wanted: Any) -> None:
        assert self._core is not None
        highest = self._core.channel_max
        if wanted is None:
            if len(self._channels) >= highest:
                raise exceptions.NoFreeChannels()
        elif not isinstance(wanted, int) or not 0 < wanted <= highest:
            raise exceptions.InvalidChannelNumber(wanted)
        elif wanted in self._channels:
            raise exceptions.InvalidChannelNumber(wanted, "in use")

    def _open_channel(self, channel: Channel, wanted: int | None) -> evamqp.Channel:
        assert self._core is not None
        try:
            return self._core.channel(channel._handler, number=wanted)
        except evamqp.WrongState:
            if wanted is not None or not self._core.is_open:
                raise
        # Every number that is left rests from a channel that the broker closed.  pika would not
        # wait for the end of that.
        numbers = range(1, self._core.channel_max + 1)
        lowest = next(number for number in numbers if number not in self._channels)
        return self._core.channel(channel._handler, number=lowest)

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> None:
        """Close it, its channels first.  One that is not open yet is aborted.

        Raises:
            ConnectionWrongStateError: It is closing or closed; in 0.x's era nothing is raised.
        """
        if self.is_closing or self.is_closed:
            if self._era.is_old:
                return
            state = self._STATE_NAMES[self.connection_state]
            raise exceptions.ConnectionWrongStateError(
                f"Illegal close({reply_code}, {reply_text!r}) request on {self!r} because it was "
                f"called while connection state={state}."
            )
        before = self._STATE_NAMES[self.connection_state]
        was_open = self.is_open
        self.connection_state = self.CONNECTION_CLOSING
        if not was_open:
            self._abort(reply_code, reply_text, before)
            return
        assert self._core is not None
        for channel in list(self._channels.values()):
            if channel.is_open:
                channel._close(reply_code, reply_text)
        self._core.close(reply_code, reply_text)

    def _abort(self, reply_code: int, reply_text: str, state: str) -> None:
        self._aborted = exceptions.ConnectionOpenAborted(
            "Connection.close() called before connection finished opening: "
            f"prev_state={state} ({reply_code}): {reply_text!r}"
        )
        if self._workflow is not None:
            self._workflow.abort()
        elif self._core is not None:
            self._core.close()

    def update_secret(
        self,
        new_secret: str,
        reason: str,
        callback: Callable[[Method], object] | None = None,
    ) -> None:
        """Replace the credential of the live connection."""
        validators.rpc_completion_callback(callback)
        spec.Connection.UpdateSecret(new_secret, reason).encode()
        if not self.is_open or self._core is None:
            raise exceptions.ConnectionWrongStateError(
                f"update_secret requires an open connection: {self!r}"
            )
        confirmed = None
        if callback is not None:
            confirmed = lambda _: callback(Method(0, spec.Connection.UpdateSecretOk()))  # noqa: E731
        self._core.update_secret(new_secret, reason, callback=confirmed)

    # 0.x

    def add_timeout(self, deadline: float, callback_method: Callable[[], object]) -> Any:
        """0.x: call back after so many seconds."""
        self._era.saw_old()
        return self._adapter.call_later(max(0.0, deadline), callback_method)

    def remove_timeout(self, timeout_id: Any) -> None:
        """0.x: undo add_timeout."""
        timeout_id.cancel()

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        """Have it called by the loop, from any thread."""
        self._adapter.call_soon_threadsafe(callback)

    def add_backpressure_callback(self, callback: Callable[[Any], object]) -> None:
        """0.x: have it called when output piles up."""
        self._add("_on_backpressure", partial(callback, self), one_shot=False)

    def set_backpressure_multiplier(self, value: int = 10) -> None:
        """0.x: accepted; evamqp's own water marks decide."""

    # The life of it

    def _make_connector(self) -> workflow.AMQPConnector:
        return workflow.AMQPConnector(self._dial, self._adapter)

    def _dial(self, parameters: Parameters, done: Callable[[Any], object]) -> _Attempt:
        """One attempt; ``done`` gets this connection or why it failed."""
        attempt = _Attempt(self, parameters, done)
        self.connection_state = self.CONNECTION_PROTOCOL
        try:
            target = to_target(parameters, self)
        except evamqp.UsageError as error:
            failed = workflow.AMQPConnectorSocketConnectError(error)
            self._adapter.call_soon(lambda: attempt.finish(failed))
        else:
            self._core = evamqp.connect(target, attempt, adapter=self._adapter)
        return attempt

    def _on_workflow_done(self, result: Any) -> None:
        self._workflow = None
        if isinstance(result, BaseException):
            self._open_failed(result)

    def _opened(self) -> None:
        assert self._core is not None
        self.params.credentials.erase_credentials()
        self.server_properties = dict(self._core.server_properties)
        capabilities = self.server_properties.get("capabilities")
        self.server_capabilities = capabilities if isinstance(capabilities, dict) else {}
        self.connection_state = self.CONNECTION_OPEN

    def _open_failed(self, failed: BaseException) -> None:
        self.connection_state = self.CONNECTION_CLOSED
        error = self._aborted or _unwrap(failed)
        was_reported = self.callbacks.process(0, self.ON_CONNECTION_ERROR, self, self, error)
        if not was_reported or not self._has_error_callback:
            self._raise_from_loop(error)
        self._after_end()

    def _ended(self, reason: evamqp.ConnectionClosed) -> None:
        self.connection_state = self.CONNECTION_CLOSED
        error = self._reason_of(reason)
        try:
            self.callbacks.process(0, self.ON_CONNECTION_CLOSED, self, self, error)
        finally:
            self._after_end()

    def _reason_of(self, reason: evamqp.ConnectionClosed) -> exceptions.AMQPConnectionError:
        """Why it ended, as its callbacks get it."""
        return self._failure or _reasons.connection_closed(reason)

    def _after_end(self) -> None:
        """The last thing; 0.x's connections stop their loop here."""

    def _process(self, method: Any) -> None:
        self.callbacks.process(0, method, self, Method(0, method))

    def _callback_failed(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        """A callback raised: 1.x ends the connection, 0.x lets it out of the loop."""
        LOGGER.error("%s raised %r", context.callback, error, exc_info=error)
        if self._era.is_old or self._core is None or not self.is_open:
            self._raise_from_loop(error)
            return
        self._failure = exceptions.StreamLostError(f"Stream connection lost: {error!r}")
        self.connection_state = self.CONNECTION_CLOSING
        self._core.close(541, "a callback failed")

    def _raise_from_loop(self, error: BaseException) -> None:
        """Have the loop raise it, as it does what its own callbacks raise."""

        def escape() -> None:
            raise error

        self._adapter.call_soon(escape)


class _Transport:
    """What programs ask of pika's transport, though its name is private."""

    __slots__ = ("_core",)

    def __init__(self, core: evamqp.Connection) -> None:
        self._core = core

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return self._core.output_size


class _Attempt(evamqp.Handler):
    """The events of one attempt, and of the connection that it opened.

    Args:
        connection: pika's.
        parameters: Of the broker that is tried.
        done: Called once: with the connection, or with why it failed.
    """

    def __init__(
        self, connection: Connection, parameters: Parameters, done: Callable[[Any], object]
    ) -> None:
        self._connection = connection
        self._parameters = parameters
        self._done: Callable[[Any], object] | None = done

    def finish(self, result: Any) -> None:
        """Report the result, unless it was aborted."""
        done, self._done = self._done, None
        if done is not None:
            done(result)

    def abort(self) -> None:
        """Give up."""
        self._done = None
        if self._connection._core is not None:
            self._connection._core.close()

    def on_open(self, connection: evamqp.Connection) -> None:
        if self._done is None:  # aborted
            connection.close()
            return
        own = self._connection
        own._opened()
        self.finish(own)
        own.callbacks.process(0, own.ON_CONNECTION_OPEN_OK, own, own)

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self.finish(_reasons.open_failed(error, self._parameters.credentials.TYPE))

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        if self._connection._core is connection:
            self._connection._ended(reason)

    def on_blocked(self, connection: evamqp.Connection, reason: str) -> None:
        self._connection._process(spec.Connection.Blocked(reason))

    def on_unblocked(self, connection: evamqp.Connection) -> None:
        self._connection._process(spec.Connection.Unblocked())

    def on_writable(self, connection: evamqp.Connection, writable: bool) -> None:
        if not writable:
            own = self._connection
            own.callbacks.process(0, "_on_backpressure", own)

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self._connection._callback_failed(context, error)


def _unwrap(failed: BaseException) -> BaseException:
    """What on_open_error_callback gets: of a failed handshake the cause itself."""
    if isinstance(failed, workflow.AMQPConnectionWorkflowFailed):
        last = failed.exceptions[-1]
        if isinstance(last, workflow.AMQPConnectorAMQPHandshakeError):
            return last.exception
        return exceptions.AMQPConnectionError(failed)
    return failed
