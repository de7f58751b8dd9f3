"""A store for Publisher: one SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import time
from typing import NamedTuple

from evamqp.checks import integer
from evamqp.codec.properties import Properties
from evamqp.errors import BadArgument, BadType, StoreFailed, StoreLocked
from evamqp.recovery.ledger import Outcome
from evamqp.recovery.store import StoredMessage, StoredOutcome

# "evmq": says whose file it is.
APPLICATION_ID = 0x65766D71
VERSION = 1
# Seconds that a commit waits for another process that changes the dead messages.
BUSY_TIMEOUT = 5.0
# Bytes of the write-ahead log that stay on disk when it is empty.
WAL_KEPT = 16 * 1024 * 1024
SCHEMA = """
    CREATE TABLE message (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        exchange TEXT NOT NULL,
        routing_key TEXT NOT NULL,
        body BLOB NOT NULL,
        properties BLOB NOT NULL,
        mandatory INTEGER NOT NULL,
        expires REAL,
        outcome TEXT,
        detail TEXT,
        ended REAL
    );
    CREATE INDEX dead ON message (key) WHERE outcome IS NOT NULL;
"""
INSERT = """
    INSERT INTO message (key, exchange, routing_key, body, properties, mandatory, expires)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
LEFT = """
    SELECT key, exchange, routing_key, body, properties, mandatory, expires
    FROM message WHERE outcome IS NULL ORDER BY key
"""
DEAD = """
    SELECT key, exchange, routing_key, body, properties, mandatory, outcome, detail, ended
    FROM message WHERE outcome IS NOT NULL ORDER BY key LIMIT ?
"""
TRIM = """
    DELETE FROM message WHERE key IN (
        SELECT key FROM message WHERE outcome IS NOT NULL ORDER BY key DESC LIMIT -1 OFFSET ?
    )
"""

_count = integer(0, 2**63 - 1)


class DeadMessage(NamedTuple):
    """A message in a SqliteStore that the broker did not take, and that is not sent again.

    Attributes:
        key: Identifies it in its store.
        exchange: As published.
        routing_key: As published.
        body: As published.
        properties: As sent.
        mandatory: As published.
        outcome: NACKED, RETURNED, EXPIRED or REFUSED.
        detail: Why, in words.
        ended: When it got its outcome, in seconds of Unix time.
    """

    key: int
    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    mandatory: bool
    outcome: Outcome
    detail: str
    ended: float


class SqliteStore:
    """Keeps the messages of one Publisher in an SQLite file: what is stored survives a crash.

    Each commit is on disk before it counts (write-ahead log, ``synchronous=FULL``).  A second file,
    ``PATH-owner``, is locked while a Publisher has the store open; the lock ends with its process.
    Keep both on a local disk: network file systems do not lock reliably.

    Messages that end in any outcome but CONFIRMED and ABANDONED are kept as dead: see ``dead``.
    Programs of their own may call ``dead``, ``requeue`` and ``discard`` while a Publisher runs.

    Args:
        path: Of the file; it is made, readable by its owner only, if it does not exist.
        max_dead: Dead messages that it keeps; older ones are deleted.

    Raises:
        BadArgument, BadType: The path or the limit is none.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_dead: int = 10_000) -> None:
        if not isinstance(path, str | os.PathLike):
            raise BadType(f"path must be a str or PathLike, not {type(path).__name__}")
        if not os.fspath(path) or os.fspath(path) == ":memory:":
            raise BadArgument("path must name a file: what is in memory survives nothing")
        self.path: Path = Path(path)
        self._max_dead = _count("max_dead", max_dead)
        self._connection: sqlite3.Connection | None = None
        self._owner: sqlite3.Connection | None = None
        self._last_key = 0

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    # For the Publisher: the methods of Store

    def open(self) -> Iterable[tuple[int, StoredMessage]]:
        """Open it for one Publisher, which calls this itself.

        Raises:
            StoreLocked: A Publisher has it open.
            StoreFailed: It cannot be opened: no such directory, not writable, not an SQLite file of
                this kind, damaged.
        """
        with self._explained("cannot be opened"), ExitStack() as opened:
            owner = self._lock()
            opened.callback(owner.close)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = self._connect()
            opened.callback(connection.close)
            left = self._prepare(connection)
            opened.pop_all()
        self._owner, self._connection = owner, connection
        return left

    def commit(
        self, added: Sequence[StoredMessage], ended: Sequence[StoredOutcome]
    ) -> Sequence[int]:
        """Store messages and outcomes; the Publisher calls this itself.

        Raises:
            StoreFailed: It is not open, or cannot be written: the disk is full, for instance.
                Nothing changed.
        """
        connection = self._connection
        if connection is None:
            raise StoreFailed(f"{self.path} is not open")
        keys = range(self._last_key + 1, self._last_key + 1 + len(added))
        now = time()
        forgotten = [(key,) for key, outcome, _ in ended if outcome is Outcome.CONFIRMED]
        dead = [
            (outcome.value, detail, now, key)
            for key, outcome, detail in ended
            if outcome is not Outcome.CONFIRMED
        ]
        with self._explained("cannot be written"), _transaction(connection):
            connection.executemany(
                INSERT, ((key, *message) for key, message in zip(keys, added, strict=True))
            )
            connection.executemany("DELETE FROM message WHERE key = ?", forgotten)
            if dead:
                connection.executemany(
                    "UPDATE message SET outcome = ?, detail = ?, ended = ? WHERE key = ?", dead
                )
                connection.execute(TRIM, (self._max_dead,))
        self._last_key += len(added)
        return keys

    def close(self) -> None:
        """Close it; the Publisher calls this itself.  Idempotent."""
        connection, self._connection = self._connection, None
        owner, self._owner = self._owner, None
        with self._explained("cannot be closed"):
            if connection is not None:
                connection.close()
            if owner is not None:
                owner.close()

    # For everyone

    def dead(self, limit: int | None = None) -> list[DeadMessage]:
        """The dead messages, in publish order.

        Args:
            limit: How many at most; None means all.

        Raises:
            BadArgument, BadType: The limit is no number of messages.
            StoreFailed: It cannot be read.
        """
        most = -1 if limit is None else _count("limit", limit)
        with self._explained("cannot be read"), closing(self._connect()) as connection:
            rows = connection.execute(DEAD, (most,)).fetchall()
        return [
            DeadMessage._make(
                (*row[:4], Properties.from_raw(row[4]), bool(row[5]), Outcome(row[6]), *row[7:])
            )
            for row in rows
        ]

    def requeue(self, keys: Iterable[int] | None = None) -> int:
        """Have dead messages published again, when a Publisher opens the store next.

        They come in publish order, before what is published later; their timeout no longer holds.

        Args:
            keys: Of dead messages; None means all of them.

        Returns:
            How many there were.

        Raises:
            StoreFailed: It cannot be written.
        """
        return self._change(
            "UPDATE message SET outcome = NULL, detail = NULL, ended = NULL, expires = NULL", keys
        )

    def discard(self, keys: Iterable[int] | None = None) -> int:
        """Delete dead messages.

        Args:
            keys: Of dead messages; None means all of them.

        Returns:
            How many there were.

        Raises:
            StoreFailed: It cannot be written.
        """
        return self._change("DELETE FROM message", keys)

    # Within

    def _change(self, statement: str, keys: Iterable[int] | None) -> int:
        """Run a statement on the dead messages, or those with these keys; return their number."""
        statement += " WHERE outcome IS NOT NULL"
        with (
            self._explained("cannot be written"),
            closing(self._connect()) as connection,
            _transaction(connection),
        ):
            if keys is None:
                return connection.execute(statement).rowcount
            chosen = [(key,) for key in keys]
            return connection.executemany(f"{statement} AND key = ?", chosen).rowcount

    def _lock(self) -> sqlite3.Connection:
        """Lock the file beside, in SQLite's own way, which works on every platform."""
        owner = sqlite3.connect(
            f"{self.path}-owner", timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            owner.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            owner.close()
            if "locked" in str(error):
                raise StoreLocked(f"another Publisher has {self.path} open") from error
            raise
        return owner

    def _connect(self) -> sqlite3.Connection:
        """A connection to the file, which must exist."""
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._check_kind(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        """Fill an empty file; refuse another program's."""
        application_id, version, tables = (
            connection.execute(question).fetchone()[0]
            for question in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if not tables and not application_id:
            connection.execute("PRAGMA journal_mode = WAL")
            with _transaction(connection):
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
        elif application_id != APPLICATION_ID:
            raise StoreFailed(f"{self.path} is another program's database")
        elif version != VERSION:
            raise StoreFailed(f"{self.path} has version {version}; this release knows {VERSION}")

    def _prepare(self, connection: sqlite3.Connection) -> list[tuple[int, StoredMessage]]:
        """Read what is left, and the last key."""
        row = connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'message'"
        ).fetchone()
        self._last_key = 0 if row is None else row[0]
        rows = connection.execute(LEFT)
        return [
            (key, StoredMessage(exchange, routing_key, body, properties, bool(mandatory), expires))
            for key, exchange, routing_key, body, properties, mandatory, expires in rows
        ]

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Name the file in what SQLite raises."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"{self.path} {what}: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
