"""The wire between a transport and the broker's driver, where bytes can be cut off.

Frames are counted here, and not understood.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Literal

from evamqp.abc import Adapter, Handle, LoopCallback, Stream, Transport
from evamqp.codec.frames import FRAME_OVERHEAD, PROTOCOL_HEADER
from evamqp.driver import Driver
from evamqp.parameters import Parameters
from evamqp.testing.broker.connection import ServerConnection

Direction = Literal["sent", "received"]
Unit = Literal["bytes", "frames"]
CallSoon = Callable[[LoopCallback], Handle]

_FRAME_HEAD = FRAME_OVERHEAD - 1
# A client's core learns which target answered; a broker has none.
_NOBODY = Parameters(stall_warning=None)


class Accepted(Driver):
    """The driver of a connection that came to us."""

    __slots__ = ()

    def __init__(self, adapter: Adapter) -> None:
        super().__init__(adapter)
        self._target = _NOBODY


class Cut:
    """Counts what passes, and says where to cut.

    Args:
        count: Bytes or frames that may still pass.
        preamble: Bytes that may pass before the first frame begins: the protocol header.
    """

    __slots__ = ("_count", "_head", "_rest", "_unit")

    def __init__(self, unit: Unit, count: int, preamble: int = 0) -> None:
        self._unit = unit
        self._count = count
        self._rest = preamble if unit == "frames" else 0  # bytes until the next frame begins
        self._head = b""

    def admit(self, data: bytes) -> int | None:
        """How many of these bytes may pass before the cut; None if all may, and more."""
        if self._unit == "frames":
            return self._admit_frames(data)
        if len(data) >= self._count:
            return self._count
        self._count -= len(data)
        return None

    def _admit_frames(self, data: bytes) -> int | None:
        position, end = 0, len(data)
        while self._count:
            step = min(self._rest, end - position)
            position += step
            self._rest -= step
            if position == end:
                return None
            missing = _FRAME_HEAD - len(self._head)
            self._head += data[position : position + missing]
            position = min(end, position + missing)
            if len(self._head) == _FRAME_HEAD:
                self._rest = int.from_bytes(self._head[3:], "big") + 1
                self._head = b""
                self._count -= 1
        return min(end, position + self._rest) if position + self._rest <= end else None


class Wire:
    """A Stream to the adapter, a Transport to the driver, and in between what is cut."""

    __slots__ = ("_call_soon", "_cuts", "_is_cut", "_stream", "_transport", "connection")

    def __init__(self, connection: ServerConnection, driver: Accepted, call_soon: CallSoon) -> None:
        self.connection: ServerConnection = connection
        self._stream: Stream = driver
        self._call_soon = call_soon
        self._transport: Transport | None = None
        self._cuts: dict[Direction, tuple[Cut, bool]] = {}
        self._is_cut = False

    def cut(self, direction: Direction, unit: Unit, count: int, *, reset: bool) -> None:
        """Have the connection end when so much has passed from now on."""
        greeting = direction == "received" and self._transport is None
        cut = Cut(unit, count, len(PROTOCOL_HEADER) if greeting else 0)
        self._cuts[direction] = cut, reset

    def _pass(self, direction: Direction, data: bytes) -> bytes:
        """What of these bytes passes; ends the connection where the cut is."""
        if not self._cuts or self._is_cut:
            return b"" if self._is_cut else data
        if direction not in self._cuts:
            return data
        cut, reset = self._cuts[direction]
        count = cut.admit(data)
        if count is None:
            return data
        self._is_cut = True
        # On a later turn, so that what may pass is on its way and the driver is not called inside.
        self._call_soon(self.reset if reset else self.hang_up)
        return data[:count]

    def reset(self) -> None:
        """End the connection with an RST."""
        self._is_cut = True
        if self._transport is not None:
            _forget_unsent(self._transport)
            self._transport.abort()

    def hang_up(self) -> None:
        """End the connection with an end of file."""
        self._is_cut = True
        if self._transport is not None:
            self._transport.close()

    # Stream: called by the adapter

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._stream.connection_made(self)

    def data_received(self, data: bytes) -> None:
        data = self._pass("received", data) if self._cuts or self._is_cut else data
        if data:
            self._stream.data_received(data)

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        self._stream.connection_lost(exc)

    # Transport: called by the driver

    def write(self, data: bytes) -> None:
        data = self._pass("sent", data) if self._cuts or self._is_cut else data
        if data and self._transport is not None:
            self._transport.write(data)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _forget_unsent(transport: Transport) -> None:
    """Have the kernel end a connection with an RST, where it is the kernel's.

    The contract of adapters has no word for this, since no client needs it; so this looks inside.
    """
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
