"""Frames, the envelope of everything in AMQP: how to build and split them.

``split_frames`` is the plain reader, the twin that the core's fused path is held against; what a
frame's content means, and which frame may follow which, is the core's.
"""

from __future__ import annotations

from struct import Struct

from evamqp.codec.methods import encode_method
from evamqp.errors import FRAME_ERROR, MalformedData
from evamqp.types import Body

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8
FRAME_END = 0xCE

#: Bytes of a frame besides its payload: kind, channel and size before it, the end octet after it.
FRAME_OVERHEAD = 8

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_KINDS = frozenset((FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT))
_END = b"\xce"

_pack_head = Struct(">BHI").pack
_unpack_head = Struct(">BHI").unpack_from
_pack_next_head = Struct(">BBHI").pack
_pack_content_header = Struct(">BHIHHQ").pack

# Below this size, copying a body costs less than two more pieces.
_COPIED_BODY = 4096


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Build a frame."""
    return b"".join((_pack_head(kind, channel, len(payload)), payload, _END))


def method_frame(channel: int, name: str, *values: object) -> bytes:
    """Build a method frame; ``values`` and errors as in ``encode_method``."""
    return frame(FRAME_METHOD, channel, encode_method(name, *values))


def content_header_frame(channel: int, raw_properties: bytes, body_size: int) -> bytes:
    """Build the frame between method and body; ``body_size`` in bytes."""
    head = _pack_content_header(FRAME_HEADER, channel, 12 + len(raw_properties), 60, 0, body_size)
    return b"".join((head, raw_properties, _END))


def body_frames(channel: int, body: Body, frame_max: int) -> list[bytes | memoryview]:
    """Build the frames of a body, as pieces to join; a big body is not copied here.

    Args:
        body: C-contiguous; it must not change until the pieces are joined.
        frame_max: Bytes of the largest frame, its eight bytes of overhead included.
    """
    if not isinstance(body, bytes):
        body = memoryview(body).cast("B")
    size = len(body)
    room = frame_max - FRAME_OVERHEAD
    if size <= room:
        head = _pack_head(FRAME_BODY, channel, size)
        if size > _COPIED_BODY:
            return [head, body, _END]
        return [b"".join((head, body, _END))] if size else []
    view, end = memoryview(body), room
    between = _pack_next_head(FRAME_END, FRAME_BODY, channel, room)
    pieces: list[bytes | memoryview] = [_pack_head(FRAME_BODY, channel, room)]
    while end < size:
        pieces.append(view[end - room : end])
        pieces.append(between)
        end += room
    pieces[-1] = _pack_next_head(FRAME_END, FRAME_BODY, channel, size - end + room)
    pieces.append(view[end - room :])
    pieces.append(_END)
    return pieces


def split_frames(
    data: bytes, offset: int, frame_max: int, header_max: int
) -> tuple[list[tuple[int, int, bytes]], int]:
    """Take the whole frames out of ``data``: ``(kind, channel, payload)`` each, and the new offset.

    Args:
        frame_max: Bytes of the largest frame, overhead included.
        header_max: Bytes of the largest content header, without overhead; RabbitMQ does not hold
            these to frame_max.

    Raises:
        MalformedData: 501: an unknown kind, a size above its limit (known from the first seven
            bytes, before the rest has come) or a wrong end octet.
    """
    frames = []
    end = len(data)
    while end - offset >= FRAME_OVERHEAD - 1:
        kind, channel, size = _unpack_head(data, offset)
        _check_head(kind, size, header_max if kind == FRAME_HEADER else frame_max - FRAME_OVERHEAD)
        stop = offset + FRAME_OVERHEAD + size
        if stop > end:
            break
        if data[stop - 1] != FRAME_END:
            raise MalformedData(f"frame ends with {data[stop - 1]:#04x}, not 0xce", FRAME_ERROR)
        frames.append((kind, channel, data[offset + 7 : stop - 1]))
        offset = stop
    return frames, offset


def _check_head(kind: int, size: int, limit: int) -> None:
    if kind not in _KINDS:
        raise MalformedData(f"frame of unknown kind {kind}", FRAME_ERROR)
    if size > limit:
        raise MalformedData(
            f"frame of kind {kind} with {size} bytes, above the limit of {limit}", FRAME_ERROR
        )
