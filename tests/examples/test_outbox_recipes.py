"""The recipes of docs/outbox.md for PostgreSQL, run on a PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

import evamqp
from evamqp import Outcome, StoreFailed, StoreLocked
from rabbitmq_node import Vhost
from tests.examples.program import ROOT
from tests.examples.test_docs_programs import blocks_of

pgserver = pytest.importorskip("pgserver", reason="has no wheel for this platform")

STORE, SQLITE_RELAY, RELAY = 2, 3, 4
ROWS = 250
TABLE = """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        routing_key text, body bytea, claimed timestamptz
    )
"""
FILL = f"""
    INSERT INTO outbox (routing_key, body)
    SELECT 'q', n::text::bytea FROM generate_series(1, {ROWS}) n
"""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL of its own, on a socket of the file system."""
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The URL of an empty database."""
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute("CREATE DATABASE shop")
    yield postgres.replace("/postgres?", "/shop?")
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute("DROP DATABASE shop WITH (FORCE)")


def recipe(number: int) -> dict[str, Any]:
    """What a block of the page defines."""
    names: dict[str, Any] = {"__name__": "recipe"}
    block = blocks_of(ROOT / "docs" / "outbox.md")[number]
    exec(block.code, names)
    return names


def topology() -> evamqp.Topology:
    declared = evamqp.Topology()
    declared.queue("q")
    return declared


async def bodies_in_queue(url: str) -> list[bytes]:
    async with evamqp.connect(url) as connection, connection.channel() as channel:
        count = (await channel.queue_declare("q", passive=True)).message_count
        messages = [await channel.basic_get("q", auto_ack=True) for _ in range(count)]
    return [message.body for message in messages if message is not None]


def test_a_store_in_postgresql_outlives_a_publisher(database: str, vhost: Vhost) -> None:
    store = recipe(STORE)["PostgresStore"]

    async def leave() -> None:
        publisher = evamqp.Publisher("amqp://127.0.0.1:1/", store=store(database))
        publications = [publisher.publish("", "q", b"%d" % number) for number in range(5)]
        await publications[-1].stored
        with pytest.raises(StoreLocked):
            evamqp.Publisher(vhost.url, store=store(database))
        assert len(await publisher.close(0)) == 5

    async def go_on() -> None:
        async with evamqp.Publisher(vhost.url, topology=topology(), store=store(database)) as again:
            assert again.pending == 5
            assert await again.publish("", "q", b"5") is Outcome.CONFIRMED
            assert await again.publish("", "nowhere", b"6") is Outcome.RETURNED
        assert await bodies_in_queue(vhost.url) == [b"%d" % number for number in range(6)]

    asyncio.run(leave())
    asyncio.run(go_on())
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT body, outcome, detail FROM outgoing").fetchall()
    assert [(body, outcome) for body, outcome, _ in rows] == [(b"6", "RETURNED")]
    assert "NO_ROUTE" in rows[0][2]


def test_a_lost_database_refuses_and_the_next_commit_connects_again(
    database: str, vhost: Vhost
) -> None:
    store = recipe(STORE)["PostgresStore"](database)

    async def main() -> None:
        async with evamqp.Publisher(vhost.url, topology=topology(), store=store) as publisher:
            assert await publisher.publish("", "q", b"0") is Outcome.CONFIRMED
            with psycopg.connect(database, autocommit=True) as other:
                while other.execute("SELECT count(*) FROM outgoing").fetchone() != (0,):
                    await asyncio.sleep(0.01)  # until the outcome is written
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = 'shop' AND pid <> pg_backend_pid()"
                )
            lost = publisher.publish("", "q", b"1")
            with pytest.raises(StoreFailed):
                await lost.stored
            assert await lost is Outcome.REFUSED
            assert await publisher.publish("", "q", b"2") is Outcome.CONFIRMED
        assert await bodies_in_queue(vhost.url) == [b"0", b"2"]

    asyncio.run(main())


def test_relays_share_a_table_in_postgresql(database: str, vhost: Vhost) -> None:
    relay, rows = recipe(SQLITE_RELAY)["relay"], recipe(RELAY)["Rows"]
    with psycopg.connect(database) as connection:
        connection.execute(TABLE)
        connection.execute(FILL)

    async def main() -> None:
        async with evamqp.Publisher(vhost.url, topology=topology()) as publisher:
            with ExitStack() as stack:
                databases = [
                    stack.enter_context(psycopg.connect(database, autocommit=True))
                    for _ in range(3)
                ]
                relays = [relay(rows(own), publisher) for own in databases]
                counts = await asyncio.gather(*relays)
        assert sum(counts) == ROWS
        bodies = await bodies_in_queue(vhost.url)
        assert sorted(map(int, bodies)) == list(range(1, ROWS + 1))

    asyncio.run(main())
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
