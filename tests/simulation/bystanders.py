"""A client without recovery: connect(), channels, requests, and the laws of their callbacks.

Law: every request completes once, in order; every channel and the connection end once, last.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import evamqp
from tests.simulation.scenery import MISSING

if TYPE_CHECKING:
    from tests.simulation.world import World

NOT_FOUND = 404
# Seconds: what bounds any close that the broker does not answer.
CLOSE_LIMIT = 31.0


class BystanderActor(evamqp.Handler):
    """One connection and its script."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.chance = Random(f"{world.seed}/{name}")
        self._channels: dict[evamqp.Channel, ChannelBooks] = {}
        self._steps = self.chance.choice((5, 20, 60))
        self._number = 0
        self._opened = self._closed = self._refused = False
        self.connection: evamqp.Connection | None = None
        world.clock.call_later(self.chance.random() * 5, self._connect)

    @property
    def is_settled(self) -> bool:
        return self.connection is None or self._closed or self._refused or not self._steps

    def wrong(self, what: str) -> None:
        self.world.books.wrong(self.name, what)

    def complain(self) -> None:
        """All faults are over since long: say what should have happened."""
        if not self.is_settled:
            self.wrong(f"{self._steps} steps are left: {self.connection!r}")

    def _connect(self) -> None:
        self.connection = evamqp.connect(
            self.world.parameters(self.chance, self.name), self, adapter=self.world.clock
        )

    # Callbacks of the connection

    def on_open(self, connection: evamqp.Connection) -> None:
        self._expect(not self._opened and not self._refused, "on_open again")
        self._opened = True
        for _ in range(self.chance.choice((1, 1, 3))):
            self._open_channel()
        self.world.clock.call_later(0.0, self._step)

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self._expect(not self._opened and not self._refused, "on_open_error after another")
        self._refused = True

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self.world.trace(self.name, f"on_close {reason}")
        self._expect(self._opened and not self._closed, "on_close without on_open, or again")
        for books in self._channels.values():
            self._expect(books.is_closed, f"{books.name} has no on_channel_close")
        self._closed = True

    def _expect(self, kept: bool, what: str) -> None:
        if not kept or self._closed:
            self.wrong(what if not kept else f"{what}: a callback after on_close")

    # Callbacks of channels

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        self.world.trace(self.name, f"channel {channel.number} closes: {reason}")
        self._expect(True, "on_channel_close")
        self._channels[channel].close(channel, reason)

    def on_delivery_confirmation(
        self, channel: evamqp.Channel, tags: evamqp.types.Tags, acked: bool
    ) -> None:
        self._expect(True, "on_delivery_confirmation")
        self._channels[channel].confirm(tags)

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.wrong(f"{context.callback} raised {error!r}")

    # The script

    def _open_channel(self) -> None:
        assert self.connection is not None
        try:
            channel = self.connection.channel()
        except (evamqp.WrongState, evamqp.OutputFull):
            return
        books = ChannelBooks(self, f"channel {channel.number}")
        self._channels[channel] = books
        if self.chance.random() < 0.6:
            books.request("confirm", channel.confirm_select)
            books.is_confirming = True

    def _step(self) -> None:
        connection = self.connection
        if connection is None or not connection.is_open or not self._steps:
            self._steps = 0
            return
        self._steps -= 1
        channels = [channel for channel in self._channels if channel.is_open]
        if not channels:
            self._open_channel()
        else:
            channel = self.chance.choice(channels)
            step = self.chance.choice(STEPS)
            try:
                step(self, channel, self._channels[channel])
            except (evamqp.WrongState, evamqp.OutputFull) as error:
                self.world.trace(self.name, f"cannot {step.__name__}: {error}")
        self.world.clock.call_later(self.chance.choice((0.0, 0.0, 0.1, 1.0)), self._step)

    def publish(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        exchange, key = self.chance.choice(self.world.scenery.routes)
        if self.chance.random() < 0.05:
            exchange = MISSING
        self._number += 1
        body = b"%s:%d" % (self.name.encode(), self._number)
        self.world.books.foreign.add(body)
        tag = channel.basic_publish(exchange, key, body, mandatory=self.chance.random() < 0.5)
        if books.is_confirming and tag:
            books.published.add(tag)

    def get(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        queue = self.chance.choice(self.world.scenery.works)
        books.request("get", partial(channel.basic_get, queue), partial(self._got, queue))

    def _got(self, queue: str, message: evamqp.Message | None) -> None:
        if message is None:
            return
        self.world.books.deliver(self.name, queue, message.body)
        self.world.books.unsteady.add(queue)
        if self.chance.random() < 0.5:
            message.ack()
            self.world.books.end(self.name, queue, message.body, "done")
        else:
            self.world.books.requeues[queue, message.body] += 1
            message.nack()

    def declare(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        books.request("declare", partial(channel.queue_declare, "", exclusive=True))

    def declare_passively(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        name = self.chance.choice([*self.world.scenery.works, "missing"])
        books.request("passive", partial(channel.queue_declare, name, passive=True))

    def declare_many(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        for _ in range(5):
            self.declare(channel, books)

    def set_prefetch(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        books.request("qos", partial(channel.basic_qos, self.chance.randint(0, 5)))

    def close_channel(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        if self.chance.random() < 0.3:
            channel.close()

    def close_by_mistake(self, channel: evamqp.Channel, books: ChannelBooks) -> None:
        """A passive declare of what is missing, and a close in the same turn: who is blamed?"""
        if self.chance.random() < 0.2:
            books.culprit = "declare of nothing"
            books.request(books.culprit, partial(channel.queue_declare, "missing", passive=True))
            channel.close()

    def close(self) -> None:
        """Close the connection; it must end within its limit."""
        if self.connection is not None:
            self._steps = 0
            self.world.trace(self.name, "closes")
            self.world.books.close(self.name, self.connection.close(), CLOSE_LIMIT)

    def close_at_the_end(self) -> None:
        self.close()

    def let_go(self) -> evamqp.Connection | None:
        """Forget the client; returns it for the last time."""
        connection, self.connection = self.connection, None
        self._channels.clear()
        return connection


class ChannelBooks:
    """What one channel owes."""

    def __init__(self, actor: BystanderActor, name: str) -> None:
        self.name = name
        self._actor = actor
        self._waiting: list[str] = []  # requests in order
        self._number = 0
        self.is_confirming = self.is_closed = False
        self.published: set[int] = set()
        self._confirmed: set[int] = set()
        self.culprit = ""

    def request(self, what: str, call: Any, told: Any = None) -> None:
        """Make a request that must complete once."""
        label = f"{what} {self._number}"
        self._number += 1
        call(
            callback=partial(self._completed, label, told),
            on_error=partial(self._failed, label),
        )
        self._waiting.append(label)

    def _completed(self, label: str, told: Any, value: Any = None) -> None:
        self._end(label)
        if told is not None:
            told(value)

    def _failed(self, label: str, error: evamqp.AmqpError) -> None:
        self._end(label)
        code = getattr(error.__cause__, "code", None)
        is_blamed = self.culprit and label.startswith(self.culprit)
        if is_blamed and code != NOT_FOUND and not self._actor.world.faults_played:
            self._actor.wrong(f"{self.name}: the broker's reason is not that of {label}: {error!r}")
        self._actor.world.trace(self._actor.name, f"{self.name}: {label} failed: {error!r}")

    def _end(self, label: str) -> None:
        actor = self._actor
        actor._expect(not self.is_closed, f"{self.name}: {label} completed after its close")
        if label not in self._waiting:
            actor.wrong(f"{self.name}: {label} completed twice")
        elif self._waiting[0] != label:
            actor.wrong(f"{self.name}: {label} completed before {self._waiting[0]}")
        if label in self._waiting:
            self._waiting.remove(label)

    def confirm(self, tags: Any) -> None:
        new = set(tags)
        if new & self._confirmed or not new <= self.published or list(tags) != sorted(new):
            self._actor.wrong(f"{self.name}: confirms of {tags}, again or of nothing")
        self._confirmed |= new

    def close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        actor = self._actor
        if self.is_closed or self._waiting:
            actor.wrong(f"{self.name}: on_channel_close again, or before {self._waiting}")
        self.is_closed = True
        left = self.published - self._confirmed
        if set(channel.unconfirmed) != left:
            actor.wrong(f"{self.name}: unconfirmed are {channel.unconfirmed}, not {sorted(left)}")
        for tag in left:
            actor.world.trace(actor.name, f"{self.name}: {tag} is unconfirmed")


STEPS = (
    BystanderActor.publish,
    BystanderActor.publish,
    BystanderActor.publish,
    BystanderActor.get,
    BystanderActor.get,
    BystanderActor.declare,
    BystanderActor.declare_many,
    BystanderActor.declare_passively,
    BystanderActor.set_prefetch,
    BystanderActor.close_channel,
    BystanderActor.close_by_mistake,
)
