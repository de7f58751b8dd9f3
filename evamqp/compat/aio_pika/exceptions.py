"""aio-pika's exceptions, and which of them an error of evamqp is."""

from __future__ import annotations

import asyncio

import evamqp
from evamqp.compat.aio_pika.aiormq import exceptions as aiormq
from evamqp.compat.aio_pika.aiormq.exceptions import (
    AMQPChannelError,
    AMQPConnectionError,
    AMQPError,
    AMQPException,
    AuthenticationError,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    DeliveryError,
    DuplicateConsumerTag,
    IncompatibleProtocolError,
    InvalidFrameError,
    MethodNotImplemented,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
    PublishError,
)
from evamqp.compat.aio_pika.pamqp.exceptions import PAMQPException

#: What a connection may fail with.
CONNECTION_EXCEPTIONS = (
    AMQPError,
    ConnectionError,
    OSError,
    RuntimeError,
    StopAsyncIteration,
    PAMQPException,
)


class MessageProcessError(AMQPError):
    """The message was acknowledged or rejected before, or came back."""


class QueueEmpty(AMQPError, asyncio.QueueEmpty):
    """``queue.get()`` found nothing."""


_CHANNEL_CODES = {
    403: aiormq.ChannelAccessRefused,
    404: ChannelNotFoundEntity,
    405: aiormq.ChannelLockedResource,
    406: ChannelPreconditionFailed,
}
_CONNECTION_CODES = {
    501: aiormq.ConnectionFrameError,
    502: aiormq.ConnectionSyntaxError,
    503: aiormq.ConnectionCommandInvalid,
    504: aiormq.ConnectionChannelError,
    505: aiormq.ConnectionUnexpectedFrame,
    506: aiormq.ConnectionResourceError,
    530: aiormq.ConnectionNotAllowed,
    540: aiormq.ConnectionNotImplemented,
    541: aiormq.ConnectionInternalError,
}


def of_channel(reason: evamqp.Closed) -> Exception:
    """Why a channel ended; what ended the connection ended its channels."""
    if isinstance(reason.__cause__, evamqp.ConnectionClosed) and reason.by != "client":
        reason = reason.__cause__
    if isinstance(reason, evamqp.ConnectionClosed) or reason.by == "network":
        return of_connection(reason)
    if reason.code in _CHANNEL_CODES:
        return _CHANNEL_CODES[reason.code](reason.text)
    if reason.by == "client":
        return ChannelInvalidStateError(reason.text)
    return ChannelClosed(reason.code, reason.text)


def of_connection(reason: evamqp.Closed) -> Exception:
    """Why a connection ended."""
    if isinstance(reason, evamqp.ConnectFailed):
        return _of_failed_attempt(reason)
    if isinstance(reason, evamqp.AuthenticationFailed):
        return ProbableAuthenticationError(reason.text)
    if isinstance(reason, evamqp.ProtocolMismatch):
        return IncompatibleProtocolError(reason.text)
    if reason.code in _CONNECTION_CODES:
        return _CONNECTION_CODES[reason.code](reason.text)
    if reason.code is None or reason.by == "network":
        return AMQPConnectionError(reason.text)
    return ConnectionClosed(reason.code, reason.text)


def _of_failed_attempt(reason: evamqp.ConnectFailed) -> Exception:
    for _, cause in reversed(reason.attempts):
        if isinstance(cause, OSError) and cause.args:
            return AMQPConnectionError(*cause.args)
    return AMQPConnectionError(reason.text)


def of_error(error: BaseException) -> BaseException:
    """Why a call failed."""
    if isinstance(error, evamqp.NotExecuted):
        return of_channel(error.reason)
    if isinstance(error, evamqp.Closed):
        return of_channel(error)
    if isinstance(error, evamqp.RequestTimeout):
        return asyncio.TimeoutError(str(error))
    if isinstance(error, evamqp.WrongState):
        return ChannelInvalidStateError(str(error))
    return error


__all__ = [
    "CONNECTION_EXCEPTIONS",
    "AMQPChannelError",
    "AMQPConnectionError",
    "AMQPError",
    "AMQPException",
    "AuthenticationError",
    "ChannelClosed",
    "ChannelInvalidStateError",
    "ChannelNotFoundEntity",
    "ChannelPreconditionFailed",
    "ConnectionClosed",
    "DeliveryError",
    "DuplicateConsumerTag",
    "IncompatibleProtocolError",
    "InvalidFrameError",
    "MessageProcessError",
    "MethodNotImplemented",
    "ProbableAuthenticationError",
    "ProtocolSyntaxError",
    "PublishError",
    "QueueEmpty",
]
