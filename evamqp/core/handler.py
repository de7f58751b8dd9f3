"""Every callback of the library, one method each, and the rules they follow.

No state machine lives here: this file is the list of what a user may override.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict
from weakref import WeakKeyDictionary

from evamqp.core.log_limit import LogLimit
from evamqp.errors import BadArgument, BadType, ConnectionClosed, shown

if TYPE_CHECKING:
    from evamqp.core.channel import Channel, Message
    from evamqp.core.connection import Connection
    from evamqp.core.message import Returned
    from evamqp.errors import ChannelClosed
    from evamqp.types import Tags

log: logging.Logger = logging.getLogger(__name__)

# Lines about returned messages: so many at once, and one more per so many seconds.
RETURNS_AT_ONCE = 5
RETURNS_INTERVAL = 60.0
_returns: WeakKeyDictionary[Connection, LogLimit] = WeakKeyDictionary()


class CallbackContext(NamedTuple):
    """Where a user's function raised.

    Attributes:
        callback: The name of the callback, such as ``"on_message"``.
        connection: The connection it belongs to.
        channel: The channel, or None for a callback of the connection.
        message: The message that was being handled, or None.
    """

    callback: str
    connection: Connection
    channel: Channel | None
    message: Message | None


class Handler:
    """Subclass it and override what you need, or pass functions to ``connect``.

    The five rules of callbacks:

    1. State first, callback last.  The library is consistent before your code runs: closing,
       publishing, cancelling or opening a channel inside any callback is legal.
    2. Every request completes exactly once, in request order: by its reply, an error, or the
       loss of its channel.  Only basic_consume and basic_cancel may complete after requests made
       later, since RabbitMQ's queues answer them in their own time.  At the end come, per channel,
       its pending requests in order, then ``on_channel_close``; then the connection's own
       requests; then ``on_close``.
    3. ``on_close`` is the last callback, and comes once.  Functions that arrive later through
       ``call_soon_threadsafe`` are dropped and counted.
    4. Callbacks come from the loop only, never from inside a call that you make.  A call that
       cannot be carried out raises there, and changes nothing.
    5. An exception in a callback goes to ``on_callback_error``, never into the parser or the
       socket; the connection lives.  KeyboardInterrupt and SystemExit propagate out of the
       loop, except from Twisted's, which logs them and goes on.

    A callback may be an async function, or return a coroutine: the loop runs it, nobody waits for
    it, and the fifth rule holds.  The other rules apply to its beginning.
    """

    #: Whether somebody else reports that its connection was not closed.
    _answers_for_connection = False

    def on_open(self, connection: Connection) -> object:
        """The handshake is complete: open channels now."""

    def on_open_error(self, connection: Connection, error: ConnectionClosed) -> object:
        """The connection could not be opened.  Exactly one of this and ``on_open`` is called.

        By default this calls ``on_close``.
        """
        return self.on_close(connection, error)

    def on_close(self, connection: Connection, reason: ConnectionClosed) -> object:
        """An open connection ended.  By default an end that you did not ask for is logged."""
        if reason.by != "client" or type(reason) is not ConnectionClosed:
            log.warning("%r was closed: %s", connection, reason)
        return None

    def on_blocked(self, connection: Connection, reason: str) -> object:
        """The broker asks us to stop publishing (a memory or disk alarm).  By default, log it."""
        log.warning("%r: the broker takes no publishes: %s", connection, shown(reason))
        return None

    def on_unblocked(self, connection: Connection) -> object:
        """The alarm is over.  By default, log it."""
        log.info("%r: the broker takes publishes again", connection)
        return None

    def on_writable(self, connection: Connection, writable: bool) -> object:
        """Backpressure: stop publishing at False, go on at True.

        ``connection.is_writable`` changes at once; this reports it on the next turn of the loop.
        """

    def on_channel_open(self, channel: Channel) -> object:
        """The broker has opened a channel."""

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> object:
        """A channel ended, once for each ``connection.channel()`` that returned.

        ``channel.unconfirmed`` lists the publishes whose outcome is now unknown.  By default an
        end that you did not ask for is logged.
        """
        if reason.by != "client":
            log.warning("%r: channel %d closed: %s", channel.connection, channel.number, reason)
        return None

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> object:
        """The broker took responsibility for these publishes (``acked``), or refused them.

        Args:
            channel: The channel they were published on.
            tags: What ``basic_publish`` returned for them, ascending, ``multiple`` resolved.
            acked: True for basic.ack, False for basic.nack.
        """

    def on_return(self, channel: Channel, returned: Returned) -> object:
        """A ``mandatory`` message could not be routed.  Its confirmation follows as an ack.

        By default it is logged; of many in a row only some, with their count.
        """
        connection = channel.connection
        limit = _returns.setdefault(connection, LogLimit(RETURNS_AT_ONCE, RETURNS_INTERVAL))
        if limit.admits(connection.context.clock.time()):
            words = returned.as_error()
            log.warning("%r: a message was returned: %s%s", connection, words, limit.suffix())
        return None

    def on_consumer_cancel(self, channel: Channel, consumer_tag: str) -> object:
        """The broker cancelled a consumer, for instance because its queue was deleted."""
        log.warning(
            "%r: the broker cancelled consumer %s of channel %d",
            channel.connection, consumer_tag, channel.number,
        )  # fmt: skip
        return None

    def on_callback_error(self, context: CallbackContext, error: BaseException) -> object:
        """A callback raised.  By default it is logged, with your traceback."""
        message = context.message
        about = "" if message is None else f" for delivery {message.delivery_tag}"
        if message is not None and not message.is_settled:
            about += ", which stays unsettled"
        words = "%r: %s raised %r%s"
        log.error(words, context.connection, context.callback, error, about, exc_info=error)
        return None


def answers_for_connection(handler: Handler) -> bool:
    """Whether somebody else reports that the handler's connection was not closed."""
    return handler._answers_for_connection


class ChannelCallbacks(TypedDict, total=False):
    """The types of the functions that ``Connection.channel`` takes; see ``Handler``."""

    on_channel_open: Callable[[Channel], object]
    on_channel_close: Callable[[Channel, ChannelClosed], object]
    on_delivery_confirmation: Callable[[Channel, Tags, bool], object]
    on_return: Callable[[Channel, Returned], object]
    on_consumer_cancel: Callable[[Channel, str], object]
    on_callback_error: Callable[[CallbackContext, BaseException], object]


class Callbacks(ChannelCallbacks, total=False):
    """The types of the functions that ``evamqp.connect`` takes; see ``Handler``."""

    on_open: Callable[[Connection], object]
    on_open_error: Callable[[Connection, ConnectionClosed], object]
    on_close: Callable[[Connection, ConnectionClosed], object]
    on_blocked: Callable[[Connection, str], object]
    on_unblocked: Callable[[Connection], object]
    on_writable: Callable[[Connection, bool], object]


CALLBACKS = tuple(name for name in vars(Handler) if name.startswith("on_"))


def with_functions(handler: Handler | None, functions: Mapping[str, object]) -> Handler:
    """A handler that calls ``functions`` by name, and ``handler`` for the rest.

    Raises:
        BadArgument: A name is not a callback's; the known ones are listed.
        BadType: Something is not callable, or ``handler`` is not a Handler.
    """
    if handler is not None and not isinstance(handler, Handler):
        raise BadType(f"handler must be an instance of Handler, not {handler!r}")
    if not functions:
        return handler or Handler()
    merged = Handler()
    if handler is not None:
        for name in CALLBACKS:
            method = getattr(handler, name)
            # What nobody overrode stays merged's own: on_open_error calls on_close in turn.
            if getattr(method, "__func__", None) is not vars(Handler)[name]:
                setattr(merged, name, method)
    for name, function in functions.items():
        if name not in CALLBACKS:
            raise BadArgument(f"{name} is no callback; known are {', '.join(CALLBACKS)}")
        if not callable(function):
            raise BadType(f"{name} must be callable, not {function!r}")
        setattr(merged, name, function)
    return merged
