"""basic.publish: the frames of a message, of parts that are remembered from the one before.

Whether and when a channel may publish is known to its outlet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import evamqp.codec.native as native
from evamqp.codec.frames import FRAME_OVERHEAD, body_frames, content_header_frame
from evamqp.codec.properties import Properties
from evamqp.codec.templates import (
    CLASS_BASIC,
    FRAME_END,
    NO_PROPERTIES,
    body_prefix,
    pack_header,
    pack_size,
    publish_ends,
    publish_head,
    publish_prefix,
    without_header,
)
from evamqp.core.output import size_of
from evamqp.errors import BadType

if TYPE_CHECKING:
    from evamqp.core.context import Limits
    from evamqp.core.outlet import Outlet
    from evamqp.types import Body

# Bytes: a body above this is queued as it is and copied once, when the output is joined.
_JOINED_BODY = 16 * 1024
# What stands before the routing key depends on the exchange and the key's length alone, so that
# any number of routing keys costs the same.  With more of these than here the table stops filling.
_MAX_PREFIXES = 256
# Where nothing was published yet: no argument is this.
_NOWHERE: Any = object()
_COMPILED = native.COMPILED
_get_ident = native.get_ident()


class Publishing:
    """The part of a Channel that publishes."""

    __slots__ = (
        "_body_prefix",
        "_joined_body",
        "_last_exchange",
        "_last_head",
        "_last_key",
        "_last_mandatory",
        "_last_prefixes",
        "_limits",
        "_mandatory_ended",
        "_outlet",
        "_prefix_count",
        "_prefixes",
        "_publish_ends",
        "number",
    )

    def __init__(self, outlet: Outlet, limits: Limits) -> None:
        number = outlet.number
        self.number: int = number
        self._outlet = outlet
        self._limits = limits
        self._prefixes: dict[str, dict[int, bytes]] = {}  # by exchange, then by length of the key
        self._prefix_count = 0
        self._publish_ends = publish_ends(number)
        # Where the last message went, since the next mostly goes there too.
        self._last_exchange: str = _NOWHERE
        self._last_key: str = _NOWHERE
        self._last_mandatory = False
        self._last_prefixes: dict[int, bytes] = {}
        self._last_head = b""
        # Of the runs of mandatory publishes outside confirm mode: the counts of publishes at their
        # ends, less those at their beginnings.
        self._mandatory_ended = 0
        self._body_prefix = body_prefix(number).to_bytes(4, "big")
        self._joined_body = min(_JOINED_BODY, limits.frame_max - FRAME_OVERHEAD)

    def basic_publish(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        properties: Properties | None = None,
        mandatory: bool = False,
    ) -> int:
        """Publish a message.

        Args:
            exchange: Name; "" is the default exchange, which routes to the queue of that name.
            routing_key: Up to 255 bytes of UTF-8.
            body: Bytes-like; anything but bytes is copied at the call.
            properties: None sends none.
            mandatory: If no queue takes it, the broker returns it (``on_return``) instead of
                dropping it.

        Returns:
            The tag that ``on_delivery_confirmation`` will name, counted from the sending of
            ``confirm_select``; 0 outside confirm mode.

        Raises:
            OutputFull: The output buffer is at its cap, or the broker stopped this channel's
                flow; nothing was sent, and no tag was taken.
            BadArgument: The properties do not fit a frame (``connection.frame_max``), or a name
                is too long; the same.
            MalformedData: The properties came from a broker and are broken; the same.

        Spec: basic.publish (60, 40).
        """
        outlet = self._outlet
        if outlet.publisher != _get_ident():
            raise outlet.unusable("basic.publish")
        if type(body) is not bytes:
            body = copy_body(body)
        try:
            if properties is None:
                raw = NO_PROPERTIES
            else:
                given = properties  # which a compiled build takes only as what it is
                raw = given._sendable
            header_size = len(raw) + 12
        except (AttributeError, TypeError):
            raw = self._look_at(properties)
            header_size = len(raw) + 12
        if (
            routing_key is self._last_key
            and exchange is self._last_exchange
            and mandatory is self._last_mandatory
        ):
            head = self._last_head
        else:
            head = self._make_head(exchange, routing_key, mandatory)
        size = len(body)
        output = outlet.output
        if size and size <= self._joined_body:
            if _COMPILED:
                frames = native.pack_content(head, raw, self._body_prefix, body)
            else:  # the same without a call
                frames = b"".join(
                    (
                        head,
                        pack_header(header_size, CLASS_BASIC, size),
                        raw,
                        self._body_prefix,
                        pack_size(size),
                        body,
                        FRAME_END,
                    )
                )
            total = output.size + len(frames)
            if total > output.threshold:
                total = output.admit(len(frames))
            output.pieces.append(frames)
            output.size = total
        else:
            self._publish_pieces(head, raw, body)
        tag = outlet.next_tag
        if tag:
            outlet.next_tag = tag + 1
        else:
            outlet.unconfirmed_published += 1
        return tag

    def _look_at(self, properties: object) -> bytes:
        """The bytes of properties that came from a broker, or are big, if they can be sent."""
        if not isinstance(properties, Properties):
            kind = type(properties).__name__
            raise BadType(f"basic.publish: properties must be Properties, not {kind}")
        raw = properties.check()
        self._limits.check_frame("basic.publish: its properties", 12 + len(raw))
        return raw

    def _publish_pieces(self, head: bytes, raw: bytes, body: bytes) -> None:
        """Queue an empty or a big body; a big one is not copied here."""
        number, size, frame_max = self.number, len(body), self._limits.frame_max
        pieces: list[bytes | memoryview]
        if 0 < size <= frame_max - FRAME_OVERHEAD:
            header = pack_header(12 + len(raw), CLASS_BASIC, size)
            front = b"".join((head, header, raw, self._body_prefix, pack_size(size)))
            pieces = [front, body, FRAME_END]
        else:
            pieces = [without_header(head), content_header_frame(number, raw, size)]
            pieces += body_frames(number, body, frame_max)
        output = self._outlet.output
        waiting = output.admit(size_of(pieces))
        output.pieces += pieces
        output.size = waiting

    def _make_head(self, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        """The frame of basic.publish, and the type and channel of the frame behind it."""
        try:
            if exchange is not self._last_exchange:
                self._turn_to(exchange)
            key = routing_key.encode()
            prefix = self._last_prefixes.get(len(key)) or self._make_prefix(exchange, len(key))
            head = prefix + key + self._publish_ends[mandatory]
        except (AttributeError, LookupError, TypeError, UnicodeEncodeError):
            # Says what is bad; or encodes what only looked so, such as surrogates.
            head = publish_head(self.number, exchange, routing_key, mandatory)
        self._last_key = routing_key
        if mandatory is not self._last_mandatory:
            self._turn_mandatory(mandatory)
        self._last_head = head
        return head

    def _turn_mandatory(self, mandatory: bool) -> None:
        """From here messages are mandatory, or are not: counted here, no publish has to."""
        if bool(mandatory) is not bool(self._last_mandatory):
            published = self._outlet.unconfirmed_published
            self._mandatory_ended += -published if mandatory else published
        self._last_mandatory = mandatory

    def _count_mandatory(self) -> int:
        """How many mandatory messages were published outside confirm mode."""
        open_run = self._outlet.unconfirmed_published if self._last_mandatory else 0
        return self._mandatory_ended + open_run

    def _turn_to(self, exchange: str) -> None:
        """From here messages go to this exchange; the last head belongs to another."""
        self._last_prefixes = self._prefixes.get(exchange, {})
        self._last_exchange = exchange
        self._last_key = _NOWHERE

    def _make_prefix(self, exchange: str, size: int) -> bytes:
        """The frame of basic.publish up to a routing key of ``size`` bytes."""
        prefix = publish_prefix(self.number, exchange, size)
        if self._prefix_count < _MAX_PREFIXES:
            self._prefix_count += 1
            self._last_prefixes[size] = prefix
            self._prefixes[exchange] = self._last_prefixes
        return prefix


def copy_body(body: object) -> bytes:
    if isinstance(body, str):
        raise BadType("body is a str: encode it first, as body.encode()")
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise BadType(f"body must be bytes-like, not {type(body).__name__}")
    return bytes(body)
