"""docs/migrating-from-aio-pika.md: every row of its tables is run."""

from __future__ import annotations

from typing import Any

import pytest

from evamqp.compat import aio_pika
from tests.compat.asyncio_rig import run
from tests.compat.migration import Row, rows, run_code

ROWS = rows("migrating-from-aio-pika.md", "aio-pika")


def test_document_has_all_its_rows() -> None:
    assert len(ROWS) > 20
    assert all(row.codes for row in ROWS)


@pytest.mark.parametrize("url", ["embedded"], indirect=True)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_works_as_it_stands(url: str, row: Row) -> None:
    opened: list[aio_pika.Connection] = []

    async def scenario() -> None:
        connection = await aio_pika.connect_robust(url)
        channel = await connection.channel()
        queue = await channel.declare_queue("key", durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"body"), "key")
        names: dict[str, Any] = {
            "aio_pika": aio_pika,
            "url": url,
            "connection": connection,
            "channel": channel,
            "exchange": channel.default_exchange,
            "queue": queue,
            "message": aio_pika.Message(b"body"),
            "callback": callback,
        }
        for code in row.codes:
            if row.theirs.startswith("`message."):
                names["message"] = await queue.get()
            await run_code(code, names)
        for one in [*opened, connection]:
            await one.close()

    async def callback(*arguments: object, **named: object) -> None:
        """Takes whatever comes."""

    def remember(connect: Any) -> Any:
        async def connecting(*arguments: Any, **named: Any) -> Any:
            opened.append(await connect(*arguments, **named))
            return opened[-1]

        return connecting

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_robust"):
            patch.setattr(aio_pika, name, remember(getattr(aio_pika, name)))
        run(scenario())
