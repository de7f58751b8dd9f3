"""Hot bytes to values and back, and what runs: a compiled build has these functions in C.

The twin of this module is ``native.pxd``, which the compiled modules use in its place.  Whoever
calls answers for offsets: the twin does not check them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from struct import Struct
from typing import Any, TypeAlias

_Unpack: TypeAlias = Callable[[bytes, int], tuple[Any, ...]]

#: Whether the twin is in use.  There it is a constant, so that the other branch costs nothing.
COMPILED: bool = False


def get_ident() -> Callable[[], int]:
    """``threading.get_ident``, or what gevent has put in its place by the time of this call."""
    return threading.get_ident


new: Callable[[type[Any]], Any] = object.__new__
startswith: Callable[[bytes, bytes, int], bool] = bytes.startswith


def unpack_channel(data: bytes, offset: int) -> int:
    """The channel of the frame that begins there."""
    return data[offset + 1] << 8 | data[offset + 2]


#: Frame end, type and channel of a content header, its size, class and weight, size of the body.
unpack_header: _Unpack = Struct(">IIIQ").unpack_from
#: Frame end, type and channel of a body frame, its size.
unpack_body: _Unpack = Struct(">II").unpack_from
#: Delivery tag and flags.
unpack_confirm: _Unpack = Struct(">QB").unpack_from

_pack_header = Struct(">IIQ").pack
_pack_size = Struct(">I").pack


def pack_ack(head: bytes, raw: bytes) -> bytes:
    """A frame of basic.ack: what stands before the tag, and bytes that begin with the tag."""
    return head + raw[:8] + b"\x00\xce"


def pack_content(head: bytes, properties: bytes, body_prefix: bytes, body: bytes) -> bytes:
    """A whole publish: the frame of its method, the content header, and the body in one frame."""
    size = len(body)
    header = _pack_header(12 + len(properties), 60 << 16, size)
    return b"".join((head, header, properties, body_prefix, _pack_size(size), body, b"\xce"))


def encode_plain(table: dict[str, object]) -> bytes | None:
    """A small table of plain values, with its length; None leaves it to ``fields``: here always."""
    return None


def encode_properties(*properties: object) -> bytes | None:
    """All fourteen, in the order of the wire, if they are few and plain; None, as here always,
    leaves it to ``properties``.
    """
    return None


def fill_plain(
    table: dict[str, Any], data: bytes, position: int, end: int, names: list[str | None]
) -> int:
    """Read entries up to the first that is not plain; where that starts.  Here it is the first.

    Args:
        names: Names that were read before, by a hash of their bytes.
    """
    return position
