"""docs/migrating-from-aioamqp.md: every row of its table is run."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from evamqp.compat import aioamqp
from evamqp.testing import Broker
from tests.compat.asyncio_rig import run
from tests.compat.migration import Row, rows, run_code

ROWS = rows("migrating-from-aioamqp.md", "aioamqp")


def test_document_has_all_its_rows() -> None:
    assert len(ROWS) > 12
    assert all(row.codes for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_works_as_it_stands(row: Row) -> None:
    opened: list[aioamqp.AmqpProtocol] = []

    async def callback(*arguments: object) -> None:
        """Takes whatever comes."""

    def remember(connect: Any) -> Any:
        async def connecting(*arguments: Any, **named: Any) -> Any:
            transport, protocol = await connect(*arguments, **named)
            opened.append(protocol)
            return transport, protocol

        return connecting

    async def scenario(url: str) -> None:
        _, protocol = await aioamqp.from_url(url)
        channel = await protocol.channel()
        await channel.queue_declare("q")
        parts = urlsplit(url)
        names: dict[str, Any] = {
            "aioamqp": aioamqp,
            "url": url,
            "host": parts.hostname,
            "port": parts.port,
            "protocol": protocol,
            "channel": channel,
            "callback": callback,
        }
        for code in row.codes:
            await run_code(code, names)
        for one in {protocol, *opened}:
            if one.state != 3:
                await one.close()

    with pytest.MonkeyPatch.context() as patch, Broker().serve() as broker:
        for name in ("connect", "from_url"):
            patch.setattr(aioamqp, name, remember(getattr(aioamqp, name)))
        run(scenario(broker.url))
