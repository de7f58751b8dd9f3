"""The broker's input: bytes in, frames out, with RabbitMQ's words for what is no frame.

What a frame means is the connection's and the channel's.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from evamqp.codec.frames import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
)
from evamqp.codec.methods import decode_arguments
from evamqp.codec.spec import Method
from evamqp.errors import MalformedData
from evamqp.testing.broker.refusal import Refusal

_unpack_head = Struct(">BHI").unpack_from
_KINDS = (FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT)
#: Bytes of a frame before anything is negotiated.
FIRST_FRAME_MAX = 4096
Frame = tuple[int, int, bytes]


class FrameReader:
    """Splits what comes into frames.

    Attributes:
        frame_max: Bytes of the largest frame; set when it is negotiated.
    """

    __slots__ = ("_held", "frame_max")

    def __init__(self) -> None:
        self._held = b""
        self.frame_max: int = FIRST_FRAME_MAX

    @property
    def held(self) -> bytes:
        """The beginning of a frame that is not complete."""
        return self._held

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._held = self._held + data if self._held else data

    def take(self, count: int) -> bytes | None:
        """So many bytes that are not a frame; None while there are fewer."""
        if len(self._held) < count:
            return None
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def frames(self) -> Iterator[Frame]:
        """The complete frames: kind, channel and payload.

        Raises:
            Refusal: 501: what comes is no frame.
        """
        data = self._held
        position, end = 0, len(data)
        try:
            while end - position >= FRAME_OVERHEAD:
                kind, channel, size = _unpack_head(data, position)
                if kind not in _KINDS or size > self.frame_max:
                    self._check(kind, size, data[position + 7 : position + 7 + size])
                start = position + 7
                stop = start + size
                if stop >= end:
                    break
                if data[stop] != FRAME_END:
                    what = f"{{invalid_frame_end_marker,{data[stop]}}}"
                    raise _frame_error(kind, data[start:stop], what)
                position = stop + 1
                yield kind, channel, data[start:stop]
        finally:
            self._held = data[position:] if position < end else b""

    def _check(self, kind: int, size: int, payload: bytes) -> None:
        if kind not in _KINDS:
            raise _frame_error(kind, payload, "unknown_frame")
        # RabbitMQ says what frame_max leaves for a payload, and takes a little more.
        limit = self.frame_max - FRAME_OVERHEAD
        raise _frame_error(kind, b"", f"{{frame_too_large,{size},{limit}}}")


def read_arguments(method: Method, payload: bytes) -> tuple[Any, ...]:
    """A method's arguments; 501, in RabbitMQ's words, if they are not its arguments."""
    try:
        arguments = decode_arguments(method, payload)
    except MalformedData:
        ids = (method.class_id, method.method_id)
        raise Refusal(501, f"cannot decode {octets(payload[4:])}", ids) from None
    if any(isinstance(each, str) and not is_text(each) for each in arguments):
        raise Refusal(501, "Malformed UTF-8 in shortstr", (0, 0))
    return arguments


def is_text(value: str) -> bool:
    """Whether it came as UTF-8: other bytes are kept as surrogates."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def octets(payload: bytes) -> str:
    """Bytes as Erlang prints them."""
    return f"<<{','.join(map(str, payload[:64]))}>>"


def _frame_error(kind: int, payload: bytes, what: str) -> Refusal:
    return Refusal(501, f"type {kind}, all octets = {octets(payload)}: {what}", (0, 0))
