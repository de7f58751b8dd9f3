"""aioamqp's exceptions, and which of them an error of evamqp is.

No other file of this facade knows evamqp's errors by name, but for those it acts upon.
"""

from __future__ import annotations

import evamqp


class AioamqpException(Exception):
    """The root of the tree."""


class AmqpClosedConnection(AioamqpException):
    """The connection is closed, or was lost, or could not be opened."""


class SynchronizationError(AioamqpException):
    """Kept for programs that catch it; requests of one kind may overlap here."""


class EmptyQueue(AioamqpException):
    """``basic_get`` found nothing."""


class NoChannelAvailable(AioamqpException):
    """All channel numbers of the connection are in use."""


class ChannelClosed(AioamqpException):
    """The channel is closed.

    Args:
        code: AMQP reply code; 0 where there is none.
        message: The broker's words, or ours.
    """

    def __init__(self, code: int | None = 0, message: str | None = "Channel is closed") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class DuplicateConsumerTag(AioamqpException):
    """The channel has a consumer of that tag already."""


class ConsumerCancelled(AioamqpException):
    """The broker cancelled a consumer."""


class PublishFailed(AioamqpException):
    """The broker refused a publish.

    Args:
        delivery_tag: Of the publish.
    """

    def __init__(self, delivery_tag: int) -> None:
        super().__init__(delivery_tag)
        self.delivery_tag = delivery_tag


def of_channel(reason: evamqp.Closed) -> AioamqpException:
    """Why a channel's request failed, or why it accepts no other."""
    if reason.by == "network" or isinstance(reason, evamqp.ConnectionClosed):
        return of_connection(reason)
    return ChannelClosed(reason.code or 0, reason.text)


def of_connection(reason: evamqp.Closed) -> AioamqpException:
    """Why a connection ended: ChannelClosed has the code of one that closed in order."""
    if reason.code is None or reason.by == "network":
        return AmqpClosedConnection(str(reason))
    return ChannelClosed(reason.code, reason.text)


def of_request(error: evamqp.AmqpError) -> AioamqpException:
    """Why a request failed."""
    if isinstance(error, evamqp.NotExecuted):
        return of_channel(error.reason)
    if isinstance(error, evamqp.ConnectionClosed):
        return AmqpClosedConnection(str(error))
    return AioamqpException(str(error))
