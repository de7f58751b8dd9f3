"""One core, one transport, one timer: the only module that knows both sides.

It moves bytes and time.  It never looks inside bytes, and holds no protocol state.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING, Protocol, TypeVar

from evamqp import checks
from evamqp.abc import Adapter, Handle, Promise, Transport
from evamqp.core.connection import Connection
from evamqp.core.output import FLUSH_AT, TAKE_AT_MOST, size_of
from evamqp.core.state import TransportAction
from evamqp.core.thread_bound import runs_elsewhere
from evamqp.core.unclosed import watch_loop
from evamqp.errors import AmqpError, BadType, ConnectFailed, WrongState, WrongThread

if TYPE_CHECKING:
    from evamqp.core.handler import Handler
    from evamqp.parameters import Parameters

# Bytes handed to the transport within one turn of the loop.  What is more stays in the core,
# which has the water marks; a transport may report that it is full only a turn later.
TURN_BUDGET = 512 * 1024
# Looked at after every read; a member of an enum takes six times as long to find.
_KEEP = TransportAction.KEEP


class Core(Protocol):
    """What a driver drives: the client's Connection, or a broker's side of one."""

    @property
    def transport_action(self) -> TransportAction: ...
    @property
    def reading(self) -> bool: ...
    @property
    def output_size(self) -> int: ...
    def connection_made(self, parameters: Parameters) -> None: ...
    def receive_data(self, data: bytes) -> None: ...
    def set_writable(self, writable: bool) -> None: ...
    def stalled(self, seconds: float, in_callback: bool) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def pieces_to_send(self) -> list[bytes | memoryview]: ...
    def next_deadline(self) -> float | None: ...
    def handle_timer(self) -> None: ...


T = TypeVar("T")


class Driver:
    """The Stream of one transport, and the Runtime of one core, which ``drive()`` is given.

    Args:
        adapter: The loop.
    """

    __slots__ = (
        "_attempt",
        "_budget",
        "_core",
        "_failures",
        "_flush",
        "_held",
        "_held_loss",
        "_inside",
        "_late",
        "_paused",
        "_reading",
        "_stall_after",
        "_stalled_until",
        "_target",
        "_targets",
        "_timer",
        "_timer_at",
        "_timer_due",
        "_transport",
        "_writing",
        "adapter",
        "time",
    )

    def __init__(self, adapter: Adapter) -> None:
        self.adapter: Adapter = adapter
        self.time: Callable[[], float] = adapter.time
        self._transport: Transport | None = None
        self._attempt: Handle | None = None
        self._targets: list[Parameters] = []
        self._target: Parameters | None = None
        self._failures: list[tuple[str, BaseException]] = []
        self._flush: Handle | None = None
        self._timer: Handle | None = None
        self._timer_at = self._timer_due = 0.0
        self._stall_after = inf
        self._stalled_until = 0.0  # the end of the last stall
        self._inside = False
        # What comes while the core calls back, and that callback runs a loop.
        self._held: list[bytes] = []
        self._held_loss: tuple[BaseException | None] | None = None
        self._paused = False
        self._reading = True
        self._budget = TURN_BUDGET  # bytes that this turn may still write
        self._writing = False  # bytes were taken from the core, and the transport has none of them
        self._core: Core | None = None
        self._late: weakref.ref[Core] | None = None

    def drive(self, core: Core) -> None:
        """Drive this core from now on, until its end."""
        self._core = core

    # Connecting

    def dial(self, targets: Iterable[Parameters]) -> None:
        """Try the targets in order, until one accepts the connection (and TLS, if it has it)."""
        self._targets.extend(targets)
        # From the loop, so that no callback runs inside this call when a target fails at once.
        self._flush = self.adapter.call_soon(self._dial_next)

    def _dial_next(self) -> None:
        self._flush = self._attempt = None
        core = self._core
        if core is None:
            return
        while self._targets and core.transport_action is TransportAction.KEEP:
            self._target = self._targets.pop(0)
            try:
                self._attempt = self.adapter.connect(self._target.endpoint(), self)
                return
            except AmqpError as error:
                self._failures.append((self._target.address, error))
        self._lost(_connect_failed(self._failures))

    # Stream: called by the adapter

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._attempt = None
        assert self._target is not None
        if self._target.stall_warning is not None:
            self._stall_after = self._target.stall_warning
        core = self._core
        assert core is not None
        self.perform(core.connection_made, self._target)

    def data_received(self, data: bytes) -> None:
        core = self._core
        if core is not None:
            if self._inside:
                self._hold(data)
                return
            self._inside = True
            began = self.time()
            try:
                core.receive_data(data)
            finally:
                self._inside = False
                if self.time() - began > self._stall_after:
                    self._stalled(core, began, True)
                self._settle()

    def _stalled(self, core: Core, since: float, in_callback: bool) -> None:
        """Report that the loop stood still since then, unless that is known."""
        now = self.time()
        seconds = now - max(since, self._stalled_until)
        if seconds > self._stall_after:
            self._stalled_until = now
            core.stalled(seconds, in_callback)

    def _hold(self, data: bytes) -> None:
        """Keep what a nested loop has read: the core is in the middle of what came before."""
        self._held.append(data)
        if self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _feed_held(self) -> None:
        if self._inside or self._core is None:
            return
        data = b"".join(self._held)
        self._held.clear()
        if data:
            self.data_received(data)
        if self._held_loss is not None and not self._held:
            (exc,) = self._held_loss
            self._held_loss = None
            self.connection_lost(exc)

    def pause_writing(self) -> None:
        self._paused = True
        if self._core is not None:
            self._core.set_writable(False)
            self.output_ready()

    def resume_writing(self) -> None:
        self._paused = False
        if self._core is not None:
            self.perform(self._core.set_writable, True)

    def connection_lost(self, exc: BaseException | None) -> None:
        core = self._core
        if core is None:
            return
        if self._inside:
            self._held_loss = (exc,)
            return
        if self._timer is not None:
            self._stalled(core, self._timer_due, False)
        if isinstance(exc, OSError):
            # The end's cause from now on; the frames of a failed write would keep us alive by it.
            exc = exc.with_traceback(None)
        if self._transport is None and core.transport_action is TransportAction.KEEP:
            assert self._target is not None
            self._failures.append((self._target.address, exc or ConnectionError("hung up")))
            self._dial_next()
        else:
            self._lost(exc)

    def _lost(self, exc: BaseException | None) -> None:
        self._transport = self._attempt = None
        core = self._core
        assert core is not None
        try:
            self.perform(core.connection_lost, exc)
        finally:
            self._release()

    def _release(self) -> None:
        """Let go of a core that has reported its end; until then its timer goes on."""
        core = self._core
        if core is not None and self._transport is None and core.next_deadline() is None:
            self._core = None
            # Futures that are asked for after the end still have to be served; but a core holds
            # its driver, so from here the driver must not hold the core.
            self._late = weakref.ref(core)
            for handle in (self._timer, self._flush):
                if handle is not None:
                    handle.cancel()
            self._timer = self._flush = None

    # Runtime: called by the core

    def create_future(self) -> Promise:
        return self.adapter.create_future()

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self.adapter.call_soon_threadsafe(lambda: self.perform(callback))

    def output_ready(self, waiting: int = 0) -> None:
        """Write at the end of this turn; at once where much waits already."""
        core = self._core
        if core is None:
            late = None if self._late is None else self._late()
            if late is not None:
                self.adapter.call_soon(late.handle_timer)
            return
        if waiting >= FLUSH_AT and self._budget > 0 and not self._writing:
            self._write(core)
        if not self._inside and self._flush is None:
            self._flush = self.adapter.call_soon(self._on_turn)

    def perform(self, action: Callable[..., T], *arguments: object) -> T:
        """Run something of the core, then move what it left to be moved."""
        was_inside, self._inside = self._inside, True
        try:
            return action(*arguments)
        finally:
            self._inside = was_inside
            self._settle()

    def flush_next_turn(self) -> None:
        """Write in the next turn of the loop, behind what is scheduled for it by now."""
        if self._flush is None:
            self._flush = self.adapter.call_soon(self._on_turn)

    # Moving

    def _on_turn(self) -> None:
        self._flush = None
        self._settle()
        self._release_if_ended()

    def _settle(self) -> None:
        """Write what waits, arm the timer, pause or close the transport: what the core wants."""
        core = self._core
        if core is None:
            return
        self._budget = TURN_BUDGET
        if self._held or self._held_loss is not None:
            self.adapter.call_soon(self._feed_held)
        transport = self._transport
        if transport is not None:
            while self._write(core) and core.output_size:
                if self._budget <= 0:
                    self.flush_next_turn()
                    break
            if core.reading is not self._reading and not self._held:
                self._reading = core.reading
                (transport.resume_reading if core.reading else transport.pause_reading)()
            if core.transport_action is not _KEEP:
                if core.transport_action is TransportAction.ABORT:
                    transport.abort()
                elif not core.output_size:
                    transport.close()
        elif self._attempt is not None and core.transport_action is not _KEEP:
            self._attempt.cancel()
        deadline = core.next_deadline()
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            self._arm(deadline)

    def _write(self, core: Core) -> bool:
        """Give the transport what it may have now; whether more may wait behind that."""
        transport = self._transport
        if self._paused or transport is None:
            return False
        # Taking may lift backpressure, and the core then asks for a write: newer bytes must
        # not overtake those that were taken.
        self._writing = True
        try:
            pieces = core.pieces_to_send()
        finally:
            self._writing = False
        if not pieces:
            return False
        if len(pieces) > 1 and (writelines := getattr(transport, "writelines", None)):
            size = size_of(pieces)
            writelines(pieces)
        else:
            data = b"".join(pieces)
            size = len(data)
            transport.write(data)
        self._budget -= size
        return size >= TAKE_AT_MOST

    def _arm(self, at: float) -> None:
        """Have the timer fire at ``at``.  It is moved only to an earlier time."""
        if self._timer is not None:
            self._timer.cancel()
        now = self.time()
        self._timer_at = at
        self._timer_due = max(at, now)  # what is deferred has a deadline long past
        self._timer = self.adapter.call_later(max(0.0, at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        core = self._core
        if core is None:
            return
        deadline = core.next_deadline()
        self._stalled(core, self._timer_due, False)
        if deadline is not None and deadline <= self.time():
            self.perform(core.handle_timer)
        else:
            self._settle()
        self._release_if_ended()

    def _release_if_ended(self) -> None:
        if self._transport is None and self._attempt is None and not self._targets:
            self._release()


def _connect_failed(failures: list[tuple[str, BaseException]]) -> ConnectFailed:
    """One error for all targets; what an adapter reports of a target's addresses is kept."""
    causes = []
    attempts: list[tuple[str, BaseException]] = []
    for target, error in failures:
        if isinstance(error, ConnectFailed):
            causes.append(_with_hint(error.text))
            attempts += error.attempts
        else:
            causes.append(f"{target}: {error or type(error).__name__}")
            attempts.append((target, error))
    failed = ConnectFailed("; ".join(causes) or "there was no target", attempts)
    if failures:
        failed.__cause__ = failures[-1][1]
    return failed


def _with_hint(text: str) -> str:
    # OpenSSL's words for a peer that answers the TLS handshake in another protocol.
    if "WRONG_VERSION_NUMBER" in text:
        text += "; the port does not speak TLS: use amqp://, or the TLS port, usually 5671"
    if "CERTIFICATE_VERIFY_FAILED" in text and "Hostname" not in text and "IP address" not in text:
        text += "; if the authority is your own, give its file as cacertfile="
    return text


def start(targets: Iterable[Parameters], handler: Handler, adapter: Adapter) -> Connection:
    """Dial a connection, and report what becomes of it to ``handler``."""
    if runs_elsewhere(adapter):
        raise WrongThread("connect: the loop runs in another thread; use call_soon_threadsafe")
    watch_loop(adapter)
    driver = Driver(adapter)
    connection = Connection(handler, driver)
    driver.drive(connection)
    driver.dial(targets)
    return connection


def chosen_adapter(adapter: Adapter | None) -> Adapter:
    """The adapter given; for None that of the asyncio loop that is running.

    Raises:
        BadType: It is none, but a class or something else.
        WrongState: No loop is running.
    """
    if adapter is None:
        return _running_adapter()
    if not checks.implements(adapter, "connect"):
        raise BadType(f"adapter must be one, such as SelectAdapter(), not {adapter!r:.80}")
    return adapter


def _running_adapter() -> Adapter:
    # No loop runs of a package that was never imported; so the error costs no import either.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        raise WrongState(
            "no asyncio loop is running: give adapter=SelectAdapter(), AsyncioAdapter(),"
            " TornadoAdapter() or TwistedAdapter()"
        )
    from evamqp.adapters.asyncio import AsyncioAdapter

    return AsyncioAdapter()
