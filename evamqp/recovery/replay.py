"""Declares a topology on a connection, and deals with the entities that the broker refuses.

The reconnector decides when.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from evamqp.core.handler import Handler
from evamqp.errors import (
    FIRST_ERROR,
    INTERNAL_ERROR,
    RESOURCE_LOCKED,
    ChannelClosed,
    OutputFull,
    UsageError,
    WrongState,
)
from evamqp.recovery.topology import Entity, Key, Queue

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection

log: logging.Logger = logging.getLogger(__name__)

# Seconds.  The broker needs some 20 ms to notice that the former owner of an exclusive queue is
# gone; a queue still locked when the delays have grown to seconds belongs to another client.
FIRST_LOCKED_DELAY = 0.01
LONGEST_LOCKED_DELAY = 2.0
# Seconds between the attempts at an entity with policy ``retry``, which needs someone to act.
FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0


class Replay(Handler):
    """Declares entities on one connection, pipelined on a scratch channel.

    The broker closes a channel at the first request that fails.  Replay then applies that entity's
    policy, and continues with the next entity on a new channel.  An entity to retry is set aside
    until all others were tried, and then tried again with growing delays until it works.  An entity
    over which the broker closed a whole connection is not tried: it counts as failed.

    Args:
        connection: An open connection.
        entities: In the order of declaring.
        adapter: Supplies timers.
        on_round: Called with this Replay whenever every entity has been tried.
        on_error: Called with each entity that failed and the broker's reason.
        on_failed: Called with an entity of policy ``fail`` that failed, and the reason; nothing
            more is declared then.
        on_channel: Called with whether the broker opened the scratch channel.
        on_fatal: Called with the entity over which the broker closed the connection, and why.
        is_wanted: Returns whether to try a failed entity again.
        is_fatal: Returns whether the broker closed a connection over an entity.

    Attributes:
        failing: Entities that are set aside, by key.
    """

    def __init__(
        self,
        connection: Connection,
        entities: list[Entity],
        adapter: Adapter,
        *,
        on_round: Callable[[Replay], object],
        on_error: Callable[[Entity, ChannelClosed], object],
        on_failed: Callable[[Entity, ChannelClosed], object],
        on_channel: Callable[[bool], object],
        on_fatal: Callable[[Entity, ChannelClosed], object],
        is_wanted: Callable[[Entity], bool],
        is_fatal: Callable[[Entity], bool],
    ) -> None:
        self._connection = connection
        self._is_fatal = is_fatal
        self.failing: dict[Key, Entity] = {
            entity.key: entity
            for entity in entities
            if is_fatal(entity) and entity.policy == "retry"
        }
        self._entities = [entity for entity in entities if not is_fatal(entity)]
        self._adapter = adapter
        self._on_round = on_round
        self._on_error = on_error
        self._on_failed = on_failed
        self._on_channel = on_channel
        self._on_fatal = on_fatal
        self._is_wanted = is_wanted
        self._done = 0  # entities finished, in order
        self._sent = 0  # entities finished, or requested on this channel
        self._locked_delay = FIRST_LOCKED_DELAY
        self._delay = FIRST_DELAY
        self._timer: Handle | None = None
        self._channel: Channel | None = None
        self._has_opened = False  # the channel
        self._is_stopped = False

    def start(self) -> None:
        """Begin, or go on with the next entity."""
        self._cancel_timer()
        if self._is_over():
            return
        if self._done < len(self._entities):
            self._declare()
        elif self._channel is not None:
            self._channel.close()
        else:
            self._end_round()

    def _end_round(self) -> None:
        self._done = self._sent = 0
        self._entities = [each for each in self.failing.values() if not self._is_fatal(each)]
        if self._entities:
            self._start_after(self._delay, self._begin_round)
            self._delay = min(2 * self._delay, LONGEST_DELAY)
        self._on_round(self)

    def _begin_round(self) -> None:
        self._entities = [entity for entity in self._entities if self._is_wanted(entity)]
        wanted = {entity.key for entity in self._entities}
        self.failing = {
            key: entity
            for key, entity in self.failing.items()
            if key in wanted or (self._is_fatal(entity) and self._is_wanted(entity))
        }
        self.start()

    def _declare(self) -> None:
        """Send as many requests as there is room for; the replies bring the rest."""
        connection = self._connection
        context = connection.context
        recorder, context.recorder = context.recorder, None  # nothing new to record
        try:
            if self._channel is None:
                self._has_opened = False
                self._channel = connection.channel(self)
                self._sent = self._done
            for entity in self._entities[self._sent :]:
                entity.declare(self._channel, callback=self._declared)
                self._sent += 1
        except (OutputFull, WrongState) as error:
            # No channel number is free, or the output is full.
            if self._sent == self._done:
                log.warning("%r: declaring has to wait: %s", connection, error)
                self._start_after(self._delay, self.start)
                self._delay = min(2 * self._delay, LONGEST_DELAY)
        except UsageError as error:
            if self._sent == self._done:
                self._failed(entity, _as_reason(error))
        finally:
            context.recorder = recorder

    def stop(self) -> None:
        """Stop; no callback is made any more.  Idempotent."""
        self._is_stopped = True
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_over(self) -> bool:
        return self._is_stopped or not self._connection.is_open

    def _declared(self, result: object) -> None:
        self.failing.pop(self._entities[self._done].key, None)
        self._done += 1
        self._locked_delay = FIRST_LOCKED_DELAY
        self._delay = FIRST_DELAY
        if self._done == self._sent:
            self.start()

    def on_channel_open(self, channel: Channel) -> None:
        self._has_opened = True
        self._on_channel(True)

    def on_channel_close(self, channel: Channel, reason: ChannelClosed) -> None:
        if self._is_stopped or channel is not self._channel:
            return
        self._channel = None
        if not self._connection.is_open:
            if self._done < self._sent and _blames(reason, self._entities[self._done]):
                self._on_fatal(self._entities[self._done], reason)
            return
        if self._done == len(self._entities):
            self._end_round()
        elif not self._has_opened:
            self._start_after(self._delay, self.start)
            self._on_channel(False)
        else:
            self._refused(self._entities[self._done], reason)

    def _refused(self, entity: Entity, reason: ChannelClosed) -> None:
        if _is_former_owner(entity, reason) and self._locked_delay < LONGEST_LOCKED_DELAY:
            self._start_after(self._locked_delay, self.start)
            self._locked_delay *= 2
        else:
            self._failed(entity, reason)

    def _failed(self, entity: Entity, reason: ChannelClosed) -> None:
        """Apply the policy of an entity that cannot be declared."""
        self._on_error(entity, reason)
        if self._is_over():
            return
        if entity.policy == "fail":
            self._on_failed(entity, reason)
            return
        if entity.policy == "retry":
            self.failing[entity.key] = entity
        self._done += 1
        self._sent = self._done
        self.start()

    def _start_after(self, delay: float, step: Callable[[], object]) -> None:
        self._cancel_timer()
        self._timer = self._adapter.call_later(delay, step)


def _as_reason(error: UsageError) -> ChannelClosed:
    """The reason for an entity that cannot even be requested."""
    reason = ChannelClosed(str(error), by="client")
    reason.__cause__ = error
    return reason


def _blames(reason: ChannelClosed, entity: Entity) -> bool:
    """Whether the broker closed the whole connection over declaring an entity."""
    if reason.by != "broker" or (reason.code or 0) < FIRST_ERROR:
        return False
    is_refused_feature = reason.code == INTERNAL_ERROR and "deprecated" in reason.text
    return reason.method == entity.method or (reason.method is None and is_refused_feature)


def _is_former_owner(entity: Entity, reason: ChannelClosed) -> bool:
    """Whether our own former connection may still hold an exclusive queue."""
    return isinstance(entity, Queue) and entity.exclusive and reason.code == RESOURCE_LOCKED
