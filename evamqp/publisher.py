"""A publisher that reconnects and keeps each message until it has one outcome.

``recovery/ledger.py`` keeps the messages, ``recovery/reconnector.py`` makes the connections.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from time import time
from typing import TYPE_CHECKING

from evamqp import checks
from evamqp.codec.fields import encode_shortstr
from evamqp.codec.properties import PERSISTENT, SMALL, Properties
from evamqp.core.publishing import copy_body
from evamqp.core.request import Request, check_callbacks
from evamqp.errors import (
    AmqpError,
    BadType,
    ChannelClosed,
    NotReady,
    OutputFull,
    PublishNacked,
    RequestTimeout,
    StoreFailed,
    WrongState,
)
from evamqp.recovery.backoff import Backoff
from evamqp.recovery.confirm_clock import CONFIRM_TIMEOUT, ConfirmClock, check_confirm_timeout
from evamqp.recovery.deadlines import Deadlines
from evamqp.recovery.health import Health, PublisherStats, ago
from evamqp.recovery.ledger import Ledger, Outcome, Publication, StoredPublication
from evamqp.recovery.loop_bound import cancel_all, checked_timeout
from evamqp.recovery.reconnecting_client import ChannelEvents, ReconnectingClient
from evamqp.recovery.reconnector import Reconnector, Target
from evamqp.recovery.store_writer import StoreWriter, Written
from evamqp.recovery.suspects import Suspects, is_error
from evamqp.types import DeliveryMode

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.message import Returned
    from evamqp.errors import ConnectionClosed
    from evamqp.recovery.store import Store
    from evamqp.recovery.topology import Entity, Topology
    from evamqp.types import Body, Tags

# Seconds before a nacked message is sent again: a quorum queue without a leader nacks for some
# tenths of a second.
FIRST_RESEND = 0.05
LONGEST_RESEND = 1.0
# RabbitMQ 3.10 nacks for ever on a channel that published to a quorum queue while the queue had no
# leader; a new channel finds the new leader.  These are the resends that may fail on one channel,
# and the seconds that a channel lasts at least.
RESENDS_PER_CHANNEL = 2
CHANNEL_LIFE = 0.5
# 0.05 * 2**5 exceeds the longest; a power without a limit would overflow.
HIGHEST_POWER = 5
# Seconds before the next attempt at a message that does not fit the output buffer.
ROOM_DELAY = 0.01
# Bytes of a content header besides the properties: class, weight and body size.
HEADER_OVERHEAD = 12
_TRANSIENT = Properties()
_positive = checks.integer(1)
# What becomes of messages that the program may not look after, but for those that are returned.
_DROPPED = {
    Outcome.NACKED: "a message was nacked, and is given up",
    Outcome.EXPIRED: "a message expired",
    Outcome.REFUSED: "a message was refused",
    Outcome.ABANDONED: "a message is abandoned",
}


class Publisher(ReconnectingClient[list[Publication]]):
    """Publishes over reconnections, and keeps every accepted message until its one Outcome.

    Delivery is at least once: a message whose confirm was lost with its connection is published
    again, so a consumer may see it twice.  Each loss duplicates at most the messages without an
    outcome, hence ``max_messages``.

    ``persistent`` and ``mandatory`` are on by default.  Without the first, a broker that restarts
    loses messages that it has confirmed; without the second, it confirms messages that no queue
    takes.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        adapter: The loop; None means the running asyncio loop, or the shared Reconnector's.
        topology: Declared on each connection before anything is published.
        max_messages: Messages without an outcome that it keeps; it rejects more.
        max_bytes: Their bytes.
        persistent: Give ``delivery_mode`` 2 to messages that have none.
        mandatory: Have unroutable messages returned.
        resends: How often to send a nacked message again before it ends as NACKED.
        confirm_timeout: Seconds that a confirm may take while the broker accepts publishes; then
            the channel is replaced, and everything outstanding on it is published again.  The check
            may come half as much later.  Doubled, up to 16 times, for each channel in a row that
            confirmed nothing.  None waits for ever.
        on_writable: Called with True when publishing makes sense, with False when messages would
            only pile up.  One signal for connection, socket, alarm and ``max_messages``.
        on_reconnecting: See Reconnector; a shared one has its own of these three.
        on_recovered: See Reconnector.
        on_topology_error: See Reconnector.
        backoff: See Reconnector.  Each client needs one of its own.
        store: Keeps what is accepted until it has its outcome, so that it outlives the process: a
            SqliteStore, or a Store of the program's own.  Nothing is sent before it is stored.
            What an earlier process left in it is published first, in order, and counts as pending
            from the start.  Opened and read at once, in this call; then a thread writes.

    Attributes:
        is_writable: Whether publishing makes sense now: see ``on_writable``.
        unmatched_returns: Returns so far whose message could not be determined.  After one,
            everything outstanding is published again, one message at a time.

    Raises:
        BadArgument, BadType: A target or limit is wrong.
        WrongState: No adapter was given, and no asyncio loop runs.
        StoreLocked: Another Publisher has the store open.
        StoreFailed: The store cannot be opened.
    """

    def __init__(
        self,
        target: Target | Reconnector,
        *,
        adapter: Adapter | None = None,
        topology: Topology | None = None,
        max_messages: int = 1000,
        max_bytes: int = 16 * 1024 * 1024,
        persistent: bool = True,
        mandatory: bool = True,
        resends: int = 10,
        confirm_timeout: float | None = CONFIRM_TIMEOUT,
        on_writable: Callable[[bool], object] | None = None,
        on_reconnecting: Callable[[int, float, ConnectionClosed], object] | None = None,
        on_recovered: Callable[[int, float], object] | None = None,
        on_topology_error: Callable[[Entity, ChannelClosed], object] | None = None,
        backoff: Backoff | None = None,
        store: Store | None = None,
    ) -> None:
        _positive("max_messages", max_messages)
        _positive("max_bytes", max_bytes)
        checks.integer(0)("resends", resends)
        checks.flag("persistent", persistent)
        checks.flag("mandatory", mandatory)
        check_callbacks("Publisher", on_writable)
        check_confirm_timeout(confirm_timeout)
        self._writer = None if store is None else StoreWriter(store)
        try:
            super().__init__(
                target,
                adapter,
                topology,
                on_reconnecting=on_reconnecting,
                on_recovered=on_recovered,
                on_topology_error=on_topology_error,
                backoff=backoff,
            )
        except BaseException:
            if self._writer is not None:
                self._writer.abort()
            raise
        self.is_writable: bool = False
        self.unmatched_returns: int = 0
        self._persistent = persistent
        self._mandatory = mandatory
        self._resends = resends
        self._on_writable = on_writable
        self._ledger = Ledger(max_messages, max_bytes, is_holding=store is not None)
        self._accepted = 0
        self._ends: Counter[Outcome] = Counter()  # but confirms
        self._confirmed_at: float | None = None
        # The last exchange and routing key, which need no second check, and the last properties
        # with their completed form: many messages share theirs.
        self._names = ("", "")
        self._completed = (_TRANSIENT, PERSISTENT)
        self._suspects = Suspects()
        self._channel_backoff = Backoff()
        # A stale channel is replaced once nothing is outstanding on it.
        self._is_stale = False
        self._channel_since = 0.0
        self._deadlines = Deadlines(self.adapter, self._expire)
        self._confirm_clock = ConfirmClock(self.adapter, confirm_timeout, self._miss_confirms)
        self._room_timer: Handle | None = None
        self._resending: dict[Publication, Handle] = {}
        if self._writer is not None:
            self._adopt(self._writer)

    def _adopt(self, writer: StoreWriter) -> None:
        """Publish what an earlier process left in the store, before anything else."""
        now = time()
        for key, message in writer.left:
            self._accepted += 1
            entry = StoredPublication(
                self._host,
                self._accepted,
                message.exchange,
                message.routing_key,
                message.body,
                Properties.from_raw(message.properties),
                message.mandatory,
                None,
            )
            entry.expires = message.expires
            entry.keep(key)
            self._ledger.adopt(entry)
            if message.expires is not None:
                self._deadlines.add(entry, max(0.0, message.expires - now))
        if writer.left:
            text = f"publishes {len(writer.left)} messages that were left in its store"
            self._log.write(logging.INFO, "left in store", text)
            writer.left.clear()
        writer.start(self.adapter, self._written, self._store_failed)

    def __repr__(self) -> str:
        return f"<Publisher {self._ledger.count} waiting, {self.reconnector.state.value}>"

    def _role(self) -> str:
        return "publisher"

    def _unfinished(self) -> tuple[int, str]:
        lost = "are lost" if self._writer is None else "are lost unless its store has them"
        return self._ledger.count, f"accepted messages have no outcome, and {lost}"

    def health(self) -> Health:
        """Return how it is doing now."""
        last_confirm = ago(self.adapter.time(), self._confirmed_at)
        return super().health()._replace(pending=self.pending, last_confirm=last_confirm)

    @property
    def stats(self) -> PublisherStats:
        """What became of its messages so far, over all connections."""
        ends = self._ends
        return PublisherStats(
            self._accepted,
            self.pending,
            self._accepted - self.pending - ends.total(),
            ends[Outcome.NACKED],
            ends[Outcome.RETURNED],
            ends[Outcome.EXPIRED],
            ends[Outcome.REFUSED],
            ends[Outcome.ABANDONED],
            self._ledger.repeats,
        )

    @property
    def pending(self) -> int:
        """How many messages have no outcome yet."""
        return self._ledger.count

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        properties: Properties | None = None,
        *,
        mandatory: bool | None = None,
        persistent: bool | None = None,
        timeout: float | None = None,
        callback: Callable[[Publication], object] | None = None,
    ) -> Publication:
        """Accept a message.  Legal at any time, also before the first connection and between two.

        Args:
            exchange: Name; "" is the default exchange, which routes by queue name.
            routing_key: Up to 255 bytes of UTF-8.
            body: Bytes-like; anything but bytes is copied at once.
            properties: None sends none but the delivery mode, if persistent.
            mandatory: None means the publisher's setting.
            persistent: None means the publisher's setting.
            timeout: Seconds until it ends as EXPIRED; None means never.
            callback: Called with the Publication when it has its outcome.

        Returns:
            The handle of this message; await it or ignore it.

        Raises:
            OutputFull: It is full; wait for ``on_writable(True)``.  Nothing was accepted.
            BadArgument, BadType: It cannot be sent.  Nothing was accepted.  If only the next
                connection shows that its properties fit no frame, it ends as REFUSED.
            MalformedData: Its properties came from a broker and are malformed.  Nothing was
                accepted.
            WrongState: The publisher is closed or closing.
            WrongThread: Not the thread of the loop.
        """
        writer = self._writer
        if self._is_closing or self._host.owner != get_ident():
            self._check_open("publish")
        if timeout is not None:
            timeout = checked_timeout(timeout)
        if callback is not None and not callable(callback):
            raise BadType(f"callback must be callable, not {callback!r}")
        if (exchange, routing_key) != self._names:
            encode_shortstr(exchange, "exchange")
            encode_shortstr(routing_key, "routing_key")
            self._names = (exchange, routing_key)
        entry = (Publication if writer is None else StoredPublication)(
            self._host,
            self._accepted + 1,
            exchange,
            routing_key,
            body if type(body) is bytes else copy_body(body),
            self._complete(properties, self._persistent if persistent is None else persistent),
            bool(self._mandatory if mandatory is None else mandatory),
            callback,
        )
        try:
            self._ledger.accept(entry)
        except OutputFull:
            self._refresh_writable()  # so that on_writable(True) follows
            raise
        self._accepted += 1
        if timeout is not None:
            self._deadlines.add(entry, timeout)
        if writer is not None:
            assert isinstance(entry, StoredPublication)
            entry.expires = None if timeout is None else time() + timeout
            writer.add(entry)
        self._pump()
        return entry

    def _complete(self, properties: Properties | None, persistent: bool) -> Properties:
        if properties is None:
            return PERSISTENT if persistent else _TRANSIENT
        if not isinstance(properties, Properties):
            raise BadType(f"properties must be Properties, not {type(properties).__name__}")
        given, completed = self._completed
        if properties is given and persistent:
            return completed
        size = len(properties.check())
        completed = properties
        if persistent and properties.delivery_mode is None:
            completed = properties.replace(delivery_mode=DeliveryMode.PERSISTENT)
        if size >= SMALL and self._channel is not None:
            what = "Publisher.publish: its properties"
            self._channel.connection.context.limits.check_frame(
                what, HEADER_OVERHEAD + len(completed.raw)
            )
        if persistent:
            self._completed = (properties, completed)
        return completed

    def close(self, timeout: float | None = None) -> Request[list[Publication]]:
        """Accept nothing more, wait for the outcomes of what was accepted, then disconnect.

        Idempotent: every call returns the same report.

        Args:
            timeout: Seconds to wait; then what is left ends as ABANDONED, and the connection ends
                within another second, whatever the broker does.  None waits for ever.

        Returns:
            A request for the abandoned publishes, in publish order; it never fails.

        Raises:
            BadArgument, BadType: The timeout is not a number.
            WrongThread: Not the thread of the loop.
        """
        return self._close(timeout)

    # Sending

    def _pump(self) -> None:
        """Send what may be sent now, in order."""
        if self._is_stale and self._ledger.is_idle:
            self._renew_channel()
        channel = self._channel
        if channel is not None:
            self._send(channel)
        self._refresh_writable()

    def _send(self, channel: Channel) -> None:
        connection = channel.connection
        ledger = self._ledger
        while (
            connection.is_writable
            and not self._is_stale
            and not (self._suspects.isolated and self._must_wait(channel))
        ):
            entry = ledger.next_unsent()
            if entry is None:
                return
            try:
                tag = channel.basic_publish(
                    entry.exchange,
                    entry.routing_key,
                    entry.body,
                    entry.properties,
                    entry.mandatory,
                )
            except WrongState:  # the channel is ending, and its end will be reported
                ledger.put_back(entry)
                return
            except OutputFull:
                ledger.put_back(entry)
                # It does not fit into the room that is left, though the output may be below the
                # threshold that on_writable reports.
                if self._room_timer is None:
                    self._room_timer = self.adapter.call_later(ROOM_DELAY, self._try_room)
                return
            except AmqpError as error:  # it does not fit this broker's frames
                self._defer(self._refuse, entry, error)
            except BaseException:
                ledger.put_back(entry)
                raise
            else:
                ledger.mark_sent(entry, tag)

    def _must_wait(self, channel: Channel) -> bool:
        """Whether the next suspect must wait for an outcome of ours or another member's."""
        if channel.unconfirmed:
            return True
        return bool(self._suspects.witnesses) and not self.reconnector.admit(self)

    def _try_room(self) -> None:
        self._room_timer = None
        self._pump()

    def _refresh_writable(self) -> None:
        channel = self._channel
        writable = (
            channel is not None
            and not self._is_closing
            and channel.connection.is_writable
            and self._ledger.has_room
        )
        if writable is not self.is_writable:
            self.is_writable = writable
            if self._on_writable is not None:
                self._defer(self._invoke, "on_writable", self._on_writable, writable)

    # Outcomes

    def _settle(self, entry: Publication, outcome: Outcome) -> None:
        if self._deadlines.waiting:
            self._deadlines.waiting.pop(entry.number, None)
        if self._resending:
            cancel_all(self._resending.pop(entry, None))
        self._acquit(entry)
        if outcome is not Outcome.CONFIRMED:
            self._ends[outcome] += 1
            if outcome in _DROPPED and not entry.is_watched:
                why = "" if entry.detail is None else f": {entry.detail}"
                kind = f"{outcome.name.lower()} message"
                self._log.write(logging.ERROR, kind, f"{_DROPPED[outcome]}{why}")
        if self._writer is not None:
            assert isinstance(entry, StoredPublication)
            self._writer.settle(entry, outcome)
        self._ledger.settle(entry, outcome)

    def _refuse(self, entry: Publication, reason: AmqpError) -> None:
        if not entry.is_done:
            entry.detail = reason
            self._settle(entry, Outcome.REFUSED)
            self._refresh_writable()
            self._defer(self._close_if_done)

    def _confirmed(self, tags: Tags, acked: bool) -> None:
        self._channel_backoff.reset()
        self._confirmed_at = self.adapter.time()
        for entry in self._ledger.take_confirmed(tags):
            if not acked:
                self._nacked(entry)
            elif entry._returned is not None:
                entry.detail = entry._returned
                self._log_return(entry, entry._returned)
                self._settle(entry, Outcome.RETURNED)
            else:
                self._settle(entry, Outcome.CONFIRMED)
        self._pump()
        self._close_if_done()

    def _nacked(self, entry: Publication) -> None:
        self._acquit(entry)
        entry._returned = None
        if entry._resends >= self._resends:
            self._settle(entry, Outcome.NACKED)
            return
        if entry._resends >= RESENDS_PER_CHANNEL:
            age = self.adapter.time() - self._channel_since
            self._is_stale = self._is_stale or age >= CHANNEL_LIFE
        power = min(entry._resends, HIGHEST_POWER)
        delay = min(LONGEST_RESEND, FIRST_RESEND * (1 << power))
        entry._resends += 1
        self._resending[entry] = self.adapter.call_later(delay, partial(self._resend, entry))

    def _resend(self, entry: Publication) -> None:
        del self._resending[entry]
        self._ledger.put_last(entry)
        self._pump()

    def _expire(self) -> None:
        for entry in self._deadlines.take_due():
            entry.detail = self._why_pending(entry)
            self._settle(entry, Outcome.EXPIRED)
        self._pump()
        self._close_if_done()

    def _why_pending(self, entry: Publication) -> AmqpError:
        """Why a publish has no outcome yet."""
        if entry.is_sent:
            return RequestTimeout("it was published, and the broker has not confirmed it")
        if entry in self._ledger.held:
            return NotReady("its store has not written it yet")
        channel, cause = self._channel, self._readiness.last_error
        if channel is None or not self.is_ready:
            why = "there is no connection to publish it on"
            error = NotReady(why if cause is None else f"{why}: {cause}")
            error.__cause__ = cause
            return error
        if channel.connection.is_blocked:
            return NotReady("the broker takes no publishes: it has an alarm")
        if entry in self._resending:
            return PublishNacked("the broker nacked it, and it waits to be sent again")
        return NotReady("others are sent before it")

    # The store

    def _written(self, group: Sequence[Written]) -> None:
        """The store has these publishes, or failed to take them."""
        for entry, key in group:
            if isinstance(key, StoreFailed):
                self._refuse(entry, key)
                self._log.write(logging.ERROR, "store", f"a message was not accepted: {key}")
            else:
                self._ledger.release(entry)
        self._pump()

    def _store_failed(self, reason: StoreFailed) -> None:
        text = f"outcomes are not in its store yet, and are tried again: {reason}"
        self._log.write(logging.ERROR, "store", text)

    # Returns

    def _log_return(self, entry: Publication, returned: Returned) -> None:
        """Log a return for which no callback was given."""
        if not entry.is_watched:
            words = returned.as_error()
            self._log.write(logging.WARNING, "return", f"a message was returned: {words}")

    def _returned(self, returned: Returned) -> None:
        ledger = self._ledger
        if ledger.match_return(returned):
            return
        self.unmatched_returns += 1
        words = returned.as_error()
        text = f"a return matches no single publish: {words}"
        self._log.write(logging.ERROR, "unmatched return", text)
        if ledger.may_be_returned:
            # None of them may count as confirmed.  Sent one at a time, a return is certain.
            self._suspects.isolate(ledger.under_way)
            self._renew_channel()

    # The channel

    def _open_channel(self) -> None:
        connection = self._ready_connection()
        if connection is None:
            return
        try:
            channel = connection.channel(_Events(self))
        except (OutputFull, WrongState):  # no number is free, or the output is full
            self._try_later(self._channel_backoff.next(), self._open_channel)
            return
        self._channel = channel
        self._is_served = False
        self._is_stale = False
        self._channel_since = self.adapter.time()
        self._confirm_clock.start(channel, self._channel_backoff.attempts)
        try:
            channel.confirm_select(callback=lambda none: self._be_ready(channel))
        except (OutputFull, WrongState):
            channel.close()
            return
        self._pump()

    def _renew_channel(self, *, last: bool = False) -> None:
        """Replace the channel, and send what is outstanding again on the new one, first or last."""
        channel, self._channel = self._channel, None
        self._confirm_clock.stop()
        if channel is not None:
            channel.close()
            self._ledger.take_back(last=last)
            self._open_channel()

    def _miss_confirms(self, channel: Channel) -> None:
        count = len(channel.unconfirmed)
        text = f"no confirm for {count} publishes in time: they are published again"
        self._log.write(logging.WARNING, "missing confirm", text)
        self._channel_backoff.next()
        # A suspect without an outcome must not hold up all others.  But a channel that has not even
        # opened says nothing about it.
        was_alone = bool(self._suspects.isolated) and channel.is_open
        for entry in self._ledger.under_way if was_alone else ():
            self._acquit(entry)
        self._renew_channel(last=was_alone)

    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._readiness.failed(reason)
        self._confirm_clock.stop()
        is_blamed = self._is_blamed(channel, reason)
        self._judge(channel, reason, is_blamed)
        self._ledger.take_back()
        self._refresh_writable()
        if channel.connection.is_open:
            delay = 0.0 if is_blamed else self._channel_backoff.next()
            text = f"its channel closed, the next follows in {delay:.2f} s: {reason}"
            self._log.write(logging.WARNING, "closed channel", text)
            self._try_later(delay, self._open_channel)
        self._defer(self._close_if_done)

    # Culprits

    def _is_blamed(self, channel: Channel, reason: ChannelClosed) -> bool:
        """Whether the broker blames a publish of ours.

        On a shared connection it may be the publish of another member.
        """
        is_ours = channel.connection.is_open or self._is_owner
        return is_ours and reason.by == "broker" and reason.method == "basic.publish"

    def _judge(self, channel: Channel, reason: ChannelClosed, is_blamed: bool) -> None:
        """Refuse the publish that made the broker close, if it is known."""
        under_way, unconfirmed = self._ledger.under_way, len(channel.unconfirmed)
        culprits: list[Publication] = []
        if is_blamed:
            culprits = self._suspects.judge_channel(under_way, unconfirmed)
        elif is_error(reason) and not channel.connection.is_open:
            culprits = self._suspects.judge_connection(
                under_way, unconfirmed, is_ours=self._is_owner
            )
        for entry in culprits:
            self._refuse(entry, reason)

    def _acquit(self, entry: Publication) -> None:
        """Clear a suspect, and let other members of the connection send theirs."""
        suspects = self._suspects
        if suspects.isolated or suspects.witnesses:
            suspects.acquit(entry)
            self.reconnector.release(self)

    # Member of the reconnector

    def _disconnected(self, reason: ConnectionClosed) -> None:
        super()._disconnected(reason)
        self._confirm_clock.stop()
        self._ledger.take_back()
        self.reconnector.release(self)
        self._refresh_writable()

    def _writable(self, writable: bool) -> None:
        if self._channel is not None and self._channel.connection.is_blocked:
            self._confirm_clock.restart()
        self._pump()

    # The end

    def _stop(self) -> None:
        self._refresh_writable()

    def _close_if_done(self) -> None:
        if self._is_closing and not self._ledger.count:
            self._end([])

    def _give_up(self) -> None:
        if self._is_closed:
            return
        left = sorted([*self._ledger, *self._resending], key=lambda entry: entry.number)
        whys = [self._reason or self._why_pending(entry) for entry in left]
        self._ledger.take_back()
        for entry, why in zip(left, whys, strict=True):
            entry.detail = why
            self._settle(entry, Outcome.ABANDONED)
        self._end(left)

    def _end(self, left: list[Publication]) -> None:
        cancel_all(self._room_timer)
        self._room_timer = None
        self._confirm_clock.end()
        self._deadlines.end()
        self._ledger.clear()
        self.reconnector.release(self)
        self._finish(left)
        self._refresh_writable()

    def _notify_closed(self, reason: object) -> None:
        if self._writer is None:
            super()._notify_closed(reason)
        else:
            self._writer.close(partial(super()._notify_closed, reason))


class _Events(ChannelEvents):
    """Passes the events of its channel to a publisher."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(publisher)
        self._publisher = publisher

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        if channel is self._publisher._channel:
            self._publisher._confirmed(tags, acked)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        if channel is self._publisher._channel:
            self._publisher._returned(returned)
