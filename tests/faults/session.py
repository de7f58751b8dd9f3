"""A session that uses all of a connection's life, and counts every outcome that it is told.

connect, open, confirm, declare, publish, consume, ack, cancel, delete, close.  Where it is cut is
not known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Any

import evamqp
from evamqp.abc import Adapter
from evamqp.types import Tags

QUEUE = "q"
BODIES = (b"one", b"two" * 10)


class Watched:
    """A request: what its callbacks and whoever awaits it were told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.called: list[object] = []
        self.awaited: list[object] = []

    def check(self) -> None:
        """Once each, the same, and if it is an error then one of ours."""
        assert len(self.awaited) == 1, (self.name, self.awaited)
        error = self.awaited[0]
        assert error is None or isinstance(error, evamqp.AmqpError), (self.name, error)
        if self.name not in AWAITED_ONLY:
            assert len(self.called) == 1, (self.name, self.called)
            assert type(self.called[0]) is type(error), (self.name, self.called, error)


#: Requests whose callback is not asked for.
AWAITED_ONLY = ("wait_open", "wait_closed", "wait_for_confirms", "connection.close")


class Session(evamqp.Handler):
    """One session, from ``connect`` to ``on_close``."""

    def __init__(self, adapter: Adapter, target: evamqp.Parameters) -> None:
        self._adapter = adapter
        self._watched: list[Watched] = []
        self._left = len(BODIES)  # messages to be confirmed and acknowledged before we go on
        self._unconfirmed = len(BODIES)
        self.events: list[str] = []
        self.ends: Counter[str] = Counter()
        self.reason: evamqp.ConnectionClosed | None = None
        self.channel: evamqp.Channel | None = None
        self.confirmed: list[int] = []
        self.errors: list[BaseException] = []
        self.is_complete = False
        self.connection = evamqp.connect(target, self, adapter=adapter)
        self._await("wait_open", self.connection.wait_open())
        self._await("wait_closed", self.connection.wait_closed())

    @property
    def is_over(self) -> bool:
        """Whether everything that was asked has an outcome."""
        return self.reason is not None and all(watched.awaited for watched in self._watched)

    # What is asked

    def _await(self, name: str, awaitable: Awaitable[Any]) -> None:
        self._follow(Watched(name), awaitable)

    def _follow(self, watched: Watched, awaitable: Awaitable[Any]) -> None:
        self._watched.append(watched)

        async def wait() -> None:
            await awaitable

        self._adapter.run_awaitable(wait(), watched.awaited.append)

    def _ask(self, method: str, *arguments: Any) -> None:
        watched = Watched(method)
        request = getattr(self.channel, method)(
            *arguments,
            callback=lambda value: watched.called.append(None),
            on_error=watched.called.append,
        )
        if isinstance(request, evamqp.Request):
            self._follow(watched, request)
        else:  # basic_consume returns its tag: nobody can await that
            watched.awaited = watched.called
            self._watched.append(watched)

    def on_open(self, connection: evamqp.Connection) -> None:
        self.events.append("open")
        self.channel = connection.channel()
        self._ask("confirm_select")
        self._ask("exchange_declare", "e", "topic")
        self._ask("queue_declare", QUEUE)
        self._ask("queue_bind", QUEUE, "e", "#")
        for body in BODIES:
            self.channel.basic_publish("", QUEUE, body, mandatory=True)
        self._await("wait_for_confirms", self.channel.wait_for_confirms())
        self._ask("basic_qos", 10)
        self._ask("basic_consume", QUEUE, self.on_message, False, False, "tag")

    def on_message(self, message: evamqp.Message) -> None:
        assert message.body in BODIES
        message.ack()
        self._left -= 1
        self._go_on()

    def on_delivery_confirmation(self, channel: evamqp.Channel, tags: Tags, acked: bool) -> None:
        assert acked
        self.confirmed.extend(tags)
        self._unconfirmed -= len(tags)
        self._go_on()

    def _go_on(self) -> None:
        if not self._left and not self._unconfirmed:
            self._ask("basic_cancel", "tag")
            self._ask("queue_delete", QUEUE)
            assert self.channel is not None
            self.channel.close()
            self._await("connection.close", self.connection.close())
            self.is_complete = True

    # What is told

    def on_open_error(self, connection: evamqp.Connection, error: evamqp.ConnectionClosed) -> None:
        self._end("on_open_error", error)

    def on_close(self, connection: evamqp.Connection, reason: evamqp.ConnectionClosed) -> None:
        self._end("on_close", reason)

    def on_channel_close(self, channel: evamqp.Channel, reason: evamqp.ChannelClosed) -> None:
        assert self.reason is None
        self.ends["on_channel_close"] += 1

    def on_callback_error(self, context: evamqp.CallbackContext, error: BaseException) -> None:
        self.errors.append(error)

    def _end(self, name: str, reason: evamqp.ConnectionClosed) -> None:
        self.ends[name] += 1
        self.reason = reason

    def check(self) -> None:
        """The laws, once it is over."""
        assert not self.errors, self.errors
        opened = "open" in self.events
        assert self.ends["on_close" if opened else "on_open_error"] == 1, self.ends
        assert self.ends.total() == (2 if opened else 1), self.ends
        assert isinstance(self.reason, evamqp.ConnectionClosed)
        assert str(self.reason)
        if self.channel is not None:
            tags = [*self.confirmed, *self.channel.unconfirmed]
            assert sorted(tags) == [number + 1 for number in range(len(BODIES))]
        for watched in self._watched:
            watched.check()
