"""The members of a Reconnector: publishers, consumers and RPC clients that share its connection.

What each brought, and which may take a risk.  Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from evamqp.recovery.topology import Entity, Key, Topology

if TYPE_CHECKING:
    from evamqp.core.connection import Connection
    from evamqp.errors import ChannelClosed, Closed, ConnectionClosed, TopologyFailed


class Member(Protocol):
    """What a reconnector serves."""

    def _connected(self, connection: Connection) -> None:
        """A connection is ready, and the member's topology is declared."""

    def _undeclared(self, reason: ChannelClosed) -> None:
        """Something that the member waits for could not be declared; it is tried again."""

    def _disconnected(self, reason: ConnectionClosed) -> None:
        """The connection is lost, or the attempt failed."""

    def _writable(self, writable: bool) -> None:
        """The connection's backpressure changed."""

    def _ended(self, reason: Closed | TopologyFailed) -> None:
        """There will be no further connection."""

    def _needs(self, queue: str) -> bool:
        """Whether the member will consume from this queue again."""


class Members:
    """The members in the order of joining, each with the topology that it brought.

    Args:
        shared: The reconnector's own topology.
    """

    __slots__ = ("_prober", "_shared", "_topologies")

    def __init__(self, shared: Topology) -> None:
        self._shared = shared
        self._topologies: dict[Member, Topology] = {}
        self._prober: Member | None = None

    def __iter__(self) -> Iterator[Member]:
        """The members as they are now."""
        return iter(list(self._topologies))

    def __contains__(self, member: Member) -> bool:
        return member in self._topologies

    def add(self, member: Member, topology: Topology | None) -> None:
        """Add a member with a copy of what it brought."""
        brought = Topology()
        if topology is not None and topology is not self._shared:
            brought.update(topology)
        self._topologies[member] = brought

    def remove(self, member: Member) -> None:
        """Remove a member and its topology.  Idempotent."""
        self._topologies.pop(member, None)

    def clear(self) -> list[Member]:
        """Remove all members; return them."""
        members = list(self)
        self._topologies.clear()
        return members

    def brought_by(self, member: Member) -> Topology:
        """The topology of one member; empty if it has left."""
        return self._topologies.get(member, Topology())

    def waiting_for(self, key: Key) -> list[Member]:
        """The members that are not served before this entity is declared."""
        if self._shared.has(key):
            return list(self)
        return [member for member in self if self._topologies[member].has(key)]

    @property
    def topologies(self) -> list[Topology]:
        """What the members brought."""
        return list(self._topologies.values())

    def wanted(self) -> Topology:
        """All that is to be declared; where policies differ, the stricter one counts."""
        wanted = Topology()
        for topology in (self._shared, *self._topologies.values()):
            wanted.merge(topology)
        return wanted

    def want(self, entity: Entity) -> bool:
        """Whether an entity is still to be declared."""
        return any(each.has(entity.key) for each in (self._shared, *self._topologies.values()))

    def need(self, queue: str) -> bool:
        """Whether a member will consume from this queue again."""
        return any(member._needs(queue) for member in self._topologies)

    def admit(self, member: Member) -> bool:
        """Whether a member may send what may end the connection.

        Only one member may at a time, so that the end of a connection has one suspect.
        """
        if self._prober is None:
            self._prober = member
        return self._prober is member

    def release(self, member: Member) -> list[Member]:
        """End a member's turn; return the others, which may try now.  Idempotent."""
        if self._prober is not member:
            return []
        self._prober = None
        return [other for other in self if other is not member]
