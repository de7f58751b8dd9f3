"""One message body on its way in: what has come, what is missing.

It collects and counts bytes, and does not know what kind of message they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evamqp.errors import SYNTAX_ERROR, UNEXPECTED_FRAME, MalformedData

if TYPE_CHECKING:
    from collections.abc import Callable

    from evamqp.core.delivery_template import DeliveryTemplate

# Bytes: pieces below this are copied together, so that a body in one-byte frames costs its own
# size and not a list entry and an object for each byte.
SMALL_PIECE = 4096


class Content:
    """A content-bearing method, its header, and its body so far.

    Args:
        name: The spec's name of the method.
        arguments: Its decoded arguments.
        payload: Its undecoded arguments, from behind the method id.
        finish: Called with this object when the body is complete.
    """

    __slots__ = (
        "_pieces",
        "_received",
        "arguments",
        "finish",
        "name",
        "payload",
        "pinned_bytes",
        "properties",
        "size",
        "template",
    )

    def __init__(
        self,
        name: str,
        arguments: tuple[Any, ...],
        payload: bytes,
        finish: Callable[[Content], object],
    ) -> None:
        self.name: str = name
        self.arguments: tuple[Any, ...] = arguments
        self.payload: bytes = payload
        self.finish: Callable[[Content], object] = finish
        self.properties: bytes = b""
        self.template: DeliveryTemplate | None = None  # by which the content was begun
        self.size: int = -1  # bytes of body announced; -1 before the header
        self.pinned_bytes: int = 0  # bytes of reads that our views keep in memory for nothing
        self._received = 0
        self._pieces: list[bytes | bytearray | memoryview] = []

    @property
    def is_complete(self) -> bool:
        return self._received == self.size

    @property
    def received(self) -> int:
        """Bytes of body so far."""
        return self._received

    @property
    def body(self) -> bytes:
        pieces = self._pieces
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def take_header(self, payload: bytes) -> None:
        """Read a content header frame.

        Raises:
            MalformedData: A second header (505), or one that is not of class basic (501).
        """
        if self.size >= 0:
            raise MalformedData(f"a second content header for {self.name}", UNEXPECTED_FRAME)
        if len(payload) < 14 or payload[:4] != b"\x00\x3c\x00\x00":
            raise MalformedData(f"bad content header for {self.name}", SYNTAX_ERROR)
        self.size = int.from_bytes(payload[4:12], "big")
        self.properties = payload[12:]

    def expect(self, count: int) -> None:
        """Announce ``count`` bytes of body before they come.

        Raises:
            MalformedData: No header came yet (505), or the body would exceed it (501).
        """
        if self.size < 0:
            raise MalformedData(f"a body frame before the header of {self.name}", UNEXPECTED_FRAME)
        if self._received + count > self.size:
            raise MalformedData(
                f"the body of {self.name} exceeds the {self.size} bytes announced", SYNTAX_ERROR
            )

    def append(self, piece: bytes | memoryview) -> None:
        self._received += len(piece)
        pieces = self._pieces
        if len(piece) >= SMALL_PIECE or not pieces:
            pieces.append(piece)
        elif isinstance(last := pieces[-1], bytearray):
            last += piece
        else:
            pieces.append(bytearray(piece))
