"""Records in a Topology what a connection declares, binds and deletes.

It sees requests that succeeded; the reconnector decides when to declare them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from evamqp.errors import UsageError
from evamqp.recovery.topology import Binding, Key, Topology

if TYPE_CHECKING:
    from evamqp.types import DeclareOk, TableLike

log: logging.Logger = logging.getLogger(__name__)

# The broker reserves these names: it declares such entities itself, and refuses to let clients.
_RESERVED = "amq."


class Recorder:
    """Records in a topology what one connection declares, binds and deletes.

    The connection calls it with each request that succeeded: channel number, method, the values
    sent, and the result; and with ``channel.close`` when a channel of an open connection has ended.
    ``nowait`` requests have no reply and are not recorded.  An entity that is recorded again keeps
    its policy.

    Args:
        topology: Where to write.
        recorded: The keys of what was written there, over all connections; kept up to date.
        others: Returns the other topologies, from which deleted entities are removed.
        is_needed: Returns whether a consumer will come back to a queue of that name.
        label: The connection's name in log lines.
    """

    __slots__ = (
        "_bound",
        "_consumers",
        "_is_needed",
        "_label",
        "_last_queue",
        "_others",
        "_recorded",
        "_topology",
    )

    def __init__(
        self,
        topology: Topology,
        recorded: set[Key] | None = None,
        others: Callable[[], Iterable[Topology]] = tuple,
        is_needed: Callable[[str], bool] = lambda queue: False,
        label: str = "a connection",
    ) -> None:
        self._label = label
        self._topology = topology
        self._recorded = set() if recorded is None else recorded
        self._others = others
        self._is_needed = is_needed
        self._last_queue: dict[int, str] = {}  # by channel: what "" means in queue.bind
        self._consumers: dict[tuple[int, str], str] = {}  # queue by channel and tag
        self._bound = topology.sources  # exchanges that bindings lead from, or led from

    def __call__(self, number: int, method: str, values: tuple[Any, ...], result: Any) -> None:
        record = RECORDS.get(method)
        if record is None:
            return
        try:
            record(self, number, result, *values)
        except UsageError as error:
            # You changed the arguments between the call and its reply.
            log.error("%s: %s cannot be recorded: %s", self._label, method, error)

    def _note(self, key: Key) -> None:
        """Note that an entity is about to be written."""
        if not self._topology.has(key):
            self._recorded.add(key)

    def _remove(self, remove: Callable[[Topology], object]) -> None:
        """Remove a deleted entity from every topology."""
        for topology in (self._topology, *self._others()):
            remove(topology)
        self._recorded &= self._topology.keys

    def _named(self, number: int, queue: str) -> str:
        """The queue's name; "" if it was declared without waiting for a reply."""
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
        self._topology.add_binding(kind, destination, source, key, arguments)
        if self._topology.get_exchange(source) is not None:
            self._bound.add(source)

    def _unbind(
        self, kind: Literal["queue", "exchange"], destination: str, source: str, key: str,
        arguments: TableLike | None,
    ) -> None:  # fmt: skip
        self._remove(lambda topology: topology.unbind(kind, destination, source, key, arguments))
        self._sweep_exchanges()

    # Auto-delete

    def _basic_consume(self, number: int, tag: str, queue: str, *rest: object) -> None:
        self._consumers[number, tag] = self._named(number, queue)

    def _basic_cancel(self, number: int, tag: str, *rest: object) -> None:
        self._consumer_gone((number, tag))

    def _channel_close(self, number: int, result: None) -> None:
        self._last_queue.pop(number, None)
        for consumer in [each for each in self._consumers if each[0] == number]:
            self._consumer_gone(consumer)

    def _consumer_gone(self, consumer: tuple[int, str]) -> None:
        """An auto-delete queue ends with the last consumer that we know of."""
        queue = self._consumers.pop(consumer, "")
        entity = self._topology.get_queue(queue)
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
        """An auto-delete exchange ends with the last binding that leads from it."""
        topology = self._topology
        for name in self._bound - topology.sources:
            self._bound.discard(name)
            entity = topology.get_exchange(name)
            if entity is not None and entity.auto_delete and entity.key in self._recorded:
                topology.remove_exchange(name)
                self._recorded &= topology.keys
                self._sweep_exchanges()


#: What to record of each method; all others leave the topology as it is.
RECORDS: dict[str, Callable[..., None]] = {
    "exchange.declare": Recorder._exchange_declare,
    "exchange.delete": Recorder._exchange_delete,
    "exchange.bind": Recorder._exchange_bind,
    "exchange.unbind": Recorder._exchange_unbind,
    "queue.declare": Recorder._queue_declare,
    "queue.delete": Recorder._queue_delete,
    "queue.bind": Recorder._queue_bind,
    "queue.unbind": Recorder._queue_unbind,
    "basic.consume": Recorder._basic_consume,
    "basic.cancel": Recorder._basic_cancel,
    "channel.close": Recorder._channel_close,
}
