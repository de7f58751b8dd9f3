"""A transport that Twisted has made already, and pika's connection on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import error
from twisted.python.failure import Failure

import evamqp
from evamqp.abc import Endpoint, Handle, Stream
from evamqp.adapters.twisted import TwistedAdapter

from .. import exceptions
from ..connection import Connection, ConnectionParameters, Parameters
from ._twisted_reasons import REASONS


class TransportGiven:
    """An adapter whose connect() gives the transport that a protocol has."""

    def __init__(self, adapter: TwistedAdapter) -> None:
        self._transport: GivenTransport | None = None
        self.time = adapter.time
        self.call_soon = adapter.call_soon
        self.call_later = adapter.call_later
        self.call_soon_threadsafe = adapter.call_soon_threadsafe
        self.create_future = adapter.create_future
        self.run_awaitable = adapter.run_awaitable
        self.run = adapter.run
        self.stop = adapter.stop
        self.close = adapter.close

    def take(self, transport: Any) -> GivenTransport:
        self._transport = GivenTransport(self, transport)
        return self._transport

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        assert self._transport is not None
        return self._transport.serve(stream)


class GivenTransport:
    """Twisted's transport as evamqp's.

    Nobody is registered as its producer: pika leaves that to programs, and a transport has one.
    """

    def __init__(self, adapter: TransportGiven, transport: Any) -> None:
        self._adapter = adapter
        self._transport = transport
        self._stream: Stream | None = None
        self._held: list[bytes] = []
        self._lost: Failure | None = None
        self.write: Callable[[bytes], None] = transport.write
        self.receive: Callable[[bytes], object] = self._held.append

    def serve(self, stream: Stream) -> Handle:
        """Hand the transport over, on the next turn."""
        return self._adapter.call_soon(lambda: self._made(stream))

    def _made(self, stream: Stream) -> None:
        self._stream = stream
        if self._lost is not None:
            self.lost(self._lost)
            return
        with suppress(AttributeError, OSError):  # it is no TCP, or gone already
            self._transport.setTcpNoDelay(True)
        stream.connection_made(self)
        self.receive = stream.data_received
        for data in self._held:
            stream.data_received(data)

    def lost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._lost = reason
        stream, self._stream = self._stream, None
        if stream is not None:
            is_clean = reason.check(error.ConnectionDone) is not None  # type: ignore[no-untyped-call]
            stream.connection_lost(None if is_clean else reason.value)

    def pause_reading(self) -> None:
        """Deliver nothing more until resume_reading()."""
        self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """Deliver again."""
        self._transport.resumeProducing()

    def close(self) -> None:
        """Send what is kept, then close."""
        self.write = _drop
        if self._lost is None:
            self._transport.loseConnection()

    def abort(self) -> None:
        """Drop what is kept and close now."""
        self.write = _drop
        if self._lost is None:
            self._transport.abortConnection()


def _drop(data: bytes) -> None:
    """What write() is after the end."""


# What a protocol's parameters decide.
_ASKED = (
    "virtual_host", "credentials", "channel_max", "frame_max", "heartbeat",
    "blocked_connection_timeout", "client_properties", "stack_timeout",
)  # fmt: skip


class ConnectionOnTransport(Connection):
    """The callback connection under a protocol; it lives on the protocol's transport."""

    def __init__(self, parameters: Parameters | None, adapter: TransportGiven) -> None:
        self._adapter = adapter
        super().__init__(parameters, internal_connection_workflow=False)

    def _reason_of(self, reason: evamqp.ConnectionClosed) -> exceptions.AMQPConnectionError:
        error = super()._reason_of(reason)
        kind = REASONS.get(type(error))
        return error if kind is None else kind(*error.args)

    def begin(self, done: Callable[[Any], object]) -> None:
        """Shake hands on the transport that is there."""
        # Whether there is TLS, and by which options, the program's endpoint has decided.
        target = ConnectionParameters(self.params.host, self.params.port)
        for name in _ASKED:
            setattr(target, name, getattr(self.params, name))
        self._dial(target, done)
