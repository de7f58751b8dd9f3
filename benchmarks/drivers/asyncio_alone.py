# bench: {"name": "asyncio-alone", "order": 2, "evamqp": false}
"""No client: asyncio's own transport sends a publish made beforehand, and the next at its confirm.

Its row is what the loop and the kernel cost; a client's row less that is the client.
"""

from __future__ import annotations

import asyncio

from _measure import Config, Meter, main
from _wire import Turns, dial


class Echo(asyncio.Protocol):
    """Takes its turn at each confirm."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        answer = self.turns.take(data)
        if answer:
            self.write(answer)
        else:
            self.ended.set_result(None)


async def echo(config: Config, meter: Meter) -> None:
    """One publish and its confirm at a time."""
    dialled = dial(config)
    turns = Turns(config, dialled)
    dialled.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(lambda: Echo(turns), sock=dialled)
    meter.start()
    transport.write(turns.publish)
    await protocol.ended
    meter.stop()
    transport.close()


def run(config: Config, meter: Meter) -> None:
    """S5, and S2 in the style of a client that waits for each confirm."""
    if config.op not in ("latency", "confirm"):
        raise NotImplementedError(f"{config.op} takes a client")
    asyncio.run(echo(config, meter))


if __name__ == "__main__":
    main(run)
