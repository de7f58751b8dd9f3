"""The topic trie against the same patterns as regular expressions."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from evamqp.testing.broker.exchange import Binding, Destination, TopicMatcher, binding_of

WORDS = st.lists(st.sampled_from(["a", "b", ""]), max_size=4).map(".".join)
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "#"]), max_size=4).map(".".join)


def expression(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression over words that each end with a dot."""
    parts = {"*": r"[^.]*\.", "#": r"([^.]*\.)*"}
    words = pattern.split(".") if pattern else []
    return re.compile("".join(parts.get(word, re.escape(word) + r"\.") for word in words))


def dotted(key: str) -> str:
    return f"{key}." if key else ""


def binding(number: int, pattern: str) -> Binding:
    return binding_of(Destination("queue", str(number)), pattern, {})


@given(st.lists(PATTERNS, max_size=8), WORDS, st.data())
def test_trie_finds_what_the_expressions_find(
    patterns: list[str], key: str, data: st.DataObject
) -> None:
    matcher = TopicMatcher()
    bound = [binding(number, pattern) for number, pattern in enumerate(patterns)]
    for each in bound:
        matcher.add(each)
    gone = data.draw(st.lists(st.sampled_from(bound), unique_by=id)) if bound else []
    for each in gone:
        matcher.remove(each)
    expected = [
        each.destination
        for each in bound
        if each not in gone and expression(each.routing_key).fullmatch(dotted(key))
    ]
    assert sorted(matcher.match(key, {})) == sorted(expected)


def test_trie_without_bindings_is_empty() -> None:
    matcher = TopicMatcher()
    bound = [binding(number, pattern) for number, pattern in enumerate(("a.b.c", "a.#", "#", ""))]
    for each in bound:
        matcher.add(each)
    for each in bound:
        matcher.remove(each)
    assert not matcher._root.next
    assert not matcher._root.destinations


def test_many_hashes_cost_no_more_than_their_number() -> None:
    matcher = TopicMatcher()
    pattern = ".".join(["#", "a"] * 20)
    matcher.add(binding(0, pattern))
    assert not list(matcher.match(".".join(["b"] * 500), {}))
    assert list(matcher.match(".".join(["a"] * 100), {}))
