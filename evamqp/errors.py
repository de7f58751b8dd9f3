"""Every exception of evamqp, in one tree, and whether each is worth another attempt.

No protocol logic lives here, and no exception of the package is defined anywhere else.

    AmqpError
    ├── UsageError                   yours: raised by the call; nothing was sent or changed
    │   ├── BadArgument              also a ValueError
    │   ├── BadType                  also a TypeError
    │   ├── WrongState               closed, not open yet, or no channel number left
    │   │   └── WrongThread          another thread, or a forked child
    │   ├── AlreadySettled           the message was acked, nacked or rejected already
    │   └── OutputFull               the output buffer is at its cap
    ├── MalformedData                bytes that are not AMQP; raised when a bad property is read
    ├── NotExecuted                  a request's channel or connection ended first (see __cause__)
    ├── RequestTimeout               the broker left a request unanswered
    ├── PublishFailed                the broker did not accept a blocking publish
    │   ├── PublishReturned          no queue takes it
    │   ├── PublishNacked            the broker refused it
    │   └── BatchFailed              either, for some messages of a batch
    ├── ConsumerCancelled            the broker ended a blocking consumer
    ├── RequestCancelled             Request.cancel() was called
    ├── RpcError                     a call's server answered with an error, or no queue took it
    ├── TopologyFailed               an entity whose policy is "fail" could not be declared
    └── Closed                       theirs: arrives as ``reason``, never raised by receive_data
        ├── ChannelClosed
        └── ConnectionClosed
            ├── ConnectFailed        no target could be reached; ``attempts`` lists why
            ├── HandshakeTimeout     connected, but the peer did not finish the AMQP handshake
            ├── ProtocolMismatch     the port speaks something else: AMQP 1.0, HTTP, TLS
            ├── AuthenticationFailed 403 at login, or an end of file where brokers put one
            ├── VhostRefused         530: the virtual host is missing or barred
            ├── ProtocolError        the peer broke AMQP 0-9-1; we closed with the code given
            ├── HeartbeatTimeout     the peer sent no byte for two heartbeat intervals
            └── BlockedTimeout       the broker blocked us for longer than ``blocked_timeout``

``retry`` of each class says when to try again: ``"soon"`` (the usual backoff), ``"slow"`` (a human
probably has to act; try rarely) or ``"never"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, TypeVar

Retry = Literal["soon", "slow", "never"]
By = Literal["client", "broker", "network"]
E = TypeVar("E", bound="AmqpError")

# Reply codes of AMQP 0-9-1 (section 1.1 of the specification's constants).
REPLY_SUCCESS = 200
CONTENT_TOO_LARGE = 311
ACCESS_REFUSED = 403
RESOURCE_LOCKED = 405
FRAME_ERROR = 501
SYNTAX_ERROR = 502
COMMAND_INVALID = 503
CHANNEL_ERROR = 504
UNEXPECTED_FRAME = 505
RESOURCE_ERROR = 506
NOT_ALLOWED = 530
NOT_IMPLEMENTED = 540
INTERNAL_ERROR = 541
# Reply codes below are no errors: the operator's wish, a return.
FIRST_ERROR = 400

# Characters of a peer's text in a log line or a message.
SHOWN_MAX = 200


def shown(text: str) -> str:
    """A peer's text, safe to log: one short line of printable characters.

    Someone who can set a routing key or a queue's name must not be able to forge log lines.
    """
    line = _escape(text[: SHOWN_MAX + 1])
    return line if len(line) <= SHOWN_MAX else f"{line[: SHOWN_MAX - 3]}..."


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


class AmqpError(Exception):
    """The root of the tree."""

    retry: ClassVar[Retry] = "soon"

    def copy(self: E) -> E:
        """A fresh instance for another recipient: a raised exception collects tracebacks."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.args = self.args
        twin.__cause__ = self.__cause__
        return twin

    def __reduce__(self) -> tuple[object, ...]:
        # By default pickle calls the class with ``args`` only, which its constructor may not take.
        return _revive, (type(self), self.args), self.__dict__


def _revive(kind: type[E], arguments: tuple[object, ...]) -> E:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class UsageError(AmqpError):
    """A call that is not possible.  Nothing was sent and nothing changed."""

    retry: ClassVar[Retry] = "never"


class BadArgument(UsageError, ValueError):
    """An argument has the right type but an invalid value."""


class BadType(UsageError, TypeError):
    """An argument has the wrong type."""


class WrongState(UsageError):
    """The state of the connection or channel does not allow the call."""


class WrongThread(WrongState):
    """The call came from a thread, or a forked process, that does not own the connection."""


class AlreadySettled(UsageError):
    """The message is settled already, or came to an ``auto_ack`` consumer."""


class OutputFull(UsageError):
    """The output buffer is at its cap; wait for ``on_writable`` and call again."""

    retry: ClassVar[Retry] = "soon"


class MalformedData(AmqpError):
    """Bytes that do not follow the grammar of AMQP 0-9-1.

    ``code`` is the AMQP reply code of the fault: 501, 502, 503 or 505.
    """

    retry: ClassVar[Retry] = "never"

    def __init__(self, text: str, code: int = SYNTAX_ERROR) -> None:
        super().__init__(text)
        self.code = code


class NotExecuted(AmqpError):
    """A request got no reply because its channel or connection ended.

    Whether the broker executed it is unknown, unless ``is_culprit``.

    Args:
        request: The request in words, such as ``"queue.declare on channel 3"``.
        reason: Why the channel or connection ended; also the ``__cause__``.
        is_culprit: Whether the broker closed the channel or connection because of this very
            request.
    """

    def __init__(self, request: str, reason: Closed, *, is_culprit: bool = False) -> None:
        super().__init__(f"{request}: {reason}")
        self.reason = reason
        self.is_culprit = is_culprit
        self.__cause__: BaseException | None = reason


class RequestTimeout(AmqpError):
    """The broker did not answer within ``request_timeout``; the channel is being closed."""


class ConsumerCancelled(AmqpError):
    """The broker cancelled a consumer, for instance because its queue was deleted."""


class RequestCancelled(AmqpError):
    """``Request.cancel()`` was called; the reply, if any, is discarded."""

    retry: ClassVar[Retry] = "never"


class RpcError(AmqpError):
    """An RPC call failed at its server.  A handler raises it to send an error to the caller.

    Args:
        text: For a human at the caller's end.
        kind: For programs to distinguish errors; ``"unroutable"`` comes from the client: no queue
            takes the call.
    """

    retry: ClassVar[Retry] = "never"

    def __init__(self, text: str, kind: str = "error") -> None:
        super().__init__(text)
        self.text = text
        self.kind = kind

    def __str__(self) -> str:
        return f"{shown(self.kind)}: {shown(self.text)}"


class PublishFailed(AmqpError):
    """A publish that waited for its confirm did not get it."""


class PublishReturned(PublishFailed):
    """No queue takes a ``mandatory`` message.

    Args:
        code: AMQP reply code: 312 NO_ROUTE.
        text: The broker's reply text.
        exchange: As published.
        routing_key: As published.
    """

    retry: ClassVar[Retry] = "slow"

    def __init__(self, code: int, text: str, exchange: str, routing_key: str) -> None:
        where = f"exchange {shown(exchange)!r}, routing key {shown(routing_key)!r}"
        super().__init__(f"{code} {shown(text)}: {where}")
        self.code = code
        self.text = text
        self.exchange = exchange
        self.routing_key = routing_key


class PublishNacked(PublishFailed):
    """The broker refused a publish (basic.nack); it may take the same message later."""


class BatchFailed(PublishFailed):
    """The broker did not accept some messages of a batch.

    Args:
        failures: For each such message its position in the batch, from 0, and why; ascending.
    """

    def __init__(self, failures: Sequence[tuple[int, PublishFailed]]) -> None:
        first = f"the first is {failures[0][0]}: {failures[0][1]}" if failures else "none"
        super().__init__(f"{len(failures)} messages of the batch were not accepted; {first}")
        self.failures: tuple[tuple[int, PublishFailed], ...] = tuple(failures)


class StoreFailed(AmqpError):
    """The store of a Publisher cannot be opened, or did not keep a message.

    ``__cause__`` is the store's own error.
    """


class StoreLocked(StoreFailed):
    """Another Publisher, of this process or another, uses the store."""


class TopologyFailed(AmqpError):
    """Recovery gave up: an entity whose policy is ``fail`` could not be declared.

    ``__cause__`` is the reason of the channel's end.
    """

    retry: ClassVar[Retry] = "never"


class NotReady(AmqpError):
    """``wait_ready``: a client was not ready in time, or never will be.

    ``__cause__`` is what was last in the way: a ConnectionClosed, a ChannelClosed, a
    TopologyFailed; None if nothing has failed.  The client is as it was, and goes on trying unless
    it has ended.
    """


class Closed(AmqpError):
    """Why a connection or channel ended.

    Args:
        text: One sentence for a human; never empty.  A broker's text is here unchanged; ``str()``
            escapes it and cuts it to 200 characters.
        code: AMQP reply code, or None where the end has no AMQP code (a lost socket).
        method: The spec's name of the method the broker blames, such as ``"queue.declare"``;
            None if it blames none.
        by: Who caused it: ``"client"``, you asked for it; ``"broker"``, it closed, or broke a rule
            or a limit so that we had to close; ``"network"``, the transport failed.
    """

    def __init__(
        self, text: str, *, code: int | None = None, method: str | None = None, by: By
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.method = method
        self.by: By = by

    @property
    def reply_text(self) -> str:
        """The text as a close method can carry it: 255 bytes of UTF-8."""
        return self.text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")

    def __str__(self) -> str:
        code = "" if self.code is None else f"{self.code} "
        method = "" if self.method is None else f", blaming {self.method}"
        text = shown(self.text) if self.by == "broker" else _escape(self.text)
        return f"{code}{text} (by {self.by}{method})"


class ChannelClosed(Closed):
    """Why a channel ended.

    ``culprit`` is what the broker blames, if known: the spec's name of the failed request, publish
    or acknowledgement; else None.  If the broker left a request unanswered, it is that request:
    ``"channel.open"`` means that channels do not open on this connection.
    """

    culprit: str | None = None


class ConnectionClosed(Closed):
    """Why a connection ended."""


class ConnectFailed(ConnectionClosed):
    """No target could be reached.

    Args:
        attempts: The failures in order: ``(target, error)``, the target as ``"host:port"``.
    """

    def __init__(self, text: str, attempts: Sequence[tuple[str, BaseException]] = ()) -> None:
        super().__init__(text, by="network")
        self.attempts: tuple[tuple[str, BaseException], ...] = tuple(attempts)


class HandshakeTimeout(ConnectionClosed):
    """The peer accepted the connection but did not finish the handshake in time."""


class ProtocolMismatch(ConnectionClosed):
    """The peer does not speak AMQP 0-9-1 on this port."""

    retry: ClassVar[Retry] = "slow"


class AuthenticationFailed(ConnectionClosed):
    """The broker refused the credentials, or no common mechanism exists.

    ``code`` is None if the broker hung up at this point without a reason, as some do; then the
    credentials are the probable cause, not the certain one.
    """

    retry: ClassVar[Retry] = "slow"


class VhostRefused(ConnectionClosed):
    """The virtual host does not exist, or the user has no access to it."""

    retry: ClassVar[Retry] = "slow"


class ProtocolError(ConnectionClosed):
    """The peer broke the protocol; the connection was closed with ``code``."""


class HeartbeatTimeout(ConnectionClosed):
    """The peer sent no byte for two heartbeat intervals."""


class BlockedTimeout(ConnectionClosed):
    """The broker kept the connection blocked for longer than ``blocked_timeout``."""
