"""One message body on its way in: what has come, what is missing.

It collects and counts bytes, and does not know what kind of message they are.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from evamqp.errors import SYNTAX_ERROR, UNEXPECTED_FRAME, MalformedData

if TYPE_CHECKING:
    from collections.abc import Callable

    from evamqp.core.delivery_template import DeliveryTemplate

# glibc maps every block of 128 KiB and more anew, and gives the end of its heap back, until a
# program has freed a bigger block; from then on that block's size is the measure.  One is freed
# here, untouched, since otherwise each page of each big body is paid for again: three times the
# price of the body.
len(bytes(4 * 1024 * 1024))


class Content:
    """A content-bearing method, its header, and its body so far.

    Args:
        name: The spec's name of the method.
        arguments: Its decoded arguments.
        payload: Its undecoded arguments, from behind the method id.
        finish: Called with this object when the body is complete.
    """

    __slots__ = (
        "_collected",
        "_received",
        "_whole",
        "arguments",
        "finish",
        "name",
        "payload",
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
        self._received = 0
        self._whole = b""  # a body that came in one piece
        self._collected: BytesIO | None = None  # one in several, which it gives away uncopied

    @property
    def is_complete(self) -> bool:
        return self._received == self.size

    @property
    def received(self) -> int:
        """Bytes of body so far."""
        return self._received

    @property
    def body(self) -> bytes:
        return self._whole if self._collected is None else self._collected.getvalue()

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

    def append(self, data: bytes, start: int, stop: int) -> None:
        """Take the bytes of ``data`` from ``start`` to before ``stop``."""
        count = stop - start
        self._received += count
        if count == self.size:
            self._whole = data[start:stop]
        else:
            if self._collected is None:
                self._collected = BytesIO()
            self._collected.write(memoryview(data)[start:stop])
