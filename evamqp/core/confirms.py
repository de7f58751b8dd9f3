"""Which publishes of a channel still await their confirm: two numbers and a set of holes.

Nothing is kept per publish, so publishing costs the same with 1 and with 100,000 unconfirmed.
"""

from __future__ import annotations

from evamqp.types import Tags


class Confirms:
    """Outstanding are the tags from ``lowest`` up to, not including, ``next``, less the holes."""

    __slots__ = ("_holes", "_lowest")

    def __init__(self) -> None:
        self._lowest = 1
        self._holes: set[int] = set()

    def settle(self, tag: int, multiple: bool, next_tag: int) -> Tags:
        """Take a confirm for ``tag``, or for everything up to it, and return what it newly settles.

        A tag that is not outstanding settles nothing.  Tag 0 with ``multiple`` means all.
        """
        if multiple:
            if tag >= next_tag:
                return ()
            return self._settle_up_to(tag or next_tag - 1)
        if not self._lowest <= tag < next_tag or tag in self._holes:
            return ()
        if tag == self._lowest:
            self._lowest += 1
            if self._holes:
                self._close_holes()
        else:
            self._holes.add(tag)
        return range(tag, tag + 1)

    def _settle_up_to(self, last: int) -> Tags:
        covered = range(self._lowest, last + 1)
        if not covered:
            return ()
        self._lowest = last + 1
        holes = self._holes
        if not holes:
            return covered
        newly = [tag for tag in covered if tag not in holes]
        holes.difference_update(covered)
        self._close_holes()
        return _contiguous(newly)

    def _close_holes(self) -> None:
        holes = self._holes
        while self._lowest in holes:
            holes.remove(self._lowest)
            self._lowest += 1

    def outstanding(self, next_tag: int) -> Tags:
        """The tags below ``next_tag`` without an outcome, ascending."""
        waiting = range(self._lowest, next_tag)
        if not self._holes:
            return waiting
        return _contiguous([tag for tag in waiting if tag not in self._holes])

    @property
    def lowest(self) -> int:
        """Everything below this has its outcome."""
        return self._lowest


def _contiguous(tags: list[int]) -> Tags:
    if tags and tags[-1] - tags[0] == len(tags) - 1:
        return range(tags[0], tags[-1] + 1)
    return tags
