"""pika 1.5's thread-safe Connection and Channel, on the facade's blocking ones.

A thread serves the connection; publishes and acknowledgements are handed to it and return at once,
requests wait in the thread that makes them, and callbacks run in a thread of their channel.
"""

from __future__ import annotations

import itertools
import logging
import queue as queues
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import evamqp

from .. import exceptions, spec, validators
from .._properties import BasicProperties, to_wire
from ..channel import _as_bytes
from ..connection import Parameters
from ..exceptions import ConnectionWrongStateError, WorkQueueFullError
from ..exchange_type import ExchangeType
from ..frame import Method
from .blocking_connection import BlockingChannel, BlockingConnection

__all__ = ["Channel", "Connection", "ConnectionWrongStateError", "WorkQueueFullError"]

LOGGER = logging.getLogger(__name__)

DEFAULT_RPC_TIMEOUT = 10
DEFAULT_WORK_QUEUE_MAXSIZE = 1000
DEFAULT_WORK_QUEUE_PUT_TIMEOUT = 30.0
DEFAULT_SHUTDOWN_DRAIN_TIMEOUT = 30.0

_numbers = itertools.count(1)


class _Worker:
    """A thread that runs the callbacks of one channel, in order."""

    def __init__(self, maxsize: int, put_timeout: float) -> None:
        self._queue: queues.Queue[Callable[[], object] | None] = queues.Queue(maxsize)
        self._put_timeout = put_timeout
        self.thread = threading.Thread(target=self._run, name="pika-consumer", daemon=True)
        self.thread.start()

    def submit(self, function: Callable[[], object] | None) -> None:
        """Have a function called; None ends the thread.

        Raises:
            WorkQueueFullError: There has been no room for too long.
        """
        try:
            self._queue.put(function, timeout=self._put_timeout)
        except queues.Full:
            raise WorkQueueFullError("the channel's work queue is full") from None

    def _run(self) -> None:
        while (function := self._queue.get()) is not None:
            try:
                function()
            except Exception:
                LOGGER.exception("a callback raised")


class _ServedChannel(BlockingChannel):
    """The channel below, whose publishes do not wait for their confirms."""

    _on_confirmation: Callable[[Any, bool], object] | None = None

    def _events(self) -> dict[str, Callable[..., object]]:
        return {**super()._events(), "on_delivery_confirmation": self._confirmed}

    def _confirmed(self, impl: Any, tags: Any, acked: bool) -> None:
        if self._on_confirmation is not None:
            self._on_confirmation(tags, acked)


class Channel:
    """A channel that any thread may use.  ``Connection.channel`` makes it.

    A request waits as long as the connection's ``timeout`` says; its own is accepted.
    """

    def __init__(
        self,
        channel: _ServedChannel,
        wrapper: Connection,
        work_queue_maxsize: int = DEFAULT_WORK_QUEUE_MAXSIZE,
        work_queue_put_timeout: float = DEFAULT_WORK_QUEUE_PUT_TIMEOUT,
    ) -> None:
        self._channel = channel
        self._wrapper = wrapper
        self._worker = _Worker(work_queue_maxsize, work_queue_put_timeout)
        self._published = 0
        self._is_confirming = False

    @property
    def channel_number(self) -> int:
        """Its number."""
        return self._channel.channel_number

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._channel.is_open

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._channel.is_closed

    @property
    def next_publish_seq_no(self) -> int:
        """The tag that the next publish will have; 0 without confirms."""
        return self._published + 1 if self._is_confirming else 0

    # Handed over

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes | str,
        properties: BasicProperties | None = None,
        mandatory: bool = False,
        on_publish: Callable[[int], object] | None = None,
    ) -> None:
        """Publish a message; ``on_publish(tag)`` comes before its confirm."""
        wire = to_wire(properties) if properties else None
        publish = partial(
            self._publish, exchange, routing_key, _as_bytes(body), wire, bool(mandatory), on_publish
        )
        self._hand_over(publish)

    def _publish(self, *arguments: Any) -> None:
        *message, on_publish = arguments
        tag = self._channel._impl.basic_publish(*message)
        self._published = tag
        if on_publish is not None:
            on_publish(tag)

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Acknowledge a message, or all up to the tag."""
        self._hand_over(partial(self._channel.basic_ack, delivery_tag, multiple))

    def basic_nack(
        self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse a message, or all up to the tag."""
        self._hand_over(partial(self._channel.basic_nack, delivery_tag, multiple, requeue))

    def basic_reject(self, delivery_tag: int = 0, requeue: bool = True) -> None:
        """Refuse a message."""
        self._hand_over(partial(self._channel.basic_reject, delivery_tag, requeue))

    def _hand_over(self, function: Callable[[], object]) -> None:
        """Have the connection's thread do it; on a channel that has ended nothing happens."""

        def call() -> None:
            if self._channel.is_open:
                function()

        self._wrapper._call_soon(call)

    # Requests

    def confirm_delivery(
        self,
        ack_nack_callback: Callable[[Method], object],
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Have publishes confirmed: a frame with ``Basic.Ack`` or ``Basic.Nack`` for each."""
        validators.require_callback(ack_nack_callback, "ack_nack_callback")
        self._channel._on_confirmation = partial(self._confirmed, ack_nack_callback)
        self._channel.confirm_delivery()
        self._is_confirming = True
        return Method(self.channel_number, spec.Confirm.SelectOk())

    def _confirmed(self, callback: Callable[[Method], object], tags: Any, acked: bool) -> None:
        kind = spec.Basic.Ack if acked else spec.Basic.Nack
        frame = Method(self.channel_number, kind(tags[-1], len(tags) > 1))
        self._worker.submit(partial(callback, frame))

    def basic_consume(
        self,
        queue: str,
        on_message_callback: Callable[..., object],
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str | None = None,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> str:
        """Start a consumer, whose callback runs in the channel's thread."""
        validators.require_callback(on_message_callback, "on_message_callback")

        def on_message(_: Any, *message: Any) -> None:
            self._worker.submit(partial(on_message_callback, self, *message))

        return self._channel.basic_consume(
            queue, on_message, auto_ack, exclusive, consumer_tag, arguments
        )

    def basic_cancel(
        self, consumer_tag: str, timeout: float | None = DEFAULT_RPC_TIMEOUT
    ) -> Method:
        """Stop a consumer."""
        self._channel.basic_cancel(consumer_tag)
        return Method(self.channel_number, spec.Basic.CancelOk(consumer_tag))

    def basic_get(
        self, queue: str, auto_ack: bool = False, timeout: float | None = DEFAULT_RPC_TIMEOUT
    ) -> tuple[Any, Any, Any]:
        """Take one message; three None if the queue is empty."""
        return self._channel.basic_get(queue, auto_ack)

    def basic_qos(
        self,
        prefetch_size: int = 0,
        prefetch_count: int = 0,
        global_qos: bool = False,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Limit what the broker sends before it is acknowledged."""
        self._channel.basic_qos(prefetch_size, prefetch_count, global_qos)
        return Method(self.channel_number, spec.Basic.QosOk())

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = ExchangeType.direct,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Create an exchange, or check that it is there."""
        return self._channel.exchange_declare(
            exchange, exchange_type, passive, durable, auto_delete, internal, arguments
        )

    def exchange_delete(
        self,
        exchange: str | None = None,
        if_unused: bool = False,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Delete an exchange."""
        return self._channel.exchange_delete(exchange, if_unused)

    def exchange_bind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Route messages from one exchange to another."""
        return self._channel.exchange_bind(destination, source, routing_key, arguments)

    def exchange_unbind(
        self,
        destination: str | None = None,
        source: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Undo exchange_bind."""
        return self._channel.exchange_unbind(destination, source, routing_key, arguments)

    def queue_declare(
        self,
        queue: str,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Create a queue, or check that it is there."""
        return self._channel.queue_declare(
            queue, passive, durable, exclusive, auto_delete, arguments
        )

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Route messages from an exchange to a queue."""
        return self._channel.queue_bind(queue, exchange, routing_key, arguments)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Undo queue_bind."""
        return self._channel.queue_unbind(queue, exchange, routing_key, arguments)

    def queue_purge(self, queue: str, timeout: float | None = DEFAULT_RPC_TIMEOUT) -> Method:
        """Drop what stands ready in a queue."""
        return self._channel.queue_purge(queue)

    def queue_delete(
        self,
        queue: str,
        if_unused: bool = False,
        if_empty: bool = False,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Delete a queue."""
        return self._channel.queue_delete(queue, if_unused, if_empty)

    # Callbacks, and the end

    def add_on_cancel_callback(self, callback: Callable[[Method], object]) -> None:
        """Have it called with the frame by which the broker cancels a consumer."""
        validators.require_callback(callback)
        self._channel.add_on_cancel_callback(
            lambda frame: self._worker.submit(partial(callback, frame))
        )

    def add_on_return_callback(self, callback: Callable[..., object]) -> None:
        """Have it called with returned messages: ``(channel, method, properties, body)``."""
        validators.require_callback(callback)
        self._channel.add_on_return_callback(
            lambda _, *message: self._worker.submit(partial(callback, self, *message))
        )

    def close(
        self,
        reply_code: int = 0,
        reply_text: str = "Normal shutdown",
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> None:
        """Close it, and let its callbacks finish; one that has ended is left as it is."""
        if self._channel.is_open:
            self._channel.close(reply_code, reply_text)
        self._end(timeout)

    def abort(
        self,
        reply_code: int = 0,
        reply_text: str = "Normal shutdown",
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> None:
        """Close it whatever happens."""
        try:
            self.close(reply_code, reply_text, timeout)
        except exceptions.AMQPError as error:
            LOGGER.debug("abort: %r", error)

    def _end(self, timeout: float | None) -> bool:
        """Let the worker finish; False if that takes longer."""
        worker = self._worker
        if not worker.thread.is_alive():
            return True
        worker.submit(None)
        if worker.thread is not threading.current_thread():
            worker.thread.join(timeout)
        return not worker.thread.is_alive()


class Connection:
    """A connection that any thread may use.

    Args:
        parameters: The broker.
        on_open_error_callback: ``(connection, exception)``, before the exception is raised.
        on_close_callback: ``(connection, exception)``, in the connection's thread.
        timeout: Seconds for each request; None waits for ever.
        work_queue_maxsize: Callbacks that may wait in each channel.
        work_queue_put_timeout: Seconds for which that may be full before the connection is given
            up.
        shutdown_drain_timeout: Seconds for the callbacks that wait when it is closed.
    """

    def __init__(
        self,
        parameters: Parameters,
        on_open_error_callback: Callable[[Any, BaseException], object] | None = None,
        on_close_callback: Callable[[Any, BaseException], object] | None = None,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
        work_queue_maxsize: int = DEFAULT_WORK_QUEUE_MAXSIZE,
        work_queue_put_timeout: float = DEFAULT_WORK_QUEUE_PUT_TIMEOUT,
        shutdown_drain_timeout: float = DEFAULT_SHUTDOWN_DRAIN_TIMEOUT,
    ) -> None:
        self._on_close = on_close_callback
        self._work_queue = (work_queue_maxsize, work_queue_put_timeout)
        self._drain_timeout = shutdown_drain_timeout
        self._channels: list[Channel] = []
        self._reason: BaseException | None = None
        try:
            self._connection = _Served(parameters, timeout)
        except BaseException as error:
            if on_open_error_callback is not None:
                on_open_error_callback(self, error)
            raise
        self._thread = threading.Thread(
            target=self._serve, name=f"pika-ioloop-{next(_numbers)}", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._connection.is_open

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._connection.is_closed

    def channel(self, timeout: float | None = DEFAULT_RPC_TIMEOUT) -> Channel:
        """Open a channel.

        Raises:
            AMQPConnectionError: Why the connection has ended.
        """
        self._raise_if_closed()
        served = self._connection.channel()
        assert isinstance(served, _ServedChannel)
        channel = Channel(served, self, *self._work_queue)
        self._channels.append(channel)
        return channel

    def add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        """Have it called by the connection's thread.

        Raises:
            AMQPConnectionError: Why the connection has ended.
        """
        self._raise_if_closed()
        self._call_soon(callback)

    def add_on_connection_blocked_callback(self, callback: Callable[[Any, Method], object]) -> None:
        """Have it called when the broker asks us not to publish: ``(connection, frame)``."""
        validators.require_callback(callback)
        self._connection.add_on_connection_blocked_callback(lambda _, frame: callback(self, frame))

    def add_on_connection_unblocked_callback(
        self, callback: Callable[[Any, Method], object]
    ) -> None:
        """Have it called when that is over: ``(connection, frame)``."""
        validators.require_callback(callback)
        self._connection.add_on_connection_unblocked_callback(
            lambda _, frame: callback(self, frame)
        )

    def close(self, timeout: float | None = DEFAULT_RPC_TIMEOUT) -> None:
        """Close it, and let the callbacks of its channels finish."""
        if self._connection.is_open:
            self._finish_handed_over(timeout)
            self._reason = exceptions.ConnectionClosedByClient(200, "Normal shutdown")
            self._connection._close_quietly(200, "Normal shutdown")
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        deadline = time.monotonic() + self._drain_timeout
        for channel in self._channels:
            if not channel._end(max(0.0, deadline - time.monotonic())):
                LOGGER.warning("a callback of channel %d goes on", channel.channel_number)

    def abort(self, timeout: float | None = DEFAULT_RPC_TIMEOUT) -> None:
        """Close it whatever happens."""
        try:
            self.close(timeout)
        except exceptions.AMQPError as error:
            LOGGER.debug("abort: %r", error)

    def _finish_handed_over(self, timeout: float | None) -> None:
        """Wait until what was handed to the connection's thread before is sent."""
        if threading.current_thread() is not self._thread:
            done = threading.Event()
            self._call_soon(done.set)
            done.wait(timeout)

    def _call_soon(self, function: Callable[[], object]) -> None:
        self._connection._impl.call_soon_threadsafe(partial(self._run, function))

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception:
            LOGGER.exception("a callback raised")

    def _serve(self) -> None:
        """The connection's thread."""
        try:
            while True:
                self._connection.process_data_events(None)
        except WorkQueueFullError as error:
            self._reason = error
            LOGGER.error("%r: the connection is given up", error)
            self._connection._close_quietly(541, "callbacks are too slow")
        except exceptions.AMQPError as error:
            self._reason = self._reason or error
        if self._on_close is not None:
            assert self._reason is not None
            self._run(partial(self._on_close, self, self._reason))

    def _raise_if_closed(self) -> None:
        if self._connection.is_closed:
            self._thread.join(DEFAULT_RPC_TIMEOUT)
            raise self._reason or ConnectionWrongStateError("The connection is closed.")


class _Served(BlockingConnection):
    """The connection below, whose requests have a time limit."""

    _channel_kind = _ServedChannel

    def __init__(self, parameters: Parameters, timeout: float | None) -> None:
        self._timeout = timeout
        super().__init__(parameters)

    def _target(self, parameters: Parameters) -> evamqp.Parameters:
        target = super()._target(parameters)
        return target if self._timeout is None else target.replace(request_timeout=self._timeout)
