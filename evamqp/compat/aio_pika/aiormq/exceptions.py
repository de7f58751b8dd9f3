"""aiormq's exceptions: what aio-pika raises, and so what its programs catch.

How evamqp's errors become these is ``aio_pika.exceptions``.
"""

from __future__ import annotations

from typing import Any

from evamqp.compat.aio_pika.aiormq.abc import DeliveredMessage
from evamqp.compat.aio_pika.pamqp.commands import Basic, Frame


class AMQPError(Exception):
    """The root of the tree."""

    reason = "an AMQP error: %s"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>" if self.args else f"<{type(self).__name__}>"


AMQPException = AMQPError


class AMQPConnectionError(AMQPError, ConnectionError):
    """The connection could not be made, or has ended."""


class IncompatibleProtocolError(AMQPConnectionError):
    """The peer does not speak AMQP 0-9-1."""


class AuthenticationError(AMQPConnectionError):
    """No common mechanism of authentication."""


class ProbableAuthenticationError(AMQPConnectionError):
    """The broker refused the credentials."""


class ConnectionClosed(AMQPConnectionError):
    """The connection has ended."""


class ConnectionSyntaxError(ConnectionClosed):
    """Code 502."""


class ConnectionFrameError(ConnectionClosed):
    """Code 501."""


class ConnectionCommandInvalid(ConnectionClosed):
    """Code 503."""


class ConnectionChannelError(ConnectionClosed):
    """Code 504."""


class ConnectionUnexpectedFrame(ConnectionClosed):
    """Code 505."""


class ConnectionResourceError(ConnectionClosed):
    """Code 506."""


class ConnectionNotAllowed(ConnectionClosed):
    """Code 530."""


class ConnectionNotImplemented(ConnectionClosed):
    """Code 540."""


class ConnectionInternalError(ConnectionClosed):
    """Code 541."""


class AMQPChannelError(AMQPError):
    """Something about a channel."""


class ChannelClosed(AMQPChannelError):
    """The channel has ended."""


class ChannelAccessRefused(ChannelClosed):
    """Code 403."""


class ChannelNotFoundEntity(ChannelClosed):
    """Code 404."""


class ChannelLockedResource(ChannelClosed):
    """Code 405."""


class ChannelPreconditionFailed(ChannelClosed):
    """Code 406."""


class DuplicateConsumerTag(ChannelClosed):
    """The channel has a consumer of that tag already."""


class ProtocolSyntaxError(AMQPError):
    """The peer broke the protocol."""


class InvalidFrameError(ProtocolSyntaxError):
    """The peer sent what it must not."""


class MethodNotImplemented(AMQPError):
    """No broker implements it."""


class DeliveryError(AMQPError):
    """The broker did not take a message.

    Attributes:
        message: What came back; None if it was refused.
        frame: Basic.Nack, Basic.Reject or Basic.Return.
    """

    def __init__(self, message: DeliveredMessage | None, frame: Frame, *args: Any) -> None:
        super().__init__(message, frame)
        self.message = message
        self.frame = frame

    def __str__(self) -> str:
        return f"the message was not delivered: {self.frame!r}"


class PublishError(DeliveryError):
    """No queue took a message, and it came back."""

    def __init__(self, message: DeliveredMessage, frame: Basic.Return, *args: Any) -> None:
        super().__init__(message, frame)
        self.args: tuple[Any, ...] = (frame.reply_text, frame.routing_key, *args)


class ChannelInvalidStateError(RuntimeError):
    """The channel is not open."""


__all__ = [
    "AMQPChannelError",
    "AMQPConnectionError",
    "AMQPError",
    "AMQPException",
    "AuthenticationError",
    "ChannelAccessRefused",
    "ChannelClosed",
    "ChannelInvalidStateError",
    "ChannelLockedResource",
    "ChannelNotFoundEntity",
    "ChannelPreconditionFailed",
    "ConnectionChannelError",
    "ConnectionClosed",
    "ConnectionCommandInvalid",
    "ConnectionFrameError",
    "ConnectionInternalError",
    "ConnectionNotAllowed",
    "ConnectionNotImplemented",
    "ConnectionResourceError",
    "ConnectionSyntaxError",
    "ConnectionUnexpectedFrame",
    "DeliveryError",
    "DuplicateConsumerTag",
    "IncompatibleProtocolError",
    "InvalidFrameError",
    "MethodNotImplemented",
    "ProbableAuthenticationError",
    "ProtocolSyntaxError",
    "PublishError",
]
