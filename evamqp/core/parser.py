"""Bytes in, frames out to their channels; the common delivery and confirm take a fast path.

No state of a connection or channel is decided here.  Everything the fast path does, the slow path
does as well, and a test holds the two against each other.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Protocol

import evamqp.codec.native as native
from evamqp.codec.frames import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
)
from evamqp.codec.spec import BY_KEY, Method
from evamqp.codec.templates import CLASS_BASIC, SETTLE_SIZE
from evamqp.core.content import Content
from evamqp.core.delivery_template import DeliveryTemplate
from evamqp.errors import (
    COMMAND_INVALID,
    FRAME_ERROR,
    RESOURCE_ERROR,
    SYNTAX_ERROR,
    UNEXPECTED_FRAME,
    MalformedData,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from evamqp.core.callbacks import CallbackDispatcher
    from evamqp.core.message import Delivery

_unpack_head = Struct(">BHI").unpack_from
_unpack_header = Struct(">IIIQ").unpack_from  # mark, frame size, class and weight, body size
_unpack_tag = Struct(">Q").unpack_from

HEADER_SIZE = 22  # bytes of the shortest content header frame
# Frames before tune, and any frame until frame_max is known.
FIRST_FRAME_MAX = 64 * 1024
# Bytes of the first frame that tell an AMQP 0-9-1 broker from something else.
GREETING = 8
# Bytes: a delivery up to this size that the end of a read cuts waits for the rest, which is
# cheaper than to begin it the slow way; unless a frame of another channel comes before the rest.
WAITS_WHOLE = 16 * 1024
# Templates kept at the most; then the table stops filling, so that a peer that varies its frames
# costs us the slow path and no memory.
MAX_TEMPLATES = 4096

# What the slow path returns in place of a number of bytes.
STOPPED = -1

_NO_TEMPLATES: dict[bytes, DeliveryTemplate] = {}
_NO_HEAD = b"\xff"  # no frame begins so
_COMPILED = native.COMPILED


class WrongPeer(Exception):
    """The first bytes are not those of an AMQP 0-9-1 broker; ``args[0]`` holds them."""


class ControlTarget(Protocol):
    """What takes the methods on channel 0."""

    def recv_method(self, method: Method, payload: bytes) -> object:
        """A method; ``payload`` from the class id on."""

    def close_answered(self, number: int) -> object:
        """A channel.close-ok for a number that no channel has."""


class ChannelTarget(Protocol):
    """What takes the frames of one channel."""

    def recv_method(self, method: Method, payload: bytes) -> object:
        """A method; ``payload`` from the class id on."""

    def recv_header(self, payload: bytes) -> object:
        """A content header."""

    def recv_body(self, size: int) -> Content | None:
        """A body frame of ``size`` bytes begins: where it goes; None discards it."""


class ChannelFinder(Protocol):
    """What knows the channels by number."""

    def find(self, number: int) -> ChannelTarget | None:
        """The channel of this number; None if its frames are to be discarded."""


class FrameParser:
    """The input side of one connection.

    Args:
        control: Takes the methods on channel 0.
        channels: Finds the channels.
        callbacks: Runs what was deferred, and reports what a callback raised.
        message_type: What a delivery becomes.
        max_templates: How many templates may be kept; 0 turns the fast path off.

    Attributes:
        held: The beginning of what is not complete yet.
    """

    __slots__ = (
        "_body_left",
        "_body_max",
        "_callbacks",
        "_channels",
        "_control",
        "_fast_body_max",
        "_greeted",
        "_last",
        "_last_head",
        "_max_templates",
        "_message_type",
        "_need",
        "_position",
        "_recent",
        "_sink",
        "_templates",
        "body_bytes",
        "frame_max",
        "frames",
        "header_bytes",
        "header_max",
        "heartbeats",
        "held",
        "messages",
        "stopped",
        "unfinished",
    )

    def __init__(
        self,
        control: ControlTarget,
        channels: ChannelFinder,
        callbacks: CallbackDispatcher,
        message_type: type[Delivery],
        max_templates: int = MAX_TEMPLATES,
    ) -> None:
        self._control = control
        self._channels = channels
        self._callbacks = callbacks
        self._message_type = message_type
        self._templates: dict[bytes, DeliveryTemplate] = {}
        self._max_templates = max_templates
        # The template of the frame before, and of each channel's: often that of the next too, and
        # a compiled build sees that in less time than a dict takes.
        self._last: DeliveryTemplate | None = None
        self._last_head = _NO_HEAD
        self._recent: list[DeliveryTemplate | None] = []
        self.held: bytes | bytearray = b""
        self._need = 0  # bytes that must be held before another look makes sense
        self._position = 0  # in the data being parsed: behind the last frame of the slow path
        self._sink: Content | None = None  # where the rest of a cut body frame goes
        self._body_left = 0  # bytes of that frame still to come, its end octet included
        self._greeted = False
        self.stopped: bool = False
        self.unfinished: int = 0  # contents begun and neither complete nor dropped
        self.body_bytes: int = 0  # of all partial bodies
        self.header_bytes: int = 0  # of the properties of all unfinished contents
        self.frames: int = 0
        self.heartbeats: int = 0
        self.messages: int = 0
        self.header_max: int = 0
        self._body_max = 0
        self.set_limits(FIRST_FRAME_MAX, FIRST_FRAME_MAX, 0)

    def set_limits(self, frame_max: int, header_max: int, body_max: int) -> None:
        """Bound what may come: bytes of a frame, of a header frame's payload, of a body."""
        self.frame_max: int = frame_max
        self.header_max = header_max
        self._body_max = body_max
        self._fast_body_max = min(body_max, frame_max - FRAME_OVERHEAD)

    @property
    def has_input(self) -> bool:
        """Whether whole frames may be waiting because something interrupted the parser."""
        return bool(self.held) and len(self.held) >= self._need and not self.stopped

    def detach(self) -> None:
        """Let go of channels and callbacks, so that no reference cycle is left."""
        self.stopped = True
        self.held = b""
        del self._control, self._channels, self._callbacks

    def clear_templates(self) -> None:
        """Forget every template: a consumer or channel changed, or reading stops."""
        self._templates.clear()
        self._recent.clear()
        self._forget_last()

    def _forget_last(self) -> None:
        self._last = None
        self._last_head = _NO_HEAD

    def forget(self, content: Content) -> None:
        """Drop a body that is not wanted any more."""
        self._release(content)
        if self._sink is content:
            self._sink = None

    def receive(self, data: bytes, wait_whole: bool = True) -> None:
        """Parse ``data`` behind what is held, and dispatch every frame that is complete.

        Args:
            data: Bytes as they came.
            wait_whole: False when nothing more will come: then no delivery waits for its rest.

        Raises:
            MalformedData: The peer broke the protocol; everything before was dispatched.
            WrongPeer: The first bytes are not a broker's.
        """
        held = self.held
        if held:
            if self.stopped or (wait_whole and len(held) + len(data) < self._need):
                if not isinstance(held, bytearray):
                    held = self.held = bytearray(held)
                held += data
                return
            if isinstance(held, bytearray):
                held += data
                data = bytes(held)
            else:
                data = held + data
            # Let go of here already: a big header would stand in memory once more.
            self.held = held = b""
        elif self.stopped:
            self.held = data
            self._need = 0
            return
        if not self._greeted and not self._check_greeting(data):
            return
        self._parse(data, wait_whole)

    # The fast path relies on these invariants:
    #
    # 1. A template is found by the bytes of a frame up to the delivery tag: type, channel, size,
    #    method and consumer tag.  The slow path has read such a frame before, so only its length
    #    and what follows the tag are left to check.
    # 2. Templates are cleared when a consumer or channel changes, when reading stops, and at the
    #    end; ``_finder`` finds none while any content is unfinished.  So a template that is found
    #    means: this channel expects a method now, and its consumer wants the message.
    # 3. A frame that fails any check is left to the slow path, whole and from its first byte.
    # 4. A callback may do anything to the parser but call receive(): the driver keeps what a
    #    nested loop reads.
    # 5. ``position`` is behind the last frame that was dispatched, also when its callback raises.
    # 6. Nothing is held on entry; on leaving, whatever was not dispatched is.
    def _parse(self, data: bytes, wait_whole: bool) -> None:
        """Dispatch the frames of ``data``: deliveries and confirms here, the rest one by one."""
        self._position = 0
        end = len(data)
        position = need = messages = confirms = 0
        body_max, header_max = self._fast_body_max, self.header_max
        message_type, callbacks = self._message_type, self._callbacks
        deferred = callbacks.deferred
        wire = data  # the same bytes, which a compiled build cuts without asking what they are
        try:
            if self._body_left:
                self._take_body(data, 0, end)
                position = self._position
            find = self._finder()
            while True:
                if end - position < SETTLE_SIZE:
                    if position == end:
                        break
                    template = None
                elif _COMPILED and native.startswith(data, self._last_head, position):
                    template = self._last
                elif _COMPILED:
                    template = self._recall(data, position)
                else:
                    template = find(data[position : position + 12 + data[position + 11]])
                if template is not None:
                    length = template.length
                    if not length:
                        if data[position + 20] == FRAME_END:
                            tag, multiple = native.unpack_confirm(data, position + 11)
                            position += SETTLE_SIZE
                            confirms += 1
                            template.target.confirm(tag, multiple & 1 == 1, True)
                            if deferred:
                                callbacks.run_deferred()
                            continue
                    elif end >= (header := position + length) + HEADER_SIZE:
                        mark, header_size, kind, size = native.unpack_header(data, header - 1)
                        body = header + header_size + 8
                        if (
                            0 < size <= body_max
                            and (stop := body + size + 8) <= end
                            and mark == template.header_prefix
                            and kind == CLASS_BASIC
                            and 14 <= header_size <= header_max
                        ):
                            mark, body_size = native.unpack_body(data, body - 1)
                            if (
                                mark == template.body_prefix
                                and body_size == size
                                and data[stop - 1] == FRAME_END
                                and (
                                    key := (name := position + template.tag_at + 9) + 1 + data[name]
                                )
                                < header
                                and key + data[key] + 2 == header
                            ):
                                # Delivery.__init__ by hand: the call costs a tenth of all.
                                message = native.new(message_type)
                                message._template = template
                                message._raw = wire[name - 9 : body - 1]
                                message.body = wire[body + 7 : stop - 1]
                                message._settled = template.auto_ack
                                message._properties = None
                                position = stop
                                messages += 1
                                try:
                                    template.on_message(message)
                                except BaseException as error:
                                    callbacks.failed("on_message", template.target, message, error)
                                if deferred:
                                    callbacks.run_deferred()
                                continue
                if need := self._read_frame(data, position, end, template, wait_whole):
                    break
                position = self._position
                if deferred:
                    callbacks.run_deferred()
                find = self._finder()
        finally:
            # Also when a callback raised KeyboardInterrupt: what was not parsed is kept.
            position = max(position, self._position)
            self.messages += messages
            self.frames += 3 * messages + confirms
            self._need = max(need, 0)
            self.held = data[position:] if position < end else b""

    def _read_frame(
        self,
        data: bytes,
        position: int,
        end: int,
        template: DeliveryTemplate | None,
        wait_whole: bool,
    ) -> int:
        """The slow path: take the frame at ``position``, of any kind, and dispatch it.

        Args:
            data: The bytes being parsed, of which there are ``end``.
            position: Where the frame begins.
            end: The length of ``data``.
            template: What the fast path found but could not use; None if it found nothing.
            wait_whole: Whether a small delivery that ``data`` cuts waits for its rest.

        Returns:
            0, and ``_position`` is behind it; or how many bytes it needs, at the least; or
            STOPPED, if the parser is.
        """
        if self.stopped:
            return STOPPED
        if template is not None and template.length:
            cut = self._cut_delivery(template, data, position, wait_whole)
            if cut is not None:
                return cut
        if end - position < 7:
            return FRAME_OVERHEAD
        kind, number, size = _unpack_head(data, position)
        self._check_size(kind, size)
        if kind == FRAME_BODY:
            self._sink = self._begin_body(number, size)
            self._body_left = size + 1
            self._take_body(data, position + 7, end)
            return 0
        stop: int = position + size + FRAME_OVERHEAD
        if stop > end:
            return stop - position
        if data[stop - 1] != FRAME_END:
            raise MalformedData("a frame does not end with 0xce", FRAME_ERROR)
        self._position = stop
        self._dispatch(kind, number, data[position + 7 : stop - 1])
        return 0

    def _finder(self) -> Callable[[bytes], DeliveryTemplate | None]:
        """What the fast path finds templates with.

        While any content is unfinished it finds none: only the slow path knows that no method
        of the same channel may come then.
        """
        if self.unfinished:
            self._forget_last()
            return _NO_TEMPLATES.get
        return self._templates.get

    def _recall(self, data: bytes, position: int) -> DeliveryTemplate | None:
        """Find a template as ``_finder`` does, of the channel's frame before or by all bytes."""
        if self.unfinished:
            return None
        recent = self._recent
        number = native.unpack_channel(data, position)
        template = recent[number] if number < len(recent) else None
        if template is None or not native.startswith(data, template.head, position):
            template = self._templates.get(data[position : position + 12 + data[position + 11]])
            if template is None:
                return None
            if number >= len(recent):
                recent += [None] * (number + 1 - len(recent))
            recent[number] = template
        self._last = template
        self._last_head = template.head
        return template

    def _check_greeting(self, data: bytes) -> bool:
        """Whether the peer's first bytes are those of a method frame; False: too few to tell."""
        if data[:1] == b"\x01":
            self._greeted = True
        elif len(data) >= GREETING:
            raise WrongPeer(data)
        else:
            self.held = data
            self._need = GREETING
        return self._greeted

    @property
    def greeting(self) -> bytes:
        """What came from a peer that never sent a whole greeting."""
        return b"" if self._greeted else bytes(self.held)

    def _check_size(self, kind: int, size: int) -> None:
        if kind == FRAME_HEADER:
            if size > self.header_max:
                raise MalformedData(f"a content header of {size} bytes", FRAME_ERROR)
        elif size > self.frame_max - FRAME_OVERHEAD:
            raise MalformedData(f"a frame of {size} bytes, type {kind}", FRAME_ERROR)
        elif kind not in (FRAME_METHOD, FRAME_BODY, FRAME_HEARTBEAT):
            raise MalformedData(f"a frame of unknown type {kind}", FRAME_ERROR)

    def _dispatch(self, kind: int, number: int, payload: bytes) -> None:
        self.frames += 1
        if kind == FRAME_METHOD:
            self._dispatch_method(number, payload)
        elif kind == FRAME_HEADER:
            channel = self._channels.find(number)
            if channel is not None:
                channel.recv_header(payload)
        elif number:
            raise MalformedData(f"a heartbeat on channel {number}", UNEXPECTED_FRAME)
        elif payload:
            raise MalformedData("a heartbeat with a payload", FRAME_ERROR)
        else:
            self.heartbeats += 1

    def _dispatch_method(self, number: int, payload: bytes) -> None:
        if len(payload) < 4:
            raise MalformedData("a method frame without a method", SYNTAX_ERROR)
        method = BY_KEY.get(int.from_bytes(payload[:4], "big"))
        if method is None or method.sender == "client":
            name = payload[:4].hex() if method is None else method.name
            raise MalformedData(f"method {name} is not a broker's", COMMAND_INVALID)
        if number == 0:
            self._control.recv_method(method, payload)
            return
        channel = self._channels.find(number)
        if channel is not None:
            channel.recv_method(method, payload)
        elif method.name == "channel.close-ok":
            self._control.close_answered(number)

    def _begin_body(self, number: int, size: int) -> Content | None:
        """Where a body frame of ``size`` bytes goes; None if it is to be discarded."""
        self.frames += 1
        channel = self._channels.find(number)
        return None if channel is None else channel.recv_body(size)

    def _cut_delivery(
        self, template: DeliveryTemplate, data: bytes, position: int, wait_whole: bool
    ) -> int | None:
        """Take or keep a delivery at ``position`` that is not all here.

        Returns:
            0 if it was begun, and ``_position`` is behind the data; or how many bytes it waits
            for; None if it is whole, or if the slow path has to see what else comes there.
        """
        end = len(data)
        length = template.length
        header = position + length
        if end < header + HEADER_SIZE:
            # Another frame that comes before the header must not wait.
            prefix = template.header_prefix.to_bytes(4, "big")
            if wait_whole and prefix.startswith(data[header - 1 : header + 3]):
                return length + (HEADER_SIZE if end >= header + 3 else FRAME_OVERHEAD)
            return None
        mark, header_size, kind, size = _unpack_header(data, header - 1)
        body = header + header_size + 8
        stop: int = body + size + FRAME_OVERHEAD
        prefix = template.body_prefix.to_bytes(4, "big") + size.to_bytes(8, "big")[-4:]
        if (
            stop <= end
            or mark != template.header_prefix
            or kind != CLASS_BASIC
            or not 0 < size <= self._fast_body_max
            or not 14 <= header_size <= self.header_max
            or not prefix.startswith(data[body - 1 : body + 7])
        ):
            return None
        if stop - position <= WAITS_WHOLE and wait_whole:
            known: int = stop if end >= body + 7 else body + FRAME_OVERHEAD
            return known - position
        if end >= body + 7 and self._begin_delivery(template, data, position, body, size):
            return 0
        return None

    def _begin_delivery(
        self, template: DeliveryTemplate, data: bytes, position: int, body: int, size: int
    ) -> bool:
        """Begin a delivery with what is here of its body; False if its method is malformed."""
        tag_at = position + template.tag_at
        header = position + template.length
        name = tag_at + 9
        key = name + 1 + data[name]
        if key >= header or key + data[key] + 2 != header:
            return False
        content = Content(
            "basic.deliver",
            (template.consumer_tag, *_unpack_tag(data, tag_at)),
            data[position + 11 : header - 1],
            template.target.recv_deliver,
        )
        content.take_header(data[header + 7 : body - 1])
        content.template = template
        template.target.content = content
        self.frames += 3
        self.unfinished += 1
        self.hold_header(content)
        self._sink = content
        self._body_left = size + 1
        self._take_body(data, body + 7, len(data))
        return True

    def _take_body(self, data: bytes, position: int, end: int) -> None:
        """Feed the current body frame from ``data``, and finish the content that it completes.

        ``_position`` is then behind what was taken.
        """
        sink = self._sink
        count = min(self._body_left, end - position)
        self._body_left -= count
        self._position = last = position + count
        if not self._body_left:
            last -= 1
            if data[last] != FRAME_END:
                raise MalformedData("a body frame does not end with 0xce", FRAME_ERROR)
            self._sink = None
        if sink is None:
            return
        count = last - position
        if count:
            self.body_bytes += count
            self._check_partial()
            sink.append(data, position, last)
        if sink.is_complete and not self._body_left:
            self.finish(sink)

    def finish(self, content: Content) -> None:
        """A body is complete: hand it over."""
        self._release(content)
        self.messages += 1
        content.finish(content)

    def begin(self) -> None:
        """A content was announced; ``finish`` or ``forget`` ends it."""
        self.unfinished += 1

    def hold_header(self, content: Content) -> None:
        """Count the properties of a content whose body is still to come.

        Raises:
            MalformedData: As for bodies, 506.
        """
        self.header_bytes += len(content.properties)
        self._check_partial()

    def _check_partial(self) -> None:
        """Bound what all channels together hold of messages that may never be completed."""
        bodies = 2 * self._body_max
        # The one header more is that of a message whose properties outweigh any body.
        if (
            self.body_bytes > bodies
            or self.body_bytes + self.header_bytes > bodies + self.header_max
        ):
            raise MalformedData("too many bytes in partial messages", RESOURCE_ERROR)

    def _release(self, content: Content) -> None:
        self.unfinished -= 1
        self.body_bytes -= content.received
        self.header_bytes -= len(content.properties)

    def find_template(self, head: bytes) -> DeliveryTemplate | None:
        """The template of frames that begin with ``head``; None if there is none."""
        return self._templates.get(head)

    def add_template(self, template: DeliveryTemplate) -> None:
        """Let frames that begin with its head take the fast path, while there is room."""
        if len(self._templates) < self._max_templates and not self.stopped:
            self._templates[template.head] = template
