"""RPC: a call is a message to a method's queue, and its result one to the caller's queue.

A call that nobody takes in time goes to the exchange ``rpc.dlx``, which brings it back to its
caller by the header ``From``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from evamqp.compat.aio_pika.channel import Channel
from evamqp.compat.aio_pika.exceptions import MessageProcessError
from evamqp.compat.aio_pika.exchange import Exchange, ExchangeType
from evamqp.compat.aio_pika.log import get_logger
from evamqp.compat.aio_pika.message import DeliveryMode, IncomingMessage, Message
from evamqp.compat.aio_pika.patterns.base import Base, Proxy
from evamqp.compat.aio_pika.queue import ConsumerTag, Queue
from evamqp.compat.aio_pika.tools import ensure_awaitable

log: logging.Logger = get_logger(__name__)


class RPCException(RuntimeError):
    """A method failed with something that is no exception."""


class RPCMessageType(str, Enum):
    """What a message is; its property ``type``."""

    ERROR = "error"
    RESULT = "result"
    CALL = "call"


RPCMessageTypes = RPCMessageType


class RPC(Base):
    """Calls methods elsewhere, and serves methods; ``await RPC.create(channel)`` makes it.

    Args:
        channel: Open.
        host_exceptions: Log what methods that are served here raise.
    """

    DLX_NAME = "rpc.dlx"
    DELIVERY_MODE = DeliveryMode.NOT_PERSISTENT

    result_queue: Queue
    result_consumer_tag: ConsumerTag
    dlx_exchange: Exchange
    rpc_exchange: Exchange | None

    def __init__(self, channel: Channel, host_exceptions: bool = False) -> None:
        self.channel = channel
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.proxy: Proxy = Proxy(self.call)
        self.futures: dict[str, asyncio.Future[Any]] = {}
        self.routes: dict[str, Callable[..., Any]] = {}
        self.queues: dict[Callable[..., Any], Queue] = {}
        self.consumer_tags: dict[Callable[..., Any], ConsumerTag] = {}
        self.host_exceptions = host_exceptions

    @classmethod
    async def create(
        cls, channel: Channel, *, host_exceptions: bool | None = None, **kwargs: Any
    ) -> RPC:
        """Make one that is ready.

        Args:
            channel: Open.
            host_exceptions: Log what methods that are served here raise.
            kwargs: As for ``initialize``.
        """
        rpc = cls(channel)
        if host_exceptions is not None:
            rpc.host_exceptions = host_exceptions
        await rpc.initialize(**kwargs)
        return rpc

    async def initialize(
        self, auto_delete: bool = True, durable: bool = False, exchange: str = "", **kwargs: Any
    ) -> None:
        """Declare what calls need.

        Args:
            auto_delete: Of the queue of results.
            durable: Of it and of the exchange.
            exchange: Calls go through it, rather than to queues by their name.
            kwargs: As for ``declare_queue``.
        """
        if hasattr(self, "result_queue"):
            return
        self.rpc_exchange = None
        if exchange:
            self.rpc_exchange = await self.channel.declare_exchange(
                exchange, ExchangeType.DIRECT, auto_delete=True, durable=durable
            )
        queue = await self.channel.declare_queue(
            None, auto_delete=auto_delete, durable=durable, **kwargs
        )
        self.dlx_exchange = await self.channel.declare_exchange(
            self.DLX_NAME, ExchangeType.HEADERS, auto_delete=True
        )
        await queue.bind(self.dlx_exchange, "", arguments=_mine(queue))
        self.result_consumer_tag = await queue.consume(
            self.on_result_message, exclusive=True, no_ack=True
        )
        self.result_queue = queue
        self.channel.close_callbacks.add(self.on_close)
        self.channel.return_callbacks.add(self.on_message_returned)

    async def close(self) -> None:
        """Call nothing more; calls under way are cancelled."""
        if not hasattr(self, "result_queue"):
            log.warning("RPC already closed")
            return
        queue = self.result_queue
        del self.result_queue
        await queue.cancel(self.result_consumer_tag)
        await queue.unbind(self.dlx_exchange, "", arguments=_mine(queue))
        self.channel.close_callbacks.discard(self.on_close)
        self.channel.return_callbacks.discard(self.on_message_returned)
        for future in self.futures.values():
            future.cancel()
        await queue.delete()

    def on_close(self, channel: Channel | None, exc: BaseException | None = None) -> None:
        """The channel has closed, and the queue of results with it."""
        for future in self.futures.values():
            _fail(future, exc or asyncio.CancelledError())

    # Calling

    def create_future(self) -> tuple[asyncio.Future[Any], str]:
        """What will be the result of a call, and the call's id."""
        future: asyncio.Future[Any] = self.loop.create_future()
        correlation_id = str(uuid.uuid4())
        self.futures[correlation_id] = future
        future.add_done_callback(lambda _: self.futures.pop(correlation_id, None))
        return future, correlation_id

    def _format_routing_key(self, method_name: str) -> str:
        exchange = self.rpc_exchange
        return method_name if exchange is None else f"{exchange.name}::{method_name}"

    async def call(
        self,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        *,
        expiration: float | None = None,
        priority: int = 5,
        delivery_mode: DeliveryMode = DELIVERY_MODE,
    ) -> Any:
        """Call a method, and wait for its result.

        Args:
            method_name: Its name.
            kwargs: Its keywords.
            expiration: Seconds in which somebody has to take the call.
            priority: Of the message.
            delivery_mode: Of the message.

        Raises:
            asyncio.TimeoutError: Nobody took it in time.
            MessageProcessError: Nobody serves that method.
            Exception: What the method raised.
        """
        future, correlation_id = self.create_future()
        try:
            message = await self.serialize_message(
                kwargs or {},
                RPCMessageType.CALL,
                correlation_id,
                delivery_mode,
                reply_to=self.result_queue.name,
                headers={"From": self.result_queue.name},
                priority=priority,
                expiration=expiration,
            )
            exchange = self.rpc_exchange or self.channel.default_exchange
            await exchange.publish(message, self._format_routing_key(method_name), mandatory=True)
            return await future
        finally:
            if not future.done():
                future.cancel()
            elif not future.cancelled():
                future.exception()  # looked at, whether publishing or the call has failed

    def on_message_returned(self, channel: Channel | None, message: IncomingMessage) -> None:
        """Nobody serves a method that was called."""
        future = self.futures.get(message.correlation_id or "")
        if future is None:
            log.warning("a message that is no call of ours was returned: %r", message)
            return
        _fail(future, MessageProcessError("Message has been returned", message))

    async def on_result_message(self, message: IncomingMessage) -> None:
        """A result has come, or the call itself, which nobody took in time."""
        future = self.futures.get(message.correlation_id or "")
        if future is None or future.done():
            log.warning("a result that nobody waits for: %r", message)
            return
        try:
            payload = await self.deserialize_message(message)
        except Exception as error:
            log.error("a result cannot be read: %r", message)
            _fail(future, error)
            return
        if future.done():
            return
        if message.type == RPCMessageType.RESULT.value:
            future.set_result(payload)
        elif message.type == RPCMessageType.ERROR.value:
            is_error = isinstance(payload, Exception)
            _fail(future, payload if is_error else RPCException("no exception", payload))
        elif message.type == RPCMessageType.CALL.value:
            _fail(future, asyncio.TimeoutError("Message timed-out", message))
        else:
            _fail(future, RuntimeError(f"Unknown message type {message.type!r}"))

    # Serving

    async def register(self, method_name: str, func: Callable[..., Any], **kwargs: Any) -> None:
        """Serve a method.

        Args:
            method_name: Its name, and that of its queue.
            func: Called with keywords; a coroutine function, or a plain one.
            kwargs: As for ``declare_queue``.

        Raises:
            RuntimeError: The function or the name serves already.
        """
        key = self._format_routing_key(method_name)
        if func in self.consumer_tags:
            raise RuntimeError("Function already registered")
        if key in self.routes:
            raise RuntimeError(f"Method name already used for {self.routes[key]!r}")
        arguments = {**(kwargs.pop("arguments", None) or {})}
        arguments["x-dead-letter-exchange"] = self.DLX_NAME
        queue = await self.channel.declare_queue(key, arguments=arguments, **kwargs)
        if self.rpc_exchange is not None:
            await queue.bind(self.rpc_exchange, key)
        self.routes[key] = ensure_awaitable(func)
        self.queues[func] = queue
        self.consumer_tags[func] = await queue.consume(partial(self.on_call_message, method_name))

    async def unregister(self, func: Callable[..., Any]) -> None:
        """Serve a method no more.  A no-op if it is not served."""
        tag = self.consumer_tags.pop(func, None)
        if tag is None:
            return
        queue = self.queues.pop(func)
        await queue.cancel(tag)
        self.routes.pop(queue.name, None)

    async def on_call_message(self, method_name: str, message: IncomingMessage) -> None:
        """A call has come."""
        key = self._format_routing_key(method_name)
        if key not in self.routes:
            log.warning("method %r is not registered here", method_name)
            return
        try:
            payload = await self.deserialize_message(message)
            result = await self.execute(self.routes[key], payload)
            kind = RPCMessageType.RESULT
        except Exception as error:
            result, kind = self.serialize_exception(error), RPCMessageType.ERROR
            if self.host_exceptions:
                log.exception("method %r raised", method_name)
        if not message.reply_to:
            log.info("a call of %r wants no result", method_name)
            await message.ack()
            return
        answer = await self._answer(result, kind, message)
        try:
            await self.channel.default_exchange.publish(answer, message.reply_to, mandatory=False)
        except Exception as error:
            log.error("the result of %r cannot be sent: %r", method_name, error)
            await message.reject(requeue=False)
            return
        await message.ack()

    async def _answer(self, result: Any, kind: RPCMessageType, message: IncomingMessage) -> Message:
        """A result as a message; if it cannot be written, the error that says so."""
        mode = message.delivery_mode
        try:
            return await self.serialize_message(result, kind, message.correlation_id, mode)
        except Exception as error:
            return await self.serialize_message(
                self.serialize_exception(error), RPCMessageType.ERROR, message.correlation_id, mode
            )

    async def execute(self, func: Callable[..., Any], payload: dict[str, Any]) -> Any:
        """Call a method that is served here; override it to do something around it."""
        return await func(**payload)

    # Writing and reading

    def serialize_exception(self, exception: Exception) -> Any:
        """What is written for an exception."""
        return exception

    async def deserialize_message(self, message: IncomingMessage) -> Any:
        """What a message says."""
        return self.deserialize(message.body)

    async def serialize_message(
        self,
        payload: Any,
        message_type: RPCMessageType,
        correlation_id: str | None,
        delivery_mode: DeliveryMode,
        **kwargs: Any,
    ) -> Message:
        """A message that says something.

        Args:
            kwargs: As for Message.
        """
        return Message(
            self.serialize(payload),
            content_type=self.CONTENT_TYPE,
            correlation_id=correlation_id,
            delivery_mode=delivery_mode,
            timestamp=time.time(),
            type=message_type.value,
            **kwargs,
        )


def _mine(queue: Queue) -> dict[str, Any]:
    """By which calls that nobody took come back to this queue."""
    return {"From": queue.name, "x-match": "any"}


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)


class JsonRPCError(RuntimeError):
    """A method elsewhere failed; what it raised is described by the arguments."""


class JsonRPC(RPC):
    """The same in JSON."""

    SERIALIZER = json
    CONTENT_TYPE = "application/json"

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data, ensure_ascii=False, default=repr).encode()

    def serialize_exception(self, exception: Exception) -> Any:
        return {
            "error": {
                "type": type(exception).__name__,
                "message": repr(exception),
                "args": exception.args,
            }
        }

    async def deserialize_message(self, message: IncomingMessage) -> Any:
        payload = await super().deserialize_message(message)
        if message.type == RPCMessageType.ERROR.value:
            return JsonRPCError("RPC exception", payload)
        return payload


__all__ = ["RPC", "JsonRPC", "RPCException", "RPCMessageType"]
