"""The contract between evamqp and an event loop: Protocols, and the Endpoint they pass around.

No code that runs belongs here, no socket and no loop: an adapter knows bytes, timers and futures,
and this file says what it must do with them, in asyncio's vocabulary.
``evamqp.testing.contract`` is the same contract as a test suite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import ssl

LoopCallback = Callable[[], object]


class Endpoint(NamedTuple):
    """Where to connect, and how long that may take.

    Args:
        host: DNS name, or an IP literal, which needs no resolver.
        port: TCP port, 1..65535.
        tls: Context for TLS; None means plain TCP.
        server_hostname: Name sent as SNI and checked against the certificate; None means ``host``.
        timeout: Seconds for DNS, TCP and TLS together.
        address_timeout: Seconds for the TCP connect to each address of the name.
        user_timeout: Seconds that sent bytes may stay unacknowledged before the kernel gives up
            (TCP_USER_TIMEOUT), for connections without a heartbeat; None leaves it unset.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    timeout: float = 10.0
    address_timeout: float = 5.0
    user_timeout: float | None = None


class Transport(Protocol):
    """A connected byte stream.  Every method returns at once and never calls the stream.

    It may also have ``writelines(pieces)``, which writes a list of bytes and memoryviews that do
    not change; big bodies then go out without a copy.
    """

    def write(self, data: bytes) -> None:
        """Queue bytes.  After close() or abort() a no-op."""

    def pause_reading(self) -> None:
        """Deliver no more data until resume_reading().  Idempotent."""

    def resume_reading(self) -> None:
        """Deliver data again.  Idempotent."""

    def close(self) -> None:
        """Send what is queued, then close.  Idempotent."""

    def abort(self) -> None:
        """Drop what is queued and close now, also during a close() that waits.  Idempotent."""


class Stream(Protocol):
    """Receives the events of a connection.  An adapter calls it from the loop only.

    ``connection_lost`` comes exactly once and last, also if ``connection_made`` never came.
    Its argument is None for an end without error: our own close, or the peer's end of file.
    """

    def connection_made(self, transport: Transport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...


class Handle(Protocol):
    """Something scheduled that can be cancelled."""

    def cancel(self) -> object:
        """Cancel.  Idempotent; a no-op once it has happened."""


class Promise(Protocol):
    """The writing end of a native future.  It settles once; later calls are no-ops."""

    @property
    def future(self) -> Any:
        """What the user awaits: an ``asyncio.Future``, a ``Deferred`` or a ``Result``."""

    def resolve(self, value: object) -> bool:
        """Set the value; return False if the future is settled or its user has cancelled it."""

    def reject(self, exc: BaseException) -> None:
        """Set the error.  An error that is never retrieved must not be logged."""


class Adapter(Protocol):
    """An event loop.  Call all but ``call_soon_threadsafe`` and ``stop`` in the loop's thread."""

    def time(self) -> float:
        """Monotonic seconds; the clock of call_later()."""

    def call_soon(self, callback: LoopCallback, /) -> Handle:
        """Call back on the next turn of the loop."""

    def call_later(self, delay: float, callback: LoopCallback, /) -> Handle:
        """Call back after ``delay`` seconds.  Programs may use it as their timer too."""

    def call_soon_threadsafe(self, callback: LoopCallback) -> None:
        """Call back on the loop, from any thread or signal handler.  Never blocks."""

    def create_future(self) -> Promise: ...

    def run_awaitable(
        self, awaitable: Any, done: Callable[[BaseException | None], object]
    ) -> Handle:
        """Run an awaitable of this loop to its end, then call ``done`` from the loop.

        Args:
            awaitable: A coroutine, or the loop's own future.
            done: Called once, with None or with what the awaitable raised; never inside this call
                or ``cancel()``.  A cancelled awaitable gives RequestCancelled, or the loop's own
                error where that is not an Exception (asyncio).

        Returns:
            A handle whose ``cancel()`` cancels the awaitable; ``done`` is still called.

        Raises:
            TypeError, ValueError: Not an awaitable, or one of another loop.
        """

    def connect(self, endpoint: Endpoint, stream: Stream) -> Handle:
        """Resolve, connect and shake hands in TLS; then call ``stream.connection_made``.

        After a failure, a timeout or ``Handle.cancel()``, call ``stream.connection_lost``.
        """

    def run(self) -> None:
        """Run the loop until stop(), for scripts.  An application runs its own loop."""

    def stop(self) -> None:
        """End run().  Idempotent; legal in a signal handler and before run()."""

    def close(self) -> None:
        """Release what the adapter created; a loop of yours stays open.  Idempotent."""


class Listener(Protocol):
    """What an adapter also offers if it can accept connections."""

    def listen(self, host: str, port: int, factory: Callable[[], Stream]) -> ListenHandle:
        """Accept connections, each for a new stream.  Port 0 picks a free port."""


class ListenHandle(Handle, Protocol):
    """A listening socket; ``cancel()`` stops accepting and leaves accepted connections alone."""

    @property
    def port(self) -> int: ...
