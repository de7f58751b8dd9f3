"""Our end of a connection: a Stream that records the adapter's calls, and when they came.

Only what is wrong in every check is a fault here.  What a check expects never lives here.
"""

from __future__ import annotations

from collections.abc import Callable

from evamqp.abc import Transport


class RecordingStream:
    """A Stream that records every call, and as a fault each one that came at the wrong time.

    Attributes:
        calls: ``made``, ``pause``, ``resume`` and ``lost``, in order.
        data: What was received.
        error: The argument of connection_lost.
        faults: Calls that no adapter may make, in words.
        on_made: Called inside connection_made.
        on_data: Called inside data_received.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data: bytearray = bytearray()
        self.error: BaseException | None = None
        self.faults: list[str] = []
        self.on_made: Callable[[], object] | None = None
        self.on_data: Callable[[], object] | None = None
        self._transport: Transport | None = None
        self._inside: str | None = None

    @property
    def transport(self) -> Transport:
        """What connection_made brought."""
        assert self._transport is not None
        return self._transport

    @property
    def is_made(self) -> bool:
        return self._transport is not None

    @property
    def is_lost(self) -> bool:
        return "lost" in self.calls

    def during(self, verb: str, call: Callable[[], object]) -> None:
        """Make ``call``; a callback that comes from inside it is a fault."""
        self._inside = verb
        try:
            call()
        finally:
            self._inside = None

    def write(self, data: bytes) -> None:
        self.during("write", lambda: self.transport.write(data))

    def writelines(self, pieces: list[memoryview]) -> None:
        writelines = getattr(self.transport, "writelines", None)
        if writelines is None:
            self.write(b"".join(pieces))
        else:
            self.during("writelines", lambda: writelines(pieces))

    def close(self) -> None:
        self.during("close", self.transport.close)

    def abort(self) -> None:
        self.during("abort", self.transport.abort)

    # The Stream.

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._note("made")
        if self.on_made is not None:
            self.on_made()

    def data_received(self, data: bytes) -> None:
        if type(data) is not bytes or not data:
            self.faults.append(f"data_received got {data!r}")
        self.data += data
        self._check("data")
        if self.on_data is not None:
            self.on_data()

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self._note("lost")

    def _note(self, name: str) -> None:
        self._check(name)
        self.calls.append(name)

    def _check(self, name: str) -> None:
        if self._inside is not None:
            self.faults.append(f"{name} came inside {self._inside}()")
        if self.is_lost:
            self.faults.append(f"{name} came after the loss")
