"""From a host name to one connected stream: resolver, race and TLS under one deadline.

The same for every loop; a loop brings its timers and its own way to connect.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic

from evamqp.abc import Adapter, Endpoint, Stream
from evamqp.adapters._happy_eyeballs import (
    Address,
    C,
    Connector,
    Failures,
    HappyEyeballs,
    interleave,
    place,
)
from evamqp.errors import ConnectFailed

if TYPE_CHECKING:
    from evamqp.adapters._tls import TlsFilter


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


# The stages of a Dial.  Only _TLS has a transport; the stream is called in _DONE only.
_DNS, _TCP, _TLS, _DONE = range(4)


class Dial(Generic[C]):
    """One ``connect()``: the name, the race and TLS under one deadline.

    It is the handle that ``connect()`` returns.  The stream gets ``connection_made`` or exactly one
    ``connection_lost``: with ``errors.ConnectFailed``, whose ``attempts`` list every address tried,
    or with ``ConnectionAbortedError`` after cancel().  Neither comes from inside the constructor
    or cancel().

    Args:
        adapter: Supplies timers and the thread-safe entry.
        connector: Opens the TCP connections.
        endpoint: Where to connect, and how long that may take.
        stream: Gets the connection.
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
        """Cancel; ``connection_lost`` comes on the next turn.  Idempotent."""
        if self._stage == _DONE or self._cancelled:
            return
        self._cancelled = True
        if self._filter is not None:
            self._filter.fail(self._cancellation())
        else:
            self._cancel_race(None)
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

    def _resolve_name(self, report: Callable[[list[Address] | Exception], object]) -> None:
        outcome: list[Address] | Exception
        try:
            outcome = resolve(self._endpoint.host, self._endpoint.port)
        except Exception as error:  # UnicodeError, OverflowError and OSError alike
            outcome = error
        report(outcome)

    def _resolve_in_thread(self) -> None:
        # getaddrinfo blocks and cannot be cancelled.  A daemon thread never delays the end of the
        # process; the loops' thread pools do.
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
            # The loop was closed while the resolver was busy.
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

    def _cancel_race(self, error: BaseException | None) -> None:
        if self._race is not None:
            self._race.cancel(error)

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
            self._cancel_race(TimeoutError(f"no answer {late}"))
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
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio has words of its own
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
