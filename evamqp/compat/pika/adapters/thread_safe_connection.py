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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import evamqp
from evamqp import blocking
from evamqp.blocking.loop import SharedLoop

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
#: Seconds that the broker has to answer channel.close, however long the callbacks took.
CLOSE_SECONDS = 1.0

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


class _TimedLoop(SharedLoop):
    """A shared loop where each thread may limit its own waits."""

    __slots__ = ("_limits",)

    def __init__(self) -> None:
        super().__init__()
        self._limits = threading.local()

    @contextmanager
    def limited(self, what: str, timeout: float | None) -> Iterator[None]:
        """Have this thread's waits inside the ``with`` block end in time.

        Raises:
            TimeoutError: They did not; the channel is as it was, and a late reply is dropped.
        """
        before = getattr(self._limits, "current", None)
        deadline = None if timeout is None else time.monotonic() + timeout
        self._limits.current = (deadline, f"{what} timed out after {timeout} seconds")
        try:
            yield
        finally:
            self._limits.current = before

    def drive(self, done: Callable[[], object], deadline: float | None = None) -> bool:
        limit, text = getattr(self._limits, "current", None) or (None, "")
        if deadline is not None or limit is None:
            return super().drive(done, deadline)
        if not super().drive(done, limit) and not self.is_over:
            raise TimeoutError(text)
        return bool(done())


class _TimedConnection(blocking.Connection):
    """A blocking connection on such a loop."""

    __slots__ = ()

    _loop_kind = _TimedLoop


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

    A request waits for ``timeout`` seconds, or for ever with None.  Then it raises TimeoutError;
    the channel stays as it is, and the broker may carry the request out all the same.
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

    def _limited(self, what: str, timeout: float | None) -> AbstractContextManager[None]:
        return self._wrapper._connection._limited(what, timeout)

    # Requests

    def confirm_delivery(
        self,
        ack_nack_callback: Callable[[Method], object],
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Have publishes confirmed: a frame with ``Basic.Ack`` or ``Basic.Nack`` for each."""
        validators.require_callback(ack_nack_callback, "ack_nack_callback")
        self._channel._on_confirmation = partial(self._confirmed, ack_nack_callback)
        with self._limited("confirm_delivery", timeout):
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

        with self._limited("basic_consume", timeout):
            return self._channel.basic_consume(
                queue, on_message, auto_ack, exclusive, consumer_tag, arguments
            )

    def basic_cancel(
        self, consumer_tag: str, timeout: float | None = DEFAULT_RPC_TIMEOUT
    ) -> Method:
        """Stop a consumer."""
        with self._limited("basic_cancel", timeout):
            self._channel.basic_cancel(consumer_tag)
        return Method(self.channel_number, spec.Basic.CancelOk(consumer_tag))

    def basic_get(
        self, queue: str, auto_ack: bool = False, timeout: float | None = DEFAULT_RPC_TIMEOUT
    ) -> tuple[Any, Any, Any]:
        """Take one message; three None if the queue is empty."""
        with self._limited("basic_get", timeout):
            return self._channel.basic_get(queue, auto_ack)

    def basic_qos(
        self,
        prefetch_size: int = 0,
        prefetch_count: int = 0,
        global_qos: bool = False,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Limit what the broker sends before it is acknowledged."""
        with self._limited("basic_qos", timeout):
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
        with self._limited("exchange_declare", timeout):
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
        with self._limited("exchange_delete", timeout):
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
        with self._limited("exchange_bind", timeout):
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
        with self._limited("exchange_unbind", timeout):
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
        with self._limited("queue_declare", timeout):
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
        with self._limited("queue_bind", timeout):
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
        with self._limited("queue_unbind", timeout):
            return self._channel.queue_unbind(queue, exchange, routing_key, arguments)

    def queue_purge(self, queue: str, timeout: float | None = DEFAULT_RPC_TIMEOUT) -> Method:
        """Drop what stands ready in a queue."""
        with self._limited("queue_purge", timeout):
            return self._channel.queue_purge(queue)

    def queue_delete(
        self,
        queue: str,
        if_unused: bool = False,
        if_empty: bool = False,
        timeout: float | None = DEFAULT_RPC_TIMEOUT,
    ) -> Method:
        """Delete a queue."""
        with self._limited("queue_delete", timeout):
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
        """Close it once its callbacks have finished; one that has ended is left as it is.

        What takes longer than ``timeout`` is logged, and goes on without us.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self._quiesce(deadline)
            if self._channel.is_open:
                left = _left(deadline)
                with self._limited("close", None if left is None else max(left, CLOSE_SECONDS)):
                    self._channel.close(reply_code, reply_text)
        except TimeoutError as error:
            LOGGER.warning("channel %d: %s", self.channel_number, error)
        self._end(_left(deadline))

    def _quiesce(self, deadline: float | None) -> None:
        """Cancel the consumers, and run the callbacks that wait: their acknowledgements count."""
        worker = self._worker
        if worker.thread is threading.current_thread() or not self._channel.is_open:
            return
        try:
            for tag in self._channel.consumer_tags:
                with self._limited("basic_cancel", _left(deadline)):
                    self._channel.basic_cancel(tag)
            done = threading.Event()
            worker.submit(done.set)
            done.wait(_left(deadline))
        except exceptions.AMQPError as error:
            LOGGER.debug("channel %d: %r", self.channel_number, error)
        self._wrapper._finish_handed_over(_left(deadline))

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


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Connection:
    """A connection that any thread may use.

    Args:
        parameters: The broker.
        on_open_error_callback: ``(connection, exception)``, before the exception is raised.
        on_close_callback: ``(connection, exception)``, in the connection's thread.
        timeout: Seconds until it is open; None waits as long as the parameters say.
        work_queue_maxsize: Callbacks that may wait in each channel.
        work_queue_put_timeout: Seconds for which that may be full before the connection is given
            up.
        shutdown_drain_timeout: Seconds for the callbacks that wait when it is closed.

    Raises:
        TimeoutError: It was not open in time.
        ValueError: One of the last two is None or out of range.
        AMQPConnectionError: Why the broker could not be reached, or refused us.
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
        if work_queue_put_timeout is None or not work_queue_put_timeout > 0:
            raise ValueError(f"work_queue_put_timeout must be positive: {work_queue_put_timeout!r}")
        if shutdown_drain_timeout is None or not shutdown_drain_timeout >= 0:
            raise ValueError(f"shutdown_drain_timeout is negative: {shutdown_drain_timeout!r}")
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
            TimeoutError: It was not open after ``timeout`` seconds.
        """
        self._raise_if_closed()
        with self._connection._limited("channel open", timeout):
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
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._connection.is_open:
            self._finish_callbacks(deadline)
            self._reason = exceptions.ConnectionClosedByClient(200, "Normal shutdown")
            self._connection._close_quietly(200, "Normal shutdown")
        if threading.current_thread() is not self._thread:
            self._thread.join(_left(deadline))
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

    def _finish_callbacks(self, deadline: float | None) -> None:
        """Cancel all consumers, and let their callbacks finish; not from one of those."""
        here = threading.current_thread()
        workers = [channel._worker.thread for channel in self._channels]
        if here is self._thread or here in workers:
            self._finish_handed_over(_left(deadline))
            return
        try:
            for channel in self._channels:
                channel._quiesce(deadline)
        except TimeoutError as error:
            LOGGER.warning("close: %s", error)

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
    """The connection below, whose waits have time limits."""

    _channel_kind = _ServedChannel
    _impl_kind = _TimedConnection

    def __init__(self, parameters: Parameters, timeout: float | None) -> None:
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        super().__init__(parameters)

    def _limited(self, what: str, timeout: float | None) -> AbstractContextManager[None]:
        loop = self._impl._loop
        assert isinstance(loop, _TimedLoop)
        return loop.limited(what, timeout)

    def _connect(self, configs: list[Parameters]) -> blocking.Connection:
        try:
            return super()._connect(configs)
        except exceptions.AMQPError as error:
            if _left(self._deadline) == 0.0:
                raise self._late() from error
            raise

    def _target(self, parameters: Parameters) -> evamqp.Parameters:
        target, left = super()._target(parameters), _left(self._deadline)
        if left is None:
            return target
        if not left:
            raise self._late()
        return target.replace(
            connect_timeout=min(left, target.connect_timeout),
            handshake_timeout=min(left, target.handshake_timeout),
        )

    def _late(self) -> TimeoutError:
        return TimeoutError(f"connection open timed out after {self._timeout} seconds")
