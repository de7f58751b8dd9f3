"""A publisher with a store is killed again and again: nothing that was stored is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import evamqp
from tests.interop.rig import OnOneLoop, Rig
from tests.support.loops import SOCKET_LOOPS

ROOT = Path(__file__).parent.parent.parent
KILLS = int(os.environ.get("EVAMQP_KILLS", "10"))
SEED = int(os.environ.get("EVAMQP_SEED", "1"))
#: The number that each run begins with is a multiple of this.
RUN = 1_000_000
# Seconds that a program lives, at the longest, once it publishes.
LIFE = 0.3
# Seconds in which everything that is left is published.
PATIENCE = 60


def kill_amid_work(loop: str, url: str, path: Path, first: int, life: float) -> int:
    """Run the program, kill it; the last number that it says is stored."""
    command = [sys.executable, "-m", "tests.interop.outbox_program", loop, url, str(path)]
    with subprocess.Popen([*command, str(first)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            time.sleep(life)
        finally:
            process.kill()
        said += process.stdout.read()
    lines = said.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    assert whole, "it published nothing"
    return int(whole[-1])


class TestOutbox(OnOneLoop):
    def test_nothing_that_was_stored_is_lost_and_the_order_is_kept(
        self, rig: Rig, tmp_path: Path
    ) -> None:
        channel = rig.channel()
        rig.wait(channel.queue_declare("q", durable=True))
        path, chance = tmp_path / "outbox.db", random.Random(SEED)
        stored: list[range] = []
        for run in range(KILLS):
            first = run * RUN
            life = chance.uniform(0, LIFE)
            loop = SOCKET_LOOPS[run % len(SOCKET_LOOPS)]
            last = kill_amid_work(loop, rig.vhost.url, path, first, life)
            stored.append(range(first, last + 1))
        publisher = evamqp.Publisher(
            rig.parameters(), adapter=rig.loop.adapter, store=evamqp.SqliteStore(path)
        )
        left = publisher.pending
        assert rig.wait(publisher.close(PATIENCE)) == []
        bodies = self.drain(rig, channel)
        published = list(dict.fromkeys(map(int, bodies)))
        lost = sorted({number for numbers in stored for number in numbers} - set(published))
        duplicates = len(bodies) - len(published)
        sys.stdout.write(
            f"kills={KILLS} stored={sum(map(len, stored))} left={left} lost={len(lost)}"
            f" duplicates={duplicates}\n"
        )
        assert not lost
        assert published == sorted(published)

    def drain(self, rig: Rig, channel: evamqp.Channel) -> list[bytes]:
        """Everything in the queue."""
        bodies: list[bytes] = []
        count = rig.count(channel, "q")
        channel.basic_consume("q", lambda message: bodies.append(message.body), auto_ack=True)
        rig.until(lambda: len(bodies) >= count, PATIENCE)
        return bodies
