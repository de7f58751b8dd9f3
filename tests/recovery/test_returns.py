"""Whose return it is, whatever a broker makes of the properties: what went nowhere is RETURNED."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evamqp
from evamqp import Outcome, Properties
from tests.perf.steady import count_steps
from tests.recovery.stage import LONG, Stage, numbered
from tests.support.scripted_broker import Publish

Rewriting = Callable[[Properties], Properties]


def rewrite(properties: Properties, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    headers = properties.headers
    if headers is None:
        return properties.raw
    return properties.replace(headers=change(dict(headers))).raw


def as_3(raw: bytes) -> bytes:
    """What RabbitMQ 3.x makes of properties."""
    properties = Properties.from_raw(raw)
    if "BCC" not in (properties.headers or {}):
        return raw
    return rewrite(properties, lambda headers: {k: headers[k] for k in headers if k != "BCC"})


def as_4(raw: bytes) -> bytes:
    """What RabbitMQ 4.x makes of them."""
    return rewrite(
        Properties.from_raw(raw),
        lambda headers: {k: headers[k] for k in sorted(headers) if k != "BCC"},
    )


def as_a_plugin(raw: bytes) -> bytes:
    """What an interceptor makes of them that writes down when and where."""
    return Properties.from_raw(as_4(raw)).replace(timestamp=1, app_id="node").raw


BROKERS = [as_3, as_4, as_a_plugin]


class Routing:
    """A broker that returns what it cannot route, in its own words, and confirms now and then."""

    def __init__(
        self,
        stage: Stage,
        is_routed: Callable[[Publish], bool],
        rewriting: Callable[[bytes], bytes],
    ) -> None:
        self._is_routed = is_routed
        self._rewriting = rewriting
        self._unconfirmed: list[Publish] = []
        self._stage = stage
        self.chance = random.Random(5)
        stage.server.on_publish = self._take

    def _take(self, publish: Publish) -> None:
        if publish.mandatory and not self._is_routed(publish):
            publish.properties = self._rewriting(publish.properties)
            publish.give_back()
        if not self._unconfirmed:
            self._stage.adapter.call_later(0.01, self._confirm)
        self._unconfirmed.append(publish)
        if self.chance.random() < 0.1:
            self._confirm()

    def _confirm(self) -> None:
        """Confirm all, some of them out of order."""
        publishes, self._unconfirmed = self._unconfirmed, []
        if self.chance.random() < 0.5:
            self.chance.shuffle(publishes)
            for publish in publishes:
                publish.ack()
        elif publishes:
            publishes[-1].ack(multiple=True)


def is_odd(publish: Publish) -> bool:
    headers = Properties.from_raw(publish.properties).headers or {}
    return bool(headers.get("n", 1) % 2)  # type: ignore[operator]


@pytest.mark.parametrize("rewriting", BROKERS)
@pytest.mark.parametrize("names", [["b", "a", "n"], ["n", "BCC", "CC"], ["BCC", "n"], ["n"]])
def test_what_went_nowhere_is_returned_and_nothing_else_is(
    stage: Stage, rewriting: Callable[[bytes], bytes], names: list[str]
) -> None:
    """All have one key and one body: the headers alone tell one from the other."""
    Routing(stage, is_odd, rewriting)
    publisher = stage.publisher()
    publications = [
        publisher.publish(
            "",
            "work",
            b"",
            Properties(headers={name: n if name == "n" else ["x"] for name in names}),
        )
        for n in range(40)
    ]
    stage.advance(LONG)
    assert [publication.outcome for publication in publications] == [
        Outcome.CONFIRMED if n % 2 else Outcome.RETURNED for n in range(40)
    ]


KINDS: dict[str, Any] = {
    "none": None,
    "plain": {},
    "sorted": {"a": 1, "b": 2},
    "unsorted": {"b": 2, "a": 1},
    "kind": {"a": True, "b": 2},
    "nested": {"z": [{"b": 1, "a": 2}], "a": {"y": b"\xff", "x": None}},
    "bcc": {"BCC": ["x"], "a": 1, "b": 2},
    "other bcc": {"BCC": ["y"], "a": 1, "b": 2},
    "bcc alone": {"BCC": ["x"]},
}
#: Where the order alone differs, the messages are equal, and one route is that of both.
ROUTES = sorted(KINDS.keys() - {"unsorted"})
MESSAGES = st.tuples(
    st.sampled_from(sorted(KINDS)), st.sampled_from([b"", b"x"]), st.booleans(), st.booleans()
)


def kind_of(publish: Publish) -> str:
    headers = Properties.from_raw(publish.properties).headers
    return next(name for name in ROUTES if _same(KINDS[name], headers))


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)
    return type(first) is type(second) and bool(first == second)


@settings(max_examples=60)
@given(
    st.lists(MESSAGES, min_size=1, max_size=30),
    st.sets(st.sampled_from(ROUTES)),
    st.sampled_from(BROKERS),
    st.integers(0, 1000),
)
def test_no_rewriting_makes_a_return_anothers(
    messages: list[tuple[str, bytes, bool, bool]],
    routed: set[str],
    rewriting: Callable[[bytes], bytes],
    seed: int,
) -> None:
    stage = Stage()
    broker = Routing(stage, lambda publish: kind_of(publish) in routed, rewriting)
    broker.chance.seed(seed)
    publisher = stage.publisher(confirm_timeout=None)
    stage.turn()
    expected = []
    publications = []
    for kind, body, mandatory, is_patient in messages:
        properties = Properties(headers=KINDS[kind])
        publications.append(
            publisher.publish(
                "",
                "work",
                body,
                properties,
                mandatory=mandatory,
                timeout=None if is_patient else 0.0,
            )
        )
        kind = "sorted" if kind == "unsorted" else kind
        expected.append(Outcome.RETURNED if mandatory and kind not in routed else Outcome.CONFIRMED)
    stage.advance(LONG)
    for publication, outcome in zip(publications, expected, strict=True):
        assert publication.outcome in (outcome, Outcome.EXPIRED)


def test_an_ambiguous_return_costs_a_second_copy_and_no_wrong_outcome(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = stage.publisher()
    stage.turn()
    publications = [
        publisher.publish("", "work", b"", Properties(headers={"BCC": [queue]}))
        for queue in ("there", "nowhere", "there")
    ]
    stage.turn()
    with caplog.at_level(logging.ERROR):
        unroutable = stage.server.published[1]
        unroutable.properties = as_4(unroutable.properties)
        unroutable.give_back()
        stage.server.published[2].ack(multiple=True)  # comes too late to count
        stage.turn()
    assert publisher.unmatched_returns == 1
    assert "a return matches no single publish" in caplog.text
    for number in (3, 4, 5):
        assert len(stage.server.published) == number + 1  # one at a time
        if number == 4:
            stage.server.published[4].give_back()
        stage.server.published[number].ack()
        stage.turn()
    assert [p.outcome for p in publications] == [
        Outcome.CONFIRMED, Outcome.RETURNED, Outcome.CONFIRMED,
    ]  # fmt: skip
    assert publisher.unmatched_returns == 1


def test_a_return_whose_body_is_another_is_reported_all_the_same(stage: Stage) -> None:
    def give_back_changed(publish: Publish) -> None:
        body = publish.body
        if body.startswith(b"bad"):
            publish.body = b"rewritten"
            publish.give_back()
            publish.body = body
        publish.ack()

    stage.server.on_publish = give_back_changed
    publisher = stage.publisher()
    stage.publish(publisher, [b"0", b"bad", b"1", b"bad2"])
    stage.advance(LONG)
    assert sorted(stage.fates.names) == [
        "0 CONFIRMED",
        "1 CONFIRMED",
        "bad RETURNED",
        "bad2 RETURNED",
    ]
    assert 1 <= publisher.unmatched_returns <= 2


def test_the_return_of_an_expired_message_is_no_others(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.turn()
    first, second = (
        publisher.publish("", "work", b"ping", Properties(message_id=name), timeout=timeout)
        for name, timeout in (("first", 5.0), ("second", None))
    )
    stage.advance(10)
    stage.server.published[0].give_back()
    stage.server.published[1].ack(multiple=True)
    stage.turn()
    assert [first.outcome, second.outcome] == [Outcome.EXPIRED, Outcome.CONFIRMED]
    assert publisher.unmatched_returns == 0


def test_a_return_where_nothing_is_under_way_is_counted_and_harms_nothing(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.turn()
    (publication,) = stage.publish(publisher, [b"x"])
    stage.turn()
    publish = stage.server.published[0]
    publish.ack()
    publish.give_back()
    stage.turn()
    assert publication.outcome is Outcome.CONFIRMED
    assert publisher.unmatched_returns == 1
    assert publisher.is_writable
    assert stage.wire.names.count("channel.open") == 1


def test_what_a_return_says_is_escaped_in_the_log(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = stage.publisher()
    stage.turn()
    stage.publish(publisher, [b"x"])
    stage.turn()
    publish = stage.server.published[0]
    publish.ack()
    publish.routing_key = "first line\nsecond line"
    publish.give_back()
    stage.turn()
    assert publisher.unmatched_returns == 1
    assert "\nsecond line" not in caplog.text


# --- cost ---------------------------------------------------------------------------------------


def returned(body: bytes, properties: Properties | None = None) -> evamqp.Returned:
    properties = Properties(delivery_mode=2) if properties is None else properties
    return evamqp.Returned(312, "", "", "work", properties, body)


def test_a_return_costs_the_same_after_any_number_of_publishes(stage: Stage) -> None:
    """Also where one confirm never came: then the tags under way span all that was published."""

    def cost(publishes: int) -> int:
        stage = Stage()
        publisher = stage.publisher()
        stage.turn()
        stage.publish(publisher, [b"stuck"])
        for body in numbered(publishes):
            stage.publish(publisher, [body])
            stage.turn()
            stage.server.published.pop().ack()
            stage.wire.sent.clear()
        stage.turn()
        stage.publish(publisher, numbered(20))
        stage.turn()
        ledger = publisher._ledger
        return count_steps(lambda: [ledger.match_return(returned(body)) for body in numbered(20)])

    assert cost(2000) < 1.2 * cost(20)


@pytest.mark.parametrize("is_rewritten", [False, True])
def test_a_thousand_returns_look_at_each_message_once(stage: Stage, is_rewritten: bool) -> None:
    def cost(count: int) -> float:
        stage = Stage()
        publisher = stage.publisher(max_messages=10_000)
        sent = [Properties(headers={"z": n, "a": n}, delivery_mode=2) for n in range(count)]
        for properties in sent:
            publisher.publish("", "work", b"", properties)
        stage.turn()
        returns = [
            returned(b"", Properties.from_raw(as_4(p.raw)) if is_rewritten else p) for p in sent
        ]
        ledger = publisher._ledger
        steps = count_steps(lambda: [ledger.match_return(each) for each in returns])
        assert all(entry._returned is not None for entry in ledger.under_way)
        return steps / count

    assert cost(1000) < 1.2 * cost(100)


def test_what_the_index_keeps_is_bounded_by_what_is_under_way(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.turn()
    for number in range(3000):
        stage.publish(publisher, [b"%d" % number])
        stage.turn()
        publish = stage.server.published.pop()
        publish.give_back()
        publish.ack()
        stage.publish(publisher, [b"routed %d" % number, b"other"])
        stage.turn()
        publish = stage.server.published.pop()
        publish.give_back()
        publish.ack(multiple=True)
        stage.turn()
    index = publisher._ledger._returns
    assert sum(len(t.tags) for alike in index._alike.values() for t in alike.values()) <= 1100
    assert len(index._alike) <= 1100
