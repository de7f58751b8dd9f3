"""A publisher that reconnects and keeps each message until it has one outcome.

What is kept lives in ``recovery/ledger.py``, how it comes back in ``recovery/reconnector.py``.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING

from evamqp.codec.fields import encode_shortstr
from evamqp.codec.properties import Properties
from evamqp.core.channel import copy_body
from evamqp.core.handler import Handler
from evamqp.core.request import Request
from evamqp.errors import BadArgument, BadType, ChannelClosed, OutputFull, WrongState
from evamqp.recovery.backoff import Backoff
from evamqp.recovery.client import call_off, checked_timeout
from evamqp.recovery.ledger import Ledger, Outcome, Publication
from evamqp.recovery.reconnector import Reconnector, Target
from evamqp.recovery.service import Service
from evamqp.types import DeliveryMode

if TYPE_CHECKING:
    from evamqp.adapters.base import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.message import Returned
    from evamqp.errors import ConnectionClosed
    from evamqp.recovery.topology import Entity, Topology
    from evamqp.types import Body, Tags

log = logging.getLogger(__name__)

# Seconds before the resends of a nacked message: a quorum queue without a leader nacks for some
# tenths of a second.
FIRST_RESEND = 0.05
LONGEST_RESEND = 1.0
# RabbitMQ 3.10 nacks for ever on a channel that published to a quorum queue while that had no
# leader; a new channel knows the new one.  So many resends may fail on one channel, and so many
# seconds pass between two channels.
RESENDS_PER_CHANNEL = 2
CHANNEL_LIFE = 0.5
# 0.05 * 2**5 is past the longest; a power without a limit would overflow.
HIGHEST_POWER = 5
# Seconds until a message that is larger than the room in the output buffer is tried again.
ROOM_DELAY = 0.01
# Deadlines of messages that have their outcome already, kept before they are swept.
DEADLINES_KEPT = 1000
_PERSISTENT = Properties(delivery_mode=DeliveryMode.PERSISTENT)
_TRANSIENT = Properties()


class Publisher(Service[list[Publication]]):
    """Publishes over reconnections; nothing that was accepted is lost or forgotten.

    Each ``publish`` ends in exactly one Outcome.  Delivery is at least once: a message whose
    confirm was lost with its connection is published again, so a consumer may see it twice.
    Duplicates per loss are at most the messages that were under way, hence ``max_messages``.

    ``persistent`` and ``mandatory`` are on by default.  Without the first, a broker that restarts
    forgets messages that it has confirmed; without the second, it confirms messages that no queue
    takes.

    Args:
        target: A URL, Parameters, a list of them, or a Reconnector to share.
        adapter: The loop; None means the running asyncio loop, or the shared Reconnector's.
        topology: Declared before anything is published, on each connection.
        max_messages: Messages without an outcome that are kept; more are refused.
        max_bytes: Their bytes.
        persistent: Give ``delivery_mode`` 2 to messages that have none.
        mandatory: Have unroutable messages returned.
        resends: How often a nacked message is sent again before it counts as NACKED.
        on_writable: Called with True and False: whether publishing now will not just pile up.
            It joins connection, socket, alarm and ``max_messages`` into one signal.
        on_reconnecting: See Reconnector, which gets these three unless it is shared.
        on_recovered: See Reconnector.
        on_topology_error: See Reconnector.

    Raises:
        BadArgument, BadType: A target or limit is wrong.
        WrongState: No adapter was given, and no asyncio loop runs.
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
        on_writable: Callable[[bool], object] | None = None,
        on_reconnecting: Callable[[int, float, ConnectionClosed], object] | None = None,
        on_recovered: Callable[[int, float], object] | None = None,
        on_topology_error: Callable[[Entity, ChannelClosed], object] | None = None,
    ) -> None:
        if max_messages < 1 or max_bytes < 1 or resends < 0:
            raise BadArgument("max_messages and max_bytes must be 1 or more, resends 0 or more")
        super().__init__(
            target,
            adapter,
            topology,
            on_reconnecting=on_reconnecting,
            on_recovered=on_recovered,
            on_topology_error=on_topology_error,
        )
        self.is_writable = False
        self._persistent = persistent
        self._mandatory = mandatory
        self._resends = resends
        self._on_writable = on_writable
        self._ledger = Ledger(max_messages, max_bytes)
        self._accepted = 0
        # Exchange and routing key last seen, which need no second check; the properties last
        # seen, and as they are sent.  Many messages share theirs.
        self._names = ("", "")
        self._completed = (_TRANSIENT, _PERSISTENT)
        # Those of which one closed the channel: sent one at a time, until it does so again.
        self._suspects: set[Publication] = set()
        self._channel_backoff = Backoff()
        # When a stale channel has no publish under way any more, another is opened.
        self._is_stale = False
        self._channel_since = 0.0
        self._deadlines: list[tuple[float, int]] = []  # and numbers; a heap
        self._expiring: dict[int, Publication] = {}
        self._deadline_timer: Handle | None = None
        self._room_timer: Handle | None = None
        self._resending: dict[Publication, Handle] = {}

    def __repr__(self) -> str:
        return f"<Publisher {self._ledger.count} waiting, {self.reconnector.state.value}>"

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
        """Accept a message.  Legal at any time: before the first connection and between two.

        Args:
            exchange: Name; "" is the default exchange, which routes to the queue of that name.
            routing_key: Up to 255 bytes of UTF-8.
            body: Bytes-like; anything but bytes is copied at the call.
            properties: None sends none but, if persistent, the delivery mode.
            mandatory: None means the publisher's.
            persistent: None means the publisher's.
            timeout: Seconds until it counts as EXPIRED; None means never.
            callback: Called with the Publication when it has its outcome.

        Returns:
            The handle of this message, to be awaited or ignored.

        Raises:
            OutputFull: The publisher is full; wait for ``on_writable(True)``.  Nothing was taken.
            BadArgument, BadType: It cannot be sent.  Nothing was taken.
            MalformedData: Its properties came from a broker and are broken.  Nothing was taken.
            WrongState: The publisher is closed or closing.
            WrongThread: Not the thread of the loop.
        """
        if self._is_closing or self.reconnector._owner != get_ident():
            self._check_open("publish")
        if timeout is not None:
            timeout = checked_timeout(timeout)
        if callback is not None and not callable(callback):
            raise BadType(f"callback must be callable, not {callback!r}")
        if (exchange, routing_key) != self._names:
            encode_shortstr(exchange, "exchange")
            encode_shortstr(routing_key, "routing_key")
            self._names = (exchange, routing_key)
        entry = Publication(
            self,
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
            self._refresh_writable()  # so that True follows
            raise
        self._accepted += 1
        if timeout is not None:
            self._set_deadline(entry, self.adapter.time() + timeout)
        self._pump()
        return entry

    def _complete(self, properties: Properties | None, persistent: bool) -> Properties:
        if properties is None:
            return _PERSISTENT if persistent else _TRANSIENT
        if not isinstance(properties, Properties):
            raise BadType(f"properties must be Properties, not {type(properties).__name__}")
        if not persistent:
            properties.check()
            return properties
        given, completed = self._completed
        if properties is not given:
            properties.check()
            completed = properties
            if properties.delivery_mode is None:
                completed = properties.replace(delivery_mode=DeliveryMode.PERSISTENT)
            self._completed = (properties, completed)
        return completed

    def close(self, timeout: float | None = None) -> Request[list[Publication]]:
        """Accept nothing more, wait for the outcomes of what was accepted, then disconnect.

        Idempotent: every call gets the same report.

        Args:
            timeout: Seconds to wait; then what is left ends as ABANDONED.  None waits for ever.

        Returns:
            A request for the abandoned publishes, in publish order; it never fails.

        Raises:
            BadArgument, BadType: The timeout is no number.
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
            and not (self._suspects and channel.unconfirmed)
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
            except WrongState:  # the channel is ending, which will be told
                ledger.put_back(entry)
                return
            except OutputFull:
                ledger.put_back(entry)
                # It does not fit beside what waits already, and that may be so little that nobody
                # is told when it is gone.
                if self._room_timer is None:
                    self._room_timer = self.adapter.call_later(ROOM_DELAY, self._try_room)
                return
            except BadArgument as error:  # no frame of this connection can hold its properties
                entry.detail = error
                self._owe(self._refuse, entry)
                continue
            ledger.mark_sent(entry, tag)

    def _refuse(self, entry: Publication) -> None:
        if not entry.is_done:
            self._settle(entry, Outcome.REFUSED)
        self._pump()
        self._close_if_done()

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
                self._owe(self._tell, "on_writable", None, self._on_writable, writable)

    # Outcomes

    def _settle(self, entry: Publication, outcome: Outcome) -> None:
        if self._expiring:
            self._expiring.pop(entry.number, None)
        if self._resending:
            call_off(self._resending.pop(entry, None))
        if self._suspects:
            self._suspects.discard(entry)
        self._ledger.settle(entry, outcome)

    def _confirmed(self, tags: Tags, acked: bool) -> None:
        self._channel_backoff.reset()
        for entry in self._ledger.take_confirmed(tags):
            if not acked:
                self._nacked(entry)
            elif entry._returned is not None:
                entry.detail = entry._returned
                self._settle(entry, Outcome.RETURNED)
            else:
                self._settle(entry, Outcome.CONFIRMED)
        self._pump()
        self._close_if_done()

    def _nacked(self, entry: Publication) -> None:
        self._suspects.discard(entry)
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

    # Deadlines

    def _set_deadline(self, entry: Publication, at: float) -> None:
        deadlines = self._deadlines
        self._expiring[entry.number] = entry
        if len(deadlines) > 2 * len(self._expiring) + DEADLINES_KEPT:
            deadlines[:] = [due for due in deadlines if due[1] in self._expiring]
            heapq.heapify(deadlines)
        due = (at, entry.number)
        heapq.heappush(deadlines, due)
        if deadlines[0] is due:
            self._arm_deadline(at)

    def _arm_deadline(self, at: float) -> None:
        call_off(self._deadline_timer)
        delay = max(0.0, at - self.adapter.time())
        self._deadline_timer = self.adapter.call_later(delay, self._expire)

    def _expire(self) -> None:
        self._deadline_timer = None
        now = self.adapter.time()
        deadlines = self._deadlines
        while deadlines and (deadlines[0][0] <= now or deadlines[0][1] not in self._expiring):
            entry = self._expiring.pop(heapq.heappop(deadlines)[1], None)
            if entry is not None:
                self._settle(entry, Outcome.EXPIRED)
        if deadlines:
            self._arm_deadline(deadlines[0][0])
        self._pump()
        self._close_if_done()

    # The channel

    def _open_channel(self) -> None:
        connection = self._ready_connection()
        if connection is None:
            return
        try:
            channel = connection.channel(_Events(self))
        except (OutputFull, WrongState):  # no number is free, or no room for so much output
            self._try_later(self._channel_backoff.next(), self._open_channel)
            return
        self._channel = channel
        self._is_stale = False
        self._channel_since = self.adapter.time()
        try:
            channel.confirm_select()
        except (OutputFull, WrongState):
            channel.close()
            return
        self._pump()

    def _renew_channel(self) -> None:
        """Nothing is under way on a channel that only nacks: replace it."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            self._ledger.take_back()  # tags begin anew
            self._open_channel()

    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        is_blamed = self._is_blamed(channel, reason)
        if is_blamed:
            self._find_culprit(channel, reason)
        self._ledger.take_back()
        self._refresh_writable()
        if channel.connection.is_open:
            delay = 0.0 if is_blamed else self._channel_backoff.next()
            log.warning("the channel of a publisher closed, next in %.2f s: %s", delay, reason)
            self._try_later(delay, self._open_channel)
        self._owe(self._close_if_done)

    def _is_blamed(self, channel: Channel, reason: ChannelClosed) -> bool:
        """Whether a publish of ours is to blame.

        The end of a connection that others share may be the doing of one of theirs.
        """
        is_ours = channel.connection.is_open or self._is_owner
        return is_ours and reason.by == "broker" and reason.method == "basic.publish"

    def _find_culprit(self, channel: Channel, reason: ChannelClosed) -> None:
        """If one publish alone was under way, it is that; else send them one at a time."""
        under_way = self._ledger.under_way
        if len(channel.unconfirmed) > 1:
            self._suspects = set(under_way)
            return
        self._suspects.clear()
        for entry in under_way:
            entry.detail = reason
            self._settle(entry, Outcome.REFUSED)

    # Member of the reconnector

    def _disconnected(self, reason: ConnectionClosed) -> None:
        super()._disconnected(reason)
        self._ledger.take_back()
        self._refresh_writable()

    def _writable(self, writable: bool) -> None:
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
        self._ledger.take_back()
        left = sorted([*self._ledger, *self._resending], key=lambda entry: entry.number)
        for entry in left:
            entry.detail = self._reason
            self._settle(entry, Outcome.ABANDONED)
        self._end(left)

    def _end(self, left: list[Publication]) -> None:
        call_off(self._deadline_timer, self._room_timer)
        self._deadline_timer = self._room_timer = None
        self._deadlines.clear()
        self._ledger.clear()
        self._finish(left)
        self._refresh_writable()


class _Events(Handler):
    """What a publisher hears of its channel."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        if channel is self._publisher._channel:
            self._publisher._confirmed(tags, acked)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        if channel is self._publisher._channel:
            self._publisher._ledger.match_return(returned)

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        self._publisher._channel_closed(channel, reason)
