"""Writes what a Publisher accepts, and what became of it, to its Store, from a thread.

While one commit waits for the disk, all that comes meanwhile gathers for the next: a group commit.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Condition, Thread
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet, finalize, ref

from evamqp import checks
from evamqp.core.message import Returned
from evamqp.errors import BadType, StoreFailed
from evamqp.recovery.ledger import Outcome
from evamqp.recovery.store import StoredMessage, StoredOutcome

if TYPE_CHECKING:
    from evamqp.abc import Adapter
    from evamqp.errors import AmqpError
    from evamqp.recovery.ledger import StoredPublication
    from evamqp.recovery.store import Store

# Seconds that an outcome may wait for a message to be written with.  A process that is killed
# meanwhile publishes the message once more.
OUTCOME_DELAY = 0.1
# Seconds before a store that failed to take outcomes is tried again.
RETRY_DELAY = 1.0
# Seconds that the end of the program may wait for what was accepted last.
EXIT_PATIENCE = 5.0

# A publish, and its key or why it has none.
Written: TypeAlias = "tuple[StoredPublication, int | StoreFailed]"


class StoreWriter:
    """The thread between a Publisher and its Store.

    Args:
        store: Opened at once, in the calling thread.

    Attributes:
        adapter: The loop; unset before ``start``.
        left: What an earlier process left in the store, with its keys.

    Raises:
        BadType: It is no Store.
        StoreFailed: It cannot be opened.
    """

    __slots__ = (
        "__weakref__",
        "_on_closed",
        "_on_failed",
        "_on_written",
        "_queue",
        "_store",
        "adapter",
        "left",
    )

    def __init__(self, store: Store) -> None:
        if not checks.implements(store, "open", "commit", "close"):
            raise BadType(f"store must be a Store, not {store!r}")
        try:
            self.left: list[tuple[int, StoredMessage]] = list(store.open())
        except StoreFailed:
            raise
        except Exception as error:
            raise StoreFailed(f"the store cannot be opened: {error}") from error
        self._store = store
        self._on_written: Callable[[Sequence[Written]], object] = _ignore
        self._on_failed: Callable[[StoreFailed], object] = _ignore
        self._on_closed: Callable[[], object] = _ignore
        self._queue = _Queue()

    def abort(self) -> None:
        """Close the store again; nothing was started."""
        self._store.close()

    def start(
        self,
        adapter: Adapter,
        on_written: Callable[[Sequence[Written]], object],
        on_failed: Callable[[StoreFailed], object],
    ) -> None:
        """Start the thread.

        Args:
            adapter: The loop that the functions are called on.
            on_written: Called with each group of publishes that were held.
            on_failed: Called when outcomes could not be written; they are tried again.
        """
        self.adapter: Adapter = adapter
        self._on_written = on_written
        self._on_failed = on_failed
        queue = self._queue
        queue.thread = Thread(
            target=_write,
            args=(self._store, queue, _Caller(ref(self))),
            name="evamqp-store",
            daemon=True,
        )
        queue.thread.start()
        _living.add(queue)
        finalize(self, queue.end).atexit = False

    def add(self, entry: StoredPublication) -> None:
        """Write a publish."""
        self._queue.add(entry)

    def settle(self, entry: StoredPublication, outcome: Outcome) -> None:
        """Write an outcome, soon.  ABANDONED is none: the next start publishes it."""
        if entry.key is not None and outcome is not Outcome.ABANDONED:
            self._queue.settle(StoredOutcome(entry.key, outcome, _words(entry.detail)))

    def close(self, callback: Callable[[], object]) -> None:
        """Write all that waits, close the store, then call back on the loop."""
        self._on_closed = callback
        self._queue.end()

    # From the thread, on the loop

    def _written(self, group: Sequence[Written]) -> None:
        for entry, key in group:
            if isinstance(key, StoreFailed):
                entry.stored.fail(key)
            else:
                entry.keep(key)
                if entry.outcome is not None:  # it expired meanwhile
                    self.settle(entry, entry.outcome)
        self._on_written(group)

    def _failed(self, error: StoreFailed) -> None:
        self._on_failed(error)

    def _closed(self) -> None:
        callback = self._on_closed
        self._on_written = self._on_failed = self._on_closed = _ignore
        callback()


class _Queue:
    """What waits for the thread."""

    __slots__ = ("__weakref__", "_condition", "added", "ended", "is_ending", "thread")

    def __init__(self) -> None:
        self._condition = Condition()
        self.added: list[StoredPublication] = []
        self.ended: list[StoredOutcome] = []
        self.is_ending = False
        self.thread: Thread | None = None

    def add(self, entry: StoredPublication) -> None:
        with self._condition:
            self.added.append(entry)
            if len(self.added) == 1:
                self._condition.notify()

    def settle(self, outcome: StoredOutcome) -> None:
        with self._condition:
            self.ended.append(outcome)
            if len(self.ended) == 1:
                self._condition.notify()

    def put_back(self, ended: list[StoredOutcome]) -> None:
        with self._condition:
            self.ended[:0] = ended

    def end(self) -> None:
        with self._condition:
            self.is_ending = True
            self._condition.notify()

    def take(self, delay: float) -> tuple[list[StoredPublication], list[StoredOutcome], bool]:
        """Wait for publishes, or seconds for no more than outcomes; also whether it is the end."""
        with self._condition:
            while not (self.added or self.is_ending):
                if not self._condition.wait(delay if self.ended else None) and self.ended:
                    break
            added, self.added = self.added, []
            ended, self.ended = self.ended, []
            return added, ended, self.is_ending


class _Caller:
    """Calls a StoreWriter on its loop, unless one of them is gone.

    The thread has no other reference to either, or the publisher could not be collected.
    """

    __slots__ = ("_writer",)

    def __init__(self, writer: ref[StoreWriter]) -> None:
        self._writer = writer

    def call(self, method: Callable[..., object], *arguments: object) -> None:
        writer = self._writer()
        if writer is not None:
            with suppress(RuntimeError):  # the loop is closed
                writer.adapter.call_soon_threadsafe(partial(self._call, method, *arguments))

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        writer = self._writer()
        if writer is not None:
            method(writer, *arguments)


def _write(store: Store, queue: _Queue, caller: _Caller) -> None:
    """The thread: write until the end, then close the store."""
    delay: float | None = OUTCOME_DELAY
    while delay is not None:
        delay = _write_group(store, queue, caller, delay)
    try:
        store.close()
    except Exception as error:
        caller.call(StoreWriter._failed, _failure(error))
    caller.call(StoreWriter._closed)


def _write_group(store: Store, queue: _Queue, caller: _Caller, delay: float) -> float | None:
    """Write what has gathered; return the next delay for outcomes, None at the end.

    While it waits, the thread must not refer to a publish: it would keep the loop alive.
    """
    added, ended, is_ending = queue.take(delay)
    written, failure = _commit(store, added, ended)
    if failure is not None:
        queue.put_back(ended)
        caller.call(StoreWriter._failed, failure)
    if written:
        caller.call(StoreWriter._written, written)
    if is_ending:
        return None
    return OUTCOME_DELAY if failure is None else RETRY_DELAY


def _commit(
    store: Store, added: list[StoredPublication], ended: list[StoredOutcome]
) -> tuple[list[Written], StoreFailed | None]:
    """Commit a group; if that fails, each alone, so that one message does not fail the others."""
    try:
        return list(zip(added, _keys(store, added, ended), strict=True)), None
    except Exception as error:
        failure = _failure(error)
    if len(added) == 1 and not ended:
        return [(added[0], failure)], None
    written: list[Written] = []
    for entry in added:
        alone, _ = _commit(store, [entry], [])
        written += alone
    if added and ended:
        _, failed = _commit(store, [], ended)
        return written, failed
    return written, failure if ended else None


def _keys(
    store: Store, added: list[StoredPublication], ended: list[StoredOutcome]
) -> Sequence[int]:
    if not (added or ended):
        return ()
    keys = store.commit([_message(entry) for entry in added], ended)
    if len(keys) != len(added):
        raise StoreFailed(f"commit() returned {len(keys)} keys for {len(added)} messages")
    return keys


def _message(entry: StoredPublication) -> StoredMessage:
    return StoredMessage(
        entry.exchange,
        entry.routing_key,
        entry.body,
        entry.properties.raw,
        entry.mandatory,
        entry.expires,
    )


def _failure(error: Exception) -> StoreFailed:
    if isinstance(error, StoreFailed):
        return error
    failure = StoreFailed(f"the store failed: {error}")
    failure.__cause__ = error
    return failure


def _words(detail: Returned | AmqpError | None) -> str:
    if detail is None:
        return ""
    return str(detail.as_error() if isinstance(detail, Returned) else detail)


def _ignore(*arguments: object) -> None:
    """The callback before start() and after the end."""


# Of threads that run.
_living: WeakSet[_Queue] = WeakSet()


def _flush() -> None:
    """The program ends: what it accepted last is written."""
    queues = list(_living)
    for queue in queues:
        queue.end()
    for queue in queues:
        if queue.thread is not None:
            queue.thread.join(EXIT_PATIENCE)


atexit.register(_flush)
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_living.clear)
