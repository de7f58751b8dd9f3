"""Exchanges, queues and bindings as data: written by hand or recorded, and declared again.

``Topology`` is the data, ``Recorder`` fills one from what a connection declares, ``Replay``
declares one on a connection.  When to replay is the reconnector's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from evamqp.codec.fields import encode_shortstr, encode_table
from evamqp.core.channel import client_made_name
from evamqp.core.handler import Handler
from evamqp.errors import (
    RESOURCE_LOCKED,
    BadArgument,
    ChannelClosed,
    OutputFull,
    UsageError,
    WrongState,
)

if TYPE_CHECKING:
    from evamqp.abc import Adapter, Handle
    from evamqp.core.channel import Channel
    from evamqp.core.connection import Connection
    from evamqp.core.request import Request
    from evamqp.types import DeclareOk, TableLike

log = logging.getLogger(__name__)

#: What is done about an entity that cannot be declared: try again until it works, go on without
#: it, or give up the whole recovery.
Policy: TypeAlias = Literal["retry", "skip", "fail"]
POLICIES = ("skip", "retry", "fail")  # by strictness

# Seconds.  The broker needs some 20 ms to see that the former owner of an exclusive queue is gone;
# a queue that is still locked when the delays have grown to the second is somebody else's.
FIRST_LOCKED_DELAY = 0.01
LONGEST_LOCKED_DELAY = 2.0
# Seconds between the attempts at an entity whose policy is to retry.  Somebody has to act.
FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0


class Exchange(NamedTuple):
    """An exchange; see ``Channel.exchange_declare``."""

    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: TableLike | None
    policy: Policy

    @property
    def key(self) -> Key:
        """What tells it from other entities."""
        return ("exchange", self.name)

    def declare(self, channel: Channel, **callbacks: Any) -> Request[Any]:
        return channel.exchange_declare(
            self.name, self.type, False, self.durable, self.auto_delete, self.internal,
            self.arguments, **callbacks,
        )  # fmt: skip


class Queue(NamedTuple):
    """A queue; see ``Channel.queue_declare``."""

    name: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: TableLike | None
    policy: Policy

    @property
    def key(self) -> Key:
        """What tells it from other entities."""
        return ("queue", self.name)

    def declare(self, channel: Channel, **callbacks: Any) -> Request[Any]:
        return channel.queue_declare(
            self.name, False, self.durable, self.exclusive, self.auto_delete, self.arguments,
            **callbacks,
        )  # fmt: skip


class Binding(NamedTuple):
    """A binding of a queue, or of an exchange, to the exchange ``source``."""

    kind: Literal["queue", "exchange"]
    destination: str
    source: str
    routing_key: str
    arguments: TableLike | None
    policy: Policy

    @property
    def key(self) -> BindingKey:
        """What tells it from others; the broker does not look at the order of arguments either."""
        arguments = dict(sorted((self.arguments or {}).items()))
        return (
            self.kind, self.destination, self.source, self.routing_key, encode_table(arguments)
        )  # fmt: skip

    def declare(self, channel: Channel, **callbacks: Any) -> Request[Any]:
        bind = channel.queue_bind if self.kind == "queue" else channel.exchange_bind
        return bind(self.destination, self.source, self.routing_key, self.arguments, **callbacks)


Entity: TypeAlias = Exchange | Queue | Binding
BindingKey: TypeAlias = tuple[str, str, str, str, bytes]
Key: TypeAlias = tuple[str, str] | BindingKey


class Topology:
    """What has to exist on the broker.  Iterating gives the order of declaring.

    Args:
        policy: For entities that are added without one of their own.  One that replaces another
            of its name keeps that one's.
    """

    __slots__ = ("_bindings", "_exchanges", "_queues", "policy")

    def __init__(self, policy: Policy = "retry") -> None:
        self.policy = _checked(policy)
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        self._bindings: dict[BindingKey, Binding] = {}

    def __iter__(self) -> Iterator[Entity]:
        yield from self._exchanges.values()
        yield from self._queues.values()
        yield from self._bindings.values()

    def __len__(self) -> int:
        return len(self._exchanges) + len(self._queues) + len(self._bindings)

    def __repr__(self) -> str:
        return f"<Topology {list(self)}>"

    @property
    def keys(self) -> set[Key]:
        """What tells its entities from others."""
        queues, exchanges = self._queues, self._exchanges
        return {
            *(("exchange", name) for name in exchanges),
            *(("queue", name) for name in queues),
            *self._bindings,
        }

    @property
    def retried(self) -> set[Key]:
        """The keys of entities whose policy is to retry."""
        return {entity.key for entity in self if entity.policy == "retry"}

    def has(self, key: Key) -> bool:
        """Whether an entity of that key is here."""
        if len(key) == 2:
            return key[1] in (self._queues if key[0] == "queue" else self._exchanges)
        return key in self._bindings

    def exchange(
        self,
        name: str,
        exchange_type: str = "direct",
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: TableLike | None = None,
        policy: Policy | None = None,
    ) -> str:
        """Add an exchange, or replace the one of that name; returns the name.

        Raises:
            BadType: A name that is no str, or arguments that no table can hold.
            BadArgument: A name above 255 bytes, or an unknown policy.  The topology is unchanged.
        """
        _check(exchange=name, exchange_type=exchange_type)
        self._exchanges[name] = Exchange(
            name, exchange_type, durable, auto_delete, internal,
            copy_table(arguments), self._policy(policy, self._exchanges.get(name)),
        )  # fmt: skip
        return name

    def queue(
        self,
        name: str = "",
        *,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: TableLike | None = None,
        policy: Policy | None = None,
    ) -> str:
        """Add a queue, or replace the one of that name; returns the name.

        Args:
            name: "" has a name made here, so that the queue keeps it over reconnections.

        Raises:
            As for ``exchange``.
        """
        _check(queue=name)
        name = name or client_made_name()
        self._queues[name] = Queue(
            name, durable, exclusive, auto_delete,
            copy_table(arguments), self._policy(policy, self._queues.get(name)),
        )  # fmt: skip
        return name

    def bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
        *,
        policy: Policy | None = None,
    ) -> None:
        """Add a binding of a queue to an exchange.  Raises as ``exchange`` does."""
        self._bind("queue", queue, exchange, routing_key, arguments, policy)

    def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
        *,
        policy: Policy | None = None,
    ) -> None:
        """Add a binding of the exchange ``destination`` to the exchange ``source``.

        Raises as ``exchange`` does.
        """
        self._bind("exchange", destination, source, routing_key, arguments, policy)

    def _bind(
        self,
        kind: Literal["queue", "exchange"],
        destination: str,
        source: str,
        routing_key: str,
        arguments: TableLike | None,
        policy: Policy | None,
    ) -> None:
        _check(destination=destination, source=source, routing_key=routing_key)
        arguments = copy_table(arguments)
        binding = Binding(kind, destination, source, routing_key, arguments, self.policy)
        policy = self._policy(policy, self._bindings.get(binding.key))
        self._bindings[binding.key] = binding._replace(policy=policy)

    def update(self, other: Topology) -> None:
        """Add all that ``other`` holds; its entities replace ours of the same name."""
        self._exchanges.update(other._exchanges)
        self._queues.update(other._queues)
        self._bindings.update(other._bindings)

    def merge(self, other: Topology) -> None:
        """Add all that ``other`` holds; where both hold an entity, the stricter policy counts."""
        policies = {entity.key: entity.policy for entity in self}
        self.add(
            entity._replace(policy=max(entity.policy, kept, key=POLICIES.index))
            if (kept := policies.get(entity.key)) is not None
            else entity
            for entity in other
        )

    def add(self, entities: Iterable[Entity]) -> None:
        """Add entities as they are; they replace ours of the same name."""
        for entity in entities:
            if isinstance(entity, Exchange):
                self._exchanges[entity.name] = entity
            elif isinstance(entity, Queue):
                self._queues[entity.name] = entity
            else:
                self._bindings[entity.key] = entity

    def of_queue(self, name: str) -> Topology:
        """What a queue needs: itself, the bindings that lead to it, and their exchanges."""
        part = Topology(self.policy)
        part._queues = {key: queue for key, queue in self._queues.items() if key == name}
        wanted = [("queue", name)]
        for kind, destination in wanted:  # which grows
            for key, binding in self._bindings.items():
                if (binding.kind, binding.destination) == (kind, destination):
                    part._bindings[key] = binding
                    if ("exchange", binding.source) not in wanted:
                        wanted.append(("exchange", binding.source))
        exchanges = {source for kind, source in wanted if kind == "exchange"}
        part._exchanges = {key: each for key, each in self._exchanges.items() if key in exchanges}
        return part

    def unbind(
        self,
        kind: Literal["queue", "exchange"],
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: TableLike | None = None,
    ) -> None:
        """Forget a binding.  A no-op if it is not here."""
        wanted = Binding(kind, destination, source, routing_key, arguments, self.policy)
        self._bindings.pop(wanted.key, None)

    def remove_queue(self, name: str) -> None:
        """Forget a queue and its bindings.  A no-op if it is not here."""
        self._queues.pop(name, None)
        self._keep(lambda binding: (binding.kind, binding.destination) != ("queue", name))

    def remove_exchange(self, name: str) -> None:
        """Forget an exchange and its bindings.  A no-op if it is not here."""
        self._exchanges.pop(name, None)
        self._keep(
            lambda binding: (
                binding.source != name and (binding.kind, binding.destination) != ("exchange", name)
            )
        )

    def _keep(self, wanted: Callable[[Binding], bool]) -> None:
        self._bindings = {key: b for key, b in self._bindings.items() if wanted(b)}

    def _policy(self, policy: Policy | None, replaced: Entity | None) -> Policy:
        if policy is not None:
            return _checked(policy)
        return self.policy if replaced is None else replaced.policy


def _check(**names: str) -> None:
    """Refuse now what a replay could not declare later."""
    for what, name in names.items():
        encode_shortstr(name, what)


def copy_table(table: TableLike | None) -> TableLike | None:
    """A table that can be sent, as it is now; None stays None.

    Raises:
        BadType, BadArgument: No table of AMQP can hold it.
    """
    encode_table(table, "arguments")
    return None if table is None else deepcopy(dict(table))


def _checked(policy: Policy) -> Policy:
    if policy not in POLICIES:
        raise BadArgument(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
    return policy


class Recorder:
    """Writes what one connection declares, binds and deletes into a topology.

    The connection calls it with each request that succeeded: the method's name, the values that
    were sent, and the reply; and with ``channel.close`` when a channel of an open connection has
    ended.  ``nowait`` requests have no reply and are not recorded.  An entity that is recorded
    again keeps its policy.

    Args:
        topology: Where it writes.
        recorded: Keys of what it has written there, over all connections; it keeps them up.
        others: The other topologies, from which it removes what was deleted.
        is_needed: Whether somebody comes back for a queue of that name.
    """

    __slots__ = (
        "_bound", "_consumers", "_is_needed", "_last_queue", "_others", "_recorded", "_topology",
    )  # fmt: skip

    def __init__(
        self,
        topology: Topology,
        recorded: set[Key] | None = None,
        others: Callable[[], Iterable[Topology]] = tuple,
        is_needed: Callable[[str], bool] = lambda queue: False,
    ) -> None:
        self._topology = topology
        self._recorded = set() if recorded is None else recorded
        self._others = others
        self._is_needed = is_needed
        self._last_queue: dict[int, str] = {}  # by channel: what "" means in queue.bind
        self._consumers: dict[tuple[int, str], str] = {}  # queue by channel and tag
        self._bound = {binding.source for binding in topology._bindings.values()}  # exchanges

    def __call__(self, number: int, method: str, values: tuple[Any, ...], result: Any) -> None:
        record = getattr(self, "_" + method.replace(".", "_"), None)
        if record is None:
            return
        try:
            record(number, result, *values)
        except UsageError as error:
            # The arguments were changed between the call and its reply.
            log.error("%s cannot be recorded: %s", method, error)

    def _note(self, key: Key) -> None:
        """Something is about to be written."""
        if not self._topology.has(key):
            self._recorded.add(key)

    def _remove(self, remove: Callable[[Topology], object]) -> None:
        """Something was deleted, whoever has it."""
        for topology in (self._topology, *self._others()):
            remove(topology)
        self._recorded &= self._topology.keys

    def _named(self, number: int, queue: str) -> str:
        """The queue's name; "" where it was declared by a request without a reply."""
        return queue or self._last_queue.get(number, "")

    def _exchange_declare(
        self, number: int, result: None, name: str, kind: str, passive: bool, durable: bool,
        auto_delete: bool, internal: bool, nowait: bool, arguments: TableLike | None,
    ) -> None:  # fmt: skip
        if name and not passive and not name.startswith(_RESERVED):
            self._note(("exchange", name))
            self._topology.exchange(
                name, kind, durable=durable, auto_delete=auto_delete, internal=internal,
                arguments=arguments,
            )  # fmt: skip

    def _exchange_delete(self, number: int, result: None, name: str, *flags: bool) -> None:
        self._remove(lambda topology: topology.remove_exchange(name))

    def _queue_declare(
        self, number: int, result: DeclareOk, name: str, passive: bool, durable: bool,
        exclusive: bool, auto_delete: bool, nowait: bool, arguments: TableLike | None,
    ) -> None:  # fmt: skip
        name = self._last_queue[number] = result.queue
        if not passive and not name.startswith(_RESERVED):
            self._note(("queue", name))
            self._topology.queue(
                name, durable=durable, exclusive=exclusive, auto_delete=auto_delete,
                arguments=arguments,
            )  # fmt: skip

    def _queue_delete(self, number: int, result: int, queue: str, *flags: bool) -> None:
        name = self._named(number, queue)
        self._remove(lambda topology: topology.remove_queue(name))
        self._sweep_exchanges()

    def _queue_bind(
        self, number: int, result: None, queue: str, exchange: str, key: str, nowait: bool,
        arguments: TableLike | None,
    ) -> None:  # fmt: skip
        name = self._named(number, queue)
        if name:
            self._bind("queue", name, exchange, key, arguments)

    def _queue_unbind(
        self, number: int, result: None, queue: str, exchange: str, key: str,
        arguments: TableLike | None,
    ) -> None:  # fmt: skip
        self._unbind("queue", self._named(number, queue), exchange, key, arguments)

    def _exchange_bind(
        self, number: int, result: None, destination: str, source: str, key: str, nowait: bool,
        arguments: TableLike | None,
    ) -> None:  # fmt: skip
        self._bind("exchange", destination, source, key, arguments)

    def _exchange_unbind(
        self, number: int, result: None, destination: str, source: str, key: str, nowait: bool,
        arguments: TableLike | None,
    ) -> None:  # fmt: skip
        self._unbind("exchange", destination, source, key, arguments)

    def _bind(
        self, kind: Literal["queue", "exchange"], destination: str, source: str, key: str,
        arguments: TableLike | None,
    ) -> None:  # fmt: skip
        policy = self._topology.policy
        self._note(Binding(kind, destination, source, key, arguments, policy).key)
        self._topology._bind(kind, destination, source, key, arguments, None)
        if source in self._topology._exchanges:
            self._bound.add(source)

    def _unbind(
        self, kind: Literal["queue", "exchange"], destination: str, source: str, key: str,
        arguments: TableLike | None,
    ) -> None:  # fmt: skip
        self._remove(lambda topology: topology.unbind(kind, destination, source, key, arguments))
        self._sweep_exchanges()

    # What goes by itself

    def _basic_consume(self, number: int, tag: str, queue: str, *rest: object) -> None:
        self._consumers[number, tag] = self._named(number, queue)

    def _basic_cancel(self, number: int, tag: str, *rest: object) -> None:
        self._consumer_gone((number, tag))

    def _channel_close(self, number: int, result: None) -> None:
        self._last_queue.pop(number, None)
        for consumer in [each for each in self._consumers if each[0] == number]:
            self._consumer_gone(consumer)

    def _consumer_gone(self, consumer: tuple[int, str]) -> None:
        """An auto-delete queue goes with the last of its consumers, as far as we know them."""
        queue = self._consumers.pop(consumer, "")
        entity = self._topology._queues.get(queue)
        if (
            entity is not None
            and entity.auto_delete
            and entity.key in self._recorded
            and queue not in self._consumers.values()
            and not self._is_needed(queue)
        ):
            self._topology.remove_queue(queue)
            self._recorded &= self._topology.keys
            self._sweep_exchanges()

    def _sweep_exchanges(self) -> None:
        """An auto-delete exchange goes with the last binding that leads from it."""
        topology = self._topology
        sources = {binding.source for binding in topology._bindings.values()}
        for name in self._bound - sources:
            self._bound.discard(name)
            entity = topology._exchanges.get(name)
            if entity is not None and entity.auto_delete and entity.key in self._recorded:
                topology.remove_exchange(name)
                self._recorded &= topology.keys
                self._sweep_exchanges()


# Names that the broker keeps to itself: it declares these, and refuses that we do.
_RESERVED = "amq."


class Replay(Handler):
    """Declares entities on one connection: pipelined, on a scratch channel.

    The broker closes a channel at the first request that fails.  That entity meets its policy,
    and the rest goes on behind it on a new channel.  One that is to be retried is set aside until
    the others were tried, and then with growing delays until it works.

    Args:
        connection: Open.
        entities: In order.
        adapter: For the delays.
        on_round: Called whenever all were tried that could be.
        on_error: Called with each entity that failed and the broker's reason.
        on_failed: Called when an entity with policy ``fail`` failed; nothing follows.
        on_channel: Called with whether the broker has opened the channel.
        is_wanted: Whether an entity that failed is to be tried again.

    Attributes:
        failing: Entities that are set aside, by their keys.
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
        is_wanted: Callable[[Entity], bool],
    ) -> None:
        self.failing: dict[Key, Entity] = {}
        self._connection = connection
        self._entities = entities
        self._adapter = adapter
        self._on_round = on_round
        self._on_error = on_error
        self._on_failed = on_failed
        self._on_channel = on_channel
        self._is_wanted = is_wanted
        self._done = 0  # entities that are settled, in order
        self._sent = 0  # entities that are settled or were asked for on this channel
        self._locked_delay = FIRST_LOCKED_DELAY
        self._delay = FIRST_DELAY
        self._timer: Handle | None = None
        self._channel: Channel | None = None
        self._has_opened = False  # the channel
        self._is_stopped = False

    def start(self) -> None:
        """Begin, or go on behind what is done."""
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
        self._entities = list(self.failing.values())
        if self._entities:
            self._start_after(self._delay, self._begin_round)
            self._delay = min(2 * self._delay, LONGEST_DELAY)
        self._on_round(self)

    def _begin_round(self) -> None:
        self._entities = [entity for entity in self._entities if self._is_wanted(entity)]
        wanted = {entity.key for entity in self._entities}
        self.failing = {key: entity for key, entity in self.failing.items() if key in wanted}
        self.start()

    def _declare(self) -> None:
        """Ask for as much as there is room for; the rest follows when that is answered."""
        connection = self._connection
        recorder, connection._recorder = connection._recorder, None  # it is known already
        try:
            if self._channel is None:
                self._has_opened = False
                self._channel = connection.channel(self)
                self._sent = self._done
            for entity in self._entities[self._sent :]:
                entity.declare(self._channel, callback=self._declared)
                self._sent += 1
        except (OutputFull, WrongState) as error:
            # No channel number is free, or no room for so much output.
            if self._sent == self._done:
                log.warning("declaring has to wait: %s", error)
                self._start_after(self._delay, self.start)
                self._delay = min(2 * self._delay, LONGEST_DELAY)
        except UsageError as error:
            if self._sent == self._done:
                self._failed(entity, _as_reason(error))
        finally:
            connection._recorder = recorder

    def stop(self) -> None:
        """Call nobody any more.  Idempotent."""
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
        if self._is_over() or channel is not self._channel:
            return
        self._channel = None
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
        """The next entity cannot be declared: it meets its policy."""
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
    """Why an entity cannot even be asked for."""
    reason = ChannelClosed(str(error), by="client")
    reason.__cause__ = error
    return reason


def _is_former_owner(entity: Entity, reason: ChannelClosed) -> bool:
    """Whether our own former connection may still hold an exclusive queue, as after any loss."""
    return isinstance(entity, Queue) and entity.exclusive and reason.code == RESOURCE_LOCKED
