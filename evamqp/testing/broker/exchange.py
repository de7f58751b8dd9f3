"""Exchanges and their bindings: which destinations a key and headers lead to.

Routing through several exchanges, and everything about queues, is the virtual host's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from evamqp.codec.fields import encode_table
from evamqp.types import FieldValue, Table

TYPES = ("direct", "fanout", "headers", "topic")


class Destination(NamedTuple):
    """Where a binding leads: ``kind`` is ``"queue"`` or ``"exchange"``."""

    kind: str
    name: str


class Binding(NamedTuple):
    """One binding of an exchange.

    Attributes:
        form: The bytes of the arguments, sorted: where they differ, bindings do.
    """

    destination: Destination
    routing_key: str
    arguments: Table
    form: bytes


def binding_of(destination: Destination, routing_key: str, arguments: Table) -> Binding:
    """The binding with these arguments."""
    return Binding(destination, routing_key, arguments, _form_of(arguments))


def _form_of(table: Table) -> bytes:
    """The bytes of a table: they differ for types that Python takes for equal."""
    return encode_table(dict(sorted(table.items())), "arguments") if table else b""


class Matcher(Protocol):
    """How one type of exchange finds destinations."""

    def add(self, binding: Binding) -> None: ...
    def remove(self, binding: Binding) -> None: ...
    def match(self, routing_key: str, headers: Mapping[str, FieldValue]) -> Iterable[Destination]:
        """Destinations, perhaps some of them twice."""


class Exchange:
    """An exchange; ``bindings`` are in the order in which they were made."""

    __slots__ = (
        "_matcher",
        "arguments",
        "auto_delete",
        "bindings",
        "durable",
        "internal",
        "name",
        "type",
    )

    def __init__(
        self,
        name: str,
        type: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
        matches_floats: bool = True,
    ) -> None:
        self.name: str = name
        self.type: str = type
        self.durable: bool = durable
        self.auto_delete: bool = auto_delete
        self.internal: bool = internal
        self.arguments: Table = arguments or {}
        self.bindings: list[Binding] = []
        self._matcher: Matcher = (
            HeadersMatcher(matches_floats) if type == "headers" else _MATCHERS[type]()
        )

    @property
    def alternate(self) -> str | None:
        """The exchange for what no binding takes."""
        name = self.arguments.get("alternate-exchange")
        return name if isinstance(name, str) else None

    @property
    def reads_headers(self) -> bool:
        return self.type == "headers"

    def has(self, binding: Binding) -> bool:
        """Whether the binding exists."""
        return binding in self.bindings

    def bind(self, binding: Binding) -> None:
        """Add a binding; one that exists already is no error."""
        if not self.has(binding):
            self.bindings.append(binding)
            self._matcher.add(binding)

    def unbind(self, binding: Binding) -> None:
        """Remove a binding that exists."""
        self.bindings.remove(binding)
        self._matcher.remove(binding)

    def unbind_all(self, destination: Destination) -> bool:
        """Remove every binding to a destination; False if there was none."""
        gone = [binding for binding in self.bindings if binding.destination == destination]
        for binding in gone:
            self.unbind(binding)
        return bool(gone)

    def match(self, routing_key: str, headers: Mapping[str, FieldValue]) -> Iterable[Destination]:
        return self._matcher.match(routing_key, headers)


class DirectMatcher:
    """The key is the binding's."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[str, list[Destination]] = {}

    def add(self, binding: Binding) -> None:
        self._by_key.setdefault(binding.routing_key, []).append(binding.destination)

    def remove(self, binding: Binding) -> None:
        found = self._by_key[binding.routing_key]
        found.remove(binding.destination)
        if not found:
            del self._by_key[binding.routing_key]

    def match(self, routing_key: str, headers: Mapping[str, FieldValue]) -> Iterable[Destination]:
        return self._by_key.get(routing_key, ())


class FanoutMatcher:
    """Every binding."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[Destination] = []

    def add(self, binding: Binding) -> None:
        self._all.append(binding.destination)

    def remove(self, binding: Binding) -> None:
        self._all.remove(binding.destination)

    def match(self, routing_key: str, headers: Mapping[str, FieldValue]) -> Iterable[Destination]:
        return self._all


class _Node:
    """A word of some patterns, and what follows it."""

    __slots__ = ("destinations", "is_hash", "next")

    def __init__(self, word: str) -> None:
        self.is_hash = word == "#"
        self.next: dict[str, _Node] = {}
        self.destinations: list[Destination] = []


class TopicMatcher:
    """A trie of the patterns' words: ``*`` is one word, ``#`` any number of words.

    All nodes that the words so far lead to are followed at once, so that no pattern costs more
    than its length.
    """

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Node("")

    def add(self, binding: Binding) -> None:
        node = self._root
        for word in words_of(binding.routing_key):
            if word not in node.next:
                node.next[word] = _Node(word)
            node = node.next[word]
        node.destinations.append(binding.destination)

    def remove(self, binding: Binding) -> None:
        words = words_of(binding.routing_key)
        path = [self._root]
        for word in words:
            path.append(path[-1].next[word])
        path[-1].destinations.remove(binding.destination)
        for parent, word in zip(reversed(path[:-1]), reversed(words), strict=True):
            child = parent.next[word]
            if not child.next and not child.destinations:
                del parent.next[word]

    def match(self, routing_key: str, headers: Mapping[str, FieldValue]) -> Iterator[Destination]:
        nodes = _with_empty_hashes([self._root])
        for word in words_of(routing_key):
            nodes = _with_empty_hashes([found for node in nodes for found in _step(node, word)])
        for node in nodes:
            yield from node.destinations


def words_of(key: str) -> list[str]:
    """The words of a key or pattern; an empty one has none."""
    return key.split(".") if key else []


def _step(node: _Node, word: str) -> Iterator[_Node]:
    """Where one more word leads from a node."""
    if node.is_hash:
        yield node
    # A word of a key that happens to be "*" or "#" is the pattern of that name, found once.
    for pattern in {word, "*"} - {"#"}:
        if pattern in node.next:
            yield node.next[pattern]


def _with_empty_hashes(nodes: list[_Node]) -> list[_Node]:
    """The nodes, each once, and every ``#`` behind them, since it may stand for no word."""
    found = list(dict.fromkeys(nodes))
    for node in found:
        follower = node.next.get("#")
        if follower is not None and follower not in found:
            found.append(follower)
    return found


class HeadersMatcher:
    """The headers that a binding names, all of them or any."""

    __slots__ = ("_bindings", "_matches_floats")

    def __init__(self, matches_floats: bool) -> None:
        self._bindings: list[Binding] = []
        self._matches_floats = matches_floats

    def add(self, binding: Binding) -> None:
        self._bindings.append(binding)

    def remove(self, binding: Binding) -> None:
        self._bindings.remove(binding)

    def match(self, routing_key: str, headers: Mapping[str, FieldValue]) -> Iterator[Destination]:
        for binding in self._bindings:
            if matches_headers(binding.arguments, headers, self._matches_floats):
                yield binding.destination


def matches_headers(
    arguments: Table, headers: Mapping[str, FieldValue], matches_floats: bool
) -> bool:
    """Whether headers meet a binding's arguments; one whose value is None asks for presence only.

    Keys that begin with ``x-`` count only where ``x-match`` ends with ``-with-x``.
    """
    match = str(arguments.get("x-match", "all"))
    keys = [
        key
        for key in arguments
        if key != "x-match" and (match.endswith("-with-x") or not key.startswith("x-"))
    ]
    decide = any if match.startswith("any") else all
    return decide(
        key in headers
        and (arguments[key] is None or is_same(arguments[key], headers[key], matches_floats))
        for key in keys
    )


def is_same(wanted: FieldValue, value: FieldValue, matches_floats: bool) -> bool:
    """Whether RabbitMQ takes two values for the same.

    Numbers and times compare by value, whatever their size; truth and decimals only among
    themselves, decimals digit by digit; what is inside arrays and tables by its type, too.
    """
    kind = _kind_of(wanted)
    if kind is not _kind_of(value):
        return False
    if kind is Decimal:
        return str(wanted) == str(value)
    if kind is int:
        if isinstance(wanted, float) is not isinstance(value, float) and not matches_floats:
            return False
        return _number_of(wanted) == _number_of(value)
    if kind is bytes:
        return _bytes_of(wanted) == _bytes_of(value)
    return _form_of({"": wanted}) == _form_of({"": value})


def _kind_of(value: FieldValue) -> type:
    """One type for all that may be the same."""
    if isinstance(value, (int, float, datetime)) and not isinstance(value, bool):
        return int
    return bytes if isinstance(value, (str, bytes)) else type(value)


def _number_of(value: FieldValue) -> float:
    number: float = value.timestamp() if isinstance(value, datetime) else value  # type: ignore[assignment]
    return number


def _bytes_of(value: FieldValue) -> bytes:
    raw: bytes = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value  # type: ignore[assignment]
    return raw


_MATCHERS: dict[str, type[Matcher]] = {
    "direct": DirectMatcher,
    "fanout": FanoutMatcher,
    "topic": TopicMatcher,
}
