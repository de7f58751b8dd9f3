"""What kombu and Celery catch, made of what evamqp raises.

The classes are py-amqp's, on which kombu itself depends and which programs name.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

from amqp import exceptions as kinds

import evamqp

Errors: TypeAlias = tuple[type[Exception], ...]

connection_errors: Errors = (kinds.ConnectionError, OSError)
channel_errors: Errors = (kinds.ChannelError,)
recoverable_connection_errors: Errors = (
    kinds.RecoverableConnectionError,
    kinds.MessageNacked,
    OSError,
)
recoverable_channel_errors: Errors = (kinds.RecoverableChannelError,)


def translate(error: BaseException) -> BaseException:
    """What to raise in place of an error of evamqp's; your mistakes stay as they are."""
    if isinstance(error, evamqp.NotExecuted):
        return translate(error.reason)
    if isinstance(error, evamqp.ChannelClosed):
        return _channel_closed(error)
    if isinstance(error, evamqp.ConnectionClosed):
        return _connection_closed(error)
    if isinstance(error, evamqp.PublishReturned):
        return _new(kinds.ChannelError, error.text, None, "Basic.return", error.code)
    if isinstance(error, evamqp.PublishNacked):
        return _new(kinds.MessageNacked, str(error))
    if isinstance(error, (evamqp.WrongState, evamqp.RequestTimeout)):
        return _new(kinds.RecoverableConnectionError, str(error))
    return error


def translate_unasked(reason: evamqp.ChannelClosed) -> BaseException:
    """The same for a channel that ended though no call was waiting.

    The error is of ``connection_errors`` too, after which a worker connects anew: by default
    Celery ends over an error of a channel.
    """
    found = _kind(reason, kinds.ChannelError)
    return _make(_lost_with_channel(found), reason)


@cache
def _lost_with_channel(kind: type) -> type:
    if issubclass(kind, kinds.ConnectionError):
        return kind
    return type(kind.__name__, (kind, kinds.RecoverableConnectionError), {})


def _channel_closed(reason: evamqp.ChannelClosed) -> BaseException:
    if reason.by != "broker":
        return _new(kinds.RecoverableConnectionError, f"the channel is closed: {reason}")
    return _make(_kind(reason, kinds.ChannelError), reason)


def _connection_closed(reason: evamqp.ConnectionClosed) -> BaseException:
    if isinstance(reason, evamqp.AuthenticationFailed):
        return _make(kinds.AccessRefused, reason)
    if isinstance(reason, evamqp.VhostRefused):
        return _make(kinds.NotAllowed, reason)
    if isinstance(reason, evamqp.ProtocolMismatch):
        return _new(kinds.IrrecoverableConnectionError, str(reason))
    if isinstance(reason, evamqp.ConnectFailed):
        return _connect_failed(reason)
    kind = _kind(reason, kinds.RecoverableConnectionError)
    if reason.by != "broker" or not issubclass(kind, kinds.ConnectionError):
        return _new(kinds.RecoverableConnectionError, str(reason))
    return _make(kind, reason)


def _connect_failed(reason: evamqp.ConnectFailed) -> BaseException:
    """The socket's own error, since programs catch ConnectionRefusedError."""
    for _, error in reversed(reason.attempts):
        if isinstance(error, OSError):
            return error
    return _new(kinds.RecoverableConnectionError, str(reason))


def _kind(reason: evamqp.Closed, default: type) -> type:
    found: type = kinds.ERROR_MAP.get(reason.code, default)
    return found


def _make(kind: type, reason: evamqp.Closed) -> BaseException:
    method = "" if reason.method is None else reason.method.capitalize()
    # The broker's own words, as long as they cannot write lines of a log.
    text = reason.text if reason.text.isprintable() else str(reason)
    return _new(kind, text, None, method, reason.code)


def _new(kind: type, *arguments: object) -> BaseException:
    error: BaseException = kind(*arguments)
    return error
