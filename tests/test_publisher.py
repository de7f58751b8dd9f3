"""The Publisher's laws, on the memory loop against a broker that does as it is told."""

from __future__ import annotations

import gc
import math
import os
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

import evamqp
from evamqp import Outcome, Properties, Topology
from evamqp.errors import BadArgument, BadType, MalformedData, OutputFull, WrongState, WrongThread
from evamqp.types import DeliveryMode
from tests.perf.steady import count_calls, count_steps
from tests.recovery.stage import HOUR, LONG, URL, Stage, numbered
from tests.support.scripted_broker import Publish


@pytest.fixture
def stage() -> Stage:
    """A memory loop with a scripted broker."""
    return Stage()


@pytest.fixture
def confirming(stage: Stage) -> Stage:
    """The same, with a broker that confirms everything."""
    stage.server.on_publish = Publish.ack
    return stage


def is_bad(publish: Publish) -> bool:
    return publish.body.startswith(b"bad")


def refuse_bad(publish: Publish) -> None:
    """What a broker does: it closes the channel for some, and confirms the others."""
    if is_bad(publish):
        publish.refuse()
    else:
        publish.ack()


def connected(stage: Stage, **options: Any) -> evamqp.Publisher:
    publisher = stage.publisher(**options)
    stage.turn()
    assert publisher.is_writable
    return publisher


# --- the ordinary way ---------------------------------------------------------------------------


def test_a_publish_before_the_first_connect_is_sent_and_confirmed(confirming: Stage) -> None:
    publisher = confirming.publisher()
    (publication,) = confirming.publish(publisher, [b"early"])
    assert publication.outcome is None
    assert publisher.pending == 1
    confirming.turn()
    assert confirming.fates.log == [(b"early", Outcome.CONFIRMED)]
    assert publisher.pending == 0


def test_a_publication_can_be_awaited_and_reports_its_outcome(confirming: Stage) -> None:
    publisher = connected(confirming)
    publication = publisher.publish("", "work", b"x")
    assert confirming.adapter.run_until(publication) is Outcome.CONFIRMED
    assert publication.outcome is Outcome.CONFIRMED
    assert publication.detail is None


def test_publications_are_numbered_from_one_without_gaps(stage: Stage) -> None:
    publisher = stage.publisher(max_messages=2)
    first = publisher.publish("", "work", b"1")
    with pytest.raises(BadType):
        publisher.publish("", "work", "text")  # type: ignore[arg-type]
    second = publisher.publish("", "work", b"2")
    with pytest.raises(OutputFull):
        publisher.publish("", "work", b"3")
    stage.server.on_publish = Publish.ack
    stage.turn()
    third = publisher.publish("", "work", b"3")
    assert [p.number for p in (first, second, third)] == [1, 2, 3]


def test_messages_are_persistent_and_mandatory_unless_they_say_otherwise(stage: Stage) -> None:
    publisher = connected(stage)
    publisher.publish("", "work", b"1")
    publisher.publish("", "work", b"2", persistent=False, mandatory=False)
    publisher.publish("", "work", b"3", Properties(content_type="x"))
    publisher.publish("", "work", b"4", Properties(delivery_mode=DeliveryMode.TRANSIENT))
    stage.turn()
    sent = stage.server.published
    modes = [Properties.from_raw(publish.properties).delivery_mode for publish in sent]
    assert modes == [2, None, 2, 1]
    assert [publish.mandatory for publish in sent] == [True, False, True, True]
    assert Properties.from_raw(sent[2].properties).content_type == "x"


def test_one_properties_object_is_completed_once_for_many_messages(stage: Stage) -> None:
    publisher = connected(stage)
    shared = Properties(content_type="x")
    first, second = (publisher.publish("", "work", b"x", shared) for _ in range(2))
    assert first.properties is second.properties


def test_a_body_that_is_not_bytes_is_copied_at_the_call(stage: Stage) -> None:
    publisher = stage.publisher()
    body = bytearray(b"before")
    publisher.publish("", "work", body)
    body[:] = b"after!"
    stage.turn()
    assert stage.server.bodies == [b"before"]


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("", "k" * 256, b""), {}, BadArgument),
        ((1, "k", b""), {}, BadType),
        (("", "k", "text"), {}, BadType),
        (("", "k", b"", {"delivery_mode": 2}), {}, BadType),
        (("", "k", b""), {"timeout": "soon"}, BadType),
        (("", "k", b""), {"timeout": float("nan")}, BadArgument),
        (("", "k", b""), {"callback": "no function"}, BadType),
    ],
)
def test_a_publish_that_cannot_be_sent_raises_and_takes_nothing(
    stage: Stage, arguments: Any, options: Any, error: type[Exception]
) -> None:
    publisher = stage.publisher()
    with pytest.raises(error):
        publisher.publish(*arguments, **options)
    assert publisher.pending == 0
    stage.turn()
    assert stage.server.published == []


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("raw", ["2000 00000003 016b55", "0008 0161 00", "1008 02 01"])
def test_broken_properties_of_a_broker_are_refused_at_the_call(
    confirming: Stage, persistent: bool, raw: str
) -> None:
    publisher = connected(confirming, persistent=persistent)
    for _ in range(2):
        with pytest.raises(MalformedData):
            publisher.publish("", "work", b"x", Properties.from_raw(bytes.fromhex(raw)))
    assert publisher.pending == 0
    confirming.turn()
    assert confirming.server.published == []


def test_what_no_frame_of_the_next_connection_holds_is_refused_and_hurts_no_other(
    confirming: Stage,
) -> None:
    publisher = confirming.publisher(URL + "&frame_max=4096")
    big = Properties(headers={"x": "x" * 5000})
    (first,) = confirming.publish(publisher, [b"1"])
    (refused,) = confirming.publish(publisher, [b"2"], properties=big)
    (last,) = confirming.publish(publisher, [b"3"])
    assert not refused.is_done
    assert confirming.ended(publisher.close()) == []
    assert (first.outcome, last.outcome) == (Outcome.CONFIRMED, Outcome.CONFIRMED)
    assert refused.outcome is Outcome.REFUSED
    assert isinstance(refused.detail, BadArgument)
    assert publisher.reconnector.epoch == 1


@pytest.mark.parametrize("persistent", [False, True])
def test_what_no_frame_of_the_connection_holds_is_refused_at_the_call(
    confirming: Stage, persistent: bool
) -> None:
    publisher = connected(confirming, target=URL + "&frame_max=4096")
    edge = Properties(headers={"x": "x" * 4063})  # fits, if no delivery mode is added
    assert len(edge.raw) == 4096 - 8 - 12
    for properties in (Properties(headers={"x": "x" * 5000}), *(edge,) * persistent):
        for _ in range(2):
            with pytest.raises(BadArgument, match="4096"):
                publisher.publish("", "work", b"x", properties, persistent=persistent)
    assert publisher.pending == 0
    publication = publisher.publish("", "work", b"x", edge, persistent=False)
    confirming.turn()
    assert publication.outcome is Outcome.CONFIRMED


def test_publish_from_another_thread_raises(stage: Stage) -> None:
    publisher = stage.publisher()
    stage.adapter.advance(0)  # the loop has run, so it has a thread
    caught: list[BaseException] = []

    def attempt() -> None:
        for call in (lambda: publisher.publish("", "q", b""), publisher.close):
            try:
                call()
            except WrongThread as error:
                caught.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(caught) == 2
    assert publisher.pending == 0


def test_publish_from_another_thread_raises_while_nothing_answers_yet(stage: Stage) -> None:
    stage.server.is_mute = True
    test_publish_from_another_thread_raises(stage)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_publish_in_a_forked_child_raises(stage: Stage) -> None:
    publisher = connected(stage)
    child = os.fork()
    if not child:  # pragma: no cover
        code = 1
        try:
            publisher.publish("", "q", b"")
        except WrongThread:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_messages": 0},
        {"max_bytes": 0},
        {"resends": -1},
        {"max_messages": math.nan},
        {"max_bytes": math.nan},
        {"max_messages": None},
        {"max_bytes": "many"},
        {"resends": None},
        {"persistent": "no"},
        {"mandatory": "no"},
        {"on_writable": 1},
        {"confirm_timeout": 0},
        {"confirm_timeout": "soon"},
        {"topology": "t"},
    ],
)
def test_impossible_settings_are_refused_and_nothing_is_dialled(
    stage: Stage, options: dict[str, Any]
) -> None:
    with pytest.raises((BadArgument, BadType)):
        stage.publisher(**options)
    stage.turn()
    assert stage.server.wires == []


# --- bounds -------------------------------------------------------------------------------------


def test_the_window_is_bounded_by_count(stage: Stage) -> None:
    publisher = stage.publisher(max_messages=3)
    stage.publish(publisher, numbered(3))
    with pytest.raises(OutputFull, match="3 messages"):
        publisher.publish("", "work", b"more")
    assert publisher.pending == 3
    stage.turn()
    assert stage.server.bodies == numbered(3)


def test_the_window_is_bounded_by_bytes(stage: Stage) -> None:
    publisher = stage.publisher(max_bytes=1000)
    publisher.publish("", "work", bytes(600))
    with pytest.raises(OutputFull):
        publisher.publish("", "work", bytes(600))
    publisher.publish("", "work", bytes(100))


def test_one_message_of_any_size_is_taken_by_an_empty_publisher(confirming: Stage) -> None:
    publisher = connected(confirming, max_bytes=10)
    confirming.publish(publisher, [bytes(100)])
    assert not publisher.is_writable
    confirming.turn()
    assert confirming.fates.of(Outcome.CONFIRMED) == [bytes(100)]
    assert publisher.is_writable


def test_a_refused_publish_is_always_followed_by_writable(stage: Stage) -> None:
    publisher = connected(stage, max_bytes=1000)
    stage.publish(publisher, [bytes(600)])
    stage.turn()
    stage.events.clear()
    with pytest.raises(OutputFull):
        publisher.publish("", "work", bytes(600))
    assert not publisher.is_writable
    stage.server.published[0].ack()
    stage.turn()
    assert stage.told("writable") == [[False], [True]]
    publisher.publish("", "work", bytes(600))


@pytest.mark.parametrize("bodies", [[bytes(500_000)], [b"first", bytes(500_000), b"last"]])
def test_a_message_larger_than_the_output_buffer_is_sent_all_the_same(
    confirming: Stage, bodies: list[bytes]
) -> None:
    target = evamqp.Parameters.from_url(URL, output_max=200_000, output_high_water=100_000)
    publisher = confirming.publisher(target)
    confirming.publish(publisher, bodies)
    confirming.advance(LONG)
    assert confirming.fates.of(Outcome.CONFIRMED) == bodies


# --- order and loss -----------------------------------------------------------------------------


def test_what_was_unconfirmed_is_sent_again_in_order_before_what_is_new(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(5))
    stage.turn()
    stage.server.published[1].ack()
    stage.turn()
    stage.server.down()
    stage.turn()
    stage.publish(publisher, numbered(2, first=5))
    stage.server.published.clear()
    stage.server.on_publish = Publish.ack
    stage.server.up()
    stage.advance(LONG)
    assert stage.server.bodies == [b"0", b"2", b"3", b"4", b"5", b"6"]
    assert sorted(stage.fates.of(Outcome.CONFIRMED)) == numbered(7)


def test_a_hundred_losses_lose_and_settle_twice_nothing(stage: Stage) -> None:
    publisher = connected(stage)
    for number in range(100):
        stage.publish(publisher, [b"%d" % number])
        stage.turn()
        stage.server.published[-1].ack()
        stage.publish(publisher, [b"x%d" % number])
        stage.turn()
        stage.wire.cut()
        stage.advance(LONG)
    stage.server.on_publish = Publish.ack
    stage.wire.cut()
    stage.advance(LONG)
    assert len(stage.fates.log) == 200
    assert {fate for _, fate in stage.fates.log} == {Outcome.CONFIRMED}
    assert len(set(stage.fates.log)) == 200


def test_hours_without_a_broker_lose_nothing(confirming: Stage) -> None:
    confirming.server.down()
    publisher = confirming.publisher()
    confirming.publish(publisher, numbered(10))
    confirming.advance(12 * HOUR)
    assert confirming.fates.log == []
    confirming.server.up()
    confirming.advance(LONG)
    assert confirming.fates.of(Outcome.CONFIRMED) == numbered(10)


def test_confirms_are_taken_multiple_and_out_of_order(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(6))
    stage.turn()
    stage.server.published[4].ack()
    stage.server.published[2].ack(multiple=True)
    stage.server.published[2].ack()  # a second time means nothing
    stage.turn()
    assert stage.fates.of(Outcome.CONFIRMED) == [b"4", b"0", b"1", b"2"]
    assert publisher.pending == 2


def test_a_channel_that_ends_without_blame_is_opened_again(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(3))
    stage.turn()
    stage.server.published[0].channel.close()
    stage.server.on_publish = Publish.ack
    stage.turn()
    assert stage.fates.of(Outcome.CONFIRMED) == numbered(3)
    assert stage.told("writable") == [[True], [False], [True]]
    assert len(stage.server.wires) == 1


def test_a_channel_that_is_refused_again_and_again_is_opened_ever_more_slowly(
    stage: Stage,
) -> None:
    stage.server.refuse("confirm.select", 541)
    stage.publisher()
    stage.advance(60)
    fast = stage.wire.names.count("channel.open")
    stage.advance(600)
    assert 4 <= fast <= 60
    assert stage.wire.names.count("channel.open") - fast < 100


def test_a_channel_that_confirmed_is_opened_again_at_once(confirming: Stage) -> None:
    publisher = connected(confirming)
    for _ in range(20):
        confirming.publish(publisher, [b"x"])
        confirming.turn()
        confirming.server.published[-1].channel.close()
        confirming.turn()
        assert publisher.is_writable


def test_lost_connections_do_not_slow_down_a_channel_error(stage: Stage) -> None:
    publisher = connected(stage)
    for _ in range(20):
        stage.wire.cut()
        stage.advance(LONG)
    stage.publish(publisher, [b"x"])
    stage.turn()
    stage.server.on_publish = Publish.ack
    stage.server.published[0].channel.close()
    stage.turn()
    assert stage.fates.of(Outcome.CONFIRMED) == [b"x"]


def test_confirms_of_a_lost_connection_settle_nothing(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"x"])
    stage.turn()
    old = stage.server.published[0]
    stage.wire.cut()
    old.ack()
    stage.turn()
    assert stage.fates.log == []


# --- returned, nacked ---------------------------------------------------------------------------


def test_an_unroutable_message_ends_as_returned_with_its_return(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(3))
    stage.turn()
    stage.server.published[1].give_back()
    stage.server.published[2].ack(multiple=True)
    stage.turn()
    assert stage.fates.names == ["0 CONFIRMED", "1 RETURNED", "2 CONFIRMED"]


def test_a_return_is_in_the_detail_of_its_publication_only(stage: Stage) -> None:
    publisher = connected(stage)
    first, second = stage.publish(publisher, numbered(2))
    stage.turn()
    stage.server.published[1].give_back()
    stage.server.published[1].ack(multiple=True)
    stage.turn()
    assert first.detail is None
    assert isinstance(second.detail, evamqp.Returned)
    assert (second.detail.code, second.detail.text) == (312, "NO_ROUTE")


def test_returns_of_byte_equal_twins_are_matched_in_publish_order(stage: Stage) -> None:
    publisher = connected(stage)
    twins = stage.publish(publisher, [b"twin"] * 3)
    stage.turn()
    stage.server.published[0].give_back()
    stage.server.published[1].give_back()
    stage.server.published[2].ack(multiple=True)
    stage.turn()
    outcomes = [twin.outcome for twin in twins]
    assert outcomes == [Outcome.RETURNED, Outcome.RETURNED, Outcome.CONFIRMED]


def test_a_return_is_matched_to_mandatory_messages_only(stage: Stage) -> None:
    publisher = connected(stage)
    (plain,) = stage.publish(publisher, [b"twin"], mandatory=False)
    (mandatory,) = stage.publish(publisher, [b"twin"])
    stage.turn()
    stage.server.published[1].give_back()
    stage.server.published[1].ack(multiple=True)
    stage.turn()
    assert plain.outcome is Outcome.CONFIRMED
    assert mandatory.outcome is Outcome.RETURNED


def test_a_return_is_forgotten_when_the_message_is_sent_again(stage: Stage) -> None:
    publisher = connected(stage)
    (publication,) = stage.publish(publisher, [b"x"])
    stage.turn()
    stage.server.published[0].give_back()
    stage.turn()
    stage.wire.cut()
    stage.server.on_publish = Publish.ack
    stage.advance(LONG)
    assert publication.outcome is Outcome.CONFIRMED
    assert publication.detail is None


def test_a_nacked_return_is_forgotten_as_well(stage: Stage) -> None:
    publisher = connected(stage)
    (publication,) = stage.publish(publisher, [b"x"])
    stage.turn()
    stage.server.published[0].give_back()
    stage.server.published[0].nack()
    stage.server.on_publish = Publish.ack
    stage.advance(LONG)
    assert publication.outcome is Outcome.CONFIRMED
    assert publication.detail is None


def test_a_nacked_message_is_sent_again_with_growing_delays_then_ends_as_nacked(
    stage: Stage,
) -> None:
    times: list[float] = []

    def nack(publish: Publish) -> None:
        times.append(stage.adapter.time())
        publish.nack()

    stage.server.on_publish = nack
    publisher = connected(stage, resends=6)
    stage.publish(publisher, [b"x"])
    stage.advance(LONG)
    assert stage.fates.names == ["x NACKED"]
    gaps = [round(later - earlier, 9) for earlier, later in pairwise(times)]
    assert gaps == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]


def test_a_nack_is_final_where_no_resends_are_wanted(stage: Stage) -> None:
    publisher = connected(stage, resends=0)
    stage.publish(publisher, [b"x"])
    stage.turn()
    stage.server.published[0].nack()
    stage.turn()
    assert stage.fates.names == ["x NACKED"]


def test_thousands_of_resends_are_as_possible_as_one(stage: Stage) -> None:
    stage.server.on_publish = Publish.nack
    publisher = connected(stage, resends=2000)
    stage.publish(publisher, [b"x"])
    stage.advance(HOUR)
    assert stage.fates.names == ["x NACKED"]
    assert len(stage.server.published) == 2001


def test_a_channel_that_only_nacks_is_replaced_though_what_it_holds_expires(stage: Stage) -> None:
    stage.server.on_publish = lambda publish: publish.nack() if publish.body == b"x" else None
    publisher = connected(stage, resends=1000)
    stage.publish(publisher, [b"owed"], timeout=5)
    stage.publish(publisher, [b"x"])
    stage.advance(4)
    first = stage.server.published[0].channel
    stage.server.on_publish = lambda publish: (
        publish.nack() if publish.channel is first else publish.ack()
    )
    stage.advance(LONG)
    assert stage.fates.names == ["owed EXPIRED", "x CONFIRMED"]


def test_returns_are_matched_in_order_on_a_channel_that_replaced_another(stage: Stage) -> None:
    publisher = connected(stage, resends=1000)
    stage.publish(publisher, numbered(5))
    stage.turn()
    for publish in stage.server.published:
        publish.give_back()
    stage.server.published[-1].ack(multiple=True)
    stage.server.on_publish = Publish.nack
    stage.publish(publisher, [b"x"])
    stage.advance(0.6)
    stage.server.on_publish = lambda publish: None
    stage.server.published.clear()
    stage.advance(LONG)
    stage.server.published[-1].ack()
    stage.turn()
    twins = stage.publish(publisher, [b"twin"] * 3)
    stage.turn()
    stage.server.published[-3].give_back()
    stage.server.published[-1].ack(multiple=True)
    stage.turn()
    outcomes = [twin.outcome for twin in twins]
    assert outcomes == [Outcome.RETURNED, Outcome.CONFIRMED, Outcome.CONFIRMED]


def test_a_message_that_waits_to_be_resent_survives_a_loss(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"x"])
    stage.turn()
    stage.server.published[0].nack()
    stage.turn()
    stage.wire.cut()
    stage.server.on_publish = Publish.ack
    stage.advance(LONG)
    assert stage.fates.names == ["x CONFIRMED"]


# --- refused ------------------------------------------------------------------------------------


def test_a_publish_that_closes_the_channel_ends_as_refused_with_the_reason(stage: Stage) -> None:
    publisher = connected(stage)
    (publication,) = stage.publish(publisher, [b"bad"])
    stage.turn()
    stage.server.published[0].refuse(406, "PRECONDITION_FAILED - invalid expiration")
    stage.turn()
    assert publication.outcome is Outcome.REFUSED
    assert isinstance(publication.detail, evamqp.ChannelClosed)
    assert publication.detail.code == 406


@pytest.mark.parametrize("culprits", [[0], [9], [4], [0, 9], [3, 4, 5], list(range(10))])
def test_culprits_are_refused_and_no_good_message_is_lost_or_starved(
    stage: Stage, culprits: list[int]
) -> None:
    stage.server.on_publish = refuse_bad
    publisher = connected(stage)
    bodies = [b"bad%d" % n if n in culprits else b"%d" % n for n in range(10)]
    stage.publish(publisher, bodies)
    stage.advance(LONG)
    assert stage.fates.of(Outcome.REFUSED) == [body for body in bodies if b"bad" in body]
    assert stage.fates.of(Outcome.CONFIRMED) == [body for body in bodies if b"bad" not in body]
    assert publisher.is_writable
    assert publisher.pending == 0


def test_after_a_culprit_is_found_the_window_is_as_wide_as_before(stage: Stage) -> None:
    stage.server.on_publish = refuse_bad
    publisher = connected(stage)
    stage.publish(publisher, [b"0", b"bad", b"1"])
    stage.advance(LONG)
    stage.server.on_publish = lambda publish: None
    stage.server.published.clear()
    stage.publish(publisher, numbered(5))
    stage.turn()
    assert stage.server.bodies == numbered(5)


def test_what_is_left_when_the_culprit_is_found_is_sent_side_by_side(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"bad", b"0", b"1", b"2"])
    stage.turn()
    for _ in range(2):
        stage.server.published[0].refuse()
        stage.server.published.clear()
        stage.turn()
    assert stage.fates.names == ["bad REFUSED"]
    assert stage.server.bodies == numbered(3)


def test_a_culprit_that_does_it_no_more_does_not_narrow_the_window_for_ever(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(3))
    stage.turn()
    stage.server.published[1].refuse(404, "NOT_FOUND - no exchange")
    stage.server.on_publish = Publish.ack  # somebody has made the exchange meanwhile
    stage.turn()
    assert stage.fates.of(Outcome.CONFIRMED) == numbered(3)
    stage.server.on_publish = lambda publish: None
    stage.server.published.clear()
    stage.publish(publisher, numbered(5))
    stage.turn()
    assert stage.server.bodies == numbered(5)


def test_a_suspect_that_expires_does_not_narrow_the_window_for_ever(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"0", b"1"], timeout=5)
    stage.turn()
    stage.server.published[1].refuse()
    stage.turn()
    stage.server.published[-1].ack()  # of the first suspect, alone
    stage.advance(10)
    assert stage.fates.names == ["0 CONFIRMED", "1 EXPIRED"]
    stage.server.published[-1].ack()
    stage.turn()
    stage.server.published.clear()
    stage.publish(publisher, numbered(5))
    stage.turn()
    assert stage.server.bodies == numbered(5)


def test_an_expired_suspect_under_way_is_not_mistaken_for_the_next(stage: Stage) -> None:
    publisher = connected(stage)
    (good,) = stage.publish(publisher, [b"good"])
    (bad,) = stage.publish(publisher, [b"bad"], timeout=5)
    (other,) = stage.publish(publisher, [b"other"])
    stage.turn()
    stage.server.published[1].refuse()
    stage.turn()
    stage.server.published[-1].ack()
    stage.turn()
    suspect = stage.server.published[-1]
    assert suspect.body == b"bad"
    stage.advance(10)  # it expires while it is under way, and only then closes the channel
    suspect.refuse()
    stage.server.on_publish = Publish.ack
    stage.turn()
    outcomes = [publication.outcome for publication in (good, bad, other)]
    assert outcomes == [Outcome.CONFIRMED, Outcome.EXPIRED, Outcome.CONFIRMED]


def test_an_expired_culprit_is_not_mistaken_for_a_good_message(stage: Stage) -> None:
    publisher = connected(stage)
    (bad,) = stage.publish(publisher, [b"bad"], timeout=5)
    (good,) = stage.publish(publisher, [b"good"])
    stage.advance(10)
    stage.server.published[0].refuse()
    stage.server.on_publish = Publish.ack
    stage.turn()
    assert [bad.outcome, good.outcome] == [Outcome.EXPIRED, Outcome.CONFIRMED]


def test_a_nacked_suspect_is_cleared(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"0", b"1"])
    stage.turn()
    stage.server.published[1].refuse()
    stage.turn()
    stage.server.published[-1].ack()
    stage.turn()
    stage.server.published[-1].nack()
    stage.turn()
    stage.server.published.clear()
    stage.publish(publisher, numbered(3, first=2))
    stage.turn()
    assert stage.server.bodies == numbered(3, first=2)


def test_a_publish_that_closes_the_connection_is_refused_as_well(stage: Stage) -> None:
    def refuse(publish: Publish) -> None:
        if is_bad(publish):
            publish.channel.wire.close(502, "SYNTAX_ERROR", "basic.publish")
        else:
            publish.ack()

    stage.server.on_publish = refuse
    publisher = connected(stage)
    bodies = [b"0", b"bad", b"1", b"2"]
    stage.publish(publisher, bodies)
    stage.advance(10 * LONG)
    assert stage.fates.of(Outcome.REFUSED) == [b"bad"]
    assert stage.fates.of(Outcome.CONFIRMED) == [b"0", b"1", b"2"]


def end_connection(publish: Publish) -> None:
    """What a broker does over a publish that it cannot read: it closes all, and blames nothing."""
    if is_bad(publish):
        publish.channel.wire.close(501, "FRAME_ERROR - type 2, too large")
    elif publish.channel.wire.is_up:
        publish.ack()


@pytest.mark.parametrize("culprits", [[0], [9], [4], [3, 4], list(range(10))])
def test_a_publish_that_ends_the_connection_unnamed_is_isolated_and_refused(
    stage: Stage, culprits: list[int]
) -> None:
    stage.server.on_publish = end_connection
    publisher = connected(stage)
    bodies = [b"bad%d" % n if n in culprits else b"%d" % n for n in range(10)]
    publications = stage.publish(publisher, bodies)
    stage.advance(50 * LONG)
    assert stage.fates.of(Outcome.REFUSED) == [body for body in bodies if b"bad" in body]
    assert stage.fates.of(Outcome.CONFIRMED) == [body for body in bodies if b"bad" not in body]
    detail = publications[culprits[0]].detail
    assert isinstance(detail, evamqp.ChannelClosed)
    assert detail.code == 501
    copies = [stage.server.bodies.count(body) for body in bodies]
    assert max(copies) <= 4
    assert publisher.is_writable


def test_confirms_lost_with_the_connection_do_not_accuse_those_that_stood_beside(
    stage: Stage,
) -> None:
    """The broker dies over the batch before it has confirmed any of it."""
    stage.server.on_publish = lambda publish: (
        publish.ack() if publish.body == b"0" else end_connection(publish)
    )
    publisher = connected(stage)
    stage.wire.transport.pause_reading()
    stage.publish(publisher, [b"0", b"bad", b"1", b"2"])
    stage.server.on_publish = end_connection
    stage.wire.transport.resume_reading()
    stage.advance(50 * LONG)
    assert stage.fates.of(Outcome.REFUSED) == [b"bad"]
    assert sorted(stage.fates.of(Outcome.CONFIRMED)) == [b"0", b"1", b"2"]


def test_on_a_shared_connection_a_publish_that_ends_it_costs_no_other_publisher_a_message(
    stage: Stage,
) -> None:
    acked = stage.adapter.call_later

    def slow(publish: Publish) -> None:
        """Confirms take a while, so that every end finds everybody's publishes under way."""
        if is_bad(publish):
            publish.channel.wire.close(541, "INTERNAL_ERROR")
        else:
            acked(0.05, publish.ack)

    stage.server.on_publish = slow
    reconnector = stage.reconnector()
    publishers = [stage.publisher(reconnector) for _ in range(3)]
    stage.turn()
    for publisher in publishers:
        stage.publish(publisher, numbered(3))
    stage.publish(publishers[1], [b"bad"])
    for publisher in publishers:
        stage.publish(publisher, numbered(3, first=3))
    stage.advance(50 * LONG)
    assert stage.fates.of(Outcome.REFUSED) == [b"bad"]
    assert sorted(stage.fates.of(Outcome.CONFIRMED)) == sorted(numbered(6) * 3)
    assert stage.server.bodies.count(b"bad") <= 5


def test_a_publisher_that_leaves_amid_its_turn_lets_the_others_have_theirs(stage: Stage) -> None:
    stage.server.on_publish = lambda publish: (
        publish.channel.wire.close(541, "INTERNAL_ERROR") if is_bad(publish) else None
    )
    reconnector = stage.reconnector()
    first, second = stage.publisher(reconnector), stage.publisher(reconnector)
    stage.turn()
    stage.publish(first, [b"stuck"])
    stage.publish(second, [b"bad", b"1"])
    stage.advance(20)
    first.close(timeout=0)
    stage.server.on_publish = end_connection
    stage.advance(50 * LONG)
    assert sorted(stage.fates.names) == ["1 CONFIRMED", "bad REFUSED", "stuck ABANDONED"]


@pytest.mark.parametrize("code", [320, 200])
def test_an_operator_who_closes_connections_again_and_again_accuses_nobody(
    stage: Stage, code: int
) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"0"])
    for _ in range(10):
        stage.turn()
        stage.wire.close(code, "closed by the operator")
        stage.advance(LONG)
    stage.server.on_publish = Publish.ack
    stage.wire.cut()
    stage.advance(LONG)
    assert stage.fates.names == ["0 CONFIRMED"]


# --- confirms that do not come ------------------------------------------------------------------


def lose_confirms(stage: Stage, *bodies: bytes, first: int = 1) -> None:
    """A broker that forgets to confirm these; from their copy of that number on it does not."""
    seen: dict[bytes, int] = {}

    def take(publish: Publish) -> None:
        seen[publish.body] = seen.get(publish.body, 0) + 1
        if publish.body not in bodies or seen[publish.body] > first:
            refuse_bad(publish)

    stage.server.on_publish = take


def test_a_publish_whose_confirm_does_not_come_is_published_again_on_a_new_channel(
    stage: Stage,
) -> None:
    lose_confirms(stage, b"1")
    publisher = connected(stage, confirm_timeout=60)
    stage.publish(publisher, numbered(3))
    stage.advance(59)
    assert stage.server.bodies == numbered(3)
    stage.advance(60)
    assert stage.fates.of(Outcome.CONFIRMED) == [b"0", b"2", b"1"]
    assert stage.server.bodies == [*numbered(3), b"1"]
    assert len(stage.server.wires) == 1


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_lost_confirm_with_nacks_behind_it_does_not_stop_the_publisher(
    stage: Stage, timeout: float | None
) -> None:
    """Three nacks make the channel stale: it is replaced when nothing is under way."""
    stage.server.on_publish = lambda publish: publish.nack() if publish.body != b"stuck" else None
    publisher = connected(stage, resends=1000)
    stage.publish(publisher, [b"stuck"], timeout=timeout)
    stage.publish(publisher, [b"x"])
    stage.advance(2)
    first = stage.server.published[0].channel
    stage.server.on_publish = lambda publish: (
        publish.ack() if publish.channel is not first else None
    )
    stage.advance(2 * HOUR)
    assert stage.fates.of(Outcome.CONFIRMED)[-1:] == [b"x"]
    assert publisher.pending == 0


def test_a_lost_confirm_among_suspects_does_not_stop_the_others(stage: Stage) -> None:
    lose_confirms(stage, b"stuck", first=3)
    publisher = connected(stage)
    stage.publish(publisher, [b"stuck", b"0", b"bad", b"1"])
    stage.advance(HOUR)
    assert sorted(stage.fates.names) == [
        "0 CONFIRMED", "1 CONFIRMED", "bad REFUSED", "stuck CONFIRMED",
    ]  # fmt: skip


def test_an_expired_suspect_without_a_confirm_does_not_stop_the_others(stage: Stage) -> None:
    lose_confirms(stage, b"stuck", first=1000)
    publisher = connected(stage)
    stage.publish(publisher, [b"stuck"], timeout=5)
    stage.publish(publisher, [b"0", b"bad", b"1"])
    stage.advance(HOUR)
    assert sorted(stage.fates.names) == [
        "0 CONFIRMED", "1 CONFIRMED", "bad REFUSED", "stuck EXPIRED",
    ]  # fmt: skip


def test_a_channel_that_does_not_open_says_nothing_about_what_waits_for_it(stage: Stage) -> None:
    """The connection fell silent: only the suspect that was sent alone before may be late."""
    lose_confirms(stage, b"0", b"1", b"2", first=2)
    publisher = connected(stage, confirm_timeout=6)
    stage.publish(publisher, [b"0", b"1", b"2", b"bad"])
    stage.turn()
    assert stage.server.bodies == [b"0", b"1", b"2", b"bad", b"0"]
    stage.server.held.add("channel.open")
    stage.advance(30)
    stage.server.on_publish = refuse_bad
    stage.wire.cut()
    stage.server.release()
    stage.advance(LONG)
    assert stage.fates.names == ["1 CONFIRMED", "2 CONFIRMED", "bad REFUSED", "0 CONFIRMED"]


def test_a_confirm_may_take_as_long_as_an_alarm_lasts_and_its_own_time(stage: Stage) -> None:
    publisher = connected(stage, confirm_timeout=60)
    stage.publish(publisher, [b"x"])
    stage.turn()
    stage.wire.block()
    stage.advance(HOUR)
    stage.wire.unblock()
    stage.advance(59)
    assert stage.server.bodies == [b"x"]
    stage.server.published[0].ack()
    stage.turn()
    assert stage.fates.names == ["x CONFIRMED"]


def test_short_alarms_between_two_looks_stop_the_clock_of_confirms(stage: Stage) -> None:
    publisher = connected(stage, confirm_timeout=60)
    stage.publish(publisher, [b"x"])
    stage.advance(1)
    for _ in range(10):
        stage.wire.block()
        stage.advance(28)
        stage.wire.unblock()
        stage.advance(2)
    assert stage.server.bodies == [b"x"]


def test_a_broker_that_confirms_nothing_gets_ever_fewer_copies(stage: Stage) -> None:
    publisher = connected(stage, confirm_timeout=60)
    stage.publish(publisher, [b"x"])
    stage.advance(24 * HOUR)
    assert 20 < len(stage.server.published) < 100


def test_confirms_may_take_for_ever_where_that_is_wanted(stage: Stage) -> None:
    publisher = connected(stage, confirm_timeout=None)
    stage.publish(publisher, [b"x"])
    stage.advance(24 * HOUR)
    assert stage.server.bodies == [b"x"]


def test_a_steady_stream_of_confirms_is_never_taken_for_a_lost_one(stage: Stage) -> None:
    """Each takes its time; something is always under way."""
    stage.server.on_publish = lambda publish: stage.adapter.call_later(50, publish.ack)
    publisher = connected(stage, confirm_timeout=60)
    for number in range(60):
        stage.publish(publisher, [b"%d" % number])
        stage.advance(10)
    assert stage.server.bodies == numbered(60)


# --- deadlines ----------------------------------------------------------------------------------


def test_an_unsent_message_expires(stage: Stage) -> None:
    stage.server.down()
    publisher = stage.publisher()
    stage.publish(publisher, [b"x"], timeout=5)
    stage.advance(4.9)
    assert stage.fates.log == []
    stage.advance(0.2)
    assert stage.fates.names == ["x EXPIRED"]
    stage.server.up()
    stage.advance(LONG)
    assert stage.server.published == []


def test_a_sent_message_expires_and_its_confirm_means_nothing_then(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"x"], timeout=5)
    stage.advance(10)
    stage.server.published[0].ack()
    stage.turn()
    assert stage.fates.names == ["x EXPIRED"]
    assert publisher.pending == 0


def test_an_expired_message_is_not_sent_again(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"x"], timeout=5)
    stage.turn()
    stage.server.down()
    stage.advance(10)
    stage.server.up()
    stage.advance(LONG)
    assert stage.server.bodies == [b"x"]
    assert stage.fates.names == ["x EXPIRED"]


def test_a_message_that_waits_to_be_resent_expires(stage: Stage) -> None:
    stage.server.on_publish = Publish.nack
    publisher = connected(stage, resends=1000)
    stage.publish(publisher, [b"x"], timeout=5)
    stage.advance(10)
    assert stage.fates.names == ["x EXPIRED"]
    sent = len(stage.server.published)
    stage.advance(LONG)
    assert len(stage.server.published) == sent


def test_a_message_that_expired_before_its_resend_is_not_abandoned_as_well(stage: Stage) -> None:
    stage.server.on_publish = lambda publish: publish.nack() if publish.body == b"x" else None
    publisher = connected(stage, resends=1000)
    stage.publish(publisher, [b"x"], timeout=5)
    (pending,) = stage.publish(publisher, [b"pending"])
    stage.advance(5)
    assert stage.fates.names == ["x EXPIRED"]
    closing = publisher.close(timeout=0.01)
    stage.advance(0.01)
    assert stage.ended(closing) == [pending]
    assert publisher.pending == 0


def test_messages_expire_in_the_order_of_their_deadlines(stage: Stage) -> None:
    stage.server.down()
    publisher = stage.publisher()
    for body, timeout in ((b"c", 3.0), (b"a", 1.0), (b"b", 2.0), (b"now", 0.0)):
        stage.publish(publisher, [body], timeout=timeout)
    stage.advance(LONG)
    assert stage.fates.of(Outcome.EXPIRED) == [b"now", b"a", b"b", b"c"]


def test_a_return_after_the_expiry_is_not_the_detail(stage: Stage) -> None:
    publisher = connected(stage)
    (publication,) = stage.publish(publisher, [b"x"], timeout=5)
    stage.advance(10)
    stage.server.published[0].give_back()
    stage.turn()
    assert publication.outcome is Outcome.EXPIRED
    assert isinstance(publication.detail, evamqp.RequestTimeout)


def test_a_return_whose_message_expires_before_its_ack_is_not_the_detail(stage: Stage) -> None:
    publisher = connected(stage)
    (publication,) = stage.publish(publisher, [b"x"], timeout=5)
    stage.turn()
    stage.server.published[0].give_back()
    stage.advance(10)
    assert publication.outcome is Outcome.EXPIRED
    assert isinstance(publication.detail, evamqp.RequestTimeout)


def test_messages_that_expire_unsent_leave_no_memory(stage: Stage) -> None:
    stage.server.down()
    publisher = stage.publisher()
    for number in range(5000):
        publisher.publish("", "work", b"%d" % number, timeout=1)
        stage.advance(2)
    assert publisher.pending == 0
    assert _publications(publisher) <= 1010


def test_confirmed_messages_do_not_live_until_their_deadline(confirming: Stage) -> None:
    publisher = connected(confirming)
    for _ in range(500):
        publisher.publish("", "work", b"x", timeout=HOUR)
        confirming.turn()
    assert publisher.pending == 0
    assert _publications(publisher) == 0


def test_deadlines_of_what_was_confirmed_are_bounded(confirming: Stage) -> None:
    publisher = connected(confirming)
    for _ in range(5000):
        publisher.publish("", "work", b"x", timeout=HOUR)
        confirming.turn()
    assert len(publisher._deadlines) <= 1100


def test_messages_that_expire_under_way_leave_no_memory(stage: Stage) -> None:
    publisher = connected(stage)
    for _ in range(50):
        stage.publish(publisher, numbered(50), timeout=1)
        stage.advance(2)
    stage.fates.log.clear()
    assert publisher.pending == 0
    assert _publications(publisher) == 0


def _publications(publisher: evamqp.Publisher) -> int:
    """Publications that are alive and are of this publisher."""
    gc.collect()
    return sum(
        isinstance(thing, evamqp.Publication) and thing._host is publisher._host
        for thing in gc.get_objects()
    )


# --- writable -----------------------------------------------------------------------------------


def test_writable_joins_connection_alarm_and_window(stage: Stage) -> None:
    publisher = stage.publisher(max_messages=2)
    assert not publisher.is_writable
    stage.turn()
    assert stage.told("writable") == [[True]]
    stage.wire.block()
    stage.turn()
    stage.wire.unblock()
    stage.turn()
    stage.publish(publisher, numbered(2))
    stage.turn()
    stage.server.published[0].ack()
    stage.turn()
    stage.wire.cut()
    stage.advance(LONG)
    assert stage.told("writable") == [[True], [False], [True], [False], [True], [False], [True]]


def test_nothing_is_sent_while_the_broker_blocks(confirming: Stage) -> None:
    publisher = connected(confirming)
    confirming.wire.block()
    confirming.turn()
    confirming.publish(publisher, numbered(3))
    confirming.advance(HOUR)
    assert confirming.server.published == []
    confirming.wire.unblock()
    confirming.turn()
    assert confirming.fates.of(Outcome.CONFIRMED) == numbered(3)


def test_a_full_socket_makes_it_unwritable_and_what_waits_follows(confirming: Stage) -> None:
    target = evamqp.Parameters.from_url(URL, output_high_water=10_000)
    publisher = confirming.publisher(target, max_bytes=10**9)
    confirming.turn()
    confirming.wire.transport.pause_reading()
    bodies = [b"%d" % n + bytes(1000) for n in range(500)]
    confirming.publish(publisher, bodies)
    confirming.turn()
    assert not publisher.is_writable
    assert publisher.reconnector.connection is not None
    assert publisher.reconnector.connection.output_size < 300_000
    confirming.wire.transport.resume_reading()
    confirming.turn()
    assert confirming.fates.of(Outcome.CONFIRMED) == bodies
    assert publisher.is_writable


def test_on_writable_never_comes_from_inside_a_call(stage: Stage) -> None:
    inside = [False]
    faults = []

    def on_writable(writable: bool) -> None:
        if inside[0]:
            faults.append(writable)

    publisher = connected(stage, max_messages=1, on_writable=on_writable)
    inside[0] = True
    publisher.publish("", "work", b"x")
    publisher.close(timeout=0)
    inside[0] = False
    stage.turn()
    assert faults == []


# --- callbacks ----------------------------------------------------------------------------------


def test_publishing_inside_a_callback_is_legal(confirming: Stage) -> None:
    publisher = connected(confirming)
    left = [50]

    def again(publication: evamqp.Publication) -> None:
        if left[0]:
            left[0] -= 1
            confirming.publish(publisher, [b"more"])

    confirming.fates.inside = again
    confirming.publish(publisher, [b"first"])
    confirming.turn()
    assert len(confirming.fates.of(Outcome.CONFIRMED)) == 51


def test_a_callback_that_raises_harms_nothing(
    confirming: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(publication: evamqp.Publication) -> None:
        raise ValueError("mine")

    publisher = connected(confirming, on_writable=lambda writable: 1 // 0)
    confirming.fates.inside = fail
    confirming.publish(publisher, numbered(3))
    confirming.turn()
    confirming.wire.cut()
    confirming.advance(LONG)
    assert publisher.is_writable
    assert confirming.fates.of(Outcome.CONFIRMED) == numbered(3)
    assert "mine" in caplog.text


@pytest.mark.parametrize("what", ["publisher", "connection", "reconnector", "timeout"])
def test_closing_inside_a_callback_is_legal(confirming: Stage, what: str) -> None:
    publisher = connected(confirming)

    def close(publication: evamqp.Publication) -> None:
        connection = publisher.reconnector.connection
        if what == "publisher":
            publisher.close()
        elif what == "timeout":
            publisher.close(timeout=0)
        elif what == "reconnector":
            publisher.reconnector.close()
        elif connection is not None:
            connection.close()

    confirming.fates.inside = close
    confirming.publish(publisher, numbered(3))
    confirming.advance(LONG)
    assert [body for body, _ in confirming.fates.log] == numbered(3)
    if what != "connection":
        assert confirming.ended(publisher.close()) == []


def test_a_cancelled_publication_makes_no_callback_and_still_gets_its_outcome(
    confirming: Stage,
) -> None:
    publisher = connected(confirming)
    (publication,) = confirming.publish(publisher, [b"x"])
    publication.cancel()
    confirming.turn()
    assert confirming.fates.log == []
    assert publication.outcome is Outcome.CONFIRMED


# --- the end ------------------------------------------------------------------------------------


def test_close_waits_for_the_outcomes_and_reports_nothing_left(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(2))
    closing = publisher.close()
    stage.turn()
    assert not closing.is_done
    stage.server.published[1].ack(multiple=True)
    assert stage.ended(closing) == []
    assert stage.fates.of(Outcome.CONFIRMED) == numbered(2)
    assert not stage.wire.is_up


def test_close_with_a_timeout_reports_what_is_left_in_publish_order(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(4))
    stage.turn()
    stage.server.published[0].nack()  # waits to be resent, so it is no more the first to send
    stage.server.published[2].ack()
    closing = publisher.close(timeout=0.01)
    stage.advance(1)
    left = stage.ended(closing)
    assert [publication.body for publication in left] == [b"0", b"1", b"3"]
    assert {publication.outcome for publication in left} == {Outcome.ABANDONED}
    assert stage.fates.of(Outcome.ABANDONED) == [b"0", b"1", b"3"]
    assert publisher.pending == 0


def test_close_without_a_broker_ends_at_its_timeout(stage: Stage) -> None:
    stage.server.down()
    publisher = stage.publisher()
    stage.publish(publisher, numbered(2))
    closing = publisher.close(timeout=5)
    stage.advance(6)
    assert [publication.body for publication in stage.ended(closing)] == numbered(2)


def test_close_before_the_first_connect_of_an_empty_publisher_ends_at_once(stage: Stage) -> None:
    publisher = stage.publisher()
    assert stage.ended(publisher.close()) == []
    stage.advance(HOUR)
    assert all(not wire.is_up for wire in stage.server.wires)


def test_close_is_idempotent_and_every_call_gets_the_same_report(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, numbered(1))
    first, second = publisher.close(), publisher.close(timeout=1)
    stage.advance(2)
    assert stage.ended(first) == stage.ended(second)
    assert len(stage.ended(first)) == 1
    assert stage.ended(publisher.close()) == stage.ended(first)


def test_a_close_while_closing_waits_for_the_same_end(stage: Stage) -> None:
    publisher = connected(stage)
    stage.server.held.add("connection.close")
    publisher.close()
    stage.adapter.call_soon(lambda: None)
    stage.turn()
    stage.adapter.accepted[-1].silence()
    first = publisher.close()
    second = publisher.close()
    stage.advance(LONG)
    assert first.is_done
    assert second.is_done


def test_publish_after_close_raises(stage: Stage) -> None:
    publisher = connected(stage)
    publisher.close()
    with pytest.raises(WrongState):
        publisher.publish("", "work", b"x")
    stage.turn()
    with pytest.raises(WrongState):
        publisher.publish("", "work", b"x")


def test_close_does_not_stop_resends_and_recovery(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"nacked", b"lost"])
    stage.turn()
    stage.server.published[0].nack()
    closing = publisher.close()
    stage.turn()
    stage.wire.cut()
    stage.server.on_publish = Publish.ack
    stage.advance(LONG)
    assert stage.ended(closing) == []
    assert sorted(stage.fates.of(Outcome.CONFIRMED)) == [b"lost", b"nacked"]


def test_a_failed_topology_abandons_everything_with_the_reason(stage: Stage) -> None:
    stage.server.refuse("queue.declare", 406)
    topology = Topology("fail")
    topology.queue("work")
    publisher = stage.publisher(topology=topology)
    (publication,) = stage.publish(publisher, [b"x"])
    stage.advance(LONG)
    assert publication.outcome is Outcome.ABANDONED
    assert isinstance(publication.detail, evamqp.TopologyFailed)
    with pytest.raises(WrongState, match="could not declare"):
        publisher.publish("", "work", b"y")
    assert stage.ended(publisher.close()) == [publication]


def test_a_publisher_of_a_closed_reconnector_is_refused(stage: Stage) -> None:
    reconnector = stage.reconnector()
    reconnector.close()
    with pytest.raises(WrongState):
        stage.publisher(reconnector)
    stage.turn()
    with pytest.raises(WrongState):
        stage.publisher(reconnector)


def test_closing_a_shared_reconnector_abandons_what_is_left(stage: Stage) -> None:
    reconnector = stage.reconnector()
    publisher = stage.publisher(reconnector)
    stage.turn()
    (publication,) = stage.publish(publisher, [b"x"])
    reconnector.close()
    stage.turn()
    assert publication.outcome is Outcome.ABANDONED
    assert not publisher.is_writable


def test_publishers_on_one_reconnector_leave_it_open_when_they_close(confirming: Stage) -> None:
    reconnector = confirming.reconnector()
    first, second = confirming.publisher(reconnector), confirming.publisher(reconnector)
    confirming.publish(first, [b"1"])
    confirming.publish(second, [b"2"])
    confirming.turn()
    assert confirming.ended(first.close()) == []
    confirming.publish(second, [b"3"])
    confirming.turn()
    assert sorted(confirming.fates.of(Outcome.CONFIRMED)) == [b"1", b"2", b"3"]
    assert len(confirming.server.wires) == 1


def test_a_closed_publisher_leaves_nothing_behind(confirming: Stage) -> None:
    gc.collect()
    gc.disable()
    try:
        publisher = connected(confirming)
        confirming.publish(publisher, numbered(10), timeout=HOUR)
        confirming.turn()
        confirming.server.on_publish = Publish.nack
        confirming.publish(publisher, [b"nacked"])
        confirming.turn()
        confirming.wire.cut()
        confirming.advance(LONG)
        publisher.close(timeout=1)
        confirming.advance(LONG)
        gone = weakref.ref(publisher.reconnector)
        confirming.fates.log.clear()
        del publisher
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("timeout", [0.0, 1.0, 10.0])
def test_close_keeps_its_timeout_during_an_alarm(stage: Stage, timeout: float) -> None:
    """A broker in alarm reads nothing more: neither what was published nor our close."""
    target = evamqp.Parameters.from_url(URL.replace("heartbeat=0", "heartbeat=4"))
    publisher = connected(stage, target=target)
    stage.publish(publisher, [b"x"])
    stage.wire.block()
    stage.wire.transport.pause_reading()
    stage.turn()
    closing = publisher.close(timeout)
    stage.advance(timeout + 1)
    assert closing.is_done
    assert [p.body for p in stage.ended(closing)] == [b"x"]
    assert publisher.reconnector.connection is None


def test_close_keeps_its_timeout_where_only_the_broker_is_late(confirming: Stage) -> None:
    publisher = connected(confirming)
    confirming.publish(publisher, [b"x"])
    confirming.turn()
    confirming.server.held.add("connection.close")
    confirming.wire.transport.pause_reading()
    closing = publisher.close(timeout=1)
    confirming.advance(0.5)
    assert not closing.is_done
    confirming.advance(1.5)
    assert confirming.ended(closing) == []


def test_a_second_close_may_hurry_the_first(stage: Stage) -> None:
    publisher = connected(stage)
    stage.publish(publisher, [b"x"])
    stage.wire.transport.pause_reading()
    closing = publisher.close()
    stage.advance(60)
    assert not closing.is_done
    publisher.close(timeout=1)
    stage.advance(2)
    assert len(stage.ended(closing)) == 1


# --- cost ---------------------------------------------------------------------------------------


def test_the_cost_of_a_publish_does_not_grow_with_the_window(stage: Stage) -> None:
    publisher = connected(stage, max_messages=100_000, max_bytes=10**9)

    def publish(count: int) -> None:
        for _ in range(count):
            publisher.publish("", "work", b"x", timeout=HOUR)

    publish(20)
    few = count_steps(lambda: publish(20))
    publish(5000)
    assert count_steps(lambda: publish(20)) < 2 * few


def test_the_cost_of_a_confirm_does_not_grow_with_the_window(stage: Stage) -> None:
    publisher = connected(stage, max_messages=100_000, max_bytes=10**9)

    def confirm(number: int) -> None:
        publisher._confirmed(range(number, number + 10), True)

    stage.publish(publisher, numbered(20))
    few = count_steps(lambda: confirm(1))
    stage.publish(publisher, numbered(5000))
    assert count_steps(lambda: confirm(11)) < 2 * few


def test_the_cost_of_a_return_does_not_grow_with_the_window(stage: Stage) -> None:
    publisher = connected(stage, max_messages=100_000, max_bytes=10**9)
    bodies = numbered(3000)
    stage.publish(publisher, bodies)
    returns = [
        evamqp.Returned(312, "", "", "work", Properties(delivery_mode=2), body) for body in bodies
    ]

    def take(some: list[evamqp.Returned]) -> None:
        for returned in some:
            publisher._ledger.match_return(returned)

    few = count_steps(lambda: take(returns[:10]))
    take(returns[10:2900])
    assert count_steps(lambda: take(returns[2900:2910])) < 2 * few


def test_a_publish_costs_few_calls_more_than_a_raw_one(stage: Stage) -> None:
    publisher = connected(stage, max_messages=10_000)
    channel = publisher._channel
    assert channel is not None

    def raw(count: int) -> None:
        for _ in range(count):
            channel.basic_publish("", "work", b"x", publisher._completed[1], True)

    def kept(count: int) -> None:
        for _ in range(count):
            publisher.publish("", "work", b"x")

    for work in (raw, kept):
        work(100)
    # Checks, the ledger's entry, and the look at whether more may be sent.
    assert count_calls(lambda: kept(100)) - count_calls(lambda: raw(100)) <= 35 * 100


# --- why a publish has no outcome ----------------------------------------------------------------

TROUBLES: dict[str, tuple[Callable[[Stage], object], type[evamqp.AmqpError], str]] = {
    "no confirm": (lambda stage: None, evamqp.RequestTimeout, "has not confirmed"),
    "alarm": (lambda stage: stage.wire.block(), evamqp.NotReady, "alarm"),
    "no broker": (lambda stage: stage.server.down(), evamqp.NotReady, "nothing listens"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.ABANDONED])
def test_the_detail_tells_why_a_publish_has_no_outcome(
    stage: Stage, outcome: Outcome, trouble: str
) -> None:
    begin, kind, words = TROUBLES[trouble]
    publisher = connected(stage)
    begin(stage)
    stage.turn()
    timeout = 5 if outcome is Outcome.EXPIRED else None
    (publication,) = stage.publish(publisher, [b"x"], timeout=timeout)
    stage.advance(1)
    if timeout is None:
        publisher.close(timeout=1)
    stage.advance(LONG)
    assert publication.outcome is outcome
    assert isinstance(publication.detail, kind)
    assert words in str(publication.detail)
    assert (publication.detail.__cause__ is not None) is (trouble == "no broker")
