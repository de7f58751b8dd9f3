"""A virtual host: its exchanges and queues, what may be declared, and where a message goes.

Who asks, and whether that user may, is the channel's.
"""

from __future__ import annotations

import base64
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from evamqp.abc import Handle
from evamqp.testing.broker.arguments import (
    ALTERNATE_EXCHANGE,
    COMPARED,
    COMPARED_LATER,
    TRANSIENTS_ARE_GONE,
    check_match,
    check_pattern,
    check_queue,
    compare,
    kind_of,
)
from evamqp.testing.broker.dead_letters import REJECTED, circles, dead_letter
from evamqp.testing.broker.exchange import TYPES, Binding, Destination, Exchange, binding_of
from evamqp.testing.broker.message import Message
from evamqp.testing.broker.queue import Queue
from evamqp.testing.broker.refusal import (
    Refusal,
    access_refused,
    default_exchange,
    locked,
    missing,
    precondition_failed,
    reserved,
)
from evamqp.testing.broker.release import Release
from evamqp.types import Table

if TYPE_CHECKING:
    from evamqp.testing.broker.publishing import PublishingChannel

PREDECLARED = (
    ("", "direct"),
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
    ("amq.topic", "topic"),
)
#: The pseudo-queue of direct reply-to, and the prefix of the names it stands for.
REPLY_TO = "amq.rabbitmq.reply-to"
# Routes remembered; then the table stops filling.
MAX_TEMPLATES = 4096


class Clock(Protocol):
    """The loop's time."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle: ...


class VirtualHost:
    """One virtual host.

    Args:
        name: Its name.
        clock: The loop.
        names: Where the names that the broker gives come from.
        release: What it imitates.
    """

    __slots__ = (
        "_names", "_release", "_routes", "call_later", "exchanges", "name", "queues",
        "reply_channels", "time",
    )  # fmt: skip

    def __init__(self, name: str, clock: Clock, names: random.Random, release: Release) -> None:
        self.name: str = name
        self._release = release
        self.time: Callable[[], float] = clock.time
        self.call_later: Callable[[float, Callable[[], object]], Handle] = clock.call_later
        self._names = names
        self._routes: dict[tuple[str, str], tuple[Queue, ...]] = {}
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.reply_channels: dict[str, PublishingChannel] = {}
        for exchange, kind in PREDECLARED:
            self.exchanges[exchange] = Exchange(
                exchange, kind, durable=True, matches_floats=release.matches_floats
            )

    def make_name(self, prefix: str) -> str:
        """A name that nobody has, such as ``amq.gen-...``."""
        return prefix + base64.urlsafe_b64encode(self._names.randbytes(16)).decode().rstrip("=")

    # Looking up

    def exchange(self, name: str) -> Exchange:
        """The exchange of this name; 404 without one."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise missing("exchange", name, self.name)
        return exchange

    def queue(self, name: str, asker: object) -> Queue:
        """The queue of this name; 404 without one, 405 if it is another connection's."""
        queue = self.queues.get(name)
        if queue is None:
            raise missing("queue", name, self.name)
        if queue.owner is not None and queue.owner is not asker:
            raise locked(name, self.name)
        return queue

    # Exchanges

    def declare_exchange(
        self,
        name: str,
        kind: str,
        *,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Table,
    ) -> None:
        """Create an exchange, or refuse (406) if one of that name differs."""
        if kind not in TYPES:
            raise Refusal(self._release.unknown_exchange_type, f"unknown exchange type '{kind}'")
        current = self.exchanges.get(name)
        if current is None:
            self._check_new_exchange(name, arguments)
            self._routes.clear()
            self.exchanges[name] = Exchange(
                name,
                kind,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=arguments,
                matches_floats=self._release.matches_floats,
            )
            return
        what = f"exchange '{name}' in vhost '{self.name}'"
        for key, given, had in (
            ("type", kind, current.type),
            ("durable", durable, current.durable),
            ("auto_delete", auto_delete, current.auto_delete),
            ("internal", internal, current.internal),
        ):
            compare(what, key, given, had)
        compare(
            what,
            ALTERNATE_EXCHANGE,
            arguments.get(ALTERNATE_EXCHANGE),
            current.arguments.get(ALTERNATE_EXCHANGE),
        )

    def _check_new_exchange(self, name: str, arguments: Table) -> None:
        if name.startswith("amq."):
            raise reserved("exchange", name)
        alternate = arguments.get(ALTERNATE_EXCHANGE, "")
        if not isinstance(alternate, str):
            raise precondition_failed(
                f"invalid type '{kind_of(alternate)}' for arg '{ALTERNATE_EXCHANGE}' in exchange"
                f" '{name}' in vhost '{self.name}'"
            )

    def delete_exchange(self, name: str, *, if_unused: bool) -> None:
        """Delete an exchange; a missing one is no error."""
        if name.startswith("amq."):
            raise access_refused(
                f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed"
            )
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise precondition_failed(f"exchange '{name}' in vhost '{self.name}' in use")
        self._remove_exchange(exchange)

    def _remove_exchange(self, exchange: Exchange) -> None:
        self._routes.clear()
        if self.exchanges.pop(exchange.name, None) is not None:
            self._unbind_everywhere(Destination("exchange", exchange.name))

    # Queues

    def declare_queue(
        self,
        name: str,
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
        asker: object,
    ) -> Queue:
        """Create a queue, or refuse (405, 406) if one of that name differs."""
        current = self.queues.get(name)
        if current is None:
            if not (durable or exclusive or self._release.transient_queues):
                raise Refusal(541, TRANSIENTS_ARE_GONE)
            check_queue(name, self.name, arguments, self._release)
            self._routes.clear()
            current = self.queues[name] = Queue(
                self,
                name,
                durable=durable,
                owner=asker if exclusive else None,
                auto_delete=auto_delete,
                arguments=arguments,
            )
            return current
        if (current.owner is not None) is not exclusive or current.owner not in (None, asker):
            raise locked(name, self.name)
        what = f"queue '{name}' in vhost '{self.name}'"
        compare(what, "durable", durable, current.durable)
        compare(what, "auto_delete", auto_delete, current.auto_delete)
        for key in COMPARED + (COMPARED_LATER if self._release.queue_versions else ()):
            compare(what, key, arguments.get(key), current.arguments.get(key))
        current.touch()
        return current

    def check_unneeded(self, queue: Queue, *, if_unused: bool, if_empty: bool) -> None:
        """Refuse (406) to delete a queue that is in use, or not empty."""
        what = f"queue '{queue.name}' in vhost '{self.name}'"
        if if_unused and queue.consumer_count:
            raise precondition_failed(f"{what} in use")
        if if_empty and queue.ready:
            raise precondition_failed(f"{what} not empty")

    def remove_queue(self, queue: Queue) -> None:
        """Delete a queue whatever it holds, and cancel its consumers."""
        if self.queues.get(queue.name) is not queue:
            return
        self._routes.clear()
        del self.queues[queue.name]
        queue.purge()
        queue.end()
        for consumer in queue.take_consumers():
            consumer.channel.lose_consumer(consumer)
        self._unbind_everywhere(Destination("queue", queue.name))

    def release_exclusive(self, owner: object) -> None:
        """A connection ended: its exclusive queues end with it."""
        for queue in [queue for queue in self.queues.values() if queue.owner is owner]:
            self.remove_queue(queue)

    # Bindings

    def bind(
        self, source: str, target: Destination, key: str, arguments: Table, asker: object
    ) -> None:
        """Bind; 403 for the default exchange, 404 for what does not exist."""
        exchange = self._source_of(source)
        if target.kind == "exchange":
            self.exchange(target.name)
        elif target.name not in self.queues:
            raise missing("queue", target.name, self.name)
        self._check_binding(exchange, key, arguments)
        self._check_access(target, asker)
        self._routes.clear()
        exchange.bind(binding_of(target, key, arguments))

    def _check_binding(self, exchange: Exchange, key: str, arguments: Table) -> None:
        if exchange.type == "headers":
            check_match(arguments, self._release)
        elif exchange.type == "topic" and self._release.hashes_max is not None:
            check_pattern(key, self._release.hashes_max)

    def _check_access(self, target: Destination, asker: object) -> None:
        """Refuse (405) another connection's exclusive queue."""
        if target.kind == "queue" and target.name in self.queues:
            self.queue(target.name, asker)

    def unbind(
        self, source: str, target: Destination, key: str, arguments: Table, asker: object
    ) -> None:
        """Unbind; what is not bound, or does not exist, is no error."""
        if not source:
            raise default_exchange()
        exchange = self.exchanges.get(source)
        binding = binding_of(target, key, arguments)
        if exchange is None or not exchange.has(binding):
            return
        self._check_access(target, asker)
        self._routes.clear()
        exchange.unbind(binding)
        self._end_if_abandoned(exchange)

    def _source_of(self, name: str) -> Exchange:
        if not name:
            raise default_exchange()
        return self.exchange(name)

    def _unbind_everywhere(self, destination: Destination) -> None:
        for exchange in list(self.exchanges.values()):
            if exchange.unbind_all(destination):
                self._end_if_abandoned(exchange)

    def _end_if_abandoned(self, exchange: Exchange) -> None:
        if exchange.auto_delete and not exchange.bindings:
            self._remove_exchange(exchange)

    # Routing

    def route(self, exchange: Exchange, message: Message) -> tuple[Queue, ...]:
        """The queues that a message goes to, each once."""
        key = exchange.name, message.routing_key
        queues = self._routes.get(key)
        if queues is not None and not message.has_copies:
            return queues
        keys = [message.routing_key, *message.copies]
        queues, depends_on_headers = self._walk(exchange, keys, message)
        if not (depends_on_headers or message.has_copies) and len(self._routes) < MAX_TEMPLATES:
            self._routes[key] = queues
        return queues

    def names_for(self, exchange: Exchange, message: Message) -> tuple[str, ...]:
        """The names of the queues that a message goes to when its transaction is committed.

        Behind the default exchange there may be no queue of that name yet.
        """
        if not exchange.name and not self._release.commit_needs_queue:
            return tuple(dict.fromkeys((message.routing_key, *message.copies)))
        return tuple(queue.name for queue in self.route(exchange, message))

    def _walk(
        self, start: Exchange, keys: list[str], message: Message
    ) -> tuple[tuple[Queue, ...], bool]:
        """Follow bindings from exchange to exchange; the queues, and whether headers decided."""
        seen = {start.name}
        waiting = deque((start,))
        queues: dict[str, Queue] = {}
        depends_on_headers = False
        while waiting:
            exchange = waiting.popleft()
            depends_on_headers |= exchange.reads_headers
            found = self._matches(exchange, keys, message)
            for kind, name in found:
                if kind == "queue" and name in self.queues:
                    queues[name] = self.queues[name]
                elif kind == "exchange" and name in self.exchanges and name not in seen:
                    seen.add(name)
                    waiting.append(self.exchanges[name])
        return tuple(queues.values()), depends_on_headers

    def _matches(self, exchange: Exchange, keys: list[str], message: Message) -> list[Destination]:
        """Where an exchange sends a message; its alternate exchange if nowhere."""
        found: list[Destination]
        if not exchange.name:
            found = [Destination("queue", key) for key in keys if key in self.queues]
        else:
            headers = message.headers if exchange.reads_headers else {}
            found = [each for key in keys for each in exchange.match(key, headers)]
        if not found and exchange.alternate is not None:
            found = [Destination("exchange", exchange.alternate)]
        return found

    def dead_letter(
        self, queue: Queue, message: Message, reason: str, redelivered: bool = False
    ) -> None:
        """A queue gave a message up: to its dead letter exchange, if it has one."""
        name = queue.dead_letter_exchange
        exchange = None if name is None else self.exchanges.get(name)
        if exchange is None:
            return
        again = dead_letter(message, queue.name, reason, exchange.name, queue.dead_letter_key)
        for target in self.route(exchange, again):
            if reason == REJECTED or not circles(again, target.name):
                target.publish(again, redelivered=redelivered)

    # Life

    def restart(self) -> None:
        """The broker restarted: durable things stay, and in them persistent messages."""
        self._routes.clear()
        self.reply_channels.clear()
        for queue in list(self.queues.values()):
            queue.take_consumers()
            if queue.durable and queue.owner is None:
                queue.keep_persistent()
            else:
                self.remove_queue(queue)
        for exchange in list(self.exchanges.values()):
            if not (exchange.durable or self._release.keeps_transient_exchanges):
                self._remove_exchange(exchange)

    def end(self) -> None:
        """The virtual host is deleted."""
        for queue in list(self.queues.values()):
            self.remove_queue(queue)

    def bindings(self) -> Iterable[tuple[Exchange, Binding]]:
        """Every binding, without those of the default exchange."""
        for exchange in self.exchanges.values():
            for binding in exchange.bindings:
                yield exchange, binding
