"""The race between the addresses of a host (RFC 8305): which to try when, which won, what failed.

The same for every loop.  It opens no socket and reads no clock: a loop brings its timers and its
own way to connect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

from evamqp.abc import Handle, LoopCallback, Stream

#: Seconds that one attempt runs alone before the next address is tried beside it
#: (RFC 8305, section 5: "Connection Attempt Delay", recommended value).
STAGGER = 0.25

C = TypeVar("C")

CallLater = Callable[[float, LoopCallback], Handle]
Failures = list[tuple[str, BaseException]]


class Address(NamedTuple):
    """One place to connect to, as ``socket.getaddrinfo`` returns it."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]

    def __str__(self) -> str:
        return place(self.sockaddr[0], self.sockaddr[1])


class Connector(Protocol[C]):
    """A loop's own way to open one TCP connection; ``C`` is whatever it calls a connection."""

    def connect(
        self,
        address: Address,
        connected: Callable[[C], object],
        failed: Callable[[BaseException], object],
    ) -> Handle:
        """Start one attempt.  It calls ``connected`` or ``failed`` once, later, from the loop.

        The handle's ``cancel()`` closes what was opened.  If ``connected`` comes all the same, the
        race discards the connection, so a loop need not be able to cancel every connect.

        Raises:
            Exception: The attempt failed at once; neither function is called.
        """

    def discard(self, connection: C) -> None:
        """Close a connection that lost the race."""

    def adopt(self, connection: C, stream: Stream) -> None:
        """Hand the connection to ``stream``: call ``connection_made`` before returning.

        Called within ``connected``, and so from the loop.
        """


def place(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 literal."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """Alternate the families and drop duplicates, in the resolver's order (RFC 8305, 4)."""
    by_family: dict[int, deque[Address]] = {}
    for address in dict.fromkeys(addresses):
        by_family.setdefault(address.family, deque()).append(address)
    ordered: list[Address] = []
    while by_family:
        for family in list(by_family):
            ordered.append(by_family[family].popleft())
            if not by_family[family]:
                del by_family[family]
    return ordered


class HappyEyeballs(Generic[C]):
    """Try addresses one after the other, STAGGER apart; the first to connect wins.

    A failed attempt starts the next at once.  An address is in ``_waiting``, then in
    ``_trying``, then in ``failures`` unless it won or the race was cancelled.

    Args:
        addresses: In the order to try; see interleave().
        connector: Opens and closes the connections.
        call_later: The loop's timer.
        address_timeout: Seconds for each attempt.
        won: Called with the first connection and its address; the others are closed by then.
        lost: Called when every address has failed.
    """

    __slots__ = (
        "_address_timeout",
        "_call_later",
        "_connector",
        "_lost",
        "_stagger",
        "_trying",
        "_waiting",
        "_won",
        "failures",
    )

    def __init__(
        self,
        addresses: Iterable[Address],
        connector: Connector[C],
        call_later: CallLater,
        address_timeout: float,
        won: Callable[[C, Address], object],
        lost: Callable[[], object],
    ) -> None:
        self._waiting = deque(addresses)
        self._trying: dict[_Attempt[C], None] = {}
        #: Failures so far, in order: ``("host:port", error)``.
        self.failures: Failures = []
        self._connector = connector
        self._call_later = call_later
        self._address_timeout = address_timeout
        self._won = won
        self._lost = lost
        self._stagger: Handle | None = None

    def start(self) -> None:
        """Try the next address, and arm the timer for the one after it."""
        self._stop_stagger()
        while self._waiting and not self._try(self._waiting.popleft()):
            pass
        if self._waiting:
            self._stagger = self._call_later(STAGGER, self.start)
        elif not self._trying:
            self._lost()

    def cancel(self, error: BaseException | None) -> None:
        """Close every attempt in progress and record ``error``, if any, as its failure."""
        self._stop_stagger()
        self._waiting.clear()
        while self._trying:
            attempt, _ = self._trying.popitem()
            attempt.close()
            if error is not None:
                self.failures.append((str(attempt.address), error))

    def _try(self, address: Address) -> bool:
        attempt = _Attempt(self, address)
        try:
            attempt.handle = self._connector.connect(address, attempt.connected, attempt.failed)
        except Exception as error:  # a failure known at once is one like the others
            self.failures.append((str(address), error))
            return False
        attempt.timer = self._call_later(self._address_timeout, attempt.time_out)
        self._trying[attempt] = None
        return True

    def _stop_stagger(self) -> None:
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None

    def attempt_connected(self, attempt: _Attempt[C], connection: C) -> None:
        """An attempt has a connection: it wins unless the race is over."""
        if attempt not in self._trying:
            self._connector.discard(connection)
            return
        del self._trying[attempt]
        attempt.stop_timer()
        attempt.handle = None  # it refers to the attempt: leave no reference cycle
        self.cancel(None)
        self._won(connection, attempt.address)

    def attempt_failed(self, attempt: _Attempt[C], error: BaseException) -> None:
        """An attempt ended without a connection: record why, and try the next."""
        if attempt not in self._trying:
            return
        del self._trying[attempt]
        attempt.stop_timer()
        attempt.handle = None  # it refers to the attempt: leave no reference cycle
        self.failures.append((str(attempt.address), error))
        self.start()

    def attempt_timed_out(self, attempt: _Attempt[C]) -> None:
        """An attempt took too long: close it, then treat it as failed."""
        attempt.close()
        text = f"no answer within {self._address_timeout:g} s"
        self.attempt_failed(attempt, TimeoutError(text))


class _Attempt(Generic[C]):
    """One address of the race."""

    __slots__ = ("_race", "address", "handle", "timer")

    def __init__(self, race: HappyEyeballs[C], address: Address) -> None:
        self._race = race
        self.address = address
        self.handle: Handle | None = None
        self.timer: Handle | None = None

    def connected(self, connection: C) -> None:
        self._race.attempt_connected(self, connection)

    def failed(self, error: BaseException) -> None:
        self._race.attempt_failed(self, error)

    def time_out(self) -> None:
        self._race.attempt_timed_out(self)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def close(self) -> None:
        self.stop_timer()
        if self.handle is not None:
            self.handle.cancel()
