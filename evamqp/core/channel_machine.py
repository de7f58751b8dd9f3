"""The state machine of a channel: its FIFO of requests, its confirms, and all that comes in.

What a user may send is in ``channel.py``; which bytes belong to which channel in ``parser.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakSet

from evamqp.codec.frames import method_frame
from evamqp.codec.methods import decode_arguments
from evamqp.codec.properties import Properties
from evamqp.codec.spec import BY_KEY, BY_NAME, Method
from evamqp.codec.templates import delivery_head, raw_delivery, settle_frame
from evamqp.core.confirms import Confirms
from evamqp.core.content import Content
from evamqp.core.delivery_template import DeliveryTemplate, confirm_template
from evamqp.core.message import Delivery, Returned
from evamqp.core.outlet import Outlet
from evamqp.core.request import Request, check_callbacks
from evamqp.core.state import CHANNEL, ChannelState, resolve
from evamqp.errors import (
    COMMAND_INVALID,
    CONTENT_TOO_LARGE,
    REPLY_SUCCESS,
    UNEXPECTED_FRAME,
    ChannelClosed,
    ConnectionClosed,
    MalformedData,
    NotExecuted,
    OutputFull,
    RequestTimeout,
    UsageError,
    WrongState,
    WrongThread,
)
from evamqp.types import Callback, ErrorCallback, T, Tags

if TYPE_CHECKING:
    from evamqp.abc import Promise
    from evamqp.core.context import Context, Recorder
    from evamqp.core.output import Output

# What a broker's channel.close may blame that is no request of ours.
_UNANSWERED = ("basic.publish", "basic.ack", "basic.nack", "basic.reject")
# Where content may go on that nothing announced here, or that is not wanted any more.
_DISCARDING = (ChannelState.REOPENING, ChannelState.CLOSING)
# Tags of consumers that are gone, whose deliveries are requeued; the oldest go first.
FORMER_TAGS_KEPT = 1000
# Nacked tags kept for wait_for_confirms(); the oldest go first.
NACKS_KEPT = 100_000


class ChannelEvents(Protocol):
    """What the machine calls of a Handler."""

    def on_channel_open(self, channel: Any) -> object: ...
    def on_channel_close(self, channel: Any, reason: ChannelClosed) -> object: ...
    def on_delivery_confirmation(self, channel: Any, tags: Tags, acked: bool) -> object: ...
    def on_return(self, channel: Any, returned: Returned) -> object: ...
    def on_consumer_cancel(self, channel: Any, consumer_tag: str) -> object: ...


class Consumer(NamedTuple):
    """One basic.consume."""

    tag: str
    on_message: Callable[[Any], object]
    auto_ack: bool
    on_cancel: Callable[[str], object] | None
    is_stream: bool = False  # consumes a stream, whose messages can only be acknowledged
    on_end: Callable[[], object] | None = None  # of ours: cancelled by us, or its channel ended


class ChannelMachine(Outlet):
    """One channel's state, behind the Channel that the user holds.

    Args:
        context: What the connection shares with its channels.
        number: The channel's.
        handler: Called back.
        reused: Whether the number had a channel before.
        make_reporter: Makes what reports to a handler that a callback raised.

    Attributes:
        channel: The user's Channel, which callbacks get; it enters itself.
        on_oversized_rejected: Called instead of closing the channel when a body is above the limit;
            None closes it.
    """

    __slots__ = (
        "_close_waiters",
        "_confirm_waiters",
        "_former_tags",
        "_held",
        "_make_reporter",
        "_nacked",
        "_of_streams",
        "_skipped_left",
        "cancelling",
        "confirms",
        "consumers",
        "context",
        "handler",
        "on_oversized_rejected",
        "reason",
        "requests",
        "state",
    )

    def __init__(
        self,
        context: Context,
        number: int,
        handler: ChannelEvents,
        reused: bool,
        make_reporter: Callable[..., Callable[[BaseException], object]],
    ) -> None:
        super().__init__(number, context.output, context.callbacks.owner)
        self.context: Context = context
        self.handler: Any = handler
        self._make_reporter = make_reporter
        self.state = ChannelState.REOPENING if reused else ChannelState.OPENING
        self.reason: ChannelClosed | None = None
        self.requests: list[Request[Any]] = []
        self._close_waiters: list[Request[ChannelClosed]] = []
        self.consumers: dict[str, Consumer] = {}
        self.cancelling: set[str] = set()
        # Each basic.cancel that waits for its consumer, and what was sent since.
        self._held: list[tuple[Request[Any], Output]] = []
        self._former_tags: dict[str, None] = {}
        self._of_streams: dict[str, WeakSet[DeliveryTemplate]] = {}  # by consumer tag
        self.confirms: Confirms | None = None
        self._confirm_waiters: list[tuple[int, Request[list[int]]]] = []
        self._nacked: deque[int] | None = None  # a deque is a big thing, and nacks are rare
        self.on_oversized_rejected: Callable[[str], object] | None = None
        self._skipped_left = 0  # bytes of body still to come that are dropped

    def __repr__(self) -> str:
        return f"<Channel {self.number} {self.state.value}>"

    @property
    def is_open(self) -> bool:
        """Whether the broker has opened it, and neither side has closed it."""
        return self.state is ChannelState.OPEN

    @property
    def unconfirmed(self) -> Tags:
        """Tags of publishes without an outcome, ascending.  Once closed: forever unknown."""
        return () if self.confirms is None else self.confirms.outstanding(self.next_tag)

    @property
    def published(self) -> int:
        """Publishes that were accepted so far."""
        return self.unconfirmed_published + max(self.next_tag - 1, 0)

    # Sending

    def unusable(self, what: str) -> UsageError:
        """Why a call is refused."""
        what = f"{what} on channel {self.number}"
        foreign = self.context.callbacks.foreign_caller(what)
        if foreign is not None:
            return foreign
        if self.owner:
            return OutputFull(f"{what}: the broker stopped the flow of this channel")
        why = f": {self.reason}" if self.reason else ""
        return WrongState(f"{what}: channel is {self.state.value}{why}")

    def send(self, name: str, *values: object) -> None:
        """Send a method that is subject to the output cap."""
        self.context.send_method(self.output, self.number, name, *values)

    def reply(self, name: str, *values: object) -> None:
        """Send a method that the cap does not stop: an ack, a close or an answer."""
        self.output.append_uncapped(method_frame(self.number, name, *values))

    def request(
        self,
        name: str,
        *values: object,
        finish: Callable[..., T],
        callback: Callback[T] | None = None,
        on_error: ErrorCallback | None = None,
        discard: Callable[[T], object] | None = None,
        tag: str | None = None,
        is_held: bool = False,
    ) -> Request[T]:
        """Send a request and queue for its reply.  Raises with nothing sent or queued.

        One that is held is a basic.cancel, and all that follows on the channel waits with it.
        """
        if self.owner != get_ident():
            raise self.unusable(name)
        check_callbacks(name, callback, on_error)
        if not is_held:
            self.send(name, *values)
        recorder = self.context.recorder
        if recorder is not None:
            finish = partial(_record, recorder, self.number, name, values, finish)
        request = Request(
            self,
            name,
            channel=self,
            replies=BY_NAME[name].replies,
            finish=finish,
            callback=callback,
            on_error=on_error,
            discard=discard,
            tag=tag,
        )
        self.requests.append(request)
        if is_held:
            self.send_to(self.output.hold())
            self._held.append((request, self.output))
        if len(self.requests) == 1:
            self.context.clock.start(self)
        return request

    def settle(self, method: bytes, tag: bytes, flags: bytes) -> bool:
        """Send basic.ack, nack or reject for one message; False if the channel is gone."""
        if self.owner != get_ident():
            refusal = self.unusable("settling a message")
            if isinstance(refusal, WrongThread):
                raise refusal
            self.context.stats.stale_acks += 1
            return False
        self.output.append_uncapped(settle_frame(self.number, method, tag, flags))
        return True

    # What comes in

    def recv_method(self, method: Method, payload: bytes) -> None:
        """A method frame for this channel; ``payload`` from the class id on."""
        if self.content is not None:
            raise MalformedData(
                f"{method.name} inside the content of {self.content.name}", UNEXPECTED_FRAME
            )
        step = _STEPS[self.state].get(method.name)
        if step is None:
            if self.state is ChannelState.REOPENING:  # of the number's former life
                self.context.stats.late_frames += 1
                return
            raise MalformedData(
                f"{method.name} on channel {self.number}, {self.state.value}", COMMAND_INVALID
            )
        arguments = decode_arguments(method, payload)
        handler, state = step
        if state is not self.state:
            self._enter(state)
        if handler is ChannelMachine._recv_reply:
            self._recv_reply(method, arguments)
        elif method.has_content and handler is not ChannelMachine._discard:
            self.context.parser.begin()
            self.content = Content(method.name, arguments, payload[4:], partial(handler, self))
        else:
            handler(self, *arguments)

    def recv_header(self, payload: bytes) -> None:
        content = self.content
        if content is None:
            if self.state in _DISCARDING:
                return
            raise MalformedData("a content header that nothing announced", UNEXPECTED_FRAME)
        content.take_header(payload)
        self.context.parser.hold_header(content)
        if content.size > self.context.limits.body_max:
            self._refuse(content)
        elif content.is_complete:
            self.context.parser.finish(content)

    def recv_body(self, size: int) -> Content | None:
        content = self.content
        if content is None:
            if self.state in _DISCARDING:
                return None
            if 0 < size <= self._skipped_left:
                self._skipped_left -= size
                return None
            raise MalformedData("a body frame that nothing announced", UNEXPECTED_FRAME)
        content.expect(size)
        return content

    def _refuse(self, content: Content) -> None:
        """A body larger than the limit: keep none of it, and close the channel.

        With ``on_oversized_rejected`` a delivery is rejected instead: requeued it comes for ever.
        """
        text = f"a body of {content.size} bytes exceeds body_max, {self.context.limits.body_max}"
        rejected = self.on_oversized_rejected
        if (
            rejected is not None
            and content.name == "basic.deliver"
            and self.state is ChannelState.OPEN
        ):
            self._drop_content()
            self._skipped_left = content.size
            consumer = self.consumers.get(content.arguments[0])
            if consumer is not None and consumer.is_stream:
                self.reply("basic.ack", content.arguments[1], False)
            else:
                self.reply("basic.reject", content.arguments[1], False)
            self.invoke("on_oversized_rejected", rejected, text)
            return
        reason = ChannelClosed(text, code=CONTENT_TOO_LARGE, method=content.name, by="broker")
        self._drop_content()
        if self.state is not ChannelState.CLOSING:
            self.close(reason)
        # It may have been an answer; the next one will be another request's.
        request = self._take_request(content.name, (content,))
        if request is not None:
            request.fail(NotExecuted(str(request), reason))

    def _recv_reply(self, method: Method, arguments: tuple[Any, ...]) -> None:
        request = self._take_request(method.name, arguments)
        if request is None:
            waiting = self.requests[0].method if self.requests else "nothing"
            raise MalformedData(f"{method.name} answers {waiting}", COMMAND_INVALID)
        request.answer(arguments)
        if request.method == "basic.consume" and self._held:
            self._send_held()

    def is_consume_pending(self, consumer_tag: str) -> bool:
        """Whether basic.cancel for this tag has to be held until the consumer is there.

        Up to RabbitMQ 4.0 the channel fails over a cancel that comes sooner, and takes the
        connection with it (541).
        """
        return any(
            request.method == "basic.consume" and request.tag == consumer_tag
            for request in self.requests
        )

    def _send_held(self) -> None:
        """Send what waited, up to the next cancel whose consumer is not there yet."""
        output = self.context.output
        while self._held:
            cancel, held = self._held[0]
            assert cancel.tag is not None
            if self.is_consume_pending(cancel.tag):
                return
            del self._held[0]
            output.append_uncapped(method_frame(self.number, "basic.cancel", cancel.tag, False))
            output.extend(held)
        self.send_to(output)

    def _send_held_without_cancels(self) -> None:
        """Send what waited: the channel is about to close, and its consumers with it."""
        self.send_to(self.context.output)
        for _, held in self._held:
            self.output.extend(held)
        self._held.clear()

    def _take_request(self, reply: str, arguments: tuple[Any, ...]) -> Request[Any] | None:
        """Take the request that this answers out of the FIFO; None if there is none.

        In RabbitMQ the queue answers basic.consume and basic.cancel, and the channel may have
        answered later requests by then.  So these two are found by their consumer tag, and may be
        overtaken.
        """
        tag = arguments[0] if arguments else None
        for index, request in enumerate(self.requests):
            if reply in request.replies and (request.tag is None or request.tag == tag):
                del self.requests[index]
                if index == 0 and self.requests:
                    self.context.clock.start(self)
                elif index == 0 and self.state is not ChannelState.CLOSING:
                    self.context.clock.stop(self)
                return request
            if request.tag is None:
                break
        return None

    def blamed_request(self, method: str | None) -> Request[Any] | None:
        """The request that failed, if the broker blames ``method``; None if several may have.

        The broker answers in order, so it is the oldest; only those that are found by their
        consumer tag may be overtaken.
        """
        possible = []
        for request in self.requests:
            if request.method == method:
                possible.append(request)
            if request.tag is None:
                break
        return possible[0] if len(possible) == 1 else None

    def _recv_open_ok(self) -> None:
        self._recv_reply(BY_NAME["channel.open-ok"], ())
        self.invoke("on_channel_open", self.handler.on_channel_open, self.channel)

    def _recv_open_ok_while_closing(self) -> None:
        self._recv_reply(BY_NAME["channel.open-ok"], ())

    def recv_deliver(self, content: Content) -> None:
        self.content = None
        consumer = self.consumers.get(content.arguments[0])
        if self.state is not ChannelState.OPEN:
            return
        if consumer is None:
            # A nack for what a former channel of our number was sent would end this one (406).
            self.context.stats.unknown_deliveries += 1
            if content.arguments[0] in self._former_tags:
                self._requeue(content.arguments[1])
            return
        if consumer.tag in self.cancelling and not consumer.auto_ack:
            if not consumer.is_stream:
                self._requeue(content.arguments[1])
            return
        tag_size = 1 + content.payload[0]
        parser, template = self.context.parser, content.template
        if template is None or parser.find_template(template.head) is not template:
            template = self._find_template(
                consumer, content.payload[:tag_size], len(content.payload)
            )
        message = self.message(template, content, tag_size)
        self.invoke("on_message", partial(self._hand_over, consumer), message, message=message)

    def _hand_over(self, consumer: Consumer, message: Delivery) -> None:
        """Call an on_message; the fast path, which looks at no result, gets one that needs none."""
        on_message = consumer.on_message
        result = on_message(message)
        callbacks = self.context.callbacks
        if result is None or not callbacks.follow("on_message", self, message, result):
            return

        def follow(message: Delivery) -> None:
            self.invoke("on_message", on_message, message, message=message)

        self.context.parser.clear_templates()
        if self.consumers.get(consumer.tag) is consumer:
            self.consumers[consumer.tag] = consumer._replace(on_message=follow)

    def _find_template(self, consumer: Consumer, tag: bytes, size: int) -> DeliveryTemplate:
        """A template for deliveries of ``size`` bytes of arguments; the fast path learns it."""
        parser = self.context.parser
        head = delivery_head(self.number, size, tag)
        template = parser.find_template(head)
        if template is None:
            template = DeliveryTemplate(
                self,
                consumer.tag,
                consumer.on_message,
                consumer.auto_ack,
                7 + 4 + size + 1,
                len(head),
                head,
                consumer.is_stream,
            )
            if consumer.is_stream:
                self._of_streams.setdefault(consumer.tag, WeakSet()).add(template)
            if not self.cancelling:
                parser.add_template(template)
        return template

    def message(self, template: DeliveryTemplate, content: Content, skip: int) -> Delivery:
        """The message of a content; ``skip`` bytes of its arguments stand before its tag."""
        raw = raw_delivery(content.payload[skip:], content.properties)
        return self.context.message_type(template, raw, content.body)

    def _requeue(self, delivery_tag: int) -> None:
        self.reply("basic.nack", delivery_tag, False, True)

    def _recv_get_ok(self, content: Content) -> None:
        self.content = None
        self._recv_reply(BY_NAME["basic.get-ok"], (content,))

    def _recv_return(self, content: Content) -> None:
        self.content = None
        code, text, exchange, routing_key = content.arguments
        properties = Properties.from_raw(content.properties)
        returned = Returned(code, text, exchange, routing_key, properties, content.body)
        self.invoke("on_return", self.handler.on_return, self.channel, returned)

    def _discard(self, *arguments: object) -> None:
        """A method that means nothing any more."""

    def _recv_ack(self, delivery_tag: int, multiple: bool) -> None:
        # From here such frames take the fast path.
        self.context.parser.add_template(confirm_template(self))
        self.confirm(delivery_tag, multiple, True)

    def _recv_nack(self, delivery_tag: int, multiple: bool, requeue: bool) -> None:
        self.confirm(delivery_tag, multiple, False)

    def confirm(self, delivery_tag: int, multiple: bool, acked: bool) -> None:
        confirms = self.confirms
        tags = confirms.settle(delivery_tag, multiple, self.next_tag) if confirms else ()
        if not tags:
            self.context.stats.unknown_confirms += 1
            return
        if not acked:
            if self._nacked is None:
                self._nacked = deque(maxlen=NACKS_KEPT)
            self._nacked.extend(tags)
        try:
            result = self.handler.on_delivery_confirmation(self.channel, tags, acked)
            if result is not None:
                self.context.callbacks.follow("on_delivery_confirmation", self, None, result)
        except BaseException as error:
            self.context.callbacks.failed("on_delivery_confirmation", self, None, error)
        finally:
            if self._confirm_waiters:
                self._settle_confirm_waiters()

    def wait_for_confirms(self, request: Request[list[int]]) -> None:
        """Resolve the request once everything published so far has its outcome."""
        self._confirm_waiters.append((self.next_tag, request))
        self._settle_confirm_waiters()

    def wait_closed(self, request: Request[ChannelClosed]) -> None:
        """Resolve the request at the end."""
        if self.state is ChannelState.CLOSED:
            assert self.reason is not None
            request.resolve(self.reason)
        else:
            self._close_waiters.append(request)

    def _settle_confirm_waiters(self) -> None:
        assert self.confirms is not None
        while self._confirm_waiters and self.confirms.lowest >= self._confirm_waiters[0][0]:
            upto, request = self._confirm_waiters.pop(0)
            kept = self._nacked or ()
            nacked = sorted(tag for tag in kept if tag < upto)
            if nacked:
                self._nacked = deque((tag for tag in kept if tag >= upto), NACKS_KEPT)
            self.defer(request.resolve, nacked)

    def _recv_cancel(self, consumer_tag: str, no_wait: bool) -> None:
        """The broker cancelled a consumer."""
        if not no_wait:
            self.reply("basic.cancel-ok", consumer_tag)
        elif consumer_tag in self.consumers and consumer_tag not in self.cancelling:
            # RabbitMQ 4.3 keeps a consumer that has timed out until the client lets go of it as
            # well.  A cancel does that on every release, and is nothing where the consumer is gone
            # already; a cancel-ok ends the connection: up to 4.2 always, later with a queue gone.
            self.reply("basic.cancel", consumer_tag, True)
        consumer = self._forget_consumer(consumer_tag)
        if consumer is None:
            return
        if consumer.on_cancel is not None:
            self.defer(self.invoke, "on_cancel", consumer.on_cancel, consumer_tag)
        self.invoke(
            "on_consumer_cancel", self.handler.on_consumer_cancel, self.channel, consumer_tag
        )

    def cancelled(self, consumer: Consumer | None, consumer_tag: str) -> str:
        """The broker answered basic_cancel."""
        # If the broker cancelled it first, or there was none, the tag may be another's by now.
        if self.consumers.get(consumer_tag) is consumer:
            self._forget_consumer(consumer_tag)
            if consumer is not None and consumer.on_end is not None:
                self.defer(consumer.on_end)
        return consumer_tag

    def cancelling_begins(self, consumer_tag: str) -> None:
        """basic.cancel is sent: until its answer, deliveries to the consumer are requeued."""
        self.cancelling.add(consumer_tag)
        self._leave_stream(consumer_tag)

    def _leave_stream(self, consumer_tag: str) -> None:
        """Let the messages of a stream's consumer be settled without the broker.

        It has forgotten them, and RabbitMQ 3.x ends the connection over their acks (541).
        """
        for template in self._of_streams.pop(consumer_tag, ()):
            template.target = _LeftStream(self)

    def _forget_consumer(self, consumer_tag: str) -> Consumer | None:
        self.context.parser.clear_templates()
        self.cancelling.discard(consumer_tag)
        consumer = self.consumers.pop(consumer_tag, None)
        self._leave_stream(consumer_tag)
        if consumer is not None and not consumer.auto_ack and not consumer.is_stream:
            self._former_tags.pop(consumer_tag, None)
            self._former_tags[consumer_tag] = None
            if len(self._former_tags) > FORMER_TAGS_KEPT:
                del self._former_tags[next(iter(self._former_tags))]
        return consumer

    def _recv_flow(self, active: bool) -> None:
        self.reply("channel.flow-ok", active)
        self.set_flow(active)
        self.context.backpressure.set_flow(self.number, active)

    def _recv_close(self, code: int, text: str, class_id: int, method_id: int) -> None:
        self.send_to(self.context.output)  # what waits is for a channel that is no more
        if self.channel.connection.is_open:  # behind connection.close nothing may be sent
            self.reply("channel.close-ok")
        method = BY_KEY.get(class_id << 16 | method_id)
        name = None if method is None else method.name
        # It replaces a reason of ours, which says less: that we asked to go.
        reason = ChannelClosed(text or "no reason given", code=code, method=name, by="broker")
        culprit = self.blamed_request(name)
        if name in _UNANSWERED or culprit is not None:
            reason.culprit = name
        self.context.channels.closed_by_broker(self.number)
        self._end(reason, culprit=culprit)

    def _recv_close_ok(self) -> None:
        assert self.reason is not None
        self.context.channels.numbers.release(self.number)
        self._end(self.reason)

    # Closing

    def connection_closing(self, is_final: bool) -> None:
        """The connection is being closed, or is at its end: nothing more may be sent here."""
        if self.state is not ChannelState.CLOSING:
            if not is_final:
                self._send_held_without_cancels()
            self.reason = ChannelClosed("the connection was closed", by="client")
            self._enter(ChannelState.CLOSING)

    def connection_ended(self, why: ConnectionClosed, culprit: Request[Any] | None) -> None:
        """The connection is over, and the channel with it."""
        reason = self.reason
        if reason is None or reason.by == "client" or why.by != "client":
            reason = ChannelClosed(why.text, code=why.code, method=why.method, by=why.by)
            reason.__cause__ = why
        self._end(reason, culprit=culprit)

    def close(self, reason: ChannelClosed) -> None:
        """Send channel.close; the end comes with the broker's answer."""
        code = REPLY_SUCCESS if reason.code is None else reason.code
        method = BY_NAME.get(reason.method or "")
        ids = (method.class_id, method.method_id) if method else (0, 0)
        close = method_frame(self.number, "channel.close", code, reason.reply_text, *ids)
        self._send_held_without_cancels()
        self.reason = reason
        self._enter(ChannelState.CLOSING)
        self.output.append_uncapped(close)
        # A message is not wanted any more; half a reply still has to be kept apart from the next.
        if self.content is not None and self.content.name == "basic.deliver":
            self._drop_content()
        self.context.clock.start(self)

    def _drop_content(self) -> None:
        if self.content is not None:
            self.context.parser.forget(self.content)
            self.content = None

    def expire(self) -> None:
        """The oldest request, or our close, was not answered in time."""
        if self.state is ChannelState.CLOSING:
            assert self.reason is not None
            self.context.channels.numbers.wait(self.number)
            self._end(self.reason)
            return
        request = self.requests[0]
        timeout = self.context.clock.timeout
        error = RequestTimeout(f"{request}: no answer in {timeout:g} seconds")
        # Reply order is lost: from here nothing on this channel can be matched.
        text = f"no answer to {request.method} in {timeout:g} seconds"
        reason = ChannelClosed(text, method=request.method, by="broker")
        reason.culprit = request.method
        self.close(reason)
        request.fail(error)

    def _enter(self, state: ChannelState) -> None:
        self.state = state
        if state is ChannelState.CLOSING or state is ChannelState.CLOSED:
            self.disown()
            self.context.parser.clear_templates()
            self.context.backpressure.set_flow(self.number, True)

    def _end(self, reason: ChannelClosed, *, culprit: Request[Any] | None = None) -> None:
        """The channel is over: complete all that waits, in order, on_channel_close last."""
        self._enter(ChannelState.CLOSED)
        self.reason = reason
        self._drop_content()
        self.context.channels.remove(self)
        self.context.clock.stop(self)
        if self.context.recorder is not None and self.channel.connection.is_open:
            self.context.recorder(self.number, "channel.close", (), None)
        for request in self.requests:
            error = NotExecuted(str(request), reason, is_culprit=request is culprit)
            self.defer(request.fail, error)
        for _, waiter in self._confirm_waiters:
            self.defer(waiter.fail, NotExecuted(str(waiter), reason))
        for closed in self._close_waiters:
            self.defer(closed.resolve, reason)
        for consumer in self.consumers.values():
            if consumer.on_end is not None:
                self.defer(consumer.on_end)
        self.requests.clear()
        self._confirm_waiters.clear()
        self._close_waiters.clear()
        self.consumers.clear()
        self.cancelling.clear()  # a tag of ours holds its request, and that us
        self._held.clear()
        self.defer(self._notify_closed, reason)

    def _notify_closed(self, reason: ChannelClosed) -> None:
        if self.channel is None:  # a signal interrupted the first time, and it was begun anew
            return
        try:
            self.invoke("on_channel_close", self.handler.on_channel_close, self.channel, reason)
        finally:
            self.detach()
            self.handler = None

    # The host of requests, and the source of callbacks

    def check_caller(self, what: str) -> None:
        self.context.callbacks.check_caller(what)

    def create_future(self) -> Promise:
        return self.context.callbacks.create_future()

    def defer(self, function: Callable[..., object], *arguments: object) -> None:
        self.context.callbacks.defer(function, *arguments)

    def invoke(
        self,
        name: str,
        function: Callable[..., object],
        *arguments: object,
        message: Delivery | None = None,
    ) -> None:
        """Call a function of the user's; what it raises goes to on_callback_error."""
        self.context.callbacks.invoke(name, self, function, *arguments, message=message)

    def reporter(self, name: str, message: Any) -> Callable[[BaseException], object]:
        channel = self.channel
        connection = None if channel is None else channel.connection
        callbacks = self.context.callbacks
        return self._make_reporter(callbacks, self.handler, name, connection, channel, message)


_STEPS = resolve(CHANNEL, ChannelMachine)


class _LeftStream(Outlet):
    """A channel to the messages of a stream whose consumer is gone: settling them sends nothing."""

    __slots__ = ("_machine",)

    def __init__(self, machine: ChannelMachine) -> None:
        super().__init__(machine.number, machine.output, owner=0)
        self._machine = machine

    def settle(self, method: bytes, tag: bytes, flags: bytes) -> bool:
        """See ChannelMachine.settle."""
        self._machine.check_caller("settling a message")
        return False

    def reporter(self, name: str, message: Any) -> Callable[[BaseException], object]:
        """See ChannelMachine.reporter."""
        return self._machine.reporter(name, message)


def _record(
    recorder: Recorder,
    number: int,
    name: str,
    values: tuple[object, ...],
    finish: Callable[..., T],
    *arguments: Any,
) -> T:
    """Finish a request, and record it."""
    result = finish(*arguments)
    recorder(number, name, values, result)
    return result
