"""Publish once with the evamqp that is installed, on the embedded broker; say what it is.

It imports nothing else of the project, so that a wheel can be tried far from the source.
"""

from __future__ import annotations

import asyncio

import evamqp
from evamqp.testing import Broker


async def publish(url: str) -> evamqp.Outcome:
    """The outcome of one message."""
    topology = evamqp.Topology()
    topology.queue("trial", durable=True)
    publisher = evamqp.Publisher(url, topology=topology)
    outcome = await publisher.publish("", "trial", b"Hello")
    await publisher.close(timeout=5)
    return outcome


def main() -> None:
    """Fail unless the message was confirmed."""
    with Broker().serve() as broker:
        outcome = asyncio.run(publish(broker.url))
    assert outcome is evamqp.Outcome.CONFIRMED, outcome
    print(evamqp.__version__, evamqp.implementation)


if __name__ == "__main__":
    main()
