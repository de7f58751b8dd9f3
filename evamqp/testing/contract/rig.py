"""The rig of every check: an adapter, what was opened with it, the laws that always hold.

Also the base of all contracts, where a subclass says what its loop is like.  No check lives here.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from evamqp.abc import Adapter, Endpoint, Handle, Listener, ListenHandle, LoopCallback
from evamqp.errors import ConnectFailed
from evamqp.testing.contract.certificates import client_context, server_context
from evamqp.testing.contract.loopback_server import (
    A_WHILE,
    LOCALHOST,
    TIMEOUT,
    LoopbackServer,
    Peer,
)
from evamqp.testing.contract.recording_stream import RecordingStream

#: Bytes that no pair of loopback socket buffers takes without a reader.
TOO_MUCH = 16 * 1024 * 1024


def pattern(size: int) -> bytes:
    """Bytes in which a lost, doubled or displaced piece shows."""
    block = b"".join(number.to_bytes(4, "big") for number in range(64 * 1024))
    return (block * (size // len(block) + 1))[:size]


class Rig:
    """One adapter under test, what was opened with it, and the laws that hold in every check.

    Attributes:
        notes: What the callbacks that note() makes have added.
    """

    def __init__(self, adapter: Adapter, pump: Callable[[Callable[[], object]], bool]) -> None:
        self.adapter = adapter
        self.notes: list[Any] = []
        self._pump = pump
        self._streams: list[RecordingStream] = []
        self._servers: list[LoopbackServer] = []
        self._handles: list[Handle] = []

    def server(self, host: str = LOCALHOST) -> LoopbackServer:
        """A port for the adapter to connect to."""
        server = LoopbackServer(host)
        self._servers.append(server)
        return server

    def stream(self) -> RecordingStream:
        stream = RecordingStream()
        self._streams.append(stream)
        return stream

    def dial(
        self, port: int, host: str = LOCALHOST, **options: Any
    ) -> tuple[RecordingStream, Handle]:
        """Begin to connect; ``options`` are Endpoint's."""
        stream = self.stream()
        handles: list[Handle] = []
        endpoint = Endpoint(host, port, **options)
        stream.during("connect", lambda: handles.append(self.adapter.connect(endpoint, stream)))
        self._handles += handles
        return stream, handles[0]

    def dial_tls(self, **options: Any) -> tuple[RecordingStream, Handle, LoopbackServer]:
        """Begin a TLS connection, until it waits for accept(); by default one that can succeed."""
        server = self.server()
        options = {"tls": client_context(), "server_hostname": "localhost", **options}
        stream, handle = self.dial(server.port, **options)
        self.until(server.is_called)
        return stream, handle, server

    def connect(self, port: int, host: str = LOCALHOST, **options: Any) -> RecordingStream:
        """Connect, and wait for the outcome."""
        stream, _ = self.dial(port, host, **options)
        self.until(lambda: stream.calls)
        return stream

    def pair(
        self, server: LoopbackServer | None = None, **options: Any
    ) -> tuple[RecordingStream, Peer]:
        """A plain connection: our stream and the other end."""
        server = server or self.server()
        stream = self.connect(server.port, **options)
        assert stream.calls == ["made"], stream.error
        return stream, server.accept()

    def tls_pair(
        self, context: ssl.SSLContext | None = None, **options: Any
    ) -> tuple[RecordingStream, Peer]:
        """A TLS connection, as far as the handshake goes: it may have failed."""
        stream, _, server = self.dial_tls(**options)
        peer = server.accept(context or server_context())
        self.until(peer.shake_hands)
        self.until(lambda: stream.calls)
        return stream, peer

    def listen(self) -> tuple[ListenHandle, list[RecordingStream]]:
        """Let the adapter accept connections; the list gets their streams."""
        accepted: list[RecordingStream] = []

        def accept() -> RecordingStream:
            accepted.append(self.stream())
            return accepted[-1]

        handle = cast(Listener, self.adapter).listen(LOCALHOST, 0, accept)
        self._handles.append(handle)
        return handle, accepted

    def note(self, what: object) -> LoopCallback:
        """A callback that adds ``what`` to the notes."""
        return lambda: self.notes.append(what)

    def until(self, done: Callable[[], object]) -> None:
        """Run the loop until ``done()``."""
        errors: list[BaseException] = []

        def look() -> bool:
            # On the loop an exception of the condition's own would be lost.
            try:
                return bool(errors or done())
            except BaseException as error:
                errors.append(error)
                return True

        assert self._pump(look), "it never came"
        if errors:
            raise errors[0]

    def wait(self, seconds: float = A_WHILE) -> None:
        """Let the loop run for a while."""
        over: list[bool] = []
        self.adapter.call_later(seconds, lambda: over.append(True))
        self.until(lambda: over)

    def finish(self) -> None:
        """End everything, then check the laws that hold for every stream."""
        for handle in self._handles:
            handle.cancel()
        for stream in self._streams:
            if stream.is_made and not stream.is_lost:
                stream.abort()
        self.until(lambda: all(stream.is_lost for stream in self._streams))
        self.wait(0)  # connections that lost a race are closed a turn later
        for server in self._servers:
            server.close()
        for stream in self._streams:
            assert stream.faults == []
            assert stream.calls.count("lost") == 1
            assert stream.calls.count("made") <= 1


def failure_of(stream: RecordingStream) -> BaseException:
    """What the last attempt of a connect that never succeeded failed with."""
    assert stream.calls == ["lost"]
    assert isinstance(stream.error, ConnectFailed)
    assert str(stream.error)
    return stream.error.attempts[-1][1]


class Contract:
    """What a subclass says about its loop."""

    def make_adapter(self) -> Adapter:
        """A new adapter, on a loop that does not run."""
        raise NotImplementedError

    def dispose(self, adapter: Adapter) -> None:
        """Release what make_adapter() made."""
        adapter.close()

    def pump(self, adapter: Adapter, done: Callable[[], object], seconds: float) -> bool:
        """Run the loop until ``done()`` or until ``seconds`` have passed; was it done?"""
        deadline = adapter.time() + seconds

        def look() -> None:
            if done() or adapter.time() > deadline:
                adapter.stop()
            else:
                adapter.call_later(0.001, look)

        adapter.call_soon(look)
        adapter.run()
        return bool(done())

    def outcome(self, future: Any) -> object:
        """The value of a settled native future, or raise its exception."""
        return future.result()

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        adapter = self.make_adapter()
        rig = Rig(adapter, lambda done: self.pump(adapter, done, TIMEOUT))
        try:
            yield rig
            rig.finish()
        finally:
            self.dispose(adapter)
