"""A publisher that reconnects and keeps each message until it has one outcome.

What is kept lives in ``recovery/ledger.py``, how it comes back in ``recovery/reconnector.py``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from evamqp.codec.fields import encode_shortstr
from evamqp.codec.properties import Properties
from evamqp.core.channel import copy_body
from evamqp.core.handler import Handler
from evamqp.core.request import Request
from evamqp.errors import BadArgument, BadType, ChannelClosed, OutputFull, WrongState
from evamqp.recovery.backoff import Backoff
from evamqp.recovery.client import Client
from evamqp.recovery.ledger import Ledger, Outcome, Publication
from evamqp.recovery.reconnector import Reconnector, Target, as_reconnector
from evamqp.types import DeliveryMode

if TYPE_CHECKING:
    from evamqp.adapters.base import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection
    from evamqp.core.message import Returned
    from evamqp.errors import Closed, ConnectionClosed, TopologyFailed
    from evamqp.recovery.topology import Entity, Topology
    from evamqp.types import Body, Tags

# Seconds before the resends of a nacked message: a quorum queue without a leader nacks for some
# tenths of a second.
FIRST_RESEND = 0.05
LONGEST_RESEND = 1.0
# Deadlines of messages that have their outcome already, kept before they are swept.
DEADLINES_KEPT = 1000
_PERSISTENT = Properties(delivery_mode=DeliveryMode.PERSISTENT)


class Publisher(Client):
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
        reconnector, self._is_owner = as_reconnector(
            target,
            adapter,
            on_reconnecting=on_reconnecting,
            on_recovered=on_recovered,
            on_topology_error=on_topology_error,
        )
        super().__init__(reconnector.adapter)
        self.reconnector = reconnector
        self.is_writable = False
        self._persistent = persistent
        self._mandatory = mandatory
        self._resends = resends
        self._on_writable = on_writable
        self._ledger = Ledger(max_messages, max_bytes)
        self._channel: Channel | None = None
        # After a publish closed the channel: one at a time, until the culprit does it again.
        self._is_probing = False
        self._channel_backoff = Backoff()
        self._deadlines: list[tuple[float, int, Publication]] = []
        self._numbers = count(1)
        self._timer: Handle | None = None
        self._resending: dict[Publication, Handle] = {}
        self._closing: list[Request[list[Publication]]] = []
        self._is_closing = False
        self._is_closed = False
        self._close_timer: Handle | None = None
        reconnector.join(self, topology)

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
            WrongState: The publisher is closed or closing.
            WrongThread: Not the thread of the loop.
        """
        self._check_caller("publish")
        if self._is_closing:
            raise WrongState("publish: the publisher is closed")
        entry = Publication(
            self,
            next(self._numbers),
            _checked_name(exchange, "exchange"),
            _checked_name(routing_key, "routing_key"),
            _checked_body(body),
            self._complete(properties, self._persistent if persistent is None else persistent),
            self._mandatory if mandatory is None else mandatory,
            callback,
        )
        self._ledger.accept(entry)
        if timeout is not None:
            self._set_deadline(entry, self.adapter.time() + timeout)
        self._pump()
        return entry

    def _complete(self, properties: Properties | None, persistent: bool) -> Properties:
        if properties is None:
            return _PERSISTENT if persistent else Properties()
        if not isinstance(properties, Properties):
            raise BadType(f"properties must be Properties, not {type(properties).__name__}")
        if persistent and properties.delivery_mode is None:
            return properties.replace(delivery_mode=DeliveryMode.PERSISTENT)
        return properties

    def close(self, timeout: float | None = None) -> Request[list[Publication]]:
        """Accept nothing more, wait for the outcomes of what was accepted, then disconnect.

        Args:
            timeout: Seconds to wait; then what is left ends as ABANDONED.  None waits for ever.

        Returns:
            A request for the abandoned publishes, in publish order; it never fails.
        """
        self._check_caller("Publisher.close")
        request: Request[list[Publication]] = Request(self, "Publisher.close")
        if self._is_closed:
            self._owe(request.resolve, [])
            return request
        self._closing.append(request)
        if timeout is not None:
            if self._close_timer is not None:
                self._close_timer.cancel()
            self._close_timer = self.adapter.call_later(max(0.0, timeout), self._abandon)
        if not self._is_closing:
            self._is_closing = True
            self._refresh_writable()
            self._owe(self._close_if_drained)
        return request

    # Sending

    def _pump(self) -> None:
        """Send what may be sent now, in order."""
        channel = self._channel
        connection = self.reconnector.connection
        ledger = self._ledger
        while channel is not None and connection is not None and connection.is_writable:
            if self._is_probing and ledger.under_way:
                break
            entry = ledger.next_unsent()
            if entry is None:
                break
            try:
                tag = channel.basic_publish(
                    entry.exchange,
                    entry.routing_key,
                    entry.body,
                    entry.properties,
                    entry.mandatory,
                )
            except (OutputFull, WrongState):  # the channel is ending: its end will be told
                ledger.put_back(entry)
                break
            ledger.mark_sent(entry, tag)
        self._refresh_writable()

    def _refresh_writable(self) -> None:
        connection = self.reconnector.connection
        writable = (
            not self._is_closing
            and self._channel is not None
            and connection is not None
            and connection.is_writable
            and self._ledger.has_room
        )
        if writable is not self.is_writable:
            self.is_writable = writable
            if self._on_writable is not None:
                self._owe(self._tell, "on_writable", None, self._on_writable, writable)

    # Outcomes

    def _settle(self, entry: Publication, outcome: Outcome) -> None:
        self._ledger.settle(entry, outcome)
        handle = self._resending.pop(entry, None)
        if handle is not None:
            handle.cancel()

    def _confirmed(self, tags: Tags, acked: bool) -> None:
        self._channel_backoff.reset()
        for entry in self._ledger.take_confirmed(tags):
            if not acked:
                self._nacked(entry)
            elif entry._is_returned:
                self._settle(entry, Outcome.RETURNED)
            else:
                self._settle(entry, Outcome.CONFIRMED)
        self._pump()
        self._close_if_drained()

    def _nacked(self, entry: Publication) -> None:
        if entry._resends >= self._resends:
            self._settle(entry, Outcome.NACKED)
            return
        delay = min(LONGEST_RESEND, FIRST_RESEND * (1 << entry._resends))
        entry._resends += 1
        entry._is_returned = False
        resend = partial(self._resend, entry)
        self._resending[entry] = self.adapter.call_later(delay, resend)

    def _resend(self, entry: Publication) -> None:
        del self._resending[entry]
        self._ledger.put_last(entry)
        self._pump()

    def _returned(self, returned: Returned) -> None:
        entry = self._ledger.match_return(returned)
        if entry is not None:
            entry.detail = returned

    def _set_deadline(self, entry: Publication, at: float) -> None:
        if len(self._deadlines) > 2 * self._ledger.count + DEADLINES_KEPT:
            self._deadlines = [waiting for waiting in self._deadlines if not waiting[2].is_done]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (at, entry.number, entry))
        if self._deadlines[0][2] is entry:
            if self._timer is not None:
                self._timer.cancel()
            delay = max(0.0, at - self.adapter.time())
            self._timer = self.adapter.call_later(delay, self._expire)

    def _expire(self) -> None:
        self._bind_owner()
        self._timer = None
        now = self.adapter.time()
        deadlines = self._deadlines
        while deadlines and (deadlines[0][0] <= now or deadlines[0][2].is_done):
            entry = heapq.heappop(deadlines)[2]
            if not entry.is_done:
                self._settle(entry, Outcome.EXPIRED)
        if deadlines:
            self._timer = self.adapter.call_later(deadlines[0][0] - now, self._expire)
        self._pump()
        self._close_if_drained()

    # The channel

    def _open_channel(self) -> None:
        connection = self.reconnector.connection
        if (
            connection is None
            or not (self.reconnector.is_ready and connection.is_open)
            or self._channel is not None
            or self._is_closed
        ):
            return
        channel = connection.channel(_Events(self))
        channel.confirm_select()
        self._channel = channel
        self._pump()

    def _channel_closed(self, channel: Channel, reason: ChannelClosed) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        ledger = self._ledger
        if reason.culprit == "basic.publish":
            if ledger.under_way == 1:
                self._refuse(reason)
            else:
                self._is_probing = True
        ledger.take_back()
        self._refresh_writable()
        if reason.culprit == "basic.publish":
            self._owe(self._open_channel)
        else:
            self.adapter.call_later(self._channel_backoff.next(), self._open_channel)
        self._owe(self._close_if_drained)

    def _refuse(self, reason: ChannelClosed) -> None:
        """The only publish under way is what the broker closed the channel for."""
        self._is_probing = False
        for entry in self._ledger.take_confirmed(self._ledger.sent_tags):
            entry.detail = reason
            self._settle(entry, Outcome.REFUSED)

    # Member of the reconnector

    def _connected(self, connection: Connection) -> None:
        self._bind_owner()
        self._open_channel()

    def _disconnected(self, reason: ConnectionClosed) -> None:
        self._bind_owner()
        self._channel = None
        self._ledger.take_back()
        self._refresh_writable()

    def _writable(self, writable: bool) -> None:
        self._pump()

    def _ended(self, reason: Closed | TopologyFailed) -> None:
        """No connection will come: whatever has no outcome never gets one from the broker."""
        self._is_closing = True
        for entry in (*self._ledger, *self._resending):
            entry.detail = reason
        self._abandon()

    # The end

    def _close_if_drained(self) -> None:
        if self._is_closing and not self._is_closed and not self._ledger.count:
            self._finish([])

    def _abandon(self) -> None:
        if self._is_closed:
            return
        self._ledger.take_back()
        left = sorted([*self._ledger, *self._resending], key=lambda entry: entry.number)
        for entry in left:
            self._settle(entry, Outcome.ABANDONED)
        self._finish(left)

    def _finish(self, left: list[Publication]) -> None:
        self._is_closed = True
        for timer in (self._timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self.reconnector.leave(self)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._refresh_writable()
        requests, self._closing = self._closing, []

        def tell(reason: object) -> None:
            for request in requests:
                request.resolve(left)

        if self._is_owner:
            self.reconnector.close(callback=tell)
        else:
            tell(None)


class _Events(Handler):
    """What a publisher hears of its channel."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def on_delivery_confirmation(self, channel: Channel, tags: Tags, acked: bool) -> None:
        if channel is self._publisher._channel:
            self._publisher._confirmed(tags, acked)

    def on_return(self, channel: Channel, returned: Returned) -> None:
        if channel is self._publisher._channel:
            self._publisher._returned(returned)

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        self._publisher._channel_closed(channel, reason)


def _checked_name(name: str, what: str) -> str:
    encode_shortstr(name, what)
    return name


def _checked_body(body: Body) -> bytes:
    return body if type(body) is bytes else copy_body(body)
