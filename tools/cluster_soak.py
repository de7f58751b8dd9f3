"""Numbered messages through a quorum queue of three nodes that are killed: is anything lost?

    python tools/cluster_soak.py --messages 1000000 --kills 20 --seed 7

One Publisher, three Consumers of one queue on one asyncio loop: the first handles messages one at a
time, and now and then so slowly that the broker takes the message back; the second takes batches;
the third fails now and then, and has the message come again after a delay, or at last as a dead
letter.  Meanwhile the node that leads the queue is killed and started again.  At every look the
broker must list three consumers.  It takes RabbitMQ 4.3, whose consumer timeout is a queue's: see
EVAMQP_RABBITMQ_ROOT in tools/rabbitmq_node.py.  Prints one line of figures; exit status 1 means
that a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import evamqp
from evamqp import Outcome
from rabbitmq_cluster import ClusterNode, cluster, leader
from rabbitmq_node import RabbitFailed, RabbitNotFound
from traffic import Impatient

QUEUE = "work"
DEAD = "work.dead"
CONSUMERS = 3
HEARTBEAT = 5
WINDOW = 2000  # publishes without an outcome
# Messages published and not handled: a queue that grows says nothing about consumers.
BACKLOG = 20_000
PREFETCH = 200
BATCH = 50
# Seconds.
CONSUMER_TIMEOUT = 20
SLOW = 1.2 * CONSUMER_TIMEOUT
DELAYS = (0.5, 2.0)
PATIENCE = 120.0
BETWEEN_LOOKS = 10.0
# One message in so many is handled too slowly, and one fails.
SLOW_EVERY = 10_000
FAIL_EVERY = 500
#: What fails always, and ends as a dead letter.
DOOMED_EVERY = 2_000


class Soak:
    """One run.

    Args:
        nodes: The cluster.
        total: Messages.
        kills: Of leaders, spread over the run.
        chance: Who dies when.
    """

    def __init__(
        self, nodes: Sequence[ClusterNode], total: int, kills: int, chance: random.Random
    ) -> None:
        self._nodes = nodes
        self._total = total
        self._kills = kills
        self._chance = chance
        self._handled = bytearray(total)  # how often, up to 255
        self._failed: set[int] = set()
        self._slow: set[int] = set()
        self._dead: set[int] = set()
        self.published = self.confirmed = self.done = self.invented = 0
        self.killed = self.looks = self.unequal = self.failures = 0
        self._started = time.monotonic()
        targets = [evamqp.Parameters.from_url(node.url, heartbeat=HEARTBEAT) for node in nodes]
        topology = evamqp.Topology()
        topology.queue(
            QUEUE,
            arguments={"x-queue-type": "quorum", "x-consumer-timeout": CONSUMER_TIMEOUT * 1000},
        )
        self._publisher = evamqp.Publisher(targets, topology=topology, max_messages=WINDOW)
        retry = evamqp.Retry(DELAYS, dead_letter=DEAD)
        self._consumers = [
            evamqp.Consumer(
                targets,
                QUEUE,
                self._handle,
                topology=topology,
                prefetch=PREFETCH,
                on_error="requeue",
            ),
            evamqp.Consumer(
                targets,
                QUEUE,
                self._handle_list,
                topology=topology,
                prefetch=4 * BATCH,
                batch=BATCH,
            ),
            evamqp.Consumer(
                targets, QUEUE, self._try, topology=topology, prefetch=PREFETCH, retry=retry
            ),
        ]
        self._undertaker = evamqp.Consumer(targets, DEAD, self._bury, topology=self._grave())

    def _grave(self) -> evamqp.Topology:
        topology = evamqp.Topology()
        topology.queue(DEAD, arguments={"x-queue-type": "quorum"})
        return topology

    async def run(self) -> bool:
        """To the end; whether every promise was kept."""
        failure: BaseException | None = None
        publishing = asyncio.create_task(self._publish())
        hurting = asyncio.create_task(self._hurt())
        watching = asyncio.create_task(self._watch())
        try:
            await publishing
            await hurting
            await self._until(lambda: self.done == self._total, "all is handled")
            await self._look()
        except (Impatient, RabbitFailed) as error:
            failure = error
        for task in (publishing, hurting, watching):
            task.cancel()
        clients: list[evamqp.Publisher | evamqp.Consumer] = [
            self._publisher,
            *self._consumers,
            self._undertaker,
        ]
        await asyncio.gather(*(client.close(10) for client in clients))
        print(f"cluster soak: {self._figures()}{f' {failure!r}' if failure else ''}", flush=True)
        return failure is None and not (self._lost() or self.invented or self.unequal)

    # Publishing and handling

    async def _publish(self) -> None:
        await self._publisher.wait_ready(PATIENCE)
        while self.published < self._total:
            # Not faster than nodes are killed: all kills happen amid work.
            limit = self._total * min(self._kills, self.killed + 1) // max(1, self._kills)
            while (
                self._publisher.pending < WINDOW
                and self.published - self.done < BACKLOG
                and self.published < (limit or self._total)
            ):
                body = b"%d" % self.published
                self._publisher.publish("", QUEUE, body, callback=self._settle)
                self.published += 1
            await asyncio.sleep(0.01)
        await self._until(lambda: not self._publisher.pending, "all is confirmed")

    def _settle(self, publication: evamqp.Publication) -> None:
        self.confirmed += publication.outcome is Outcome.CONFIRMED

    async def _handle(self, message: evamqp.Message) -> None:
        number = int(message.body)
        if number % SLOW_EVERY == 1 and number not in self._slow:
            self._slow.add(number)
            await asyncio.sleep(SLOW)
        self._note(number)

    def _handle_list(self, messages: list[evamqp.Message]) -> None:
        for message in messages:
            self._note(int(message.body))

    def _try(self, message: evamqp.Message) -> None:
        number = int(message.body)
        if number % DOOMED_EVERY == 2 or (number % FAIL_EVERY == 3 and number not in self._failed):
            self._failed.add(number)
            self.failures += 1
            raise RuntimeError("this one fails")
        self._note(number)

    def _bury(self, message: evamqp.Message) -> None:
        number = int(message.body)
        self._dead.add(number)
        self._note(number)

    def _note(self, number: int) -> None:
        if number >= self.published:
            self.invented += 1
            return
        self.done += not self._handled[number]
        self._handled[number] = min(255, self._handled[number] + 1)

    # Faults and looks

    async def _hurt(self) -> None:
        for kill in range(self._kills):
            share = 0.95 * (kill + self._chance.uniform(0.2, 0.8)) / self._kills
            await self._until(partial(self._has_published, share), "the next kill", 3600)
            node = await asyncio.to_thread(leader, self._nodes, QUEUE)
            await asyncio.to_thread(node.kill)
            self.killed += 1
            await self._until(partial(self._has_handled_more_than, self.done), "another leader")
            await asyncio.sleep(self._chance.uniform(0, 3))
            await asyncio.to_thread(node.start)
            await self._look()

    def _has_published(self, share: float) -> bool:
        return self.published >= share * self._total

    def _has_handled_more_than(self, count: int) -> bool:
        return self.done > count

    async def _look(self) -> None:
        """Compare the broker's consumers with the program's, once both have come to rest."""
        await self._until(lambda: all(each.is_consuming for each in self._consumers), "consumers")
        self.looks += 1
        end = time.monotonic() + PATIENCE
        while (count := await asyncio.to_thread(self._count_consumers)) != CONSUMERS:
            # A consumer that the broker has timed out comes back at once; one on a connection to a
            # killed node may stay listed until the cluster knows.
            if time.monotonic() > end:
                print(f"the broker lists {count} consumers", flush=True)
                self.unequal += 1
                return
            await asyncio.sleep(1)

    def _count_consumers(self) -> int:
        listed = self._nodes[0].ctl("list_consumers", "queue_name", "consumer_tag")
        return sum(line.split("\t")[0] == QUEUE for line in listed.splitlines())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(BETWEEN_LOOKS)
            print(
                f"{time.monotonic() - self._started:6.0f} s  kills {self.killed:3}"
                f"  published {self.published:10,}  handled {self.done:10,}",
                flush=True,
            )

    async def _until(self, done: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise Impatient(f"{what}: not in {seconds:g} s")
            await asyncio.sleep(0.05)

    def _lost(self) -> int:
        return self._handled[: self.published].count(0)

    def _figures(self) -> str:
        duplicates = sum(self._handled) - len(self._handled) + self._handled.count(0)
        return (
            f"seconds={time.monotonic() - self._started:.0f} messages={self.published}"
            f" confirmed={self.confirmed} lost={self._lost()} invented={self.invented}"
            f" duplicates={duplicates} kills={self.killed} slow={len(self._slow)}"
            f" failures={self.failures} dead={len(self._dead)} looks={self.looks}"
            f" unequal={self.unequal}"
        )


async def run(nodes: Sequence[ClusterNode], options: argparse.Namespace) -> bool:
    """One soak on the running loop."""
    chance = random.Random(options.seed)
    return await Soak(nodes, options.messages, options.kills, chance).run()


def main() -> int:
    parser = argparse.ArgumentParser(description="Lose a message of a cluster, if you can.")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="show what the clients log")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL)
    try:
        with cluster() as nodes:
            return 0 if asyncio.run(run(nodes, options)) else 1
    except RabbitNotFound as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
