"""A Publisher with a store: what is accepted is on disk, whatever becomes of the process."""

from __future__ import annotations

import gc
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import evamqp
from evamqp import Outcome, Properties, SqliteStore, StoredMessage, StoredOutcome
from evamqp.errors import (
    BadArgument,
    BadType,
    NotReady,
    OutputFull,
    StoreFailed,
    StoreLocked,
    WrongState,
)
from tests.recovery.stage import LONG, Stage, numbered
from tests.support.scripted_broker import Publish

PATIENCE = 10.0  # real seconds: the store's thread needs some


class Memory:
    """A Store of a program's own: a dict.

    Attributes:
        rows: Messages without an outcome, by key.
        ended: Outcomes, in order.
        commits: How many messages each commit had.
        gate: Commits wait for it.
        bad: Messages with these bodies fail, and so do outcomes if ``takes_outcomes`` is False.
    """

    def __init__(self, *left: bytes) -> None:
        self.rows = {
            key: StoredMessage("", "work", body, b"\0\0", True) for key, body in enumerate(left, 1)
        }
        self.ended: list[StoredOutcome] = []
        self.commits: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.bad: set[bytes] = set()
        self.takes_outcomes = True
        self.is_open = False

    def open(self) -> list[tuple[int, StoredMessage]]:
        self.is_open = True
        return list(self.rows.items())

    def commit(
        self, added: Sequence[StoredMessage], ended: Sequence[StoredOutcome]
    ) -> Sequence[int]:
        assert threading.current_thread() is not threading.main_thread()
        assert self.gate.wait(PATIENCE)
        for message in added:
            if message.body in self.bad:
                raise ValueError(f"{message.body!r} is bad")
        if ended and not self.takes_outcomes:
            raise OSError("no space left")
        first = max(self.rows, default=0) + 1
        keys = range(first, first + len(added))
        self.rows.update(zip(keys, added, strict=True))
        for outcome in ended:
            del self.rows[outcome.key]
        self.ended += ended
        self.commits.append(len(added))
        return keys

    def close(self) -> None:
        self.is_open = False

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.rows.values()]


def wait(stage: Stage, condition: Callable[[], object]) -> None:
    """Turn the loop until it is so; the store's thread runs beside it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        stage.turn()
        time.sleep(0.001)


def close(stage: Stage, publisher: evamqp.Publisher, timeout: float | None = None) -> list[bytes]:
    """Close it; the bodies that were abandoned."""
    request = publisher.close(timeout)
    if timeout is not None:
        stage.advance(timeout + 1)
    wait(stage, lambda: request.is_done)
    return [publication.body for publication in stage.adapter.run_until(request)]


@pytest.fixture
def confirming() -> Stage:
    """A memory loop with a broker that confirms everything."""
    stage = Stage()
    stage.server.on_publish = Publish.ack
    return stage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def abandoned(path: Path) -> Path:
    """A file in which a Publisher left 0, 1 and 2."""
    stage = Stage()
    publisher = stage.publisher(store=SqliteStore(path))
    stage.publish(publisher, numbered(3))
    assert close(stage, publisher, 1.0) == numbered(3)
    return path


# --- accepted means stored ------------------------------------------------------------------------


def test_nothing_is_sent_before_it_is_stored(confirming: Stage) -> None:
    store = Memory()
    publisher = confirming.publisher(store=store)
    confirming.turn()
    store.gate.clear()
    [publication] = confirming.publish(publisher, [b"0"])
    for _ in range(20):
        confirming.turn()
        time.sleep(0.001)
    assert confirming.server.bodies == []
    assert not publication.stored.is_done
    store.gate.set()
    wait(confirming, lambda: publication.outcome is Outcome.CONFIRMED)
    assert confirming.adapter.run_until(publication.stored) is None
    assert confirming.server.bodies == [b"0"]
    assert close(confirming, publisher) == []
    assert store.rows == {}
    assert store.ended == [StoredOutcome(1, Outcome.CONFIRMED, "")]
    assert not store.is_open


def test_what_comes_while_the_disk_is_slow_is_written_together_and_sent_in_order(
    confirming: Stage,
) -> None:
    store = Memory()
    publisher = confirming.publisher(store=store)
    store.gate.clear()
    confirming.publish(publisher, numbered(100))
    store.gate.set()
    wait(confirming, lambda: not publisher.pending)
    assert confirming.server.bodies == numbered(100)
    assert sum(store.commits) == 100
    assert len([size for size in store.commits if size]) <= 2
    close(confirming, publisher)


def test_the_next_publisher_sends_what_was_left_first_and_in_order(
    abandoned: Path, confirming: Stage
) -> None:
    store = SqliteStore(abandoned)
    publisher = confirming.publisher(store=store)
    assert publisher.pending == publisher.stats.accepted == 3
    confirming.publish(publisher, numbered(2, 3))
    wait(confirming, lambda: not publisher.pending)
    assert confirming.server.bodies == numbered(5)
    assert publisher.stats.confirmed == 5
    assert close(confirming, publisher) == []
    assert list(store.open()) == []
    store.close()


def test_everything_of_a_message_survives(path: Path, confirming: Stage) -> None:
    first = Stage()
    properties = Properties(message_id="é", headers={"a": [1, {"b": None}]}, priority=3)
    publisher = first.publisher(store=SqliteStore(path))
    publisher.publish("x", "ké", b"\0\xff", properties, mandatory=False)
    close(first, publisher, 0)
    again = confirming.publisher(store=SqliteStore(path))
    wait(confirming, lambda: not again.pending)
    [publish] = confirming.server.published
    assert (publish.exchange, publish.routing_key, publish.body) == ("x", "ké", b"\0\xff")
    assert not publish.mandatory
    assert publish.properties == properties.replace(delivery_mode=2).raw
    close(confirming, again)


def test_a_log_line_tells_what_was_left(
    abandoned: Path, confirming: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "evamqp"):
        close(confirming, confirming.publisher(store=SqliteStore(abandoned)))
    assert "publishes 3 messages that were left in its store" in caplog.text


def test_a_publisher_without_a_store_says_so(confirming: Stage) -> None:
    publisher = confirming.publisher()
    [publication] = confirming.publish(publisher, [b"0"])
    with pytest.raises(WrongState, match="no store"):
        _ = publication.stored
    close(confirming, publisher)


# --- bounds and ends ------------------------------------------------------------------------------


def test_what_was_left_counts_against_the_limits(abandoned: Path, confirming: Stage) -> None:
    publisher = confirming.publisher(store=SqliteStore(abandoned), max_messages=3)
    with pytest.raises(OutputFull):
        publisher.publish("", "work", b"3")
    wait(confirming, lambda: publisher.is_writable)
    publication = publisher.publish("", "work", b"3")
    wait(confirming, lambda: publication.is_done)
    close(confirming, publisher)


def test_a_close_that_gives_up_stores_what_it_accepted(path: Path) -> None:
    stage = Stage()
    publisher = stage.publisher(store=SqliteStore(path))
    publications = stage.publish(publisher, numbered(50))
    assert close(stage, publisher, 0) == numbered(50)
    assert {publication.outcome for publication in publications} == {Outcome.ABANDONED}
    assert all(publication.stored.is_done for publication in publications)
    store = SqliteStore(path)
    assert [message.body for _, message in store.open()] == numbered(50)
    store.close()


def test_a_close_waits_for_the_disk(confirming: Stage) -> None:
    store = Memory()
    publisher = confirming.publisher(store=store)
    store.gate.clear()
    confirming.publish(publisher, numbered(3))
    request = publisher.close(1)
    confirming.advance(LONG)
    assert not request.is_done
    store.gate.set()
    wait(confirming, lambda: request.is_done)
    assert store.bodies == numbered(3)


def test_what_expires_before_it_is_stored_is_not_published_by_the_next(confirming: Stage) -> None:
    store = Memory()
    publisher = confirming.publisher(store=store)
    store.gate.clear()
    [publication] = confirming.publish(publisher, [b"0"], timeout=1)
    confirming.advance(2)
    assert publication.outcome is Outcome.EXPIRED
    assert isinstance(publication.detail, NotReady)
    assert "store" in str(publication.detail)
    store.gate.set()
    wait(confirming, lambda: store.ended)
    assert store.ended[0].outcome is Outcome.EXPIRED
    assert confirming.server.bodies == []
    close(confirming, publisher)


def test_a_deadline_outlives_the_process(path: Path, confirming: Stage) -> None:
    first = Stage()
    publisher = first.publisher(store=SqliteStore(path))
    publisher.publish("", "work", b"short", timeout=0.01)
    publisher.publish("", "work", b"long", timeout=3600)
    close(first, publisher, 0)
    time.sleep(0.02)
    store = SqliteStore(path)
    again = confirming.publisher(store=store)
    confirming.advance(0.001)
    wait(confirming, lambda: not again.pending)
    assert confirming.server.bodies == [b"long"]
    close(confirming, again)
    [dead] = store.dead()
    assert (dead.body, dead.outcome) == (b"short", Outcome.EXPIRED)


def test_a_publisher_that_cannot_be_made_leaves_the_store_to_others(abandoned: Path) -> None:
    stage = Stage()
    with pytest.raises(BadArgument):
        stage.publisher("http://nowhere", store=SqliteStore(abandoned))
    store = SqliteStore(abandoned)
    assert len(list(store.open())) == 3
    store.close()


# --- dead messages --------------------------------------------------------------------------------


def give_back(publish: Publish) -> None:
    publish.give_back()
    publish.ack()


def refuse_1(publish: Publish) -> None:
    if publish.body == b"1":
        publish.refuse()
    else:
        publish.ack()


def bury(store: SqliteStore, count: int) -> None:
    """Have a Publisher publish 0, 1, ... which the broker returns."""
    stage = Stage()
    stage.server.on_publish = give_back
    publisher = stage.publisher(store=store)
    stage.publish(publisher, numbered(count))
    wait(stage, lambda: not publisher.pending)
    close(stage, publisher)


def test_a_returned_message_is_kept_with_its_reason_and_not_sent_again(
    path: Path, confirming: Stage
) -> None:
    store = SqliteStore(path)
    before = time.time()
    bury(store, 1)
    [dead] = store.dead()
    assert (dead.exchange, dead.routing_key, dead.body) == ("", "work", b"0")
    assert dead.outcome is Outcome.RETURNED
    assert "312 NO_ROUTE" in dead.detail
    assert dead.properties.delivery_mode == 2
    assert dead.mandatory
    assert before <= dead.ended <= time.time()
    again = confirming.publisher(store=store)
    assert again.pending == 0
    close(confirming, again)


def test_dead_messages_are_published_again_in_order_once_they_are_queued_again(
    path: Path, confirming: Stage
) -> None:
    store = SqliteStore(path)
    bury(store, 4)
    keys = [dead.key for dead in store.dead()]
    assert len(store.dead(2)) == 2
    assert store.discard(keys[:1]) == 1
    assert store.requeue(keys[1:3]) == 2
    assert store.requeue([12345]) == 0
    assert [dead.body for dead in store.dead()] == [b"3"]
    again = confirming.publisher(store=store)
    assert store.requeue() == 1  # while it runs: the next start publishes it
    confirming.publish(again, [b"new"])
    wait(confirming, lambda: not again.pending)
    assert confirming.server.bodies == [b"1", b"2", b"new"]
    close(confirming, again)
    last = confirming.publisher(store=store)
    wait(confirming, lambda: not last.pending)
    assert confirming.server.bodies[3:] == [b"3"]
    close(confirming, last)
    assert store.discard() == 0


def test_dead_messages_are_bounded(path: Path) -> None:
    store = SqliteStore(path, max_dead=3)
    bury(store, 10)
    assert [dead.body for dead in store.dead()] == numbered(3, 7)


def test_what_the_broker_refuses_is_dead(path: Path) -> None:
    store = SqliteStore(path)
    stage = Stage()
    stage.server.on_publish = refuse_1
    publisher = stage.publisher(store=store)
    stage.publish(publisher, numbered(3))
    for _ in range(100):
        stage.advance(1)
        time.sleep(0.002)
    assert not publisher.pending
    close(stage, publisher)
    [dead] = store.dead()
    assert (dead.body, dead.outcome) == (b"1", Outcome.REFUSED)


# --- one owner ------------------------------------------------------------------------------------


def test_a_second_publisher_is_refused(path: Path, confirming: Stage) -> None:
    publisher = confirming.publisher(store=SqliteStore(path))
    with pytest.raises(StoreLocked, match=str(path)):
        confirming.publisher(store=SqliteStore(path))
    program = f"import evamqp; evamqp.SqliteStore({str(path)!r}).open()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "StoreLocked" in done.stderr
    close(confirming, publisher)
    close(confirming, confirming.publisher(store=SqliteStore(path)))


def collect(lost: weakref.ref[Any]) -> None:
    """Until it is gone; the store's thread may be amid a commit of its messages."""
    end = time.monotonic() + PATIENCE
    while lost() is not None:
        assert time.monotonic() < end
        gc.collect()
        time.sleep(0.001)


def test_a_publisher_that_is_lost_gives_its_store_back(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    publisher = stage.publisher(store=SqliteStore(path))
    stage.publish(publisher, numbered(3))
    lost = weakref.ref(publisher)
    del publisher, stage
    with pytest.warns(ResourceWarning, match="unclosed <Publisher"):
        collect(lost)
    assert "3 accepted messages have no outcome, and are lost unless its store" in caplog.text
    store = SqliteStore(path)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            left = list(store.open())
            break
        except StoreLocked:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert [message.body for _, message in left] == numbered(3)
    store.close()


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "1 / 0"])
def test_a_program_that_ends_amid_work_has_stored_what_it_accepted(path: Path, end: str) -> None:
    program = f"""
import evamqp
from evamqp.adapters.select import SelectAdapter
publisher = evamqp.Publisher(
    "amqp://127.0.0.1:1/", adapter=SelectAdapter(), store=evamqp.SqliteStore({str(path)!r})
)
for number in range(500):
    publisher.publish("", "work", b"%d" % number)
{end}
"""
    subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    store = SqliteStore(path)
    assert [message.body for _, message in store.open()] == numbered(500)
    store.close()


# --- stores that fail -----------------------------------------------------------------------------


def test_only_the_message_that_the_store_refuses_is_refused(
    confirming: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    store = Memory()
    store.bad = {b"1"}
    publisher = confirming.publisher(store=store)
    store.gate.clear()
    publications = confirming.publish(publisher, numbered(4))
    store.gate.set()
    wait(confirming, lambda: not publisher.pending)
    assert confirming.server.bodies == [b"0", b"2", b"3"]
    bad = publications[1]
    assert bad.outcome is Outcome.REFUSED
    assert isinstance(bad.detail, StoreFailed)
    assert isinstance(bad.detail.__cause__, ValueError)
    with pytest.raises(StoreFailed, match="b'1' is bad"):
        confirming.adapter.run_until(bad.stored)
    assert "a message was not accepted: the store failed: b'1' is bad" in caplog.text
    close(confirming, publisher)
    assert store.rows == {}


def test_outcomes_that_the_store_refuses_are_written_later(
    confirming: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evamqp.recovery.store_writer.RETRY_DELAY", 0.01)
    store = Memory(b"0")
    store.takes_outcomes = False
    publisher = confirming.publisher(store=store)
    wait(confirming, lambda: "no space left" in caplog.text)
    publication = publisher.publish("", "work", b"1")  # which it takes all the same
    wait(confirming, lambda: publication.outcome is Outcome.CONFIRMED)
    assert store.ended == []
    store.takes_outcomes = True
    wait(confirming, lambda: len(store.ended) == 2)
    close(confirming, publisher)


def test_a_store_that_returns_the_wrong_keys_has_failed(confirming: Stage) -> None:
    store = Memory()
    store.commit = lambda added, ended: []  # type: ignore[method-assign]
    publisher = confirming.publisher(store=store)
    [publication] = confirming.publish(publisher, [b"0"])
    wait(confirming, lambda: publication.is_done)
    assert "0 keys for 1 messages" in str(publication.detail)
    assert close(confirming, publisher) == []


@pytest.mark.parametrize("store", [object(), "outbox.db", SqliteStore, 5])
def test_what_is_no_store_is_refused(confirming: Stage, store: Any) -> None:
    with pytest.raises(BadType, match="store must be a Store"):
        confirming.publisher(store=store)


def test_a_store_that_fails_to_open_says_why(confirming: Stage) -> None:
    store = Memory()

    def fail() -> list[Any]:
        raise ValueError("no such database")

    store.open = fail  # type: ignore[method-assign]
    with pytest.raises(StoreFailed, match="cannot be opened: no such database"):
        confirming.publisher(store=store)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_path_that_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(BadArgument, match="must name a file"):
        SqliteStore(path)


def test_arguments_are_checked(path: Path) -> None:
    with pytest.raises(BadType):
        SqliteStore(5)  # type: ignore[arg-type]
    with pytest.raises(BadArgument):
        SqliteStore(path, max_dead=-1)
    with pytest.raises(BadType):
        SqliteStore(path, max_dead="1")  # type: ignore[arg-type]
    with pytest.raises(BadType):
        SqliteStore(path).dead("1")  # type: ignore[arg-type]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "missing" / "outbox.db")
    with pytest.raises(StoreFailed, match=r"outbox\.db cannot be opened"):
        store.open()


def test_a_missing_file_is_not_made_by_looking(path: Path) -> None:
    with pytest.raises(StoreFailed, match="cannot be read"):
        SqliteStore(path).dead()
    assert not path.exists()


def test_what_is_no_database_is_refused_and_untouched(path: Path) -> None:
    path.write_bytes(b"name,price\n" * 200)
    with pytest.raises(StoreFailed, match="not a database"):
        SqliteStore(path).open()
    assert path.read_bytes() == b"name,price\n" * 200


def test_another_programs_database_is_refused_and_untouched(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE customer (name)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreFailed, match="another program's database"):
        SqliteStore(path).open()
    assert path.read_bytes() == before


def test_a_later_version_is_refused(abandoned: Path) -> None:
    later = sqlite3.connect(abandoned)
    later.execute("PRAGMA user_version = 2")
    later.close()
    with pytest.raises(StoreFailed, match="has version 2"):
        SqliteStore(abandoned).open()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_file_is_its_owners(path: Path) -> None:
    store = SqliteStore(path)
    store.open()
    assert path.stat().st_mode & 0o777 == 0o600
    store.close()


def test_a_store_that_is_not_open_takes_nothing(path: Path) -> None:
    with pytest.raises(StoreFailed, match="not open"):
        SqliteStore(path).commit([StoredMessage("", "q", b"", b"\0\0", True)], [])


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_loses_nothing_that_was_stored(path: Path) -> None:
    program = f"""
import resource, evamqp
from evamqp import StoredMessage
store = evamqp.SqliteStore({str(path)!r})
store.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
stored = 0
try:
    while True:
        store.commit([StoredMessage("", "q", b"x" * 5000, b"", True)], [])
        stored += 1
except evamqp.StoreFailed as error:
    print(stored, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    stored, _, why = done.stdout.partition(" ")
    assert "cannot be written" in why, done.stderr
    store = SqliteStore(path)
    assert len(list(store.open())) == int(stored) > 10
    store.close()
