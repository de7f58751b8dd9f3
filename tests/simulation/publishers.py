"""A publisher that publishes at random, and writes down what it is told.

Law: everything that it was asked to publish is accepted sooner or later, unless it is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import evamqp
from tests.simulation.books import Entry, show
from tests.simulation.scenery import INTERNAL, MISSING, Policy, Spoil

if TYPE_CHECKING:
    from tests.simulation.world import World

# Seconds that a close may take beside the timeout that it was given.
CLOSE_SLACK = 1.0
# Characters of a header that no small frame can hold.
TOO_LONG = 10_000
UNSORTED = ({"b": 1, "a": 2}, {"z": "last", "BCC": ["x"], "a": None}, {"n": 1.5, "m": {"y": 1}})


class PublisherActor:
    """One Publisher and its script.

    Attributes:
        client: The Publisher; None once it is let go.
        is_hopeless: Its topology cannot be declared, so nothing is expected to arrive.
        is_doomed: And it gives up, by the policy of what cannot be declared.
    """

    def __init__(self, world: World, name: str, *, has_script: bool = True) -> None:
        self.world = world
        self.name = name
        self.chance = chance = Random(f"{world.seed}/{name}")
        self.is_closing = False
        self._number = 0
        self._left = chance.choice((3, 10, 30, 60)) if has_script else 0
        self._is_waiting = False  # for on_writable(True)
        self.resends = chance.choice((0, 1, 3, 10))
        self._mandatory = chance.random() < 0.75
        self._persistent = chance.random() < 0.8
        self._closes_at = chance.randint(1, 40) if chance.random() < 0.1 else None
        self._awaits = chance.random() < 0.3
        target, options = world.target(chance, name)
        spoil: Spoil | None = chance.choice(("odd", "unbound")) if chance.random() < 0.15 else None
        policy: Policy = chance.choice(("retry", "skip", "fail"))
        if policy == "fail" and isinstance(target, evamqp.Reconnector):
            policy = "skip"  # it would end all who share it
        self.is_hopeless = spoil is not None and policy != "skip"
        self.is_doomed = spoil is not None and policy == "fail"
        topology = world.scenery.topology() if spoil or chance.random() < 0.6 else None
        if spoil and topology is not None:
            topology.policy = policy
            world.scenery.spoil(topology, spoil)
        self.client: evamqp.Publisher | None = evamqp.Publisher(
            target,
            topology=topology,
            max_messages=chance.choice((1, 3, 20, 1000)),
            max_bytes=chance.choice((1000, 100_000, 16_000_000)),
            persistent=self._persistent,
            mandatory=self._mandatory,
            resends=self.resends,
            confirm_timeout=chance.choice((2.0, 30.0, 120.0)),
            on_writable=self._writable,
            **options,
        )
        world.clock.call_later(chance.random() * 3, self._burst)

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to come of it."""
        client = self.client
        if client is None or self.is_hopeless:
            return True
        return not client.pending and (self.is_closing or not self._left)

    def complain(self) -> None:
        """All faults are over since long: say what should have happened."""
        client = self.client
        if not self.is_settled and client is not None:
            waits = "waits for on_writable" if self._is_waiting else "does not wait"
            text = f"{self._left} to publish ({waits}), {client.pending} without an outcome"
            self.world.books.wrong(self.name, f"held for ever: {text}; {client!r}")

    # The script

    def _writable(self, writable: bool) -> None:
        if writable and self._is_waiting:
            self._is_waiting = False
            self._burst()

    def _burst(self) -> None:
        chance = self.chance
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            if self._left and not self._is_waiting and not self.is_closing:
                self.publish_one()
        if self._left and not self._is_waiting and not self.is_closing:
            self.world.clock.call_later(chance.choice((0.0, 0.01, 0.3, 2.0)), self._burst)

    def publish_one(self) -> None:
        """Publish something; if the publisher is full, wait until it says that it is not."""
        if self._number == self._closes_at:
            self.close(self.chance.choice((None, 0.0, 0.5, 5.0)))
            return
        try:
            self._publish()
        except evamqp.OutputFull:
            self._is_waiting = True
        except evamqp.WrongState:
            if not self.is_doomed:
                raise
            self._left = 0
        else:
            self._left -= 1

    def _publish(self) -> None:
        chance = self.chance
        exchange, key = chance.choice(self.world.scenery.routes)
        given: dict[str, Any] = {}
        is_culprit = False
        kind = chance.random()
        if kind < 0.10:
            key = "nowhere"
            exchange = chance.choice(("", "top"))
        elif kind < 0.13:
            exchange, is_culprit = chance.choice((MISSING, MISSING, INTERNAL)), True
        elif kind < 0.15:
            given["expiration"], is_culprit = "soon", True
        elif kind < 0.16:
            given["user_id"], is_culprit = "somebody", True
        elif kind < 0.19:
            given["expiration"] = chance.choice(("0", "50", "5000"))
        elif kind < 0.21 and self.world.frame_max < TOO_LONG:
            given["headers"], is_culprit = {"long": "x" * TOO_LONG}, True
        if chance.random() < 0.4 and "headers" not in given:
            given["headers"] = chance.choice(UNSORTED)
        try:
            self.publish(exchange, key, given, is_culprit=is_culprit)
        except evamqp.BadArgument:  # it is known already what no frame can hold
            if not is_culprit:
                raise

    def publish(
        self,
        exchange: str,
        key: str,
        given: dict[str, Any],
        *,
        is_culprit: bool = False,
        mandatory: bool | None = None,
        told: Callable[[evamqp.Publication], object] | None = None,
    ) -> evamqp.Publication:
        """Publish one message of the next number, and write it down.

        Args:
            told: Called with the Publication when it has its outcome.

        Raises:
            OutputFull: Nothing was taken.
            WrongState: It is closed.
        """
        chance, client = self.chance, self.client
        assert client is not None
        timeout = chance.choice((0.0, 0.2, 1.0, 20.0)) if chance.random() < 0.1 else None
        if mandatory is None and chance.random() < 0.1:
            mandatory = not self._mandatory
        persistent = None if chance.random() < 0.9 else not self._persistent
        size = chance.choice((0, 0, 10, 200)) if chance.random() < 0.98 else 70_000
        body = b"%s:%d %s" % (self.name.encode(), self._number, b"x" * size)
        properties = evamqp.Properties(**given) if given else None
        publication = client.publish(
            exchange,
            key,
            body,
            properties,
            mandatory=mandatory,
            persistent=persistent,
            timeout=timeout,
            callback=partial(self._settled, told),
        )
        self._number += 1
        self.world.trace(self.name, f"{show(body)} to {exchange!r} {key!r} {str(given or '')[:60]}")
        now = self.world.clock.time()
        self.world.books.accept(
            Entry(
                who=self.name,
                number=self._number,
                body=body,
                mandatory=publication.mandatory,
                is_culprit=is_culprit,
                is_perishable="expiration" in given,
                is_persistent=self._persistent if persistent is None else persistent,
                due=None if timeout is None else now + timeout,
                resends=self.resends,
                may_be_abandoned=self.is_doomed,
            )
        )
        if self._awaits:
            self.world.clock.run_awaitable(self._await(publication), lambda error: None)
        return publication

    def _settled(
        self,
        told: Callable[[evamqp.Publication], object] | None,
        publication: evamqp.Publication,
    ) -> None:
        self.world.books.settle(self.name, publication.body, publication.outcome)
        if publication.outcome is evamqp.Outcome.RETURNED:
            returned = publication.detail
            if not isinstance(returned, evamqp.Returned) or returned.body != publication.body:
                self.world.books.wrong(self.name, f"{publication!r} has another's return")
        if told is not None:
            told(publication)

    async def _await(self, publication: evamqp.Publication) -> None:
        outcome = await publication
        if outcome is not publication.outcome:
            self.world.books.wrong(self.name, f"{publication!r} was awaited to be {outcome}")

    # The end

    def close(self, timeout: float | None) -> None:
        client = self.client
        if client is None:
            return
        self.world.trace(self.name, f"closes, timeout {timeout}")
        self.is_closing = True
        if timeout is not None:
            for entry in self.world.books.entries.values():
                if entry.who == self.name and entry.outcome is None:
                    entry.may_be_abandoned = True
        within = None if timeout is None else timeout + CLOSE_SLACK
        self.world.books.close(self.name, client.close(timeout), within)
        try:
            client.publish("", "q0", b"too late")
        except evamqp.WrongState:
            return
        self.world.books.wrong(self.name, "publishes after close()")

    def close_at_the_end(self) -> None:
        if not self.is_closing or self.is_hopeless or self.chance.random() < 0.2:
            self.close(self.chance.choice((0.0, 1.0, 30.0)) if self.is_hopeless else 30.0)

    def let_go(self) -> evamqp.Publisher | None:
        """Forget the client; returns it for the last time."""
        client, self.client = self.client, None
        return client
