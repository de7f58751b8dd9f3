"""Which publish a basic.return belongs to, by what no broker rewrites, and only if that is certain.

A broker returns mandatory messages in publish order, each before its confirm, and keeps exchange,
routing key and body as published.  It may rewrite properties: every RabbitMQ strips the header
``BCC``, 4.x sorts headers, keeps the first of several with one name, and changes the types of
numbers; a plugin may do anything.  Properties therefore decide only between messages that are alike
in everything else; if they cannot, no publish is chosen.  Nothing is sent from here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

from evamqp.codec.properties import Properties
from evamqp.errors import MalformedData

if TYPE_CHECKING:
    from evamqp.core.message import Returned
    from evamqp.recovery.ledger import Publication
    from evamqp.types import Tags

# Tags no longer outstanding that may stay in the index before it is swept.
SETTLED_KEPT = 1000


class Look(NamedTuple):
    """What identifies a message.

    Attributes:
        core: A hash of exchange, routing key and body.
        visible: Its properties, as any release of RabbitMQ returns them.
        hidden: The header that RabbitMQ never returns, ``BCC``.
    """

    core: int
    visible: Hashable
    hidden: Hashable


class Twins:
    """Messages whose returns look the same.

    Attributes:
        tags: Their delivery tags, ascending; some may be settled already.
        hidden: The hidden header of the first.
        are_equal: Whether all have the same hidden header: then any of them may be chosen.
    """

    __slots__ = ("are_equal", "hidden", "tags")

    def __init__(self, hidden: Hashable) -> None:
        self.tags: deque[int] = deque()
        self.hidden: Hashable = hidden
        self.are_equal: bool = True

    def add(self, tag: int, hidden: Hashable) -> None:
        self.tags.append(tag)
        self.are_equal = self.are_equal and hidden == self.hidden


class Returns:
    """Matches the returns of one channel to the mandatory messages that are outstanding.

    Messages are indexed from the first return on, each once.

    Args:
        sent: Outstanding publishes by tag, ascending; the owner keeps it up to date.

    Attributes:
        expired: Mandatory messages that expired, whose return or confirm may still come.
    """

    __slots__ = ("_alike", "_indexed", "_last", "_sent", "_size", "expired")

    def __init__(self, sent: dict[int, Publication]) -> None:
        self._sent = sent
        self.expired: dict[int, Look] = {}
        self.clear()

    def clear(self) -> None:
        """Start over with a new channel."""
        self.expired.clear()
        self._last = 0  # the tag returned last
        self._forget()

    def _forget(self) -> None:
        self._alike: dict[int, dict[Hashable, Twins]] = {}  # by core, then by visible
        self._indexed = self._size = 0  # the highest tag indexed; tags in the index

    def expire(self, tag: int, entry: Publication) -> None:
        """Note a sent publish that expired before its confirm."""
        if entry.mandatory and tag > self._last:
            self.expired[tag] = _look_of(entry)

    def confirm(self, tags: Tags) -> None:
        """Note confirms; only needed while ``expired`` is not empty."""
        for tag in tags:
            self.expired.pop(tag, None)

    @property
    def are_possible(self) -> bool:
        """Whether a publish without an outcome may be returned."""
        return any(map(self._may_return, self._sent))

    def match(self, returned: Returned, last_tag: int) -> int:
        """The tag of the returned message; 0 if it cannot be determined."""
        tag = self._only() or self._find(returned, last_tag)
        self._last = tag or self._last
        return tag

    def _only(self) -> int:
        """The tag of the only outstanding message: a return must be of that one."""
        if len(self._sent) + len(self.expired) != 1:
            return 0
        tag = next(iter(self._sent or self.expired))
        return tag if self._may_return(tag) else 0

    def _find(self, returned: Returned, last_tag: int) -> int:
        self._index(last_tag)
        look = _look_of(returned)
        alike = self._alike.get(look.core, {})
        choices = self._choices(alike)
        twins = choices[0] if len(choices) == 1 else alike.get(look.visible)
        if twins is None or not self._clean(twins):
            return 0
        if not twins.are_equal and sum(map(self._may_return, twins.tags)) > 1:
            return 0
        return twins.tags[0]

    def _choices(self, alike: dict[Hashable, Twins]) -> list[Twins]:
        """Up to two groups that may be returned."""
        choices: list[Twins] = []
        gone: list[Hashable] = []
        for visible, twins in alike.items():
            if not self._clean(twins):
                gone.append(visible)
                continue
            choices.append(twins)
            if len(choices) == 2:
                break
        for visible in gone:
            del alike[visible]
        return choices

    def _clean(self, twins: Twins) -> bool:
        """Drop tags that can no longer be returned; whether any is left."""
        tags = twins.tags
        while tags and not self._may_return(tags[0]):
            tags.popleft()
            self._size -= 1
        return bool(tags)

    def _may_return(self, tag: int) -> bool:
        if tag <= self._last:
            return False
        entry = self._sent.get(tag)
        return tag in self.expired if entry is None else entry.mandatory

    def _index(self, last_tag: int) -> None:
        """Index what was sent since the last call."""
        outstanding = len(self._sent) + len(self.expired)
        tags: Tags = range(self._indexed + 1, last_tag + 1)
        if len(tags) > outstanding or self._size > 2 * outstanding + SETTLED_KEPT:
            self._forget()
            tags = sorted([*self._sent, *self.expired])
        for tag in tags:
            if self._may_return(tag):
                entry = self._sent.get(tag)
                look = self.expired[tag] if entry is None else _look_of(entry)
                alike = self._alike.setdefault(look.core, {})
                twins = alike.get(look.visible)
                if twins is None:
                    twins = alike[look.visible] = Twins(look.hidden)
                twins.add(tag, look.hidden)
                self._size += 1
        self._indexed = last_tag


def _look_of(message: Publication | Returned) -> Look:
    core = hash((message.exchange, message.routing_key, message.body))
    return Look(core, *_look_at(message.properties.raw))


def _look_at(raw: bytes) -> tuple[Hashable, Hashable]:
    # A copy, so that the user's object does not keep decoded headers.
    properties = Properties.from_raw(raw)
    try:
        headers = properties.headers
        if headers is None:
            return raw, None
        visible = dict(headers)
        hidden = _freeze(visible.pop("BCC", None))
        return (properties.replace(headers=None).raw, _freeze(visible)), hidden
    except MalformedData:
        return raw, None


def _freeze(value: object) -> Hashable:
    """A value as a key: equal if type and value are, whatever the order of a table."""
    if isinstance(value, dict):
        return tuple((key, _freeze(value[key])) for key in sorted(value))
    if isinstance(value, list):
        return tuple(map(_freeze, value))
    return type(value), value
