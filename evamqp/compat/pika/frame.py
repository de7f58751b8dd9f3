"""Frames as pika's callbacks get them, and as bytes."""

from __future__ import annotations

import struct
from typing import Any

from evamqp import MalformedData
from evamqp.codec import frames as _codec

from . import amqp_object, spec
from .exceptions import InvalidFrameError
from .spec import BasicProperties

_HEADER_SIZE = 12


class Frame(amqp_object.AMQPObject):
    """A frame; its kinds are the classes below."""

    NAME = "Frame"
    __slots__ = ()

    frame_type: int
    channel_number: int

    def __init__(self, frame_type: int, channel_number: int) -> None:
        self.frame_type = frame_type
        self.channel_number = channel_number

    def _marshal(self, pieces: list[bytes]) -> bytes:
        return _codec.frame(self.frame_type, self.channel_number, b"".join(pieces))

    def marshal(self) -> bytes:
        """The frame as bytes."""
        raise NotImplementedError


class Method(Frame):
    """A method: what the callback of a request gets."""

    NAME = "METHOD"
    __slots__ = ()

    method: Any

    def __init__(self, channel_number: int, method: amqp_object.Method) -> None:
        super().__init__(spec.FRAME_METHOD, channel_number)
        self.method = method

    def __class_getitem__(cls, item: object) -> type[Method]:
        return cls

    def marshal(self) -> bytes:
        """The frame as bytes; errors as for the method's ``encode``."""
        return self._marshal([struct.pack(">I", self.method.INDEX), *self.method.encode()])


class Header(Frame):
    """The header of a content."""

    NAME = "Header"
    __slots__ = ()

    def __init__(self, channel_number: int, body_size: int, props: BasicProperties) -> None:
        super().__init__(spec.FRAME_HEADER, channel_number)
        self.body_size = body_size
        self.properties = props

    def marshal(self) -> bytes:
        """The frame as bytes; errors as for the properties' ``encode``."""
        head = struct.pack(">HHQ", self.properties.INDEX, 0, self.body_size)
        return self._marshal([head, *self.properties.encode()])


class Body(Frame):
    """A piece of a content's body."""

    NAME = "Body"
    __slots__ = ()

    def __init__(self, channel_number: int, fragment: bytes) -> None:
        super().__init__(spec.FRAME_BODY, channel_number)
        self.fragment = fragment

    def _items(self) -> dict[str, Any]:
        return self.__dict__

    def marshal(self) -> bytes:
        """The frame as bytes."""
        return self._marshal([self.fragment])


class Heartbeat(Frame):
    """A heartbeat."""

    NAME = "Heartbeat"
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(spec.FRAME_HEARTBEAT, 0)

    def marshal(self) -> bytes:
        """The frame as bytes."""
        return self._marshal([])


class ProtocolHeader(amqp_object.AMQPObject):
    """The eight bytes by which a client asks for a version of AMQP."""

    NAME = "ProtocolHeader"
    __slots__ = ()

    def __init__(
        self, major: int | None = None, minor: int | None = None, revision: int | None = None
    ) -> None:
        self.frame_type = -1
        self.major: int = spec.PROTOCOL_VERSION[0] if major is None else major
        self.minor: int = spec.PROTOCOL_VERSION[1] if minor is None else minor
        self.revision: int = spec.PROTOCOL_VERSION[2] if revision is None else revision

    def marshal(self) -> bytes:
        """The eight bytes."""
        return b"AMQP" + bytes((0, self.major, self.minor, self.revision))


def decode_frame(data_in: bytes) -> tuple[int, Frame | ProtocolHeader | None]:
    """The first frame of ``data_in`` and how many bytes it took; 0 and None if it is not whole.

    Raises:
        InvalidFrameError: These bytes begin no frame.
    """
    if data_in[:4] == b"AMQP":
        if len(data_in) < 8:
            return 0, None
        return 8, ProtocolHeader(*data_in[5:8])
    try:
        if len(data_in) < 7:
            return 0, None
        kind, channel, size = struct.unpack_from(">BHI", data_in)
        end = size + 8
        if len(data_in) < end:
            return 0, None
        if data_in[end - 1] != spec.FRAME_END:
            raise InvalidFrameError("Invalid FRAME_END marker")
        return end, _decode(kind, channel, data_in[7 : end - 1])
    except (MalformedData, struct.error, KeyError) as error:
        raise InvalidFrameError(str(error)) from error


def _decode(kind: int, channel: int, payload: bytes) -> Frame:
    if kind == spec.FRAME_METHOD:
        method = spec.methods[struct.unpack_from(">I", payload)[0]]()
        return Method(channel, method.decode(payload, 4))
    if kind == spec.FRAME_HEADER:
        class_id, _, body_size = struct.unpack_from(">HHQ", payload)
        properties = spec.props[class_id]().decode(payload, _HEADER_SIZE)
        return Header(channel, body_size, properties)
    if kind == spec.FRAME_BODY:
        return Body(channel, payload)
    if kind == spec.FRAME_HEARTBEAT:
        return Heartbeat()
    raise InvalidFrameError(f"Unknown frame type: {kind}")
