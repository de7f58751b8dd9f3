"""The ledger by itself, and the publisher against a model: no publish lost, none settled twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import evamqp
from evamqp import Outcome, Properties
from evamqp.errors import OutputFull
from evamqp.recovery.ledger import Ledger, Publication
from tests.recovery.stage import LONG, Stage
from tests.support.scripted_broker import Publish


class Host:
    """Where the publications of these tests live: no callback is made."""

    def check_caller(self, what: str) -> None:
        """Everybody may."""

    def create_future(self) -> Any:
        raise AssertionError("no future is wanted")

    def defer(self, function: Any, *arguments: object) -> None:
        raise AssertionError("nothing is owed")

    def invoke(self, name: str, function: Any, *arguments: object) -> None:
        function(*arguments)


def entry(number: int, body: bytes = b"x", *, mandatory: bool = True) -> Publication:
    return Publication(Host(), number, "", "key", body, Properties(), mandatory, None)


def back(body: bytes = b"x") -> evamqp.Returned:
    return evamqp.Returned(312, "NO_ROUTE", "", "key", Properties(), body)


def sent(ledger: Ledger, count: int, body: bytes = b"x") -> list[Publication]:
    """Accept and send so many."""
    entries = [entry(number, body) for number in range(1, count + 1)]
    for each in entries:
        ledger.accept(each)
        taken = ledger.next_unsent()
        assert taken is each
        ledger.mark_sent(taken, each.number)
    return entries


def test_what_it_counts_is_body_key_and_properties() -> None:
    ledger = Ledger(10, 1000)
    ledger.accept(entry(1, b"12345"))
    assert (ledger.count, ledger.size) == (1, 5 + len("key") + len(Properties().raw))


def test_an_empty_ledger_takes_a_message_of_any_size_and_then_no_other() -> None:
    ledger = Ledger(10, 10)
    ledger.accept(entry(1, bytes(1000)))
    assert not ledger.has_room
    with pytest.raises(OutputFull):
        ledger.accept(entry(2, b""))
    assert ledger.count == 1


def test_what_was_refused_is_room_enough_for_when_it_says_so() -> None:
    ledger = Ledger(10, 100)
    first, second = entry(1, bytes(40)), entry(2, bytes(40))
    ledger.accept(first)
    ledger.accept(second)
    with pytest.raises(OutputFull):
        ledger.accept(entry(3, bytes(60)))
    rooms = [ledger.has_room]
    for settled in (first, second):
        ledger.settle(settled, Outcome.EXPIRED)
        rooms.append(ledger.has_room)
    assert rooms == [False, False, True]
    ledger.accept(entry(3, bytes(60)))


def test_what_is_taken_back_comes_first_and_in_order() -> None:
    ledger = Ledger(10, 1000)
    entries = sent(ledger, 3)
    late = entry(4)
    ledger.accept(late)
    ledger.take_back()
    assert list(ledger) == [*entries, late]
    assert [ledger.next_unsent() for _ in range(5)] == [*entries, late, None]


def test_a_return_is_matched_by_exchange_key_and_body_whatever_its_properties() -> None:
    ledger = Ledger(10, 1000)
    first, second = sent(ledger, 2)
    assert not ledger.match_return(back(b"other"))
    assert not ledger.match_return(back()._replace(exchange="x"))
    assert not ledger.match_return(back()._replace(routing_key="x"))
    assert [each._returned for each in (first, second)] == [None, None]
    returned = back()._replace(properties=Properties(type="x"))
    assert ledger.match_return(returned)
    assert first._returned is returned
    assert ledger.match_return(returned)
    assert second._returned is returned
    assert not ledger.match_return(returned)


def test_what_alone_is_under_way_is_what_is_returned() -> None:
    ledger = Ledger(10, 1000)
    (only,) = sent(ledger, 1)
    returned = evamqp.Returned(312, "", "x", "x", Properties(type="x"), b"other")
    assert ledger.match_return(returned)
    assert only._returned is returned


def test_a_return_behind_that_of_a_later_message_is_of_neither() -> None:
    ledger = Ledger(10, 1000)
    for number, body in enumerate((b"a", b"b", b"c"), 1):
        ledger.accept(entry(number, body))
        taken = ledger.next_unsent()
        assert taken is not None
        ledger.mark_sent(taken, number)
    found = [ledger.match_return(back(body)) for body in (b"b", b"a", b"b", b"c")]
    assert found == [True, False, False, True]


def test_what_is_held_is_sent_once_it_is_released_and_never_after_its_outcome() -> None:
    ledger = Ledger(10, 1000, is_holding=True)
    entries = [entry(number) for number in range(1, 4)]
    for each in entries:
        ledger.accept(each)
    assert list(ledger) == list(ledger.held) == entries
    assert ledger.next_unsent() is None
    ledger.settle(entries[0], Outcome.EXPIRED)
    assert list(ledger) == list(ledger.held) == entries[1:]
    ledger.release(entries[0])
    ledger.release(entries[1])
    assert list(ledger.held) == entries[2:]
    assert [ledger.next_unsent(), ledger.next_unsent()] == [entries[1], None]
    ledger.clear()
    assert not ledger.held


def test_unknown_tags_confirm_nothing() -> None:
    ledger = Ledger(10, 1000)
    entries = sent(ledger, 2)
    assert ledger.take_confirmed(range(1, 100)) == entries
    assert ledger.take_confirmed([1, 2, 3]) == []


BODIES = st.sampled_from([b"a", b"b" * 20, b"bad", b"twin"])


class Model(RuleBasedStateMachine):
    """A publisher, a broker that does what the rules say, and what must have become of it all."""

    MAX_MESSAGES = 8
    MAX_BYTES = 120

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.publisher = self.stage.publisher(
            max_messages=self.MAX_MESSAGES, max_bytes=self.MAX_BYTES, resends=2
        )
        # A suspect without a confirm loses its place, so that it keeps nobody else from theirs.
        self.has_order = True
        renew = self.publisher._renew_channel

        def note_renewal(*, last: bool = False) -> None:
            self.has_order = self.has_order and not last
            renew(last=last)

        self.publisher._renew_channel = note_renewal  # type: ignore[method-assign]
        self.accepted: list[Publication] = []
        self.outcomes: dict[int, list[Outcome | None]] = {}
        self.closing: evamqp.Request[list[Publication]] | None = None
        self.is_up = True
        self.is_blocked = False
        self.stage.turn()

    # The user

    def _told(self, publication: Publication) -> None:
        self.outcomes.setdefault(publication.number, []).append(publication.outcome)

    @precondition(lambda self: self.closing is None)
    @rule(body=BODIES, timeout=st.sampled_from([None, None, 1.0, 30.0]), mandatory=st.booleans())
    def publish(self, body: bytes, timeout: float | None, mandatory: bool) -> None:
        before = self.publisher.pending
        try:
            publication = self.publisher.publish(
                "", "work", body, mandatory=mandatory, timeout=timeout, callback=self._told
            )
        except OutputFull:
            assert before
            assert self.publisher.pending == before
            assert not self.publisher.is_writable
        else:
            self.accepted.append(publication)
            assert publication.number == len(self.accepted)

    @precondition(lambda self: self.closing is None and len(self.accepted) > 3)
    @rule(timeout=st.sampled_from([0.0, 5.0, None]))
    def close(self, timeout: float | None) -> None:
        self.closing = self.publisher.close(timeout)

    # The broker

    def _open(self) -> list[Publish]:
        """Publishes that the broker may still answer."""
        return [publish for publish in self.stage.server.published if publish.channel.is_open]

    def _pick(self, index: int) -> Publish | None:
        publishes = self._open()
        return publishes[index % len(publishes)] if publishes else None

    def _forget(self, last: Publish, multiple: bool) -> None:
        published = self.stage.server.published
        gone = [
            publish
            for publish in published
            if publish.channel is last.channel
            and (publish.tag == last.tag or (multiple and publish.tag < last.tag))
        ]
        for publish in gone:
            published.remove(publish)

    @rule(index=st.integers(0, 7), multiple=st.booleans())
    def ack(self, index: int, multiple: bool) -> None:
        publish = self._pick(index)
        if publish is not None:
            publish.ack(multiple)
            self._forget(publish, multiple)

    @rule(index=st.integers(0, 7), multiple=st.booleans())
    def nack(self, index: int, multiple: bool) -> None:
        publish = self._pick(index)
        if publish is not None:
            publish.nack(multiple)
            self._forget(publish, multiple)

    @rule(index=st.integers(0, 7))
    def give_back(self, index: int) -> None:
        publish = self._pick(index)
        if publish is not None and publish.mandatory:
            publish.give_back()

    @rule(index=st.integers(0, 7))
    def refuse(self, index: int) -> None:
        publish = self._pick(index)
        if publish is not None and publish.body == b"bad":
            publish.refuse()

    @rule(index=st.integers(0, 7))
    def hang_up(self, index: int) -> None:
        publish = self._pick(index)
        if publish is not None and publish.body == b"bad":
            publish.channel.wire.close(541, "INTERNAL_ERROR")
            self.is_blocked = False

    @rule(index=st.integers(0, 7))
    def close_channel(self, index: int) -> None:
        publish = self._pick(index)
        if publish is not None:
            publish.channel.close()

    # The world

    @rule()
    def turn(self) -> None:
        self.stage.turn()

    @rule(seconds=st.sampled_from([0.05, 1.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.stage.advance(seconds)

    @precondition(lambda self: self.is_up)
    @rule()
    def cut(self) -> None:
        if self.stage.wire.is_up:
            self.stage.wire.cut()
        self.is_blocked = False

    @precondition(lambda self: self.is_up)
    @rule()
    def go_down(self) -> None:
        self.stage.server.down()
        self.is_up = self.is_blocked = False

    @precondition(lambda self: not self.is_up)
    @rule()
    def come_up(self) -> None:
        self.stage.server.up()
        self.is_up = True

    @precondition(lambda self: self.is_up and self.stage.wire.is_up)
    @rule()
    def block_or_unblock(self) -> None:
        (self.stage.wire.unblock if self.is_blocked else self.stage.wire.block)()
        self.is_blocked = not self.is_blocked

    # The laws

    @invariant()
    def every_publish_is_pending_or_has_one_outcome(self) -> None:
        pending = [p for p in self.accepted if not p.is_done]
        assert self.publisher.pending == len(pending)
        assert self.publisher._ledger.size == sum(p.size for p in pending)
        for publication in self.accepted:
            told = self.outcomes.get(publication.number, [])
            assert told == ([publication.outcome] if publication.is_done else [])

    @invariant()
    def the_window_is_bounded(self) -> None:
        ledger = self.publisher._ledger
        assert ledger.count <= self.MAX_MESSAGES
        assert ledger.count <= 1 or ledger.size <= self.MAX_BYTES

    @invariant()
    def each_outcome_has_its_detail_and_no_other(self) -> None:
        for publication in self.accepted:
            if publication.outcome is Outcome.RETURNED:
                assert isinstance(publication.detail, evamqp.Returned)
                assert publication.mandatory
            elif publication.outcome is Outcome.REFUSED:
                assert isinstance(publication.detail, evamqp.ChannelClosed)
                assert publication.body == b"bad"
            elif publication.outcome in (Outcome.EXPIRED, Outcome.ABANDONED):
                assert isinstance(publication.detail, evamqp.AmqpError)
            elif publication.is_done:
                assert publication.detail is None

    @invariant()
    def what_is_kept_is_in_publish_order_but_for_resends(self) -> None:
        numbers = [p.number for p in self.publisher._ledger if not p._resends]
        assert numbers == sorted(numbers) or not self.has_order

    def teardown(self) -> None:
        """In the end a broker that works: everything has its outcome, whatever happened."""
        if not self.is_up:
            self.stage.server.up()
        elif self.is_blocked and self.stage.wire.is_up:
            self.stage.wire.unblock()
        self.stage.server.on_publish = lambda publish: (
            publish.refuse() if publish.body == b"bad" else publish.ack()
        )
        for publish in self._open():
            publish.ack()
        self.stage.server.published.clear()
        for _ in range(3):
            self.stage.advance(LONG)
        closing = self.closing or self.publisher.close()
        self.stage.advance(LONG)
        left = self.stage.ended(closing)
        assert self.publisher.pending == 0
        self.every_publish_is_pending_or_has_one_outcome()
        self.each_outcome_has_its_detail_and_no_other()
        assert [p for p in self.accepted if p.outcome is Outcome.ABANDONED] == left
        assert all(p.is_done for p in self.accepted)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40)
