"""pika's tree of exceptions, with its arguments and texts.

Which end of a connection becomes which exception is ``_reasons.py``'s.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any


class AMQPError(Exception):
    """The root of what concerns the protocol."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: An unspecified AMQP error has occurred; {self.args}"


class AMQPConnectionError(AMQPError):
    """A connection could not be made, or ended."""

    def __repr__(self) -> str:
        if len(self.args) == 2:
            return f"{type(self).__name__}: ({self.args[0]}) {self.args[1]}"
        return f"{type(self).__name__}: {self.args}"


class ConnectionOpenAborted(AMQPConnectionError):
    """The client closed the connection before it was open."""


class StreamLostError(AMQPConnectionError):
    """The transport was lost."""


class IncompatibleProtocolError(AMQPConnectionError):
    """The peer does not speak AMQP 0-9-1."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: The protocol returned by the server is not supported: "
            f"{self.args}"
        )


class AuthenticationError(AMQPConnectionError):
    """No common mechanism; the argument is the one that was wanted."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: Server and client could not negotiate use of the "
            f"{self.args[0]} authentication mechanism"
        )


class ProbableAuthenticationError(AMQPConnectionError):
    """The peer ended the connection where brokers refuse a login."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: Client was disconnected at a connection stage indicating a "
            f"probable authentication error: {self.args}"
        )


class ProbableAccessDeniedError(AMQPConnectionError):
    """The peer ended the connection where brokers refuse a virtual host."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: Client was disconnected at a connection stage indicating a "
            f"probable denial of access to the specified virtual host: {self.args}"
        )


class NoFreeChannels(AMQPConnectionError):
    """Every channel number is in use."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: The connection has run out of free channels"


class ConnectionWrongStateError(AMQPConnectionError):
    """The connection is not in a state that allows the call."""

    def __repr__(self) -> str:
        if self.args:
            return super().__repr__()
        return (
            f"{type(self).__name__}: The connection is in wrong state for the requested operation."
        )


class ConnectionClosed(AMQPConnectionError):
    """A connection that was open has ended by a close method."""

    def __init__(self, reply_code: int, reply_text: str) -> None:
        super().__init__(int(reply_code), str(reply_text))

    def __repr__(self) -> str:
        return f"{type(self).__name__}: ({self.reply_code}) {self.reply_text!r}"

    @property
    def reply_code(self) -> int:
        """The AMQP reply code."""
        code: int = self.args[0]
        return code

    @property
    def reply_text(self) -> str:
        """What the closing side said."""
        text: str = self.args[1]
        return text


class ConnectionClosedByBroker(ConnectionClosed):
    """The broker closed the connection."""


class ConnectionClosedByClient(ConnectionClosed):
    """The client closed the connection."""


class ConnectionBlockedTimeout(AMQPConnectionError):
    """The broker kept the connection blocked for longer than blocked_connection_timeout."""


class AMQPHeartbeatTimeout(AMQPConnectionError):
    """The peer sent nothing for too long."""


class WorkQueueFullError(AMQPConnectionError):
    """1.5: a channel's callbacks are too slow for what comes, and the connection was given up."""


class AMQPChannelError(AMQPError):
    """A channel ended, or a call on it failed."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.args!r}"


class ChannelWrongStateError(AMQPChannelError):
    """The channel is not in a state that allows the call."""


class ChannelClosed(AMQPChannelError):
    """A channel has ended by a close method."""

    def __init__(self, reply_code: int, reply_text: str) -> None:
        super().__init__(int(reply_code), str(reply_text))

    def __repr__(self) -> str:
        return f"{type(self).__name__}: ({self.reply_code}) {self.reply_text!r}"

    @property
    def reply_code(self) -> int:
        """The AMQP reply code."""
        code: int = self.args[0]
        return code

    @property
    def reply_text(self) -> str:
        """What the closing side said."""
        text: str = self.args[1]
        return text


class ChannelClosedByBroker(ChannelClosed):
    """The broker closed the channel."""


class ChannelClosedByClient(ChannelClosed):
    """The client closed the channel."""


class DuplicateConsumerTag(AMQPChannelError):
    """The channel has a consumer of that tag."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: The consumer tag specified already exists for this channel: "
            f"{self.args[0]}"
        )


class ConsumerCancelled(AMQPChannelError):
    """The broker cancelled a consumer."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: Server cancelled consumer"


class UnroutableError(AMQPChannelError):
    """The broker returned messages that were published as mandatory; ``messages`` holds them."""

    def __init__(self, messages: Sequence[Any]) -> None:
        super().__init__(f"{len(messages)} unroutable message(s) returned")
        self.messages = messages

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {len(self.messages)} unroutable messages returned by broker"


class NackError(AMQPChannelError):
    """The broker refused a message; ``messages`` holds what it returned before."""

    def __init__(self, messages: Sequence[Any]) -> None:
        super().__init__(f"{len(messages)} message(s) NACKed")
        self.messages = messages

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {len(self.messages)} unroutable messages returned by broker"


class InvalidChannelNumber(AMQPError):
    """The channel number is out of range."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: An invalid channel number has been specified: {self.args[0]}"
        )


class ProtocolSyntaxError(AMQPError):
    """The peer broke the grammar."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: An unspecified protocol syntax error occurred"


class UnexpectedFrameError(ProtocolSyntaxError):
    """A frame came out of sequence."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: Received a frame out of sequence: {self.args[0]!r}"


class ProtocolVersionMismatch(ProtocolSyntaxError):
    """The peer wants another version of AMQP."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: Protocol versions did not match: "
            f"{self.args[0]!r} vs {self.args[1]!r}"
        )


class BodyTooLongError(ProtocolSyntaxError):
    """More of a body came than its header announced."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: Received too many bytes for a message delivery: "
            f"Received {self.args[0]}, expected {self.args[1]}"
        )


class InvalidFrameError(ProtocolSyntaxError):
    """Bytes that are no frame."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: Invalid frame received: {self.args[0]!r}"


class InvalidFieldTypeException(ProtocolSyntaxError):
    """A table holds a value of a kind that nobody knows."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: Unsupported field kind {self.args[0]}"


class UnsupportedAMQPFieldException(ProtocolSyntaxError):
    """A value that no table can hold; the arguments are the pieces so far, and the value."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: Unsupported field kind {type(self.args[1])}"


class _Unencodable(AMQPError, struct.error):
    """A value out of range; the argument is the value.  pika 1.4 raises struct.error."""

    _what = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self._what}: {self.args[0]!s:.300}"


class UnencodableDecimalError(_Unencodable):
    """A Decimal with more than 255 decimals, or whose digits are no signed 32-bit integer."""

    _what = "no AMQP decimal"


class UnencodableLongError(_Unencodable):
    """An int outside of the signed 64-bit ones."""

    _what = "no signed 64-bit integer"


class UnencodableTimestampError(_Unencodable):
    """A datetime before 1970."""

    _what = "no AMQP timestamp"


class MethodNotImplemented(AMQPError):
    """A method that is not implemented."""


class ChannelError(Exception):
    """Something with a channel that concerns no protocol."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: An unspecified error occurred with the Channel"


class ReentrancyError(Exception):
    """A blocking call inside a callback that cannot wait there."""


class ShortStringTooLong(AMQPError):
    """A text of more than 255 bytes where the protocol has one byte for its length."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: AMQP Short String can contain up to 255 bytes: {self.args[0]}"
        )


class DuplicateGetOkCallback(ChannelError):
    """A second basic_get before the first was answered."""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}: basic_get can only be called again after the callback for "
            "the previous basic_get is executed"
        )
