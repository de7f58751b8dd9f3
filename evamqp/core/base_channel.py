"""One channel number's life: its state, its FIFO of requests, its confirms, and all that comes in.

What a user may send is in ``channel.py``; which bytes belong to which channel in ``receiver.py``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from evamqp.codec.frames import method_frame
from evamqp.codec.methods import decode_arguments
from evamqp.codec.properties import Properties
from evamqp.codec.spec import BY_KEY, BY_NAME, Method
from evamqp.core.confirms import Confirms
from evamqp.core.content import Content
from evamqp.core.handler import Handler
from evamqp.core.message import HEADER_GAP, DeliveryTemplate, Message, Returned
from evamqp.core.request import Request, check_callbacks
from evamqp.core.state import CHANNEL, REPLY, ChannelState
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
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection

log = logging.getLogger(__name__)

# What a broker's channel.close may blame that is no request of ours.
_UNANSWERED = ("basic.publish", "basic.ack", "basic.nack", "basic.reject")
# Where content may go on that nothing announced here, or that nobody wants any more.
_DISCARDING = (ChannelState.REOPENING, ChannelState.CLOSING)
# Tags of consumers that are gone, whose deliveries are requeued; the oldest go first.
FORMER_TAGS_KEPT = 1000
# Nacked tags kept for wait_for_confirms(); the oldest go first.
NACKS_KEPT = 100_000


#: Called with each request that succeeded: channel, method, values sent, result.
Recorder: TypeAlias = Callable[[int, str, tuple[Any, ...], Any], object]


class Consumer(NamedTuple):
    """One basic.consume."""

    tag: str
    on_message: Callable[[Message], object]
    auto_ack: bool
    on_cancel: Callable[[str], object] | None
    on_end: Callable[[], object] | None = None  # of ours: cancelled by us, or its channel ended


class BaseChannel:
    """The state machine of one channel.  Made by ``Connection.channel()``."""

    __slots__ = (
        "_ack_head",
        "_cancelling",
        "_close_waiters",
        "_confirm_waiters",
        "_confirms",
        "_consumers",
        "_content",
        "_former_tags",
        "_handler",
        "_nacked",
        "_next_tag",
        "_on_oversized_rejected",
        "_output",
        "_owner",
        "_publisher",
        "_requests",
        "_skipped_left",
        "_unconfirmed_published",
        "connection",
        "number",
        "reason",
        "state",
    )

    def __init__(self, connection: Connection, number: int, handler: Handler, reused: bool) -> None:
        self.connection = connection
        self.number = number
        self.state = ChannelState.REOPENING if reused else ChannelState.OPENING
        self.reason: ChannelClosed | None = None
        # The thread that may use the channel, or 0 when nobody may; and the same for publishing,
        # which the broker may stop on its own (channel.flow).
        self._owner = self._publisher = connection._owner
        self._handler = handler
        self._output = connection._output
        self._requests: deque[Request[Any]] = deque()
        self._close_waiters: list[Request[ChannelClosed]] = []
        self._content: Content | None = None
        self._consumers: dict[str, Consumer] = {}
        self._cancelling: set[str] = set()
        self._former_tags: dict[str, None] = {}
        self._confirms: Confirms | None = None
        self._confirm_waiters: deque[tuple[int, Request[list[int]]]] = deque()
        self._nacked: deque[int] = deque(maxlen=NACKS_KEPT)
        self._next_tag = 0  # 0 outside confirm mode
        # Called instead of closing the channel when a body is above the limit; None closes it.
        self._on_oversized_rejected: Callable[[str], object] | None = None
        self._skipped_left = 0  # bytes of body still to come that are dropped
        self._unconfirmed_published = 0  # publishes outside confirm mode
        # A frame of basic.ack up to the tag; nack and reject differ in the method alone.
        self._ack_head = b"\x01" + number.to_bytes(2, "big") + b"\x00\x00\x00\x0d\x00\x3c\x00\x50"

    def __repr__(self) -> str:
        return f"<Channel {self.number} {self.state.value}>"

    @property
    def is_open(self) -> bool:
        """Whether the broker has opened it, and neither side has closed it."""
        return self.state is ChannelState.OPEN

    @property
    def unconfirmed(self) -> Tags:
        """Tags of publishes without an outcome, ascending.  Once closed: forever unknown."""
        return () if self._confirms is None else self._confirms.outstanding(self._next_tag)

    @property
    def published(self) -> int:
        """Publishes that were accepted so far."""
        return self._unconfirmed_published + max(self._next_tag - 1, 0)

    # Sending

    def _unusable(self, what: str) -> UsageError:
        """Why a call is refused."""
        what = f"{what} on channel {self.number}"
        foreign = self.connection._foreign_caller(what)
        if foreign is not None:
            return foreign
        if self._owner:
            return OutputFull(f"{what}: the broker stopped the flow of this channel")
        why = f": {self.reason}" if self.reason else ""
        return WrongState(f"{what}: channel is {self.state.value}{why}")

    def _send(self, name: str, *values: object) -> None:
        """Send a method that is subject to the output cap."""
        self.connection._send_method(self.number, name, *values)

    def _reply(self, name: str, *values: object) -> None:
        """Send a method that is uncapped from the cap: an ack, a close or an answer."""
        self.connection._send_uncapped(method_frame(self.number, name, *values))

    def _request(
        self,
        name: str,
        *values: object,
        finish: Callable[..., T],
        callback: Callback[T] | None = None,
        on_error: ErrorCallback | None = None,
        discard: Callable[[T], object] | None = None,
        tag: str | None = None,
    ) -> Request[T]:
        """Send a request and queue for its reply.  Raises with nothing sent or queued."""
        if self._owner != get_ident():
            raise self._unusable(name)
        check_callbacks(name, callback, on_error)
        self._send(name, *values)
        recorder = self.connection._recorder
        if recorder is not None:
            finish = partial(_record, recorder, self.number, name, values, finish)
        request = Request(
            self.connection,
            name,
            channel=cast("Channel", self),
            replies=BY_NAME[name].replies,
            finish=finish,
            callback=callback,
            on_error=on_error,
            discard=discard,
            tag=tag,
        )
        self._requests.append(request)
        if len(self._requests) == 1:
            self.connection._start_clock(self)
        return request

    def _settle_message(self, method: bytes, tag: bytes, flags: bytes) -> bool:
        """Send basic.ack, nack or reject for one message; False if the channel is gone."""
        if self._owner != get_ident():
            refusal = self._unusable("settling a message")
            if isinstance(refusal, WrongThread):
                raise refusal
            self.connection._counts.stale_acks += 1
            return False
        self.connection._send_uncapped(b"%b%b%b%b\xce" % (self._ack_head[:7], method, tag, flags))
        return True

    # What comes in

    def _recv_method(self, method: Method, payload: bytes) -> None:
        """A method frame for this channel; ``payload`` from the class id on."""
        if self._content is not None:
            raise MalformedData(
                f"{method.name} inside the content of {self._content.name}", UNEXPECTED_FRAME
            )
        step = CHANNEL[self.state].get(method.name)
        if step is None:
            if self.state is ChannelState.REOPENING:  # of the number's former life
                self.connection._counts.late_frames += 1
                return
            raise MalformedData(
                f"{method.name} on channel {self.number}, {self.state.value}", COMMAND_INVALID
            )
        arguments = decode_arguments(method, payload)
        name, state = step
        if state is not self.state:
            self._enter(state)
        if name is REPLY:
            self._recv_reply(method, arguments)
        elif method.has_content and name != "_discard":
            self.connection._parser.unfinished += 1
            self._content = Content(method.name, arguments, payload[4:], getattr(self, name))
        else:
            getattr(self, name)(*arguments)

    def _recv_header(self, payload: bytes) -> None:
        content = self._content
        if content is None:
            if self.state in _DISCARDING:
                return
            raise MalformedData("a content header that nothing announced", UNEXPECTED_FRAME)
        content.take_header(payload)
        self.connection._parser.hold_header(content)
        if content.size > self.connection._body_max:
            self._refuse(content)
        elif content.is_complete:
            self.connection._parser._finish(content)

    def _recv_body(self, size: int) -> Content | None:
        content = self._content
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

        Who has said so has a delivery rejected instead: one that is requeued comes for ever.
        """
        text = f"a body of {content.size} bytes exceeds body_max, {self.connection._body_max}"
        rejected = self._on_oversized_rejected
        if (
            rejected is not None
            and content.name == "basic.deliver"
            and self.state is ChannelState.OPEN
        ):
            self._drop_content()
            self._skipped_left = content.size
            self._reply("basic.reject", content.arguments[1], False)
            self._invoke("on_oversized_rejected", rejected, text)
            return
        reason = ChannelClosed(text, code=CONTENT_TOO_LARGE, method=content.name, by="broker")
        self._drop_content()
        if self.state is not ChannelState.CLOSING:
            self._close_because(reason)
        # It may have been an answer; the next one will be another request's.
        request = self._take_request(content.name, (content,))
        if request is not None:
            request.fail(NotExecuted(str(request), reason))

    def _recv_reply(self, method: Method, arguments: tuple[Any, ...]) -> None:
        request = self._take_request(method.name, arguments)
        if request is None:
            waiting = self._requests[0].method if self._requests else "nothing"
            raise MalformedData(f"{method.name} answers {waiting}", COMMAND_INVALID)
        request.answer(arguments)

    def _take_request(self, reply: str, arguments: tuple[Any, ...]) -> Request[Any] | None:
        """Take the request that this answers out of the FIFO; None if there is none.

        In RabbitMQ the queue answers basic.consume and basic.cancel, and the channel may have
        answered later requests by then.  So these two are told by their consumer tag, and may be
        overtaken.
        """
        tag = arguments[0] if arguments else None
        for index, request in enumerate(self._requests):
            if reply in request.replies and (request.tag is None or request.tag == tag):
                del self._requests[index]
                if index == 0 and self._requests:
                    self.connection._start_clock(self)
                elif index == 0 and self.state is not ChannelState.CLOSING:
                    self.connection._stop_clock(self)
                return request
            if request.tag is None:
                break
        return None

    def _blamed_request(self, method: str | None) -> Request[Any] | None:
        """The request that failed, if the broker blames ``method``; None if that cannot be told.

        The broker answers in order, so it is the oldest; only those that are told by their
        consumer tag may be overtaken.
        """
        possible = []
        for request in self._requests:
            if request.method == method:
                possible.append(request)
            if request.tag is None:
                break
        return possible[0] if len(possible) == 1 else None

    def _recv_open_ok(self) -> None:
        self._recv_reply(BY_NAME["channel.open-ok"], ())
        self._invoke("on_channel_open", self._handler.on_channel_open, self)

    def _recv_open_ok_while_closing(self) -> None:
        self._recv_reply(BY_NAME["channel.open-ok"], ())

    def _recv_deliver(self, content: Content) -> None:
        self._content = None
        consumer = self._consumers.get(content.arguments[0])
        if self.state is not ChannelState.OPEN:
            return
        if consumer is None:
            # A nack for what a former channel of our number was sent would end this one (406).
            self.connection._counts.unknown_deliveries += 1
            if content.arguments[0] in self._former_tags:
                self._requeue(content.arguments[1])
            return
        if consumer.tag in self._cancelling and not consumer.auto_ack:
            self._requeue(content.arguments[1])
            return
        tag_size = 1 + content.payload[0]
        template = content.template
        if template is None or self.connection._parser.find_template(template.head) is not template:
            template = self._find_template(
                consumer, content.payload[:tag_size], len(content.payload)
            )
        message = Message(template, self._raw(content, tag_size), content.body)
        self._invoke("on_message", partial(self._hand_over, consumer), message, message=message)

    def _hand_over(self, consumer: Consumer, message: Message) -> None:
        """Call an on_message; the fast path, which looks at no result, gets one that needs none."""
        on_message = consumer.on_message
        result = on_message(message)
        if result is None or not self.connection._follow(
            "on_message", cast("Channel", self), message, result
        ):
            return

        def follow(message: Message) -> None:
            self._invoke("on_message", on_message, message, message=message)

        self.connection._parser.clear_templates()
        if self._consumers.get(consumer.tag) is consumer:
            self._consumers[consumer.tag] = consumer._replace(on_message=follow)

    def _find_template(self, consumer: Consumer, tag: bytes, size: int) -> DeliveryTemplate:
        """A template for deliveries of ``size`` bytes of arguments; the fused path learns it."""
        receiver = self.connection._parser
        length = (4 + size).to_bytes(4, "big")
        head = b"%b%b\x00\x3c\x00\x3c%b" % (self._ack_head[:3], length, tag)
        template = receiver.find_template(head)
        if template is None:
            template = DeliveryTemplate(
                cast("Channel", self),
                consumer.tag,
                consumer.on_message,
                consumer.auto_ack,
                7 + 4 + size + 1,
                len(head),
                head,
            )
            if not self._cancelling:
                receiver.add_template(head, template)
        return template

    def _raw(self, content: Content, skip: int) -> bytes:
        """What Message reads: the method's arguments, a gap as on the wire, the properties."""
        return b"%b%b%b" % (content.payload[skip:], bytes(HEADER_GAP), content.properties)

    def _requeue(self, delivery_tag: int) -> None:
        self._reply("basic.nack", delivery_tag, False, True)

    def _recv_get_ok(self, content: Content) -> None:
        self._content = None
        self._recv_reply(BY_NAME["basic.get-ok"], (content,))

    def _recv_return(self, content: Content) -> None:
        self._content = None
        code, text, exchange, routing_key = content.arguments
        properties = Properties.from_raw(content.properties)
        returned = Returned(code, text, exchange, routing_key, properties, content.body)
        self._invoke("on_return", self._handler.on_return, self, returned)

    def _discard(self, *arguments: object) -> None:
        """A method that means nothing any more."""

    def _recv_ack(self, delivery_tag: int, multiple: bool) -> None:
        # From here such frames take the fused path.  Its key reaches into the tag, whose first
        # byte is zero for the first 2**56 publishes.
        template = DeliveryTemplate(cast("Channel", self), "", _no_message, False, 0, 0)
        self.connection._parser.add_template(self._ack_head + b"\x00", template)
        self._confirm(delivery_tag, multiple, True)

    def _recv_nack(self, delivery_tag: int, multiple: bool, requeue: bool) -> None:
        self._confirm(delivery_tag, multiple, False)

    def _confirm(self, delivery_tag: int, multiple: bool, acked: bool) -> None:
        confirms = self._confirms
        tags = confirms.settle(delivery_tag, multiple, self._next_tag) if confirms else ()
        if not tags:
            self.connection._counts.unknown_confirms += 1
            return
        if not acked:
            self._nacked.extend(tags)
        try:
            result = self._handler.on_delivery_confirmation(cast("Channel", self), tags, acked)
            if result is not None:
                self.connection._follow(
                    "on_delivery_confirmation", cast("Channel", self), None, result
                )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.connection._callback_failed(
                "on_delivery_confirmation", cast("Channel", self), None, error
            )
        finally:
            if self._confirm_waiters:
                self._settle_confirm_waiters()

    def _settle_confirm_waiters(self) -> None:
        assert self._confirms is not None
        while self._confirm_waiters and self._confirms.lowest >= self._confirm_waiters[0][0]:
            upto, request = self._confirm_waiters.popleft()
            nacked = sorted(tag for tag in self._nacked if tag < upto)
            later = [tag for tag in self._nacked if tag >= upto]
            self._nacked = deque(later, NACKS_KEPT)
            self.connection._defer(request.resolve, nacked)

    def _recv_cancel(self, consumer_tag: str, no_wait: bool) -> None:
        """The broker cancelled a consumer."""
        if not no_wait:
            self._reply("basic.cancel-ok", consumer_tag)
        elif consumer_tag in self._consumers and consumer_tag not in self._cancelling:
            # RabbitMQ 4.3 keeps a consumer that has timed out until the client lets go of it as
            # well.  A cancel does that on every release, and is nothing where the consumer is gone
            # already; a cancel-ok ends the connection: up to 4.2 always, later with a queue gone.
            self._reply("basic.cancel", consumer_tag, True)
        consumer = self._forget_consumer(consumer_tag)
        if consumer is None:
            return
        if consumer.on_cancel is not None:
            self.connection._defer(self._invoke, "on_cancel", consumer.on_cancel, consumer_tag)
        self._invoke("on_consumer_cancel", self._handler.on_consumer_cancel, self, consumer_tag)

    def _forget_consumer(self, consumer_tag: str) -> Consumer | None:
        self.connection._parser.clear_templates()
        self._cancelling.discard(consumer_tag)
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is not None and not consumer.auto_ack:
            self._former_tags.pop(consumer_tag, None)
            self._former_tags[consumer_tag] = None
            if len(self._former_tags) > FORMER_TAGS_KEPT:
                del self._former_tags[next(iter(self._former_tags))]
        return consumer

    def _recv_flow(self, active: bool) -> None:
        self._reply("channel.flow-ok", active)
        self._publisher = self._owner if active else 0
        self.connection._set_flow(self.number, active)

    def _recv_close(self, code: int, text: str, class_id: int, method_id: int) -> None:
        if self.connection.is_open:  # behind connection.close nothing may be sent
            self._reply("channel.close-ok")
        method = BY_KEY.get(class_id << 16 | method_id)
        name = None if method is None else method.name
        # It replaces a reason of ours, which tells less: that we asked to go.
        reason = ChannelClosed(text or "no reason given", code=code, method=name, by="broker")
        culprit = self._blamed_request(name)
        if name in _UNANSWERED or culprit is not None:
            reason.culprit = name
        self.connection._numbers.rest(self.number, self.connection._runtime.time())
        self._end(reason, culprit=culprit)

    def _recv_close_ok(self) -> None:
        assert self.reason is not None
        self.connection._numbers.release(self.number)
        self._end(self.reason)

    # Closing

    def _connection_closing(self) -> None:
        """The connection is being closed: nothing more may be sent here."""
        if self.state is not ChannelState.CLOSING:
            self.reason = ChannelClosed("the connection was closed", by="client")
            self._enter(ChannelState.CLOSING)

    def _connection_ended(self, why: ConnectionClosed, culprit: Request[Any] | None) -> None:
        """The connection is over, and the channel with it."""
        reason = self.reason
        if reason is None or reason.by == "client" or why.by != "client":
            reason = ChannelClosed(why.text, code=why.code, method=why.method, by=why.by)
            reason.__cause__ = why
        self._end(reason, culprit=culprit)

    def _close_because(self, reason: ChannelClosed) -> None:
        """Send channel.close; the end comes with the broker's answer."""
        code = REPLY_SUCCESS if reason.code is None else reason.code
        method = BY_NAME.get(reason.method or "")
        ids = (method.class_id, method.method_id) if method else (0, 0)
        close = method_frame(self.number, "channel.close", code, reason.reply_text, *ids)
        self.reason = reason
        self._enter(ChannelState.CLOSING)
        self.connection._send_uncapped(close)
        # A message is not wanted any more; half a reply still has to be told from the next.
        if self._content is not None and self._content.name == "basic.deliver":
            self._drop_content()
        self.connection._start_clock(self)

    def _drop_content(self) -> None:
        if self._content is not None:
            self.connection._parser.forget(self._content)
            self._content = None

    def _expire(self) -> None:
        """The oldest request, or our close, was not answered in time."""
        if self.state is ChannelState.CLOSING:
            assert self.reason is not None
            self.connection._numbers.wait(self.number)
            self._end(self.reason)
            return
        request = self._requests[0]
        timeout = self.connection._request_timeout
        error = RequestTimeout(f"{request}: no answer in {timeout:g} seconds")
        # Reply order is lost: from here nothing on this channel can be matched.
        text = f"no answer to {request.method} in {timeout:g} seconds"
        reason = ChannelClosed(text, method=request.method, by="broker")
        reason.culprit = request.method
        self._close_because(reason)
        request.fail(error)

    def _enter(self, state: ChannelState) -> None:
        self.state = state
        if state is ChannelState.CLOSING or state is ChannelState.CLOSED:
            self._owner = self._publisher = 0
            self.connection._parser.clear_templates()
            self.connection._set_flow(self.number, True)

    def _end(self, reason: ChannelClosed, *, culprit: Request[Any] | None = None) -> None:
        """The channel is over: tell everybody who waits, in order, on_channel_close last."""
        connection = self.connection
        self._enter(ChannelState.CLOSED)
        self.reason = reason
        self._drop_content()
        connection._channel_ended(self)
        if connection._recorder is not None and connection.is_open:
            connection._recorder(self.number, "channel.close", (), None)
        for request in self._requests:
            error = NotExecuted(str(request), reason, is_culprit=request is culprit)
            connection._defer(request.fail, error)
        for _, waiter in self._confirm_waiters:
            connection._defer(waiter.fail, NotExecuted(str(waiter), reason))
        for closed in self._close_waiters:
            connection._defer(closed.resolve, reason)
        for consumer in self._consumers.values():
            if consumer.on_end is not None:
                connection._defer(consumer.on_end)
        self._requests.clear()
        self._confirm_waiters.clear()
        self._close_waiters.clear()
        self._consumers.clear()
        connection._defer(self._notify_closed, reason)

    def _notify_closed(self, reason: ChannelClosed) -> None:
        try:
            self._invoke("on_channel_close", self._handler.on_channel_close, self, reason)
        finally:
            self._handler = _SILENT

    def _invoke(
        self,
        name: str,
        function: Callable[..., object],
        *arguments: object,
        message: Message | None = None,
    ) -> None:
        self.connection._invoke(name, cast("Channel", self), function, *arguments, message=message)


_SILENT = Handler()


def _record(
    recorder: Recorder,
    number: int,
    name: str,
    values: tuple[object, ...],
    finish: Callable[..., T],
    *arguments: Any,
) -> T:
    """Finish a request, and tell the recorder what it was."""
    result = finish(*arguments)
    recorder(number, name, values, result)
    return result


def _no_message(message: Message) -> None:
    """The on_message of a template that is not a delivery's."""
