"""pika's BlockingConnection on ``evamqp.blocking``; its channels are ``_blocking_channel.py``.

What differs for the better: while a callback works, a keeper thread answers heartbeats, and calls
from other threads are carried out rather than damaging the connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import evamqp
from evamqp import blocking

from .. import _reasons, exceptions, spec, validators
from .._eras import Era, positional_count
from .._old_reasons import of_era
from .._targets import to_target
from ..connection import ConnectionParameters, Parameters
from ..frame import Method
from ._blocking_channel import BlockingChannel, ReturnedMessage, why_closed
from .utils import connection_workflow as workflow

__all__ = ["LOGGER", "BlockingChannel", "BlockingConnection", "ReturnedMessage"]

LOGGER = logging.getLogger(__name__)

T = TypeVar("T")


class BlockingConnection:
    """A connection whose calls wait.

    Args:
        parameters: The broker, or a sequence of them to try in order; None means a local one.

    Raises:
        AMQPConnectionError: None could be reached; or why the broker refused us.
    """

    _channel_kind = BlockingChannel
    _impl_kind = blocking.Connection

    def __init__(
        self,
        parameters: Parameters | Sequence[Parameters] | None = None,
        _impl_class: Any = None,
    ) -> None:
        self._era = Era()
        self._blocked: list[Callable[[Method], object]] = []
        self._unblocked: list[Callable[[Method], object]] = []
        self._channels: dict[int, BlockingChannel] = {}
        self._is_closed_by_us = False
        self._has_told = False  # whether a call has raised why it ended
        self._dispatching = 0
        self._impl = self._connect(_as_list(parameters))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} impl={self._impl!r}>"

    def __enter__(self) -> BlockingConnection:
        return self

    def __exit__(self, exc_type: Any, value: Any, traceback: Any) -> None:
        if self.is_open:
            self.close()

    # Connecting

    def _connect(self, configs: list[Parameters]) -> blocking.Connection:
        last = configs[-1]
        failure: BaseException | None = None
        for attempt in range(last.connection_attempts):
            if attempt:
                time.sleep(max(0, last.retry_delay))
            for parameters in configs:
                try:
                    return self._try(parameters)
                except evamqp.AmqpError as error:
                    failure = _failure(error, parameters)
                    failure.__cause__ = error
        assert failure is not None
        raise failure

    def _try(self, parameters: Parameters) -> blocking.Connection:
        impl = self._impl_kind(
            self._target(parameters),
            on_blocked=self._on_blocked,
            on_unblocked=self._on_unblocked,
        )
        parameters.credentials.erase_credentials()
        return impl

    def _target(self, parameters: Parameters) -> evamqp.Parameters:
        return to_target(parameters, self)

    # What it is

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return not self._impl.is_open

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._impl.is_open

    @property
    def basic_nack(self) -> bool:
        """Whether the broker knows ``Basic.Nack``."""
        return self._can("basic.nack")

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

    @property
    def accept_consumer_cancel_ok_supported(self) -> bool:
        """Whether a cancel of the broker's may be answered."""
        return self._can("consumer_cancel_notify")

    basic_nack_supported = basic_nack
    consumer_cancel_notify_supported = consumer_cancel_notify
    exchange_exchange_bindings_supported = exchange_exchange_bindings
    publisher_confirms_supported = publisher_confirms

    def _can(self, capability: str) -> bool:
        capabilities = self._impl.server_properties.get("capabilities")
        return bool(isinstance(capabilities, dict) and capabilities.get(capability))

    # Callbacks

    def add_on_connection_blocked_callback(self, callback: Callable[..., object]) -> None:
        """Have it called when the broker asks us not to publish: ``(connection, frame)``."""
        self._blocked.append(self._frame_callback(callback))

    def add_on_connection_unblocked_callback(self, callback: Callable[..., object]) -> None:
        """Have it called when that is over: ``(connection, frame)``."""
        self._unblocked.append(self._frame_callback(callback))

    def _frame_callback(self, callback: Callable[..., object]) -> Callable[[Method], object]:
        validators.require_callback(callback)
        if positional_count(callback) == 1:  # 0.x: (frame)
            self._era.saw_old()
            return callback
        return lambda frame: callback(self, frame)

    def _on_blocked(self, impl: blocking.Connection, reason: str) -> None:
        for callback in self._blocked:
            self._run(callback, Method(0, spec.Connection.Blocked(reason)))

    def _on_unblocked(self, impl: blocking.Connection) -> None:
        for callback in self._unblocked:
            self._run(callback, Method(0, spec.Connection.Unblocked()))

    def _run(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call one of the user's functions, and remember meanwhile that we are inside one."""
        self._dispatching += 1
        try:
            callback(*arguments)
        finally:
            self._dispatching -= 1

    def call_later(self, delay: float, callback: Callable[[], object]) -> blocking.Timer:
        """Have it called after ``delay`` seconds, while the connection is being served.

        Returns:
            For ``remove_timeout``.
        """
        validators.require_callback(callback)
        if delay < 0:
            raise ValueError(f"call_later: delay must be non-negative, but got {delay!r}")
        return self._impl.call_later(delay, lambda: self._run(callback))

    def add_timeout(self, deadline: float, callback_method: Callable[[], object]) -> blocking.Timer:
        """0.x: the same, of a deadline in seconds."""
        self._era.saw_old()
        return self.call_later(max(0.0, deadline), callback_method)

    def remove_timeout(self, timeout_id: blocking.Timer) -> None:
        """Undo ``call_later``."""
        timeout_id.cancel()

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        """Have it called by the thread that serves the connection.

        Raises:
            ConnectionWrongStateError: The connection is closed.
        """
        if self.is_closed:
            raise self._wrong_state(
                "BlockingConnection.add_callback_threadsafe() called on closed or closing "
                "connection."
            )
        validators.require_callback(callback)
        self._impl.call_soon_threadsafe(lambda: self._run(callback))

    # Serving

    def process_data_events(self, time_limit: float | None = 0) -> None:
        """Wait for something to do, and call back.

        Args:
            time_limit: Seconds at most; None waits until there is something.

        Raises:
            AMQPConnectionError: Why the connection has ended.
        """
        if time_limit is not None and time_limit < 0:
            raise ValueError(f"call_later: delay must be non-negative, but got {time_limit!r}")
        if self._is_closed_by_us:
            raise self._ended("process_data_events()")
        try:
            self._impl.process_events(time_limit)
        except evamqp.ConnectionClosed as error:
            if self._impl.is_open:  # a callback's own
                raise
            raise self._ended("process_data_events()") from error

    def sleep(self, duration: float) -> None:
        """Serve the connection for so many seconds."""
        assert duration >= 0, duration
        deadline = time.monotonic() + duration
        while True:
            self.process_data_events(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                return

    def channel(self, channel_number: Any = None) -> BlockingChannel:
        """Open a channel.

        Args:
            channel_number: None takes one that is free, mostly one that was not used before.

        Raises:
            ConnectionWrongStateError: The connection is closed.
            InvalidChannelNumber: The number is out of range, or in use.
        """
        if self.is_closed:
            raise self._wrong_state(f"Channel allocation requires an open connection: {self!r}")
        self._check_number(channel_number or None)
        channel = self._open_channel(channel_number or None)
        self._channels[channel.channel_number] = channel
        return channel

    def _check_number(self, wanted: Any) -> None:
        for number, channel in list(self._channels.items()):
            if channel.is_closed:
                self._channels.pop(number, None)
        highest = self._impl.channel_max
        if wanted is None:
            if len(self._channels) >= highest:
                raise exceptions.NoFreeChannels()
        elif not isinstance(wanted, int) or not 0 < wanted <= highest or wanted in self._channels:
            raise exceptions.InvalidChannelNumber(wanted)

    def _open_channel(self, wanted: int | None) -> BlockingChannel:
        try:
            return self._channel_kind(self, wanted)
        except evamqp.BadArgument as error:  # another thread took it meanwhile
            raise exceptions.InvalidChannelNumber(wanted) from error
        except exceptions.ConnectionWrongStateError:
            if wanted is not None or self.is_closed:
                raise
        # Every number that is left rests from a channel that the broker closed.  pika would not
        # wait for the end of that.
        numbers = range(1, self._impl.channel_max + 1)
        lowest = next(number for number in numbers if number not in self._channels)
        return self._channel_kind(self, lowest)

    def update_secret(self, new_secret: str, reason: str) -> None:
        """Replace the credential of the live connection."""
        if self.is_closed:
            raise self._wrong_state(f"Secret update requires an open connection: {self!r}")
        self._translate(self._impl.update_secret, new_secret, reason)

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> None:
        """Close it.

        Raises:
            ConnectionWrongStateError: It is closed; in 0.x's era nothing is raised.
        """
        if self._impl.is_interrupted:  # a signal handler inside another call of this thread
            self._impl.call_soon_threadsafe(lambda: self._close_quietly(reply_code, reply_text))
            return
        if self.is_closed:
            if self._era.is_old:
                return
            raise self._wrong_state(
                f"BlockingConnection.close({reply_code}, {reply_text!r}) called on closed "
                "connection."
            )
        self._is_closed_by_us = True
        for channel in list(self._channels.values()):
            channel._connection_closing()
        self._impl.close(reply_code, reply_text)
        reason = self._impl.reason
        if reason is not None and reason.by != "client":  # it had ended, and nobody had noticed
            raise of_era(_reasons.connection_closed(reason), self._era)

    def _close_quietly(self, reply_code: int, reply_text: str) -> None:
        if self.is_open:
            with suppress(exceptions.AMQPError):
                self.close(reply_code, reply_text)

    def _ended(self, what: str) -> BaseException:
        reason = self._impl.reason
        if self._is_closed_by_us or reason is None:
            return self._wrong_state(f"BlockingConnection.{what} called on closed connection.")
        self._has_told = True
        return of_era(_reasons.connection_closed(reason), self._era)

    def _wrong_state(self, text: str) -> BaseException:
        return of_era(exceptions.ConnectionWrongStateError(text), self._era)

    def _translate(self, verb: Callable[..., T], *arguments: Any, **options: Any) -> T:
        try:
            return verb(*arguments, **options)
        except evamqp.NotExecuted as error:
            raise of_era(why_closed(error.reason), self._era) from error
        except evamqp.Closed as error:
            raise of_era(why_closed(error), self._era) from error
        except evamqp.WrongState as error:
            raise self._wrong_state(str(error)) from error


def _as_list(parameters: Parameters | Sequence[Parameters] | None) -> list[Parameters]:
    if parameters is None:
        return [ConnectionParameters()]
    if isinstance(parameters, Parameters):
        return [parameters]
    if not parameters:
        raise ValueError(
            f"Expected a non-empty sequence of connection parameters, but got {parameters!r}."
        )
    for each in parameters:
        if not isinstance(each, Parameters):
            raise AttributeError(
                f"{type(each).__name__!r} object has no attribute 'connection_attempts'"
            )
    return list(parameters)


def _failure(error: evamqp.AmqpError, parameters: Parameters) -> BaseException:
    """Why no connection came of it, as pika raises it."""
    failed = _reasons.open_failed(error, parameters.credentials.TYPE)
    if isinstance(failed, workflow.AMQPConnectorSocketConnectError):
        return exceptions.AMQPConnectionError(failed)
    if isinstance(failed, workflow.AMQPConnectorPhaseErrorBase):
        return failed.exception
    return failed
