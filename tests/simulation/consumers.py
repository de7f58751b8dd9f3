"""A consumer whose handlers do everything that handlers do: well, ill, late, or never.

Law: at most ``prefetch`` handlers run at a time, and none begins while it is paused or closed.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import evamqp
from tests.simulation.books import show
from tests.simulation.publishers import CLOSE_SLACK, PublisherActor
from tests.simulation.scenery import SINK, Policy

if TYPE_CHECKING:
    from tests.simulation.world import World

# How often a message is handled ill before it is handled well: a broker that redelivers at once
# and a handler that fails at once would stop the clock.
FAILURES_MAX = 3
TEMPERS: dict[str, dict[str, int]] = {  # manners and their weights
    "calm": {"succeed": 1},
    "slow": {"succeed": 3, "succeed later": 6, "fail later": 1},
    "ill": {"succeed": 4, "fail": 4, "fail later": 2, "settle and fail": 1},
    "busy": {"succeed": 4, "settle": 3, "settle later": 3, "settle twice": 1},
    "moody": {"succeed": 6, "pause": 1, "pause later": 1, "succeed later": 4},
    "mortal": {
        "succeed": 12,
        "close": 1,
        "close with timeout": 1,
        "await close": 1,
        "succeed later": 6,
    },
    "forwarding": {"forward": 4, "forward and await": 2},
    "interrupted": {"succeed": 4, "be cancelled": 1, "be cancelled later": 1, "fail": 1},
    "never": {"succeed": 10, "never": 1},
}
Manner = Callable[[evamqp.Message, bytes], object]


class Illness(Exception):
    """What handlers raise."""


class ConsumerActor:
    """One Consumer and its handlers."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.chance = chance = Random(f"{world.seed}/{name}")
        self.queue = chance.choice([*world.scenery.works, *world.scenery.works, SINK, "dead"])
        self.is_closing = self.is_paused = False
        self._running = 0
        self._ill: Counter[bytes] = Counter()
        self._prefetch = chance.choice((1, 2, 5, 100))
        self._is_manual = chance.random() < 0.2
        self._policy: Literal["reject", "requeue", "leave"] = chance.choice(
            ("reject", "requeue", "leave")
        )
        self.temper = chance.choice(list(TEMPERS))
        manners = dict(TEMPERS[self.temper])
        if self.temper == "forwarding" and self.queue == SINK:
            manners = TEMPERS["calm"]
        self._manners = [name for name, weight in manners.items() for _ in range(weight)]
        self.forwarder: PublisherActor | None = None
        if "forward" in manners:
            self.forwarder = world.forwarder(name)
        target, options = world.target(chance, name)
        is_spoilt = chance.random() < 0.1
        topology = world.scenery.topology() if is_spoilt or chance.random() < 0.6 else None
        policy: Policy = chance.choice(("retry", "skip"))
        if is_spoilt and topology is not None:
            topology.policy = policy
            world.scenery.spoil(topology, chance.choice(("odd", "unbound")))
        self.is_hopeless = is_spoilt and policy == "retry"
        # A queue with a single active consumer takes no exclusive one.
        is_single = world.scenery.places[self.queue].is_single_active
        self.is_exclusive = chance.random() < 0.08 and not is_single
        self.client: evamqp.Consumer | None = evamqp.Consumer(
            target,
            self.queue,
            self._take,
            topology=topology,
            prefetch=self._prefetch,
            ack="manual" if self._is_manual else "auto",
            on_error=self._policy,
            exclusive=self.is_exclusive,
            **options,
        )
        world.trace(name, f"of {self.queue}: {self.temper} {self._policy} {self._prefetch}")

    @property
    def may_hold(self) -> bool:
        """Whether it may keep messages for ever: its queue need not run empty."""
        is_never = self.temper == "never" or self._policy == "leave"
        is_stuck = self.forwarder is not None and self.forwarder.is_hopeless
        return is_never or is_stuck or self._is_manual or self.is_hopeless

    @property
    def is_settled(self) -> bool:
        client = self.client
        idle = client is None or not client.at_work or self.may_hold
        return idle and (self.forwarder is None or self.forwarder.is_settled)

    def complain(self) -> None:
        """All faults are over since long: say what should have happened."""
        if not self.is_settled:
            self.world.books.wrong(self.name, f"handlers never end: {self.client!r}")
        if self.client is not None and not self.client.is_consuming and self._should_consume:
            self.world.books.wrong(self.name, f"does not consume: {self.client!r}")

    @property
    def _should_consume(self) -> bool:
        if self.is_closing or self.is_paused or self.is_hopeless:
            return False
        rivals = [
            actor
            for actor in self.world.actors
            if isinstance(actor, ConsumerActor) and actor.queue == self.queue
        ]
        return len(rivals) == 1 or not any(actor.is_exclusive for actor in rivals)

    # Handling

    def _take(self, message: evamqp.Message) -> object:
        books = self.world.books
        body = message.body
        books.deliver(self.name, self.queue, body)
        if self.is_closing or self.is_paused:
            books.wrong(self.name, f"{show(body)} came after close() or pause()")
        if self._running >= self._prefetch:
            books.wrong(self.name, f"{self._running + 1} handlers at a time")
        manner = self.chance.choice(self._manners)
        if manner != "succeed" and self._ill[body] >= FAILURES_MAX:
            manner = "succeed"
        if manner != "succeed":
            self._ill[body] += 1
            self.world.trace(self.name, f"{show(body)}: {manner}")
        handle: Manner = getattr(self, "_" + manner.replace(" ", "_"))
        return handle(message, body)

    def _succeed(self, message: evamqp.Message, body: bytes) -> object:
        if self._is_manual:
            message.ack()
        self._done(body)
        return None

    def _fail(self, message: evamqp.Message, body: bytes) -> object:
        self._failed(body)
        raise Illness(body)

    def _be_cancelled(self, message: evamqp.Message, body: bytes) -> object:
        """No failure: the message goes back, whatever the policy, and so do others for a while."""
        self.world.books.unsteady.add(self.queue)
        raise CancelledError

    def _be_cancelled_later(self, message: evamqp.Message, body: bytes) -> object:
        return self._later(self.chance.choice((0.0, 0.5)), message, self._be_cancelled, body)

    def _later(
        self, seconds: float, message: evamqp.Message, end: Manner, body: bytes
    ) -> Coroutine[Any, Any, None]:
        """A handler that takes its time.

        Counted until it ends, however it does: also when nobody begins it.
        """

        async def handle() -> None:
            try:
                await self.world.clock.sleep(seconds)
                end(message, body)
            finally:
                self._running -= 1

        self._running += 1
        return handle()

    def _succeed_later(self, message: evamqp.Message, body: bytes) -> object:
        seconds = self.chance.choice((0.0, 0.05, 1.0, 8.0))
        return self._later(seconds, message, self._succeed, body)

    def _fail_later(self, message: evamqp.Message, body: bytes) -> object:
        return self._later(self.chance.choice((0.0, 0.5, 3.0)), message, self._fail, body)

    def _settle(self, message: evamqp.Message, body: bytes) -> object:
        how = self.chance.choice(("ack", "nack", "drop"))
        if how == "ack":
            message.ack()
            self._done(body)
        elif how == "nack":
            self.world.books.requeues[self.queue, body] += 1
            message.nack()
        else:
            message.reject(requeue=False)
            self.world.books.end(self.name, self.queue, body, "rejected")
        return None

    def _settle_later(self, message: evamqp.Message, body: bytes) -> object:
        return self._later(self.chance.choice((0.0, 0.7)), message, self._settle, body)

    def _settle_twice(self, message: evamqp.Message, body: bytes) -> object:
        message.ack()
        self._done(body)
        try:
            message.reject()
        except evamqp.AlreadySettled:
            return None
        self.world.books.wrong(self.name, f"{show(body)} was settled twice")
        return None

    def _settle_and_fail(self, message: evamqp.Message, body: bytes) -> object:
        self._settle(message, body)
        raise Illness(body)

    def _never(self, message: evamqp.Message, body: bytes) -> object:
        return self.world.clock.create_future().future

    def _forward(self, message: evamqp.Message, body: bytes) -> object:
        return self._publish_on(body, lambda publication: self._forwarded(body, publication))

    def _forward_and_await(self, message: evamqp.Message, body: bytes) -> object:
        async def handle() -> None:
            publication = self._publish_on(body, lambda publication: None)
            if await publication is not evamqp.Outcome.CONFIRMED:
                self._failed(body)
                raise Illness(body)
            self._succeed(message, body)

        return handle()

    def _forwarded(self, body: bytes, publication: evamqp.Publication) -> None:
        if publication.outcome is not evamqp.Outcome.CONFIRMED:
            self._failed(body)
        elif not self._is_manual:
            self._done(body)

    def _publish_on(
        self, body: bytes, told: Callable[[evamqp.Publication], object]
    ) -> evamqp.Publication:
        assert self.forwarder is not None
        key = "nowhere" if self.chance.random() < 0.2 else SINK
        try:
            return self.forwarder.publish("", key, {}, mandatory=True, told=told)
        except (evamqp.OutputFull, evamqp.WrongState):
            self._failed(body)
            raise

    def _done(self, body: bytes) -> None:
        self.world.books.end(self.name, self.queue, body, "done")

    def _failed(self, body: bytes) -> None:
        """What the policy allows, now that a handler fails."""
        if self._policy == "reject":
            self.world.books.end(self.name, self.queue, body, "rejected")
        elif self._policy == "requeue":
            self.world.books.requeues[self.queue, body] += 1

    # Life

    def _pause(self, message: evamqp.Message, body: bytes) -> object:
        assert self.client is not None
        self.is_paused = True
        self.world.books.unsteady.add(self.queue)
        self.client.pause()
        self.world.clock.call_later(self.chance.choice((0.0, 1.0, 10.0)), self.resume)
        return self._succeed(message, body)

    def _pause_later(self, message: evamqp.Message, body: bytes) -> object:
        return self._later(0.5, message, self._pause, body)

    def resume(self) -> None:
        if self.client is not None and not self.is_closing and self.is_paused:
            self.world.trace(self.name, "resumes")
            self.is_paused = False
            self.client.resume()

    def _close(self, message: evamqp.Message, body: bytes) -> object:
        self.close(None)
        return self._succeed(message, body)

    def _await_close(self, message: evamqp.Message, body: bytes) -> object:
        async def handle() -> None:
            assert self.client is not None
            self._succeed(message, body)
            self.close(None)
            await self.client.close()

        return handle()

    def _close_with_timeout(self, message: evamqp.Message, body: bytes) -> object:
        return self._later(0.1, message, partial(self._close_within, 1.0), body)

    def _close_within(self, timeout: float, message: evamqp.Message, body: bytes) -> object:
        self.close(timeout)
        return self._succeed(message, body)

    def close(self, timeout: float | None) -> None:
        client = self.client
        if client is None:
            return
        self.world.trace(self.name, f"closes, timeout {timeout}")
        self.is_closing = True
        if not self.world.books.is_ending:
            self.world.books.unsteady.add(self.queue)
        within = None if timeout is None else timeout + CLOSE_SLACK
        self.world.books.close(self.name, client.close(timeout), within)

    def close_at_the_end(self) -> None:
        if not self.is_closing or self.chance.random() < 0.2:
            self.close(self.chance.choice((0.0, 1.0, 30.0)))
        if self.forwarder is not None:
            self.forwarder.close_at_the_end()

    def let_go(self) -> evamqp.Consumer | None:
        """Forget the client; returns it for the last time."""
        client, self.client = self.client, None
        return client
