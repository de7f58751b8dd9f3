"""Which publishes of a channel still await their confirm: two numbers, and what was overtaken.

Nothing is kept per publish, so publishing costs the same with 1 and with 100,000 unconfirmed; and
nothing per confirm, so a confirm that never comes costs one entry however many come behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile

from evamqp.types import Tags


class Confirms:
    """Outstanding are the overtaken tags, and those from ``_first`` up to, not including, next."""

    __slots__ = ("_first", "_overtaken")

    def __init__(self) -> None:
        self._first = 1
        # Outstanding tags below ``_first``, ascending.  Unlike a dict, it finds its oldest entry
        # at once, however many were removed before.
        self._overtaken: OrderedDict[int, None] = OrderedDict()

    def settle(self, tag: int, multiple: bool, next_tag: int) -> Tags:
        """Take a confirm for ``tag``, or for everything up to it, and return what it newly settles.

        A tag that is not outstanding settles nothing.  Tag 0 with ``multiple`` means all.
        """
        if tag >= next_tag:
            return ()
        if multiple:
            return self._settle_up_to(tag or next_tag - 1)
        first = self._first
        if tag < first:
            if tag not in self._overtaken:
                return ()
            del self._overtaken[tag]
        else:
            if tag > first:
                self._overtaken.update(dict.fromkeys(range(first, tag)))
            self._first = tag + 1
        return range(tag, tag + 1)

    def _settle_up_to(self, last: int) -> Tags:
        covered = range(self._first, last + 1)
        overtaken = self._overtaken
        if not overtaken:
            self._first = max(self._first, last + 1)
            return covered
        if covered:
            newly = [*overtaken, *covered]
            self._first = last + 1
            overtaken.clear()
        else:
            newly = list(takewhile(lambda tag: tag <= last, overtaken))
            for tag in newly:
                del overtaken[tag]
        return _contiguous(newly)

    def outstanding(self, next_tag: int) -> Tags:
        """The tags below ``next_tag`` without an outcome, ascending."""
        waiting = range(self._first, next_tag)
        return _contiguous([*self._overtaken, *waiting]) if self._overtaken else waiting

    @property
    def lowest(self) -> int:
        """Everything below this has its outcome."""
        return next(iter(self._overtaken), self._first)


class LateConfirms(Confirms):
    """The confirms of a broker that counted publishes before confirm.select.

    Args:
        before: How many.
    """

    __slots__ = ("_before",)

    def __init__(self, before: int) -> None:
        super().__init__()
        self._before = before

    def settle(self, tag: int, multiple: bool, next_tag: int) -> Tags:
        """As Confirms does, for a tag in the broker's own count."""
        if 0 < tag <= self._before:
            self._before = 0  # it did not count them after all
        # By name: a compiled method has no super().
        own = tag - self._before if tag else 0
        return Confirms.settle(self, own, multiple, next_tag)


def _contiguous(tags: list[int]) -> Tags:
    if tags and tags[-1] - tags[0] == len(tags) - 1:
        return range(tags[0], tags[-1] + 1)
    return tags
