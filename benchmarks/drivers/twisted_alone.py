# bench: {"name": "twisted-alone", "order": 2, "evamqp": false}
"""No client: Twisted's own transport sends a publish made beforehand, and the next at its confirm.

Its row is what the reactor and the kernel cost; a client's row less that is the client.
"""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from _measure import Config, Meter, main
from _wire import Turns, dial


class Echo(Protocol):
    """Takes its turn at each confirm."""

    def __init__(self, turns: Turns, meter: Meter) -> None:
        self.turns = turns
        self.meter = meter

    def connectionMade(self) -> None:
        self.meter.start()
        self.transport.write(self.turns.publish)

    def dataReceived(self, data: bytes) -> None:
        answer = self.turns.take(data)
        if answer:
            self.transport.write(answer)
        else:
            self.meter.stop()
            reactor.stop()


def run(config: Config, meter: Meter) -> None:
    """S5, and S2 in the style of a client that waits for each confirm."""
    if config.op not in ("latency", "confirm"):
        raise NotImplementedError(f"{config.op} takes a client")
    dialled = dial(config)
    turns = Turns(config, dialled)
    dialled.setblocking(False)
    factory = Factory.forProtocol(lambda: Echo(turns, meter))
    reactor.adoptStreamConnection(dialled.fileno(), socket.AF_INET, factory)
    reactor.run()


if __name__ == "__main__":
    main(run)
