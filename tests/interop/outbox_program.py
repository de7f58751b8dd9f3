"""A program that publishes through a store until it is killed: LOOP URL PATH FIRST.

Run by test_outbox.py.  It prints the last number of which it knows that it is stored.
"""

from __future__ import annotations

import os
import sys
from collections import deque

import evamqp
from tests.support.loops import opened

BURST = 50
#: Messages without an outcome; the run before may have left as many.
WINDOW = 1000


async def publish(publisher: evamqp.Publisher, number: int) -> None:
    """Publish numbers from this one on, for ever."""
    pending: deque[evamqp.Publication] = deque()
    while True:
        burst = range(number, number + BURST)
        pending.extend(publisher.publish("", "q", b"%d" % body) for body in burst)
        number = burst.stop
        await pending[-1].stored
        os.write(1, b"%s\n" % pending[-1].body)
        if publisher.pending > WINDOW:
            await pending[-1]
        while pending and pending[0].is_done:
            pending.popleft()


def main(loop_name: str, url: str, path: str, first: str) -> None:
    with opened(loop_name) as loop:
        store = evamqp.SqliteStore(path)
        publisher = evamqp.Publisher(
            url, adapter=loop.adapter, store=store, max_messages=3 * WINDOW
        )
        loop.run(publish(publisher, int(first)))


if __name__ == "__main__":
    main(*sys.argv[1:])
