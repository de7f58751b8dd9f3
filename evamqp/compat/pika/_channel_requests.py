"""What a channel asks of its broker with no message in it: exchanges, queues, limits, transactions.

Messages, and the channel's own life, are ``channel.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import evamqp

from . import exceptions, spec, validators
from ._eras import Era, two_styles
from ._old_reasons import of_era
from ._verbs import VERBS
from .callback import CallbackManager
from .exchange_type import ExchangeType
from .frame import Method

# By state.
_NOT_OPEN = ("Channel is closed.", "Channel is opening, but is not usable yet.", "",
             "Channel is closing.")  # fmt: skip


class ChannelRequests:
    """The requests of a channel.  ``Channel`` is these and the rest."""

    CLOSED = 0
    OPENING = 1
    OPEN = 2
    CLOSING = 3

    channel_number: int
    callbacks: CallbackManager
    _core: evamqp.Channel
    _era: Era
    _state: int

    # Exchanges and queues

    @two_styles(
        "callback exchange exchange_type passive durable auto_delete internal nowait arguments type"
    )
    def exchange_declare(
        self,
        exchange: Any = None,
        exchange_type: str = ExchangeType.direct,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: dict[str, Any] | None = None,
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Create an exchange, or check that it is there."""
        validators.require_string(exchange, "exchange")
        self._raise_if_not_open()
        method = spec.Exchange.Declare(
            0, exchange, exchange_type, passive, durable, auto_delete, internal, nowait, arguments
        )
        self._request(method, callback)

    @two_styles("callback exchange if_unused nowait")
    def exchange_delete(
        self,
        exchange: str | None = None,
        if_unused: bool = False,
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Delete an exchange."""
        self._raise_if_not_open()
        self._request(spec.Exchange.Delete(0, exchange, if_unused, nowait), callback)

    @two_styles("callback destination source routing_key nowait arguments")
    def exchange_bind(
        self,
        destination: Any = None,
        source: Any = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Route messages from one exchange to another."""
        self._raise_if_not_open()
        validators.require_string(destination, "destination")
        validators.require_string(source, "source")
        method = spec.Exchange.Bind(0, destination, source, routing_key, nowait, arguments)
        self._request(method, callback)

    @two_styles("callback destination source routing_key nowait arguments")
    def exchange_unbind(
        self,
        destination: str | None = None,
        source: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Undo exchange_bind."""
        self._raise_if_not_open()
        method = spec.Exchange.Unbind(0, destination, source, routing_key, nowait, arguments)
        self._request(method, callback)

    @two_styles("callback queue passive durable exclusive auto_delete nowait arguments")
    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Create a queue, or check that it is there; the reply names one that has no name."""
        validators.require_string(queue, "queue")
        self._raise_if_not_open()
        method = spec.Queue.Declare(
            0, queue, passive, durable, exclusive, auto_delete, nowait, arguments
        )
        self._request(method, callback)

    @two_styles("callback queue exchange routing_key nowait arguments")
    def queue_bind(
        self,
        queue: Any = None,
        exchange: Any = None,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Route messages from an exchange to a queue; without a key, by the queue's name."""
        validators.require_string(queue, "queue")
        validators.require_string(exchange, "exchange")
        self._raise_if_not_open()
        key = queue if routing_key is None else routing_key
        self._request(spec.Queue.Bind(0, queue, exchange, key, nowait, arguments), callback)

    @two_styles("callback queue exchange routing_key arguments")
    def queue_unbind(
        self,
        queue: Any = None,
        exchange: str | None = None,
        routing_key: str | None = None,
        arguments: dict[str, Any] | None = None,
        callback: Callable[[Method], object] | None = None,
    ) -> None:
        """Undo queue_bind."""
        validators.require_string(queue, "queue")
        self._raise_if_not_open()
        key = queue if routing_key is None else routing_key
        self._request(spec.Queue.Unbind(0, queue, exchange, key, arguments), callback)

    @two_styles("callback queue nowait")
    def queue_purge(
        self,
        queue: Any = "",
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Drop what stands ready in a queue."""
        validators.require_string(queue, "queue")
        self._raise_if_not_open()
        self._request(spec.Queue.Purge(0, queue, nowait), callback)

    @two_styles("callback queue if_unused if_empty nowait")
    def queue_delete(
        self,
        queue: Any = "",
        if_unused: bool = False,
        if_empty: bool = False,
        callback: Callable[[Method], object] | None = None,
        nowait: bool = False,
    ) -> None:
        """Delete a queue."""
        self._raise_if_not_open()
        validators.require_string(queue, "queue")
        self._request(spec.Queue.Delete(0, queue, if_unused, if_empty, nowait), callback)

    # Limits, transactions, flow

    @two_styles("callback prefetch_size prefetch_count all_channels")
    def basic_qos(
        self,
        prefetch_size: int = 0,
        prefetch_count: int = 0,
        global_qos: bool = False,
        callback: Callable[[Method], object] | None = None,
    ) -> None:
        """Limit what the broker sends before it is acknowledged.

        ``prefetch_size`` other than 0 is refused by RabbitMQ, and is not sent.
        """
        validators.rpc_completion_callback(callback)
        self._raise_if_not_open()
        validators.zero_or_greater("prefetch_size", prefetch_size)
        validators.zero_or_greater("prefetch_count", prefetch_count)
        if prefetch_size:
            raise exceptions.MethodNotImplemented("prefetch_size: RabbitMQ refuses all but 0")
        self._request(spec.Basic.Qos(prefetch_size, int(prefetch_count), global_qos), callback)

    @two_styles("callback requeue")
    def basic_recover(
        self,
        requeue: bool = False,
        callback: Callable[[Method], object] | None = None,
    ) -> None:
        """Have what is not acknowledged delivered again; RabbitMQ wants ``requeue``."""
        validators.rpc_completion_callback(callback)
        self._raise_if_not_open()
        self._request(spec.Basic.Recover(requeue), callback)

    def tx_select(self, callback: Callable[[Method], object] | None = None) -> None:
        """Make the channel transactional."""
        self._raise_if_not_open()
        self._request(spec.Tx.Select(), callback)

    def tx_commit(self, callback: Callable[[Method], object] | None = None) -> None:
        """Commit."""
        self._raise_if_not_open()
        self._request(spec.Tx.Commit(), callback)

    def tx_rollback(self, callback: Callable[[Method], object] | None = None) -> None:
        """Roll back."""
        self._raise_if_not_open()
        self._request(spec.Tx.Rollback(), callback)

    @two_styles("callback active")
    def flow(self, active: bool = True, callback: Callable[[bool], object] | None = None) -> None:
        """Ask the broker to stop or resume deliveries: ``callback(active)``."""
        self._raise_if_not_open()
        validators.rpc_completion_callback(callback)
        self._call(self._core.flow, bool(active), callback=callback)

    # How they are sent and answered

    def _raise_if_not_open(self) -> None:
        if self._state == self.OPEN:
            return
        raise self._wrong_state(_NOT_OPEN[self._state])

    def _wrong_state(self, text: str) -> BaseException:
        return of_era(exceptions.ChannelWrongStateError(text), self._era)

    def _request(self, method: Any, callback: Callable[[Method], object] | None) -> None:
        """Send a request.  Without callback it goes without reply in 1.x, and waits in 0.x."""
        no_callback = validators.rpc_completion_callback(callback)
        verb = VERBS[type(method)]
        nowait = verb.has_nowait and (
            getattr(method, "nowait", False) or (no_callback and not self._era.is_old)
        )
        method.encode()  # refuses in pika's words what cannot be sent
        options: dict[str, Any] = {"nowait": True} if nowait else {
            "callback": partial(self._replied, callback, verb.reply)
        }  # fmt: skip
        self._call(getattr(self._core, verb.name), **verb.arguments(method), **options)

    def _call(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except evamqp.WrongState as error:
            if not isinstance(error, evamqp.WrongThread):
                self._raise_if_not_open()
            raise self._wrong_state(str(error)) from error

    def _replied(
        self, callback: Callable[[Method], object] | None, reply: Any, result: Any = None
    ) -> None:
        if result is None:
            method = reply()
        elif isinstance(result, tuple):
            method = reply(*result)
        else:
            method = reply(result)
        frame = Method(self.channel_number, method)
        if callback is not None:
            callback(frame)
        self.callbacks.process(self.channel_number, method, self, frame)
