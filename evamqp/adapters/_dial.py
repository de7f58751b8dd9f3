"""From a host name to one connected stream: the race of RFC 8305, and the one deadline over it.

Bookkeeping only, the same for every loop: who is tried when, who won, what failed.  No socket is
opened and no clock is read here; a loop brings its timers and its own way to connect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from evamqp.abc import Adapter, Callback, Endpoint, Handle, Stream
from evamqp.errors import ConnectFailed

if TYPE_CHECKING:
    from evamqp.adapters._tls import TlsFilter

#: Seconds that one attempt runs alone before the next address is tried beside it
#: (RFC 8305, section 5: "Connection Attempt Delay", recommended value).
STAGGER = 0.25

C = TypeVar("C")

CallLater = Callable[[float, Callback], Handle]
Failures = list[tuple[str, BaseException]]


class Address(NamedTuple):
    """One place to connect to, as ``socket.getaddrinfo`` tells it."""

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

        The handle's ``cancel()`` closes what was opened.  A ``connected`` that comes after it is
        answered with discard(), so a loop that cannot call off its connect need not try hard.

        Raises:
            Exception: The attempt failed at once; neither function is called.
        """

    def discard(self, connection: C) -> None:
        """Close a connection that nobody wants."""

    def adopt(self, connection: C, stream: Stream) -> None:
        """Give the connection to ``stream``: calls ``connection_made`` before it returns.

        It is called from within ``connected``, and so from the loop.
        """


def place(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 literal."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """The resolver's order, with families alternating and duplicates dropped (RFC 8305, 4)."""
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


def resolve(host: str, port: int) -> list[Address]:
    """Every TCP address of ``host``.  Blocks unless ``host`` is an IP literal.

    Raises:
        OSError: The resolver failed or knows no such name.
        ValueError: ``host`` cannot be a DNS name (UnicodeError).
    """
    import socket

    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = (socket.AF_INET, socket.AF_INET6)
    # The third shape of a socket address belongs to families that are not in the tuple above.
    return [Address(entry[0], entry[4]) for entry in found if entry[0] in families]  # type: ignore[arg-type]


def is_literal(host: str) -> bool:
    """Is ``host`` an IP address, which no resolver need be asked for?"""
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class HappyEyeballs(Generic[C]):
    """Try addresses one after the other, STAGGER apart; the first to connect wins.

    An attempt that fails starts the next at once.  An address is in ``_waiting``, then in
    ``_trying``, then in ``failures`` unless it won or the race was called off.

    Args:
        addresses: In the order in which they are tried; see interleave().
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
        #: What failed so far, in order: ``("host:port", error)``.
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

    def call_off(self, error: BaseException | None) -> None:
        """Close every attempt under way; ``error``, if any, is written down as its failure."""
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
        except Exception as error:  # a failure known at once is a failure like others
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
        """An attempt has a connection: it wins, unless the race is over."""
        if attempt not in self._trying:
            self._connector.discard(connection)
            return
        del self._trying[attempt]
        attempt.stop_timer()
        attempt.handle = None  # it knows the attempt: no reference cycle may be left
        self.call_off(None)
        self._won(connection, attempt.address)

    def attempt_failed(self, attempt: _Attempt[C], error: BaseException) -> None:
        """An attempt ended without a connection: write down why, and try the next."""
        if attempt not in self._trying:
            return
        del self._trying[attempt]
        attempt.stop_timer()
        attempt.handle = None  # it knows the attempt: no reference cycle may be left
        self.failures.append((str(attempt.address), error))
        self.start()

    def attempt_timed_out(self, attempt: _Attempt[C]) -> None:
        """An attempt took too long: close it, then treat it as failed."""
        attempt.close()
        text = f"no answer within {self._address_timeout:g} s"
        self.attempt_failed(attempt, TimeoutError(text))


class _Attempt(Generic[C]):
    """One row of the race."""

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


# The stages of a Dial.  Only _TLS has a transport; only _DONE has told, or will tell, the stream.
_DNS, _TCP, _TLS, _DONE = range(4)


class Dial(Generic[C]):
    """One ``connect()``: the name, the race and TLS under one deadline.

    It is the handle that ``connect()`` returns.  The stream gets ``connection_made``, or exactly
    one ``connection_lost``: with ``errors.ConnectFailed``, whose ``attempts`` list every address
    that was tried, or with ``ConnectionAbortedError`` after cancel().  Neither comes from inside
    the constructor or from inside cancel().

    Args:
        adapter: Lends its timers and its door for threads.
        connector: Opens the TCP connections.
        endpoint: Where to, and how long it may take.
        stream: Who gets the connection.
    """

    __slots__ = (
        "_adapter",
        "_address",
        "_cancelled",
        "_connector",
        "_deadline",
        "_endpoint",
        "_filter",
        "_race",
        "_stage",
        "_stream",
        "_target",
    )

    def __init__(
        self, adapter: Adapter, connector: Connector[C], endpoint: Endpoint, stream: Stream
    ) -> None:
        self._adapter = adapter
        self._connector = connector
        self._endpoint = endpoint
        self._stream = stream
        self._target = place(endpoint.host, endpoint.port)
        self._stage = _DNS
        self._race: HappyEyeballs[C] | None = None
        self._filter: TlsFilter | None = None
        self._address = self._target
        self._cancelled = False
        self._deadline = adapter.call_later(endpoint.timeout, self._expire)
        adapter.call_soon(self._resolve)

    def cancel(self) -> None:
        """Call the connect off; the stream hears of it on the next turn.  Idempotent."""
        if self._stage == _DONE or self._cancelled:
            return
        self._cancelled = True
        if self._filter is not None:
            self._filter.fail(self._cancellation())
        else:
            self._call_off_race(None)
            self._finish()
            self._adapter.call_soon(lambda: self._stream.connection_lost(self._cancellation()))

    def _cancellation(self) -> ConnectionAbortedError:
        return ConnectionAbortedError(f"connecting to {self._target} was cancelled")

    # The name.

    def _resolve(self) -> None:
        if self._stage != _DNS:
            return
        if is_literal(self._endpoint.host):
            self._resolve_name(self._resolved)
        else:
            self._resolve_in_thread()

    def _resolve_name(self, told: Callable[[list[Address] | Exception], object]) -> None:
        outcome: list[Address] | Exception
        try:
            outcome = resolve(self._endpoint.host, self._endpoint.port)
        except Exception as error:  # UnicodeError, OverflowError and OSError alike
            outcome = error
        told(outcome)

    def _resolve_in_thread(self) -> None:
        # getaddrinfo blocks and cannot be called off.  A daemon thread of our own never holds up
        # the end of the process, as the loops' pools of threads do.
        from threading import Thread

        name = f"evamqp resolving {self._endpoint.host}"
        try:
            Thread(target=self._resolve_name, args=(self._report,), name=name, daemon=True).start()
        except RuntimeError as error:  # the process is out of threads
            self._resolved(error)

    def _report(self, outcome: list[Address] | Exception) -> None:
        try:
            self._adapter.call_soon_threadsafe(lambda: self._resolved(outcome))
        except RuntimeError:
            # The loop was closed while the resolver was busy: there is nobody left to tell.
            return

    def _resolved(self, outcome: list[Address] | Exception) -> None:
        if self._stage != _DNS:
            return
        if isinstance(outcome, Exception):
            self._fail([(self._target, outcome)])
        elif not outcome:
            self._fail([(self._target, OSError("the name has no TCP address"))])
        else:
            self._run_race(interleave(outcome))

    # The race.

    def _run_race(self, addresses: Sequence[Address]) -> None:
        self._stage = _TCP
        self._race = HappyEyeballs(
            addresses,
            self._connector,
            self._adapter.call_later,
            self._endpoint.address_timeout,
            self._win,
            self._lose,
        )
        self._race.start()

    def _win(self, connection: C, address: Address) -> None:
        self._address = str(address)
        if self._endpoint.tls is None:
            self._finish()
            self._connector.adopt(connection, self._stream)
        else:
            self._secure(connection)

    def _lose(self) -> None:
        self._fail([])

    def _call_off_race(self, error: BaseException | None) -> None:
        if self._race is not None:
            self._race.call_off(error)

    # TLS.

    def _secure(self, connection: C) -> None:
        from evamqp.adapters._tls import TlsFilter

        context = self._endpoint.tls
        assert context is not None
        name = self._endpoint.server_hostname or self._endpoint.host
        try:
            self._filter = TlsFilter(context, name, self._stream, self._shook_hands)
        except Exception as error:  # a name that TLS refuses is a ValueError
            self._connector.discard(connection)
            self._fail([(self._address, error)])
            return
        self._stage = _TLS
        self._connector.adopt(connection, self._filter)

    def _shook_hands(self, error: BaseException | None) -> None:
        if error is None:
            self._finish()
        elif self._cancelled:
            self._finish()
            self._stream.connection_lost(error)
        else:
            self._fail([(self._address, error)])

    # The end.

    def _expire(self) -> None:
        late = f"within {self._endpoint.timeout:g} s"
        if self._stage == _DNS:
            self._fail([(self._target, TimeoutError(f"no answer from the resolver {late}"))])
        elif self._stage == _TCP:
            self._call_off_race(TimeoutError(f"no answer {late}"))
            self._fail([])
        elif self._filter is not None:
            self._filter.fail(TimeoutError(f"the TLS handshake was not over {late}"))

    def _fail(self, failures: Failures) -> None:
        if self._race is not None:
            failures = self._race.failures + failures
        self._finish()
        self._stream.connection_lost(_connect_failed(self._target, failures))

    def _finish(self) -> None:
        self._stage = _DONE
        self._deadline.cancel()
        self._race = None
        self._filter = None


def _connect_failed(target: str, failures: Failures) -> ConnectFailed:
    causes = "; ".join(
        _explain(error) if where == target else f"{where}: {_explain(error)}"
        for where, error in failures
    )
    failure = ConnectFailed(f"cannot connect to {target}: {causes}", failures)
    failure.__cause__ = failures[-1][1]
    return failure


def _explain(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
