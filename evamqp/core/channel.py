"""The only spelling of the channel API: what a user may send, and the messages that come.

How requests are answered, and everything else that comes in, is ``channel_machine.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from evamqp import checks
from evamqp.codec.frames import method_frame
from evamqp.codec.methods import pack_ack, pack_nack, pack_reject
from evamqp.core.async_block import AsyncBlock
from evamqp.core.channel_machine import Consumer
from evamqp.core.confirms import Confirms, LateConfirms
from evamqp.core.coroutines import is_async
from evamqp.core.delivery_template import DeliveryTemplate, no_message
from evamqp.core.handshake import release_of
from evamqp.core.iteration import Inbox, MessageIterator, Messages
from evamqp.core.message import STREAM_OFFSET, Delivery
from evamqp.core.publishing import Publishing
from evamqp.core.request import ConsumerTag, Request, check_callbacks, check_reason, check_text
from evamqp.core.state import ChannelState
from evamqp.errors import BadArgument, BadType, ChannelClosed, NotExecuted, WrongState, WrongThread
from evamqp.types import Callback, DeclareOk, ErrorCallback, TableLike, Tags

if TYPE_CHECKING:
    from evamqp.core.channel_machine import ChannelMachine
    from evamqp.core.connection import Connection
    from evamqp.core.content import Content

log: logging.Logger = logging.getLogger(__name__)


class Message(Delivery):
    """A message from basic_consume or basic_get.

    Attributes:
        body: The payload.
    """

    __slots__ = ()

    @property
    def channel(self) -> Channel:
        """The channel it came on."""
        channel: Channel = self._template.channel
        return channel


class Channel(Publishing, AsyncBlock):
    """A channel: usable at once, since requests are pipelined behind ``channel.open``.

    A method that asks the broker something returns a ``Request``: await it, take its ``future``,
    give ``callback`` and ``on_error``, or ignore it.  With ``nowait`` the broker sends no reply
    and None is returned.  Every method raises WrongState when the channel is closing or closed,
    WrongThread from a thread that does not own the connection, BadArgument or BadType for what
    cannot be sent or does not fit a frame (RabbitMQ ends the connection over that, and blames
    nothing), and OutputFull at the output cap; then nothing was sent.
    """

    __slots__ = ("_machine", "connection")

    def __init__(self, connection: Connection, machine: ChannelMachine) -> None:
        super().__init__(machine, connection.context.limits)
        self.connection: Connection = connection
        self._machine = machine
        machine.request("channel.open", finish=_none)
        machine.channel = self

    def __repr__(self) -> str:
        return f"<Channel {self.number} {self.state.value}>"

    @property
    def state(self) -> ChannelState:
        """Where the channel stands."""
        return self._machine.state

    @property
    def reason(self) -> ChannelClosed | None:
        """Why it ended, or is ending; None before."""
        return self._machine.reason

    @property
    def is_open(self) -> bool:
        """Whether the broker has opened it, and neither side has closed it."""
        return self._machine.state is ChannelState.OPEN

    @property
    def unconfirmed(self) -> Tags:
        """Tags of publishes without an outcome, ascending.  Once closed: forever unknown."""
        return self._machine.unconfirmed

    @property
    def published(self) -> int:
        """Publishes that were accepted so far."""
        return self._machine.published

    # Exchanges

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: TableLike | None = None,
        *,
        nowait: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Create an exchange, or check that it exists as described.

        Args:
            exchange: Name, up to 255 bytes of UTF-8.
            exchange_type: ``direct``, ``fanout``, ``topic``, ``headers`` or a plugin's.
            passive: Only check that it exists.
            durable: It survives a broker restart.
            auto_delete: It goes when its last binding goes.
            internal: Only other exchanges may publish to it.
            arguments: For instance ``alternate-exchange``.

        Spec: exchange.declare (40, 10).  A difference from what exists closes the channel (406).
        """
        return self._ask(
            "exchange.declare", exchange, exchange_type, passive, durable, auto_delete, internal,
            nowait, arguments, nowait=nowait, finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    def exchange_delete(
        self,
        exchange: str,
        if_unused: bool = False,
        *,
        nowait: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Delete an exchange; one that does not exist is no error.

        Args:
            exchange: Name.
            if_unused: Only if nothing is bound to it, else the channel is closed (406).

        Spec: exchange.delete (40, 20).
        """
        return self._ask(
            "exchange.delete", exchange, if_unused, nowait,
            nowait=nowait, finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    def exchange_bind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
        *,
        nowait: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Route messages from the exchange ``source`` to the exchange ``destination``.

        Spec: exchange.bind (40, 30), a RabbitMQ extension.
        """
        return self._ask(
            "exchange.bind", destination, source, routing_key, nowait, arguments,
            nowait=nowait, finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    def exchange_unbind(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
        *,
        nowait: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Undo ``exchange_bind`` with the same arguments.

        Spec: exchange.unbind (40, 40), a RabbitMQ extension.
        """
        return self._ask(
            "exchange.unbind", destination, source, routing_key, nowait, arguments,
            nowait=nowait, finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    # Queues

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: TableLike | None = None,
        *,
        nowait: bool = False,
        callback: Callback[DeclareOk] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[DeclareOk]:
        """Create a queue, or check that it exists as described.

        Args:
            queue: Name; "" lets the broker choose one, which the reply names.
            passive: Only check that it exists.
            durable: It survives a broker restart.
            exclusive: Only this connection may use it, and it goes with the connection.
            auto_delete: It goes when its last consumer goes.
            arguments: For instance ``x-queue-type``, ``x-message-ttl`` (milliseconds).

        Spec: queue.declare (50, 10).  A difference from what exists closes the channel (406).
        """
        if not queue and self.connection.context.recorder is not None:
            queue = client_made_name()  # the broker's own names cannot be declared again
        return self._ask(
            "queue.declare", queue, passive, durable, exclusive, auto_delete, nowait, arguments,
            nowait=nowait, finish=DeclareOk, callback=callback, on_error=on_error,
        )  # fmt: skip

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
        *,
        nowait: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Route messages from an exchange to a queue.

        Args:
            queue: Name; "" is the queue last declared on this channel.
            exchange: Name.
            routing_key: What the exchange's type makes of it.
            arguments: For a headers exchange: the headers to match, and ``x-match``.

        Spec: queue.bind (50, 20).
        """
        return self._ask(
            "queue.bind", queue, exchange, routing_key, nowait, arguments,
            nowait=nowait, finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    def queue_unbind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
        *,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Undo ``queue_bind`` with the same arguments.

        Spec: queue.unbind (50, 50).  The specification has no nowait here.
        """
        return self._ask(
            "queue.unbind", queue, exchange, routing_key, arguments,
            finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    def queue_purge(
        self,
        queue: str,
        *,
        nowait: bool = False,
        callback: Callback[int] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[int]:
        """Drop the messages that are ready in a queue, and return how many there were.

        Spec: queue.purge (50, 30).
        """
        return self._ask(
            "queue.purge", queue, nowait,
            nowait=nowait, finish=_same, callback=callback, on_error=on_error,
        )  # fmt: skip

    def queue_delete(
        self,
        queue: str,
        if_unused: bool = False,
        if_empty: bool = False,
        *,
        nowait: bool = False,
        callback: Callback[int] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[int]:
        """Delete a queue, and return how many messages it held; a missing one is no error.

        Args:
            queue: Name.
            if_unused: Only without consumers, else the channel is closed (406).
            if_empty: Only without messages, else the channel is closed (406).

        Spec: queue.delete (50, 40).
        """
        return self._ask(
            "queue.delete", queue, if_unused, if_empty, nowait,
            nowait=nowait, finish=_same, callback=callback, on_error=on_error,
        )  # fmt: skip

    # Publishing

    def confirm_select(
        self,
        *,
        nowait: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Ask the broker to confirm every publish from here on; they are counted from 1.

        Calling it again changes nothing.

        Spec: confirm.select (85, 10), a RabbitMQ extension.
        """
        request = self._ask(
            "confirm.select", nowait,
            nowait=nowait, finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip
        machine = self._machine
        if machine.confirms is None:
            counted = self._count_mandatory() if self._broker_counts_mandatory() else 0
            machine.confirms = LateConfirms(counted) if counted else Confirms()
            machine.next_tag = 1
        return request

    def _broker_counts_mandatory(self) -> bool:
        """Whether its tags count mandatory publishes from the opening of the channel."""
        # Until RabbitMQ 3.10.0, https://github.com/rabbitmq/rabbitmq-server/pull/3870.
        return () < release_of(self.connection.server_properties) < (3, 10)

    def wait_for_confirms(
        self,
        *,
        callback: Callback[list[int]] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[list[int]]:
        """Wait until everything published so far has its outcome.

        Returns:
            A request for the tags that were nacked since the last such wait, ascending; the
            100,000 newest at the most.

        Raises:
            WrongState: The channel is not in confirm mode, or is closed.
        """
        machine = self._machine
        if machine.owner != get_ident():
            raise machine.unusable("wait_for_confirms")
        if machine.confirms is None:
            raise WrongState(f"wait_for_confirms on channel {self.number}: no confirm_select")
        check_callbacks("wait_for_confirms", callback, on_error)
        request: Request[list[int]] = Request(
            machine, "wait_for_confirms", channel=self, callback=callback, on_error=on_error
        )
        machine.wait_for_confirms(request)
        return request

    # Consuming

    def basic_consume(
        self,
        queue: str,
        on_message: Callable[[Message], object],
        auto_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: TableLike | None = None,
        *,
        on_cancel: Callable[[str], object] | None = None,
        callback: Callback[str] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> ConsumerTag:
        """Start a consumer.

        Args:
            queue: Name; "" is the queue last declared on this channel.
            on_message: Called with each Message; a plain function.
            auto_ack: The broker forgets a message once sent; such messages cannot be settled.
            exclusive: Refuse (403) if the queue has consumers, and keep others away.
            consumer_tag: Up to 255 bytes, unique on this channel; "" lets the client make one that
                is unique on the connection.
            arguments: For instance ``x-priority``, or ``x-stream-offset`` for a stream.
            on_cancel: Called with the tag when the broker cancels the consumer.

        Returns:
            The consumer tag, a str; ``await`` it for the broker's consent.

        Raises:
            BadArgument: The tag is in use on this channel.
            BadType: on_message is not callable, or is an async function.

        Spec: basic.consume (60, 20).
        """
        _check_on_message(on_message)
        check_callbacks("basic.consume", on_cancel)
        check_text("basic.consume: consumer_tag", consumer_tag)
        machine, channels = self._machine, self.connection.context.channels
        number = channels.consumers_named
        if not consumer_tag:
            # Unlike any other of the connection: what a former channel of our number was sent may
            # come late, and must not be taken for ours.
            number += 1
            while (consumer_tag := f"ctag-{number}") in machine.consumers:
                number += 1  # you have taken that one
        if consumer_tag in machine.consumers:
            raise BadArgument(f"channel {self.number} has a consumer {consumer_tag!r} already")
        request = machine.request(
            "basic.consume", queue, consumer_tag, False, auto_ack, exclusive, False, arguments,
            finish=_same, callback=callback, on_error=on_error, tag=consumer_tag,
        )  # fmt: skip
        channels.consumers_named = number
        is_stream = arguments is not None and STREAM_OFFSET in arguments
        machine.consumers[consumer_tag] = Consumer(
            consumer_tag, on_message, auto_ack, on_cancel, is_stream
        )
        return ConsumerTag(consumer_tag, request)

    def messages(
        self,
        queue: str,
        *,
        prefetch: int = 100,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: TableLike | None = None,
    ) -> Messages[Message]:
        """Consume a queue by ``async for``, on every loop that runs coroutines.

        Each loop over it is a consumer of its own, from the loop's first line to its end; see
        ``MessageIterator`` for how that comes.  The loop's messages are yours to settle: by
        ``async with message``, or by ack(), nack() and reject().

        Args:
            queue: Name; "" is the queue last declared on this channel.
            prefetch: Messages that may be unacknowledged, 1..65535, and so may wait here.  It
                holds for this channel's later consumers too, as after ``basic_qos``.
            exclusive: Refuse (403) if the queue has consumers, and keep others away.
            consumer_tag: See ``basic_consume``.
            arguments: For instance ``x-priority``.

        Raises:
            BadArgument, BadType: An argument is wrong; nothing was sent.
        """
        checks.prefetch("prefetch", prefetch)
        # Refused here rather than where the loop begins.
        method_frame(
            self.number, "basic.consume",
            queue, consumer_tag, False, False, exclusive, False, arguments,
        )  # fmt: skip
        return Messages(partial(self._iterate, queue, prefetch, exclusive, consumer_tag, arguments))

    def _iterate(
        self,
        queue: str,
        prefetch: int,
        exclusive: bool,
        consumer_tag: str,
        arguments: TableLike | None,
    ) -> MessageIterator[Message]:
        inbox: Inbox[Message] = Inbox(self, self.connection.context.callbacks, prefetch)
        self.basic_qos(prefetch)
        tag = inbox.tag = self.basic_consume(
            queue, inbox.deliver, False, exclusive, consumer_tag, arguments,
            on_cancel=inbox.broker_cancelled, on_error=inbox.refused,
        )  # fmt: skip
        consumers = self._machine.consumers
        consumers[tag] = consumers[tag]._replace(on_end=inbox.ended)
        return MessageIterator(inbox)

    def basic_cancel(
        self,
        consumer_tag: str,
        *,
        callback: Callback[str] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[str]:
        """Stop a consumer.

        Messages may be under way.  Until the broker's answer, an ``auto_ack`` consumer still gets
        its messages, which exist nowhere else any more; those of other consumers are requeued.

        Spec: basic.cancel (60, 30).
        """
        check_text("basic.cancel: consumer_tag", consumer_tag)
        machine = self._machine
        consumer = machine.consumers.get(consumer_tag)
        request = machine.request(
            "basic.cancel", consumer_tag, False,
            finish=partial(machine.cancelled, consumer),
            callback=callback, on_error=on_error, tag=consumer_tag,
            is_held=machine.is_consume_pending(consumer_tag),
        )  # fmt: skip
        if consumer is not None:
            machine.cancelling_begins(consumer_tag)
        self.connection.context.parser.clear_templates()
        return request

    def basic_get(
        self,
        queue: str,
        auto_ack: bool = False,
        *,
        callback: Callback[Message | None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[Message | None]:
        """Take one message from a queue; None if it is empty.  Any number may be under way.

        Spec: basic.get (60, 70).
        """
        return self._machine.request(
            "basic.get", queue, auto_ack,
            finish=partial(self._got, auto_ack), callback=callback, on_error=on_error,
            discard=partial(_give_back, auto_ack),
        )  # fmt: skip

    def _got(self, auto_ack: bool, content: Content | None = None) -> Message | None:
        if content is None:
            return None
        machine = self._machine
        size = 12 + len(content.payload)
        template = DeliveryTemplate(machine, "", no_message, auto_ack, size, 11)
        message = machine.message(template, content, 0)
        assert isinstance(message, Message)
        return message

    def basic_qos(
        self,
        prefetch_count: int,
        *,
        across_consumers: bool = False,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Limit the messages the broker may send before they are acknowledged.

        Args:
            prefetch_count: Messages, 0..65535; 0 means no limit.
            across_consumers: Share the limit among all consumers of the channel.

        Spec: basic.qos (60, 10).  RabbitMQ applies ``global=False`` to each new consumer, and
        refuses prefetch_size, which is therefore not offered.  RabbitMQ 4.3 and later apply
        ``across_consumers`` to each consumer too, which is a WARNING.
        """
        if across_consumers is True and release_of(self.connection.server_properties) >= (4, 3):
            words = "%r: basic.qos: from RabbitMQ 4.3 on across_consumers limits each consumer"
            log.warning(words, self.connection)
        return self._machine.request(
            "basic.qos", 0, prefetch_count, across_consumers,
            finish=_none, callback=callback, on_error=on_error,
        )  # fmt: skip

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:
        """Acknowledge by number.  ``Message.ack`` is safer: it knows what was settled.

        Args:
            delivery_tag: From a Message; with ``multiple``, 0 means all.
            multiple: Everything up to the tag as well.

        Spec: basic.ack (60, 80).  A tag that is not outstanding closes the channel (406).
        """
        self._settle_tag("basic.ack", pack_ack(self.number, delivery_tag, multiple))

    def basic_nack(
        self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Refuse by number.

        Args:
            delivery_tag: From a Message; with ``multiple``, 0 means all.
            multiple: Everything up to the tag as well.
            requeue: False lets the queue drop or dead-letter them.

        Spec: basic.nack (60, 120), a RabbitMQ extension.
        """
        self._settle_tag("basic.nack", pack_nack(self.number, delivery_tag, multiple, requeue))

    def basic_reject(self, delivery_tag: int, requeue: bool = True) -> None:
        """Refuse one message by number.

        Spec: basic.reject (60, 90).
        """
        self._settle_tag("basic.reject", pack_reject(self.number, delivery_tag, requeue))

    def _settle_tag(self, name: str, frame: bytes) -> None:
        machine = self._machine
        if machine.owner != get_ident():
            raise machine.unusable(name)
        machine.output.append_uncapped(frame)

    def basic_recover(
        self,
        requeue: bool = True,
        *,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Have all unacknowledged messages of the channel delivered again.

        Spec: basic.recover (60, 110).  RabbitMQ refuses ``requeue=False`` (540).
        """
        return self._machine.request(
            "basic.recover", requeue, finish=_none, callback=callback, on_error=on_error
        )

    # Transactions, flow, close

    def tx_select(
        self,
        *,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Make the channel transactional.

        Spec: tx.select (90, 10).
        """
        return self._machine.request(
            "tx.select", finish=_none, callback=callback, on_error=on_error
        )

    def tx_commit(
        self,
        *,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Commit what was published and acknowledged since the last commit.

        Spec: tx.commit (90, 20).
        """
        return self._machine.request(
            "tx.commit", finish=_none, callback=callback, on_error=on_error
        )

    def tx_rollback(
        self,
        *,
        callback: Callback[None] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[None]:
        """Drop what was published and acknowledged since the last commit.

        Spec: tx.rollback (90, 30).
        """
        return self._machine.request(
            "tx.rollback", finish=_none, callback=callback, on_error=on_error
        )

    def flow(
        self,
        active: bool,
        *,
        callback: Callback[bool] | None = None,
        on_error: ErrorCallback | None = None,
    ) -> Request[bool]:
        """Ask the broker to stop or resume deliveries; the reply says which is now in force.

        Spec: channel.flow (20, 20).  RabbitMQ refuses ``active=False`` (540): use basic_qos, or
        ``connection.pause_reading``.
        """
        return self._machine.request(
            "channel.flow", active, finish=_same, callback=callback, on_error=on_error
        )

    def close(self, code: int = 200, text: str = "closed by the client") -> Request[ChannelClosed]:
        """Close the channel.  Idempotent, and legal in any state.

        Requests sent before still get their replies.  Messages that were not acknowledged are
        requeued by the broker.

        Args:
            code: AMQP reply code sent to the broker.
            text: Reason sent to the broker, up to 255 bytes of UTF-8.

        Returns:
            wait_closed().

        Spec: channel.close (20, 40).
        """
        check_reason("channel.close", code, text)
        machine = self._machine
        if machine.owner == get_ident():
            machine.close(ChannelClosed(text or "closed", code=code, by="client"))
        else:
            refusal = machine.unusable("channel.close")
            if isinstance(refusal, WrongThread):
                raise refusal
        return self.wait_closed()

    def wait_open(self) -> Request[None]:
        """Wait until the broker has opened the channel; fails with NotExecuted if it never will."""
        machine = self._machine
        machine.check_caller(f"wait_open on channel {self.number}")
        if self.state in (ChannelState.OPENING, ChannelState.REOPENING):
            return machine.requests[0]  # channel.open itself
        request: Request[None] = Request(machine, "wait_open", channel=self)
        if self.is_open:
            request.resolve(None)
        else:
            assert self.reason is not None
            request.fail(NotExecuted(str(request), self.reason))
        return request

    def wait_closed(self) -> Request[ChannelClosed]:
        """Wait for the end of the channel; the request succeeds with its reason, never fails."""
        machine = self._machine
        machine.check_caller(f"wait_closed on channel {self.number}")
        request: Request[ChannelClosed] = Request(machine, "wait_closed", channel=self)
        machine.wait_closed(request)
        return request

    def _ask(
        self,
        name: str,
        *values: object,
        finish: Callable[..., Any],
        callback: Callback[Any] | None,
        on_error: ErrorCallback | None,
        nowait: bool = False,
    ) -> Request[Any]:
        """A request that may go without a reply.

        ``nowait`` is typed as if it were never set: such a call is a statement, and its None is
        not used.
        """
        machine = self._machine
        if not nowait:
            return machine.request(
                name, *values, finish=finish, callback=callback, on_error=on_error
            )
        if callback is not None or on_error is not None:
            raise BadArgument(f"{name}: nowait has no reply to call back with")
        if machine.owner != get_ident():
            raise machine.unusable(name)
        machine.send(name, *values)
        return None  # type: ignore[return-value]


def client_made_name() -> str:
    """A queue name that no other client makes."""
    from uuid import uuid4  # heavy, and rarely needed

    return f"evamqp.gen-{uuid4().hex}"


def _none(*arguments: object) -> None:
    """A reply that says only that it was done."""


def _same(value: Any) -> Any:
    return value


def _give_back(auto_ack: bool, message: Message | None) -> None:
    """Requeue what a cancelled basic_get brought."""
    if message is not None and not auto_ack:
        message.nack()


def _check_on_message(on_message: object) -> None:
    if is_async(on_message):
        raise BadType(
            "on_message is an async function; evamqp.Consumer and channel.messages() are for those"
        )
    if not callable(on_message):
        raise BadType(f"on_message must be callable, not {on_message!r}")
