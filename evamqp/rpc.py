"""Calls and replies over RabbitMQ, on every loop: RpcClient calls, RpcServer answers.

Replies come by direct reply-to (``amq.rabbitmq.reply-to``), so no queue is declared for them.  What
a reconnection means for a call is decided here; ``recovery/`` makes the connections.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from evamqp import checks
from evamqp.codec.fields import encode_shortstr
from evamqp.codec.properties import Properties
from evamqp.consumer import Consumer
from evamqp.core.handler import Handler
from evamqp.core.handshake import release_of
from evamqp.core.publishing import copy_body
from evamqp.core.request import Request, check_callbacks
from evamqp.errors import (
    AmqpError,
    BadArgument,
    BadType,
    NotExecuted,
    OutputFull,
    RequestTimeout,
    RpcError,
    UsageError,
    WrongState,
)
from evamqp.publisher import Publisher
from evamqp.recovery.backoff import Backoff
from evamqp.recovery.closed_at_exit import ClosedAtExit
from evamqp.recovery.ledger import Outcome
from evamqp.recovery.loop_bound import cancel_all, checked_timeout
from evamqp.recovery.reconnecting_client import ChannelEvents, ReconnectingClient
from evamqp.recovery.reconnector import Reconnector, Target

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel, Message
    from evamqp.core.connection import Connection
    from evamqp.core.message import Returned
    from evamqp.errors import ChannelClosed, Closed, ConnectionClosed
    from evamqp.recovery.topology import Topology
    from evamqp.types import Body, Callback, ErrorCallback, Tags

log: logging.Logger = logging.getLogger(__name__)

#: The pseudo-queue through which RabbitMQ sends replies to the channel of the call.
REPLY_TO = "amq.rabbitmq.reply-to"
#: The header that marks a reply as an error; its value is the kind, the body its text in UTF-8.
ERROR_HEADER = "x-rpc-error"
# A RabbitMQ 4.0 that starts knows no address of a caller, and loses replies, for some tenths of a
# second.  Within so many seconds of a new connection a reply waits for its caller, after whom the
# broker is asked that often; and one that finds no queue is sent again.
STARTING = 3.0
REPLY_DELAY = 0.25
# The reply code of a broker that does not know a queue.
NOT_FOUND = 404
# Seconds before a nacked call is sent again: a quorum queue without a leader nacks.
RESEND_DELAY = 0.1


class RpcReply(NamedTuple):
    """What a handler of an RpcServer may return instead of bytes.

    Attributes:
        body: The payload of the reply.
        properties: Its properties; the server sets ``correlation_id``.
    """

    body: Body
    properties: Properties | None = None


class RpcCall(Request["Message"]):
    """One call of an RpcClient.  ``await`` it for the reply, a Message.

    It fails with RpcError (the server's error, or no queue took the call), RequestTimeout,
    ChannelClosed (the broker refused it), ConnectionClosed (lost, and ``resend`` is False) or
    WrongState (the client was closed first).

    Attributes:
        routing_key: As given.
        body: As given.
        properties: As sent.
        resend: Whether it is sent again after a loss.
    """

    __slots__ = ("_client", "_timer", "body", "properties", "resend", "routing_key")

    def __init__(
        self,
        client: RpcClient,
        routing_key: str,
        body: bytes,
        properties: Properties,
        resend: bool,
        callback: Callback[Message] | None,
        on_error: ErrorCallback | None,
    ) -> None:
        super().__init__(client._host, "rpc call", callback=callback, on_error=on_error)
        self.routing_key: str = routing_key
        self.body: bytes = body
        self.properties: Properties = properties
        self.resend: bool = resend
        self._client = client
        self._timer: Handle | None = None

    def __str__(self) -> str:
        return f"rpc call to {self.routing_key!r}"

    def cancel(self) -> None:
        """Ignore the reply.  The call itself cannot be recalled."""
        if not self.is_done:
            super().cancel()
            self._client._forget(self)


class RpcClient(ReconnectingClient[int]):
    """Calls servers and gets their replies, over reconnections.

    A call without a reply when the connection is lost is sent again on the next one, so a server
    may see it twice; ``resend=False`` prevents that.  Every call ends at its timeout at the latest.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        adapter: The loop; None means the running asyncio loop, or the shared Reconnector's.
        exchange: Where calls are published; "" routes to the queue named by the routing key.
        topology: Declared on each connection before calls are sent.
        timeout: Seconds that a call may take by default.
        max_calls: Calls without a reply that it keeps; it rejects more.

    Raises:
        BadArgument, BadType: An argument is wrong.
        WrongState: No adapter was given, and no asyncio loop runs.
    """

    def __init__(
        self,
        target: Target | Reconnector,
        *,
        adapter: Adapter | None = None,
        exchange: str = "",
        topology: Topology | None = None,
        timeout: float = 30.0,
        max_calls: int = 1000,
    ) -> None:
        encode_shortstr(exchange, "exchange")
        checks.integer(1)("max_calls", max_calls)
        self._timeout = _checked_seconds(timeout)
        super().__init__(target, adapter, topology)
        self.exchange = exchange
        self.late_replies: int = 0  # replies whose call had ended
        self._max_calls = max_calls
        self._made = 0
        self._calls: dict[str, RpcCall] = {}  # pending, by correlation id, in order
        self._unsent: deque[RpcCall] = deque()  # some may have ended
        self._unconfirmed: dict[int, RpcCall] = {}  # by delivery tag
        # One of these closed the channel: they are sent one at a time until it does so again.
        self._suspects: set[RpcCall] = set()
        self._backoff = Backoff()

    def __repr__(self) -> str:
        return f"<RpcClient {len(self._calls)} calls, {self.reconnector.state.value}>"

    def _unfinished(self) -> tuple[int, str]:
        return len(self._calls), "calls have no reply"

    @property
    def pending(self) -> int:
        """How many calls have not ended."""
        return len(self._calls)

    def call(
        self,
        routing_key: str,
        body: Body,
        properties: Properties | None = None,
        *,
        timeout: float | None = None,
        resend: bool = True,
        callback: Callback[Message] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> RpcCall:
        """Call a server.  Legal at any time, also before the first connection and between two.

        Args:
            routing_key: The server's queue, or a key that the exchange routes by.
            body: Bytes-like; anything but bytes is copied at once.
            properties: The client sets ``reply_to``, ``correlation_id`` and ``expiration``, which
                makes the broker drop a call that no server took in time.
            timeout: Seconds until RequestTimeout; None means the client's.
            resend: Send it again after a loss.  With False a loss fails the call: for what must
                not be done twice.
            callback: Called with the reply.
            on_error: Called with the error.

        Raises:
            OutputFull: ``max_calls`` have no reply yet; nothing was accepted.
            BadArgument, BadType: It cannot be sent; nothing was accepted.
            WrongState: The client is closed or closing.
            WrongThread: Not the thread of the loop.
        """
        self._check_open("RpcClient.call")
        check_callbacks("rpc call", callback, on_error)
        encode_shortstr(routing_key, "routing_key")
        seconds = self._timeout if timeout is None else _checked_seconds(timeout)
        content = body if type(body) is bytes else copy_body(body)
        correlation_id = str(self._made + 1)
        if properties is not None and not isinstance(properties, Properties):
            raise BadType(f"properties must be Properties, not {type(properties).__name__}")
        completed = (properties or Properties()).replace(
            reply_to=REPLY_TO,
            correlation_id=correlation_id,
            expiration=str(max(1, round(seconds * 1000))),
        )
        if len(self._calls) >= self._max_calls:
            raise OutputFull(f"{len(self._calls)} calls wait for their replies")
        call = RpcCall(self, routing_key, content, completed, resend, callback, on_error)
        self._made += 1
        self._calls[correlation_id] = call
        self._unsent.append(call)
        call._timer = self.adapter.call_later(seconds, partial(self._expire, call, seconds))
        self._pump()
        return call

    def close(self, timeout: float | None = None) -> Request[int]:
        """Take no further calls, wait for the replies, then disconnect.  Idempotent.

        Args:
            timeout: Seconds to wait; then the calls left fail with WrongState.  None waits until
                each has its reply or its timeout.

        Returns:
            A request for the number of calls that were left; it never fails.

        Raises:
            BadArgument, BadType: The timeout is not a number.
            WrongThread: Not the thread of the loop.
        """
        return self._close(timeout)

    # Sending

    def _open_channel(self) -> None:
        connection = self._ready_connection()
        if connection is None:
            return
        try:
            channel = connection.channel(_Events(self))
        except (OutputFull, WrongState):  # no number is free, or the output is full
            self._try_later(self._backoff.next(), self._open_channel)
            return
        self._channel = channel
        self._is_served = False
        try:
            channel.confirm_select()
            channel.basic_consume(
                REPLY_TO,
                self._on_reply,
                auto_ack=True,
                callback=lambda tag: self._be_ready(channel),
            )
        except (OutputFull, WrongState):
            channel.close()  # its end schedules a retry
            return
        self._pump()

    def _pump(self) -> None:
        channel = self._channel
        while channel is not None and self._unsent and channel.connection.is_writable:
            if self._suspects and self._unconfirmed:
                return
            call = self._unsent.popleft()
            if call.is_done:
                continue
            try:
                tag = channel.basic_publish(
                    self.exchange, call.routing_key, call.body, call.properties, mandatory=True
                )
            except (OutputFull, WrongState):
                self._unsent.appendleft(call)
                return
            except UsageError as error:  # it cannot be sent on this connection
                self._fail(call, error)
                continue
            self._unconfirmed[tag] = call

    def _confirmed(self, tags: Tags, acked: bool) -> None:
        self._backoff.reset()
        for tag in tags:
            call = self._unconfirmed.pop(tag, None)
            if call is None:
                continue
            self._suspects.discard(call)
            if not acked:
                self.adapter.call_later(RESEND_DELAY, partial(self._resend, call))
        self._pump()

    def _resend(self, call: RpcCall) -> None:
        if not call.is_done:
            self._unsent.append(call)
            self._pump()

    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._readiness.failed(reason)
        self._take_back(reason, is_refusal=reason.culprit == "basic.publish")
        if channel.connection.is_open and not self._is_closed:
            self._log.write(logging.WARNING, "closed channel", f"its channel closed: {reason}")
            self._try_later(self._backoff.next(), self._open_channel)

    def _take_back(self, reason: Closed, *, is_refusal: bool = False) -> None:
        """The channel is gone: send pending calls again, and fail those that must not be."""
        unconfirmed = [call for call in self._unconfirmed.values() if not call.is_done]
        self._unconfirmed.clear()
        unsent = {call for call in self._unsent if not call.is_done}
        if is_refusal and len(unconfirmed) == 1:
            self._fail(unconfirmed[0], reason.copy())
        elif is_refusal:
            self._suspects.update(unconfirmed)
        for call in list(self._calls.values()):
            if not call.resend and call not in unsent:
                self._fail(call, reason.copy())
        self._unsent = deque(self._calls.values())

    # Ends

    def _on_reply(self, message: Message) -> None:
        call = self._calls.get(message.properties.correlation_id or "")
        if call is None:
            self.late_replies += 1
            return
        kind = (message.properties.headers or {}).get(ERROR_HEADER)
        if kind is None:
            self._forget(call)
            call.resolve(message)
        else:
            self._fail(call, RpcError(message.body.decode("utf-8", "replace"), str(kind)))

    def _returned(self, returned: Returned) -> None:
        call = self._calls.get(returned.properties.correlation_id or "")
        if call is not None:
            where = f"exchange {self.exchange!r}, routing key {call.routing_key!r}"
            self._fail(call, RpcError(f"{returned.text}: {where}", "unroutable"))

    def _expire(self, call: RpcCall, seconds: float) -> None:
        self._fail(call, RequestTimeout(f"{call}: no reply in {seconds:g} seconds"))

    def _fail(self, call: RpcCall, error: AmqpError) -> None:
        self._forget(call)
        call.fail(error)

    def _forget(self, call: RpcCall) -> None:
        """Remove a call that has ended."""
        cancel_all(call._timer)
        call._timer = None
        self._suspects.discard(call)
        self._calls.pop(call.properties.correlation_id or "", None)
        if self._is_closing:
            self._defer(self._close_if_done)

    # Member of the reconnector

    def _disconnected(self, reason: ConnectionClosed) -> None:
        super()._disconnected(reason)
        self._take_back(reason)

    def _writable(self, writable: bool) -> None:
        if writable:
            self._pump()

    def _stop(self) -> None:
        """Do nothing: pending calls go on."""

    def _close_if_done(self) -> None:
        if self._is_closing and not self._calls:
            self._finish(0)

    def _give_up(self) -> None:
        if self._is_closed:
            return
        left = list(self._calls.values())
        why = self._reason or "the client was closed"
        for call in left:
            self._fail(call, WrongState(f"{call}: {why}"))
        self._finish(len(left))


class _Events(ChannelEvents):
    """Passes the events of its channel to a client."""

    def __init__(self, client: RpcClient) -> None:
        super().__init__(client)
        self._client = client

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        self._client._confirmed(tags, acked)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        self._client._returned(returned)


class RpcServer(ClosedAtExit):
    """Answers calls from a queue, over reconnections, on every loop.

    A call is acknowledged when its reply is confirmed, so another server repeats a call whose
    server died.  A caller that is gone is not an error.  A handler answers by returning bytes, an
    RpcReply, None for an empty body, or an awaitable of one of these.  If it raises RpcError, the
    caller gets kind and text; any other exception is logged, and the caller gets only its type.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        queue: The queue of the calls.
        handler: Called with each Message.
        adapter: The loop; None means the running asyncio loop, or the shared Reconnector's.
        topology: Declared before anything is consumed; it should contain the queue.
        concurrency: Calls handled at a time, 1..65535.

    Raises:
        BadArgument, BadType: An argument is wrong.
        WrongState: No adapter was given, and no asyncio loop runs.
    """

    def __init__(
        self,
        target: Target | Reconnector,
        queue: str,
        handler: Callable[[Message], object],
        *,
        adapter: Adapter | None = None,
        topology: Topology | None = None,
        concurrency: int = 10,
    ) -> None:
        if not callable(handler):
            raise BadType(f"handler must be callable, not {handler!r}")
        self._handler = handler
        self._is_owner = not isinstance(target, Reconnector)
        self.reconnector: Reconnector = (
            target if isinstance(target, Reconnector) else Reconnector(target, adapter=adapter)
        )
        # Up to RabbitMQ 4.0 every reply by direct reply-to is returned, delivered or not.
        self._publisher = Publisher(self.reconnector, max_messages=65535, persistent=False)
        self._consumer = Consumer(
            self.reconnector,
            queue,
            self._answer,
            topology=topology,
            prefetch=concurrency,
            on_error="requeue",
        )
        self._callers = _Callers(self.reconnector)

    def __repr__(self) -> str:
        return f"<RpcServer of {self._consumer.queue!r}, {self.reconnector.state.value}>"

    @property
    def adapter(self) -> Adapter:
        """The loop."""
        return self.reconnector.adapter

    @property
    def is_ready(self) -> bool:
        """Whether it takes calls from its queue."""
        return self._consumer.is_ready

    def wait_ready(
        self,
        timeout: float | None = None,
        *,
        fail_fast: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Wait until ``is_ready``; see ``Publisher.wait_ready``."""
        return self._consumer.wait_ready(
            timeout, fail_fast=fail_fast, callback=callback, on_error=on_error
        )

    @property
    def answered(self) -> int:
        """Calls answered with a result or an error."""
        return self._consumer.handled

    @property
    def at_work(self) -> int:
        """Calls being handled now."""
        return self._consumer.at_work

    def close(self, timeout: float | None = None) -> Request[int]:
        """Take no further calls, let running handlers answer, then disconnect.  Idempotent.

        Args:
            timeout: Seconds that handlers may take; then they are cancelled, and their calls go
                back to the queue for another server.  None waits for ever.

        Returns:
            A request for the number of cancelled handlers; it never fails.

        Raises:
            BadArgument, BadType: The timeout is not a number.
            WrongThread: Not the thread of the loop.
        """
        self._consumer._check_caller("RpcServer.close")
        request: Request[int] = Request(self._consumer._host, "RpcServer.close")
        ended = self._consumer.close(timeout)
        self.adapter.run_awaitable(self._shut_down(ended, timeout, request), lambda error: None)
        return request

    def _close_within(self, timeout: float | None) -> Request[int]:
        return self.close(timeout)

    async def _shut_down(
        self, ended: Request[int], timeout: float | None, request: Request[int]
    ) -> None:
        cancelled = await ended
        await self._publisher.close(0)
        if self._is_owner:
            await self.reconnector._close_within(None if timeout is None else 0)
        request.resolve(cancelled)

    async def _answer(self, message: Message) -> Outcome:
        reply_to = message.properties.reply_to
        try:
            result = self._handler(message)
            if isinstance(result, Awaitable):
                result = await result
            reply = _as_reply(result)
        except RpcError as error:
            reply = _error_reply(error.kind, error.text)
        except Exception as error:
            words = "%s: the handler of %r raised; the caller gets the error"
            log.exception(words, self._consumer.label, message)
            reply = _error_reply(type(error).__name__, "the server failed")
        if not reply_to:
            log.warning("%s: no reply for %r: it has no reply_to", self._consumer.label, message)
            return Outcome.CONFIRMED
        properties = (reply.properties or Properties()).replace(
            correlation_id=message.properties.correlation_id
        )
        await self._callers.wait_for(reply_to)
        while True:
            outcome = await self._publisher.publish("", reply_to, reply.body, properties)
            if outcome is not Outcome.RETURNED or _is_direct(reply_to):
                break
            if self.reconnector.ready_for >= STARTING:
                break
            await _pause(self.adapter)
        if outcome not in (Outcome.CONFIRMED, Outcome.RETURNED):
            raise WrongState(f"the reply to {message!r} ended as {outcome.name}")
        return Outcome.CONFIRMED


class _Callers:
    """The callers of a server, and whether a broker that starts knows them already.

    Args:
        reconnector: Makes the connections to the broker.
    """

    def __init__(self, reconnector: Reconnector) -> None:
        self._reconnector = reconnector
        self._known: set[str] = set()  # addresses, of this epoch
        self._epoch = 0

    async def wait_for(self, address: str) -> None:
        """Wait until a reply would get there, or the broker has had its time to start."""
        reconnector = self._reconnector
        while _is_direct(address) and reconnector.ready_for < STARTING:
            connection = reconnector.connection
            if connection is None or not _may_lose_replies(connection):
                return
            if self._epoch != reconnector.epoch:
                self._epoch = reconnector.epoch
                self._known.clear()
            if address in self._known:
                return
            if await _is_known(connection, address):
                self._known.add(address)
                return
            await _pause(reconnector.adapter)


async def _pause(adapter: Adapter) -> None:
    pause = adapter.create_future()
    adapter.call_later(REPLY_DELAY, partial(pause.resolve, None))
    await pause.future


def _is_direct(reply_to: str) -> bool:
    return reply_to.startswith(f"{REPLY_TO}.")


def _may_lose_replies(connection: Connection) -> bool:
    return release_of(connection.server_properties) >= (4, 0)


async def _is_known(connection: Connection, address: str) -> bool:
    """Whether the broker knows the caller; True as well if it cannot be asked.

    A return cannot tell: up to 4.0 every reply is returned, and none from 4.3 on.
    """
    try:
        channel = connection.channel(_Question())
    except AmqpError:
        return True
    try:
        await channel.queue_declare(address, passive=True)
    except NotExecuted as error:
        return error.reason.code != NOT_FOUND
    except AmqpError:
        return True
    finally:
        channel.close()
    return True


class _Question(Handler):
    """Of a channel that the broker closes for an answer."""

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        """Do nothing: the request has it."""


def _as_reply(result: Any) -> RpcReply:
    if isinstance(result, RpcReply):
        return result
    if result is None:
        return RpcReply(b"")
    return RpcReply(copy_body(result))


def _error_reply(kind: str, text: str) -> RpcReply:
    return RpcReply(text.encode(), Properties(headers={ERROR_HEADER: kind}))


def _checked_seconds(timeout: object) -> float:
    checked = checked_timeout(timeout)  # type: ignore[arg-type]
    if not checked:
        raise BadArgument("timeout must be above 0")
    return checked
