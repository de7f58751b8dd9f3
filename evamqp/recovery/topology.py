"""Exchanges, queues and bindings as data.

You write a Topology by hand, or ``recorder.py`` records it; ``replay.py`` declares it on each new
connection.  Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from evamqp.codec.fields import encode_shortstr, encode_table
from evamqp.codec.methods import read_flag
from evamqp.core.channel import client_made_name
from evamqp.errors import BadArgument

if TYPE_CHECKING:
    from evamqp.core.channel import Channel
    from evamqp.core.request import Request
    from evamqp.types import TableLike

#: What to do about an entity that cannot be declared: retry until it works, skip it, or give up
#: the whole recovery.
Policy: TypeAlias = Literal["retry", "skip", "fail"]
POLICIES = ("skip", "retry", "fail")  # by strictness


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
        """Identifies it among all entities."""
        return ("exchange", self.name)

    @property
    def method(self) -> str:
        """The method that declares it, as the spec names it."""
        return "exchange.declare"

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
        """Identifies it among all entities."""
        return ("queue", self.name)

    @property
    def method(self) -> str:
        """The method that declares it, as the spec names it."""
        return "queue.declare"

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
        """Identifies it; the order of arguments does not matter, as on the broker."""
        arguments = dict(sorted((self.arguments or {}).items()))
        return (
            self.kind, self.destination, self.source, self.routing_key, encode_table(arguments)
        )  # fmt: skip

    @property
    def method(self) -> str:
        """The method that declares it, as the spec names it."""
        return f"{self.kind}.bind"

    def declare(self, channel: Channel, **callbacks: Any) -> Request[Any]:
        bind = channel.queue_bind if self.kind == "queue" else channel.exchange_bind
        return bind(self.destination, self.source, self.routing_key, self.arguments, **callbacks)


Entity: TypeAlias = Exchange | Queue | Binding
BindingKey: TypeAlias = tuple[str, str, str, str, bytes]
Key: TypeAlias = tuple[str, str] | BindingKey


class Topology:
    """What has to exist on the broker.  Iterate for the order of declaring.

    Args:
        policy: For entities added without one.  An entity that replaces one of the same name
            keeps that one's policy.
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
        """The keys of all entities."""
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
        """Whether it holds an entity with that key."""
        if len(key) == 2:
            return key[1] in (self._queues if key[0] == "queue" else self._exchanges)
        return key in self._bindings

    def get_queue(self, name: str) -> Queue | None:
        """The queue of that name; None if it holds none."""
        return self._queues.get(name)

    def get_exchange(self, name: str) -> Exchange | None:
        """The exchange of that name; None if it holds none."""
        return self._exchanges.get(name)

    @property
    def sources(self) -> set[str]:
        """The exchanges that bindings lead from."""
        return {binding.source for binding in self._bindings.values()}

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
        """Add an exchange, or replace the one of that name; return the name.

        Raises:
            BadType: A name is not a str, a flag not a bool, or no table can hold the arguments.
            BadArgument: A name has more than 255 bytes, or the policy is unknown.  The topology is
                unchanged.
        """
        _check(exchange=name, exchange_type=exchange_type)
        self._exchanges[name] = Exchange(
            name, exchange_type, read_flag(durable, "durable"),
            read_flag(auto_delete, "auto_delete"), read_flag(internal, "internal"),
            copy_table(arguments), self._policy(policy, self._exchanges.get(name)),
        )  # fmt: skip
        return name

    def queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: TableLike | None = None,
        policy: Policy | None = None,
    ) -> str:
        """Add a queue, or replace the one of that name; return the name.

        Args:
            name: "" generates a name here, so that the queue keeps it over reconnections.
            durable: RabbitMQ 4.3 and later refuse a queue that is neither durable nor exclusive.

        Raises:
            As for ``exchange``.
        """
        _check(queue=name)
        name = name or client_made_name()
        self._queues[name] = Queue(
            name, read_flag(durable, "durable"), read_flag(exclusive, "exclusive"),
            read_flag(auto_delete, "auto_delete"),
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
        self.add_binding("queue", queue, exchange, routing_key, arguments, policy)

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
        self.add_binding("exchange", destination, source, routing_key, arguments, policy)

    def add_binding(
        self,
        kind: Literal["queue", "exchange"],
        destination: str,
        source: str,
        routing_key: str,
        arguments: TableLike | None,
        policy: Policy | None = None,
    ) -> None:
        """Add a binding of either kind.  Raises as ``exchange`` does."""
        _check(destination=destination, source=source, routing_key=routing_key)
        arguments = copy_table(arguments)
        binding = Binding(kind, destination, source, routing_key, arguments, self.policy)
        policy = self._policy(policy, self._bindings.get(binding.key))
        self._bindings[binding.key] = binding._replace(policy=policy)

    def update(self, other: Topology) -> None:
        """Add all entities of ``other``; they replace ours of the same name."""
        self._exchanges.update(other._exchanges)
        self._queues.update(other._queues)
        self._bindings.update(other._bindings)

    def merge(self, other: Topology) -> None:
        """Add all entities of ``other``; where both hold one, the stricter policy counts."""
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
        for kind, destination in wanted:  # grows as we go
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
        """Remove a binding, if it is here."""
        wanted = Binding(kind, destination, source, routing_key, arguments, self.policy)
        self._bindings.pop(wanted.key, None)

    def remove_queue(self, name: str) -> None:
        """Remove a queue, if it is here, and its bindings."""
        self._queues.pop(name, None)
        self._keep(lambda binding: (binding.kind, binding.destination) != ("queue", name))

    def remove_exchange(self, name: str) -> None:
        """Remove an exchange, if it is here, and its bindings."""
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
    """Reject now what a replay could not declare later."""
    for what, name in names.items():
        encode_shortstr(name, what)


def copy_table(table: TableLike | None) -> TableLike | None:
    """Copy a table, and check that it can be sent; None stays None.

    Raises:
        BadType, BadArgument: No AMQP table can hold it.
    """
    encode_table(table, "arguments")
    return None if table is None else deepcopy(dict(table))


def _checked(policy: Policy) -> Policy:
    if policy not in POLICIES:
        raise BadArgument(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
    return policy
